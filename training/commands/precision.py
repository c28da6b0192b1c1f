"""``precision``: measure a bundle's weights in fewer bits."""

import argparse
import sys
from pathlib import Path
from typing import Any

from models.bundle.precisions import (
    CALIBRATION_MARGIN,
    FULL,
    LOG_LOSS_MARGIN,
    PRECISIONS,
    Precision,
    format_measurement,
)
from training.commands.arguments import add_data, split_names

LOWER = tuple(precision for precision in PRECISIONS if precision != FULL)
DESCRIPTION = """\
Score a bundle in each precision on labelled rows, paired with float32, and write the measurements
into the bundle. The service serves in a precision that was measured on its device and stayed within
the margins, and in no other. Exit code 1 if one was refused."""


def add(commands: Any) -> None:
    """Add the command; ``run`` gives its exit code."""
    parser = commands.add_parser(
        "precision",
        help="measure a bundle's weights in fewer bits, so that it may be served so",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=DESCRIPTION,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("--bundle", type=Path, required=True)
    add_data(parser)
    parser.add_argument("--only", type=_lower, metavar="NAME,…", help="default: all that this machine's engine offers")
    parser.add_argument("--out", type=Path, help="write the bundle there instead of over the old one")
    for name, margin, figure in (
        ("log-loss", LOG_LOSS_MARGIN, "the log loss, in nats"),
        ("calibration", CALIBRATION_MARGIN, "the smooth calibration error"),
    ):
        text = f"that the 95 %% interval of the change of {figure} must not reach beyond (default: %(default)s)"
        parser.add_argument(f"--{name}-margin", type=float, default=margin, help=text)
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")


def _run(options: argparse.Namespace) -> int:
    from models.bundle.read import read_bundle
    from training.data.table import read_table
    from training.promote.precision import measure, record

    margins = {"log_loss_margin": options.log_loss_margin, "calibration_margin": options.calibration_margin}
    table = read_table(options.data, read_bundle(options.bundle).schema, options.separator, fitting=False)
    measurements = measure(options.bundle, table, options.only, seed=options.seed, **margins)
    for measured in measurements:
        figures = ", ".join(f"{name} {value}" for name, value in format_measurement(measured).items())
        verdict = "refused" if measured.refusal else "accepted"
        print(f"{measured.precision} on {measured.device}, {measured.rows} rows: {figures}: {verdict}")
    if any(measured.training_rows for measured in measurements):
        print("the rows are the bundle's training rows: the differences count, not the losses")
    out = options.out or options.bundle
    version = record(options.bundle, measurements, out).version
    print(f"{out}: version {version}; a signature that it had must be made again")
    refused = [measured for measured in measurements if measured.refusal]
    for measured in refused:
        print(f"training: {measured.precision}: {measured.refusal}", file=sys.stderr)
    return 1 if refused else 0


def _lower(text: str) -> tuple[Precision, ...]:
    names = split_names(text)
    if not names or set(names) - set(LOWER):
        raise argparse.ArgumentTypeError(f"{text!r} must be of {', '.join(LOWER)}, with commas between")
    return tuple(precision for precision in LOWER if precision in names)
