"""What mistakes cost, and the decision that a row's probabilities then call for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_COST = 1e9
USUAL = 1.0
"""Cost of a mistake that is not named."""

CostTable = dict[str, dict[str, float]]
"""True class → class that it is taken for → cost. What is not named costs `USUAL`; to be right costs nothing."""

GRAMMAR = "CLASS:OTHER=COST:COST"
EXAMPLE = "died:survived=5:1"
EXPLAINED = (
    f"{EXAMPLE} where to take a died for a survived costs 5, and a survived for a died 1. More pairs after commas; a "
    "mistake that none names costs 1"
)
"""For the help of whoever takes them."""
NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
PAIR = re.compile(rf"\s*([^,=:]+?)\s*:\s*([^,=:]+?)\s*=\s*({NUMBER}):({NUMBER})\s*")


class CostsError(ValueError):
    """Costs that cannot be used; ``path`` names the place in a description, as in ``died.survived``."""

    def __init__(self, reason: str, path: str = ""):
        super().__init__(reason)
        self.path, self.reason = path, reason


def parse_costs(text: str) -> CostTable:
    """CLASS:OTHER=COST:COST, … → the costs of taking a CLASS for an OTHER, and an OTHER for a CLASS.

    Pairs are separated by commas. Names that hold a comma, a colon or an equals sign only a description can say.
    Raises CostsError.
    """
    table: CostTable = {}
    for part in text.split(","):
        found = PAIR.fullmatch(part)
        if found is None:
            raise CostsError(f"{part.strip()!r:.100} is not of the form {GRAMMAR}, as in {EXAMPLE}")
        one, other, *costs = found.groups()
        for truth, taken, cost in zip((one, other), (other, one), costs, strict=True):
            if taken in table.get(truth, {}):
                raise CostsError(f"{truth} for {taken} is there twice")
            table.setdefault(truth, {})[taken] = _checked(float(cost))
    return table


def _checked(cost: float, path: str = "") -> float:
    if not 0 < cost <= MAX_COST:
        raise CostsError(f"a cost is above 0 and at most {MAX_COST:g}, and not {cost:g}", path)
    return cost


def check_costs(table: CostTable, classes: Sequence[str]) -> None:
    """Raise CostsError where a name is no class, a cost out of bounds or of a right answer, or nothing is said."""
    if not any(table.values()):
        raise CostsError("they name no mistake; without costs leave them out")
    for truth, row in table.items():
        for path, name in ((truth, truth), *((f"{truth}.{taken}", taken) for taken in row)):
            if name not in classes:
                raise CostsError(f"there is no class {name:.60}; there are {', '.join(classes):.500}", path)
        if truth in row:
            raise CostsError("to be right costs nothing; only mistakes have costs", f"{truth}.{truth}")
        for taken, cost in row.items():
            _checked(cost, f"{truth}.{taken}")


@dataclass(frozen=True)
class Costs:
    """``matrix`` (K, K): what it costs to take a row of class i for one of class k; 0 on the diagonal."""

    matrix: np.ndarray

    @classmethod
    def of(cls, table: CostTable, classes: Sequence[str]) -> "Costs":
        """Of costs that `check_costs` has let pass."""
        rows = [[0.0 if i == k else table.get(i, {}).get(k, USUAL) for k in classes] for i in classes]
        return cls(np.array(rows))

    def expected(self, probabilities: Sequence[float] | np.ndarray) -> np.ndarray:
        """Probabilities (K) → the expected cost (K) of taking the row for each class: Σᵢ pᵢ C[i, k] (Elkan, 2001)."""
        return np.asarray(np.asarray(probabilities) @ self.matrix)

    def decide(self, probabilities: Sequence[float] | np.ndarray) -> int:
        """Probabilities (K) → the number of the class with the least expected cost.

        Of equal ones the likelier class, and of equally likely ones the later, as for the outcome.
        """
        costs = self.expected(probabilities).tolist()
        least = min(costs)
        return max((k for k, cost in enumerate(costs) if cost == least), key=lambda k: (probabilities[k], k))

    @property
    def threshold(self) -> float:
        """Of two classes: the probability of the positive one from which on it is the cheaper decision."""
        false_alarm, miss = float(self.matrix[0, 1]), float(self.matrix[1, 0])
        return false_alarm / (false_alarm + miss)
