"""A description as a TOML file that teaches how to edit it."""

import shlex
from collections.abc import Mapping
from typing import Any

from training.data.caveats import counted
from training.data.describing import DescribedField, Description
from training.data.toml.writer import assignment, comment, commented_out, table, toml_string
from training.data.wording import PLACES, phrase

HEAD = (
    "Change what you know better, and fit with it:",
    "What you delete is worked out from the rows again: type, levels, bounds, bins, words, text. What you may add to a "
    "field: title and meaning, which people read on the page and in the documents, unit, and default.",
)
EXAMPLES = (
    "The page offers rows to try, made up from medians and the most common values. Or yours in their "
    "stead, as many as you like:",
)
KEYS = (
    "name", "column", "title", "type", "required", "levels", "minimum", "maximum", "unit", "max_length", "bins",
    "rare_bins", "words",
)  # fmt: skip
"""A field's keys in the order of writing."""
TEXT = (
    "The phrases that the model reads, in this order; each says one field or more in {braces}. What is unknown has a "
    'word of its own, so that each field keeps its place; without it (unknown = "") its phrase is left out.'
)


def write_description(description: Description) -> str:
    """The TOML text; `tomllib` reads it."""
    profile = description.profile
    fields = len(description.fields)
    data = shlex.quote(" ".join(str(profile.path).split()))
    command = f"    ./run train fit --data {data} --table THIS_FILE --out artifacts/{description.head['name']}"
    lines = comment(
        [f"{profile.path.name}: {counted(profile.rows, 'row')}, {counted(fields, 'column')} beside the label.", HEAD[0]]
    )
    lines += [f"# {command}", *comment(HEAD[1:])]
    if description.notes:
        lines += ["#", *comment(description.notes)]
    lines += ["", *_assignments(description.head), *_text(description), ""]
    lines += ["[label]", f"column = {toml_string(description.label['column'])}"]
    lines += [*comment(description.label_notes), *_classes(description), ""]
    for each in description.fields:
        if not each.left_out:
            lines += [*_field(each), ""]
    left_out = [each for each in description.fields if each.left_out]
    if left_out:
        lines += comment(["Left out. To take one in, uncomment it here and its phrase in text.", ""])
    for each in left_out:
        lines += [*_left_out(each), ""]
    lines += comment(EXAMPLES)
    for example in description.examples[:1]:
        lines += commented_out(table("[[examples]]", example))
    return "\n".join(lines).rstrip() + "\n"


def _assignments(values: Mapping[str, Any]) -> list[str]:
    return [line for key, value in values.items() for line in assignment(key, value)]


def _text(description: Description) -> list[str]:
    taken = [f"    {toml_string(each)}," for each in description.document["text"]]
    others = [f"    # {toml_string(phrase(each.field))}," for each in description.fields if each.left_out]
    return [*comment([TEXT]), "text = [", *taken, *others, "]", *_assignments(PLACES)]


def _classes(description: Description) -> list[str]:
    classes = [table("", each)[1:] for each in description.label["classes"]]
    return ["classes = [", *(f"    {{ {', '.join(lines)} }}," for lines in classes), "]"]


def _field(each: DescribedField) -> list[str]:
    return [*_caveats(each), *_table(each)]


def _left_out(each: DescribedField) -> list[str]:
    return [*_caveats(each), *commented_out(_table(each))]


def _caveats(each: DescribedField) -> list[str]:
    return comment(f"{each.field['column']} {caveat.sentence}." for caveat in each.caveats)


def _table(each: DescribedField) -> list[str]:
    return table("[[fields]]", {key: each.field[key] for key in KEYS if key in each.field})
