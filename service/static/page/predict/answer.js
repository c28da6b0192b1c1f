// An answer in words and pictures: a figure, a scale or a bar for each class, what is behind it, and what was true.

import { answeredBy, by, drawn, html } from "../elements.js";
import { bars, steps } from "./classes.js";
import { scale } from "./scale.js";
import { schema } from "../schema.js";
import { either, ofHundred, percent, range } from "../words.js";

let drawScale = null;

// Show a prediction; returns the sentence for a screen reader. `prevalence`: the share of the training rows that are of
// the positive class, or null.
export function showAnswer({ model, outcome, decision, probability, probabilities, confidence }, prevalence) {
  answeredBy(model.version);
  // With two classes it is about the positive one, else about the likeliest.
  const name = schema.binary ? schema.positive : outcome, p = schema.binary ? probability : probabilities[outcome];
  by("answer").hidden = false;
  stale(false);
  by("percent").textContent = percent(p);
  by("percent-of").textContent = name;
  brief(p);
  by("verdict").replaceChildren(`Of 100 such ${schema.rows}: ${ofHundred(p)} `, html("b", {}, name), ".");
  by("scale").hidden = by("scale-about").hidden = !schema.binary;
  by("classes").hidden = by("steps").hidden = schema.binary;
  if (schema.binary) (drawScale ??= drawn(by("scale"), scale))({ probability, confidence, prevalence, name });
  else {
    by("classes").replaceChildren(...bars(probabilities, confidence));
    by("steps-table").replaceChildren(steps(probabilities, confidence));
  }
  by("says").replaceChildren(...sayings(confidence, decision).map(([title, text]) => html("li", {}, html("span", {}, title), html("span", {}, text))));
  return `${percent(p)} percent ${name}. Prediction set: ${either(confidence.prediction_set) || "no outcome"}.`;
}

export const stale = (on) => by("answer").classList.toggle("stale", on);

// The answer in one line, where the form fills the screen and the answer is below it.
function brief(probability) {
  const [number, track] = by("brief").children;
  number.textContent = `${percent(probability)} %`;
  track.firstChild.style.width = `${100 * probability}%`;
  by("brief").hidden = false;
}

function sayings({ interval, prediction_set: set, coverage, typicality, warnings }, decision) {
  const others = schema.classes.length > 2, { row, rows } = schema;
  const sure = `Such sets hold the true outcome of ${percent(coverage)} ${rows} in 100, within each outcome.`;
  const held = set.length === 1 ? `Only “${set[0]}”: ${others ? "all other outcomes are" : "the other outcome is"} ruled out. ${sure}`
    : set.length ? `${either(set.map((one) => `“${one}”`))}: ${set.length > 2 ? "none of these" : "neither"} can be ruled out, so there is no single answer. ${sure}`
    : `Empty: ${others ? "every outcome" : "both outcomes"} would be unusual, so there is no single answer.`;
  return [
    ...(decision == null ? [] : [["Decision", `“${decision}”: at the costs of mistakes that this service was given, it is expected to cost least.`]]),
    interval ? ["Interval", `${range(interval)}. Had the model learned from other ${rows} like these, it would say another number; how different, the interval tells.`]
      : ["Intervals", `The lines on the bars, each for one outcome against all others. Had the model learned from other ${rows} like these, it would say other numbers; how different, the lines tell.`],
    ["Prediction set", held],
    ["Typicality", `${percent(typicality)} of 100 training ${rows} are at least as unusual as this ${row}. The lower, the less the answer can be trusted.`],
    ...warnings.map((one) => [`Note: ${schema.labelOf(one.field)}`, `${one.message}.`]),
  ];
}

// What became of an example in truth.
export function showTruth({ outcome: truth, story, seen }, predicted) {
  const right = truth === predicted ? "" : " A less likely outcome happened, as it does now and then.";
  by("truth").replaceChildren(html("b", {}, `In truth: ${truth}. `), story ?? "", right,
    seen ? " (One of the training rows.)" : " (Not among the training rows.)");
  by("truth").hidden = false;
}

export function hideTruth() { by("truth").hidden = true; }
