"""``promote``: decide whether a bundle may take another's place."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.files import refuse_overwriting, write_json


def add(commands: Any) -> None:
    """Add the command; ``run`` gives its exit code."""
    parser = commands.add_parser(
        "promote",
        help="decide by paired tests on unseen rows whether a bundle may take another's place",
        description="Tests on labelled rows that neither bundle saw whether CANDIDATE is worse than CURRENT by less "
        "than the limits: log loss, calibration, log loss of each subgroup, time. Writes CANDIDATE.promotion.json. "
        "Exit code 0: promoted, 1: refused or failed, 2: wrong use.",
    )
    parser.set_defaults(run=_run)
    argument = parser.add_argument
    argument("candidate", type=Path, metavar="CANDIDATE")
    argument("--over", type=Path, required=True, metavar="CURRENT", help="the bundle that serves now")
    argument("--data", type=Path, required=True, help="labelled rows that neither saw, 200 or more")
    for flag, metavar, default, accepted, text in (
        ("--risk", "P", 0.05, _number(0, 0.5), "chance to promote one that is past a limit, all criteria together"),
        ("--log-loss", "NATS", 0.02, _number(0, 1, True), "it may be higher by; 0 asks for a lower one"),
        ("--subgroup-log-loss", "NATS", 0.1, _number(0, 1, True), "the same in each subgroup of 50 rows or more"),
        ("--calibration", "P", 0.1, _number(0, 0.5), "its calibration error may be larger by, root mean square"),
        ("--slower", "RATIO", 1.25, _number(1, 100, True), "its time over the current one's"),
    ):
        argument(flag, type=accepted, metavar=metavar, default=default, help=f"{text} (default: %(default)s)")
    argument("--rounds", type=_rounds, default=21, metavar="N", help="of timing, 8 or more (default: %(default)s)")
    argument("--seed", type=int, default=0, help="of the timing's order and of the jackknife (default: %(default)s)")
    argument("--out", type=Path, metavar="FILE", help="the decision (default: CANDIDATE.promotion.json)")


def _run(options: argparse.Namespace) -> int:
    # pandas, SciPy and rich take seconds to load: not for --help and wrong use.
    from rich.console import Console

    from models.predictor import Predictor
    from training.promote.eligibility import read_for_both, refuse_seen_rows
    from training.promote.promotion import PromotionLimits, decide, predict_with_both, promotion_path
    from training.promote.table import print_promotion

    out = options.out or promotion_path(options.candidate)
    refuse_overwriting((options.data, options.candidate, options.over), [out])
    candidate, current = (Predictor.load(folder) for folder in (options.candidate, options.over))
    if candidate.bundle.version == current.bundle.version:
        raise ValueError(f"both bundles are version {current.bundle.version}: there is nothing to decide")
    tables = read_for_both(options.data, candidate.bundle, current.bundle)
    caveats = refuse_seen_rows(tables, {"candidate": candidate.bundle, "current": current.bundle})
    limits = PromotionLimits(**{name: getattr(options, name) for name in PromotionLimits.__struct_fields__})
    predictions = predict_with_both(tables, (candidate, current), options.rounds, options.seed)
    promotion = decide(tables[0], predictions, candidate.bundle, current.bundle, limits, caveats, options.seed)
    write_json(out, promotion)
    print_promotion(promotion, Console(width=None if sys.stdout.isatty() else 130))
    return 0 if promotion.promoted else 1


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
