// Numbers and names as people read them.

export const two = (value) => value.toFixed(2);
export const percent = (value) => {
  const found = 100 * value;
  return found > 0 && found < 0.5 ? "<1" : found < 100 && found > 99.5 ? ">99" : String(Math.round(found));
};
export const count = (value) => value.toLocaleString("en");
export const signed = (value, digits = 2) => {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
};
export const range = ([low, high]) => `${two(low)}–${two(high)}`;
export const plusMinus = (one, digits = 3) =>
  one?.value == null ? "–" : `${minus(one.value, digits)} ± ${one.standard_error == null ? "?" : one.standard_error.toFixed(digits)}`;
export const minus = (value, digits = 3) => value.toFixed(digits).replace("-", "−");
export const plain = (name) => name.replaceAll("_", " ");
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
// At most so many characters, cut between words.
export const clipped = (text, most = 40) => (text.length <= most ? text : `${text.slice(0, Math.max(0, text.lastIndexOf(" ", most)) || most)} …`);
export const either = (names) => names.join(" or ");

// "about 83 of 100", with the ends distinct from never and always.
export function ofHundred(probability) {
  const found = percent(probability);
  return found === "<1" || found === "0" ? "fewer than 1" : found === ">99" || found === "100" ? "more than 99" : `about ${found}`;
}

const STEPS = {
  model: "the model alone", loss_inverse: "the loss’s inverse", focal_inverse: "the loss’s inverse", temperature: "temperature",
  platt: "Platt scaling", beta: "beta map", isotonic: "isotonic map", venn_abers: "Venn–Abers", prior_shift: "prior shift",
};
export const stepName = (step) => STEPS[step] ?? plain(step);
