"""What words add, by leaving them out: each figure is a difference of two answers, in a bounded number of passes."""

import math
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.bundle.read import Bundle
from models.bundle.write import write_bundle
from models.explanation import explain, make_game
from models.games.word_game import MAX_GROUPS, WordGame, group_size
from models.predictor import Predictor
from tests import reviews
from tests.tiny import ORIGIN, make_contents


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = tmp_path_factory.mktemp("words")
    contents = make_contents(reviews.table(80), folder, reviews.tokenizer().to_json().encode())
    # Random weights of this size read little more than [CLS]: with larger attention, words matter.
    tensors = load_file(folder / "model.safetensors")
    larger = {
        name: value * 8 if ".attention." in name and value.ndim == 2 else value for name, value in tensors.items()
    }
    save_file(larger, folder / "model.safetensors", metadata={"format": "pt"})
    return Predictor.load(write_bundle(folder / "bundle", contents, ORIGIN).folder)


@pytest.fixture
def bundle(predictor: Predictor) -> Bundle:
    return predictor.bundle


def log_odds(predictor: Predictor, **row: Any) -> float:
    (one,) = predictor.predict([row])
    assert one.probability is not None
    return math.log(one.probability / (1 - one.probability))


def test_a_word_adds_the_difference_of_two_answers(predictor: Predictor) -> None:
    words = ["we", "loved", "the", "soup"]
    found = explain(predictor, {"stars": 4, "review": " ".join(words)}, "words")
    whole = log_odds(predictor, stars=4, review="we loved the soup")
    assert [(one.field, one.value) for one in found.contributions] == [("review", word) for word in words]
    for at, one in enumerate(found.contributions):
        rest = log_odds(predictor, stars=4, review=" ".join(words[:at] + words[at + 1 :]))
        assert one.contribution == pytest.approx(whole - rest, abs=1e-5)
        assert one.standard_error is None
    assert found.log_odds == pytest.approx(whole, abs=1e-5)
    assert found.baseline_log_odds == pytest.approx(log_odds(predictor, stars=4), abs=1e-5)
    assert (found.method, found.outcome, found.text) == ("words", "good", "4 stars, we loved the soup")
    assert any(abs(one.contribution) > 1e-3 for one in found.contributions)


def test_the_other_class_has_the_same_words_with_the_other_sign(predictor: Predictor) -> None:
    row = {"review": "we loved the soup"}
    good, bad = (explain(predictor, row, "words", outcome) for outcome in ("good", "bad"))
    assert [one.contribution for one in bad.contributions] == pytest.approx(
        [-one.contribution for one in good.contributions], abs=1e-5
    )


@pytest.mark.parametrize("words", [1, 47, 48, 49, 96, 97, 700])
def test_the_passes_are_bounded_and_no_word_is_lost(words: int, bundle: Bundle) -> None:
    text = [f"w{number}" for number in range(words)]
    game = make_game(reviews.Review(review="  ".join(text)), bundle, "words")
    assert isinstance(game, WordGame)
    assert len(game.rows) <= MAX_GROUPS + 2
    found = game.explain([(0.4, 0.6)] * len(game.rows))
    assert " ".join(str(one.value) for one in found.contributions).split() == text
    assert {one.contribution for one in found.contributions} == {0.0}
    for row, one in zip(game.rows[2:], found.contributions, strict=True):
        assert [*str(one.value).split(), *row.review.split()] != text or one is found.contributions[0]
        assert sorted([*str(one.value).split(), *row.review.split()]) == sorted(text)


def test_a_row_without_a_text_has_no_words(predictor: Predictor) -> None:
    found = explain(predictor, {"stars": 4}, "words")
    assert found.contributions == ()
    assert found.log_odds == found.baseline_log_odds


def test_the_same_row_has_the_same_explanation(predictor: Predictor) -> None:
    row = {"stars": 1, "review": "never again, " * 60}
    assert explain(predictor, row, "words") == explain(predictor, row, "words")


def test_groups_are_as_small_as_the_bound_allows() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts = rng.integers(1, 300, int(rng.integers(1, 60))).tolist()
        size, most = group_size(counts), max(MAX_GROUPS, len(counts))
        assert sum(math.ceil(count / size) for count in counts) <= most
        assert size == 1 or sum(math.ceil(count / (size - 1)) for count in counts) > most
    assert group_size([]) == 1


def test_texts_that_the_model_does_not_read_as_they_stand_have_no_words(tiny_bundle: Bundle) -> None:
    predictor = Predictor.load(tiny_bundle.folder)
    row = {"pclass": 1, "sex": "female", "name": "Cumings, Mrs. John Bradley"}
    assert explain(predictor, row, "words").contributions == ()
