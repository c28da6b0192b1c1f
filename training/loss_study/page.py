"""A comparison of losses for the terminal, and for the part of a page between two marks."""

import math
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from training.fit.finetune import Recipe
from training.loss_study.claims import Claim, Evidence
from training.loss_study.tables import ComparisonReport, figures, signed
from training.report.figures import markdown, text_table

OPENING, CLOSING = "<!-- compare-losses -->", "<!-- /compare-losses -->"
NEW_PAGE = "# Losses compared\n\n"


def how(report: ComparisonReport) -> str:
    """How the figures were obtained, in a paragraph."""
    usual, recipe = Recipe(), report.recipe
    changed = [
        f"{name.replace('_', ' ')} {getattr(recipe, name)}"
        for name in Recipe.__struct_fields__
        if getattr(recipe, name) != getattr(usual, name)
    ]
    counts = ", ".join(f"{count} {name}" for name, count in report.classes.items())
    return (
        f"{report.rows} rows, {counts} (sha256 {report.data_sha256[:12]}…); {report.folds} folds; "
        f"seeds {', '.join(map(str, report.seeds))}; base {report.base}; the default recipe"
        f"{' but for ' if changed else ''}{', '.join(changed)}; texts {'with' if report.feature else 'without'} "
        "what the schema's feature learns of other rows' outcomes. A seed decides the folds, the order of rows, "
        "dropout and the head's first weights, the same for all losses. Every row is scored by a model and by a "
        "calibration that were fitted without it. Each row's numbers are averaged over the seeds first; ± is then one "
        "standard error over rows, which lacks the spread that other training rows would add. NAME:note has the "
        "research note's α and weights."
    )


def evidence_lines(claim: Claim) -> list[str]:
    """Each figure ± its standard error with its 95 % interval, and what they come to."""
    return [*map(_evidence, claim.evidence), *([claim.remark] if claim.remark else [])]


def _evidence(evidence: Evidence) -> str:
    estimate, expected = evidence.found, evidence.expected
    text = "not measured" if estimate is None else f"{estimate.value:z.4f}"
    if estimate is not None and not math.isnan(estimate.standard_error):
        text = f"{signed(estimate, 4)} [{estimate.low:+z.4f}, {estimate.high:+z.4f}]"
    return f"{evidence.what}: {text}" + ("" if expected is None else f", expected {expected:+z.4f}")


def print_comparison(report: ComparisonReport, console: Console) -> None:
    """The comparison for a terminal: tables, claims, the default."""
    console.print(Text(how(report)))
    for table in figures(report):
        console.print(text_table(table))
    console.print("The research note's claims\n")
    for claim in report.claims:
        console.print(Text(f"{claim.number}. {claim.statement} → {claim.verdict}", style="bold"))
        for line in (claim.rule, *(f"· {line}" for line in evidence_lines(claim))):
            console.print(Padding(Text(line), (0, 0, 0, 3)))
    console.print(Text(f"\nDefault by evidence: {report.default.words}."))


def page_part(report: ComparisonReport) -> str:
    """The comparison in Markdown, headings from the third level on."""
    claims = []
    for claim in report.claims:
        items = "\n".join(f"- {line}" for line in evidence_lines(claim))
        claims.append(f"**{claim.number}. {claim.statement} → {claim.verdict}.** {claim.rule}\n\n{items}")
    return "\n\n".join([
        how(report), f"**Default by evidence:** {report.default.words}.", "### The research note's claims", *claims,
        *map(markdown, figures(report)),
    ])  # fmt: skip


def page_with(part: str, path: Path) -> str:
    """The text of the page ``path`` with ``part`` between its two marks and all else as it is; a new page if none is.

    Raises ValueError where the page does not have each mark once, in order.
    """
    marked = f"{OPENING}\n\n{part}\n\n{CLOSING}"
    if not path.exists():
        return f"{NEW_PAGE}{marked}\n"
    page = path.read_text(encoding="utf-8")
    before, opening, rest = page.partition(OPENING)
    _, closing, after = rest.partition(CLOSING)
    if not (opening and closing) or page.count(OPENING) + page.count(CLOSING) != 2:
        raise ValueError(f"{path} must have the line {OPENING} and, after it, the line {CLOSING}, each once")
    return before + marked + after
