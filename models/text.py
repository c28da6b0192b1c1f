"""A passenger as a text: the words that the model reads."""

from models.features.titanic import NO_COMPANIONS, TITLES, Companions, party_outcomes, person, title
from models.passenger import Passenger

CLASSES = {1: "first class", 2: "second class", 3: "third class"}
DECKS = "ABCDEFG"
PORTS = {"S": "Southampton", "C": "Cherbourg", "Q": "Queenstown"}
AGES = (
    (1, "baby"), (6, "small child"), (13, "child"), (18, "teenager"), (25, "young"), (35, "adult"),
    (50, "middle aged"), (65, "old"), (121, "very old"),
)  # fmt: skip
FARES = ((8, "very cheap fare"), (14, "cheap fare"), (31, "moderate fare"), (80, "high fare"), (1001, "luxury fare"))

UNKNOWN_READS = "sibsp and parch count as 0, cabin as no cabin; of name, age, fare, ticket and embarked nothing is said"
"""What `render` makes of unknown fields."""


def render(passenger: Passenger, companions: Companions = NO_COMPANIONS) -> str:
    """The passenger as a short text of words, the model's only input; what is unknown is left out.

    Words carry what a text encoder can use: the title stands for the name, and age, family and fare are ranges. What
    became of those on the same ticket comes first: women and children of a party lived or died together, and so, less
    closely, did its men.
    """
    words = [
        *party_outcomes(passenger, companions),
        f"{CLASSES[passenger.pclass]} {person(passenger)}",
        title(passenger.name),
        _range(passenger.age, AGES),
        _family(passenger),
        _range(passenger.fare, FARES),
        _cabin(passenger.cabin),
        PORTS[passenger.embarked] if passenger.embarked else None,
    ]
    return ", ".join(word for word in words if word)


def every_word() -> list[str]:
    """Texts that together hold every word of `render`."""
    words = [f"{who} {end}" for who in ("women and children", "men") for end in ("survived", "divided", "died")]
    words += [*CLASSES.values(), *TITLES.values(), *PORTS.values(), *(word for _, word in (*AGES, *FARES))]
    words += ["man", "boy", "woman", "girl", "alone", "small family", "large family", "no cabin", "cabin"]
    words += [f"deck {deck}" for deck in DECKS]
    words = list(dict.fromkeys(words))
    return [", ".join(words[first : first + 8]) for first in range(0, len(words), 8)]


def _range(value: float | None, ranges: tuple[tuple[int, str], ...]) -> str | None:
    return next((word for below, word in ranges if value < below), None) if value is not None else None


def _family(passenger: Passenger) -> str:
    size = 1 + (passenger.sibsp or 0) + (passenger.parch or 0)
    return "alone" if size == 1 else "small family" if size <= 4 else "large family"


def _cabin(cabin: str | None) -> str:
    deck = next((letter for letter in (cabin or "").strip().upper()[:1] if letter in DECKS), None)
    return f"deck {deck}" if deck else "no cabin" if not cabin else "cabin"
