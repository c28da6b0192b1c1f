"""``recalibrate``: a bundle's calibration anew, on labelled rows."""

import argparse
from pathlib import Path
from typing import Any

from models.files import refuse_overwriting


def add(commands: Any) -> None:
    """Add the command; ``run`` gives its exit code."""
    parser = commands.add_parser(
        "recalibrate",
        help="the same weights, calibrated anew on labelled rows",
        description="Fits the map, the prediction sets, the intervals, the typicality and the reference of a bundle "
        "anew on labelled rows that it was not trained on, such as an export of outcomes, and writes a new bundle with "
        "the same weights: minutes, no training. `promote` says whether it is better.",
        epilog="example: ./run train recalibrate artifacts/churn --data outcomes.csv --out artifacts/churn-may",
    )
    parser.set_defaults(run=_run)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--data", type=Path, required=True, help="labelled rows, CSV or Parquet")
    parser.add_argument("--separator", help="what separates a CSV's cells (default: found)")
    parser.add_argument("--out", type=Path, required=True, help="the new bundle's folder")
    parser.add_argument("--seed", type=int, default=0, help="of the parts (default: %(default)s)")
    parser.add_argument(
        "--target-prevalence",
        type=float,
        metavar="P",
        help="share of the positive class, in (0, 1), where the bundle will serve, if it is not these rows'",
    )
    parser.add_argument(
        "--on-training-rows", action="store_true", help="take rows that the bundle was made from, which flatters it"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _run(options: argparse.Namespace) -> int:
    from models.bundle.write import bundle_destination
    from training.fit.pipeline import work_folder
    from training.promote.recalibration import RecalibrationOptions, recalibrate

    refuse_overwriting((options.data, options.bundle), (options.out, work_folder(options.out)))
    bundle_destination(options.out)
    given = {name: getattr(options, name) for name in RecalibrationOptions.__struct_fields__}
    bundle = recalibrate(RecalibrationOptions(**given))
    if not options.quiet:
        raw, calibrated = (bundle.evaluation[name]["log_loss"] for name in ("raw", "calibrated"))
        print(
            f"{options.out}: version {bundle.version}, {bundle.evaluation['rows']} rows, log loss "
            f"{calibrated['value']:.4f} ± {calibrated['standard_error']:.4f}, without calibration {raw['value']:.4f}"
        )
        print(f"report: {work_folder(options.out) / 'report.html'}")
    return 0
