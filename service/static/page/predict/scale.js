// One scale from 0 to 1: the probability, its interval, the average, and under it the way from the model to it.

import { svg } from "../elements.js";
import { percent, range, stepName, two } from "../words.js";

const TRACK = { top: 26, height: 18 }, FIRST_STEP = 124, STEP = 36;

// `data`: the answer's probability and confidence, the class that it is of, and that class's share of the training rows, or null.
export function scale(width, { probability, confidence, prevalence, name }) {
  const x = (p) => Math.max(0, Math.min(1, p)) * width;
  const [low, high] = confidence.interval, steps = confidence.calibration;
  const bottom = TRACK.top + TRACK.height, height = FIRST_STEP + STEP * steps.length - 8;
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": description({ probability, confidence, prevalence, name }) },
    svg("rect", { class: "track", x: 0, y: TRACK.top, width, height: TRACK.height, rx: 4 }),
    svg("rect", { class: "filled", x: 0, y: TRACK.top, width: x(probability), height: TRACK.height, rx: 4 }),
    svg("rect", { class: "band", x: x(low), y: TRACK.top, width: Math.max(2, x(high) - x(low)), height: TRACK.height, rx: 2 }),
    end(0, bottom + 17, "0", "start"), end(x(0.5), bottom + 17, "0.5", "middle"), end(width, bottom + 17, "1", "end"),
    prevalence == null ? null : [
      svg("line", { class: "base", x1: x(prevalence), x2: x(prevalence), y1: TRACK.top - 3, y2: bottom + 26 }),
      svg("text", { x: x(prevalence), y: bottom + 39, "text-anchor": "middle" }, `on average ${two(prevalence)}`),
    ],
    svg("line", { class: "drop-line", x1: x(probability), x2: x(probability), y1: bottom, y2: height - 10 }),
    svg("line", { class: "needle", x1: x(probability), x2: x(probability), y1: TRACK.top - 5, y2: bottom + 5 }),
    svg("text", { class: "strong", x: clear(x(probability), 15, width), y: 14, "text-anchor": "middle" }, two(probability)),
    steps.map((step, index) => row(width, x, FIRST_STEP + STEP * index, step, steps[index - 1], index === steps.length - 1)));
}

const end = (x, y, text, anchor) => svg("text", { x, y, "text-anchor": anchor }, text);
const clear = (x, room, width) => Math.max(room, Math.min(width - room, x));

function row(width, x, y, step, before, last) {
  const at = x(step.probability), from = before && x(before.probability);
  return svg("g", {},
    svg("line", { class: "rule", x1: 0, x2: width, y1: y, y2: y }),
    before && svg("line", { class: "move", x1: from, x2: at, y1: y, y2: y }),
    before && svg("circle", { class: "from", cx: from, cy: y, r: 3 }),
    svg("circle", { class: "mark", cx: at, cy: y, r: 4.5 }),
    svg("text", { class: last ? "halo ink" : "halo", x: 0, y: y - 9 }, `${before ? "→ " : ""}${stepName(step.step)}  ${two(step.probability)}`));
}

function description({ probability, confidence, prevalence, name }) {
  const steps = confidence.calibration.map((one) => `${stepName(one.step)} ${two(one.probability)}`).join(", then ");
  const share = prevalence == null ? "" : ` On average ${percent(prevalence)} in 100.`;
  return `Probability of “${name}”: ${two(probability)} on a scale from 0 to 1, interval ${range(confidence.interval)}.${share} Steps: ${steps}.`;
}
