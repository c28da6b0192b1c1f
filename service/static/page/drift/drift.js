// The drift report, followed by server-sent events while its tab is looked at.

import { ask } from "../api.js";
import { evidence, reliability, shareBar, shares } from "../charts.js";
import { confusion, points, sharesByClass } from "./classes.js";
import { answeredBy, by, drawn, html, speaker, table } from "../elements.js";
import { followEvents } from "./events.js";
import { schema } from "../schema.js";
import { count, minus, percent, range, sentence, two } from "../words.js";

const STREAMS = {
  prediction: ["Predictions", "Do the probabilities look as they did in training?", "predictions"],
  input: ["Inputs", "", "predictions"],
  calibration: ["Outcomes", "Do the outcomes agree with the probabilities?", "outcomes"],
};
const CAUSES = { base_rate: "The base rate", calibration: "The calibration" };
// Fewer recent rows than these are too few to call an index large.
const FEWEST_ROWS = 100;

const say = speaker(by("drift-spoken"));
let following = null, wanted = false, latest = null, cards = null, drawShares, drawOutcomes, onAlarm = () => {};

// `alarmChanged`: called with whether any test alarms, whenever a report comes.
export function startDrift(alarmChanged) {
  onAlarm = alarmChanged;
  drawShares = drawn(by("distribution"), shares);
  drawOutcomes = drawn(by("outcome-plot"), reliability);
  cards = Object.fromEntries(Object.entries(STREAMS).map(([stream, words]) => [stream, makeCard(stream, words)]));
  by("streams").append(...Object.values(cards).map((one) => one.element));
  by("outcome-class").addEventListener("change", redrawDrift);
  document.addEventListener("visibilitychange", follow);
  document.addEventListener("keyed", () => { leave(); follow(); });
}

// Follow the events while the tab is open and the page in view: a browser keeps few connections to one host.
export function openDrift(open) {
  wanted = open;
  follow();
}

// Show what came last anew: the words for fields and levels may have come after it.
export function redrawDrift() {
  if (latest) show(latest);
}

function follow() {
  if (!wanted || document.hidden) { leave(); link(false, ""); return; }
  if (following) return;
  following = new AbortController();
  followEvents("v1/drift/events", following.signal, {
    onEvent(name, data) { if (name === "drift") { link(true, "live"); came(JSON.parse(data)); } },
    onLost() { link(false, "reconnecting …"); },
  });
}

function leave() {
  following?.abort();
  following = null;
}

function link(live, text) {
  by("drift-link").textContent = text;
  by("drift-link").classList.toggle("live-now", live);
}

function came(report) {
  answeredBy(report.version);
  show(report);
}

function show(report) {
  latest = report;
  const seen = Object.fromEntries(report.streams.map((one) => [one.stream, one]));
  by("drift-body").hidden = false;
  const nothing = seen.prediction.seen === 0;
  const summary = nothing ? "Nothing has been predicted yet." : `${sentence(report.summary)}.`;
  if (by("drift-summary").textContent !== summary) { by("drift-summary").textContent = summary; say(summary); }
  by("drift-meaning").textContent = `While nothing changes, a test alarms at most once in ${count(report.run_length)} of its rows on average. The curves show the evidence for a change, on a log scale.`;
  for (const stream of report.streams) cards[stream.stream].show(stream);
  by("causes").replaceChildren(...report.causes.map(cause));
  showDistributions(report.distributions, report.positive);
  showOutcomes(report);
  showEstimates(report.estimates, report.positive);
  onAlarm(report.streams.some((one) => one.alarm));
}

function makeCard(stream, [title, question, noun]) {
  const state = html("span", { class: "state" }), asked = html("p", { class: "fine" }), plot = html("div", { class: "plot" }), price = html("p", { class: "fine price" });
  const corrected = html("button", { type: "button", class: "button small" }, stream === "calibration" ? "Acknowledge" : "Corrected: compare with training again");
  const normal = html("button", { type: "button", class: "button small quiet" }, "This is normal now");
  const actions = html("div", { class: "actions", hidden: "" }, corrected, stream === "calibration" ? null : normal);
  const element = html("section", { class: "card", "aria-label": title, tabindex: -1 },
    html("header", {}, html("h4", {}, title), state), asked, plot, price, actions);
  const draw = drawn(plot, evidence);
  const acknowledge = async (begin) => {
    try {
      came(await ask("v1/drift/acknowledge", { stream, begin }));
      // The button that was pressed is gone; whoever uses a keyboard stays here.
      element.focus();
    } catch (error) { price.textContent = `Not acknowledged: ${error.message}.`; }
  };
  corrected.addEventListener("click", () => acknowledge("reference"));
  normal.addEventListener("click", () => acknowledge("recent"));
  return {
    element,
    show(report) {
      element.classList.toggle("alarmed", report.alarm);
      state.textContent = report.alarm ? "Alarm" : report.seen ? "No alarm" : "Nothing yet";
      asked.textContent = question || `Do the ${schema.rows} look as they did in training?`;
      price.textContent = evidenceText(report, noun);
      actions.hidden = !report.alarm;
      draw({ ...report, noun });
    },
  };
}

function evidenceText(report, noun) {
  const by_ = report.field ? `, mostly in ${schema.labelOf(report.field)}` : "";
  if (report.alarm) return `Since ${noun.slice(0, -1)} ${count(report.at)}, ${new Date(report.since).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" })}${by_}.`;
  if (!report.seen) return `No ${noun} yet.`;
  return `Evidence ${report.log_evidence.toFixed(1)} of ${report.threshold.toFixed(1)}.`;
}

function cause({ cause: name, found, evidence: why }) {
  const word = found === null ? "Unknown" : found ? "Changed" : "Unchanged";
  return html("div", {}, html("dt", {}, CAUSES[name] ?? `The mix of ${schema.rows}`),
    html("dd", { class: `found ${found === null ? "open" : found ? "yes" : "no"}` }, word), html("dd", { class: "why" }, `${sentence(why)}.`));
}

function showDistributions([probability, ...fields], positive) {
  const binary = positive !== undefined;
  by("distribution").hidden = !binary;
  by("distribution-classes").hidden = binary;
  by("reference-mark").textContent = binary ? "Outlines" : "Lines";
  if (binary) drawShares({ ...probability, name: positive });
  else by("distribution-classes").replaceChildren(sharesByClass(probability));
  by("recent-rows").textContent = probability.rows ? `the last ${count(probability.rows)} predictions` : "no prediction yet";
  fill("distribution-table", table("Share of predictions by tenth of probability", [binary ? "probability" : "outcome and its probability", "live", "reference"],
    probability.bins.map((one) => [one.bin.replace("-", "–"), two(one.live), two(one.reference)])));
  by("inputs").replaceChildren(...fields.map(field));
}

function field({ variable, rows, bins, stability_index: index, expected_stability_index: expected }) {
  const shown = bins.filter((one) => one.live > 0 || one.reference > 0), most = Math.max(...shown.flatMap((one) => [one.live, one.reference]));
  const far = rows >= FEWEST_ROWS && index > 0.1 && index > 3 * expected;
  return html("section", { "aria-label": schema.labelOf(variable) },
    html("header", {}, html("h4", {}, schema.labelOf(variable)),
      html("span", { class: far ? "fine far" : "fine" }, rows ? `${index.toFixed(3)} (${expected.toFixed(3)})` : "")),
    html("ul", {}, shown.map((one) => html("li", {}, html("span", {}, schema.binName(variable, one.bin)), shareBar(one, most, rows),
      html("span", {}, rows ? `${percent(one.live)}%` : "", html("span", { class: "unseen" }, ` live, ${percent(one.reference)}% in training`))))));
}

// Of two classes that of the positive one, of more that of the one that is chosen.
function showOutcomes(report) {
  const classes = report.reliabilities ? Object.keys(report.reliabilities) : [];
  offer(classes);
  const name = report.positive ?? by("outcome-class").value, bins = report.reliability ?? report.reliabilities[name];
  const held = bins.filter((one) => one.outcomes > 0);
  by("outcomes").hidden = !held.length;
  by("outcomes-none").hidden = held.length > 0;
  if (!held.length) return;
  by("outcome-about").textContent = `The share of “${name}”, with its 95 % interval, against the predicted probability. On the diagonal, the probabilities are right.`;
  drawOutcomes({ points: points(held), name, x: "probability served" });
  fill("outcome-table", table("Outcomes by tenth of probability", ["probability", "outcomes", name, "share", "mean probability"],
    held.map((one) => [one.bin.replace("-", "–"), count(one.outcomes), count(one.positive), two(one.positive / one.outcomes), two(one.probability)])));
  by("outcome-groups").textContent = `By group: ${report.by_group.summary}.`;
  by("outcome-online").hidden = !report.online;
  if (report.online) by("outcome-online").textContent = `Recalibrated online: ${report.online.summary}. The diagram is of the bundle's own probabilities.`;
  by("confusion").hidden = !report.confusion;
  if (report.confusion) fill("confusion-table", confusion(report.confusion));
}

// The classes to choose among; what is chosen stays.
function offer(classes) {
  const choice = by("outcome-class"), there = [...choice.options].map((one) => one.value);
  by("outcome-class-box").hidden = !classes.length;
  if (there.join("\n") !== classes.join("\n")) choice.replaceChildren(...classes.map((name) => html("option", { value: name }, name)));
}

// Anew only where it changed: an open table that somebody reads stays where it is.
function fill(id, content) {
  if (by(id).textContent !== content.textContent) by(id).replaceChildren(content);
}

function showEstimates(estimates, positive) {
  by("estimates-none").hidden = estimates !== null;
  by("estimates").hidden = estimates === null;
  if (estimates === null) return;
  const row = (name, one, more) => html("div", {}, html("dt", {}, name), html("dd", {}, html("b", {}, two(one.value)), `${range(one.interval)}${more ?? ""}`));
  const assumed = (share) => `, where the model assumes ${minus(share, 2)}`;
  const fit = `fit: p ${estimates.prior_shift_fit < 0.001 ? "< 0.001" : `= ${estimates.prior_shift_fit.toPrecision(2)}`}`;
  by("estimates").replaceChildren(
    row("Expected share of right answers", estimates.expected_accuracy),
    ...(positive !== undefined ? [
      row(`Expected share of “${positive}”`, estimates.expected_prevalence),
      row(`Share of “${positive}”, if only that share changed`, estimates.prior_shift_prevalence, `${assumed(estimates.baseline_prevalence)}; ${fit}`),
    ] : [
      ...Object.entries(estimates.expected_prevalences).map(([name, one]) => row(`Expected share of “${name}”`, one)),
      ...Object.entries(estimates.prior_shift_prevalences).map(([name, one]) =>
        row(`Share of “${name}”, if only the outcomes’ shares changed`, one, `${assumed(estimates.baseline_prevalences[name])}; ${fit}`)),
    ]));
}
