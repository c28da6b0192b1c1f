"""A promotion's decision on the terminal."""

import math
import textwrap

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as TextTable

from training.promote.promotion import Criterion, Promotion

COLUMNS = ("criterion", "rows", "candidate", "current", "difference", "bound", "limit", "verdict")


def print_promotion(promotion: Promotion, console: Console) -> None:
    """A line for each criterion, what the risk is, what is not known, and the decision with the figures it rests on."""
    table = TextTable(*COLUMNS, box=SIMPLE_HEAD)
    for column in table.columns[1:-1]:
        column.justify = "right"
    for one in promotion.criteria:
        table.add_row(*_cells(one))
    console.print(table)
    lines = [
        f"{promotion.rows} rows in {promotion.clusters} clusters. Risk: {promotion.risk}. A "
        "criterion passes where the upper bound of its difference is below its limit.",
        *(f"Not known: {caveat}." for caveat in promotion.caveats),
        verdict(promotion),
    ]
    console.print("\n".join(textwrap.fill(line, console.width - 1) for line in lines), highlight=False, markup=False)


def verdict(promotion: Promotion) -> str:
    """Promoted or refused, and by which figures."""
    who = f"{promotion.candidate} over {promotion.current}"
    if promotion.promoted:
        return f"PROMOTED: {who}."
    failed = [one for one in promotion.criteria if one.verdict in ("worse", "not shown")]
    return f"REFUSED: {who}. " + " ".join(f"{_why(one)}." for one in failed)


def _why(one: Criterion) -> str:
    digits = _digits(one)
    shown = f"is not shown to be below {one.limit:g}"
    if one.verdict == "worse":
        shown = f"is shown to be worse and not to be below {one.limit:g}"
    text = f"{one.name[0].upper()}{one.name[1:]} {shown}: the bound is {one.bound:.{digits}f}"
    return text + (f"; about {one.rows_needed} rows would show it, if nothing else changed" if one.rows_needed else "")


def _cells(one: Criterion) -> tuple[str, ...]:
    digits = _digits(one)
    spread = "" if math.isnan(one.standard_error) else f" ± {one.standard_error:.{digits}f}"
    timed = one.name.startswith("milliseconds")
    return (
        one.name, f"{one.rows} rounds" if timed else str(one.rows), f"{one.candidate:.{digits}f}",
        f"{one.current:.{digits}f}", f"{'× ' if timed else ''}{one.difference:.{digits}f}{spread}",
        f"{one.bound:.{digits}f}", f"{one.limit:g}", one.verdict,
    )  # fmt: skip


def _digits(one: Criterion) -> int:
    return 3 if one.name.startswith(("milliseconds", "calibration")) else 4
