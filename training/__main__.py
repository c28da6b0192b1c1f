"""python -m training fit | evaluate | compare-losses | promote | precision | keygen | sign | push | pull"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from models.bundle.manifest import BundleError
from models.bundle.precisions import (
    CALIBRATION_MARGIN,
    FULL,
    LOG_LOSS_MARGIN,
    PRECISIONS,
    Precision,
    format_measurement,
)
from models.bundle.read import Bundle, read_bundle
from models.bundle.signature import SignatureError, make_keys, public_path, sign
from models.engines.backend import prepare
from models.engines.ray_cluster import ClusterError
from models.files import write_atomic
from training.fit.data_parallel import Helped, Ranks, Together, find_ranks
from training.fit.executors import ENGINES, engine
from training.fit.finetune import Recipe
from training.losses.registry import LOSSES, PRESETS, LossChoice, LossError
from training.promote import commands as lifecycle

DATA = Path("data/titanic.csv")
WORK = Path("artifacts/compare-losses")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 done, 1 failed (one sentence on stderr), 2 wrong use."""
    options = _parser().parse_args(arguments)
    try:
        run: Any = options.run
        return int(run(options))
    except (BundleError, ClusterError, SignatureError, ValueError, OSError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("training: stopped; --resume with the same options goes on from the last fold", file=sys.stderr)
        return 1


def _fit(options: argparse.Namespace) -> int:
    # pandas and scikit-learn take seconds to load: not for --help and wrong use.
    from training.fit.pipeline import FitOptions, fit, work_folder

    backend = prepare()
    if backend.warning:
        print(f"training: {backend.warning}", file=sys.stderr)
    given = {"gamma": options.gamma, "smoothing": options.smoothing}
    if options.alpha_survived is not None:
        given["alpha"] = {"died": 1 - options.alpha_survived, "survived": options.alpha_survived}
    wanted = FitOptions(
        data=options.data, out=options.out, base=options.base, loss=LossChoice(
            name=options.loss, preset=options.preset, parameters={k: v for k, v in given.items() if v is not None}
        ),
        recipe=msgspec.structs.replace(Recipe(), **_recipe(options)), folds=options.folds, seed=options.seed,
        companions=options.companions, coverage=options.coverage,
        map_rule=options.map_rule, target_prevalence=options.target_prevalence,
        resume=options.resume, quiet=options.quiet,
    )  # fmt: skip
    if ranks := find_ranks():
        bundle = _fit_together(wanted, ranks, options.engine)
        if bundle is None:
            return 0
    else:
        with engine(options.engine, options.address, max(1, backend.threads)) as chosen:
            bundle = fit(wanted, chosen)
    if not options.quiet:
        calibrated = bundle.evaluation["calibrated"]
        loss, error = calibrated["log_loss"], calibrated["calibration_error"]
        print(
            f"{options.out}: version {bundle.version}, log loss {loss['value']:.4f} ± {loss['standard_error']:.4f}, "
            f"calibration error {error['value']['value']:.3f} (a perfect model's: {error['noise_floor']:.3f})"
        )
        print(f"report: {work_folder(options.out) / 'report.html'}")
    return 0


def _fit_together(wanted: Any, ranks: Ranks, engine_name: str) -> Bundle | None:
    """Fit with the ranks that mlx.launch started; the first one's bundle, None in the others, which write nothing."""
    from training.fit.pipeline import fit

    if engine_name != "local":
        raise ValueError(f"--engine {engine_name} does not go with mlx.launch: take one of them")
    if ranks.rank == 0:
        return fit(wanted, Together(ranks))
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Helped):
        fit(msgspec.structs.replace(wanted, out=Path(folder) / "out", resume=False, quiet=True), Together(ranks))
    return None


def _recipe(options: argparse.Namespace) -> dict[str, Any]:
    """The parts of the recipe that were given."""
    return {name: value for name in Recipe.__struct_fields__ if (value := getattr(options, name)) is not None}


def _compare(options: argparse.Namespace) -> int:
    from rich.console import Console

    from training.loss_study.page import page_part, page_with, print_comparison
    from training.loss_study.study import ALL, CompareOptions, compare_losses

    for path in (options.json, options.markdown):
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"there is no folder {path.parent} to write {path.name} to")
    if options.markdown:
        # Its marks are checked now: training takes long, and their absence would be found after it.
        page_with("", options.markdown)
    if find_ranks():
        raise ValueError("compare-losses is not for mlx.launch; --engine ray spreads it over machines")
    backend = prepare()
    if backend.warning:
        print(f"training: {backend.warning}", file=sys.stderr)
    wanted = CompareOptions(
        data=options.data, work=options.work, base=options.base, losses=options.losses or ALL, seeds=options.seeds,
        recipe=msgspec.structs.replace(Recipe(), **_recipe(options)), folds=options.folds,
        companions=options.companions, resume=options.resume, quiet=options.quiet,
    )  # fmt: skip
    with engine(options.engine, options.address, max(1, backend.threads)) as chosen:
        report = compare_losses(wanted, chosen)
    if options.json:
        write_atomic(options.json, msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n")
    if options.markdown:
        write_atomic(options.markdown, page_with(page_part(report), options.markdown))
    if not options.quiet:
        print_comparison(report, Console(width=None if sys.stdout.isatty() else 120))
    return 0


def _precision(options: argparse.Namespace) -> int:
    from training.data.table import read_table
    from training.promote.precision import measure, record

    measurements = measure(
        options.bundle, read_table(options.data), options.only, log_loss_margin=options.log_loss_margin,
        calibration_margin=options.calibration_margin, seed=options.seed,
    )  # fmt: skip
    for one in measurements:
        figures = ", ".join(f"{name} {value}" for name, value in format_measurement(one).items())
        print(
            f"{one.precision} on {one.device}, {one.rows} rows: {figures}: {'refused' if one.refusal else 'accepted'}"
        )
    if any(one.training_rows for one in measurements):
        print("the rows are the bundle's training rows: the differences count, not the losses")
    bundle = record(options.bundle, measurements, options.out or options.bundle)
    print(f"{options.out or options.bundle}: version {bundle.version}; a signature that it had must be made again")
    for one in measurements:
        if one.refusal:
            print(f"training: {one.precision}: {one.refusal}", file=sys.stderr)
    return 1 if any(one.refusal for one in measurements) else 0


def _keygen(options: argparse.Namespace) -> int:
    public = public_path(options.out)
    print(f"key {make_keys(options.out, public)}: {options.out} signs, {public} is for --require-signature")
    return 0


def _sign(options: argparse.Namespace) -> int:
    bundle = read_bundle(options.bundle)
    print(f"{options.bundle}: version {bundle.version} signed by key {sign(options.bundle, options.key)}")
    return 0


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _losses(text: str) -> tuple[str, ...]:
    names = tuple(_listed(text))
    try:
        for name in names:
            LossChoice.parse(name)
    except LossError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return names


def _lower(text: str) -> tuple[Precision, ...]:
    lower = tuple(one for one in PRECISIONS if one != FULL)
    if not _listed(text) or set(_listed(text)) - set(lower):
        raise argparse.ArgumentTypeError(f"{text!r} must be of {', '.join(lower)}, with commas between")
    return tuple(one for one in lower if one in _listed(text))


def _seeds(text: str) -> tuple[int, ...]:
    if not _listed(text) or not all(part.isdecimal() for part in _listed(text)):
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers from 0 on with commas between, as in 0,1,2")
    return tuple(dict.fromkeys(map(int, _listed(text))))


def _evaluate(options: argparse.Namespace) -> int:
    import numpy as np
    from rich.console import Console

    from models.predictor import Predictor
    from training.data.table import read_table
    from training.evaluate.evaluation import Answers, evaluate_answers
    from training.fit.epoch_diagnostics import LOG, read_log
    from training.fit.pipeline import work_folder
    from training.report.page import report
    from training.report.plots import make_plots
    from training.report.tables import print_evaluation

    table, predictor = read_table(options.data), Predictor.load(options.bundle)
    how = "the bundle's own predictions on the rows given"
    if table.sha256 == predictor.bundle.manifest.origin.data.sha256:
        how += ", WHICH ARE ITS TRAINING ROWS; evaluation.json has the held-out figures"
    answers = Answers.of(table, predictor.predict(table.passengers), predictor.bundle.companions)
    rng = np.random.default_rng(options.seed)
    evaluation = evaluate_answers(answers, how=how, coverage=predictor.bundle.record.conformal.coverage, rng=rng)
    print_evaluation(evaluation, Console())
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation), indent=1) + b"\n")
    if options.plots or options.report:
        plots = make_plots(answers, evaluation, read_log(work_folder(options.bundle) / LOG), rng)
        if options.plots:
            options.plots.mkdir(parents=True, exist_ok=True)
            for plot in plots:
                (options.plots / f"{plot.name}.svg").write_text(plot.file(), encoding="utf-8")
        if options.report:
            options.report.write_text(report(predictor.bundle.name, evaluation, plots), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Train and judge bundles.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    fit = commands.add_parser("fit", help="fine-tune, cross-fit, calibrate, evaluate, write a bundle")
    fit.set_defaults(run=_fit)
    fit.add_argument("--data", type=Path, default=DATA, help="labelled passengers, CSV (default: %(default)s)")
    fit.add_argument("--out", type=Path, required=True, help="the bundle's folder; an old one is replaced at the end")
    fit.add_argument("--base", help="a BERT: a folder, or a Hugging Face hub id (default: the packaged MiniLM)")
    fit.add_argument("--loss", default=LossChoice().name, choices=LOSSES, help="default: %(default)s")
    fit.add_argument("--preset", choices=PRESETS, help="loss parameters by name; note: the research note's numbers")
    fit.add_argument("--gamma", type=float, help="focusing, 0 to 3")
    fit.add_argument("--smoothing", type=float, help="label smoothing, 0 to 0.99")
    fit.add_argument("--alpha-survived", type=float, help="weight of survivors in (0, 1) (default: from the data)")
    fit.add_argument("--folds", type=int, default=5, help="folds of the cross-fit (default: %(default)s)")
    fit.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    fit.add_argument(
        "--companions", action=argparse.BooleanOptionalAction, default=True,
        help="tell of each passenger what became of the others on the ticket; who they were goes into the bundle",
    )  # fmt: skip
    fit.add_argument("--coverage", type=float, default=0.9, help="of the prediction sets (default: %(default)s)")
    fit.add_argument(
        "--map-rule", default="least", choices=("least", "one_standard_error"),
        help="calibration map: least cross-validated log loss (below 1,000 rows one robust map instead), or fewest "
        "parameters within one standard error of it (default: %(default)s)",
    )  # fmt: skip
    fit.add_argument(
        "--target-prevalence", type=float, metavar="P",
        help="share of survivors, in (0, 1), where the bundle will serve, if it is not the training rows'",
    )  # fmt: skip
    _add_recipe(fit)
    _add_engine(fit)
    fit.add_argument("--resume", action="store_true", help="go on from the last finished fold of an interrupted run")
    fit.add_argument("--quiet", action="store_true", help="print nothing but errors")
    judge = commands.add_parser("evaluate", help="score a bundle on labelled rows")
    judge.set_defaults(run=_evaluate)
    judge.add_argument("--bundle", type=Path, required=True)
    judge.add_argument("--data", type=Path, default=DATA, help="labelled passengers, CSV (default: %(default)s)")
    judge.add_argument("--json", type=Path, help="write the evaluation here too")
    judge.add_argument("--plots", type=Path, metavar="DIR", help="write the pictures here, one SVG file each")
    judge.add_argument("--report", type=Path, metavar="FILE.html", help="write pictures and tables as one page")
    judge.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    _add_compare(commands)
    _add_precision(commands)
    keygen = commands.add_parser("keygen", help="make a pair of keys to sign bundles with and to check them")
    keygen.set_defaults(run=_keygen)
    keygen.add_argument(
        "--out", type=Path, required=True, metavar="KEY.pem", help="the private key; the public one is KEY.pub.pem"
    )
    vouch = commands.add_parser("sign", help="verify a bundle and sign it, for services with --require-signature")
    vouch.set_defaults(run=_sign)
    vouch.add_argument("bundle", type=Path, metavar="BUNDLE")
    vouch.add_argument("--key", type=Path, required=True, metavar="KEY.pem", help="an Ed25519 private key")
    lifecycle.add_commands(commands)
    return parser


def _add_precision(commands: Any) -> None:
    precision = commands.add_parser(
        "precision", help="measure a bundle's weights in fewer bits, so that it may be served so",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Score a bundle in each precision on labelled rows, paired with float32, and write what was found\n"
        "into the bundle. The service serves in a precision that was measured on its device and stayed within\n"
        "the margins, and in no other. Exit code 1 if one was refused.",
    )  # fmt: skip
    precision.set_defaults(run=_precision)
    precision.add_argument("--bundle", type=Path, required=True)
    precision.add_argument("--data", type=Path, default=DATA, help="labelled passengers, CSV (default: %(default)s)")
    precision.add_argument(
        "--only", type=_lower, default=_lower("float16,bfloat16,int8"), metavar="NAME,…", help="default: all",
    )  # fmt: skip
    precision.add_argument("--out", type=Path, help="write the bundle there instead of over the old one")
    for name, margin, of in (
        ("log-loss", LOG_LOSS_MARGIN, "the log loss, in nats"),
        ("calibration", CALIBRATION_MARGIN, "the smooth calibration error"),
    ):  # fmt: skip
        precision.add_argument(
            f"--{name}-margin", type=float, default=margin,
            help=f"that the 95 %% interval of the change of {of} must not reach beyond (default: %(default)s)",
        )  # fmt: skip
    precision.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare-losses", help="the losses side by side, and the research note's claims about them",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Fine-tune with every loss and every seed on the same folds, calibrate and judge each on rows it\n"
        "did not see, and print: scores raw and calibrated, differences to cross entropy paired by row, how\n"
        "many calibration tests that makes, and a verdict on each claim of the research note.\n\n"
        "A loss that cannot be trained is reported and stops no other.",
        epilog="examples:\n"
        "  compare-losses --seeds 0 --losses focal_smooth,label_smooth      two losses beside cross entropy\n"
        "  compare-losses --json comparison.json --markdown docs/losses.md  all, written into the page\n"
        "  compare-losses --seeds 0,1,2,3 --resume                          one seed more than before",
    )  # fmt: skip
    compare.set_defaults(run=_compare)
    compare.add_argument("--data", type=Path, default=DATA, help="labelled passengers, CSV (default: %(default)s)")
    compare.add_argument("--base", help="a BERT: a folder, or a Hugging Face hub id (default: the packaged MiniLM)")
    compare.add_argument(
        "--losses", type=_losses, metavar="NAME,…",
        help=f"of {', '.join(LOSSES)}; NAME:note takes the research note's parameters; cross_entropy is always "
        "compared (default: all, focal:note and focal_smooth:note)",
    )  # fmt: skip
    compare.add_argument(
        "--seeds", type=_seeds, default=(0, 1, 2), metavar="N,…", help="each decides its folds too (default: 0,1,2)"
    )
    compare.add_argument("--folds", type=int, default=5, help="folds of each cross-fit (default: %(default)s)")
    compare.add_argument(
        "--companions", action=argparse.BooleanOptionalAction, default=True,
        help="tell of each passenger what became of the others on the ticket, as `fit` does",
    )  # fmt: skip
    _add_recipe(compare)
    _add_engine(compare)
    compare.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    compare.add_argument(
        "--markdown", type=Path, metavar="FILE.md",
        help="write the tables here, between <!-- compare-losses --> and <!-- /compare-losses --> if the page exists",
    )  # fmt: skip
    compare.add_argument(
        "--work", type=Path, default=WORK, metavar="DIR",
        help="keeps the held-out logits of each loss and seed as they are done (default: %(default)s)",
    )  # fmt: skip
    compare.add_argument("--resume", action="store_true", help="take from --work what is done with these settings")
    compare.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", choices=ENGINES, default=ENGINES[0],
        help="fine-tunings side by side on this machine's cores, or on a Ray cluster's (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--address", help="ray: a running cluster, HOST:PORT or auto (default: this machine alone)")


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    for name, default in msgspec.structs.asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), help=f"default: {default}")


if __name__ == "__main__":
    raise SystemExit(main())
