"""What an explanation says: the class that it is of, and what each part of a row adds to its log-odds."""

from collections.abc import Sequence
from typing import Literal, get_args

from msgspec import Struct

from models.reference import top_class

Method = Literal["unknown", "shapley", "words"]
METHODS: tuple[Method, ...] = get_args(Method)


class Contribution(Struct, frozen=True):
    """What knowing one field adds to the log-odds of the explained class, or what some words of a text add; above 0 it
    speaks for that class.

    ``standard_error`` is that of a contribution which was sampled; None where it is exact.
    """

    field: str
    value: bool | int | float | str
    contribution: float
    standard_error: float | None = None


class Explanation(Struct, frozen=True, kw_only=True):
    """``log_odds`` v(all), ``baseline_log_odds`` v(none), and the known fields, the weightiest first, or by ``words``
    the words in their order.

    All are of the class ``outcome`` against all others.

    By ``shapley`` the contributions sum to the difference of the two; by the other methods they need not.
    ``text`` is all that the model read.
    """

    method: Method
    log_odds: float
    baseline_log_odds: float
    contributions: tuple[Contribution, ...]
    text: str
    outcome: str


def explained_class(classes: Sequence[str], probabilities: Sequence[float], outcome: str | None) -> int:
    """The number of the class that an explanation is of; raises ValueError for one that there is not."""
    if outcome is None:
        return 1 if len(classes) == 2 else top_class(probabilities)
    if outcome not in classes:
        raise ValueError(f"outcome is {outcome!r:.60}; it must be one of {', '.join(classes)}")
    return classes.index(outcome)
