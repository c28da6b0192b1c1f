// Server-sent events (HTML Standard, section 9.2) by fetch, which can bear a key where EventSource cannot.

import { pause } from "../api.js";
import { fetchWithKey } from "../key.js";

const TYPE = "text/event-stream", LONGEST_WAIT_SECONDS = 30;

// Follow a stream until `signal` says so. `onEvent(name, data)`: an event; `onLost()`: it broke off or was refused, and is
// asked for again: after the time that the stream named, or, where it is refused over and over, ever later.
export async function followEvents(path, signal, { onEvent, onLost }) {
  const reader = new EventReader();
  for (let refusals = 0; !signal.aborted;) {
    const stream = await open(path, reader.lastId, signal).catch(() => null);
    refusals = stream ? 0 : refusals + 1;
    if (stream) await follow(stream, reader, signal, onEvent);
    if (signal.aborted) return;
    onLost();
    const seconds = refusals ? Math.min(2 ** (refusals - 1), LONGEST_WAIT_SECONDS) : reader.retrySeconds;
    await pause(seconds, signal).catch(() => {});
  }
}

async function follow(stream, reader, signal, onEvent) {
  reader.begin();
  for (;;) {
    const { value, done } = await stream.read().catch(() => ({ done: true }));
    if (done) return;
    for (const { name, data } of reader.read(value)) {
      if (signal.aborted) return;
      try { onEvent(name, data); } catch (error) { reportError(error); }
    }
  }
}

async function open(path, lastId, signal) {
  const headers = { Accept: TYPE, ...(lastId ? { "Last-Event-ID": lastId } : {}) };
  const response = await fetchWithKey(path, { headers, cache: "no-store", signal });
  if (response.status === 200 && response.headers.get("Content-Type")?.startsWith(TYPE)) {
    return response.body.pipeThrough(new TextDecoderStream()).getReader();
  }
  response.body?.cancel();
  throw new Error(`no events: status ${response.status}`);
}

// The text of a stream, piece by piece, into its events; what a stream that breaks off has begun is dropped.
export class EventReader {
  constructor() {
    this.lastId = "";
    this.retrySeconds = 3;
    this.begin();
  }

  // Another stream in place of the one that broke off: its id and its time to wait stay.
  begin() {
    this.text = "";
    this.name = this.data = "";
    this.id = this.lastId;
  }

  // {name, data} of the events that this piece ends.
  read(piece) {
    const found = [];
    this.text += piece;
    // A carriage return that ends the piece may be half of a line's end.
    for (let end; (end = /\r\n|\n|\r(?!$)/.exec(this.text));) {
      const line = this.text.slice(0, end.index);
      this.text = this.text.slice(end.index + end[0].length);
      if (line === "") found.push(...this.#ended());
      else this.#field(line);
    }
    return found;
  }

  #field(line) {
    const colon = line.indexOf(":"), name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.name = value;
    else if (name === "data") this.data += `${value}\n`;
    else if (name === "id" && !value.includes("\0")) this.id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retrySeconds = Number(value) / 1000;
  }

  #ended() {
    const { name, data } = this;
    this.lastId = this.id;
    this.name = this.data = "";
    return data ? [{ name: name || "message", data: data.slice(0, -1) }] : [];
  }
}
