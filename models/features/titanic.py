"""What a passenger's name and ticket say: title, person, and what became of those on the same ticket."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from msgspec import Struct

Passenger = Any
"""A row of models/tables/titanic.toml."""

TITLE = re.compile(r",\s*(?:the\s+)?([A-Za-z]+)\b\.?")
TITLES = {
    "mr": "Mr", "mrs": "Mrs", "mme": "Mrs", "miss": "Miss", "mlle": "Miss", "ms": "Miss", "master": "Master",
    "dr": "doctor", "rev": "reverend", "capt": "officer", "col": "officer", "major": "officer",
    "don": "noble", "dona": "noble", "sir": "noble", "lady": "noble", "countess": "noble", "jonkheer": "noble",
}  # fmt: skip
DECKS = "ABCDEFG"
PERSONS = ("man", "boy", "woman", "girl")
FAMILIES = ("alone", "small family", "large family")
WOMEN_AND_CHILDREN, MEN = "women and children", "men"
OUTCOMES = ("survived", "divided", "died")


class KnownPassenger(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A labelled passenger: the name as `Companions` compares it, whether a woman or a child, and the outcome."""

    name: str
    woman_or_child: bool
    survived: bool


class Companions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Labelled passengers by ticket: whence a text says what became of a passenger's party.

    Nobody is their own companion: who bears the passenger's name is left out, and for a passenger without a name
    nobody is looked up. So a row's own outcome never reaches its own text, whether or not the row is in here.
    """

    by_ticket: dict[str, tuple[KnownPassenger, ...]] = {}

    @classmethod
    def of(cls, passengers: Iterable[Passenger], labels: Iterable[int]) -> Self:
        """Passengers and their outcomes, 1 survived; those without a ticket or a name are of no use and left out."""
        known: dict[str, list[KnownPassenger]] = {}
        for passenger, survived in zip(passengers, labels, strict=True):
            ticket, name = _letters(passenger.ticket), _letters(passenger.name)
            if ticket and name:
                known.setdefault(ticket, []).append(KnownPassenger(name, _woman_or_child(passenger), bool(survived)))
        return cls(by_ticket={ticket: tuple(party) for ticket, party in sorted(known.items())})

    def party(self, passenger: Passenger) -> tuple[KnownPassenger, ...]:
        """The others on the passenger's ticket."""
        own = _letters(passenger.name)
        party = self.by_ticket.get(_letters(passenger.ticket), ()) if own else ()
        return tuple(other for other in party if other.name != own)

    def know(self, passenger: Passenger) -> bool:
        """Whether the passenger is one of them, by ticket and name."""
        name = _letters(passenger.name)
        return any(known.name == name for known in self.by_ticket.get(_letters(passenger.ticket), ()))


NO_COMPANIONS = Companions()


class TitanicFeature:
    """`models.features.registry.Feature` of the passengers."""

    fields = ("pclass", "sex", "name", "age", "sibsp", "parch", "ticket", "cabin")
    derived: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "women_and_children": tuple(f"{WOMEN_AND_CHILDREN} {outcome}" for outcome in OUTCOMES),
        "men": tuple(f"{MEN} {outcome}" for outcome in OUTCOMES),
        "person": PERSONS,
        "title": tuple(dict.fromkeys(TITLES.values())),
        "family": FAMILIES,
        "deck": ("no cabin", "cabin", *(f"deck {letter}" for letter in DECKS)),
    }
    known_type = Companions

    def learn(self, rows: Sequence[Passenger], labels: np.ndarray) -> Companions:
        """The companions that these rows are to each other and to later ones."""
        return Companions.of(rows, labels.tolist())

    def derive(self, row: Passenger, known: Companions | None) -> dict[str, str | None]:
        """The words of one passenger.

        What became of those on the same ticket: women and children of a party lived or died together, and so, less
        closely, did its men.
        """
        party = (known or NO_COMPANIONS).party(row)
        return {
            "women_and_children": _outcome(WOMEN_AND_CHILDREN, [c.survived for c in party if c.woman_or_child]),
            "men": _outcome(MEN, [c.survived for c in party if not c.woman_or_child]),
            "person": person(row),
            "title": title(row.name),
            "family": family(row),
            "deck": deck(row.cabin),
        }

    def knows(self, row: Passenger, known: Companions | None) -> bool:
        """Whether the passenger is one of the companions."""
        return (known or NO_COMPANIONS).know(row)

    def cluster(self, row: Passenger) -> str:
        """The ticket: its passengers lived or died together."""
        return _letters(row.ticket)


def _outcome(who: str, survived: list[bool]) -> str | None:
    if not survived:
        return None
    return f"{who} {'survived' if all(survived) else 'divided' if any(survived) else 'died'}"


def _letters(text: str | None) -> str:
    """Letters and digits alone, in lower case: how a name or a ticket is set must not matter."""
    return "".join(filter(str.isalnum, (text or "").casefold()))


def _woman_or_child(passenger: Passenger) -> bool:
    return passenger.sex == "female" or person(passenger) == "boy"


def person(passenger: Passenger) -> str | None:
    """man, boy, woman or girl, by the age or else the title; None where the sex is not known."""
    if passenger.sex is None:
        return None
    young = passenger.age < 13 if passenger.age is not None else title(passenger.name) == "Master"
    return {"male": ("man", "boy"), "female": ("woman", "girl")}[passenger.sex][young]


def title(name: str | None) -> str | None:
    """The title that the ship's list puts after the surname and a comma: "Braund, Mr. Owen Harris"."""
    match = TITLE.search(name or "")
    return TITLES.get(match[1].lower()) if match else None


def family(passenger: Passenger) -> str:
    """The size of the family aboard, in words; relatives that are unknown count as none."""
    size = 1 + (passenger.sibsp or 0) + (passenger.parch or 0)
    return FAMILIES[0] if size == 1 else FAMILIES[1] if size <= 4 else FAMILIES[2]


def deck(cabin: str | None) -> str:
    """The deck that the cabin's letter names."""
    letter = next((letter for letter in (cabin or "").strip().upper()[:1] if letter in DECKS), None)
    return f"deck {letter}" if letter else "no cabin" if not cabin else "cabin"
