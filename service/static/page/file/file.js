// A CSV file in, the same rows with their probabilities out: read in pieces, scored in batches, one at a time.

import { ask, pause, Refusal } from "../api.js";
import { parseCell } from "../cells.js";
import { addedColumns, findColumns, listed } from "./columns.js";
import { CsvReader, csvLine } from "./csv.js";
import { by, html, speaker, table } from "../elements.js";
import { known, schema } from "../schema.js";
import { clipped, count, either, percent } from "../words.js";

const BATCH_ROWS = 256, BATCH_CHARACTERS = 300_000, SHOWN_ROWS = 8, MAX_TRIES = 20;

const say = speaker(by("file-spoken"), 300);
let running = null, address = null;

export function startFile() {
  const drop = by("drop");
  by("file").addEventListener("change", () => { if (by("file").files.length) begin(by("file").files[0]); by("file").value = ""; });
  by("file-stop").addEventListener("click", () => running?.abort());
  // Anywhere on the page: a file that misses the box must not take the page's place.
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    drop.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) begin(file);
  });
}

// Say which columns a file must have, and which are used.
export function describeFile() {
  const required = schema.fields.filter((one) => one.required), others = schema.fields.filter((one) => !one.required);
  by("file-lead").textContent = `Choose a CSV of ${schema.rows}. The same rows come back with their probabilities.`;
  by("file-needs").textContent = ["Columns are found by name, in any order.",
    required.length ? `Needed: ${listed(required)}.` : "",
    others.length ? `Used if present: ${listed(others)}.` : "", "All other columns are kept."].filter(Boolean).join(" ");
}

async function begin(file) {
  running?.abort();
  const mine = running = new AbortController();
  const run = new Run(file);
  opened(file);
  try {
    await run.whole(mine.signal, (share) => { if (mine === running) progress(run, share); });
    if (mine === running) finished(run, "");
  } catch (error) {
    if (mine !== running) return;
    if (error.name === "AbortError") finished(run, "Stopped. ");
    else { problem(error.message); finished(run, "Not finished. "); }
  }
}

// One file on its way through the service.
class Run {
  constructor(file) {
    this.file = file;
    this.done = this.bad = 0;
    this.sum = 0;
    this.abstained = 0;
    this.outcomes = new Map();
    this.columns = null;
    this.parts = [];
    this.first = [];
    this.started = performance.now();
  }

  // Read, score and keep all of it; throws AbortError, or an Error that says what is wrong.
  async whole(signal, onProgress) {
    const reader = new CsvReader(), text = this.file.stream().pipeThrough(new TextDecoderStream()).getReader();
    let waiting = [], read = 0;
    try {
      await until(known, signal);
      for (;;) {
        const { value: piece, done } = await text.read();
        waiting.push(...(done ? reader.end() : reader.read(piece)));
        if (!done) read += piece.length;
        if (this.columns === null && waiting.length) this.#heading(waiting.shift());
        while (waiting.length >= BATCH_ROWS || (done && waiting.length)) {
          const batch = waiting.splice(0, batchRows(waiting, this.names)), behind = done ? 0 : waiting.length / (this.done + batch.length + waiting.length);
          await this.#score(batch, signal);
          onProgress(Math.min(1, (read / Math.max(1, this.file.size)) * (1 - behind)));
        }
        if (done) break;
      }
    } finally { text.cancel().catch(() => {}); }
    if (this.columns === null) throw new Error("The file is empty.");
    if (!this.done) throw new Error("The file has a heading, and no rows.");
  }

  #heading(cells) {
    const found = findColumns(cells), added = addedColumns(cells);
    this.columns = found;
    this.outcomes = new Map(schema.classes.map((name) => [name, 0]));
    this.names = found.reduce((sum, { field }) => sum + field.name.length + 5, 0);
    this.width = cells.length;
    this.shown = found.find(({ field }) => field.type === "text")?.at ?? 0;
    this.heading = cells[this.shown].trim();
    this.errors = added.at(-1);
    this.parts.push(csvLine([...cells, ...added]));
    by("file-columns").textContent = `Read from ${clipped(found.map(({ at }) => cells[at].trim()).join(", "), 600)}.`;
  }

  // A row as it is sent; what is unknown is left out, and so has its default.
  #row(cells) {
    const values = this.columns.map(({ field, at }) => [field.name, parseCell(field, cells[at])]);
    return Object.fromEntries(values.filter(([, value]) => value !== null));
  }

  // Rows that the service refuses are separated apart by its faults and left out; the others are asked for again.
  async #score(rows, signal) {
    const errors = rows.map((row) => (row.length === this.width ? null : `${row.length} cells instead of ${this.width}`));
    const answers = rows.map(() => null);
    for (let left = open(errors); left.length; left = open(errors)) {
      try {
        const { predictions } = await patient({ rows: left.map((at) => this.#row(rows[at])) }, signal);
        left.forEach((at, place) => { answers[at] = predictions[place]; });
        break;
      } catch (error) {
        const named = new Map();
        for (const { pointer, message } of error.faults ?? []) {
          const [, , place, field] = pointer.split("/");
          if (place !== undefined && left[place] !== undefined) {
            named.set(left[place], [...(named.get(left[place]) ?? []), `${field ?? "row"}: ${message.split("; accepted: {")[0].replaceAll("`", "")}`]);
          }
        }
        if (!named.size) throw error;
        for (const [at, messages] of named) errors[at] = messages.join("; ");
      }
    }
    this.parts.push(rows.map((row, at) => csvLine([...fitted(row, this.width), ...added(answers[at], errors[at])])).join(""));
    rows.forEach((row, at) => this.#count(row, answers[at], errors[at]));
  }

  #count(row, answer, error) {
    this.done++;
    if (answer) {
      this.sum += answer.probability ?? 0;
      this.outcomes.set(answer.outcome, (this.outcomes.get(answer.outcome) ?? 0) + 1);
      this.abstained += answer.confidence.abstain;
    } else { this.bad++; }
    if (this.first.length < SHOWN_ROWS) this.first.push([clipped(row[this.shown] || row[0], 60), answer, error]);
  }
}

// That of the positive class, or with more than two of the likeliest.
const probabilityOf = (answer) => answer.probability ?? answer.probabilities[answer.outcome];
const intervalOf = ({ outcome, confidence }) => confidence.interval ?? confidence.intervals[outcome];
// How many of the rows go into one request: fewer where their cells, or the names of their fields, are long.
function batchRows(rows, names) {
  let characters = 0;
  const end = rows.findIndex((row) => (characters += row.reduce((sum, cell) => sum + cell.length, names)) > BATCH_CHARACTERS);
  return end < 0 ? BATCH_ROWS : Math.max(1, Math.min(BATCH_ROWS, end));
}

const open = (errors) => errors.flatMap((error, at) => (error === null ? [at] : []));
const fitted = (row, width) => (row.length <= width ? [...row, ...Array(width - row.length).fill("")] : row.slice(0, width));

function added(answer, error) {
  if (!answer) return [...Array(4 + 3 * (schema.binary ? 1 : schema.classes.length)).fill(""), error];
  const { interval, intervals, prediction_set: set, typicality, warnings } = answer.confidence;
  const numbers = schema.binary ? [answer.probability, ...interval] : schema.classes.flatMap((name) => [answer.probabilities[name], ...intervals[name]]);
  return [answer.outcome, ...numbers.map(String), set.join("|"), String(typicality), warnings.map((one) => `${one.field}: ${one.message}`).join("; "), ""];
}

// What a promise gives, or AbortError when `signal` says so.
const until = (promise, signal) => new Promise((done, failed) => {
  promise.then(done, failed);
  signal.addEventListener("abort", () => failed(signal.reason), { once: true });
});

// Ask until the service has room, as long as it says it will.
async function patient(body, signal) {
  for (let tries = 1; ; tries++) {
    signal.throwIfAborted();
    try {
      return await ask("v1/predict/batch", body, signal);
    } catch (error) {
      if (!(error instanceof Refusal) || !error.passing || tries >= MAX_TRIES) throw error;
      by("file-state").textContent = `Waiting: ${error.message}.`;
      await pause(error.retryAfterSeconds ?? Math.min(tries, 10), signal);
    }
  }
}

function opened(file) {
  if (address) URL.revokeObjectURL(address);
  address = null;
  by("file-name").textContent = file.name;
  by("file-columns").textContent = "";
  by("file-state").textContent = "Waiting for the service …";
  by("file-summary").replaceChildren();
  by("file-problem").hidden = true;
  by("file-download").hidden = true;
  by("file-stop").hidden = false;
  by("file-progress").value = 0;
  by("file-run").hidden = false;
}

function progress(run, share) {
  const rate = run.done / ((performance.now() - run.started) / 1000);
  by("file-progress").value = share;
  by("file-state").textContent = `${count(run.done)} rows, ${count(Math.round(rate))} a second.`;
}

function problem(text) {
  by("file-problem").textContent = text;
  by("file-problem").hidden = false;
}

function finished(run, before) {
  by("file-stop").hidden = true;
  by("file-state").textContent = "";
  if (!run.done) { by("file-run").hidden = true; return; }
  by("file-progress").value = before ? by("file-progress").value : 1;
  address = URL.createObjectURL(new Blob(["\uFEFF", ...run.parts], { type: "text/csv" }));
  const link = by("file-download");
  link.href = address;
  link.download = `${run.file.name.replace(/\.[^.]*$/, "")}.scored.csv`;
  link.hidden = false;
  const good = run.done - run.bad, errors = run.bad ? ` ${count(run.bad)} could not be scored; the column ${run.errors} says why.` : "";
  const text = `${before}${count(good)} rows scored.${errors}`;
  by("file-state").textContent = text;
  say(text);
  if (!good) return;
  by("file-summary").replaceChildren(html("p", { class: "fine" }, summary(run, good)),
    table("The first rows", [run.heading || "row", "outcome", "probability", "interval", "set"], run.first.map(([name, answer, error]) => answer
      ? [name, answer.outcome, probabilityOf(answer).toFixed(3), intervalOf(answer).map((one) => one.toFixed(3)).join("–"), either(answer.confidence.prediction_set) || "no outcome"]
      : [name, "–", "–", "–", html("span", { class: "why-not" }, error)])));
}

function summary(run, good) {
  const share = schema.binary ? `On average ${percent(run.sum / good)} of 100 ${schema.rows} are expected to be “${schema.positive}”. ` : "";
  const outcomes = [...run.outcomes].filter(([, rows]) => rows).map(([name, rows]) => `${name} for ${count(rows)}`).join(", ");
  return `${share}The likeliest outcome is ${outcomes}; ${count(run.abstained)} get no single answer.`;
}
