"""The commands of a bundle's life after training: promote it over another, push it to a bucket, pull it from there."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from models.bundle.bucket import fetch, push
from models.files import write_atomic

KEPT = Path("artifacts/bundles")


def add_commands(commands: Any) -> None:
    """Add them to the subparsers of ``python -m training``; ``run`` of each gives the exit code."""
    _add_promote(commands)
    upload = commands.add_parser(
        "push", help="verify a bundle and put it into an S3-compatible bucket as its current one"
    )
    upload.set_defaults(run=_push)
    upload.add_argument("bundle", type=Path, metavar="BUNDLE")
    upload.add_argument("place", metavar="s3://BUCKET/PREFIX")
    download = commands.add_parser("pull", help="fetch a bundle from a bucket, verify it, print its folder")
    download.set_defaults(run=_pull)
    download.add_argument("place", metavar="s3://BUCKET/PREFIX[@VERSION]", help="without a version: the current one")
    download.add_argument("--into", type=Path, default=KEPT, metavar="DIR", help="default: %(default)s")
    download.add_argument("--require-signature", type=Path, metavar="KEYS", help="public keys; one must have signed it")


def _add_promote(commands: Any) -> None:
    decide = commands.add_parser(
        "promote", help="decide by paired tests on unseen rows whether a bundle may take another's place",
        description="Tests on labelled rows that neither bundle saw whether CANDIDATE is worse than CURRENT by less "
        "than the limits: log loss, calibration, log loss of each subgroup, time. Writes CANDIDATE.promotion.json. "
        "Exit code 0: promoted, 1: refused or failed, 2: wrong use.",
    )  # fmt: skip
    decide.set_defaults(run=_promote)
    add = decide.add_argument
    add("candidate", type=Path, metavar="CANDIDATE")
    add("--over", type=Path, required=True, metavar="CURRENT", help="the bundle that serves now")
    add("--data", type=Path, required=True, help="labelled passengers that neither saw, CSV, 200 or more")
    for flag, metavar, default, accepted, text in (
        ("--risk", "P", 0.05, _number(0, 0.5), "chance to promote one that is past a limit, all criteria together"),
        ("--log-loss", "NATS", 0.02, _number(0, 1, True), "it may be higher by; 0 asks for a lower one"),
        ("--subgroup-log-loss", "NATS", 0.1, _number(0, 1, True), "the same in each subgroup of 50 rows or more"),
        ("--calibration", "P", 0.1, _number(0, 0.5), "its calibration error may be larger by, root mean square"),
        ("--slower", "RATIO", 1.25, _number(1, 100, True), "its time over the current one's"),
    ):  # fmt: skip
        add(flag, type=accepted, metavar=metavar, default=default, help=f"{text} (default: %(default)s)")
    add("--rounds", type=_rounds, default=21, metavar="N", help="of timing, 8 or more (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the timing's order and of the jackknife (default: %(default)s)")
    add("--out", type=Path, metavar="FILE", help="the decision (default: CANDIDATE.promotion.json)")


def _promote(options: argparse.Namespace) -> int:
    # pandas, SciPy and rich take seconds to load: not for --help and wrong use.
    from rich.console import Console

    from models.predictor import Predictor
    from training.data.table import read_table
    from training.promote.promotion import Limits, promotion, promotion_path, try_both, unseen
    from training.promote.table import print_promotion

    table = read_table(options.data)
    candidate, current = (Predictor.load(folder) for folder in (options.candidate, options.over))
    if candidate.bundle.version == current.bundle.version:
        raise ValueError(f"both bundles are version {current.bundle.version}: there is nothing to decide")
    doubts = unseen(table, {"candidate": candidate.bundle, "current": current.bundle})
    limits = Limits(**{name: getattr(options, name) for name in Limits.__struct_fields__})
    trial = try_both(table, candidate, current, options.rounds, options.seed)
    found = promotion(table, trial, candidate.bundle, current.bundle, limits, doubts, options.seed)
    out = options.out or promotion_path(options.candidate)
    write_atomic(out, msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n")
    print_promotion(found, Console(width=None if sys.stdout.isatty() else 130))
    return 0 if found.promoted else 1


def _push(options: argparse.Namespace) -> int:
    digest = push(options.bundle, options.place)
    print(f"{options.place}@{digest[:12]} is the current one; its manifest's sha256 is {digest}")
    return 0


def _pull(options: argparse.Namespace) -> int:
    # Nothing but the folder, so that a script can use it.
    print(fetch(options.place, options.into, options.require_signature))
    return 0


def _number(low: float, high: float, closed: bool = False) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not (low <= value if closed else low < value) or not value < high:
            least = "at least" if closed else "above"
            raise argparse.ArgumentTypeError(f"{text} must be {least} {low:g} and below {high:g}")
        return value

    return number


def _rounds(text: str) -> int:
    if not text.isdecimal() or not 8 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 8 to 10000")
    return int(text)
