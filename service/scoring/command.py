"""python -m service score: a CSV here, or the files of a folder side by side on Ray."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from models.bundle.bucket import bundle_folder
from models.bundle.manifest import BundleError
from models.bundle.precisions import FULL, PRECISIONS
from models.decisions.costs import EXPLAINED, GRAMMAR
from models.engines.engine import EngineError
from models.engines.logit_cache import LogitCache
from models.engines.ray_cluster import ClusterError
from models.files import OverwriteError, refuse_overwriting, rejected_path
from models.prediction import PredictionError
from models.predictor import Predictor
from service.scoring.columns import ADDED, ScoreError
from service.scoring.csv import score_csv
from service.settings import Settings

REPORT_SECONDS = 10.0
ENGINES = ("local", "ray")


def main(arguments: Sequence[str]) -> int:
    """Score a file, or a folder on a cluster; 0 every row, 1 failed or some rows rejected, 2 wrong use."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.engine == "local" and (options.address or options.workers):
        parser.error("--address and --workers are for --engine ray")
    try:
        return _on_ray(options) if options.engine == "ray" else _on_this_machine(options)
    except (ScoreError, BundleError, EngineError, PredictionError, ClusterError, OverwriteError) as error:
        print(f"score: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        # Of a pipe that nobody reads any more the system does not say which.
        print(f"score: {error.filename or options.output}: {error.strerror}", file=sys.stderr)
        return 1


def _folder(options: argparse.Namespace) -> Path:
    return bundle_folder(options.bundle, options.bundles, options.require_signature)


def _on_this_machine(options: argparse.Namespace) -> int:
    if options.input.is_dir():
        raise ScoreError(f"{options.input} is a folder; --engine ray scores the files of a folder")
    rejects = rejected_path(options.output)
    try:
        bundle = _folder(options)
        refuse_overwriting((options.input, bundle, options.require_signature), (options.output, rejects))
        predictor = Predictor.load(
            bundle, LogitCache(options.cache_rows), options.target_prevalence, options.require_signature,
            options.threads, options.precision, costs=options.costs,
        )  # fmt: skip
        progress = Progress(options.input.stat().st_size)
        scored, rejected = score_csv(options.input, options.output, rejects, predictor, progress.show)
    except KeyboardInterrupt:
        print("score: stopped; nothing was written", file=sys.stderr)
        return 1
    print(f"score: {scored} rows to {options.output}", file=sys.stderr)
    if rejected:
        print(f"score: {rejected} rows rejected; {rejects} says why", file=sys.stderr)
    return 1 if rejected else 0


def _on_ray(options: argparse.Namespace) -> int:
    from service.scoring.ray import ScoringRun, score_files

    run = ScoringRun(
        source=options.input.absolute(), destination=options.output.absolute(), bundle=_folder(options).absolute(),
        keys=options.require_signature and options.require_signature.absolute(), cache_rows=options.cache_rows,
        target_prevalence=options.target_prevalence, threads=options.threads or 1, precision=options.precision,
        costs=options.costs,
    )  # fmt: skip
    try:
        return score_files(run, options.address, options.workers, Progress)
    except KeyboardInterrupt:
        print("score: stopped; the same command goes on with the files that are not done", file=sys.stderr)
        return 1


class Progress:
    """Rows done, rows/s and time left: one line on a terminal, a line every ten seconds when piped."""

    def __init__(self, total_bytes: int):
        self._total, self._start = max(total_bytes, 1), time.monotonic()
        self._shown, self._terminal = self._start, sys.stderr.isatty()

    def show(self, rows: int, done_bytes: int) -> None:
        now, share = time.monotonic(), min(1.0, done_bytes / self._total)
        if now - self._shown < (0.2 if self._terminal else REPORT_SECONDS) and share < 1:
            return
        self._shown, seconds = now, max(now - self._start, 1e-9)
        left = seconds / max(share, 1e-9) * (1 - share)
        line = f"score: {rows} rows, {rows / seconds:.0f} rows/s, {share:.0%}, {left:.0f} s left"
        if self._terminal:
            print(f"\r{line}\x1b[K", end="\n" if share == 1 else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def _prevalence(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 and below 1")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service score",
        description=f"Add to each row of a CSV file: {', '.join(ADDED)}. Memory does not grow with the file. "
        "With --engine ray the CSV and Parquet files of a folder are scored side by side, on this machine or on a "
        "cluster; a run that was stopped goes on where it was.",
        epilog="Columns are found by the names of the fields or columns in the bundle's schema, in any case; required "
        "ones must be there. An added column that the table has too begins with prediction_. Rows that the schema "
        "refuses go to OUT.rejected.csv with their line and the reason (with --engine ray to "
        "OUT/_scored/FILE/rejected.csv); the exit code is then 1.",
    )  # fmt: skip
    parser.add_argument("input", type=Path, metavar="IN", help="a CSV file; with --engine ray, or a folder")
    parser.add_argument("output", type=Path, metavar="OUT", help="a CSV file; with --engine ray a folder")
    parser.add_argument(
        "--bundle", default=Settings().bundle, help="a folder, or s3://BUCKET/PREFIX (default: %(default)s)"
    )
    parser.add_argument(
        "--bundles", type=Path, default=Path("artifacts/bundles"), metavar="DIR",
        help="where bundles from s3:// are kept (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--require-signature", type=Path, metavar="KEYS",
        help="public keys, a PEM file or a folder of them; use only a bundle that one of them signed",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=FULL,
        help="of the weights; other than float32 only where python -m training precision has measured it here "
        "and not refused",
    )  # fmt: skip
    parser.add_argument(
        "--cache-rows",
        type=int,
        default=1 << 16,
        help="distinct texts computed once; 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--target-prevalence",
        type=_prevalence,
        metavar="P",
        help="share of the positive one of two classes among these rows, if it is not the bundle's own",
    )
    parser.add_argument(
        "--costs", metavar=GRAMMAR,
        help=f"costs of mistakes, by which each row gets a decision, if not the bundle's own: {EXPLAINED}",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=_count, metavar="N",
        help="cores to compute on (default: all); with --engine ray those of each worker (default: 1). Another number "
        "changes the last digits",
    )  # fmt: skip
    parser.add_argument("--engine", choices=ENGINES, default="local", help="default: %(default)s")
    parser.add_argument("--address", help="ray: a running cluster, HOST:PORT or auto (default: this machine alone)")
    parser.add_argument("--workers", type=_count, metavar="N", help="ray: files at once (default: cores ÷ threads)")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
