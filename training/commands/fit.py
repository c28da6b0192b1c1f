"""``fit``: from a table to a bundle."""

import argparse
import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from models.bundle.read import Bundle
from models.bundle.write import bundle_destination
from models.files import refuse_overwriting, write_atomic
from training.commands.arguments import add_training, executor, labelled_rows, recipe, threads
from training.fit.data_parallel import DataParallel, NonRootDone, Ranks, find_ranks
from training.losses.registry import LOSSES, PRESETS, LossChoice

if TYPE_CHECKING:
    from training.data.table import Table
    from training.fit.pipeline import FitOptions


def add(commands: Any) -> None:
    """Add the command; ``run`` gives its exit code."""
    parser = commands.add_parser("fit", help="fine-tune, cross-fit, calibrate, evaluate, write a bundle")
    parser.set_defaults(run=_run)
    argument = parser.add_argument
    argument("--out", type=Path, required=True, help="the bundle's folder; an old one is replaced at the end")
    add_training(
        parser,
        folds="folds of the cross-fit; 1: a part is held out once, and the model that is served is the one that did "
        "not see it (default: 5, 3 from 2,500 rows on, 1 from 20,000 on)",
        default_folds=None,
    )
    argument("--loss", default=LossChoice().name, choices=LOSSES, help="default: %(default)s")
    argument("--preset", choices=PRESETS, help="loss parameters by name; note: the research note's numbers")
    argument("--gamma", type=float, help="focusing, 0 to 3")
    argument("--smoothing", type=float, help="label smoothing, 0 to 0.99")
    argument(
        "--alpha",
        type=_alpha,
        action="append",
        metavar="CLASS=WEIGHT",
        help="a class's weight; of two classes the other gets the rest of 1 (default: from the data)",
    )
    argument("--seed", type=int, default=0, help="of the model that serves (default: %(default)s)")
    argument(
        "--seeds",
        type=int,
        metavar="N",
        help="cross-fit with N seeds, --seed and those after it, each with folds of its own, so that the figures are "
        "a mean with its spread and no lucky seed's; the model of the first serves, whatever the scores (default: 3 "
        "below 2,500 rows, 1 from there on)",
    )
    argument("--coverage", type=float, default=0.9, help="of the prediction sets (default: %(default)s)")
    argument(
        "--sets-by",
        metavar="FIELD",
        help="the field within whose values prediction sets hold their coverage, or none (default: what the "
        "description says, or else what held-out rows call for)",
    )
    argument(
        "--map-rule",
        default="least",
        choices=("least", "one_standard_error"),
        help="calibration map: least cross-validated log loss (below 1,000 rows one robust map instead), or fewest "
        "parameters within one standard error of it (default: %(default)s)",
    )
    argument(
        "--target-prevalence",
        type=float,
        metavar="P",
        help="share of the positive class, in (0, 1), where the bundle will serve, if it is not the training rows'",
    )
    argument(
        "--second",
        default="auto",
        metavar="MODELS",
        help="second models whose scores join BERT's before the calibration: linear, trees, words (of free text), two "
        "of them joined by +, none, or auto: those that cross-validated log loss calls for (default: %(default)s)",
    )
    argument("--resume", action="store_true", help="go on from the last finished fold of an interrupted run")


def _run(options: argparse.Namespace) -> int:
    # pandas and scikit-learn take seconds to load: not for --help and wrong use.
    from training.fit.pipeline import fit, work_folder

    base = Path(options.base) if options.base else None
    refuse_overwriting((options.data, options.table, base), (options.out, work_folder(options.out)))
    # Refused now: training takes long.
    bundle_destination(options.out)
    described, table = labelled_rows(options)
    fit_options = _fit_options(options, table)
    if ranks := find_ranks():
        threads()
        bundle = _fit_together(fit_options, table, ranks, options.engine)
        if bundle is None:
            return 0
    else:
        with executor(options) as chosen:
            bundle = fit(fit_options, table, chosen)
    if described is not None:
        write_atomic(work_folder(options.out) / "table.toml", described)
    if not options.quiet:
        print(f"{options.out}: version {bundle.version}, {_figures(bundle)}")
        print(f"report: {work_folder(options.out) / 'report.html'}")
        if described is not None:
            print(f"description, to edit and to fit with (--table): {work_folder(options.out) / 'table.toml'}")
    return 0


def _figures(bundle: Bundle) -> str:
    """The figures to quote: over the seeds, where there are several."""
    evaluation = bundle.evaluation
    scores = evaluation["calibrated"]
    which = "calibration_error" if len(bundle.schema.classes) == 2 else "classwise_error"
    loss, error, title = scores["log_loss"], scores[which], which.replace("_", " ")
    if (seeds := evaluation.get("seeds")) is None:
        return (
            f"log loss {loss['value']:.4f} ± {loss['standard_error']:.4f}, {title} {error['value']['value']:.3f} (a "
            f"perfect model's: {error['noise_floor']:.3f})"
        )
    over, errors = seeds["log_loss"], seeds["calibration_error"]
    return (
        f"log loss {over['mean']:.4f} over {len(seeds['each'])} seeds, ± {over['sd']:.4f} between them and ± "
        f"{loss['standard_error']:.4f} over rows, {title} {errors['mean']:.3f} ± {errors['sd']:.3f} (a perfect "
        f"model's: {error['noise_floor']:.3f}); seed {seeds['serves']} serves"
    )


def _alpha(text: str) -> tuple[str, float]:
    name, equals, weight = text.rpartition("=")
    try:
        if name and equals:
            return name, float(weight)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} must be CLASS=WEIGHT, the weight a number")


def alpha_by_class(given: list[tuple[str, float]], classes: Sequence[str]) -> dict[str, float]:
    """Weights by class, of which some were given; the one that was not, where it is one, gets the rest of 1.

    Raises ValueError for what is no class.
    """
    weights = dict(given)
    if unknown := sorted(set(weights) - set(classes)):
        raise ValueError(f"--alpha: there is no class {unknown[0]!r}; there are {', '.join(classes)}")
    missing = [name for name in classes if name not in weights]
    return weights | ({missing[0]: 1 - sum(weights.values())} if len(missing) == 1 else {})


def _fit_options(options: argparse.Namespace, table: "Table") -> "FitOptions":
    from training.fit.pipeline import FitOptions

    parameters: dict[str, Any] = {name: getattr(options, name) for name in ("gamma", "smoothing")}
    if options.alpha:
        parameters["alpha"] = alpha_by_class(options.alpha, table.schema.classes)
    parameters = {name: value for name, value in parameters.items() if value is not None}
    given = {name: getattr(options, name) for name in FitOptions.__struct_fields__ if name not in ("loss", "recipe")}
    loss = LossChoice(name=options.loss, preset=options.preset, parameters=parameters)
    return FitOptions(loss=loss, recipe=recipe(options, len(table)), **given)


def _fit_together(options: "FitOptions", table: "Table", ranks: Ranks, engine: str) -> Bundle | None:
    """Fit with the ranks that mlx.launch started; the first one's bundle, None in the others, which write nothing."""
    from training.fit.pipeline import fit

    if engine != "local":
        raise ValueError(f"--engine {engine} does not go with mlx.launch: take one of them")
    if ranks.rank == 0:
        return fit(options, table, DataParallel(ranks))
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(NonRootDone):
        quiet = msgspec.structs.replace(options, out=Path(folder) / "out", resume=False, quiet=True)
        fit(quiet, table, DataParallel(ranks))
    return None
