// A row is typed or chosen, asked about, and answered at once.

import { ask, pause } from "../api.js";
import { hideTruth, showAnswer, showTruth, stale } from "./answer.js";
import { explain, forget, offerClasses } from "./contributions.js";
import { answeredBy, by, html, speaker } from "../elements.js";
import { buildForm, fillRow, readRow, showNotes, startForm, startingRow } from "./form.js";
import { schema, setSchema } from "../schema.js";
import { either, sentence } from "../words.js";

const TYPING_MILLISECONDS = 150, EXPLAIN_MILLISECONDS = 300, STALE_MILLISECONDS = 400;

const form = by("row-form"), say = speaker(by("spoken"));
let described = "", prevalence = null, presets = [], example = null, latest = null, timer = 0;

export function startPredict() {
  startForm();
  form.addEventListener("input", () => { choose(null); later(); });
  form.addEventListener("submit", (event) => { event.preventDefault(); answer(); });
  by("row-clear").addEventListener("click", () => { choose(null); fillRow(startingRow(true)); answer(); });
  for (const one of [...document.getElementsByName("method"), by("explained")]) one.addEventListener("change", () => explain(readRow()));
  document.addEventListener("keyed", answer);
}

// The table of the model that is served, and the share of its rows that are of the positive class. A form that is
// there already stays, unless the table is another.
export function showTable(found, share) {
  prevalence = share;
  const fresh = JSON.stringify(found);
  if (fresh === described) return;
  described = fresh;
  setSchema(found);
  by("question").textContent = sentence(schema.question) || `${schema.target}: ${either(schema.classes.slice(0, 5))}${schema.classes.length > 5 ? " …" : ""}?`;
  by("predict-lead").textContent = `Describe one ${schema.row}, as far as you know it. The answer changes as you type.`;
  buildForm();
  offerClasses();
  const { examples } = schema;
  presets = examples.length ? examples : [{ label: `A made-up ${schema.row}`, row: startingRow() }];
  by("presets").replaceChildren(...presets.map(preset));
  by("presets-box").hidden = false;
  choose(presets[0]);
}

function preset(one) {
  const button = html("button", { type: "button", "aria-pressed": "false" }, one.label);
  button.addEventListener("click", () => choose(one));
  return button;
}

// Fill in an example and ask at once; null: what stands there is another row.
function choose(one) {
  example = one;
  [...by("presets").children].forEach((button, index) => button.setAttribute("aria-pressed", String(presets[index] === one)));
  hideTruth();
  if (!one) return;
  fillRow(one.row);
  answer();
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(answer, TYPING_MILLISECONDS);
}

// Ask for the form as it is now. An answer to an older form is dropped; a service that is busy or loading is asked again.
async function answer() {
  if (!described) return;
  clearTimeout(timer);
  latest?.abort();
  forget();
  const mine = latest = new AbortController(), asked = readRow();
  const late = setTimeout(() => stale(true), STALE_MILLISECONDS);
  for (let tries = 0; mine === latest; tries++) {
    try {
      const found = await ask("v1/predict?trial=true", asked, mine.signal);
      if (mine !== latest) return;
      clearTimeout(late);
      show(found);
      setTimeout(() => { if (mine === latest) explain(asked); }, EXPLAIN_MILLISECONDS);
      return;
    } catch (error) {
      clearTimeout(late);
      if (error.name === "AbortError" || mine !== latest) return;
      refused(error);
      if (!error.passing) return;
      await pause(error.retryAfterSeconds ?? Math.min(1 + tries, 10), mine.signal).catch(() => {});
    }
  }
}

function show(found) {
  showNotes(new Map(found.confidence.warnings.map((one) => [one.field, one.message])), false);
  by("answer-problem").hidden = true;
  say(showAnswer(found, prevalence));
  if (example?.outcome != null) showTruth(example, found.outcome);
}

// A refusal at the fields it names, and in words above the answer where it names none or the form cannot help.
function refused(error) {
  stale(true);
  hideTruth();
  const faults = new Map(error.faults.map((one) => [one.pointer.slice(1), `${sentence(accepted(one.message))}.`]));
  showNotes(faults, true);
  const named = [...faults.keys()].filter((field) => schema.find(field)).map((field) => schema.labelOf(field));
  // A field that is not in this form: the service has another table than when the form was made.
  if (named.length < faults.size) answeredBy(null);
  const text = named.length ? `No answer until you correct: ${named.join(", ")}.`
    : error.passing ? `${sentence(error.message)}. Asking again …` : `${sentence(error.message)}.`;
  by("answer-problem").textContent = text;
  by("answer-problem").hidden = false;
  say("");
}

// The part of a fault's message that is for people; the JSON Schema after it is for programs.
const accepted = (message) => message.split("; accepted: {")[0].replaceAll("`", "");
