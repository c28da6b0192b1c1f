"""What became of a passenger's party, which never tells the passenger's own outcome."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from models.features.titanic import Companions
from models.text import Renderer
from tests.models.strategies import PASSENGERS
from tests.titanic import SCHEMA, Passenger
from training.data.table import Table

render = Renderer(SCHEMA)


def laurence(name: str, ticket: str | None = "PC 17608") -> Any:
    return Passenger(pclass=1, sex="male", name=name, ticket=ticket)


def test_the_outcome_of_the_party_comes_first() -> None:
    mother = Passenger(pclass=1, sex="female", name="Ryerson, Mrs. Arthur", ticket="pc17608")
    son = Passenger(pclass=1, sex="male", age=12, name="Ryerson, Master. John", ticket="PC 17608")
    known = Companions.of([mother, son, laurence("Ryerson, Mr. Arthur")], [1, 1, 0])
    assert render(laurence("Ryerson, Mr. X"), known).startswith(
        "women and children survived, men died, first class man, Mr, "
    )
    assert render(laurence("Ryerson, Mr. Arthur"), known).startswith("women and children survived, first class man")
    divided = Companions.of([mother, son], [1, 0])
    assert render(laurence("Ryerson, Mr. X"), divided).startswith("women and children divided, first")
    for stranger in (laurence("Ryerson, Mr. X", "17608"), laurence("Ryerson, Mr. X", None), laurence("")):
        assert render(stranger, known) == render(stranger)


def test_no_rows_own_outcome_reaches_its_text(table: Table) -> None:
    labels = table.labels.tolist()
    known = Companions.of(table.rows, labels)
    told = 0
    for row, one in enumerate(table.rows):
        others = [i for i in range(len(table)) if i != row] if one.ticket in ("LINE", "347082", "113781") else None
        flipped = Companions.of(table.rows, [*labels[:row], 1 - labels[row], *labels[row + 1 :]])
        assert render(one, flipped) == render(one, known)
        if others is not None:
            without = Companions.of([table.rows[i] for i in others], [labels[i] for i in others])
            assert render(one, without) == render(one, known)
            told += render(one, known) != render(one)
    assert told == 15


@given(st.lists(st.tuples(PASSENGERS, st.booleans()), max_size=8), PASSENGERS, st.booleans())
def test_a_passenger_among_the_known_is_described_as_if_absent(
    others: list[tuple[Any, bool]], passenger: Any, survived: bool
) -> None:
    passengers, labels = [one for one, _ in others], [label for _, label in others]
    known = Companions.of(passengers, labels)
    assert render(passenger, Companions.of([*passengers, passenger], [*labels, survived])) == render(passenger, known)
    assert msgspec.json.decode(msgspec.json.encode(known), type=Companions) == known
