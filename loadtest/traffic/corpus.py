"""The corpus: cases to send, rows with the answers of the model, written before the load and read during it.

    python -m loadtest.traffic.corpus --bundle BUNDLE --texts 2048 --out corpus.msgpack

The model is asked here, in a process of its own, so that while the load runs a check costs a comparison only.
"""

import argparse
import hashlib
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct

from loadtest.traffic.refused import Refused, refused_bodies
from loadtest.traffic.rows import SHIFTS, Labelled, make_row, own_data, read_labelled, vary
from models.bundle.manifest import BundleError
from models.bundle.read import Bundle

SEED = 7
CHUNK = 256
MAX_DRAWS = 200
"""Of rows for each text that is wanted: a table may not have as many."""
HOT_CASES = 64
"""A repeated case is one of so many last ones."""

RESULTS = Path(__file__).parents[1] / "results"


class Case(Struct, frozen=True, array_like=True):
    """A row as JSON, the name of its class, and by version of the bundle the probabilities (K) to be served."""

    body: bytes
    outcome: str
    expected: dict[str, tuple[float, ...]]


class Corpus(Struct, frozen=True):
    """``after`` is empty unless the mix of rows changes during the run, ``refused`` what the service must refuse."""

    versions: list[str]
    cases: list[Case]
    after: list[Case]
    refused: list[Refused]

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


def build(bundles: Sequence[Path], texts: int, shift: str | None = None, data: Path | None = None) -> Corpus:
    """Cases of as many distinct texts, of varied rows of ``data``; with ``shift`` its rows as they are, and shifted.

    Without ``data`` they are those of `own_data`, or else made up. Raises ValueError.
    """
    from models.predictor import Predictor  # MLX, which only this process needs.

    predictors = [Predictor.load(bundle) for bundle in bundles]
    bundle, rng = predictors[0].bundle, random.Random(SEED)
    data = data or own_data(bundle.schema)
    if shift:
        if data is None:
            raise ValueError("a drift is one of rows as they come, not of made up ones: name a CSV of them by --data")
        before = read_labelled(bundle.schema, data)
        after = SHIFTS[shift](bundle.schema, before)
    else:
        before, after = _distinct(predictors[0], _draw(bundle, data, rng), texts), []
    return Corpus(
        versions=[predictor.bundle.version for predictor in predictors],
        cases=_expect(before, predictors, rng), after=_expect(after, predictors, rng),
        refused=refused_bodies(bundle.schema, max((row for row, _ in before), key=len)),
    )  # fmt: skip


def _draw(bundle: Bundle, data: Path | None, rng: random.Random) -> Callable[[], Labelled]:
    """Gives one row after the other."""
    schema = bundle.schema
    if data is None:
        return lambda: (make_row(schema, bundle.reference, rng), None)
    labelled = read_labelled(schema, data)
    optional = [field.name for field in schema.fields if not field.required] or list(schema.by_name)
    return lambda: vary(labelled, optional, rng)


def _distinct(predictor: Any, draw: Callable[[], Labelled], texts: int) -> list[Labelled]:
    """Rows of so many distinct texts, or of as many as many draws have found."""
    found: dict[str, Labelled] = {}
    for _ in range(MAX_DRAWS * texts):
        if len(found) == texts:
            break
        row, outcome = draw()
        found.setdefault(predictor.render(predictor.rows.check([row]))[0], (row, outcome))
    return list(found.values())


def _expect(labelled: Sequence[Labelled], predictors: Sequence[Any], rng: random.Random) -> list[Case]:
    """What each bundle answers; a row whose class is not known has one as probable as the first says."""
    expected: list[dict[str, tuple[float, ...]]] = [{} for _ in labelled]
    for predictor in predictors:
        for first in range(0, len(labelled), CHUNK):
            part = labelled[first : first + CHUNK]
            for place, prediction in enumerate(predictor.predict([row for row, _ in part]), first):
                expected[place][predictor.bundle.version] = prediction.probabilities
    classes = predictors[0].bundle.schema.classes
    return [
        Case(msgspec.json.encode(row), outcome or rng.choices(classes, next(iter(answers.values())))[0], answers)
        for (row, outcome), answers in zip(labelled, expected, strict=True)
    ]


def corpus_path(bundles: Sequence[Path], texts: int, shift: str | None = None, data: Path | None = None) -> Path:
    """Where the corpus of these bundles and data is kept; others, or other versions of this code, have another name."""
    identity = hashlib.sha256()
    for path in (*sorted(Path(__file__).parent.glob("*.py")), *(bundle / "manifest.json" for bundle in bundles)):
        identity.update(path.read_bytes())
    if data is not None:
        identity.update(data.read_bytes())
    return RESULTS / ".corpora" / f"{identity.hexdigest()[:16]}-{shift or texts}.msgpack"


def ensure_corpus(bundles: Sequence[Path], texts: int, shift: str | None = None, data: Path | None = None) -> Path:
    """The corpus's path; it is made first, in another process, where it is not there. Raises OSError."""
    path = corpus_path(bundles, texts, shift, data)
    if path.exists():
        return path
    print(f"load: asking the model for its answers to {'the' if shift else texts} rows", file=sys.stderr)
    command = [sys.executable, "-m", "loadtest.traffic.corpus", "--texts", str(texts), "--out", str(path)]
    command += [word for bundle in bundles for word in ("--bundle", str(bundle))]
    command += ["--shift", shift] if shift else []
    command += [] if data is None else ["--data", str(data.absolute())]
    if subprocess.call(command, cwd=Path(__file__).parents[2]):
        raise OSError("the right answers could not be computed; see above")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.traffic.corpus", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, action="append", required=True, help="a second one: may answer as well")
    parser.add_argument("--texts", type=int, default=2048, help="distinct texts (default: 2048)")
    parser.add_argument("--shift", choices=sorted(SHIFTS), help="the rows of --data, and the same shifted")
    parser.add_argument("--data", type=Path, help="a CSV of the table (default: data/NAME.csv, else rows are made up)")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        corpus = build(options.bundle, options.texts, options.shift, options.data)
    except (BundleError, ValueError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 1
    options.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = options.out.with_suffix(".part")
    temporary.write_bytes(msgspec.msgpack.encode(corpus))
    temporary.replace(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
