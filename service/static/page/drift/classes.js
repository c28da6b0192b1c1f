// What the drift report says by class: shares of the predicted ones, points of a reliability diagram, true against predicted.

import { shareBar, wilson } from "../charts.js";
import { html, table } from "../elements.js";
import { count, percent } from "../words.js";

// The share of predictions of each class, live and in the reference; a bin is called as its class and its tenth.
export function sharesByClass({ bins, rows }) {
  const classes = new Map();
  for (const { bin, live, reference } of bins) {
    const name = bin.slice(0, bin.lastIndexOf(" ")), sum = classes.get(name) ?? { live: 0, reference: 0 };
    classes.set(name, { live: sum.live + live, reference: sum.reference + reference });
  }
  const most = Math.max(...[...classes.values()].flatMap((one) => [one.live, one.reference]));
  return html("ul", { "aria-label": "Share of predictions by predicted outcome" }, [...classes].map(([name, one]) => html("li", {}, html("span", {}, name),
    shareBar(one, most, rows),
    html("span", {}, rows ? `${percent(one.live)}%` : "", html("span", { class: "unseen" }, ` live, ${percent(one.reference)}% in training`)))));
}

// Bins with outcomes → points with their intervals.
export const points = (held) => held.map(({ positive, outcomes, probability }) => {
  const [low, high] = wilson(positive, outcomes);
  return { p: probability, rate: positive / outcomes, low, high, rows: outcomes };
});

// A row for each true class, a column for each predicted one.
export function confusion(counts) {
  const classes = Object.keys(counts);
  return table("Outcomes: true in rows, predicted in columns", ["in truth", ...classes.map((name) => `predicted ${name}`), "right"],
    classes.map((name) => {
      const row = counts[name], all = classes.reduce((sum, other) => sum + row[other], 0);
      return [name, ...classes.map((other) => count(row[other])), all ? `${percent(row[name] / all)} %` : "–"];
    }));
}
