"""A passenger: its fields and bounds, its columns in a table, and its bins for drift."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

LABELS = ("died", "survived")
"""Class names in the order of the model's two logits."""

LABEL_COLUMN = "Survived"


class Passenger(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One passenger. ``None`` means unknown; every bound is what the service accepts."""

    pclass: Literal[1, 2, 3]
    sex: Literal["male", "female"]
    name: Annotated[str, Meta(max_length=200)] | None = None
    age: Annotated[float, Meta(ge=0, le=120)] | None = None
    sibsp: Annotated[int, Meta(ge=0, le=20)] | None = 0
    parch: Annotated[int, Meta(ge=0, le=20)] | None = 0
    fare: Annotated[float, Meta(ge=0, le=1000)] | None = None
    ticket: Annotated[str, Meta(max_length=50)] | None = None
    cabin: Annotated[str, Meta(max_length=50)] | None = None
    embarked: Literal["S", "C", "Q"] | None = None


COLUMNS = {
    "pclass": "Pclass",
    "sex": "Sex",
    "name": "Name",
    "age": "Age",
    "sibsp": "SibSp",
    "parch": "Parch",
    "fare": "Fare",
    "ticket": "Ticket",
    "cabin": "Cabin",
    "embarked": "Embarked",
}
"""Field of `Passenger` → its column in the Titanic CSV files."""
REQUIRED_COLUMNS = ("pclass", "sex")

MEANINGS = {
    "pclass": "Ticket class.",
    "sex": "As the ship's list has it.",
    "name": "As in the ship's list: surname, title, first names. With the ticket it tells who travelled together.",
    "age": "Years; a fraction for infants.",
    "sibsp": "Siblings and spouses aboard.",
    "parch": "Parents and children aboard.",
    "fare": "Pounds paid for the ticket, which may be for several passengers.",
    "ticket": "The ticket's number, with its prefix if it has one.",
    "cabin": "Letter of the deck and number; several if the ticket has several.",
    "embarked": "Port: Southampton, Cherbourg or Queenstown.",
}
"""Field of `Passenger` → what it is, for who fills it in."""


class InputBins(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one field is cut into bins for the drift counters and the typicality score.

    Exactly one way per field: ``edges`` cuts a number into [e0, e1), …, the last bin also holding
    its upper edge; ``levels`` lists a category's values; neither: only known or unknown.
    Every field has the further bin ``unknown``.
    """

    field: str
    edges: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()


INPUT_BINS = (
    InputBins(field="pclass", levels=("1", "2", "3")),
    InputBins(field="sex", levels=("male", "female")),
    InputBins(field="age", edges=(0, 6, 13, 18, 25, 35, 50, 65, 120)),
    InputBins(field="sibsp", edges=(0, 1, 2, 4, 20)),
    InputBins(field="parch", edges=(0, 1, 2, 4, 20)),
    InputBins(field="fare", edges=(0, 7.9, 10.5, 15, 27, 60, 1000)),
    InputBins(field="embarked", levels=("S", "C", "Q")),
    InputBins(field="name"),
    InputBins(field="ticket"),
    InputBins(field="cabin"),
)


class PassengerError(ValueError):
    """A table or row without a passenger; the message names the column, or row, from 0, field and what is accepted."""


def find_columns(header: Sequence[object]) -> dict[str, int]:
    """Field of `Passenger` → position of its column, by the field's or the Titanic files' name in any case.

    Raises PassengerError when a required column is missing, or one is there twice.
    """
    names = [str(name).strip().lower() for name in header]
    positions: dict[str, int] = {}
    for field, column in COLUMNS.items():
        matches = [position for position, name in enumerate(names) if name in (field, column.lower())]
        if len(matches) > 1:
            raise PassengerError(f"the column {column} is there {len(matches)} times")
        if matches:
            positions[field] = matches[0]
    missing = [COLUMNS[field] for field in REQUIRED_COLUMNS if field not in positions]
    if missing:
        there = ", ".join(map(str, header)) or "none"
        raise PassengerError(f"the columns {' and '.join(missing)} are missing; there are: {there}")
    return positions


def parse_passenger(cells: Mapping[str, str]) -> Passenger:
    """Cells of a CSV file by field of `Passenger` → the passenger; an empty cell is unknown.

    Raises msgspec.ValidationError naming the field and what is accepted.
    """
    known = {field: text for field, cell in cells.items() if (text := cell.strip())}
    return msgspec.convert(known, Passenger, strict=False)


def check_passengers(rows: Iterable[Passenger | Mapping[str, Any]]) -> list[Passenger]:
    """Passengers, or mappings of the same fields, → passengers within their bounds.

    Strict as on the wire: "3" and 3.0 are not 3, NaN is no number, an unknown field is refused; ``None`` is unknown.
    Raises PassengerError.
    """
    return [_checked(number, row) for number, row in enumerate(rows)]


def _checked(number: int, row: Passenger | Mapping[str, Any]) -> Passenger:
    # A Struct is not checked when it is made in Python, only when it is decoded or converted.
    if isinstance(row, Passenger):
        fields = msgspec.structs.asdict(row)
    elif isinstance(row, Mapping):
        fields = dict(row)
    else:
        raise PassengerError(
            f"row {number} is a {type(row).__name__}; it must be a Passenger or a mapping of its fields"
        )
    try:
        return msgspec.convert(fields, Passenger)
    except msgspec.ValidationError as error:
        reason, _, field = str(error).partition(" - at `$.")
        where = field.rstrip("`")
        raise PassengerError(
            f"row {number}: {f'{where} is {fields[where]!r:.60}: ' if where in fields else ''}{reason}"
        ) from None
