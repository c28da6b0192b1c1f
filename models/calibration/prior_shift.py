"""From the training rows' share of the positive class to that of another population."""

import numpy as np
from msgspec import Struct

from models.calibration.logit import logit


class PriorShift(Struct, frozen=True, kw_only=True, tag_field="step", tag="prior_shift", forbid_unknown_fields=True):
    """z + logit(target) − logit(training): from the training rows' share of the positive class to a new population's.

    Bayes' rule for a population in which the share of the positive class differs and nothing else does: rows of either
    class look as they did, p(x | y) unchanged ("label shift"; Saerens, Latinne & Decaestecker, 2002). Then a
    probability that was calibrated stays so. Where p(x | y) changed too, this correction is not enough.
    """

    training: float
    target: float

    def __post_init__(self) -> None:
        for name, value in (("training", self.training), ("target", self.target)):
            if not 0 < value < 1:
                raise ValueError(f"the {name} prevalence is {value}; it must be above 0 and below 1")

    @property
    def shift(self) -> float:
        """What is added to the logit."""
        return float(logit(np.array(self.target)) - logit(np.array(self.training)))

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return logits + self.shift

    def probabilities(self, probabilities: np.ndarray) -> np.ndarray:
        """The same on probabilities in [0, 1], where 0 and 1 stay: odds times a factor."""
        odds = np.exp(np.clip(self.shift, -700.0, 700.0))
        return np.asarray(probabilities * odds / (1 - probabilities + probabilities * odds))
