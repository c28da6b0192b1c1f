// More than two classes: a bar for each with its interval, and the way from the model to them.

import { html, svg, table } from "../elements.js";
import { percent, range, stepName, two } from "../words.js";

// The likeliest ones; the others are in the table.
const MOST_BARS = 12;

const likeliest = (probabilities) => Object.entries(probabilities).sort(([, a], [, b]) => b - a);

// A bar for each class, the likeliest first. Those of the prediction set are full, the others pale.
export function bars(probabilities, { intervals, prediction_set: set }) {
  return likeliest(probabilities).slice(0, MOST_BARS).map(([name, p]) => {
    const inside = set.includes(name), interval = intervals?.[name];
    return html("li", { class: inside ? "contribution" : "contribution outside" },
      html("span", {}, name, html("span", { class: "unseen" }, inside ? ", in the prediction set" : ", not in the prediction set")),
      svg("svg", { viewBox: "0 0 100 16", preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("rect", { class: "track", x: 0, y: 3, width: 100, height: 10 }), svg("rect", { class: "live", x: 0, y: 3, width: 100 * p, height: 10 }),
        interval ? svg("line", { class: "range", x1: 100 * interval[0], x2: 100 * interval[1], y1: 8, y2: 8, "vector-effect": "non-scaling-stroke" }) : null),
      html("span", {}, `${percent(p)} %`, interval ? html("span", { class: "unseen" }, `, interval ${range(interval)}`) : null));
  });
}

// A row for each class, and a column for each step of the calibration.
export function steps(probabilities, { calibration, intervals }) {
  return table("The probability of each outcome after each step of the calibration", ["outcome", ...calibration.map((one) => stepName(one.step)), "interval"],
    likeliest(probabilities).map(([name]) => [name, ...calibration.map((one) => two(one.probabilities[name])), intervals ? range(intervals[name]) : "–"]));
}
