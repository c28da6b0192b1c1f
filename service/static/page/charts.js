// Pictures of shares, of evidence and of reliability; each carries its figures as words.

import { svg } from "./elements.js";
import { clipped, count, two } from "./words.js";

const text = (x, y, words, anchor = "start", name = null) => svg("text", { x, y, "text-anchor": anchor, class: name }, words);

// The live share of each tenth of probability as bars, the reference's as outlines. `bins`: {bin, live, reference};
// `name`: the class that the probability is of.
export function shares(width, { bins, rows, name }) {
  const height = 220, left = 34, bottom = height - 36, top = 8;
  const most = niceTop(Math.max(0.1, ...bins.flatMap((one) => [one.live, one.reference])));
  const step = (width - left) / bins.length, y = (share) => bottom - (bottom - top) * share / most;
  const label = `Live share of predictions, and the reference's, by tenth of probability: ${bins.map((one) => `${one.bin} ${two(one.live)}, ${two(one.reference)}`).join("; ")}.`;
  return svg("svg", { width, height, role: "img", "aria-label": label },
    [0, most / 2, most].map((tick) => [
      svg("line", { class: "rule", x1: left, x2: width, y1: y(tick), y2: y(tick) }), text(left - 8, y(tick) + 4, `${Math.round(100 * tick)}%`, "end")]),
    bins.map((one, index) => {
      const x = left + index * step;
      return [
        rows > 0 && svg("rect", { class: "live", x: x + step * 0.22, width: step * 0.56, y: y(one.live), height: bottom - y(one.live) }),
        svg("rect", { class: "reference", x: x + step * 0.1, width: step * 0.8, y: y(one.reference), height: bottom - y(one.reference) }),
      ].filter(Boolean);
    }),
    svg("line", { class: "axis", x1: left, x2: width, y1: bottom, y2: bottom }),
    [0, 0.5, 1].map((tick) => text(left + tick * (width - left), bottom + 16, String(tick), tick === 0 ? "start" : tick === 1 ? "end" : "middle")),
    text(left + (width - left) / 2, height - 4, `probability of “${clipped(name)}”`, "middle"));
}

// One bar of a field's bin, 0 to `most`, with a line where the reference's share is.
export function shareBar({ live, reference }, most, rows) {
  const x = (share) => 100 * share / most;
  return svg("svg", { viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "track", x: 0, y: 5.5, width: 100, height: 1 }),
    rows > 0 ? svg("rect", { class: "live", x: 0, y: 2.5, width: x(live), height: 7 }) : null,
    svg("line", { class: "reference-mark", x1: x(reference), x2: x(reference), y1: 0, y2: 12, "vector-effect": "non-scaling-stroke" }));
}

// Log evidence over a stream's rows, under the threshold where it alarms.
export function evidence(width, { history, seen, log_evidence: now, threshold, noun }) {
  const height = 130, bottom = height - 20, top = 14, first = history.length ? Math.min(history[0][0], seen) : 0;
  const points = [...(first > seen / 10 ? [] : [[0, 0]]), ...history.filter(([row]) => row < seen), [seen, now]];
  const highest = Math.max(threshold * 1.12, ...points.map(([, value]) => value));
  // What was seen before the process started has no course.
  const start = first > seen / 10 ? first : 0, span = Math.max(1, seen - start);
  const x = (row) => width * (row - start) / span, y = (value) => bottom - (bottom - top) * value / highest;
  const path = points.map(([row, value]) => `${x(row).toFixed(1)},${y(value).toFixed(1)}`);
  const label = `Log evidence ${now.toFixed(1)} after ${count(seen)} ${noun}; it alarms at ${threshold.toFixed(1)}; the highest so far was ${Math.max(...points.map(([, v]) => v)).toFixed(1)}.`;
  return svg("svg", { width, height, role: "img", "aria-label": label },
    // Two points, the beginning and now, are no course.
    seen > 0 ? [
      points.length > 2 && svg("polygon", { class: "under", points: `${x(points[0][0])},${bottom} ${path.join(" ")} ${width},${bottom}` }),
      points.length > 2 && svg("polyline", { class: "line", points: path.join(" ") }),
      svg("circle", { class: "dot", cx: x(seen), cy: y(now), r: 3 }),
    ].filter(Boolean) : [],
    svg("line", { class: "threshold", x1: 0, x2: width, y1: y(threshold), y2: y(threshold) }),
    text(0, y(threshold) - 4, `alarm at ${threshold.toFixed(1)}`, "start", "threshold-name"),
    svg("line", { class: "axis", x1: 0, x2: width, y1: bottom, y2: bottom }),
    text(0, height - 4, count(start)), text(width, height - 4, `${count(seen)} ${noun}`, "end"));
}

// Observed share against probability, with intervals, and the diagonal. `points`: {p, rate, low, high, rows}; `beside`: likewise;
// `name`: the class that share and probability are of.
export function reliability(width, { points, beside = [], name, x: xName }) {
  const size = Math.min(width, 400), left = 30, bottom = size - 34, side = size - left - 6, top = bottom - side;
  const x = (p) => left + side * p, y = (p) => bottom - side * p;
  const radius = (rows) => Math.max(2.5, Math.min(8, 1.5 + 0.42 * Math.sqrt(rows)));
  const label = `Share of “${name}” by mean probability: ${points.map((one) => `${two(one.p)} gave ${two(one.rate)} (${two(one.low)} to ${two(one.high)}) of ${count(one.rows)}`).join("; ")}.`;
  return svg("svg", { width: size, height: size, role: "img", "aria-label": label },
    [0, 0.5, 1].map((tick) => [
      svg("line", { class: "rule", x1: left, x2: x(1), y1: y(tick), y2: y(tick) }), svg("line", { class: "rule", x1: x(tick), x2: x(tick), y1: bottom, y2: top }),
      text(left - 7, y(tick) + 4, String(tick), "end"), text(x(tick), bottom + 15, String(tick), tick === 1 ? "end" : "middle")]),
    svg("line", { class: "diagonal", x1: x(0), x2: x(1), y1: y(0), y2: y(1) }),
    beside.map((one) => svg("circle", { class: "hollow", cx: x(one.p), cy: y(one.rate), r: 4 })),
    points.map((one) => [
      svg("line", { class: "span", x1: x(one.p), x2: x(one.p), y1: y(one.low), y2: y(one.high) }),
      svg("circle", { class: "dot", cx: x(one.p), cy: y(one.rate), r: radius(one.rows) })]),
    text(x(0.5), size - 2, xName, "middle"), text(left + 4, top + 13, `share of “${clipped(name)}”`));
}

// A group's share of the positive class with its interval, beside its mean probability (a hollow dot), on a line from 0 to 1.
export function group(width, { observed, expected }) {
  const x = (p) => 4 + (width - 8) * p;
  return svg("svg", { width, height: 20, "aria-hidden": "true" },
    svg("line", { class: "rule", x1: x(0), x2: x(1), y1: 10, y2: 10 }),
    svg("line", { class: "span", x1: x(observed.low), x2: x(observed.high), y1: 10, y2: 10 }),
    svg("circle", { class: "dot", cx: x(observed.value), cy: 10, r: 4 }),
    svg("circle", { class: "hollow", cx: x(expected), cy: 10, r: 4, "fill-opacity": 0 }));
}

// The numbers under the lines of groups.
export function groupAxis(width) {
  return svg("svg", { width, height: 20, "aria-hidden": "true" }, text(0, 13, "0"), text(width / 2, 13, "0.5", "middle"), text(width, 13, "1", "end"));
}

// Wilson's 95 % interval of a share (1927).
export function wilson(held, rows) {
  const z2 = 1.96 ** 2, p = held / rows, middle = (p + z2 / (2 * rows)) / (1 + z2 / rows);
  const half = (1.96 * Math.sqrt(p * (1 - p) / rows + z2 / (4 * rows * rows))) / (1 + z2 / rows);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

function niceTop(value) {
  return [0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1].find((one) => one >= value) ?? 1;
}
