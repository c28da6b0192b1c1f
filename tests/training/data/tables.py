"""Tables of made-up rows for tests of their description."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data.describing import Description, describe
from training.data.profile import profile_table


def write_csv(folder: Path, columns: Mapping[str, Sequence[Any]], separator: str = ",") -> Path:
    """A CSV of columns."""
    path = folder / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def described(folder: Path, label: str = "y", **columns: Sequence[Any]) -> Description:
    """The description of a CSV of columns."""
    return describe(profile_table(write_csv(folder, columns)), label)


def outcomes(count: int, seed: int = 0, share: float = 0.3) -> list[int]:
    """Labels 0 and 1 by chance."""
    return (np.random.default_rng(seed).random(count) < share).astype(int).tolist()


def every_kind(count: int = 400, seed: int = 1) -> dict[str, list[Any]]:
    """A table with a column of each kind, and a label ``churned``."""
    rng = np.random.default_rng(seed)
    unknown = rng.random(count) < 0.1
    return {
        "customerID": [f"C-{number:06d}" for number in rng.permutation(count)],
        "Age (years)": np.where(unknown, np.nan, rng.integers(18, 90, count)).tolist(),
        "balance": np.round(rng.lognormal(5, 2, count), 2).tolist(),
        "children": rng.integers(0, 4, count).tolist(),
        "Member": rng.choice(["Yes", "No"], count).tolist(),
        "city": rng.choice(["Rome", "Köln", "", "NA"], count).tolist(),
        "note": [" ".join(rng.choice(["late", "paid", "asked", "again", "twice"], 6)) for _ in range(count)],
        "since": [f"20{year:02d}-03-04" for year in rng.integers(10, 24, count)],
        "always": ["x"] * count,
        "churned": rng.choice(["yes", "no"], count, p=[0.2, 0.8]).tolist(),
    }
