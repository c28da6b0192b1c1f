"""``describe``: a table's description from its rows."""

import argparse
import sys
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the command; ``run`` gives its exit code."""
    parser = commands.add_parser(
        "describe",
        help="read a table and write its description, to edit and to fit with",
        description="Reads a CSV or Parquet file once and writes what its columns are as TOML, with what looks "
        "wrong as comments: ids, constants, dates, mixed values, a column that gives the label away. Edit it, then: "
        "train fit --data CSV --table TOML --out DIR",
        epilog="example: ./run train describe customers.csv --label churned > customers.toml",
    )
    parser.set_defaults(run=_run)
    parser.add_argument("data", type=Path, metavar="CSV", help="the rows; the first line names the columns")
    parser.add_argument("--label", required=True, metavar="COLUMN", help="the column to predict")
    parser.add_argument("--name", help="of the bundle, and of the model in answers (default: the file's name)")
    parser.add_argument(
        "--separator", metavar="CHARACTER", help="between cells (default: found among comma, semicolon, tab and bar)"
    )
    parser.add_argument(
        "--group", metavar="COLUMN", help="rows with one value here, as of one customer, are never split"
    )
    parser.add_argument("--out", type=Path, metavar="TOML", help="write it here (default: to standard output)")


def _run(options: argparse.Namespace) -> int:
    from models.files import write_atomic
    from training.data.describing import describe
    from training.data.profile import profile_table
    from training.data.toml.document import write_description

    profile = profile_table(options.data, options.separator)
    text = write_description(describe(profile, options.label, options.name, options.group))
    if options.out is None:
        sys.stdout.write(text)
    else:
        write_atomic(options.out, text)
    return 0
