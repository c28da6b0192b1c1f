"""``evaluate``: score a bundle on labelled rows."""

import argparse
from pathlib import Path
from typing import Any

from models.decisions.costs import EXPLAINED, GRAMMAR
from models.files import refuse_overwriting, write_atomic, write_json
from training.commands.arguments import add_data


def add(commands: Any) -> None:
    """Add the command; ``run`` gives its exit code."""
    parser = commands.add_parser("evaluate", help="score a bundle on labelled rows")
    parser.set_defaults(run=_run)
    parser.add_argument("--bundle", type=Path, required=True)
    add_data(parser)
    parser.add_argument(
        "--costs", metavar=GRAMMAR, help=f"costs of mistakes, if not the bundle's own: {EXPLAINED}"
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="write the evaluation here too")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write the pictures here, one SVG file each")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write pictures and tables as one page")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")


def _run(options: argparse.Namespace) -> int:
    import numpy as np
    from msgspec import structs
    from rich.console import Console

    from models.predictor import Predictor
    from training.bundle.seen import find_seen
    from training.data.table import read_table
    from training.evaluate.evaluation import evaluate_predictions
    from training.evaluate.predictions import LabelledPredictions
    from training.fit.epoch_diagnostics import LOG, read_log
    from training.fit.pipeline import work_folder
    from training.report.page import report
    from training.report.plots import make_plots
    from training.report.tables import print_evaluation

    refuse_overwriting((options.data, options.bundle), (options.json, options.plots, options.report))
    predictor = Predictor.load(options.bundle, costs=options.costs)
    bundle = predictor.bundle
    table = read_table(options.data, bundle.schema, options.separator, fitting=False)
    how = "; ".join(filter(None, ("the bundle's own predictions on the rows given", table.note)))
    seen = find_seen(table, bundle)
    if seen.trained:
        which = "WHICH ARE ITS TRAINING ROWS" if seen.file else f"WHICH IT WAS PARTLY TRAINED ON: {seen}"
        how += f", {which}; evaluation.json has the held-out figures"
    predictions = LabelledPredictions.of(table, predictor.predict_checked(table.rows), bundle.known)
    rng, coverage = np.random.default_rng(options.seed), bundle.record.conformal.coverage
    evaluation = evaluate_predictions(predictions, how=how, coverage=coverage, rng=rng)
    evaluation = structs.replace(evaluation, sets_by=bundle.record.conformal.by)
    print_evaluation(evaluation, Console())
    if options.json:
        write_json(options.json, evaluation)
    if options.plots or options.report:
        plots = make_plots(predictions, evaluation, read_log(work_folder(options.bundle) / LOG), rng)
        if options.plots:
            options.plots.mkdir(parents=True, exist_ok=True)
            for plot in plots:
                write_atomic(options.plots / f"{plot.name}.svg", plot.file())
        if options.report:
            write_atomic(options.report, report(bundle.schema, evaluation, plots))
    return 0
