"""Cards: distinct texts, the model's own answers, dealt without repetition unless asked for."""

import random
from pathlib import Path

import msgspec
import pytest

from loadtest.traffic.corpus import Card, Dealer, Deck, build
from loadtest.traffic.own_service import other_bundle
from models.passenger import Passenger
from models.predictor import Predictor
from models.text import render

CARDS = [Card(str(place).encode(), True, {}) for place in range(100)]


@pytest.mark.slow
def test_a_deck_holds_distinct_texts_and_what_either_bundle_answers(bundle_folder: Path, tmp_path: Path) -> None:
    bundles = [bundle_folder, other_bundle(bundle_folder, tmp_path / "other")]
    deck = msgspec.msgpack.decode(msgspec.msgpack.encode(build(bundles, 40)), type=Deck)
    predictors = [Predictor.load(one) for one in bundles]
    passengers = [msgspec.json.decode(card.body, type=Passenger) for card in deck.cards]
    assert len({render(one, predictors[0].bundle.companions) for one in passengers}) == 40
    assert len(set(deck.versions)) == 2
    for predictor in predictors:
        served = [one.probability for one in predictor.predict(passengers)]
        assert [card.expected[predictor.bundle.version] for card in deck.cards] == pytest.approx(served, abs=1e-5)
    assert any(len({round(p, 4) for p in card.expected.values()}) == 2 for card in deck.cards)


@pytest.mark.slow
def test_a_deck_of_a_shift_holds_both_mixes(bundle_folder: Path) -> None:
    deck = build([bundle_folder], 0, "third-class-men")
    after = [msgspec.json.decode(card.body, type=Passenger) for card in deck.after]
    assert len(deck.cards) == 891
    assert {(one.pclass, one.sex) for one in after} == {(3, "male")}


def test_no_card_comes_again_before_all_were_dealt_and_workers_share_them() -> None:
    dealers = [Dealer(CARDS, random.Random(1), index=place, workers=3) for place in range(3)]
    dealt = [card.body for dealer, count in zip(dealers, (34, 33, 33), strict=True) for card in dealer.hand(count)]
    assert sorted(dealt) == sorted(card.body for card in CARDS)
    assert dealers[0].deal() == CARDS[0]


def test_a_share_is_repeated_from_what_was_just_dealt() -> None:
    dealt = [card.body for card in Dealer(CARDS * 100, random.Random(1), repeats=0.5).hand(2000)]
    repeated = sum(body in dealt[max(0, place - 200) : place] for place, body in enumerate(dealt[:100]))
    assert 30 < repeated < 70


def test_at_random_cards_are_drawn_with_replacement() -> None:
    dealt = [card.body for card in Dealer(CARDS, random.Random(1), at_random=True).hand(100)]
    assert 50 < len(set(dealt)) < 80
