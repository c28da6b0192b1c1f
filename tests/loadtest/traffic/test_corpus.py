"""Cases: distinct texts, the model's own answers, sent without repetition unless asked for."""

import random
from pathlib import Path

import msgspec
import pytest

from loadtest.traffic.corpus import Case, Corpus, Sampler, build
from loadtest.traffic.local_service import other_bundle
from models.passenger import Passenger
from models.predictor import Predictor
from models.text import render

CASES = [Case(str(place).encode(), True, {}) for place in range(100)]


@pytest.mark.slow
def test_a_corpus_holds_distinct_texts_and_what_either_bundle_answers(bundle_folder: Path, tmp_path: Path) -> None:
    bundles = [bundle_folder, other_bundle(bundle_folder, tmp_path / "other")]
    corpus = msgspec.msgpack.decode(msgspec.msgpack.encode(build(bundles, 40)), type=Corpus)
    predictors = [Predictor.load(one) for one in bundles]
    passengers = [msgspec.json.decode(case.body, type=Passenger) for case in corpus.cases]
    assert len({render(one, predictors[0].bundle.companions) for one in passengers}) == 40
    assert len(set(corpus.versions)) == 2
    for predictor in predictors:
        served = [one.probability for one in predictor.predict(passengers)]
        assert [case.expected[predictor.bundle.version] for case in corpus.cases] == pytest.approx(served, abs=1e-5)
    assert any(len({round(p, 4) for p in case.expected.values()}) == 2 for case in corpus.cases)


@pytest.mark.slow
def test_a_corpus_of_a_shift_holds_both_mixes(bundle_folder: Path) -> None:
    corpus = build([bundle_folder], 0, "third-class-men")
    after = [msgspec.json.decode(case.body, type=Passenger) for case in corpus.after]
    assert len(corpus.cases) == 891
    assert {(one.pclass, one.sex) for one in after} == {(3, "male")}


def test_no_card_comes_again_before_all_were_dealt_and_workers_share_them() -> None:
    samplers = [Sampler(CASES, random.Random(1), index=place, workers=3) for place in range(3)]
    sent = [case.body for sampler, count in zip(samplers, (34, 33, 33), strict=True) for case in sampler.take(count)]
    assert sorted(sent) == sorted(case.body for case in CASES)
    assert samplers[0].next() == CASES[0]


def test_a_share_is_repeated_from_what_was_just_dealt() -> None:
    sent = [case.body for case in Sampler(CASES * 100, random.Random(1), repeats=0.5).take(2000)]
    repeated = sum(body in sent[max(0, place - 200) : place] for place, body in enumerate(sent[:100]))
    assert 30 < repeated < 70


def test_at_random_cards_are_drawn_with_replacement() -> None:
    sent = [case.body for case in Sampler(CASES, random.Random(1), with_replacement=True).take(100)]
    assert 50 < len(set(sent)) < 80
