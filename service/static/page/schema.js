// The table that the model reads: its fields, the words for their values, its classes, and what its rows are called.

import { plain, sentence } from "./words.js";

const YES_NO = { false: "no", true: "yes" };

// A description as the bundle carries it (schema.json). Names and words are a user's text: never markup, never a key
// that is looked up without asking whether it is the object's own.
export class Schema {
  #fields;

  constructor({ fields = [], label, group = "", row = "row", rows, question = "", examples = [], text = [] }) {
    this.fields = fields;
    this.#fields = new Map(fields.map((field) => [field.name, field]));
    this.columns = [label.column, group, ...fields.flatMap((field) => [field.name, field.column ?? field.name])];
    this.classes = label.classes.map((one) => one.name);
    this.target = sentence(plain(label.column));
    this.row = plain(row);
    this.rows = plain(rows ?? `${row}s`);
    this.question = question;
    this.examples = examples;
    // Whether the model reads a text as it stands, and not only what code makes of it.
    this.readsTexts = fields.some(({ name, type }) => type === "text" && text.some((phrase) => phrase.includes(`{${name}}`)));
  }

  // The class that `probability` is of, where there are two.
  get positive() { return this.classes.at(-1) ?? ""; }
  get binary() { return this.classes.length === 2; }

  find(name) { return this.#fields.get(name); }

  // A field's name for people.
  labelOf(name) {
    return this.find(name)?.title || sentence(plain(name));
  }

  // A bin of the drift counters for people: a range, a level or a truth value.
  binName(name, bin) {
    const field = this.find(name);
    if (!field) return bin;
    // A level that is called so itself keeps the name, and the bin gets another.
    if (/^(unknown|other)_+$/.test(bin) && !field.levels?.includes(bin)) return bin.startsWith("unknown") ? "no value" : "all others";
    return field.type === "category" || field.type === "boolean" ? levelName(field, bin) : rangeName(bin);
  }
}

export let schema = new Schema({ label: { column: "", classes: [] } });
let resolve;
// Kept once there is a schema.
export const known = new Promise((done) => { resolve = done; });
export function setSchema(found) { schema = new Schema(found); resolve(); }

// A category's level, or "false" or "true" of a boolean, in the schema's words.
export function levelName(field, level) {
  const key = String(level), words = field.words ?? {};
  if (Object.hasOwn(words, key)) return words[key];
  if (field.type !== "boolean" || !Object.hasOwn(YES_NO, key)) return key;
  return String(field.levels?.[Number(key === "true")] ?? YES_NO[key]);
}

// The values that a category or a boolean may have, with their words.
export function choices(field) {
  const values = field.type === "boolean" ? [false, true] : field.levels;
  return values.map((value) => ({ value, name: levelName(field, value) }));
}

// "0–120 years", with what there is of bounds and unit.
export function bounds({ minimum, maximum, unit = "" }) {
  const span = minimum != null && maximum != null ? rangeName(`${minimum}-${maximum}`)
    : minimum != null ? `≥ ${minimum}` : maximum != null ? `≤ ${maximum}` : "";
  return [span, unit].filter(Boolean).join(" ");
}

const NUMBER = String.raw`[+-]?[\d.]+(?:e[+-]?\d+)?`, SPAN = new RegExp(`^(${NUMBER})-(${NUMBER})$`);

function rangeName(span) {
  const [, low, high] = SPAN.exec(span) ?? [];
  if (low === undefined) return span;
  return /[-e]/.test(low + high) ? `${low} to ${high}`.replaceAll("-", "−") : `${low}–${high}`;
}

// What is left out of a form's first row has the value from the middle, as far as a schema tells one.
export function middle(field) {
  if (field.default != null) return field.default;
  if (field.type === "category") return field.levels[0];
  if (field.type === "boolean") return false;
  if (field.type === "text") return null;
  const value = field.bins[Math.floor(field.bins.length / 2)];
  return field.type === "integer" ? Math.round(value) : value;
}
