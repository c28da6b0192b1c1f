"""Conformal prediction sets."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from msgspec import Struct

from models.schema import Schema


class ConformalSets(Struct, frozen=True, kw_only=True, dict=True, forbid_unknown_fields=True, omit_defaults=True):
    """Conformal prediction sets conditional on the label, or on the label and a group of rows: Mondrian conformal
    predictors (Vovk, Gammerman & Shafer, 2005, section 4.5).

    A class belongs to the set when 1 − p_class is at most its threshold (``thresholds``, in the order of the classes).
    With a field ``by``, each of its bins has thresholds of its own in ``groups``, by the bins' names in their order.
    If the rows that set the thresholds and the new row are exchangeable, a row of each class (and, with ``by``, of each
    class in each group) has its class in the set with probability ≥ ``coverage``. The thresholds here come from
    cross-fitted probabilities, for which theory promises only about 1 − 2(1 − coverage) (Barber et al., 2021,
    theorem 4); the evaluation reports the share that it found.

    A threshold needs n rows with ⌈(n + 1) coverage⌉ ≤ n: nine at .9. Groups with fewer rows of a class, unknown values
    among them, share one threshold for it, which holds for these groups taken together; where even these are too few,
    they have that of all rows of the class, and its promise, which is for the class as a whole.

    The guarantee is within each class, so a shift of the classes' shares leaves it, as long as each class looks as it
    did; the scores are therefore the probabilities *before* a prior shift, whatever the shift. By group a shift of the
    groups' shares leaves it too.
    """

    coverage: float
    thresholds: tuple[float, ...]
    by: str | None = None
    groups: dict[str, tuple[float, ...]] = {}

    def __post_init__(self) -> None:
        rows = (self.thresholds, *self.groups.values())
        if not 0 < self.coverage < 1 or len(self.thresholds) < 2 or not all(0 <= t <= 1 for row in rows for t in row):
            raise ValueError("coverage must be inside (0, 1), and thresholds one in [0, 1] for each class")
        if (self.by is None) != (not self.groups) or any(len(row) != len(self.thresholds) for row in rows):
            raise ValueError("groups must be those of the field that by names, each with a threshold for each class")

    def sets(self, probabilities: np.ndarray, groups: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Probabilities (B, K) of the classes → membership (B, K) bool; ``groups`` (B,) are the numbers of the rows'
        bins of the field ``by``, which are not asked where there is none."""
        thresholds = self._thresholds if self.by is None else self._by_group[groups]
        return np.asarray(1 - probabilities <= thresholds)

    def check_schema(self, schema: Schema) -> None:
        """Raise ValueError unless thresholds and groups are those of the schema's classes and bins."""
        if len(self.thresholds) != len(schema.classes):
            raise ValueError(f"thresholds must be {len(schema.classes)}, one for each class")
        field = None if self.by is None else schema.by_name.get(self.by)
        if self.by is not None and (field is None or tuple(self.groups) != field.input_bins.names):
            raise ValueError(f"the sets are by {self.by}, with other groups than schema.json has")

    def place(self, schema: Schema) -> int | None:
        """Of the field ``by`` among the schema's; None without one."""
        return None if self.by is None else list(schema.by_name).index(self.by)

    @cached_property
    def _thresholds(self) -> np.ndarray:
        return np.array(self.thresholds)

    @cached_property
    def _by_group(self) -> np.ndarray:
        return np.array(list(self.groups.values()))
