"""Whether there are labels enough to learn from."""

from collections.abc import Sequence

import numpy as np

from training.data.source import DataError

MIN_PER_CLASS = 4
"""Rows of each class, equal ones counted once: two to train on and two to calibrate with, in each of two folds."""
NEEDED = {1: "labelled rows", 2: "rows of two classes"}


def check_classes(path: object, labels: np.ndarray, names: Sequence[str], least: int, classes: int = 2) -> None:
    """Raises DataError unless the labels (n,) are of so many classes or more, and of each there are ``least``."""
    counts = np.bincount(labels, minlength=len(names)).tolist()
    present = [name for name, count in zip(names, counts, strict=True) if count]
    if len(present) < classes:
        only = f"all of {present[0]!r}" if present else "none with a label"
        rows = f"{len(labels)} row{'s' * (len(labels) != 1)}"
        raise DataError(f"{path} has {rows}, {only}: {NEEDED[classes]} at least are needed")
    rare = [f"{count} of {name!r}" for name, count in zip(names, counts, strict=True) if count < least]
    if rare:
        raise DataError(
            f"{path} has only {' and '.join(rare)}: at least {least} rows of each class are needed; what is not to be "
            "learned is left out of both the table and its description"
        )
