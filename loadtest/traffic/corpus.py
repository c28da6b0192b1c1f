"""Passengers to send, each with the answer that the model gives it: written before the load, read while it runs.

    python -m loadtest.traffic.corpus --bundle artifacts/titanic --texts 2048 --out deck.msgpack

The model is asked here, in a process of its own, so that while the load runs an answer costs a comparison only.
"""

import argparse
import hashlib
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct

from loadtest.traffic.mixes import SHIFTS, Passenger, read_labelled

SEED = 7
CHUNK = 256
HOT_CARDS = 64
"""How many of the last cards a repeated passenger is drawn from."""

BORROWED = ("age", "fare", "cabin", "embarked", "sibsp", "parch")
"""Fields that a varied passenger takes from another one of the same class."""

RESULTS = Path(__file__).parents[1] / "results"


class Card(Struct, frozen=True, array_like=True):
    """A passenger as JSON, whether he or she survived, and by version of the bundle the probability to be served."""

    body: bytes
    survived: bool
    expected: dict[str, float]


class Deck(Struct, frozen=True):
    """``after`` is empty unless the mix of passengers changes during the run."""

    versions: list[str]
    cards: list[Card]
    after: list[Card]

    @classmethod
    def read(cls, path: Path) -> Self:
        return msgspec.msgpack.decode(path.read_bytes(), type=cls)


class Dealer:
    """Deals cards: each once, in one order, before any comes again; ``repeats`` of them are among the last dealt.

    Worker ``index`` of ``workers`` deals its own part. With ``at_random`` cards are drawn with replacement, as who
    tests for drift needs them: exchangeable.
    """

    def __init__(
        self, cards: Sequence[Card], rng: random.Random, *, repeats: float = 0.0, at_random: bool = False,
        index: int = 0, workers: int = 1,
    ):  # fmt: skip
        self._cards = list(cards[index::workers]) or list(cards)
        self._rng, self._repeats, self._at_random = rng, repeats, at_random
        self._next = 0

    def deal(self) -> Card:
        """The next card."""
        if self._at_random:
            return self._rng.choice(self._cards)
        if self._repeats and self._next and self._rng.random() < self._repeats:
            dealt = min(self._next, HOT_CARDS, len(self._cards))
            return self._cards[(self._next - 1 - self._rng.randrange(dealt)) % len(self._cards)]
        card = self._cards[self._next % len(self._cards)]
        self._next += 1
        return card

    def hand(self, count: int) -> list[Card]:
        """As many cards."""
        return [self.deal() for _ in range(count)]


def vary(labelled: Sequence[tuple[Passenger, bool]], rng: random.Random) -> tuple[Passenger, bool]:
    """A real passenger who takes some fields from another one of the same class; and whether he or she survived."""
    passenger, survived = rng.choice(labelled)
    other = rng.choice([one for one, _ in labelled if one["pclass"] == passenger["pclass"]])
    varied = dict(passenger)
    for field in rng.sample(BORROWED, rng.randint(0, len(BORROWED))):
        varied.pop(field, None)
        if field in other:
            varied[field] = other[field]
    return varied, survived


def build(bundles: Sequence[Path], texts: int, shift: str | None = None) -> Deck:
    """Cards of as many distinct texts of varied passengers; with ``shift`` the real ones, as they are and shifted."""
    from models.predictor import Predictor  # MLX, which only this process needs.

    predictors = [Predictor.load(bundle) for bundle in bundles]
    labelled, rng = read_labelled(), random.Random(SEED)
    if shift:
        before = labelled
        after = [(one, survived) for passenger, survived in labelled for one in SHIFTS[shift]([passenger])]
    else:
        before, after = [], []
        seen: set[str] = set()
        for _ in range(200 * texts):
            if len(before) == texts:
                break
            one, survived = vary(labelled, rng)
            text = predictors[0].render([msgspec.convert(one, _passenger_type())])[0]
            if text not in seen:
                seen.add(text)
                before.append((one, survived))
    return Deck(
        versions=[predictor.bundle.version for predictor in predictors],
        cards=_expect(before, predictors), after=_expect(after, predictors),
    )  # fmt: skip


def _passenger_type() -> Any:
    from models.passenger import Passenger as Checked

    return Checked


def _expect(labelled: Sequence[tuple[Passenger, bool]], predictors: Sequence[Any]) -> list[Card]:
    expected: list[dict[str, float]] = [{} for _ in labelled]
    for predictor in predictors:
        for first in range(0, len(labelled), CHUNK):
            part = labelled[first : first + CHUNK]
            for place, prediction in enumerate(predictor.predict([one for one, _ in part]), first):
                expected[place][predictor.bundle.version] = prediction.probability
    return [
        Card(msgspec.json.encode(one), survived, answers)
        for (one, survived), answers in zip(labelled, expected, strict=True)
    ]


def deck_path(bundles: Sequence[Path], texts: int, shift: str | None = None) -> Path:
    """Where the deck of these bundles is kept: another bundle, or another way to make decks, has another name."""
    identity = hashlib.sha256(Path(__file__).read_bytes())
    for bundle in bundles:
        identity.update((bundle / "manifest.json").read_bytes())
    return RESULTS / ".decks" / f"{identity.hexdigest()[:16]}-{shift or texts}.msgpack"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.traffic.corpus", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, action="append", required=True, help="a second one: may answer as well")
    parser.add_argument("--texts", type=int, default=2048, help="distinct texts (default: 2048)")
    parser.add_argument("--shift", choices=sorted(SHIFTS), help="real passengers, and the same shifted")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    deck = build(options.bundle, options.texts, options.shift)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = options.out.with_suffix(".part")
    temporary.write_bytes(msgspec.msgpack.encode(deck))
    temporary.replace(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
