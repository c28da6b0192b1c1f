// The model's card: what it is, how well it did on rows that it had not seen, and where it did worse.

import { group, groupAxis, reliability } from "./charts.js";
import { by, drawn, html, table } from "./elements.js";
import { schema } from "./schema.js";
import { count, minus, percent, plain, plusMinus, range, signed, two } from "./words.js";

const MAPS = {
  identity: "none: the model’s own probabilities", temperature: "the logit divided by one number (Guo et al., 2017)",
  platt: "Platt scaling: a slope and an offset on the logit (Platt, 1999)", beta: "a beta map (Kull et al., 2017)", isotonic: "rising steps (isotonic regression)",
  venn_abers: "merged Venn–Abers probabilities", half_venn_abers: "half of the way to the Venn–Abers probability",
  focal_inverse: "the inverse of the loss’s distortion", loss_inverse: "the inverse of the loss’s distortion",
};

const ENGINES = { mlx: "MLX", onnx: "ONNX Runtime" };

export function showModel(model) {
  const { manifest: { origin, files }, evaluation } = model;
  by("model-lead").textContent = `${model.name}, version ${model.version}: a BERT fine-tuned in MLX that reads each ${schema.row} as a short text, ${evaluation.stack ? "second models of the same fields whose scores are joined with its own, " : ""}and a calibration map for the probabilities.`;
  by("model-body").replaceChildren(
    html("div", { class: "model-columns" }, ...(evaluation.calibrated ? [diagram(evaluation), scores(evaluation)] : [])),
    html("div", { class: "model-columns" }, evaluation.subgroups ? groups(evaluation) : null,
      html("div", {}, evaluation.sets_at ? sets(evaluation) : null, evaluation.baselines ? baselines(evaluation.baselines, evaluation.stack) : null)),
    html("div", { class: "model-columns" }, origins(model, origin, evaluation), versions(model, origin, files)));
  by("model-body").hidden = false;
}

const section = (title, ...content) => html("section", {}, html("h3", {}, title), ...content);

function scores({ how, rows, calibrated, raw, clusters, seeds }) {
  const over = clusters?.standard_errors === "cluster-robust" ? `, over ${count(clusters.clusters)} clusters of rows` : "";
  const row = (name, pick, digits) => [name, plusMinus(pick(calibrated), digits), plusMinus(pick(raw), digits)];
  const error = (name, pick) => [row(name, (one) => pick(one).value),
    ["… of a perfect model, by chance", pick(calibrated).noise_floor.toFixed(3), pick(raw).noise_floor.toFixed(3)],
    ["… p-value", p(pick(calibrated).p_value), p(pick(raw).p_value)]];
  return section("On held-out rows",
    html("p", { class: "fine" }, `${how}; ${count(rows)} rows, ± one standard error${over}.`),
    table("Scores, calibrated and raw", ["", "calibrated", "raw"], [
      row("log loss", (one) => one.log_loss), row("Brier score", (one) => one.brier),
      ...(schema.binary ? [row("area under the ROC curve", (one) => one.auc)] : []), row("accuracy", (one) => one.accuracy),
      ...(schema.binary ? error("calibration error, ten bins", (one) => one.calibration_error)
        : [...error("calibration error of the likeliest outcome, ten bins", (one) => one.top_label_error), ...error("… mean over outcomes", (one) => one.classwise_error)]),
    ]),
    seeds ? overSeeds(seeds, calibrated) : null,
    schema.binary ? null : byClass(calibrated));
}

// What the recipe gives with other folds and another random start: one seed's figures may be lucky ones.
function overSeeds({ serves, each, log_loss: loss, calibration_error: error }, own) {
  const meanSd = ({ mean, sd }) => `${mean.toFixed(3)} ± ${sd.toFixed(3)}`;
  return html("div", {},
    html("p", { class: "fine" }, `Over ${each.length} seeds, the log loss is ${meanSd(loss)}, ± the standard deviation between them; over rows it is ± ${own.log_loss.standard_error.toFixed(3)}. Seed ${serves} serves, the first, not the best; the other figures here are of it.`),
    table("Over seeds, calibrated", ["seed", "log loss", "calibration error", "… p-value"], [
      ["mean", meanSd(loss), meanSd(error), ""],
      ...each.map((one) => [one.seed === serves ? `${one.seed}, serves` : String(one.seed), one.log_loss.toFixed(3),
        one.calibration_error.value.value.toFixed(3), p(one.calibration_error.p_value)]),
    ]));
}

// More than two classes: each against all others, and what was predicted of its rows.
function byClass({ auc, recall, calibration_error: error, confusion }) {
  const names = schema.classes;
  return html("details", {}, html("summary", {}, "By outcome"),
    table("Each outcome against all others, calibrated", ["", "area under the ROC curve", "predicted, of those in truth", "calibration error", "… by chance"],
      names.map((name) => [name, plusMinus(auc[name]), plusMinus(recall[name]), plusMinus(error[name].value), error[name].noise_floor.toFixed(3)])),
    table("True in rows, predicted in columns", ["in truth", ...names.map((name) => `predicted ${name}`)],
      names.map((name) => [name, ...names.map((other) => count(confusion[name][other]))])));
}

const p = (value) => (value < 0.001 ? "<0.001" : value.toFixed(3));

// Of two classes that of the positive one's probability, of more that of the likeliest one.
function diagram(evaluation) {
  const held = schema.binary ? evaluation.reliability : evaluation.top_reliability, name = schema.binary ? schema.positive : "right answers";
  if (!held) return section("Reliability", html("p", { class: "fine" }, "An older version made this bundle, without the data of this diagram. Train it again to see it."));
  const points = (rows) => rows.map((one) => ({ p: one.probability, rate: one.observed.value, low: one.observed.low, high: one.observed.high, rows: one.rows }));
  const plot = html("div", { class: "plot" });
  drawn(plot, reliability)({ points: points(held.calibrated), beside: points(held.raw), name, x: schema.binary ? "mean probability" : "mean probability of the likeliest outcome" });
  return section("Reliability", plot,
    html("p", { class: "fine" }, key("full"), `calibrated, with 95 % intervals; larger where there are more ${schema.rows}. `, key("open"), "raw: the model before the map. On the diagonal, the probabilities are right."),
    html("details", {}, html("summary", {}, "Figures"), table("Calibrated, by tenth of probability", ["mean probability", schema.rows, name, "95 %"],
      held.calibrated.map((one) => [two(one.probability), count(one.rows), two(one.observed.value), range([one.observed.low, one.observed.high])]))));
}

const key = (kind) => html("span", { class: `key ${kind}`, "aria-hidden": "true" });

// A group's share of the positive class beside its mean probability; of more classes that of right answers beside the mean greatest one.
const shown = ({ observed, calibrated }) => (schema.binary ? { observed, expected: calibrated.expected } : { observed: calibrated.accuracy, expected: calibrated.top });

function groups({ subgroups }) {
  const name = schema.binary ? schema.positive : "right answers";
  const rows = subgroups.flatMap((one, index) => {
    const box = html("div", {}), begins = one.attribute !== subgroups[index - 1]?.attribute;
    drawn(box, group)(shown(one));
    return [begins ? html("b", {}, schema.labelOf(one.attribute)) : null, html("span", {}, one.group), box];
  });
  const axis = html("div", {});
  drawn(axis, groupAxis)({});
  return section("Groups", html("div", { class: "groups", "aria-hidden": "true" }, rows, html("span", {}), axis),
    html("p", { class: "fine" }, key("full"), `the share of “${name}”, with its 95 % interval. `, key("open"), schema.binary ? "the mean probability." : "the mean probability of the likeliest outcome."),
    html("details", {}, html("summary", {}, "Figures"), table("Groups", ["group", schema.rows, name, "mean probability", "log loss"],
      subgroups.map((one) => [`${schema.labelOf(one.attribute)}: ${one.group}`, count(one.rows), two(shown(one).observed.value), two(shown(one).expected), plusMinus(one.calibrated.log_loss)]))));
}

function sets({ sets: own, sets_at: found, sets_by: field, set_cells: cells, conditional_sets: conditional }) {
  const byField = field ? ` They hold it within each class and each value of “${schema.labelOf(field)}”.` : "";
  return section("Prediction sets", html("p", { class: "fine" }, `How often a set held the true outcome, beside its nominal coverage, and how many ${schema.rows} got no single answer.${byField}`),
    table("Prediction sets", ["nominal", "held it", "no answer", "wrong, if answered"],
      found.map((one) => [`${percent(one.nominal)} %`, plusMinus(one.overall), `${percent(one.abstained)} %`, plusMinus(one.error_answered)])),
    conditional ? html("p", { class: "fine" }, `At ${percent(own.nominal)} %, ${percent(own.abstained)} % get no single answer; with sets of the class alone ${percent(conditional.plain.abstained)} %.`) : null,
    cells?.cells.length ? setCells(own, cells) : null);
}

// Coverage within each class of each group; the least is named where groups are large enough.
function setCells(own, { cells, compared, worst }) {
  const name = (one) => `${schema.labelOf(one.attribute)}: ${one.group}`;
  return html("div", {},
    worst ? html("p", { class: "fine" }, `Least often, of ${compared} classes in groups, they held “${worst.outcome}” of ${name(worst)}: ${two(worst.coverage.value)} (95 %: ${range([worst.coverage.low, worst.coverage.high])}) of ${count(worst.rows)} ${schema.rows}.`) : null,
    html("details", {}, html("summary", {}, "By outcome and group"), table(`Sets of nominal ${percent(own.nominal)} %`, ["group", "outcome", schema.rows, "held it", "95 %"],
      cells.map((one) => [name(one), one.outcome, count(one.rows), two(one.coverage.value), range([one.coverage.low, one.coverage.high])]))));
}

function baselines(found, stack) {
  const row = (name, loss, difference) => [name, plusMinus(loss), `${signed(difference.value, 3)} ± ${difference.standard_error.toFixed(3)}`];
  return section("Other models", html("p", { class: "fine" }, "On the same folds. Below 0, this model has the smaller log loss."),
    table("Baselines", ["model", "log loss", "this one minus it"], [
      ...(stack ? [row("BERT alone", stack.model.log_loss, stack.model.difference)] : []),
      ...Object.entries(found).map(([name, one]) => row(plain(name), one.log_loss, one.log_loss_difference)),
    ]));
}

function origins(model, { created, seed, base, loss, recipe, data }, { maps_chosen: maps }) {
  const mapNames = [...new Set(maps ?? [])];
  return section("How it was made", list([
    ["Data", `${count(data.rows)} ${schema.rows}: ${Object.entries(data.classes).map(([name, rows]) => `${count(rows)} ${name} (${percent(rows / data.rows)} %)`).join(", ")}`],
    ["Map", mapNames.length ? mapNames.map((name) => name.split("+").map((part) => MAPS[part] ?? plain(part)).join(", then ")).join("; or ") : "see calibration.json in the bundle"],
    ["Loss", plain(loss.name) + parameters(loss.parameters)],
    ["Base", base.name], ["Made", new Date(created).toLocaleDateString(undefined, { dateStyle: "long" })], ["Seed", String(seed)],
    ["Recipe", Object.entries(recipe).map(([name, value]) => `${plain(name)} ${value}`).join(", ")],
  ]));
}

function parameters(held) {
  const parts = Object.entries(held).map(([name, value]) => `${name} ${value && typeof value === "object"
    ? Object.entries(value).map(([key_, one]) => `${key_} ${minus(one, 2)}`).join(", ") : value}`);
  return parts.length ? `: ${parts.join("; ")}` : "";
}

function versions({ backend, version }, { packages, data }, files) {
  return section("What computes it", list([
    ["Version", version], ["Engine", `${ENGINES[backend.engine] ?? backend.engine} ${backend.version} (${backend.reason})`],
    ["Device", `${backend.device}${backend.threads ? `, ${backend.threads} threads` : ""}, ${backend.precision} weights`],
    ...(backend.gflops ? [["BLAS", `${backend.blas}, ${Math.round(backend.gflops)} GFLOP/s`]] : []),
    ["Trained with", Object.entries(packages).map(([name, found]) => `${name} ${found}`).join(", ")],
    ["Data", `sha256 ${data.sha256.slice(0, 12)}…`],
    ["Weights", files["model.safetensors"] ? `${(files["model.safetensors"].size / 1e6).toFixed(1)} MB, sha256 ${files["model.safetensors"].sha256.slice(0, 12)}…` : "–"],
  ]));
}

function list(rows) {
  return html("dl", { class: "card-list" }, rows.flatMap(([name, text]) => [html("dt", {}, name), html("dd", {}, text)]));
}
