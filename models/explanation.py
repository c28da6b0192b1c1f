"""What each field adds to a prediction, in calibrated log-odds of survival.

The value of knowing the fields S of a passenger is

    v(S) = Σ_u w(u) · ln(p / (1 − p)),   p the calibrated probability of the passenger with S alone

where a field outside S is unknown as the model knows it: ``None``, which leaves its words out. The fields that every
text names, class and sex, have no such words. Outside S they run over all their levels u, each weighted by its share
among the training rows and independently of all else: the interventional value function (Janzing, Minorics &
Blöbaum, 2020). Log-odds are averaged, not probabilities: a prior shift then moves all v(S) alike and no contribution,
and the contributions of a required field, averaged over its levels by the same shares, are 0.

- ``unknown``: v(all) − v(all but the field), for each field that is known.
- ``shapley``: the field's gain averaged over all orders in which the known fields can join (Shapley, 1953). Exact, over
  all coalitions. The contributions sum to v(all) − v(none).

Fields act through words alone, so one that changes no word adds exactly 0; two that only act together, as name and
ticket do on what became of the companions, share by ``shapley`` what each gets in full by ``unknown``. Both say what
the model does with the words, also with words that no passenger had; neither says what caused an outcome.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import factorial, prod
from typing import Any, Literal, NamedTuple, get_args

import msgspec
import numpy as np
from msgspec import Struct

from models.bundle.read import Bundle
from models.calibration.logit import logit
from models.passenger import INPUT_BINS, Passenger, check_passengers
from models.predictor import Predictor
from models.reference import Reference
from models.text import UNKNOWN_READS, render

Method = Literal["unknown", "shapley"]
METHODS: tuple[Method, ...] = get_args(Method)
FIELDS = {field.name: field for field in msgspec.structs.fields(Passenger)}
REQUIRED = tuple(name for name, field in FIELDS.items() if field.required)

Coalition = frozenset[str]


class Contribution(Struct, frozen=True):
    """What knowing one field adds to the log-odds of survival; above 0 it speaks for survival."""

    field: str
    value: int | float | str
    contribution: float


class Explanation(Struct, frozen=True, kw_only=True):
    """``log_odds`` v(all), ``baseline_log_odds`` v(none), and the known fields, the weightiest first.

    By ``shapley`` the contributions sum to the difference of the two; by ``unknown`` they need not.
    ``text`` is all that the model read.
    """

    method: Method
    log_odds: float
    baseline_log_odds: float
    contributions: tuple[Contribution, ...]
    text: str


class Level(NamedTuple):
    """A value of a required field, and its share among the training rows."""

    value: int | str
    share: float


class CoalitionGame:
    """The coalitions of one passenger's known fields, and ``passengers``: one of each distinct text that they need.

    The passenger itself is the first. There are at most 17 of them by ``unknown``, and 864 by ``shapley``.
    """

    def __init__(self, passenger: Passenger, bundle: Bundle, method: Method = "unknown"):
        self.passenger, self.method = passenger, method
        self.known = known_fields(passenger)
        self._levels = {field: levels(bundle.reference, field) for field in REQUIRED}
        self._companions = bundle.companions
        self._row_of_words: dict[str, int] = {}
        self._row_of_passenger: dict[Passenger, int] = {}
        self.passengers: list[Passenger] = []
        self._values = [self._value(coalition) for coalition in self._coalitions()]
        self.text = next(iter(self._row_of_words))

    def explain(self, probabilities: Sequence[float]) -> Explanation:
        """The explanation, from the calibrated probabilities of ``passengers``, each inside (0, 1)."""
        log_odds = logit(np.array(probabilities)).tolist()
        v = np.array([sum(share * log_odds[row] for share, row in value) for value in self._values])
        if self.method == "unknown":
            whole, baseline, gains = v[0], v[1], v[0] - v[2:]
        else:
            whole, baseline, gains = v[0], v[-1], shapley_values(v[::-1].reshape((2,) * len(self.known)))
        contributions = [
            Contribution(field, getattr(self.passenger, field), gain)
            for field, gain in zip(self.known, gains.tolist(), strict=True)
        ]
        return Explanation(
            method=self.method, log_odds=float(whole), baseline_log_odds=float(baseline), text=self.text,
            contributions=tuple(sorted(contributions, key=lambda each: -abs(each.contribution))),
        )  # fmt: skip

    def _coalitions(self) -> Iterator[Coalition]:
        """All fields first; by ``shapley`` in the order of binary numbers, falling, and so none last."""
        everything = frozenset(self.known)
        if self.method == "unknown":
            return iter((everything, frozenset(), *(everything - {field} for field in self.known)))
        return (
            frozenset(field for field, member in zip(self.known, pattern, strict=True) if member)
            for pattern in product((True, False), repeat=len(self.known))
        )

    def _value(self, coalition: Coalition) -> list[tuple[float, int]]:
        """v of a coalition as shares of rows of ``passengers``."""
        masked = {field: None for field in self.known if field not in coalition and field not in REQUIRED}
        averaged = [field for field in REQUIRED if field not in coalition]
        return [
            (
                prod(level.share for level in chosen),
                self._row(
                    msgspec.structs.replace(
                        self.passenger,
                        **masked,
                        **{field: level.value for field, level in zip(averaged, chosen, strict=True)},
                    )
                ),
            )
            for chosen in product(*(self._levels[field] for field in averaged))
        ]

    def _row(self, passenger: Passenger) -> int:
        """The row of ``passengers`` that has this one's text."""
        if passenger not in self._row_of_passenger:
            words = render(passenger, self._companions)
            row = self._row_of_words.setdefault(words, len(self.passengers))
            if row == len(self.passengers):
                self.passengers.append(passenger)
            self._row_of_passenger[passenger] = row
        return self._row_of_passenger[passenger]


def explain(
    predictor: Predictor, passenger: Passenger | Mapping[str, Any], method: Method = "unknown"
) -> Explanation:  # fmt: skip
    """What each known field of ``passenger`` adds; on the predictor's thread.

    Raises ValueError for another method, PassengerError, PredictionError.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be {' or '.join(METHODS)}")
    game = CoalitionGame(check_passengers([passenger])[0], predictor.bundle, method)
    return game.explain([prediction.probability for prediction in predictor.predict_checked(game.passengers)])


def shapley_values(values: np.ndarray) -> np.ndarray:
    """v (2, …, 2), one axis per player with index 1 when it takes part → each player's Shapley value (n,).

    φ_i = Σ_{S ∌ i} |S|! (n − |S| − 1)! / n! · (v(S ∪ i) − v(S)), equation 4 of Lundberg & Lee (2017). A player that
    changes nothing gets exactly 0.
    """
    n = values.ndim
    others = np.indices((2,) * (n - 1)).sum(axis=0)
    weights = np.array([factorial(size) * factorial(n - size - 1) / factorial(n) for size in range(n)])[others]
    return np.array([(weights * (values.take(1, axis=i) - values.take(0, axis=i))).sum() for i in range(n)])


def known_fields(passenger: Passenger) -> tuple[str, ...]:
    """The fields with a value, in the order of `Passenger`. Counts of relatives are known as 0 unless they are None."""
    return tuple(field for field in FIELDS if getattr(passenger, field) not in (None, ""))


def levels(reference: Reference, field: str) -> list[Level]:
    """The levels of a required field with their shares among the training rows; equal shares without rows."""
    counts = next((each.counts for each in reference.inputs if each.bins.field == field), {})
    names = next(bins.levels for bins in INPUT_BINS if bins.field == field)
    weights = [counts.get(name, 0) for name in names]
    weights = weights if any(weights) else [1] * len(weights)
    return [
        Level(msgspec.convert(name, FIELDS[field].type, strict=False), count / sum(weights))
        for name, count in zip(names, weights, strict=True)
        if count
    ]


def describe_baseline(reference: Reference) -> str:
    """What v(none) is of, in words."""
    averaged = "; ".join(
        f"{field} " + ", ".join(f"{level.value} {level.share:.3f}" for level in levels(reference, field))
        for field in REQUIRED
    )
    return (
        "no field known: log-odds averaged over the levels of the required fields by their shares among the training "
        f"rows ({averaged}), all else unknown ({UNKNOWN_READS})"
    )
