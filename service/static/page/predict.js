// The form of a passenger, and the answer that follows it.

import { ask, pause } from "./api.js";
import { explain, forget } from "./contributions.js";
import { answeredBy, by, drawn, html, speaker } from "./elements.js";
import { FAMOUS, FIELDS, value } from "./passenger.js";
import { scale } from "./scale.js";
import { ofHundred, percent, range } from "./words.js";

const TYPING_MILLISECONDS = 150, EXPLAIN_MILLISECONDS = 300, STALE_MILLISECONDS = 400;

const form = by("passenger"), say = speaker(by("spoken"));
let drawScale, shown = null, famous = null, latest = null, timer = 0, prevalence = null;

export function startPredict() {
  drawScale = drawn(by("scale"), scale);
  by("presets").append(...FAMOUS.map((one) => {
    const button = html("button", { type: "button", "aria-pressed": "false" }, one.label);
    button.addEventListener("click", () => { choose(one); });
    return button;
  }));
  form.addEventListener("input", () => { choose(null); later(); });
  form.addEventListener("submit", (event) => { event.preventDefault(); answer(); });
  for (const one of document.getElementsByName("method")) one.addEventListener("change", () => explain(passenger()));
  document.addEventListener("keyed", answer);
  choose(FAMOUS[0]);
}

// The share that survived among the training rows, once it is known.
export function setPrevalence(share) {
  prevalence = share;
  if (shown) drawScale({ ...shown, prevalence });
}

// Fill in a famous passenger and ask at once; null: what stands there is somebody else.
function choose(one) {
  famous = one;
  [...by("presets").children].forEach((button, index) => button.setAttribute("aria-pressed", String(FAMOUS[index] === one)));
  by("truth").hidden = true;
  if (!one) return;
  for (const field of Object.keys(FIELDS)) {
    const held = one.passenger[field];
    form.elements[field].value = held ?? "";
  }
  answer();
}

// What the form holds, as it is sent.
function passenger() {
  return Object.fromEntries(Object.keys(FIELDS).map((field) => [field, value(field, form.elements[field].value)]));
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(answer, TYPING_MILLISECONDS);
}

// Ask for the form as it is now. An answer to an older form is dropped; a service that is busy or loading is asked again.
async function answer() {
  clearTimeout(timer);
  latest?.abort();
  forget();
  const mine = latest = new AbortController(), asked = passenger();
  const stale = setTimeout(() => by("answer").classList.add("stale"), STALE_MILLISECONDS);
  for (let tries = 0; mine === latest; tries++) {
    try {
      const found = await ask("v1/predict?trial=true", asked, mine.signal);
      if (mine !== latest) return;
      clearTimeout(stale);
      show(found);
      setTimeout(() => { if (mine === latest) explain(asked); }, EXPLAIN_MILLISECONDS);
      return;
    } catch (error) {
      clearTimeout(stale);
      if (error.name === "AbortError" || mine !== latest) return;
      refused(error);
      if (!error.passing) return;
      await pause(error.retryAfterSeconds ?? Math.min(1 + tries, 10), mine.signal).catch(() => {});
    }
  }
}

function show({ model, probability, survived, confidence }) {
  answeredBy(model.version);
  shown = { probability, confidence };
  notes(Object.fromEntries(confidence.warnings.map((one) => [one.field, one.message])), false);
  by("answer-problem").hidden = true;
  by("answer").hidden = false;
  by("answer").classList.remove("stale");
  by("percent").textContent = percent(probability);
  brief(probability);
  by("verdict").textContent = `Of 100 such passengers ${ofHundred(probability)} survived.`;
  drawScale({ ...shown, prevalence });
  by("says").replaceChildren(...sayings(confidence).map(([name, text]) => html("li", {}, html("span", {}, name), html("span", {}, text))));
  tellTruth(survived);
  const set = confidence.prediction_set.join(" or ") || "neither outcome";
  say(`${percent(probability)} percent. Prediction set: ${set}.`);
}

// The answer in one line, where the form fills the screen and the answer is below it.
function brief(probability) {
  const [number, track] = by("brief").children;
  number.textContent = `${percent(probability)} %`;
  track.firstChild.style.width = `${100 * probability}%`;
  by("brief").hidden = false;
}

function sayings({ interval, prediction_set: set, coverage, typicality, warnings }) {
  const sure = `Such sets hold the true outcome of ${percent(coverage)} passengers in 100, among those who lived and among those who died.`;
  const held = set.length === 1 ? `Only ${set[0]}: the other outcome is ruled out. ${sure}`
    : set.length ? `Died or survived: neither can be ruled out, so there is no single answer. ${sure}`
    : "Empty: both outcomes would be unusual, so there is no single answer.";
  return [
    ["Interval", `${range(interval)}. A wide one means that few of the passengers used for calibration resemble this one.`],
    ["Prediction set", held],
    ["Typicality", `${percent(typicality)} of 100 training passengers are at least as unusual as this one. The lower, the less the answer can be trusted.`],
    ...warnings.map((one) => [`Note: ${FIELDS[one.field]?.name ?? one.field}`, `${one.message}.`]),
  ];
}

function tellTruth(survived) {
  if (!famous) return;
  const right = famous.survived === survived ? "" : " The less likely outcome happened, as it does now and then.";
  by("truth").replaceChildren(html("b", {}, `In truth: ${famous.survived ? "survived" : "died"}. `), famous.fate, right,
    famous.known ? " (One of the training rows.)" : " (Not among the training rows.)");
  by("truth").hidden = false;
}

// A refusal at the fields it names, and in words above the answer where it names none or the form cannot help.
function refused(error) {
  by("answer").classList.add("stale");
  by("truth").hidden = true;
  const faults = Object.fromEntries(error.faults.map((one) => [one.pointer.slice(1), accepted(one.message)]));
  notes(faults, true);
  const named = Object.keys(faults).filter((field) => field in FIELDS).map((field) => FIELDS[field].name);
  const text = named.length ? `No answer until you correct: ${named.join(", ")}.`
    : error.passing ? `${sentence(error.message)}. Asking again …` : `${sentence(error.message)}.`;
  by("answer-problem").textContent = text;
  by("answer-problem").hidden = false;
  say("");
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
// The part of a fault's message that is for people; the JSON Schema after it is for programs.
const accepted = (message) => message.split("; accepted: {")[0].replaceAll("`", "");

function notes(texts, faulty) {
  for (const field of Object.keys(FIELDS)) {
    const note = by(`${field}-note`), text = texts[field] ?? "";
    if (note.textContent !== text) note.textContent = text;
    note.classList.toggle("fault", faulty);
    by(field).toggleAttribute("aria-invalid", false);
    if (faulty && text) by(field).setAttribute("aria-invalid", "true");
  }
}
