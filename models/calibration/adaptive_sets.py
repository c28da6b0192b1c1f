"""Adaptive conformal inference: thresholds of prediction sets that outcomes move, class by class."""

from typing import Annotated

from msgspec import Meta, Struct

GAMMA = 0.005
"""How far one outcome moves a threshold at most (Gibbs & Candès, 2021, section 4)."""
Shift = Annotated[float, Meta(ge=-1 - GAMMA, le=1 + GAMMA)]


class AdaptiveThresholds(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is added to the thresholds of each class (K), after so many ``outcomes`` (K) of it, of which so many,
    ``missed`` (K), were not in the set that the threshold made as their outcome came.

    Gibbs & Candès, 2021, "Adaptive conformal inference under distribution shift", with the threshold q of the score
    1 − p in place of a quantile's level: q ← q + γ (missed − α). Scores are in [0, 1]: a threshold above 1 misses
    nothing and falls, one below 0 misses all and rises, so it stays within [−γ, 1 + γ]. Therefore, whatever outcomes
    come, in any order, of T outcomes of a class |share missed − α| ≤ (max(q₁, 1 − q₁) + γ) / (T γ) (their proposition
    4.1; where the thresholds are by group, q₁ is the greatest and 1 − q₁ is that of the least).
    """

    shifts: list[Shift]
    outcomes: list[Annotated[int, Meta(ge=0)]]
    missed: list[Annotated[int, Meta(ge=0)]]

    @classmethod
    def begin(cls, classes: int) -> "AdaptiveThresholds":
        """The bundle's own thresholds."""
        return cls(shifts=[0.0] * classes, outcomes=[0] * classes, missed=[0] * classes)

    def observe(self, label: int, score: float, threshold: float, coverage: float) -> None:
        """Learn from an outcome: its class, 1 − p of that class, and the bundle's own threshold for its row."""
        missed = score > threshold + self.shifts[label]
        self.shifts[label] += GAMMA * (missed - (1 - coverage))
        self.outcomes[label] += 1
        self.missed[label] += missed


def bound(thresholds: list[float], outcomes: int) -> float:
    """How far the share missed of so many outcomes of a class can be from α; its own ``thresholds`` of all groups."""
    return (max(max(thresholds), 1 - min(thresholds)) + GAMMA) / (outcomes * GAMMA)
