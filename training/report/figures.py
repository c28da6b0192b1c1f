"""A table of short texts, for the terminal, the model card and the report, and how figures are said in it."""

import math
from collections.abc import Callable

from msgspec import Struct
from rich.box import SIMPLE_HEAD
from rich.table import Table as TextTable

from training.evaluate.clusters.dependence import ClusterCounts
from training.evaluate.estimates import Estimate
from training.evaluate.scores import CalibrationError, IfCalibrated

NO_VALUE = "–"


class Figures(Struct, frozen=True, kw_only=True):
    """One table: its title, columns, rows of texts (the first names the row) and what to know when reading it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


Row = tuple[str, ...]


def plus_minus(estimate: Estimate, digits: int = 4) -> str:
    """Value ± standard error, or why there is none."""
    if math.isnan(estimate.value):
        return estimate.reason or NO_VALUE
    return f"{estimate.value:z.{digits}f} ±\u00a0{estimate.standard_error:.{digits}f}"


def spread(estimate: Estimate, digits: int = 4) -> str:
    """Value [95 % interval], or why there is none."""
    if math.isnan(estimate.value):
        return estimate.reason or NO_VALUE
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def errors_over(clusters: ClusterCounts | None) -> str:
    """Over what standard errors are, and tests of calibration where rows depend on each other."""
    if clusters is None:
        return "rows"
    over = "rows" if clusters.standard_errors == "over rows" else f"{clusters.clusters} clusters of rows"
    return (
        f"{over}; labels drawn for the tests are correlated by {clusters.correlation:.2f} within "
        f"{clusters.test_clusters} clusters of rows that belong together or have one text"
    )


def expected_text(score: IfCalibrated) -> str:
    """What a score would be if the probabilities were true, and how rarely such ones are as far out."""
    return f"{score.expected:.4f} (p\u00a0{score.p_value:.3f})"


def p_text(value: float) -> str:
    """A p-value; its parts are not to be broken over lines."""
    return f"{value:.3f}" if value >= 0.001 else "<\u00a00.001"


ERROR_TEXTS: dict[str, Callable[[CalibrationError], str]] = {
    "": lambda e: plus_minus(e.value),
    "… 95 % interval": lambda e: f"{e.value.low:.4f} to {e.value.high:.4f}",
    "… of a perfect model": lambda e: f"{e.noise_floor:z.4f}",
    "… 95 % of such below": lambda e: f"{e.noise_95:.4f}",
    "… p-value": lambda e: p_text(e.p_value),
}
"""A calibration error's lines, the first under its own name."""


def error_rows(name: str, *errors: CalibrationError) -> list[Row]:
    """The lines of calibration errors side by side."""
    return [(label or name, *map(text, errors)) for label, text in ERROR_TEXTS.items()]


def text_table(figures: Figures) -> TextTable:
    """A table for a terminal."""
    table = TextTable(
        title=figures.title, title_justify="left", caption=figures.note, caption_justify="left", box=SIMPLE_HEAD
    )
    for place, column in enumerate(figures.columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=not place)
    for row in figures.rows:
        table.add_row(*row)
    return table


def markdown(figures: Figures) -> str:
    """A table under a heading of the third level."""
    head = [figures.columns, ("---",) * len(figures.columns)]
    # A bar in a name would end its cell.
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (*head, *figures.rows)]
    rows = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    return f"### {figures.title}\n\n{rows}" + (f"\n\n{figures.note}" if figures.note else "")
