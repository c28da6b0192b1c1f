"""One optimisation step of the fine-tuning, beside PyTorch: forward, loss, backward, clipping, AdamW, 32 rows.

    ./run bench training_step [--quick]

Both train the same part of the same model on the same texts, padded to the batch's longest, with the same loss and
dropout, each in a process of its own that is stopped while the other is measured.
"""

import sys
from typing import Any

import numpy as np

from benchmarks.harness.command import Options, Result, run
from benchmarks.harness.machine import cores
from benchmarks.harness.process import Contender, Unavailable, running, say
from benchmarks.harness.spread import ratio, spread
from benchmarks.harness.tables import settings, skipped, table

NAMES = {"evenkeel": "Evenkeel", "torch": "torch SDPA"}
CASES = {"top2": "top 2 layers, pooler, head", "full": "all layers, pooler, head"}
ROUNDS = 15
STEPS = {"top2": 12, "full": 6}

REPORT = """\
Milliseconds of a step on 32 rows: median over rounds [quartiles] of the rounds' median steps. Above 1, Evenkeel is
faster.

{table}
- The frozen layers are run once beforehand by both. A step starts from their hidden states, or from the embeddings'
  output where all layers are trained.
- In both: loss focal_smooth; dropout 0.1 on hidden states and on the pooled vector, none on attention weights;
  gradients clipped to norm 1; AdamW with two learning rates and a linear schedule; loss and logits are read back every
  step.
- One thread: bound to one core, as is each fine-tuning of a cross-fit, which runs one per core side by side.
- Evenkeel computes the last layer for the first token alone, torch for all tokens, as its library does.

Settings:

{settings}
{skipped}"""


def measure(options: Options) -> Result:
    rng = np.random.default_rng(0)
    seconds: dict[str, Any] = {}
    found, reasons = {}, {}
    for case in CASES:
        for threads in ("1",) if options.quick else ("1", "all"):
            key = f"{case} {threads}"
            say(key)
            count = "1" if threads == "1" else str(cores())
            starts = {
                "evenkeel": ("core", "benchmarks.contenders.mlx_training", [case, count, str(options.bundle)]),
                "torch": ("bench", "benchmarks.contenders.torch_training", [case, count, str(options.bundle)]),
            }
            with running(starts) as (contenders, why):
                if "evenkeel" not in contenders:
                    raise Unavailable(why["evenkeel"])
                seconds[key] = _rounds(contenders, STEPS[case], options, rng)
                found |= {name: one.settings for name, one in contenders.items()}
                reasons |= why
    return {"seconds": seconds, "settings": found, "skipped": reasons}


def _rounds(contenders: dict[str, Contender], steps: int, options: Options, rng: np.random.Generator) -> Any:
    seconds: Any = {name: [] for name in contenders}
    for _ in range(options.rounds(ROUNDS)):
        for name in rng.permutation(list(contenders)).tolist():
            seconds[name].append(contenders[name].ask("steps", count=max(3, steps // 3) if options.quick else steps))
    return seconds


def report(result: Result) -> str:
    lines = []
    for key, seconds in result["seconds"].items():
        case, threads = key.split(" ")
        medians = {name: [1e3 * float(np.median(took)) for took in rounds] for name, rounds in seconds.items()}
        ours, theirs = medians["evenkeel"], medians.get("torch")
        both = [spread(theirs), ratio(theirs, ours)] if theirs else ["–", "–"]
        lines.append([CASES[case], threads, spread(ours), *both, len(ours), len(seconds["evenkeel"][0])])
    columns = ["trained", "threads", "Evenkeel", "torch", "torch ÷ Evenkeel", "rounds", "steps each"]
    return REPORT.format(
        table=table(columns, lines), settings=settings(NAMES, result["settings"]),
        skipped=skipped(NAMES, result["skipped"]),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run("training_step", __doc__, measure, report))
