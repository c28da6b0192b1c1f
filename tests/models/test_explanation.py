"""Contributions: the axioms that single Shapley values out, an independent oracle, and the real model."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.bundle.read import Bundle
from models.calibration.logit import class_probabilities, logit
from models.engines.logit_cache import LogitCache
from models.explanation import (
    CoalitionGame,
    Explanation,
    averaged_fields,
    describe_baseline,
    explain,
    known_fields,
    shapley_values,
)
from models.features.titanic import TITLES, Companions
from models.prediction import positive_logits
from models.predictor import Predictor
from models.reference import Reference
from models.rows import RowError
from models.text import Renderer
from tests.titanic import SCHEMA, Passenger

render = Renderer(SCHEMA)

ALLISON = Passenger(
    pclass=1, sex="female", name="Allison, Miss. Helen Loraine", age=2, sibsp=1, parch=2, fare=151.55, ticket="113781",
    cabin="C22 C26", embarked="S",
)  # fmt: skip


def by_permutations(v: Callable[[frozenset[Any]], float], players: Sequence[Any]) -> list[float]:
    """Shapley's own words: the gain that each brings when it joins, over all orders of joining."""
    gains = dict.fromkeys(players, 0.0)
    for order in permutations(players):
        joined: frozenset[Any] = frozenset()
        for player in order:
            gains[player] += v(joined | {player}) - v(joined)
            joined |= {player}
    return [gains[player] / math.factorial(len(players)) for player in players]


def games(players: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, (2,) * players, elements=st.floats(-50, 50, width=32))


@given(st.integers(1, 5).flatmap(games))
@settings(max_examples=60)
def test_shapley_values_are_the_mean_gain_over_all_orders(values: np.ndarray) -> None:
    players = range(values.ndim)

    def v(coalition: frozenset[int]) -> float:
        return float(values[tuple(int(player in coalition) for player in players)])

    assert shapley_values(values) == pytest.approx(by_permutations(v, players), abs=1e-9)


@given(st.integers(1, 10).flatmap(games))
@settings(max_examples=60)
def test_efficiency(values: np.ndarray) -> None:
    n = values.ndim
    assert shapley_values(values).sum() == pytest.approx(values[(1,) * n] - values[(0,) * n], abs=1e-9)


@given(st.integers(2, 8).flatmap(games), st.data())
@settings(max_examples=60)
def test_symmetry_and_dummy(values: np.ndarray, data: st.DataObject) -> None:
    first, second = data.draw(st.permutations(range(values.ndim)))[:2]
    alike = values + values.swapaxes(first, second)
    found = shapley_values(alike)
    assert found[first] == pytest.approx(found[second], abs=1e-9)
    idle = np.stack([values.take(0, axis=first)] * 2, axis=first)
    assert shapley_values(idle)[first] == 0


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(games(n), games(n))))
@settings(max_examples=60)
def test_linearity(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = pair
    assert shapley_values(one - 3 * other) == pytest.approx(shapley_values(one) - 3 * shapley_values(other), abs=1e-9)


def of_words(words: str) -> float:
    """A made-up probability that any change of words changes."""
    return (crc32(words.encode()) + 1) / (2**32 + 1)


def explained(passenger: Any, bundle: Bundle, method: Any) -> Explanation:
    game = CoalitionGame(passenger, bundle, method)
    return game.explain([(1 - p, p) for p in (of_words(render(one, bundle.known)) for one in game.rows)])


def by_definition(passenger: Any, bundle: Bundle, probability: Callable[[Any], float]) -> Callable[..., float]:
    """v of a coalition, written out: class and sex run over the reference's shares."""
    shares = {
        one.bins.field: {level: one.counts[level] / bundle.reference.rows for level in one.bins.levels}
        for one in bundle.reference.inputs
        if one.bins.field in ("pclass", "sex")
    }

    @cache
    def v(told: frozenset[str]) -> float:
        unknown = {field: None for field in passenger.__struct_fields__ if field not in told}
        total = 0.0
        for pclass in (1, 2, 3):
            for sex in ("male", "female"):
                weight = 1.0
                for field, level in (("pclass", pclass), ("sex", sex)):
                    known = getattr(passenger, field)
                    weight *= float(level == known) if field in told else shares[field][str(level)]
                if weight:
                    fields = {**msgspec.structs.asdict(passenger), **unknown, "pclass": pclass, "sex": sex}
                    total += weight * float(logit(np.array(probability(Passenger(**fields)))))
        return total

    return v


SOME = msgspec.structs.replace(ALLISON, sibsp=None, parch=3, fare=None, cabin=None, embarked="Q")


def test_a_passengers_shapley_values_are_those_of_the_definition(tiny_bundle: Bundle) -> None:
    found = explained(SOME, tiny_bundle, "shapley")
    v = by_definition(SOME, tiny_bundle, lambda one: of_words(render(one, tiny_bundle.known)))
    players = known_fields(SOME)
    assert players == ("pclass", "sex", "name", "age", "parch", "ticket", "embarked")
    wanted = dict(zip(players, by_permutations(v, players), strict=True))
    assert {one.field: one.contribution for one in found.contributions} == pytest.approx(wanted, abs=1e-9)
    assert found.log_odds == pytest.approx(v(frozenset(players)), abs=1e-12)
    assert found.baseline_log_odds == pytest.approx(v(frozenset()), abs=1e-12)
    weights = [abs(one.contribution) for one in found.contributions]
    assert weights == sorted(weights, reverse=True)


def test_by_unknown_each_field_is_left_out_of_the_whole(tiny_bundle: Bundle) -> None:
    found = explained(ALLISON, tiny_bundle, "unknown")
    v = by_definition(ALLISON, tiny_bundle, lambda one: of_words(render(one, tiny_bundle.known)))
    everything = frozenset(known_fields(ALLISON))
    wanted = {field: v(everything) - v(everything - {field}) for field in everything}
    assert {one.field: one.contribution for one in found.contributions} == pytest.approx(wanted, abs=1e-9)
    assert {one.field: one.value for one in found.contributions} == msgspec.structs.asdict(ALLISON)
    assert found.baseline_log_odds == pytest.approx(v(frozenset()), abs=1e-12)
    assert found.text == render(ALLISON, tiny_bundle.known)


NAMES = ("", "x", *(f"Doe, {title}. X" for title in TITLES))
COUNTS = st.none() | st.integers(0, 20)
passengers = st.builds(
    Passenger, pclass=st.sampled_from((1, 2, 3)), sex=st.sampled_from(("male", "female")), sibsp=COUNTS, parch=COUNTS,
    name=st.none() | st.sampled_from(NAMES), age=st.none() | st.floats(0, 120), fare=st.none() | st.floats(0, 1000),
    ticket=st.none() | st.just("T 1"), cabin=st.none() | st.sampled_from(("", "C85", "?")),
    embarked=st.none() | st.sampled_from(("S", "C", "Q")),
)  # fmt: skip
PARTY = [
    msgspec.structs.replace(ALLISON, name=name, sex=sex, age=40, ticket="T 1")
    for name, sex in (("A, Mr. B", "male"), ("A, Mrs. B", "female"))
]


@given(passengers)
@settings(max_examples=30, deadline=None)
def test_contributions_of_any_passenger(tiny_bundle: Bundle, passenger: Any) -> None:
    bundle = msgspec.structs.replace(tiny_bundle, known=Companions.of(PARTY, [1, 0]))
    for method, most in (("unknown", 17), ("shapley", 864)):
        assert len(CoalitionGame(passenger, bundle, method).rows) <= most  # type: ignore[arg-type]
    found = explained(passenger, bundle, "shapley")
    total = math.fsum(one.contribution for one in found.contributions)
    assert total == pytest.approx(found.log_odds - found.baseline_log_odds, abs=1e-9)
    contributions = {one.field: one.contribution for one in found.contributions}
    if passenger.sibsp == 0:
        assert contributions["sibsp"] == 0
    if not passenger.name and passenger.ticket:
        assert contributions["ticket"] == 0
    assert all(getattr(passenger, field) not in (None, "") for field in contributions)


def test_the_most_texts_that_there_can_be(tiny_bundle: Bundle) -> None:
    bundle = msgspec.structs.replace(tiny_bundle, known=Companions.of(PARTY, [1, 0]))
    most = msgspec.structs.replace(ALLISON, sibsp=2, parch=2, ticket="T 1")
    assert len(CoalitionGame(most, bundle, "unknown").rows) == 17
    assert len(CoalitionGame(most, bundle, "shapley").rows) == 864


@pytest.mark.parametrize("method", ["unknown", "shapley"])
def test_a_required_field_adds_nothing_on_average_over_its_levels(tiny_bundle: Bundle, method: str) -> None:
    for field in ("pclass", "sex"):
        total = 0.0
        for level in averaged_fields(SCHEMA, tiny_bundle.reference)[field]:
            one = explained(msgspec.structs.replace(SOME, **{field: level.value}), tiny_bundle, method)
            total += level.share * {each.field: each.contribution for each in one.contributions}[field]
        assert total == pytest.approx(0, abs=1e-9)


def test_a_reference_that_tells_nothing_of_a_field_gives_equal_shares(tiny_bundle: Bundle) -> None:
    silent = Reference(rows=60, probability_counts=tiny_bundle.reference.probability_counts, inputs=())
    assert [tuple(level) for level in averaged_fields(SCHEMA, silent)["pclass"]] == [(1, 1 / 3), (2, 1 / 3), (3, 1 / 3)]
    assert "male 0.500, female 0.500" in describe_baseline(SCHEMA, silent)


def test_log_odds_stay_finite_however_sure_the_model_is(tiny_bundle: Bundle) -> None:
    game = CoalitionGame(ALLISON, tiny_bundle, "shapley")
    shifted = tiny_bundle.shifted(0.001).record.map
    extremes = np.array([(-1e12, 1e12)[row % 2] for row in range(len(game.rows))])
    found = game.explain(class_probabilities(shifted.probabilities(extremes)).tolist())
    assert all(math.isfinite(one.contribution) for one in found.contributions)


@pytest.fixture(scope="module")
def predictor(bundle_folder: Path) -> Predictor:
    # A text keeps its logit: without that, its last bits depend on the company in which it was computed.
    return Predictor.load(bundle_folder, LogitCache(4096))


def test_the_real_model_by_the_definition(predictor: Predictor) -> None:
    v = by_definition(SOME, predictor.bundle, lambda one: predictor.predict([one])[0].probability)
    players = known_fields(SOME)
    found = explain(predictor, SOME, "shapley")
    wanted = dict(zip(players, by_permutations(v, players), strict=True))
    assert {one.field: one.contribution for one in found.contributions} == pytest.approx(wanted, abs=1e-9)
    assert len({round(one.contribution, 6) for one in found.contributions}) > 3


def test_the_real_models_single_differences_are_exact(predictor: Predictor) -> None:
    found = explain(predictor, ALLISON)

    def log_odds(**changed: Any) -> float:
        one = predictor.predict([msgspec.structs.replace(ALLISON, **changed)])[0].probability
        return float(logit(np.array(one)))

    for one in found.contributions:
        if one.field not in ("pclass", "sex"):
            assert one.contribution == log_odds() - log_odds(**{one.field: None})


def test_a_prior_shift_moves_the_whole_and_the_baseline_alike(predictor: Predictor) -> None:
    game = CoalitionGame(ALLISON, predictor.bundle, "shapley")
    logits = predictor.logits(predictor.render(game.rows))
    plain, shifted = (
        game.explain(class_probabilities(bundle.record.map.probabilities(positive_logits(logits))).tolist())
        for bundle in (predictor.bundle, predictor.bundle.shifted(0.1))
    )
    moved = shifted.log_odds - plain.log_odds
    assert moved < -1
    assert shifted.baseline_log_odds - plain.baseline_log_odds == pytest.approx(moved, abs=1e-9)
    for one, other in zip(plain.contributions, shifted.contributions, strict=True):
        assert (one.field, one.contribution) == (other.field, pytest.approx(other.contribution, abs=1e-9))


def test_what_cannot_be_explained_is_named(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="method is 'lime'; it must be unknown or shapley"):
        explain(predictor, ALLISON, "lime")  # type: ignore[arg-type]
    with pytest.raises(RowError, match="row 0: pclass is 4; it must be one of 1, 2, 3"):
        explain(predictor, {"pclass": 4, "sex": "male"})
