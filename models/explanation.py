"""What each field adds to a prediction, in calibrated log-odds of one class: of two the positive one, of more the one
that is asked for, by default the outcome.

The value of knowing the fields S of a row is

    v(S) = Σ_u w(u) · ln(p / (1 − p)),   p the class's calibrated probability of the row with S alone

where a field outside S is unknown as the model knows it: ``None``, which leaves its words out. A required field is
never unknown to the model. Outside S it runs over all its levels u, or over its bins where it is a number, each
weighted by its share among the training rows and independently of all else: the interventional value function (Janzing,
Minorics & Blöbaum, 2020). Log-odds are averaged, not probabilities: a prior shift of two classes then moves all v(S)
alike and no contribution, and the contributions of a required field, averaged over its levels by the same shares, are
0.

- ``unknown``: v(all) − v(all but the field), for each field that is known.
- ``shapley``: the field's gain averaged over all orders in which the known fields can join (Shapley, 1953). The
  contributions sum to v(all) − v(none). Exact, over all coalitions, of up to `MAX_EXACT_FIELDS` known fields whose
  required ones have few levels; otherwise over random orders, each followed by its reverse, and with random levels:
  unbiased, with a standard error (Mitchell et al., 2022, on antithetic permutations).

Fields act through words alone, so one that changes no word adds exactly 0; two that only act together share by
``shapley`` what each gets in full by ``unknown``. Both say what the model does with the words, also with words that no
row had; neither says what caused an outcome.

What the words of a text add, by ``words``, is another game: `models.games.word_game`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from math import factorial, prod
from typing import Any, NamedTuple

import msgspec
import numpy as np

from models.bundle.read import Bundle
from models.calibration.logit import logit
from models.games.contributions import METHODS, Contribution, Explanation, Method, explained_class
from models.games.word_game import BASELINE, WordGame
from models.predictor import Predictor
from models.reference import Reference, level_name
from models.rows import Row
from models.schema import Field, Schema
from models.second.inputs import RowInputs, RowReader
from models.text import Renderer

MAX_EXACT_FIELDS, MAX_COMBINATIONS = 10, 12
"""Of known fields, and of levels of required ones: up to these `shapley` is exact."""
DRAWS, MAX_TEXTS = 32, 512
"""Draws of combinations of levels where there are more, and about as many texts as random orders may need."""

Coalition = frozenset[str]
Value = list[tuple[float, int]]
"""v of a coalition, as shares of rows."""


class Level(NamedTuple):
    """A value of a required field, and its share among the training rows."""

    value: bool | int | float | str
    share: float


class CoalitionGame:
    """The coalitions of one row's known fields, and ``rows``: one of each distinct text that they need,
    and of each distinct input of second models.

    The row itself is the first. For the Titanic there are at most 17 of them by ``unknown``, and 864 by ``shapley``.
    """

    def __init__(self, row: Row, bundle: Bundle, method: Method = "unknown"):
        self.row, self.method, self._classes = row, method, bundle.schema.classes
        self.known = known_fields(row)
        self._levels = averaged_fields(bundle.schema, bundle.reference)
        self._renderer, self._known = Renderer(bundle.schema), bundle.known
        self._rng = np.random.default_rng(0)
        # Second models read more of a row than its text says.
        self._read = RowReader(bundle.schema, bundle.known) if bundle.seconds else None
        self._row_of_inputs: dict[tuple[str, RowInputs | None], int] = {}
        self._row_of_row: dict[Row, int] = {}
        self.rows: list[Row] = []
        combinations = prod(len(self._levels[name]) for name in self.known if name in self._levels)
        exact = len(self.known) <= MAX_EXACT_FIELDS and combinations <= MAX_COMBINATIONS
        self._paths: list[list[tuple[str, int]]] = []
        self._values = [self._value(coalition) for coalition in self._coalitions(exact)]
        if method == "shapley" and not exact:
            self._paths = list(self._random_paths())
        self.text, _ = next(iter(self._row_of_inputs))

    def explain(self, probabilities: Sequence[Sequence[float]], outcome: str | None = None) -> Explanation:
        """The explanation of the probability of the class ``outcome``, from the calibrated probabilities (K) of each
        of ``rows``, all inside (0, 1).

        Without ``outcome`` of the positive of two classes, and of more of the row's most probable one. Raises
        ValueError.
        """
        at = explained_class(self._classes, probabilities[0], outcome)
        log_odds = logit(np.array([each[at] for each in probabilities]))
        v = np.array([sum(share * log_odds[at] for share, at in value) for value in self._values])
        errors: list[float | None] = [None] * len(self.known)
        whole = v[0]
        if self._paths:
            baseline, gains, errors = self._sampled(log_odds)
        elif self.method == "unknown":
            baseline, gains = v[1], v[0] - v[2:]
        else:
            baseline, gains = v[-1], shapley_values(v[::-1].reshape((2,) * len(self.known)))
        contributions = [
            Contribution(field, getattr(self.row, field), gain, error)
            for field, gain, error in zip(self.known, gains.tolist(), errors, strict=True)
        ]
        return Explanation(
            method=self.method, log_odds=float(whole), baseline_log_odds=float(baseline), text=self.text,
            outcome=self._classes[at],
            contributions=tuple(sorted(contributions, key=lambda each: -abs(each.contribution))),
        )  # fmt: skip

    def _coalitions(self, exact: bool) -> Iterator[Coalition]:
        """All fields first; by exact ``shapley`` in the order of binary numbers, falling, and so none last."""
        everything = frozenset(self.known)
        if self.method == "unknown":
            return iter((everything, frozenset(), *(everything - {field} for field in self.known)))
        if not exact:
            return iter((everything,))
        return (
            frozenset(field for field, member in zip(self.known, pattern, strict=True) if member)
            for pattern in product((True, False), repeat=len(self.known))
        )

    def _value(self, coalition: Coalition) -> Value:
        """v of a coalition: over all combinations of the levels of the required fields outside it, or random ones."""
        averaged = [field for field in self._levels if field in self.known and field not in coalition]
        if len(averaged) > 1 and prod(len(self._levels[field]) for field in averaged) > MAX_COMBINATIONS:
            return [(1 / DRAWS, self._masked(coalition, self._draw(averaged))) for _ in range(DRAWS)]
        return [
            (
                prod(level.share for level in chosen),
                self._masked(coalition, {f: level.value for f, level in zip(averaged, chosen, strict=True)}),
            )
            for chosen in product(*(self._levels[field] for field in averaged))
        ]

    def _draw(self, fields: Sequence[str]) -> dict[str, Any]:
        """A random level of each field, by its share."""
        return {
            field: levels[self._rng.choice(len(levels), p=[level.share for level in levels])].value
            for field, levels in ((field, self._levels[field]) for field in fields)
        }

    def _random_paths(self) -> Iterator[list[tuple[str, int]]]:
        """Random orders, each followed by its reverse: the fields as they join, with the row after each; "" first."""
        pairs = max(4, MAX_TEXTS // (2 * (len(self.known) + 1)))
        required = [field for field in self._levels if field in self.known]
        for _ in range(pairs):
            order, drawn = self._rng.permutation(np.array(self.known, dtype=object)).tolist(), self._draw(required)
            for fields in (order, order[::-1]):
                joined: list[str] = []
                path = [("", self._masked(frozenset(), drawn))]
                for field in fields:
                    joined.append(field)
                    path.append((field, self._masked(frozenset(joined), drawn)))
                yield path

    def _sampled(self, log_odds: np.ndarray) -> tuple[float, np.ndarray, list[float | None]]:
        """v(none), the mean gain of each known field, and its standard error over pairs of orders."""
        gains = np.zeros((len(self._paths), len(self.known)))
        for number, path in enumerate(self._paths):
            for (_, before), (field, after) in pairwise(path):
                gains[number, self.known.index(field)] = log_odds[after] - log_odds[before]
        of_pairs = gains.reshape(-1, 2, len(self.known)).mean(axis=1)
        errors = of_pairs.std(axis=0, ddof=1) / np.sqrt(len(of_pairs))
        baseline = float(np.mean([log_odds[path[0][1]] for path in self._paths]))
        return baseline, of_pairs.mean(axis=0), [float(error) for error in errors]

    def _masked(self, coalition: Coalition, levels: Mapping[str, Any]) -> int:
        """The number of the row of which the fields outside the coalition have these levels, or are unknown."""
        outside = {field: levels.get(field) for field in self.known if field not in coalition}
        return self._number(msgspec.structs.replace(self.row, **outside))

    def _number(self, row: Row) -> int:
        """The number of the row in ``rows`` of which the models read the same."""
        if row not in self._row_of_row:
            inputs = self._renderer(row, self._known), None if self._read is None else self._read(row)
            number = self._row_of_inputs.setdefault(inputs, len(self.rows))
            if number == len(self.rows):
                self.rows.append(row)
            self._row_of_row[row] = number
        return self._row_of_row[row]


def make_game(row: Row, bundle: Bundle, method: Method) -> CoalitionGame | WordGame:
    """What explains a row by one of the methods, from the predictions of its ``rows``."""
    return WordGame(row, bundle) if method == "words" else CoalitionGame(row, bundle, method)


def explain(
    predictor: Predictor, row: Row | Mapping[str, Any], method: Method = "unknown", outcome: str | None = None
) -> Explanation:
    """What each known field of ``row``, or each word of its texts, adds to the log-odds of the class ``outcome``, as
    `CoalitionGame.explain` takes it; on the predictor's thread.

    Raises ValueError for another method or class, RowError, PredictionError.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be {' or '.join(METHODS)}")
    game = make_game(predictor.rows.check([row])[0], predictor.bundle, method)
    return game.explain([each.probabilities for each in predictor.predict_checked(game.rows)], outcome)


def shapley_values(values: np.ndarray) -> np.ndarray:
    """v (2, …, 2), one axis per player with index 1 when it takes part → each player's Shapley value (n,).

    φ_i = Σ_{S ∌ i} |S|! (n − |S| − 1)! / n! · (v(S ∪ i) − v(S)), equation 4 of Lundberg & Lee (2017). A player that
    changes nothing gets exactly 0.
    """
    n = values.ndim
    others = np.indices((2,) * (n - 1)).sum(axis=0)
    weights = np.array([factorial(size) * factorial(n - size - 1) / factorial(n) for size in range(n)])[others]
    return np.array([(weights * (values.take(1, axis=i) - values.take(0, axis=i))).sum() for i in range(n)])


def known_fields(row: Row) -> tuple[str, ...]:
    """The fields with a value, in the schema's order. A field with a default is known unless it is None."""
    return tuple(field for field in row.__struct_fields__ if getattr(row, field) not in (None, ""))


def averaged_fields(schema: Schema, reference: Reference) -> dict[str, list[Level]]:
    """The required fields, but for texts, with the levels that stand for them where they are not known."""
    inputs = {each.bins.field: each for each in reference.inputs}
    return {
        field.name: _levels(field, inputs[field.name].counts if field.name in inputs else {})
        for field in schema.fields
        if field.required and field.type != "text"
    }


def _levels(field: Field, counts: Mapping[str, int]) -> list[Level]:
    """Levels, or the middles of bins, with their shares among the training rows; equal shares without rows."""
    values = field.values
    if field.bins:
        middles = [(low + high) / 2 for low, high in pairwise(field.bins)]
        values = tuple(map(round, middles)) if field.type == "integer" else tuple(middles)
    names = field.input_bins.names if field.bins else tuple(map(level_name, values))
    weights = [counts.get(name, 0) for name, _ in zip(names, values, strict=False)]
    weights = weights if any(weights) else [1] * len(weights)
    return [
        Level(value, weight / sum(weights)) for value, weight in zip(values, weights, strict=True) if weight
    ]  # fmt: skip


def describe_baseline(schema: Schema, reference: Reference, method: Method = "unknown") -> str:
    """What v(none) is of, in words."""
    if method == "words":
        return BASELINE
    averaged = "; ".join(
        f"{field} " + ", ".join(f"{_shown(level.value)} {level.share:.3f}" for level in levels)
        for field, levels in averaged_fields(schema, reference).items()
    )
    required = f"log-odds averaged over the required fields by their shares among the training rows ({averaged}), "
    return "no field known: " + (f"{required}all else unknown" if averaged else "all unknown")


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else level_name(value)
