// Which columns of a file are the table's, and which are added to them.

import { schema } from "../schema.js";
import { clipped } from "../words.js";

const OF_POSITIVE = ["probability", "interval_low", "interval_high"];
const SHOWN_COLUMNS = 12, SHOWN_CHARACTERS = 300;

// The fields that a heading has, each with its place; throws an Error that says what is missing or there twice.
export function findColumns(heading) {
  const names = heading.map((one) => one.trim().toLowerCase());
  const places = (field) => names.flatMap((one, at) => (one === field.name || one === columnOf(field).toLowerCase() ? [at] : []));
  const columns = schema.fields.map((field) => ({ field, places: places(field) }));
  const there = `The first line has: ${clipped(heading.slice(0, 20).join(", "), SHOWN_CHARACTERS) || "nothing"}.`;
  const missing = columns.filter((one) => one.field.required && !one.places.length).map((one) => one.field);
  if (missing.length) throw new Error(`The column${missing.length > 1 ? "s" : ""} ${listed(missing)} ${missing.length > 1 ? "are" : "is"} missing. ${there}`);
  const twice = columns.find((one) => one.places.length > 1);
  if (twice) throw new Error(`The column ${columnOf(twice.field)} is there ${twice.places.length} times.`);
  const found = columns.filter((one) => one.places.length).map(({ field, places: [at] }) => ({ field, at }));
  if (!found.length) throw new Error(`No column is one of the model’s. ${there}`);
  return found;
}

// The names of what is added to each row: where the table has a column of that name, another. Throws an Error where the
// file has one.
export function addedColumns(heading) {
  const own = new Set(schema.columns.map((name) => name.toLowerCase()));
  // Of more than two classes, each has its own.
  const numbers = schema.binary ? OF_POSITIVE : schema.classes.flatMap((each) => OF_POSITIVE.map((name) => `${name}_${each}`));
  const names = ["outcome", ...numbers, "prediction_set", "typicality", "warnings", "error"];
  const added = names.map((name) => (own.has(name) ? `prediction_${name}` : name)), already = added.find((name) => heading.includes(name));
  if (already) throw new Error(`The file has a column ${already} already, which the result adds.`);
  return added;
}

// "Pages, Weight and 3 more" of fields' columns.
export function listed(fields) {
  const names = fields.slice(0, SHOWN_COLUMNS).map(columnOf), more = fields.length - names.length;
  const last = more ? `${more} more` : names.pop();
  return names.length ? `${names.join(", ")} and ${last}` : last;
}

const columnOf = (field) => field.column ?? field.name;
