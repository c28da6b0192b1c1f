"""Coverage of the prediction sets by class and group as tables, with what sets by a field cost."""

from training.evaluate.evaluation import AnyEvaluation
from training.evaluate.groups import MIN_GROUP_ROWS, group_title
from training.evaluate.sets.cells import SetCell
from training.report.figures import NO_VALUE, Figures, Row, spread

MAX_COLUMNS = 4
"""Classes up to which each has a column; of more, a group's least covered class is named."""


def set_tables(evaluation: AnyEvaluation) -> list[Figures]:
    """What sets by a field cost, where they are; coverage by class and group, where there are groups."""
    found = [_price(evaluation)] if evaluation.conditional_sets else []
    return [*found, _cells(evaluation)] if evaluation.set_cells.cells else found


def worst_cell(evaluation: AnyEvaluation) -> str:
    """A sentence on the class and group whose outcome the sets hold least often, "" where no group is large enough."""
    cells = evaluation.set_cells
    if cells.worst is None:
        return ""
    return (
        f"Least often the sets hold the outcome of {cells.worst.title}: {spread(cells.worst.coverage, 3)} of "
        f"{cells.worst.rows} rows, where {evaluation.sets.nominal:g} is nominal. It is the least of {cells.compared} "
        f"classes in groups with at least {MIN_GROUP_ROWS} rows, and low by chance too."
    )


def _price(evaluation: AnyEvaluation) -> Figures:
    conditional, sets = evaluation.conditional_sets, evaluation.sets
    assert conditional is not None, "it was asked"
    plain, worst = conditional.plain, evaluation.set_cells.worst
    fields = sorted({field for field in conditional.chosen if field})
    return Figures(
        title=f"Prediction sets by {', '.join(fields)}",
        columns=("", f"by {', '.join(fields)}", "by class alone"),
        rows=(
            ("hold the outcome", spread(sets.overall, 3), spread(plain.overall, 3)),
            ("… least, of a class in a group", _share(worst), _share(conditional.plain_worst)),
            ("classes in a set, average", f"{sets.average_size:.2f}", f"{plain.average_size:.2f}"),
            ("abstained (not one class)", f"{sets.abstained:.3f}", f"{plain.abstained:.3f}"),
            ("wrong among those answered", spread(sets.error_answered, 3), spread(plain.error_answered, 3)),
        ),
        note=f"At a nominal coverage of {sets.nominal:g}. Each class has a threshold for each value of the field, in "
        f"{sum(map(bool, conditional.chosen))} of {len(conditional.chosen)} folds; what that costs in abstentions is "
        "the difference of the columns.",
    )  # fmt: skip


def _share(cell: SetCell | None) -> str:
    return NO_VALUE if cell is None else f"{spread(cell.coverage, 3)} ({cell.title})"


def _cells(evaluation: AnyEvaluation) -> Figures:
    classes, groups = tuple(evaluation.sets.by_class), dict[tuple[str, str], dict[str, SetCell]]()
    for cell in evaluation.set_cells.cells:
        groups.setdefault((cell.attribute, cell.group), {})[cell.outcome] = cell
    few = len(classes) <= MAX_COLUMNS
    return Figures(
        title="Prediction sets by class and group",
        columns=("", *(f"of the class {name}" for name in classes)) if few else ("", "least covered class", "holds it"),
        rows=tuple(
            (group_title(*key), *(_of_each(cells, classes) if few else _least(cells))) for key, cells in groups.items()
        ),
        note=f"How many sets hold the outcome, at a nominal coverage of {evaluation.sets.nominal:g}, with exact "
        f"binomial 95 % intervals, and the number of rows. {worst_cell(evaluation)}".rstrip(),
    )  # fmt: skip


def _of_each(cells: dict[str, SetCell], classes: tuple[str, ...]) -> Row:
    return tuple(_with_rows(cells[name]) if name in cells else NO_VALUE for name in classes)


def _least(cells: dict[str, SetCell]) -> Row:
    """The class whose interval ends lowest: of few rows a low share says little."""
    least = min(cells.values(), key=lambda cell: cell.coverage.high)
    return least.outcome, _with_rows(least)


def _with_rows(cell: SetCell) -> str:
    return f"{spread(cell.coverage, 3)} of {cell.rows}"
