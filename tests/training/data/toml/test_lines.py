import pytest

from models.schema import TITANIC
from training.data.toml.lines import find_line

TEXT = '''name = "x"  # a comment
text = [
    "{a}",  # with ] and "
    "{b}",
]

[label]
column = "y"
classes = [
    { value = "0", name = "no" },
    { value = "1", name = "yes" },
]

[[fields]]
name = "a"
meaning = """two
name = "not this" lines"""
words = { 1 = "one" }

[[fields]]
# [[fields]] in a comment
name = "b"
bins = [1, 2]
[fields.words]
true = "yes"

[[examples]]
label = "first"
[examples.row]
a = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("name", 1), ("text", 2), ("text[1]", 2), ("label", 7), ("label.column", 8), ("label.classes[1].name", 9),
        ("fields[0]", 14), ("fields[0].meaning", 16), ("fields[0].words", 18), ("fields[0].words.1", 18),
        ("fields[1].name", 22), ("fields[1].bins", 23), ("fields[1].words", 24), ("fields[1].words.true", 25),
        ("fields[1].type", 20), ("fields[2].name", 14), ("examples[0].label", 28), ("examples[0].row.a", 30),
        ("fields", 14), ("question", None), ("", None),
    ],
)  # fmt: skip
def test_a_place_has_its_line_or_that_of_what_it_is_in(path: str, line: int | None) -> None:
    assert find_line(TEXT, path) == line == find_line(TEXT.replace("\n", "\r\n"), path)


def test_every_field_of_a_real_description_is_found() -> None:
    text = TITANIC.read_text()
    lines = text.split("\n")
    for number, name in enumerate(("pclass", "sex", "name", "age")):
        line = find_line(text, f"fields[{number}].name")
        assert line is not None
        assert lines[line - 1] == f'name = "{name}"'
