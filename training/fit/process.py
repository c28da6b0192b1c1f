"""One fine-tuning in a process of its own: ``python -m training.fit.process FOLDER NUMBER``.

Its progress goes to standard output, one JSON `Report` a line; an error is a sentence on standard error.
"""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from models.bert.classifier import save_weights
from models.bert.layouts.registry import layout_of
from models.engines.backend import prepare
from training.evaluate.folds import ONE_PART
from training.fit.encoding import Encoded, FrozenLayers, HiddenFile, Pretrained
from training.fit.epoch_diagnostics import EpochDiagnostics
from training.fit.finetune import Divide, Recipe, TrainingError, finetune, predict
from training.fit.progress import Listener, Report
from training.losses.registry import LossChoice

FINAL = "final model"
INPUTS, HIDDEN, JOB = "inputs.npz", "hidden.bin", "job.json"


class ProcessKilled(Exception):
    """A signal ended a fine-tuning's process: the fine-tuning itself may be tried again."""


class FineTuningJob(Struct, frozen=True, kw_only=True):
    """What all fine-tunings of a cross-fit share: the folds of ``seeds`` seeds from ``seed`` on, and the final model of
    the first. They are numbered with those of the first seed foremost.

    A fine-tuning's own seed is that of its folds plus the fold's number.
    """

    classes: tuple[str, ...]
    config: dict[str, Any]
    weights: str
    loss: LossChoice
    recipe: Recipe
    seed: int
    folds: int
    start: int
    seeds: int = 1

    @property
    def pretrained(self) -> Pretrained:
        """The base, with the head that this table needs."""
        return Pretrained(self.config, Path(self.weights))

    @property
    def phases(self) -> list[str]:
        """The fine-tunings by name: one per fold, then the one on all rows, or the one that a part is held out of; then
        those of the other seeds."""
        folds = [f"fold {fold + 1} of {self.folds}" for fold in range(self.folds)]
        others = [f"seed {self.seed + place}, {fold}" for place in range(1, self.seeds) for fold in folds]
        return [FINAL, *others] if self.folds == ONE_PART else [*folds, FINAL, *others]

    def held_out(self, number: int) -> tuple[int, int]:
        """The place of fine-tuning ``number`` among the seeds, and the fold it does not see; ``folds`` for none."""
        of_first = self.folds + (self.folds != ONE_PART)
        if number < of_first:
            return 0, number
        place, fold = divmod(number - of_first, self.folds)
        return place + 1, fold


def save_inputs(work: Path, job: FineTuningJob, encoded: Encoded, labels: np.ndarray, folds: np.ndarray) -> None:
    """Leave for the processes what `run` reads: ``folds`` (S, n) by each of the job's seeds. A `HIDDEN` that is there
    already is what ``encoded`` made it."""
    np.savez(
        work / INPUTS, tokens=encoded.tokens, offsets=encoded.offsets, index=encoded.index, labels=labels, folds=folds
    )  # fmt: skip
    if isinstance(encoded.hidden, HiddenFile) and not (work / HIDDEN).exists():
        shutil.copyfile(encoded.hidden.path, work / f"partial-{HIDDEN}").rename(work / HIDDEN)
    (work / JOB).write_bytes(msgspec.json.encode(job))


def load_inputs(work: Path, job: FineTuningJob) -> tuple[Encoded, np.ndarray, np.ndarray]:
    """What `save_inputs` left: the texts of each fine-tuning, labels and folds."""
    with np.load(work / INPUTS, allow_pickle=False) as arrays:
        tokens, offsets, index, labels, folds = (
            arrays[name] for name in ("tokens", "offsets", "index", "labels", "folds")
        )
    if (work / HIDDEN).exists():
        width = layout_of(job.config).network(job.config).hidden_size
        hidden: HiddenFile | FrozenLayers = HiddenFile.of(work / HIDDEN, width, np.diff(offsets))
    else:
        hidden = FrozenLayers(job.pretrained, tokens, offsets, job.start)
    return Encoded(tokens, offsets, index, job.start, hidden), labels, folds


def result_path(work: Path, job: FineTuningJob, number: int) -> Path:
    """What fine-tuning ``number`` leaves last: its held-out logits, or the one on all rows its weights."""
    place, fold = job.held_out(number)
    if fold == job.folds:
        return final_weights(work)
    return work / (f"seed-{job.seed + place}-" * (place > 0) + f"fold-{fold + 1}.npy")


def result_paths(work: Path, job: FineTuningJob, number: int) -> list[Path]:
    """All that fine-tuning ``number`` leaves, `result_path` last."""
    last = result_path(work, job, number)
    if job.phases[number] != FINAL:
        return [last]
    return [final_weights(work), last] if job.folds == ONE_PART else [seen_logits(work), last]


def final_weights(work: Path) -> Path:
    """The weights of the model trained on all rows, as Hugging Face reads them."""
    return work / "final.safetensors"


def seen_logits(work: Path) -> Path:
    """The logits (n, K) of all rows by the model trained on them all."""
    return work / "seen.npy"


def finetune_in_process(
    work: Path, number: int, started: Callable[[Popen[bytes]], None] = lambda process: None
) -> Iterator[bytes]:
    """Fine-tune in a process of its own, and yield its reports as they come, each a line of JSON.

    Raises TrainingError with its message, ProcessKilled when a signal ended it.
    """
    command = [sys.executable, "-m", "training.fit.process", str(work), str(number)]
    process = Popen(command, stdout=PIPE, stderr=PIPE, cwd=Path(__file__).parents[2])
    started(process)
    assert process.stdout is not None
    yield from process.stdout
    _, message = process.communicate()
    if process.returncode < 0:
        raise ProcessKilled(f"fine-tuning {number + 1} was ended by signal {-process.returncode}")
    if process.returncode:
        raise TrainingError(message.decode().strip() or f"fine-tuning {number + 1} ended with {process.returncode}")


def run(work: Path, number: int, progress: Listener, divide: Divide | None = None) -> None:
    """Fine-tune on the rows outside the fold of ``number`` and keep the logits of those in it; or on all rows, and keep
    their logits and the weights; of the first seed's only fold keep both. A result appears whole or not at all.

    ``divide``: see `finetune`.
    """
    job = msgspec.json.decode((work / JOB).read_bytes(), type=FineTuningJob)
    encoded, labels, folds = load_inputs(work, job)
    encoded = encoded.for_model(number)
    place, fold = job.held_out(number)
    seen, held_out = np.flatnonzero(folds[place] != fold), np.flatnonzero(folds[place] == fold)
    model = finetune(
        job.pretrained, encoded, labels, seen, recipe=job.recipe,
        loss=job.loss.make(job.classes, labels[seen]), seed=job.seed + place + fold, phase=job.phases[number],
        progress=progress, divide=divide,
    )  # fmt: skip
    for result in result_paths(work, job, number):
        partial = result.with_name("partial-" + result.name)
        if result == final_weights(work):
            save_weights(model, partial)
        else:
            asked = np.arange(len(labels)) if result == seen_logits(work) else held_out
            np.save(partial, predict(model, encoded, asked), allow_pickle=False)
        partial.rename(result)


class _ParentProcess:
    """Sends progress to the parent process, one line of JSON a report."""

    def advance(self, steps: int = 1) -> None:
        self._send(Report(steps=steps))

    def epoch(self, diagnostics: EpochDiagnostics) -> None:
        self._send(Report(epoch=diagnostics))

    def note(self, sentence: str) -> None:
        self._send(Report(note=sentence))

    def _send(self, report: Report) -> None:
        print(msgspec.json.encode(report).decode(), flush=True)


def main(arguments: Sequence[str]) -> int:
    try:
        work, number = Path(arguments[0]), int(arguments[1])
        job = msgspec.json.decode((work / JOB).read_bytes(), type=FineTuningJob)
        # One core each: more of them side by side are faster than one on several.
        prepare(threads=None if len(job.phases) == 1 else 1)
        run(work, number, _ParentProcess())
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
