// CSV (RFC 4180) in and out. A file comes in pieces, so that one of any length is read in little memory.

const MAX_CELL = 100_000;

// Rows of cells from pieces of text. Quotes, doubled quotes, line breaks in quotes, CRLF, LF and CR; empty lines are left out.
export class CsvReader {
  #separator = null;
  #head = "";
  #cell = "";
  #row = [];
  #quoted = false;
  #closed = false;
  #started = false;
  #return = false;

  // The rows that are whole after this piece.
  read(piece) {
    if (this.#separator !== null) return this.#take(piece);
    this.#head += piece;
    // The first line decides what separates cells.
    if (!/[\r\n]/.test(this.#head)) return this.#bounded(this.#head.length, []);
    return this.#begin();
  }

  // The last row, if the file does not end with a line break.
  end() {
    const rows = this.#separator === null ? this.#begin() : [];
    if (this.#cell !== "" || this.#row.length || this.#started) rows.push(this.#finish());
    return rows;
  }

  #begin() {
    const line = this.#head.split(/[\r\n]/, 1)[0];
    const times = (one) => line.split(one).length;
    this.#separator = [",", ";", "\t", "|"].reduce((best, one) => (times(one) > times(best) ? one : best));
    const text = this.#head.replace(/^\uFEFF/, "");
    this.#head = "";
    return this.#take(text);
  }

  #take(text) {
    const rows = [];
    for (const one of text) {
      if (this.#return && one === "\n") { this.#return = false; continue; }
      this.#return = false;
      if (this.#quoted) {
        if (one === '"') { this.#quoted = false; this.#closed = true; } else this.#cell += one;
      } else if (one === '"' && this.#closed) {
        this.#cell += one; this.#quoted = true; this.#closed = false;
      } else if (one === '"' && this.#cell === "") {
        this.#quoted = this.#started = true;
      } else if (one === this.#separator) {
        this.#row.push(this.#cell); this.#cell = ""; this.#closed = this.#started = false;
      } else if (one === "\n" || one === "\r") {
        this.#return = one === "\r";
        if (this.#cell !== "" || this.#row.length || this.#started) rows.push(this.#finish());
      } else { this.#cell += one; }
    }
    return this.#bounded(this.#cell.length, rows);
  }

  #finish() {
    const row = [...this.#row, this.#cell];
    this.#row = []; this.#cell = ""; this.#closed = this.#started = this.#quoted = false;
    return row;
  }

  #bounded(length, rows) {
    if (length > MAX_CELL) throw new Error("a cell has more than 100,000 characters: is a quotation mark missing, or is this no CSV file?");
    return rows;
  }
}

// A row of cells as a line.
export function csvLine(cells) {
  return cells.map((one) => (/[",\r\n]/.test(one) ? `"${one.replaceAll('"', '""')}"` : one)).join(",") + "\r\n";
}
