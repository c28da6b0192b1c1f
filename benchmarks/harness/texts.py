"""The rows of the table that comes with the program, as objects, as request bodies and as texts: the same for every
contender."""

import csv
import functools
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.harness.machine import ROOT
from models.bundle.read import Bundle
from models.labels import LabelReader
from models.rows import Row, Rows
from models.schema import Schema, read_packaged
from models.text import Renderer


@functools.cache
def schema() -> Schema:
    """The description of the table."""
    return read_packaged()


@functools.cache
def made() -> Rows:
    """Makes and checks its rows."""
    return Rows(schema())


@functools.cache
def _renderer() -> Renderer:
    return Renderer(schema())


def render(row: Row) -> str:
    """A row's text for a model that knows of no other rows."""
    return _renderer()(row)


def data() -> Path:
    return ROOT / "data" / f"{schema().name}.csv"


@functools.cache
def records() -> tuple[dict[str, str], ...]:
    """The rows of the CSV file as they are."""
    with data().open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def parse(record: dict[str, str]) -> Row:
    """A record as a row."""
    fields = (field for field in schema().fields if field.in_table in record)
    return made().parse({field.name: record[field.in_table] for field in fields})


@functools.cache
def real_rows() -> tuple[Row, ...]:
    """Without their tickets: a bundle tells its own model what became of those on the same ticket, and the other
    contenders, which do not read that part of a bundle, must get the same texts."""
    return tuple(msgspec.structs.replace(parse(record), ticket=None) for record in records())


def labels() -> np.ndarray:
    """Numbers of the classes (891,)."""
    reader = LabelReader(schema().label)
    return np.array([reader(record[schema().label.column]) for record in records()], np.int64)


def calibrated(bundle: Bundle, scores: np.ndarray) -> np.ndarray:
    """A bundle's probabilities (891,) of the rows, of its model's log-odds of them."""
    scorers = bundle.scorers(None)
    seconds = {} if scorers is None else scorers(real_rows())
    return bundle.record.trace(scores, seconds)[1][-1][1]


@functools.cache
def one_per_text() -> tuple[Row, ...]:
    """The first row of each distinct text, so that no contender gains by computing a text once."""
    first: dict[str, Row] = {}
    for row in real_rows():
        first.setdefault(render(row), row)
    return tuple(first.values())


@functools.cache
def texts() -> tuple[str, ...]:
    """The distinct texts."""
    return tuple(map(render, one_per_text()))


def draw(rng: np.random.Generator, rows: int) -> list[str]:
    """``rows`` distinct random texts."""
    every = texts()
    return [every[index] for index in rng.choice(len(every), rows, replace=False)]


def mixed_rows(rng: np.random.Generator, rows: int) -> list[dict[str, str]]:
    """CSV rows whose every cell is drawn on its own from the real column, so that nearly all differ."""
    real = records()
    columns = [field.in_table for field in schema().fields if field.in_table in real[0]]
    chosen = {column: rng.integers(len(real), size=rows) for column in columns}
    return [{column: real[chosen[column][row]][column] for column in columns} for row in range(rows)]


def body(row: Row) -> dict[str, Any]:
    """The request body of a row: what is known of it."""
    return {field: value for field, value in msgspec.to_builtins(row).items() if value is not None}


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
