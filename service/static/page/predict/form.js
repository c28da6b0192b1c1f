// The form of a row, made from the schema: a control for each field, its notes, and a search where there are many.

import { parseNumber } from "../cells.js";
import { by, html } from "../elements.js";
import { bounds, choices, middle, schema } from "../schema.js";

// More fields than these are shown when they are asked for.
const FIRST_FIELDS = 20;
// Few and short levels are buttons side by side; in a form of many fields only where half a line holds them.
const MAX_BUTTONS = 3, MAX_BUTTON_CHARACTERS = 40, HALF_BUTTON_CHARACTERS = 12, MANY_FIELDS = 12;
// A longer text has a line of its own, and one that is longer still several.
const HALF_CHARACTERS = 60, LINE_CHARACTERS = 200, LONG_NAME = 24, ONE_LINE = 24;

let controls = new Map(), first = new Set(), all = false;

export function startForm() {
  by("row-search").addEventListener("input", (event) => { event.stopPropagation(); arrange(); });
  by("row-all").addEventListener("click", () => { all = !all; arrange(); });
}

// Make the form anew, from the schema as it is now.
export function buildForm() {
  const { fields } = schema;
  controls = new Map(fields.map((field) => [field.name, control(field)]));
  first = new Set([...fields.filter((one) => one.required), ...fields.filter((one) => !one.required)].slice(0, FIRST_FIELDS).map((one) => one.name));
  all = false;
  by("row-search").value = "";
  by("row-many").hidden = by("row-all").hidden = fields.length <= FIRST_FIELDS;
  by("row-fields").replaceChildren(...[...controls.values()].map((one) => one.element));
  by("row-unknown").textContent = unknowns(fields);
  by("row-form").hidden = false;
  arrange();
}

// What the form holds, as it is sent.
export const readRow = () => Object.fromEntries([...controls].map(([name, one]) => [name, one.read()]));

// Put a row into the form; what it leaves out has its default, or is unknown.
export function fillRow(row) {
  for (const [name, one] of controls) one.write(Object.hasOwn(row, name) ? row[name] : one.field.default ?? null);
}

// A row to begin with: of each field a value from the middle, or with `sparse` only of those that need one.
export function startingRow(sparse = false) {
  return Object.fromEntries(schema.fields.filter((one) => one.required || !sparse).map((one) => [one.name, middle(one)]));
}

// Show a sentence at each field that the map has one for, as a fault or as a remark.
export function showNotes(texts, faulty) {
  for (const [name, { input, note }] of controls) {
    const text = texts.get(name) ?? "", wrong = faulty && text !== "";
    if (note.textContent !== text) note.textContent = text;
    note.classList.toggle("fault", wrong);
    input.toggleAttribute("aria-invalid", false);
    if (wrong) input.setAttribute("aria-invalid", "true");
  }
  arrange();
}

// Fields that are searched for; without a search the first ones, all if asked for, and those with a fault.
function arrange() {
  const words = by("row-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const [name, { element, note, text }] of controls) {
    const found = words.length ? words.every((one) => text.includes(one)) : all || first.has(name);
    element.hidden = !found && !note.classList.contains("fault");
    shown += !element.hidden;
  }
  by("row-shown").textContent = `${shown} of ${controls.size} fields`;
  by("row-all").hidden = controls.size <= FIRST_FIELDS || words.length > 0;
  by("row-all").textContent = all ? "Show fewer fields" : `Show all ${controls.size} fields`;
  by("row-all").setAttribute("aria-expanded", String(all));
}

function unknowns(fields) {
  if (fields.every((one) => one.required)) return "Every field is needed.";
  const typed = fields.some((one) => one.required && needsTyping(one));
  return `Leave empty what is unknown${typed ? "; fields with * are needed" : ""}.`;
}

// Where every field is needed, one sentence says so.
const marked = (field) => field.required && schema.fields.some((one) => !one.required);
const needsTyping = ({ type }) => type !== "category" && type !== "boolean";

// One field: its element, the control that takes its value, where its note stands, and what a search finds it by.
function control(field) {
  const id = `field-${field.name}`, label = schema.labelOf(field.name);
  const note = html("p", { class: "note", id: `${id}-note` });
  const about = field.meaning ? html("p", { class: "hint", id: `${id}-about` }, field.meaning) : null;
  const describedBy = [`${id}-note`, about && `${id}-about`].filter(Boolean).join(" ");
  const made = maker(field)({ field, id, label, describedBy });
  const element = html("div", { class: made.wide ? "field wide" : "field" }, made.content, about, note);
  const text = [label, field.name, field.meaning, field.unit].filter(Boolean).join(" ").toLowerCase();
  return { field, element, note, text, input: made.input, read: made.read, write: made.write };
}

function maker(field) {
  if (needsTyping(field)) return typed;
  const options = choices(field), most = schema.fields.length > MANY_FIELDS ? HALF_BUTTON_CHARACTERS : MAX_BUTTON_CHARACTERS;
  return field.required && options.length <= MAX_BUTTONS && characters(options) <= most ? buttons : list;
}

const characters = (options) => options.reduce((sum, { name }) => sum + name.length, 0);

function buttons({ field, id, label, describedBy }) {
  const options = choices(field), inputs = options.map((_, index) => html("input", { type: "radio", name: id, value: index }));
  const input = html("fieldset", { class: "choice", role: "radiogroup", id, "aria-describedby": describedBy },
    html("legend", {}, label), options.map(({ name }, index) => html("label", {}, inputs[index], html("span", {}, name))));
  return {
    content: input, input, wide: characters(options) > HALF_BUTTON_CHARACTERS,
    read: () => options[inputs.findIndex((one) => one.checked)]?.value ?? null,
    write(value) { options.forEach((one, index) => { inputs[index].checked = one.value === value; }); },
  };
}

function list({ field, id, label, describedBy }) {
  const options = choices(field);
  const input = html("select", { id, "aria-describedby": describedBy }, field.required ? null : html("option", { value: "" }, "unknown"),
    options.map(({ name }, index) => html("option", { value: index }, name)));
  return {
    content: [html("label", { for: id }, label), input], input, wide: options.some((one) => one.name.length > LONG_NAME),
    read: () => (input.value === "" ? null : options[Number(input.value)].value),
    write(value) {
      const at = options.findIndex((one) => one.value === value);
      input.value = at < 0 ? "" : String(at);
    },
  };
}

function typed({ field, id, label, describedBy }) {
  const numeric = field.type !== "text", length = field.max_length ?? Infinity, long = !numeric && length > LINE_CHARACTERS;
  const input = html(long ? "textarea" : "input", {
    id, "aria-describedby": describedBy, "aria-required": field.required ? "true" : null, ...(long ? { rows: 3 } : { type: "text" }),
    inputmode: field.type === "number" ? "decimal" : numeric ? "numeric" : null, maxlength: numeric ? null : field.max_length,
  });
  const span = numeric ? bounds(field) : "";
  const title = html("label", { for: id }, label, marked(field) ? html("span", { class: "needed", "aria-hidden": "true" }, " *") : null,
    span ? [" ", html("small", { class: span.length > ONE_LINE ? "wraps" : null }, span)] : null);
  return {
    content: [title, input], input, wide: !numeric && length > HALF_CHARACTERS,
    read: () => (numeric ? parseNumber(input.value) : input.value.trim() || null),
    write(value) { input.value = value == null ? "" : String(value); },
  };
}
