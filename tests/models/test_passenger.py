import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.passenger import COLUMNS, INPUT_BINS, Companions, Passenger, describe, every_word
from training.data.table import Table

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


def laurence(name: str, ticket: str | None = "PC 17608") -> Passenger:
    return Passenger(pclass=1, sex="male", name=name, ticket=ticket)


def test_the_fate_of_the_party_comes_first() -> None:
    mother = Passenger(pclass=1, sex="female", name="Ryerson, Mrs. Arthur", ticket="pc17608")
    son = Passenger(pclass=1, sex="male", age=12, name="Ryerson, Master. John", ticket="PC 17608")
    known = Companions.of([mother, son, laurence("Ryerson, Mr. Arthur")], [1, 1, 0])
    assert describe(laurence("Ryerson, Mr. X"), known).startswith(
        "women and children survived, men died, first class man, Mr, "
    )
    assert describe(laurence("Ryerson, Mr. Arthur"), known).startswith("women and children survived, first class man")
    divided = Companions.of([mother, son], [1, 0])
    assert describe(laurence("Ryerson, Mr. X"), divided).startswith("women and children divided, first")
    for stranger in (laurence("Ryerson, Mr. X", "17608"), laurence("Ryerson, Mr. X", None), laurence("")):
        assert describe(stranger, known) == describe(stranger)


def test_no_rows_own_outcome_reaches_its_text(table: Table) -> None:
    labels = table.labels.tolist()
    known = Companions.of(table.passengers, labels)
    told = 0
    for row, one in enumerate(table.passengers):
        others = [i for i in range(len(table)) if i != row] if one.ticket in ("LINE", "347082", "113781") else None
        flipped = Companions.of(table.passengers, [*labels[:row], 1 - labels[row], *labels[row + 1 :]])
        assert describe(one, flipped) == describe(one, known)
        if others is not None:
            without = Companions.of([table.passengers[i] for i in others], [labels[i] for i in others])
            assert describe(one, without) == describe(one, known)
            told += describe(one, known) != describe(one)
    assert told == 15


@given(st.lists(st.tuples(PASSENGERS, st.booleans()), max_size=8), PASSENGERS, st.booleans())
def test_a_passenger_among_the_known_is_described_as_if_absent(
    others: list[tuple[Passenger, bool]], passenger: Passenger, survived: bool
) -> None:
    passengers, labels = [one for one, _ in others], [label for _, label in others]
    known = Companions.of(passengers, labels)
    assert describe(passenger, Companions.of([*passengers, passenger], [*labels, survived])) == describe(
        passenger, known
    )
    assert msgspec.json.decode(msgspec.json.encode(known), type=Companions) == known


@given(PASSENGERS)
def test_every_word_of_any_text_is_listed(passenger: Passenger) -> None:
    assert set(describe(passenger).replace(",", "").split()) <= set(" ".join(every_word()).replace(",", "").split())


def test_every_word_of_the_tables_texts_is_listed(table: Table) -> None:
    known = Companions.of(table.passengers, table.labels.tolist())
    told = {word for one in table.passengers for word in describe(one, known).replace(",", "").split()}
    assert told <= set(" ".join(every_word()).replace(",", "").split())
    assert {"divided", "noble", "deck"} <= told


def test_every_field_has_a_column_and_bins() -> None:
    assert set(COLUMNS) == set(Passenger.__struct_fields__) == {bins.field for bins in INPUT_BINS}
