"""A passenger: its fields and bounds, its words, its columns in a CSV file, and its bins for drift.

Everything that is about passengers and not about any other table is in this file.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

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

MEANINGS = {
    "pclass": "Ticket class.",
    "sex": "As the ship's list has it.",
    "name": "As in the ship's list: surname, title, first names. With the ticket it tells who travelled together.",
    "age": "Years; a fraction for infants.",
    "sibsp": "Siblings and spouses aboard.",
    "parch": "Parents and children aboard.",
    "fare": "Pounds paid for the ticket, which may be for several passengers.",
    "ticket": "The ticket's number, with its prefix if it has one.",
    "cabin": "Deck letter and number; several if the ticket has several.",
    "embarked": "Port: Southampton, Cherbourg or Queenstown.",
}
"""Field of `Passenger` → what it is, for who fills it in."""


def parse_passenger(cells: Mapping[str, str]) -> Passenger:
    """Cells of a CSV file by field of `Passenger` → the passenger; an empty cell is unknown.

    Raises msgspec.ValidationError naming the field and what is accepted.
    """
    known = {field: text for field, cell in cells.items() if (text := cell.strip())}
    return msgspec.convert(known, Passenger, strict=False)


class PassengerError(ValueError):
    """A row that is no passenger; the message names the row, counted from 0, the field and what is accepted."""


def check_passengers(rows: Iterable[Passenger | Mapping[str, Any]]) -> list[Passenger]:
    """Passengers, or mappings of the same fields, → passengers within their bounds.

    Strict as on the wire: "3" and 3.0 are not 3, NaN is no number, an unknown field is refused; ``None`` is unknown.
    Raises PassengerError.
    """
    return [_checked(row, one) for row, one in enumerate(rows)]


def _checked(row: int, one: Passenger | Mapping[str, Any]) -> Passenger:
    # A Struct is not checked when it is made in Python, only when it is decoded or converted.
    if isinstance(one, Passenger):
        fields = msgspec.structs.asdict(one)
    elif isinstance(one, Mapping):
        fields = dict(one)
    else:
        raise PassengerError(f"row {row} is a {type(one).__name__}; it must be a Passenger or a mapping of its fields")
    try:
        return msgspec.convert(fields, Passenger)
    except msgspec.ValidationError as error:
        reason, _, field = str(error).partition(" - at `$.")
        where = field.rstrip("`")
        raise PassengerError(
            f"row {row}: {f'{where} is {fields[where]!r:.60}: ' if where in fields else ''}{reason}"
        ) from None


class KnownPassenger(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Someone whose fate is known: the name as `Companions` compares it, whether a woman or a child, the fate."""

    name: str
    woman_or_child: bool
    survived: bool


class Companions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Passengers whose fate is known, by ticket; `describe` tells from it what became of a passenger's party.

    Nobody is their own companion: who bears the passenger's name is left out, and for a passenger without a name
    nobody is looked up. So a row's own outcome never reaches its own text, whether or not the row is in here.
    """

    by_ticket: dict[str, tuple[KnownPassenger, ...]] = {}

    @classmethod
    def of(cls, passengers: Iterable[Passenger], labels: Iterable[int]) -> Self:
        """Passengers and their outcomes, 1 survived; those without a ticket or a name are of no use and left out."""
        known: dict[str, list[KnownPassenger]] = {}
        for one, survived in zip(passengers, labels, strict=True):
            ticket, name = _letters(one.ticket), _letters(one.name)
            if ticket and name:
                known.setdefault(ticket, []).append(KnownPassenger(name, _woman_or_child(one), bool(survived)))
        return cls(by_ticket={ticket: tuple(found) for ticket, found in sorted(known.items())})

    def party(self, passenger: Passenger) -> tuple[KnownPassenger, ...]:
        """The others on the passenger's ticket."""
        own = _letters(passenger.name)
        found = self.by_ticket.get(_letters(passenger.ticket), ()) if own else ()
        return tuple(one for one in found if one.name != own)

    def know(self, passenger: Passenger) -> bool:
        """Whether the passenger is one of them, by ticket and name."""
        name = _letters(passenger.name)
        return any(one.name == name for one in self.by_ticket.get(_letters(passenger.ticket), ()))


NO_COMPANIONS = Companions()


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
DECKS = "ABCDEFG"
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

UNKNOWN_READS = "sibsp and parch count as 0, cabin as no cabin; of name, age, fare, ticket and embarked nothing is said"
"""What `describe` makes of unknown fields."""

SUBGROUPS = {
    "sex": ("female", "male"),
    "class": tuple(CLASSES.values()),
    "age": ("under 13", "13 to 24", "25 to 34", "35 to 49", "50 and over", "age unknown"),
    "party": ("companions known", "companions unknown"),
}
"""Attribute → its groups; the evaluation is told for each apart."""


def subgroups(passenger: Passenger, companions: Companions = NO_COMPANIONS) -> dict[str, str]:
    """Attribute of `SUBGROUPS` → the group that the passenger is in."""
    bands = SUBGROUPS["age"]
    age = bands[-1] if passenger.age is None else bands[sum(passenger.age >= edge for edge in (13, 25, 35, 50))]
    party = SUBGROUPS["party"][not companions.party(passenger)]
    return {"sex": passenger.sex, "class": CLASSES[passenger.pclass], "age": age, "party": party}


def describe(passenger: Passenger, companions: Companions = NO_COMPANIONS) -> str:
    """The passenger as a short text of words, the model's only input; what is unknown is left out.

    Words carry what a text encoder can use: the title stands for the name, and age, family and fare are ranges. What
    became of those on the same ticket comes first: women and children of a party lived or died together, and so, less
    closely, did its men.
    """
    words = [
        *fates(passenger, companions),
        f"{CLASSES[passenger.pclass]} {_person(passenger)}",
        _title(passenger.name),
        _range(passenger.age, AGES),
        _family(passenger),
        _range(passenger.fare, FARES),
        _cabin(passenger.cabin),
        PORTS[passenger.embarked] if passenger.embarked else None,
    ]
    return ", ".join(word for word in words if word)


def every_word() -> list[str]:
    """Texts that together hold every word of `describe`."""
    told = [f"{who} {fate}" for who in ("women and children", "men") for fate in ("survived", "divided", "died")]
    told += [*CLASSES.values(), *TITLES.values(), *PORTS.values(), *(word for _, word in (*AGES, *FARES))]
    told += ["man", "boy", "woman", "girl", "alone", "small family", "large family", "no cabin", "cabin"]
    told += [f"deck {deck}" for deck in DECKS]
    words = list(dict.fromkeys(told))
    return [", ".join(words[first : first + 8]) for first in range(0, len(words), 8)]


def fates(passenger: Passenger, companions: Companions) -> tuple[str | None, str | None]:
    """What became of the women and children, and of the men, on the passenger's ticket; None if none is known."""
    party = companions.party(passenger)
    return _fate("women and children", [one.survived for one in party if one.woman_or_child]), _fate(
        "men", [one.survived for one in party if not one.woman_or_child]
    )


def _fate(who: str, survived: list[bool]) -> str | None:
    if not survived:
        return None
    return f"{who} {'survived' if all(survived) else 'divided' if any(survived) else 'died'}"


def _letters(text: str | None) -> str:
    """Letters and digits alone, in lower case: how a name or a ticket is set must not matter."""
    return "".join(filter(str.isalnum, (text or "").casefold()))


def _woman_or_child(passenger: Passenger) -> bool:
    return passenger.sex == "female" or _person(passenger) == "boy"


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
    deck = next((letter for letter in (cabin or "").strip().upper()[:1] if letter in DECKS), None)
    return f"deck {deck}" if deck else "no cabin" if not cabin else "cabin"
