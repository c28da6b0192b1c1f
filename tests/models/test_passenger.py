import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.passenger import COLUMNS, INPUT_BINS, Passenger, describe

TEXT = st.none() | st.text(max_size=50)
PASSENGERS = st.builds(
    Passenger, pclass=st.sampled_from([1, 2, 3]), sex=st.sampled_from(["male", "female"]), name=TEXT, ticket=TEXT,
    cabin=TEXT, age=st.none() | st.floats(0, 120), fare=st.none() | st.floats(0, 1000),
    sibsp=st.none() | st.integers(0, 20), parch=st.none() | st.integers(0, 20),
    embarked=st.sampled_from([None, "S", "C", "Q"]),
)  # fmt: skip


def test_a_known_passenger_in_words() -> None:
    rice = Passenger(
        pclass=3, sex="male", name="Rice, Master. Eugene", age=2, sibsp=4, parch=1, fare=29.125, embarked="Q"
    )
    assert describe(rice) == "third class boy, Master, small child, large family, moderate fare, no cabin, Queenstown"


@pytest.mark.parametrize(
    ("name", "title"),
    [("Oliva y Ocana, Dona. Fermina", "noble"), ("Rothes, the Countess. of (Lucy)", "noble"), ("Sage, Mlle. X", "Miss"),
     ("Crosby, Capt. Edward", "officer"), ("Brown, Mrs. James", "Mrs")],
)  # fmt: skip
def test_titles_are_understood(name: str, title: str) -> None:
    assert f", {title}, " in describe(Passenger(pclass=1, sex="female", name=name))


@given(PASSENGERS)
def test_any_valid_passenger_has_a_short_text(passenger: Passenger) -> None:
    text = describe(passenger)
    assert text.startswith(("first class", "second class", "third class"))
    assert len(text) < 150
    assert "None" not in text


@given(PASSENGERS)
def test_unknown_equals_absent(passenger: Passenger) -> None:
    known = {k: v for k, v in msgspec.to_builtins(passenger).items() if v is not None}
    assert describe(msgspec.convert(known, Passenger)) == describe(passenger)


def test_every_field_has_a_column_and_bins() -> None:
    assert set(COLUMNS) == set(Passenger.__struct_fields__) == {bins.field for bins in INPUT_BINS}
