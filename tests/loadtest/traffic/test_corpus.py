"""Cases: distinct texts, the model's own answers, sent without repetition unless asked for."""

import random
from pathlib import Path

import msgspec
import pytest

from loadtest.traffic.corpus import Case, Corpus, Sampler, build
from loadtest.traffic.local_service import other_bundle
from models.bundle.read import Bundle
from models.predictor import Predictor

CASES = [Case(str(place).encode(), "survived", {}) for place in range(100)]


@pytest.mark.slow
def test_a_corpus_holds_distinct_texts_and_what_either_bundle_answers(bundle_folder: Path, tmp_path: Path) -> None:
    bundles = [bundle_folder, other_bundle(bundle_folder, tmp_path / "other")]
    corpus = msgspec.msgpack.decode(msgspec.msgpack.encode(build(bundles, 40)), type=Corpus)
    predictors = [Predictor.load(one) for one in bundles]
    rows = [msgspec.json.decode(case.body) for case in corpus.cases]
    assert len(set(predictors[0].render(predictors[0].rows.check(rows)))) == 40
    assert {case.outcome for case in corpus.cases} == {"died", "survived"}
    assert len(set(corpus.versions)) == 2
    for predictor in predictors:
        served = [one.probability for one in predictor.predict(rows)]
        expected = [case.expected[predictor.bundle.version][1] for case in corpus.cases]
        assert expected == pytest.approx(served, abs=1e-5)
    assert any(len({round(p, 4) for _, p in case.expected.values()}) == 2 for case in corpus.cases)


@pytest.mark.slow
def test_a_corpus_of_a_shift_holds_both_mixes(bundle_folder: Path) -> None:
    corpus = build([bundle_folder], 0, "commonest-levels")
    after = [msgspec.json.decode(case.body) for case in corpus.after]
    assert len(corpus.cases) == 891
    assert {(one["pclass"], one["sex"]) for one in after} == {(3, "male")}


def test_a_corpus_of_another_table_is_made_up_or_taken_from_a_file(churn_bundle: Bundle, tmp_path: Path) -> None:
    made = build([churn_bundle.folder], 30)
    assert len(made.cases) == 30
    assert {case.outcome for case in made.cases} <= {"stays", "leaves"}
    assert all("city" in msgspec.json.decode(case.body) for case in made.cases)
    with pytest.raises(ValueError, match="name a CSV of them by --data"):
        build([churn_bundle.folder], 0, "swapped-levels")
    data = tmp_path / "customers.csv"
    data.write_text("city,senior,Churned?\ncity 00,y,Yes\ncity 01,n,no\ncity 02,n,\nnowhere,n,No\n")
    given = build([churn_bundle.folder], 0, "swapped-levels", data)
    assert [msgspec.json.decode(case.body) for case in given.cases] == [
        {"city": f"city 0{place}", "senior": senior} for place, senior in enumerate((True, False, False))
    ]
    assert [msgspec.json.decode(case.body)["senior"] for case in given.after] == [False, True, True]
    assert [case.outcome for case in given.cases][:2] == ["leaves", "stays"]
    assert all(case.expected[churn_bundle.version] for case in (*given.cases, *given.after))


def test_a_corpus_of_three_classes_holds_what_either_bundle_answers(penguins_bundle: Bundle, tmp_path: Path) -> None:
    bundles = [penguins_bundle.folder, other_bundle(penguins_bundle.folder, tmp_path / "other")]
    made = build(bundles, 30)
    assert {case.outcome for case in made.cases} <= set(penguins_bundle.schema.classes)
    for case in made.cases:
        first, second = case.expected.values()
        assert sum(first) == pytest.approx(1)
        # The other one's are nearer to each other.
        assert max(second) - min(second) < max(first) - min(first)


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
