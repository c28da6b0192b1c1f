"""Whether there are labels enough to learn from."""

from collections.abc import Sequence

import numpy as np

from training.data.source import DataError


def check_classes(path: object, labels: np.ndarray, names: Sequence[str], least: int) -> None:
    """Raises DataError unless the labels (n,) are of two classes or more, and of each there are ``least``."""
    counts = np.bincount(labels, minlength=len(names)).tolist()
    present = [name for name, count in zip(names, counts, strict=True) if count]
    if len(present) < 2:
        only = f"all of {present[0]!r}" if present else "none with a label"
        rows = f"{len(labels)} row{'s' * (len(labels) != 1)}"
        raise DataError(f"{path} has {rows}, {only}: rows of two classes at least are needed")
    rare = [f"{count} of {name!r}" for name, count in zip(names, counts, strict=True) if count < least]
    if rare:
        raise DataError(f"{path} has only {' and '.join(rare)}: at least {least} rows of each class are needed")
