"""``compare-losses``: the losses side by side."""

import argparse
import sys
from pathlib import Path
from typing import Any

from models.files import refuse_overwriting, write_atomic, write_json
from training.commands.arguments import add_training, executor, labelled_rows, recipe, split_names
from training.fit.data_parallel import find_ranks
from training.losses.registry import LOSSES, LossChoice, LossError

DESCRIPTION = """\
Fine-tune with every loss and every seed on the same folds, calibrate and score each on rows it
did not see, and print: scores raw and calibrated, differences to cross entropy paired by row, how
many calibration tests that makes, and a verdict on each claim of the research note.

A loss that cannot be trained is reported and stops no other."""
EXAMPLES = """\
examples:
  compare-losses --seeds 0 --losses focal_smooth,label_smooth      two losses beside cross entropy
  compare-losses --json comparison.json --markdown docs/losses.md  all, written into the page
  compare-losses --seeds 0,1,2,3 --resume                          one seed more than before"""


def add(commands: Any) -> None:
    """Add the command; ``run`` gives its exit code."""
    parser = commands.add_parser(
        "compare-losses",
        help="the losses side by side, and the research note's claims about them",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    parser.set_defaults(run=_run)
    argument = parser.add_argument
    argument(
        "--losses",
        type=_losses,
        metavar="NAME,…",
        help=f"of {', '.join(LOSSES)}; NAME:note takes the research note's parameters; cross_entropy is always "
        "compared (default: all, focal:note and focal_smooth:note)",
    )
    argument(
        "--seeds", type=_seeds, default=(0, 1, 2), metavar="N,…", help="each decides its folds too (default: 0,1,2)"
    )
    add_training(parser, folds="folds of each cross-fit (default: %(default)s)")
    argument("--json", type=Path, metavar="FILE", help="write every figure here")
    argument(
        "--markdown",
        type=Path,
        metavar="FILE.md",
        help="write the tables here, between <!-- compare-losses --> and <!-- /compare-losses --> if the page exists",
    )
    argument(
        "--work",
        type=Path,
        default=Path("artifacts/compare-losses"),
        metavar="DIR",
        help="keeps the held-out logits of each loss and seed as they are done (default: %(default)s)",
    )
    argument("--resume", action="store_true", help="take from --work what is done with these settings")


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from training.loss_study.page import page_part, page_with, print_comparison
    from training.loss_study.study import ALL, CompareOptions, compare_losses

    for path in (options.json, options.markdown):
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"there is no folder {path.parent} to write {path.name} to")
    base = Path(options.base) if options.base else None
    refuse_overwriting((options.data, base), (options.json, options.markdown, options.work))
    if options.markdown:
        # Its marks are checked now: training takes long, and their absence would be found after it.
        page_with("", options.markdown)
    if find_ranks():
        raise ValueError("compare-losses is not for mlx.launch; --engine ray spreads it over machines")
    options.losses = options.losses or ALL
    given = {name: getattr(options, name) for name in CompareOptions.__struct_fields__ if name != "recipe"}
    _, table = labelled_rows(options)
    with executor(options) as chosen:
        report = compare_losses(CompareOptions(recipe=recipe(options, len(table)), **given), table, chosen)
    if options.json:
        write_json(options.json, report)
    if options.markdown:
        write_atomic(options.markdown, page_with(page_part(report), options.markdown))
    if not options.quiet:
        print_comparison(report, Console(width=None if sys.stdout.isatty() else 120))
    return 0


def _losses(text: str) -> tuple[str, ...]:
    names = tuple(split_names(text))
    try:
        for name in names:
            LossChoice.parse(name)
    except LossError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return names


def _seeds(text: str) -> tuple[int, ...]:
    numbers = split_names(text)
    if not numbers or not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers from 0 on with commas between, as in 0,1,2")
    return tuple(dict.fromkeys(map(int, numbers)))
