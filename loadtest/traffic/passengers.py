"""The real passengers as the service takes them, and shifts of them: another mix, or a client that errs."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data" / "titanic.csv"
NUMBERS = {"Pclass": int, "Age": float, "SibSp": int, "Parch": int, "Fare": float}
FIELDS = ("Pclass", "Sex", "Name", "Age", "SibSp", "Parch", "Fare", "Ticket", "Cabin", "Embarked")
MAX_FARE = 1000.0
"""What the service accepts."""

Row = dict[str, Any]


def read_passengers(rows: int | None = None) -> list[Row]:
    """The passengers as the service takes them, known fields only; the first ``rows`` of them."""
    return [passenger for passenger, _ in read_labelled(rows)]


def read_labelled(rows: int | None = None) -> list[tuple[Row, bool]]:
    """The same, each with whether he or she survived."""
    with DATA.open(newline="", encoding="utf-8") as file:
        return [
            ({name.lower(): NUMBERS.get(name, str)(row[name]) for name in FIELDS if row[name]}, row["Survived"] == "1")
            for row in csv.DictReader(file)
        ][:rows]


def third_class_men(passengers: list[Row]) -> list[Row]:
    """Only these of them: another mix of passengers, each as ever."""
    return [one for one in passengers if one["pclass"] == 3 and one["sex"] == "male"]


def swapped_sexes(passengers: list[Row]) -> list[Row]:
    """A client that takes the one code for the other."""
    other = {"male": "female", "female": "male"}
    return [{**one, "sex": other[one["sex"]]} for one in passengers]


def fare_times_four(passengers: list[Row]) -> list[Row]:
    """A client that sends another currency."""
    return [{**one, "fare": min(MAX_FARE, 4 * one["fare"])} if "fare" in one else one for one in passengers]


SHIFTS: dict[str, Callable[[list[Row]], list[Row]]] = {
    "third-class-men": third_class_men,
    "swapped-sexes": swapped_sexes,
    "fare-times-four": fare_times_four,
}
