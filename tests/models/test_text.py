"""Passengers as texts: known phrases, and what holds of any."""

import msgspec
import pytest
from hypothesis import given

from models.features.titanic import Companions
from models.passenger import Passenger
from models.text import every_word, render
from tests.models.strategies import PASSENGERS
from training.data.table import Table


def test_a_known_passenger_in_words() -> None:
    rice = Passenger(
        pclass=3, sex="male", name="Rice, Master. Eugene", age=2, sibsp=4, parch=1, fare=29.125, embarked="Q"
    )
    assert render(rice) == "third class boy, Master, small child, large family, moderate fare, no cabin, Queenstown"


@pytest.mark.parametrize(
    ("name", "title"),
    [("Oliva y Ocana, Dona. Fermina", "noble"), ("Rothes, the Countess. of (Lucy)", "noble"), ("Sage, Mlle. X", "Miss"),
     ("Crosby, Capt. Edward", "officer"), ("Brown, Mrs. James", "Mrs")],
)  # fmt: skip
def test_titles_are_understood(name: str, title: str) -> None:
    assert f", {title}, " in render(Passenger(pclass=1, sex="female", name=name))


@given(PASSENGERS)
def test_any_valid_passenger_has_a_short_text(passenger: Passenger) -> None:
    text = render(passenger)
    assert text.startswith(("first class", "second class", "third class"))
    assert len(text) < 150
    assert "None" not in text


@given(PASSENGERS)
def test_unknown_equals_absent(passenger: Passenger) -> None:
    known = {k: v for k, v in msgspec.to_builtins(passenger).items() if v is not None}
    assert render(msgspec.convert(known, Passenger)) == render(passenger)


@given(PASSENGERS)
def test_every_word_of_any_text_is_listed(passenger: Passenger) -> None:
    assert set(render(passenger).replace(",", "").split()) <= set(" ".join(every_word()).replace(",", "").split())


def test_every_word_of_the_tables_texts_is_listed(table: Table) -> None:
    known = Companions.of(table.passengers, table.labels.tolist())
    told = {word for one in table.passengers for word in render(one, known).replace(",", "").split()}
    assert told <= set(" ".join(every_word()).replace(",", "").split())
    assert {"divided", "noble", "deck"} <= told
