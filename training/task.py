"""One fine-tuning in a process of its own: ``python -m training.task FOLDER NUMBER``, started by `crossfit`.

Its progress goes to standard output, one JSON `Report` a line; what went wrong is a sentence on standard error.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from models.backend import prepare
from models.classifier import save_weights
from training.crossfit import load_inputs, result_path
from training.diagnostics import EpochDiagnostics
from training.finetune import TrainingError, finetune, predict
from training.progress import Report


class Reporter:
    """Progress as lines for the parent process."""

    def advance(self, steps: int = 1) -> None:
        _print(Report(steps=steps))

    def epoch(self, diagnostics: EpochDiagnostics) -> None:
        _print(Report(epoch=diagnostics))


def _print(report: Report) -> None:
    print(msgspec.json.encode(report).decode(), flush=True)


def run(work: Path, number: int) -> None:
    """Fine-tune on the rows outside fold ``number`` and keep the logits of those in it; past the last fold, fine-tune
    on all rows and keep the weights. The result appears whole or not at all."""
    job, encoded, labels, folds = load_inputs(work)
    seen, held_out = np.flatnonzero(folds != number), np.flatnonzero(folds == number)
    model = finetune(
        job.base, encoded, labels, seen, recipe=job.recipe, loss=job.loss.make(labels[seen]), seed=job.seed + number,
        phase=job.phases[number], progress=Reporter(),
    )  # fmt: skip
    result = result_path(work, job, number)
    partial = result.with_name("partial-" + result.name)
    if len(held_out):
        pair = predict(model, encoded, held_out)
        np.save(partial, pair[:, 1] - pair[:, 0], allow_pickle=False)
    else:
        save_weights(model, partial)
    partial.rename(result)


def main(arguments: Sequence[str]) -> int:
    try:
        # One core each: more of them side by side are faster than one on several.
        prepare(threads=1)
        run(Path(arguments[0]), int(arguments[1]))
    except (TrainingError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
