"""Arguments that several commands share: the rows, the base model, the recipe, where fine-tunings run."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from models.engines.backend import prepare
from models.schema import schema_of
from training.fit.executors import EXECUTORS, Executor, make_executor
from training.fit.finetune import Recipe

if TYPE_CHECKING:
    from training.data.table import Table

DATA = Path("data/titanic.csv")


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=DATA, help="labelled rows, CSV or Parquet (default: %(default)s)")
    parser.add_argument("--separator", help="what separates a CSV's cells (default: found)")


def add_training(parser: argparse.ArgumentParser, folds: str, default_folds: int | None = 5) -> None:
    """Everything that a cross-fit needs; ``folds`` is a help text."""
    add_data(parser)
    described = parser.add_mutually_exclusive_group()
    described.add_argument("--table", type=Path, metavar="TOML", help="the table's description (train describe)")
    described.add_argument("--label", metavar="COLUMN", help="the column to predict: the table is described first")
    parser.add_argument(
        "--group", metavar="COLUMN", help="with --label: rows with one value here, as of a customer, stay together"
    )
    parser.add_argument("--name", help="the bundle's name, and the model's where it is served (default: the table's)")
    parser.add_argument("--base", help="a BERT: a folder, or a Hugging Face hub id (default: the packaged MiniLM)")
    parser.add_argument("--folds", type=int, default=default_folds, help=folds)
    parser.add_argument(
        "--feature",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let the table's feature, if it has one, learn from labelled rows what others say of a row; what it "
        "learns goes into the bundle",
    )
    for name, default in msgspec.structs.asdict(Recipe()).items():
        few = ", more where rows are few" if name == "epochs" else ""
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), help=f"default: {default}{few}")
    parser.add_argument(
        "--engine",
        choices=EXECUTORS,
        default=EXECUTORS[0],
        help="fine-tunings side by side on this machine's cores, or on a Ray cluster's (default: %(default)s)",
    )
    parser.add_argument("--address", help="ray: a running cluster, HOST:PORT or auto (default: this machine alone)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def labelled_rows(options: argparse.Namespace) -> tuple[str | None, "Table"]:
    """The labelled rows that the options name, and their description where it had to be written."""
    from training.data.description import describe_file, find_schema
    from training.data.table import read_table

    described = None
    if options.group is not None and options.label is None:
        raise ValueError("--group goes with --label; a description has a key of that name")
    if options.label is not None:
        described, schema, left_out = describe_file(
            options.data, options.label, separator=options.separator, group=options.group
        )
        if not options.quiet:
            classes = f"the classes {', '.join(schema.classes)}"
            positive = ", of which the last is the positive one" if len(schema.classes) == 2 else ""
            print(f"{options.data}: {len(schema.fields)} fields, and {classes}{positive}", file=sys.stderr)
            for sentence in left_out:
                print(f"left out: {sentence}", file=sys.stderr)
    else:
        schema = find_schema(options.data, options.table, separator=options.separator)
    given = {key: value for key in ("name", "sets_by") if (value := getattr(options, key, None)) is not None}
    if given:
        schema = schema_of(msgspec.to_builtins(schema) | given)
    return described, read_table(options.data, schema, options.separator)


def recipe(options: argparse.Namespace, rows: int) -> Recipe:
    """The default recipe for so many rows with the parts that were given; ValueError where one is out of bounds."""
    given = {name: value for name in Recipe.__struct_fields__ if (value := getattr(options, name)) is not None}
    given.setdefault("epochs", Recipe.epochs_for(rows))
    return msgspec.convert(given, Recipe)


def threads() -> int:
    """Set up MLX for this machine; how many fine-tunings fit on it side by side."""
    backend = prepare()
    if backend.warning:
        print(f"training: {backend.warning}", file=sys.stderr)
    return max(1, backend.threads)


@contextmanager
def executor(options: argparse.Namespace) -> Iterator[Executor]:
    """The executor that ``--engine`` names."""
    with make_executor(options.engine, options.address, threads) as chosen:
        yield chosen


def split_names(text: str) -> list[str]:
    """NAME,… without repetitions, in order."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
