"""Known answers: computed again by each engine, and every way in which they may come out otherwise is named."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models import selftest
from models.bundle.known_answers import KnownAnswer, KnownAnswers
from models.bundle.manifest import SELFTEST, BundleError
from models.bundle.read import Bundle, open_bundle, read_bundle
from models.bundle.write import write_bundle
from models.engines.choice import EngineChoice, choose_engine, load_engine
from models.prediction import Diagnosis
from models.predictor import Predictor
from models.rows import Rows
from models.selftest import ROWS, compare, main, make_rows
from tests.tiny import ORIGIN, Contents
from tests.titanic import SCHEMA
from training.bundle.known_answers import known_answers, read_tokenizer
from training.data.table import Table

Change = dict[str, Any]


@pytest.fixture(scope="module")
def answers(tiny_bundle: Bundle, tiny_contents: Contents, table: Table) -> KnownAnswers:
    tokenizer = read_tokenizer(tiny_contents)
    diagnosis = Diagnosis(tiny_bundle.record, tiny_bundle.reference, tiny_bundle.schema, tokenizer)
    return known_answers(tiny_contents, tokenizer, tiny_bundle.schema, diagnosis, table.rows)


def write(folder: Path, contents: Contents, answers: KnownAnswers) -> Path:
    return write_bundle(folder / "tiny", {**contents, SELFTEST: msgspec.json.encode(answers)}, ORIGIN).folder


def with_change(answers: KnownAnswers, number: int, **change: Any) -> KnownAnswers:
    changed = list(answers.answers)
    changed[number] = msgspec.structs.replace(changed[number], **change)
    return KnownAnswers(tuple(changed))


@pytest.mark.parametrize("engine", ["mlx", "onnx"])
def test_both_engines_answer_as_training_did(
    engine: EngineChoice, answers: KnownAnswers, tiny_contents: Contents, tmp_path: Path
) -> None:
    bundle, tokenizer, weights = open_bundle(write(tmp_path, tiny_contents, answers))
    found = compare(bundle, tokenizer, load_engine(choose_engine(engine, bundle.config), bundle.config, weights))
    assert [one.known for one in found] == list(answers.answers)
    assert len(found) == ROWS
    for one in found:
        assert one.fault is None
        assert one.difference == pytest.approx(np.abs(np.subtract(one.logits, one.known.logits)).max())
        assert one.difference < 1e-4


def test_a_bundle_with_another_population_is_tested_as_it_was_made(
    answers: KnownAnswers, tiny_contents: Contents, tmp_path: Path
) -> None:
    folder = write(tmp_path, tiny_contents, answers)
    row = answers.answers[0].row
    plain, shifted = Predictor.load(folder), Predictor.load(folder, target_prevalence=0.1)
    assert shifted.predict([row])[0].probability < plain.predict([row])[0].probability


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: {"logits": (one.logits[0], one.logits[1] + 0.1)}, "a logit differs by"),
        (lambda one: {"logits": (1e30, one.logits[1])}, "a logit differs by 1e+30"),
        (lambda one: {"text": one.text + "!"}, "its text is"),
        (lambda one: {"token_ids": one.token_ids[:-1]}, "its tokens are others"),
        (lambda one: {"probabilities": one.probabilities[::-1]}, "its probabilities are"),
        (lambda one: {"row": {**one.row, "pclass": 3 if one.row["pclass"] != 3 else 2}}, "its text is"),
    ],
)  # fmt: skip
def test_what_is_computed_otherwise_is_refused_by_name(
    change: Any, message: str, answers: KnownAnswers, tiny_contents: Contents, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    number = 0 if message != "its probabilities are" else next(
        at for at, one in enumerate(answers.answers) if abs(one.probabilities[0] - 0.5) > 1e-3
    )  # fmt: skip
    folder = write(tmp_path, tiny_contents, with_change(answers, number, **change(answers.answers[number])))
    with pytest.raises(BundleError, match=rf"selftest\.json: row \d+: .*{message.split('+')[0]}"):
        Predictor.load(folder)
    assert main([str(folder)]) == 1
    assert "16 rows, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": (0.0,)}, "2 logits"),
        ({"probabilities": ()}, "2 logits"),
        ({"row": {"pclass": 9}}, "row 0: pclass is 9"),
    ],
)
def test_answers_of_another_table_are_refused(
    change: Change, message: str, answers: KnownAnswers, tiny_contents: Contents, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=rf"selftest\.json: .*{message}"):
        Predictor.load(write(tmp_path, tiny_contents, with_change(answers, 0, **change)))


def test_a_bundle_of_before_has_none_and_is_served(tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_bundle(tiny_bundle.folder).known_answers == KnownAnswers()
    assert Predictor.load(tiny_bundle.folder)
    assert main([str(tiny_bundle.folder)]) == 1
    assert "has no selftest.json" in capsys.readouterr().err


def test_the_command_prints_each_row_and_the_largest_difference(
    answers: KnownAnswers, tiny_contents: Contents, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(write(tmp_path, tiny_contents, answers)), "--engine", "onnx"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == ROWS + 2
    assert lines[0].startswith("ONNX Runtime")
    assert all(line.endswith("  ok") for line in lines[1:-1])
    assert lines[-1].startswith("16 rows, 0 wrong; largest difference of a logit ")


def test_rows_are_made_up_within_the_schema_and_none_is_of_the_table(table: Table) -> None:
    rows = make_rows(SCHEMA, set(table.rows), np.random.default_rng(0))
    assert len(rows) == len(set(rows)) == ROWS
    assert Rows(SCHEMA).check(rows) == rows
    assert not set(rows) & set(table.rows)
    assert make_rows(SCHEMA, (), np.random.default_rng(0)) == make_rows(SCHEMA, (), np.random.default_rng(0))
    assert any(row.age is None for row in rows)
    assert any(row.age is not None for row in rows)


def test_a_table_of_which_all_rows_are_known_leaves_none() -> None:
    class Everything:
        def __contains__(self, _: object) -> bool:
            return True

    assert make_rows(SCHEMA, Everything(), np.random.default_rng(0)) == []


def test_answers_are_bounded() -> None:
    one = KnownAnswer(row={}, text="", token_ids=(), logits=(), probabilities=())
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(KnownAnswers((one,) * 65)), type=KnownAnswers)
    assert selftest.ROWS <= 64
