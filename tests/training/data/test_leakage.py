import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training.data.leakage import GIVEAWAY_AUC, auc, auc_alone

N = 2000
RNG = np.random.default_rng(0)
LABELS = (RNG.random(N) < 0.2).astype(np.int64)
NOTHING = np.full(N, np.nan)


def alone(texts: list[str], numbers: np.ndarray = NOTHING, labels: np.ndarray = LABELS) -> float:
    return auc_alone(texts, numbers, labels, np.random.default_rng(1))


def as_texts(numbers: np.ndarray) -> list[str]:
    return [str(number) for number in numbers.tolist()]


def test_the_area_is_scikit_learns() -> None:
    scores = RNG.integers(0, 30, N) + LABELS * 5
    assert auc(scores, LABELS == 1) == pytest.approx(roc_auc_score(LABELS, scores))


def test_a_value_per_row_and_noise_tell_nothing() -> None:
    assert alone([f"id-{number}" for number in range(N)]) == pytest.approx(0.5, abs=0.02)
    noise = RNG.normal(size=N)
    assert alone(as_texts(noise), noise) < 0.6
    assert alone(RNG.choice(list("abcdefgh"), N).tolist()) < 0.6
    assert alone([str(number % 300) for number in range(N)]) < 0.6


def test_what_was_written_after_the_outcome_is_found() -> None:
    by_order = np.where(LABELS == 1, RNG.uniform(10, 20, N), RNG.uniform(21, 30, N))
    assert alone(as_texts(by_order), by_order) == 1
    some_missing = np.where(RNG.random(N) < 0.05, np.nan, by_order)
    assert alone(as_texts(some_missing), some_missing) > GIVEAWAY_AUC
    only_for_some = np.where(LABELS == 1, RNG.choice(["price", "moved"], N), "").tolist()
    assert alone(only_for_some) > GIVEAWAY_AUC
    in_the_middle = np.where(LABELS == 1, RNG.uniform(0.4, 0.6, N), RNG.choice([0.1, 0.9], N) + RNG.normal(0, 0.01, N))
    assert alone(as_texts(in_the_middle), in_the_middle) > GIVEAWAY_AUC


def test_a_good_column_is_no_giveaway() -> None:
    good = LABELS * 3 + RNG.normal(size=N)
    assert 0.95 < alone(as_texts(good), good) < GIVEAWAY_AUC


def test_several_classes_are_each_held_against_the_others() -> None:
    labels = np.arange(N) % 3
    given = np.array(["red", "green", "blue"])[labels].tolist()
    assert alone(given, labels=labels) > GIVEAWAY_AUC
    two_of_three = np.where(labels == 2, "blue", "other").tolist()
    assert alone(two_of_three, labels=labels) < 0.9


def test_a_rare_class_does_not_hide_what_gives_the_others_away() -> None:
    labels = np.arange(N) % 3
    labels[:3] = 3
    given = np.array(["red", "green", "blue", "grey"])[labels].tolist()
    assert alone(given, labels=labels) > GIVEAWAY_AUC


def test_a_few_rows_of_a_class_prove_nothing() -> None:
    labels = np.zeros(40, dtype=np.int64)
    labels[:3] = 1
    assert alone(as_texts(labels), labels.astype(float), labels) == 0.5
