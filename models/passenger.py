"""A passenger: its fields and bounds, its words, its columns in a CSV file, and its bins for drift.

Everything that is about passengers and not about any other table is in this file.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

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


def parse_passenger(cells: Mapping[str, str]) -> Passenger:
    """Cells of a CSV file by field of `Passenger` → the passenger; an empty cell is unknown.

    Raises msgspec.ValidationError naming the field and what is accepted.
    """
    known = {field: text for field, cell in cells.items() if (text := cell.strip())}
    return msgspec.convert(known, Passenger, strict=False)


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

TITLE = re.compile(r",\s*(?:the\s+)?([A-Za-z]+)\b\.?")
CLASSES = {1: "first class", 2: "second class", 3: "third class"}
PORTS = {"S": "Southampton", "C": "Cherbourg", "Q": "Queenstown"}
TITLES = {
    "mr": "Mr", "mrs": "Mrs", "mme": "Mrs", "miss": "Miss", "mlle": "Miss", "ms": "Miss", "master": "Master",
    "dr": "doctor", "rev": "reverend", "capt": "officer", "col": "officer", "major": "officer",
    "don": "noble", "dona": "noble", "sir": "noble", "lady": "noble", "countess": "noble", "jonkheer": "noble",
}  # fmt: skip
AGES = (
    (1, "baby"), (6, "small child"), (13, "child"), (18, "teenager"), (25, "young"), (35, "adult"),
    (50, "middle aged"), (65, "old"), (121, "very old"),
)  # fmt: skip
FARES = ((8, "very cheap fare"), (14, "cheap fare"), (31, "moderate fare"), (80, "high fare"), (1001, "luxury fare"))

SUBGROUPS = {
    "sex": ("female", "male"),
    "class": tuple(CLASSES.values()),
    "age": ("under 13", "13 to 24", "25 to 34", "35 to 49", "50 and over", "age unknown"),
}
"""Attribute → its groups; the evaluation is told for each apart."""


def subgroups(passenger: Passenger) -> dict[str, str]:
    """Attribute of `SUBGROUPS` → the group that the passenger is in."""
    bands = SUBGROUPS["age"]
    age = bands[-1] if passenger.age is None else bands[sum(passenger.age >= edge for edge in (13, 25, 35, 50))]
    return {"sex": passenger.sex, "class": CLASSES[passenger.pclass], "age": age}


def describe(passenger: Passenger) -> str:
    """The passenger as a short text of words, the model's only input; what is unknown is left out.

    Words carry what a text encoder can use: the title stands for the name, and age, family and fare are ranges.
    """
    words = [
        f"{CLASSES[passenger.pclass]} {_person(passenger)}",
        _title(passenger.name),
        _range(passenger.age, AGES),
        _family(passenger),
        _range(passenger.fare, FARES),
        _cabin(passenger.cabin),
        PORTS[passenger.embarked] if passenger.embarked else None,
    ]
    return ", ".join(word for word in words if word)


def _person(passenger: Passenger) -> str:
    young = passenger.age < 13 if passenger.age is not None else _title(passenger.name) == "Master"
    return {"male": ("man", "boy"), "female": ("woman", "girl")}[passenger.sex][young]


def _title(name: str | None) -> str | None:
    """The title that the ship's list puts after the surname and a comma: "Braund, Mr. Owen Harris"."""
    found = TITLE.search(name or "")
    return TITLES.get(found[1].lower()) if found else None


def _range(value: float | None, ranges: tuple[tuple[int, str], ...]) -> str | None:
    return next((word for below, word in ranges if value < below), None) if value is not None else None


def _family(passenger: Passenger) -> str:
    size = 1 + (passenger.sibsp or 0) + (passenger.parch or 0)
    return "alone" if size == 1 else "small family" if size <= 4 else "large family"


def _cabin(cabin: str | None) -> str:
    deck = next((letter for letter in (cabin or "").strip().upper()[:1] if letter in "ABCDEFG"), None)
    return f"deck {deck}" if deck else "no cabin" if not cabin else "cabin"
