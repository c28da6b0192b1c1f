"""``./run train describe`` as a user calls it."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from models.schema import schema_of
from tests.conftest import TITANIC
from tests.training.data.tables import every_kind, write_csv
from training.__main__ import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; its exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main(["describe", *map(str, arguments)])
        except SystemExit as wrong_use:
            code = int(str(wrong_use.code))
        out, error = capsys.readouterr()
        return code, out, error

    return call


def test_the_description_goes_to_standard_output_or_a_file(tmp_path: Path, run: Run) -> None:
    rows = write_csv(tmp_path, every_kind(), ";")
    code, text, error = run(rows, "--label", "CHURNED", "--name", "clients", "--group", "city")
    assert (code, error) == (0, "")
    schema = schema_of(tomllib.loads(text))
    assert (schema.name, schema.group, schema.label.column) == ("clients", "city", "churned")
    out = tmp_path / "table.toml"
    again = run(rows, "--label", "churned", "--name", "clients", "--group", "city", "--separator", ";", "--out", out)
    assert again == (0, "", "")
    assert out.read_text(encoding="utf-8") == text


def test_the_passengers_are_described_without_what_is_known_of_them(run: Run) -> None:
    _, text, _ = run(TITANIC, "--label", "Survived")
    schema = schema_of(tomllib.loads(text))
    assert {field.name: field.type for field in schema.fields} == {
        "pclass": "integer", "name": "text", "sex": "category", "age": "number", "sib_sp": "integer",
        "parch": "integer", "ticket": "text", "fare": "number", "cabin": "text", "embarked": "category",
    }  # fmt: skip
    assert "PassengerId has a value of its own in each row" in text
    assert schema.positive == "Survived"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none.csv", "--label", "y"), 1, "there is no file none.csv"),
        ((TITANIC, "--label", "alive"), 1, "has no column alive; it has PassengerId, Survived"),
        ((TITANIC, "--label", "Survived", "--group", "party"), 1, "has no column party"),
        ((TITANIC, "--label", "Survived", "--separator", "ab"), 1, "the separator is 'ab'"),
        ((TITANIC, "--label", "Survived", "--separator", ";"), 1, "--separator names what separates cells"),
        ((TITANIC, "--label", "Survived", "--name", "a b"), 1, "name: it must be letters, digits"),
        ((TITANIC,), 2, "--label"),
    ],
)
def test_wrong_use_is_one_sentence(run: Run, arguments: tuple[object, ...], code: int, message: str) -> None:
    found, out, error = run(*arguments)
    assert (found, out) == (code, "")
    assert message in error
    assert code == 2 or len(error.splitlines()) == 1
