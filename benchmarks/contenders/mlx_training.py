"""python -m benchmarks.contenders.mlx_training CASE THREADS BUNDLE: Evenkeel's optimisation steps, timed from outside.

`training.fit.finetune.finetune` runs as it does for a bundle; the listener that it tells of every step takes the times.
"""

import contextlib
import itertools
import sys
import time

import numpy as np

from benchmarks.contenders import training_case, worker
from benchmarks.contenders.training_case import RATES, Case
from models.bert.tokenizer import Tokenizer
from models.bundle.read import read_bundle
from models.engines.backend import prepare
from training.fit.encoding import Pretrained, encode
from training.fit.epoch_diagnostics import EpochDiagnostics
from training.fit.finetune import Recipe, TrainingError, finetune
from training.losses.registry import make_loss

EPOCHS = 1000
"""More than are ever run: the parent ends the process."""


class Steps:
    """A listener of the fine-tuning that answers the command ``steps`` with the seconds of as many steps.

    The first step after a pause is not counted: the process comes back from having been stopped.
    """

    def __init__(self, session: worker.Session, settings: str):
        self._session, self._settings = session, settings
        self._wanted, self._seconds = training_case.WARM_STEPS, [0.0]
        self._resumed = False
        self._start = time.perf_counter()

    def advance(self, steps: int = 1) -> None:
        took = time.perf_counter() - self._start
        if self._resumed:
            self._resumed = False
        else:
            self._seconds.append(took)
        if len(self._seconds) >= self._wanted:
            self._pause()
        self._start = time.perf_counter()

    def epoch(self, diagnostics: EpochDiagnostics) -> None:
        """What an epoch's end computes is no step."""
        self._start = time.perf_counter()

    def note(self, sentence: str) -> None:
        """What is said is not measured."""

    def _pause(self) -> None:
        if self._settings:
            self._session.ready(self._settings)
            self._settings = ""
        else:
            self._session.answer(self._seconds)
        command = self._session.next()
        if command is None:
            raise SystemExit(0)
        self._wanted, self._seconds, self._resumed = command["count"], [], True


def main(case: Case) -> int:
    session = worker.Session()
    backend = prepare(case.threads)
    bundle = read_bundle(case.bundle)
    base = Pretrained(bundle.config, case.bundle / "model.safetensors")
    texts, labels = training_case.rows()
    layers = case.trained_layers(bundle.config["num_hidden_layers"])
    encoded = encode(base, Tokenizer.load(case.bundle / "tokenizer.json"), texts, layers)
    rate, head_rate = RATES[case.name]
    recipe = Recipe(
        epochs=EPOCHS, max_steps=10**9, batch_rows=training_case.BATCH_ROWS, trained_layers=layers, learning_rate=rate,
        head_learning_rate=head_rate, warmup=0.0, weight_decay=training_case.WEIGHT_DECAY,
    )  # fmt: skip
    loss = make_loss(
        "focal_smooth", ("no", "yes"), labels, gamma=training_case.GAMMA, smoothing=training_case.SMOOTHING
    )
    steps = Steps(session, f"training.fit.finetune.finetune, BLAS {backend.blas}")
    for seed in itertools.count():
        # A model that has collapsed after many epochs is trained anew.
        with contextlib.suppress(TrainingError):
            finetune(
                base, encoded, labels, np.arange(len(labels)), recipe=recipe, loss=loss, seed=seed, phase=case.name,
                progress=steps,
            )  # fmt: skip
    return 0


if __name__ == "__main__":
    try:
        main(training_case.read(*sys.argv[1:]))
    finally:
        worker.end(0)
