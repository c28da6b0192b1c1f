"""A promotion's decision on the terminal."""

import math
import textwrap

from rich.console import Console

from training.promote.promotion import Criterion, Promotion
from training.report.figures import Figures, text_table

COLUMNS = ("criterion", "rows", "candidate", "current", "difference", "bound", "limit", "verdict")


def print_promotion(promotion: Promotion, console: Console) -> None:
    """A line for each criterion, what the risk is, what is not known, and the decision with the figures it rests on."""
    console.print(text_table(Figures(title="", columns=COLUMNS, rows=tuple(map(_cells, promotion.criteria)))))
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
    failed = [criterion for criterion in promotion.criteria if criterion.verdict in ("worse", "not shown")]
    return f"REFUSED: {who}. " + " ".join(f"{_why(criterion)}." for criterion in failed)


def _why(criterion: Criterion) -> str:
    digits = _digits(criterion)
    shown = f"is not shown to be below {criterion.limit:g}"
    if criterion.verdict == "worse":
        shown = f"is shown to be worse and not to be below {criterion.limit:g}"
    text = f"{criterion.name[0].upper()}{criterion.name[1:]} {shown}: the bound is {criterion.bound:.{digits}f}"
    if criterion.rows_needed:
        text += f"; about {criterion.rows_needed} rows would show it, if nothing else changed"
    return text


def _cells(criterion: Criterion) -> tuple[str, ...]:
    digits = _digits(criterion)
    spread = "" if math.isnan(criterion.standard_error) else f" ± {criterion.standard_error:.{digits}f}"
    timed = criterion.name.startswith("milliseconds")
    return (
        criterion.name, f"{criterion.rows} rounds" if timed else str(criterion.rows),
        f"{criterion.candidate:.{digits}f}",
        f"{criterion.current:.{digits}f}", f"{'× ' if timed else ''}{criterion.difference:.{digits}f}{spread}",
        f"{criterion.bound:.{digits}f}", f"{criterion.limit:g}", criterion.verdict,
    )  # fmt: skip


def _digits(criterion: Criterion) -> int:
    return 3 if criterion.name.startswith(("milliseconds", "calibration")) else 4
