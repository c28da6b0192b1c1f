"""The weights in float32, float16, bfloat16 and int8: speed, memory, what rounding changes; torch on the same device.

    ./run bench precision [--quick]

On whatever MLX computes on here: a CPU, Metal, or CUDA (./run setup core --cuda). In each round all contenders compute
the same batches, in random order; ratios are taken round by round.
"""

import sys
from typing import Any

import numpy as np

from benchmarks.harness.command import Options, Result, run
from benchmarks.harness.process import Contender, Unavailable, running, say
from benchmarks.harness.spread import ratio, spread
from benchmarks.harness.tables import settings, skipped, table
from benchmarks.harness.texts import calibrated, draw, labels, real_rows, render, texts
from benchmarks.offline import rates
from models.bundle.precisions import FULL, PRECISIONS
from models.bundle.read import Bundle, read_bundle

OURS = {precision: f"Evenkeel {precision}" for precision in PRECISIONS}
NAMES = {**OURS, "torch_sdpa": "torch float32", "torch_bfloat16": "torch bfloat16", "torch_float16": "torch float16"}
CALLS = {1: 40, 8: 12, 32: 6, 64: 3}
"""Batch rows → batches of one turn."""
QUICK_CALLS = {1: 4, 32: 1}
ROUNDS = 12
REPORT = """\
Rows per second by batch size: median over {rounds} rounds [quartiles], tokenising included, on {device}.

{rates}
÷ float32 of the same library, round by round. Above 1, rounding makes it faster.

{ratios}
What rounding changes, on the {rows} rows, calibrated alike: the largest |Δlogit|, and the log loss against
float32, paired by row, ± standard error. They are the training rows: the differences count.

{changes}
Settings:

{settings}
{skipped}"""


def measure(options: Options) -> Result:
    rng = np.random.default_rng(0)
    bundle = str(options.bundle)
    starts = {
        name: ("core" if name in OURS else "bench", "benchmarks.contenders.forward", [_loader(name), bundle, "32"])
        for name in NAMES
    }
    with running(starts) as (contenders, reasons):
        if FULL not in contenders:
            raise Unavailable(reasons[FULL])
        seconds = _rounds(contenders, options, rng)
        logits = {name: contenders[name].ask("logits", texts=list(texts())) for name in OURS if name in contenders}
        found = {name: one.settings for name, one in contenders.items()}
    changes = _changes(read_bundle(options.bundle), logits)
    return {"settings": found, "skipped": reasons, "seconds": seconds, "changes": changes}


def _loader(name: str) -> str:
    return f"evenkeel_{name}" if name in OURS else name


def _rounds(contenders: dict[str, Contender], options: Options, rng: np.random.Generator) -> Any:
    """Contender → batch rows → rounds → seconds of each batch."""
    seconds: Any = {name: {} for name in contenders}
    for rows, calls in (QUICK_CALLS if options.quick else CALLS).items():
        say(f"batches of {rows}")
        for _ in range(options.rounds(ROUNDS)):
            batches = [draw(rng, rows) for _ in range(calls)]
            for name in rng.permutation(list(contenders)).tolist():
                took = contenders[name].ask("time", batches=batches)
                seconds[name].setdefault(str(rows), []).append(took)
    return seconds


def _changes(bundle: Bundle, logits: dict[str, list[float]]) -> dict[str, list[float]]:
    """Precision → largest |Δlogit|, mean change of the log loss, its standard error."""
    y = labels()

    def losses(z: list[float]) -> np.ndarray:
        by_text = dict(zip(texts(), z, strict=True))
        p = calibrated(bundle, np.array([by_text[render(row)] for row in real_rows()]))
        return -np.log(np.where(y == 1, p, 1 - p))

    found = {}
    for name, z in logits.items():
        change = losses(z) - losses(logits[FULL])
        error = change.std(ddof=1) / np.sqrt(len(change))
        found[name] = [float(np.abs(np.array(z) - logits[FULL]).max()), float(change.mean()), float(error)]
    return found


def report(result: Result) -> str:
    names = [name for name in NAMES if name in result["seconds"]]
    batches = [int(rows) for rows in result["seconds"][FULL]]
    against = {name: FULL if name in OURS else "torch_sdpa" for name in names}
    pairs = [name for name in names if against[name] != name and against[name] in names]
    device = result["settings"][FULL].rpartition(" on ")[2].split(",")[0]
    return REPORT.format(
        rounds=len(rates(result, FULL, batches[0])), device=device, rows=len(labels()),
        rates=table(["rows/s", *map(str, batches)],
                    [[NAMES[one], *(spread(rates(result, one, rows)) for rows in batches)] for one in names]),
        ratios=table(["÷ float32", *map(str, batches)],
                     [[NAMES[one], *(ratio(rates(result, one, rows), rates(result, against[one], rows))
                                     for rows in batches)] for one in pairs]),
        changes=table(["", "largest change of a logit", "log loss"],
                      [[NAMES[one], f"{largest:.2g}", f"{change:+.5f} ± {error:.5f}"]
                       for one, (largest, change, error) in result["changes"].items() if one != FULL]),
        settings=settings(NAMES, result["settings"]), skipped=skipped(NAMES, result["skipped"]),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run("precision", __doc__, measure, report))
