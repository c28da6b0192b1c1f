import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from training.data.toml.writer import WIDTH, assignment, comment, commented_out, table

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SIMPLE = st.one_of(TEXT, st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(st.lists(inner, max_size=20), st.dictionaries(TEXT, inner, min_size=1, max_size=3)),
    max_leaves=15,
)


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_what_is_written_is_read(values: dict[str, Any]) -> None:
    text = "\n".join(table("[here]", values))
    assert tomllib.loads(text) == {"here": values}


@given(st.lists(SIMPLE, max_size=40))
def test_long_lists_are_broken_between_their_items(values: list[Any]) -> None:
    lines = assignment("values", values)
    assert tomllib.loads("\n".join(lines)) == {"values": values}
    assert len(lines) == 1 or lines[-1] == "]"


@given(TEXT)
def test_comments_are_no_content_whatever_they_say(text: str) -> None:
    printable = "".join(character for character in text if character.isprintable())
    lines = [*comment([printable]), *commented_out(assignment("x", text))]
    assert tomllib.loads("\n".join(lines)) == {}
    assert all(line.startswith("#") for line in lines)


def test_comments_are_wrapped() -> None:
    lines = comment(["word " * 100, "", "end"])
    assert max(map(len, lines)) <= WIDTH + 2
    assert lines[-2:] == ["#", "# end"]
