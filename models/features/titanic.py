"""What a passenger's name and ticket say: title, person, and what became of those on the same ticket."""

import re
from collections.abc import Iterable
from typing import Self

from msgspec import Struct

from models.passenger import Passenger

TITLE = re.compile(r",\s*(?:the\s+)?([A-Za-z]+)\b\.?")
TITLES = {
    "mr": "Mr", "mrs": "Mrs", "mme": "Mrs", "miss": "Miss", "mlle": "Miss", "ms": "Miss", "master": "Master",
    "dr": "doctor", "rev": "reverend", "capt": "officer", "col": "officer", "major": "officer",
    "don": "noble", "dona": "noble", "sir": "noble", "lady": "noble", "countess": "noble", "jonkheer": "noble",
}  # fmt: skip


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


def party_outcomes(passenger: Passenger, companions: Companions) -> tuple[str | None, str | None]:
    """What became of the women and children, and of the men, on the passenger's ticket; None if none is known."""
    party = companions.party(passenger)
    women_and_children = [known.survived for known in party if known.woman_or_child]
    men = [known.survived for known in party if not known.woman_or_child]
    return _outcome("women and children", women_and_children), _outcome("men", men)


def _outcome(who: str, survived: list[bool]) -> str | None:
    if not survived:
        return None
    return f"{who} {'survived' if all(survived) else 'divided' if any(survived) else 'died'}"


def _letters(text: str | None) -> str:
    """Letters and digits alone, in lower case: how a name or a ticket is set must not matter."""
    return "".join(filter(str.isalnum, (text or "").casefold()))


def _woman_or_child(passenger: Passenger) -> bool:
    return passenger.sex == "female" or person(passenger) == "boy"


def person(passenger: Passenger) -> str:
    """man, boy, woman or girl, by the age or else the title."""
    young = passenger.age < 13 if passenger.age is not None else title(passenger.name) == "Master"
    return {"male": ("man", "boy"), "female": ("woman", "girl")}[passenger.sex][young]


def title(name: str | None) -> str | None:
    """The title that the ship's list puts after the surname and a comma: "Braund, Mr. Owen Harris"."""
    match = TITLE.search(name or "")
    return TITLES.get(match[1].lower()) if match else None
