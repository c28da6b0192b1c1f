"""Two models on the same rows: the difference of their calibration errors, and how many of a family of tests reject."""

from collections.abc import Callable, Sequence

import numpy as np

from training.evaluate.estimates import Estimate, reflected

RESAMPLES = 1000


def error_difference(
    error: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    labels: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Estimate, list[float]]:
    """Our calibration error minus theirs, averaged over pairs of probabilities (n,), and the difference of each pair.

    ``error(p, y, w)`` is one of `calibration_errors`. The interval is the reflected bootstrap's over rows, each draw of
    rows the same for all.
    """
    rows = len(labels)
    weights = np.vstack([np.ones(rows), rng.multinomial(rows, np.full(rows, 1 / rows), RESAMPLES)])

    def errors(p: np.ndarray) -> np.ndarray:
        order = np.argsort(p, kind="stable")
        return error(p[order], labels[order][None].astype(float), weights[:, order])

    differences = np.array([errors(a) - errors(b) for a, b in zip(ours, theirs, strict=True)])
    observed = differences[:, 0]
    return reflected(float(observed.mean()), differences[:, 1:].mean(axis=0)), observed.tolist()


def holm(p_values: Sequence[float], level: float = 0.05) -> int:
    """How many of these tests reject with the chance of even one false rejection ≤ ``level`` (Holm, 1979).

    Valid however the tests depend on one another.
    """
    ordered = np.sort(np.asarray(p_values, dtype=float))
    passed = ordered <= level / np.arange(len(ordered), 0, -1)
    return int(np.argmin(np.append(passed, False)))
