// What each field adds to an answer, in log-odds, from POST /v1/explain; hidden where the service has no such route.

import { ask, pause } from "../api.js";
import { by, html, svg } from "../elements.js";
import { schema } from "../schema.js";
import { signed, two } from "../words.js";

const ABOUT = {
  unknown: "Each bar is what the field adds when all others are known. Two fields that say the same thing both look small.",
  shapley: "Each bar is the field’s Shapley value: its average effect when fields become known one after the other, in any order. The bars add up to the answer.",
  words: "Each bar is what some words of the text add when all others are read. Words that say the same thing all look small.",
};
const SMALLEST_SCALE = 1, FIRST_FIELDS = 12, MAX_TRIES = 5;

let offered = true, asked = null;

export const method = () => document.querySelector("input[name=method]:checked").value;

// Where there are more than two classes: which one is explained, "" for the likeliest.
export function offerClasses() {
  by("explained-box").hidden = schema.binary;
  by("explained").replaceChildren(...(schema.binary ? [] : ["", ...schema.classes]).map((name) => html("option", { value: name }, name || "the likeliest")));
}

function address(how) {
  const query = new URLSearchParams(how === "unknown" ? {} : { method: how });
  if (!schema.binary && by("explained").value) query.set("outcome", by("explained").value);
  return ["v1/explain", String(query)].filter(Boolean).join("?");
}

// Ask anew about a row; what comes too late is dropped.
export async function explain(row) {
  asked?.abort();
  by("method-words").hidden = !schema.readsTexts;
  if (!offered) return;
  const mine = asked = new AbortController(), how = method();
  for (let tries = 1; mine === asked && offered; tries++) {
    try {
      const answer = await ask(address(how), row, mine.signal);
      if (mine === asked) show(answer, how);
      return;
    } catch (error) {
      if (error.name === "AbortError" || mine !== asked) return;
      offered = ![404, 405].includes(error.status);
      by("contributions").hidden = true;
      if (!error.passing || tries === MAX_TRIES) return;
      await pause(error.retryAfterSeconds ?? tries, mine.signal).catch(() => {});
    }
  }
}

export function forget() { asked?.abort(); }

function show({ fields, text, method: used, positive }, how) {
  const most = Math.max(SMALLEST_SCALE, ...fields.map((one) => Math.abs(one.contribution)));
  const sorted = [...fields].sort((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution));
  const rest = sorted.slice(FIRST_FIELDS), open = document.querySelector("#contributions-rows details")?.open ? "" : null;
  by("contributions-about").textContent =
    `In log-odds: to the right for “${positive}”, to the left against it; 0.7 doubles or halves the odds. ${ABOUT[used ?? how] ?? ""}`;
  by("contributions-rows").replaceChildren(bars("Contributions in log-odds, the largest first", sorted.slice(0, FIRST_FIELDS), most, used),
    ...(rest.length ? [html("details", { open }, html("summary", {}, `${rest.length} more ${used === "words" ? "words" : "fields"}`), bars("The smaller contributions", rest, most, used))] : []));
  // The model reads words alone: what is not in them adds nothing.
  by("contributions-text").hidden = !text;
  by("contributions-text").textContent = text ? `The model reads: “${text}”.` : "";
  by("contributions").hidden = false;
}

function bars(name, fields, most, used) {
  return html("div", { role: "list", "aria-label": name }, fields.map(({ field, value, contribution, standard_error: error }) =>
    html("div", { class: error == null ? "contribution" : "contribution sampled", role: "listitem" }, html("span", {}, used === "words" ? `“${value}”` : schema.labelOf(field)), bar(contribution / most),
      html("span", {}, signed(contribution), error == null ? null : html("small", {}, ` ± ${two(error)}`)))));
}

function bar(share) {
  const width = 50 * Math.abs(share);
  return svg("svg", { viewBox: "0 0 100 16", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: share < 0 ? "against" : "towards", x: share < 0 ? 50 - width : 50, y: 3, width, height: 10 }),
    svg("line", { class: "axis", x1: 50, x2: 50, y1: 0, y2: 16, "vector-effect": "non-scaling-stroke" }));
}
