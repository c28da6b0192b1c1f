"""The corpus: cases to send, passengers with the answers of the model, written before the load and read during it.

    python -m loadtest.traffic.corpus --bundle artifacts/titanic --texts 2048 --out corpus.msgpack

The model is asked here, in a process of its own, so that while the load runs a check costs a comparison only.
"""

import argparse
import hashlib
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct

from loadtest.traffic.passengers import SHIFTS, Row, read_labelled

SEED = 7
CHUNK = 256
HOT_CASES = 64
"""A repeated case is one of so many last ones."""

VARIED_FIELDS = ("age", "fare", "cabin", "embarked", "sibsp", "parch")
"""Fields that a varied passenger takes from another one of the same class."""

RESULTS = Path(__file__).parents[1] / "results"


class Case(Struct, frozen=True, array_like=True):
    """A passenger as JSON, whether he or she survived, and by version of the bundle the probability to be served."""

    body: bytes
    survived: bool
    expected: dict[str, float]


class Corpus(Struct, frozen=True):
    """``after`` is empty unless the mix of passengers changes during the run."""

    versions: list[str]
    cases: list[Case]
    after: list[Case]

    @classmethod
    def read(cls, path: Path) -> Self:
        return msgspec.msgpack.decode(path.read_bytes(), type=cls)


class Sampler:
    """Gives each case once, in one order, before any comes again; a share ``repeats`` of them are among the last ones.

    Worker ``index`` of ``workers`` gives its own part. With replacement the cases are exchangeable, as drift tests
    need them.
    """

    def __init__(
        self, cases: Sequence[Case], rng: random.Random, *, repeats: float = 0.0, with_replacement: bool = False,
        index: int = 0, workers: int = 1,
    ):  # fmt: skip
        self._cases = list(cases[index::workers]) or list(cases)
        self._rng, self._repeats, self._with_replacement = rng, repeats, with_replacement
        self._next = 0

    def next(self) -> Case:
        """The next case."""
        if self._with_replacement:
            return self._rng.choice(self._cases)
        if self._repeats and self._next and self._rng.random() < self._repeats:
            recent = min(self._next, HOT_CASES, len(self._cases))
            return self._cases[(self._next - 1 - self._rng.randrange(recent)) % len(self._cases)]
        case = self._cases[self._next % len(self._cases)]
        self._next += 1
        return case

    def take(self, count: int) -> list[Case]:
        """The next ``count`` cases."""
        return [self.next() for _ in range(count)]


def vary(labelled: Sequence[tuple[Row, bool]], rng: random.Random) -> tuple[Row, bool]:
    """A real passenger who takes some fields from another one of the same class; and whether he or she survived."""
    passenger, survived = rng.choice(labelled)
    other = rng.choice([one for one, _ in labelled if one["pclass"] == passenger["pclass"]])
    varied = dict(passenger)
    for field in rng.sample(VARIED_FIELDS, rng.randint(0, len(VARIED_FIELDS))):
        varied.pop(field, None)
        if field in other:
            varied[field] = other[field]
    return varied, survived


def build(bundles: Sequence[Path], texts: int, shift: str | None = None) -> Corpus:
    """Cases of as many distinct texts of varied passengers; with ``shift`` the real ones, as they are and shifted."""
    from models.passenger import Passenger
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
            text = predictors[0].render([msgspec.convert(one, Passenger)])[0]
            if text not in seen:
                seen.add(text)
                before.append((one, survived))
    return Corpus(
        versions=[predictor.bundle.version for predictor in predictors],
        cases=_expect(before, predictors), after=_expect(after, predictors),
    )  # fmt: skip


def _expect(labelled: Sequence[tuple[Row, bool]], predictors: Sequence[Any]) -> list[Case]:
    expected: list[dict[str, float]] = [{} for _ in labelled]
    for predictor in predictors:
        for first in range(0, len(labelled), CHUNK):
            part = labelled[first : first + CHUNK]
            for place, prediction in enumerate(predictor.predict([one for one, _ in part]), first):
                expected[place][predictor.bundle.version] = prediction.probability
    return [
        Case(msgspec.json.encode(one), survived, answers)
        for (one, survived), answers in zip(labelled, expected, strict=True)
    ]


def corpus_path(bundles: Sequence[Path], texts: int, shift: str | None = None) -> Path:
    """Where the corpus of these bundles is kept; another bundle, or another version of this file, has another name."""
    identity = hashlib.sha256(Path(__file__).read_bytes())
    for bundle in bundles:
        identity.update((bundle / "manifest.json").read_bytes())
    return RESULTS / ".corpora" / f"{identity.hexdigest()[:16]}-{shift or texts}.msgpack"


def ensure_corpus(bundles: Sequence[Path], texts: int, shift: str | None = None) -> Path:
    """The corpus's path; it is made first, in another process, where it is not there. Raises OSError."""
    path = corpus_path(bundles, texts, shift)
    if path.exists():
        return path
    print(f"load: asking the model for its answers to {'the' if shift else texts} passengers", file=sys.stderr)
    command = [sys.executable, "-m", "loadtest.traffic.corpus", "--texts", str(texts), "--out", str(path)]
    command += [word for bundle in bundles for word in ("--bundle", str(bundle))]
    if subprocess.call(command + (["--shift", shift] if shift else []), cwd=Path(__file__).parents[2]):
        raise OSError("the right answers could not be computed; see above")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.traffic.corpus", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, action="append", required=True, help="a second one: may answer as well")
    parser.add_argument("--texts", type=int, default=2048, help="distinct texts (default: 2048)")
    parser.add_argument("--shift", choices=sorted(SHIFTS), help="real passengers, and the same shifted")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    corpus = build(options.bundle, options.texts, options.shift)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = options.out.with_suffix(".part")
    temporary.write_bytes(msgspec.msgpack.encode(corpus))
    temporary.replace(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
