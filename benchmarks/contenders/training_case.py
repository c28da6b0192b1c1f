"""What both sides train: the same rows of the same texts, the same loss and recipe, on the same cores."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.machine import cores
from benchmarks.harness.texts import labels, real_rows, render

BATCH_ROWS = 32
DROPOUT, GAMMA, SMOOTHING, WEIGHT_DECAY, MAX_GRADIENT_NORM = 0.1, 2.0, 0.1, 0.01, 1.0
RATES = {"top2": (5e-4, 1e-3), "full": (1e-4, 1e-3)}
"""Learning rate of the layers and of the head."""
WARM_STEPS = 5


@dataclass(frozen=True)
class Case:
    """``top2``: the default recipe, two layers, pooler and head from the hidden states of the frozen ones. ``full``:
    all layers, from the embeddings' output. ``threads`` 1 is on one core, as each of several side by side."""

    name: str
    threads: int
    bundle: Path

    def trained_layers(self, layers: int) -> int:
        return 2 if self.name == "top2" else layers


def read(name: str, threads: str, bundle: str) -> Case:
    """From the command line; binds the process to its cores before any library looks at them."""
    case = Case(name, int(threads), Path(bundle))
    if case.threads < cores() and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-case.threads :])
    return case


def rows() -> tuple[list[str], np.ndarray]:
    """Texts and labels of whole batches of the table's rows."""
    count = len(real_rows()) // BATCH_ROWS * BATCH_ROWS
    return list(map(render, real_rows()[:count])), labels()[:count]
