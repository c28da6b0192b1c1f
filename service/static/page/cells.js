// Text → what is sent for a field. What a field does not accept stays text, so that the service itself says what it takes.

const UNKNOWN = new Set(["", "na", "nan", "n/a", "null", "none", "<na>"]);
const TRUTH = new Map(Object.entries({ 0: false, no: false, n: false, false: false, f: false, 1: true, yes: true, y: true, true: true, t: true }));
const NUMBER = /^[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?$/i;

// What is typed for a number; decimal commas are read. null: nothing is.
export function parseNumber(text) {
  const trimmed = text.trim();
  if (trimmed === "") return null;
  return NUMBER.test(trimmed) ? Number(trimmed.replace(",", ".")) : trimmed;
}

// A cell of a file, by its field; null is unknown.
export function parseCell(field, cell) {
  const text = cell.trim();
  if (field.type === "text") return text || null;
  if (field.type === "category") return level(field, text) ?? (UNKNOWN.has(text.toLowerCase()) ? null : text);
  if (UNKNOWN.has(text.toLowerCase())) return null;
  return field.type === "boolean" ? truth(field, text) ?? text : parseNumber(text);
}

// The level that is spelled so, or, where only one is, so but for case; 3.0 is how a table with gaps spells 3.
function level({ levels }, text) {
  const spelled = (one) => levels.find((known) => String(known) === one);
  const alike = levels.filter((known) => String(known).toLowerCase() === text.toLowerCase());
  return spelled(text) ?? (alike.length === 1 ? alike[0] : undefined) ?? spelled(whole(text));
}

function truth({ levels = [] }, text) {
  const known = levels.length ? new Map(levels.map((one, index) => [String(one).toLowerCase(), index === 1])) : TRUTH;
  return known.get(text.toLowerCase()) ?? known.get(whole(text));
}

const whole = (text) => (NUMBER.test(text) && Number.isInteger(Number(text)) ? String(Number(text)) : text);
