"""The real passengers, as objects, as request bodies and as texts: the same for every contender."""

import csv
import functools
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from models.passenger import COLUMNS, LABEL_COLUMN, Passenger, parse_passenger

from benchmarks.harness.machine import ROOT
from models.text import render

DATA = ROOT / "data" / "titanic.csv"


@functools.cache
def records() -> tuple[dict[str, str], ...]:
    """The rows of the CSV file as they are."""
    with DATA.open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


@functools.cache
def passengers() -> tuple[Passenger, ...]:
    """Without their tickets: a bundle tells its own model what became of those on the same ticket, and the other
    contenders, which do not read that part of a bundle, must get the same texts."""
    found = (parse_passenger({field: row[column] for field, column in COLUMNS.items()}) for row in records())
    return tuple(msgspec.structs.replace(one, ticket=None) for one in found)


def labels() -> np.ndarray:
    """Outcomes (891,), 1 survived."""
    return np.array([int(row[LABEL_COLUMN]) for row in records()])


@functools.cache
def one_per_text() -> tuple[Passenger, ...]:
    """The first passenger of each distinct text, so that no contender gains by computing a text once."""
    first: dict[str, Passenger] = {}
    for passenger in passengers():
        first.setdefault(render(passenger), passenger)
    return tuple(first.values())


@functools.cache
def texts() -> tuple[str, ...]:
    """The distinct texts."""
    return tuple(render(passenger) for passenger in one_per_text())


def draw(rng: np.random.Generator, rows: int) -> list[str]:
    """``rows`` distinct random texts."""
    every = texts()
    return [every[index] for index in rng.choice(len(every), rows, replace=False)]


def mixed_rows(rng: np.random.Generator, rows: int) -> list[dict[str, str]]:
    """CSV rows whose every cell is drawn on its own from the real column, so that nearly all differ."""
    real = records()
    columns = [column for column in COLUMNS.values() if column in real[0]]
    chosen = {column: rng.integers(len(real), size=rows) for column in columns}
    return [{column: real[chosen[column][row]][column] for column in columns} for row in range(rows)]


def body(passenger: Passenger) -> dict[str, Any]:
    """The request body of a passenger: what is known of it."""
    return {field: value for field, value in msgspec.to_builtins(passenger).items() if value is not None}


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
