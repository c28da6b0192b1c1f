"""Rows per second and single-row latency of the forward pass, tokenising included, beside other libraries.

    ./run bench offline [--quick]

Every contender has a process of its own and is stopped while another is measured. In each round all of them compute
the same batches of distinct texts, in random order; ratios are taken round by round.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.harness.command import Options, Result, run
from benchmarks.harness.process import Contender, Unavailable, running, say
from benchmarks.harness.spread import Spread, number, ratio, spread
from benchmarks.harness.tables import bullets, settings, skipped, table
from benchmarks.harness.texts import calibrated, draw, labels, real_rows, render, texts
from models.bert.tokenizer import Tokenizer
from models.bundle.read import Bundle, read_bundle

NAMES = {
    "evenkeel": "Evenkeel", "evenkeel_int8": "Evenkeel int8", "evenkeel_onnx": "Evenkeel on ONNX Runtime",
    "evenkeel_mlx": "Evenkeel on MLX",
    "onnx": "ONNX Runtime float32", "onnx_int8": "ONNX Runtime int8", "torch_sdpa": "torch SDPA",
    "torch_eager": "torch eager", "mlx_wheel": "MLX wheel, no tuned BLAS",
}  # fmt: skip
ENVIRONMENTS = dict.fromkeys(("evenkeel", "evenkeel_int8", "evenkeel_onnx", "evenkeel_mlx", "mlx_wheel"), "core")
INT8S = {"evenkeel_int8": "a row's answer is its own", "onnx_int8": "answers move with the batch"}
FLOAT32 = ("evenkeel", "evenkeel_onnx", "evenkeel_mlx", "torch_eager", "torch_sdpa", "onnx", "mlx_wheel")
CALLS = {1: 60, 8: 16, 32: 8, 64: 4, 256: 2}
"""Batch rows → batches of one turn."""
QUICK_CALLS = {1: 8, 32: 2}
ROUNDS = 15
SLOW, SLOW_BATCHES, SLOW_ROUNDS = "mlx_wheel", (1, 8, 32), 3
"""The plain wheel is an order of magnitude slower: one batch a turn, in few rounds."""
PARITY_ROWS = {SLOW: 32}
MIN_FOR_P99 = 100

REPORT = """\
Rows per second by batch size: median over rounds [quartiles]; {rounds}. {texts} distinct texts of {flop[shortest]} to
{flop[longest]} tokens; tokenising is included for everybody.

{rates}
Evenkeel ÷ the other, round by round. Above 1, Evenkeel is faster.

{ratios}
Evenkeel int8 ÷ the other:

{int8}
One row at a time, milliseconds: median [quartiles] of the rounds' medians, 99th percentile of all calls.

{latencies}
Behind its attention Evenkeel computes the last layer for the first token alone, the only one that the head reads:
{needed:.3f} of {whole:.3f} GFLOP for a text of the average {flop[tokens]:.1f} tokens. The others compute the whole
layer, as their libraries do.

{weights}
Settings:

{settings}
{skipped}"""
INT8 = (
    "{name} ({how}): largest |Δlogit| {difference:.3f}; log loss on the 891 rows {int8:.4f}, in float32 {float32:.4f} "
    "({change:+.4f}), calibrated alike. They are the training rows: the change counts, not the value."
)


def measure(options: Options) -> Result:
    rng = np.random.default_rng(0)
    group = ["32"] if options.quick else []
    starts = {
        name: (ENVIRONMENTS.get(name, "bench"), "benchmarks.contenders.forward", [name, str(options.bundle), *group])
        for name in NAMES
    }
    with running(starts) as (contenders, reasons):
        if "evenkeel" not in contenders:
            raise Unavailable(reasons["evenkeel"])
        seconds = _rounds(contenders, options, rng)
        logits = {
            name: one.ask("logits", texts=list(texts()[: PARITY_ROWS.get(name)])) for name, one in contenders.items()
        }
        found = {name: one.settings for name, one in contenders.items()}
    bundle = read_bundle(options.bundle)
    return {
        "settings": found, "skipped": reasons, "seconds": seconds, "texts": len(texts()),
        "difference": _differences(logits), "log_loss": _log_losses(bundle, logits), "flop": _flop(bundle),
    }  # fmt: skip


def _rounds(contenders: dict[str, Contender], options: Options, rng: np.random.Generator) -> Any:
    """Contender → batch rows → rounds → seconds of each batch."""
    seconds: Any = {name: {} for name in contenders}
    for rows, calls in (QUICK_CALLS if options.quick else CALLS).items():
        say(f"batches of {rows}")
        rounds = options.rounds(ROUNDS)
        for number_ in range(rounds):
            batches = [draw(rng, rows) for _ in range(calls)]
            for name in rng.permutation(list(contenders)).tolist():
                if name == SLOW and (rows not in SLOW_BATCHES or number_ >= options.rounds(SLOW_ROUNDS, 1)):
                    continue
                took = contenders[name].ask("time", batches=batches[:1] if name == SLOW else batches)
                seconds[name].setdefault(str(rows), []).append(took)
    return seconds


def _differences(logits: dict[str, list[float]]) -> dict[str, float]:
    """Largest |Δz| of each contender from the first of `FLOAT32` that is not Evenkeel, over the texts it computed."""
    others = [name for name in FLOAT32[1:] if name in logits and name != SLOW]
    if not others:
        return {}
    exact = np.array(logits[others[0]])
    return {name: float(np.abs(np.array(z) - exact[: len(z)]).max()) for name, z in logits.items() if name != others[0]}


def _log_losses(bundle: Bundle, logits: dict[str, list[float]]) -> dict[str, float]:
    """Log loss of the calibrated probabilities on all rows, of everybody who computed all texts."""
    y, found = labels(), {}
    for name, z in logits.items():
        if len(z) == len(texts()):
            by_text = dict(zip(texts(), z, strict=True))
            rows = np.array([by_text[render(row)] for row in real_rows()])
            p = calibrated(bundle, rows)
            found[name] = float(-np.mean(np.log(np.where(y == 1, p, 1 - p))))
    return found


def _flop(bundle: Bundle) -> dict[str, float]:
    """Floating-point operations of the matrix products of one text of the average length."""
    tokens = [len(ids) for ids in Tokenizer.load(bundle.folder / "tokenizer.json").token_ids(texts())]
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers")
    D, F, layers = (bundle.config[name] for name in sizes)
    L = float(np.mean(tokens))
    layer = 2 * L * (4 * D * D + 2 * D * F) + 4 * L * L * D
    last = 2 * (3 * L * D * D + D * D + 2 * D * F) + 4 * L * D
    return {"tokens": L, "shortest": min(tokens), "longest": max(tokens), "whole": layers * layer,
            "needed": (layers - 1) * layer + last}  # fmt: skip


def rates(result: Result, name: str, rows: int) -> list[float]:
    """Rows per second of each round."""
    return [rows * len(took) / sum(took) for took in result["seconds"].get(name, {}).get(str(rows), [])]


def report(result: Result) -> str:
    batches = [rows for rows in CALLS if str(rows) in result["seconds"]["evenkeel"]]
    return REPORT.format(
        texts=result["texts"], flop=result["flop"], rounds=_rounds_text(result),
        rates=_rate_table(result, batches), ratios=_ratio_table(result, batches),
        int8=_ratio_table(result, batches, "evenkeel_int8"), latencies=_latency_table(result),
        needed=result["flop"]["needed"] / 1e9, whole=result["flop"]["whole"] / 1e9, weights=_same_weights(result),
        settings=settings(NAMES, result["settings"]), skipped=skipped(NAMES, result["skipped"]),
    )  # fmt: skip


def _rounds_text(result: Result) -> str:
    counts = {name: max(map(len, by_rows.values())) for name, by_rows in result["seconds"].items()}
    slow = f", {counts[SLOW]} for the plain wheel" if SLOW in counts else ""
    return f"{counts['evenkeel']} rounds per batch size{slow}"


def _rate_table(result: Result, batches: Sequence[int]) -> str:
    names = [name for name in NAMES if name in result["seconds"]]
    lines = [[NAMES[name], *(_spread(rates(result, name, rows)) for rows in batches)] for name in names]
    return table(["rows/s", *map(str, batches)], lines)


def _ratio_table(result: Result, batches: Sequence[int], ours: str = "evenkeel") -> str:
    lines = [
        [NAMES[name], *(ratio_to(result, name, rows, ours) or "–" for rows in batches)]
        for name in others(result)
        if name != ours
    ]
    return table([f"{NAMES[ours]} ÷", *map(str, batches)], lines)


def _spread(values: Sequence[float]) -> Spread | str:
    return spread(values) if values else "–"


def others(result: Result) -> list[str]:
    return [name for name in NAMES if name in result["seconds"] and name != "evenkeel"]


def ratio_to(result: Result, name: str, rows: int, ours: str = "evenkeel") -> Spread | None:
    """Evenkeel's rate ÷ the other's, round by round; None where one of them was not measured with so many rows."""
    mine, theirs = rates(result, ours, rows), rates(result, name, rows)
    return ratio(mine[: len(theirs)], theirs) if mine and theirs else None


def _latency_table(result: Result) -> str:
    lines = []
    for name in NAMES:
        rounds = [[1e3 * one for one in took] for took in result["seconds"].get(name, {}).get("1", [])]
        if not rounds:
            continue
        pooled = np.concatenate(rounds)
        p99 = number(float(np.quantile(pooled, 0.99))) if len(pooled) >= MIN_FOR_P99 else "–"
        lines.append([NAMES[name], spread([float(np.median(took)) for took in rounds]), p99, len(pooled)])
    return table(["one row, ms", "median", "p99", "calls"], lines)


def _same_weights(result: Result) -> str:
    """That everybody serves the same weights, and what int8 costs."""
    difference, losses = result["difference"], result["log_loss"]
    float32 = {name: difference[name] for name in FLOAT32 if name in difference}
    lines = []
    if float32:
        reference = next(name for name in FLOAT32[1:] if name not in difference)
        each = ", ".join(f"{NAMES[name]} {value:.1e}" for name, value in float32.items())
        lines.append(f"Largest |Δlogit| from {NAMES[reference]} over the texts: {max(float32.values()):.1e} ({each}).")
    lines += [
        INT8.format(
            name=NAMES[name], how=how, difference=difference.get(name, float("nan")), int8=losses[name],
            float32=losses["evenkeel"], change=losses[name] - losses["evenkeel"],
        )
        for name, how in INT8S.items()
        if name in losses
    ]  # fmt: skip
    return bullets(lines)


if __name__ == "__main__":
    sys.exit(run("offline", __doc__, measure, report))
