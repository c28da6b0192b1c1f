"""Does the stack pay: its log loss beside that of the model alone and of each second model alone, on the same rows."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

from models.calibration.logit import score_probabilities
from models.calibration.stack import Stack
from training.calibrate.maps import log_losses
from training.calibrate.stack import ALONE
from training.evaluate.estimates import Estimate, mean

AS_GOOD = 0.003
"""A lead of the stack in log loss, in nats, below which a model alone is said to be as good, if it is in the noise."""


class AloneScore(Struct, frozen=True, kw_only=True):
    """A model by itself: its log loss, and the paired difference, the stack's minus its own; below 0 the stack is
    better."""

    log_loss: Estimate
    difference: Estimate

    @property
    def as_good(self) -> bool:
        """Whether the stack is not shown to be better, or by next to nothing."""
        return self.difference.high >= 0 or self.difference.value > -AS_GOOD


class StackComparison(Struct, frozen=True, kw_only=True):
    """``chosen`` are the second models of each fold's stack, joined by +; ``model`` is the bundle's alone under a
    map of its own, ``seconds`` each second model as it is, ``weights`` the means over the folds, ``model`` first."""

    chosen: tuple[str, ...]
    weights: dict[str, float]
    model: AloneScore
    seconds: dict[str, AloneScore]


def compare_stack(
    stacks: Sequence[Stack | None], stacked: np.ndarray, alone: np.ndarray, seconds: Mapping[str, np.ndarray],
    labels: np.ndarray, clusters: np.ndarray | None = None,
) -> StackComparison:  # fmt: skip
    """``stacked`` and ``alone`` are probabilities (n,) or (n, K), ``seconds`` scores of the same rows; ``clusters``
    (n,) are for standard errors."""
    own = log_losses(stacked, labels)

    def score(p: np.ndarray) -> AloneScore:
        losses = log_losses(p, labels)
        return AloneScore(log_loss=mean(losses, clusters), difference=mean(own - losses, clusters))

    weights = {
        "model": float(np.mean([1.0 if stack is None else stack.own for stack in stacks])),
        **{
            name: float(np.mean([0.0 if stack is None else stack.others.get(name, 0.0) for stack in stacks]))
            for name in seconds
        },
    }  # fmt: skip
    return StackComparison(
        chosen=tuple(ALONE if stack is None else "+".join(stack.others) for stack in stacks), weights=weights,
        model=score(alone), seconds={name: score(score_probabilities(z)) for name, z in seconds.items()},
    )  # fmt: skip
