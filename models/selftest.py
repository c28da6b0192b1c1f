"""Is a bundle computed rightly here? Its known answers, computed again: python -m models.selftest BUNDLE

No tests have run on most devices that a bundle comes to. A wrong tokenizer, kernel or driver gives probabilities that
look like any others, so each load compares them with those that training wrote down (`models.bundle.known_answers`).
"""

import argparse
import sys
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct, to_builtins

from models.bert.tokenizer import Tokenizer
from models.bundle.known_answers import KnownAnswer, KnownAnswers
from models.bundle.manifest import SELFTEST, BundleError
from models.bundle.precisions import FULL, PRECISIONS, Precision
from models.bundle.read import Bundle, open_bundle
from models.engines.choice import ENGINES, choose_engine, load_engine
from models.engines.engine import Engine, EngineError
from models.prediction import Diagnosis
from models.rows import Row, RowError, Rows
from models.schema import Field, Schema
from models.text import Renderer

ROWS = 16
TRIES = 64
"""Rows drawn for each that is kept: of few fields nearly all are rows of the table."""
UNKNOWN_SHARE = 0.25
TOLERANCES: dict[Precision, float] = {"float32": 1e-3, "float16": 0.01, "bfloat16": 0.1, "int8": 0.1}
"""Largest accepted difference of a logit, as a share of the largest one where that is above 1.

Processors that are tested differ by 1e-5 in float32, and a GPU may compute products in fewer bits; what is wrong
differs by more. What fewer bits cost in probability is measured elsewhere (`models.bundle.precisions`)."""
PROBABILITY_TOLERANCE = 1e-6
"""Of the same logits: calibration is computed in float64 everywhere."""


class Comparison(Struct, frozen=True, kw_only=True):
    """An answer beside the known one; ``difference`` is the largest of a logit. ``fault`` is what makes it refused."""

    known: KnownAnswer
    logits: tuple[float, ...]
    difference: float
    fault: str | None


def make_rows(schema: Schema, avoid: Container[Row], rng: np.random.Generator) -> list[Row]:
    """Up to `ROWS` made-up rows, of each field any value or none, without those in ``avoid``."""
    rows, found = Rows(schema), dict[Row, None]()
    for _ in range(ROWS * TRIES):
        values = {field.name: _draw(field, rng) for field in schema.fields}
        (row,) = rows.check([{name: value for name, value in values.items() if value is not None}])
        if row not in avoid:
            found[row] = None
        if len(found) == ROWS:
            break
    return list(found)


def answer(
    rows: Sequence[Row], render: Callable[[Row], str], tokenizer: Tokenizer, engine: Engine, diagnosis: Diagnosis
) -> KnownAnswers:
    """What is to be known of these rows."""
    texts = [render(row) for row in rows]
    token_ids = tokenizer.token_ids(texts)
    logits = engine.logits(token_ids)
    predictions = diagnosis.predictions(logits, rows, texts)
    return KnownAnswers(
        tuple(
            KnownAnswer(
                row=to_builtins(row), text=text, token_ids=tuple(ids), logits=tuple(z), probabilities=one.probabilities
            )
            for row, text, ids, z, one in zip(rows, texts, token_ids, logits.tolist(), predictions, strict=True)
        )
    )


def compare(bundle: Bundle, tokenizer: Tokenizer, engine: Engine) -> list[Comparison]:
    """A bundle's known answers beside those that are computed here. Raises BundleError where they are not its own."""
    answers, render = bundle.known_answers.answers, Renderer(bundle.schema)
    if not answers:
        return []
    try:
        rows = Rows(bundle.schema).check([known.row for known in answers])
    except RowError as error:
        raise BundleError(f"{SELFTEST}: {error}") from error
    shape = len(answers), len(bundle.schema.classes)
    if any({len(known.logits), len(known.probabilities)} != {shape[1]} for known in answers):
        raise BundleError(f"{SELFTEST}: each row has {shape[1]} logits and probabilities, one for each class")
    texts = [render(row, bundle.known) for row in rows]
    token_ids, recorded = tokenizer.token_ids(texts), np.array([known.logits for known in answers])
    logits = engine.logits(token_ids)
    tolerance = TOLERANCES[engine.backend.precision] * max(1.0, float(np.abs(logits).max()))

    def fault(known: KnownAnswer, text: str, ids: Sequence[int], difference: float) -> str | None:
        if text != known.text:
            return f"its text is {text[:80]!r}, and was {known.text[:80]!r}"
        if tuple(ids) != known.token_ids:
            return "its tokens are others: the tokenizer's library differs"
        if not difference <= tolerance:
            return f"a logit differs by {difference:.2g}, more than {tolerance:g}: {engine.backend.describe()}"
        return None

    differences = np.abs(logits - recorded).max(axis=1).tolist()
    faults = [fault(*row) for row in zip(answers, texts, token_ids, differences, strict=True)]
    if not any(faults):
        # Of logits that are the model's, not of any that a file may hold.
        faults = _calibration_faults(bundle, tokenizer, recorded, rows, texts)
    columns = zip(answers, logits.tolist(), differences, faults, strict=True)
    return [Comparison(known=one, logits=tuple(z), difference=by, fault=fault) for one, z, by, fault in columns]


def _calibration_faults(
    bundle: Bundle, tokenizer: Tokenizer, recorded: np.ndarray, rows: Sequence[Row], texts: Sequence[str]
) -> list[str | None]:
    seconds = bundle.scorers(tokenizer)
    diagnosis = Diagnosis(bundle.record, bundle.reference, bundle.schema, tokenizer, seconds)
    predictions = diagnosis.predictions(recorded, rows, texts)
    return [
        None
        if np.abs(np.subtract(one.probabilities, known.probabilities)).max() <= PROBABILITY_TOLERANCE
        else f"its probabilities are {_short(one.probabilities)}, and were {_short(known.probabilities)}"
        for one, known in zip(predictions, bundle.known_answers.answers, strict=True)
    ]


def check(bundle: Bundle, tokenizer: Tokenizer, engine: Engine) -> None:
    """Raise BundleError where a known answer is not what is computed here."""
    for number, one in enumerate(compare(bundle, tokenizer, engine)):
        if one.fault:
            raise BundleError(f"{SELFTEST}: row {number}: {one.fault}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; 0 all the same, 1 something differs or could not be loaded, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="python -m models.selftest", description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="default: %(default)s")
    parser.add_argument("--precision", choices=PRECISIONS, default=FULL, help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        bundle, tokenizer, weights = open_bundle(options.bundle)
        chosen = choose_engine(options.engine, bundle.config)
        chosen.check(options.precision)
        engine = load_engine(chosen, bundle.config, weights, options.precision)
        found = compare(bundle, tokenizer, engine)
    except (BundleError, EngineError) as error:
        print(f"selftest: {error}", file=sys.stderr)
        return 1
    print(engine.backend.describe())
    if not found:
        print(f"selftest: {options.bundle} has no {SELFTEST}; training writes one", file=sys.stderr)
        return 1
    for number, one in enumerate(found):
        print(
            f"{number:3}  {_short(one.known.logits)}  {_short(one.logits)}  {one.difference:8.1e}  {one.fault or 'ok'}"
        )
    faults = sum(one.fault is not None for one in found)
    largest = max(one.difference for one in found)
    print(f"{len(found)} rows, {faults} wrong; largest difference of a logit {largest:.1e}")
    return 1 if faults else 0


def _draw(field: Field, rng: np.random.Generator) -> Any:
    if not field.required and rng.random() < UNKNOWN_SHARE:
        return None
    if field.type == "boolean":
        return bool(rng.random() < 0.5)
    if field.type == "category":
        return field.levels[rng.integers(len(field.levels))]
    if field.type == "text":
        return f"text {rng.integers(1000)}"[: field.max_length]
    value = float(rng.uniform(field.bins[0], field.bins[-1]))
    value = round(value) if field.type == "integer" else float(f"{value:.3g}")
    low, high = (bound for bound in (field.minimum, field.maximum))
    value = value if low is None else max(value, low)
    value = value if high is None else min(value, high)
    return int(value) if field.type == "integer" else float(value)


def _short(values: Sequence[float]) -> str:
    return " ".join(f"{value:9.5f}" for value in values[:4])


if __name__ == "__main__":
    raise SystemExit(main())
