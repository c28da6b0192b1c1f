"""compare-losses: what it counts and concludes, the page it writes into, and the command as a user calls it."""

import io
import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from models.bundle.read import read_bundle
from models.calibration.logit import logit, sigmoid
from models.files import write_atomic
from tests.conftest import ROOT
from tests.titanic import LABELS, SCHEMA
from tests.training.bases import write_base
from tests.training.commands import few_rows, interrupted, run_here
from tests.training.logits import two
from training.__main__ import main
from training.data.table import Table
from training.evaluate.folds import make_folds
from training.evaluate.nested import nested_evaluation
from training.fit.finetune import Recipe
from training.loss_study.claims import evaluate_claims
from training.loss_study.comparison import Comparison, count_tests, default_by_evidence, report_loss
from training.loss_study.contrasts import Run
from training.loss_study.page import CLOSING, OPENING, page_part, page_with, print_comparison
from training.loss_study.study import ALL, loss_choices
from training.loss_study.tables import ComparisonReport, figures
from training.losses.registry import LOSSES, LossError

STEPS, ROWS = 184, 200
MESSAGE = "fold 1 of 5, epoch 1: every row was predicted survived, the model has collapsed; take another --loss"


def test_all_losses_and_the_notes_two_presets_are_compared() -> None:
    choices = loss_choices(ALL)
    assert set(LOSSES) < set(choices)
    assert choices["focal_smooth:note"].make(LABELS, np.array([0, 1])).parameters["alpha"]["survived"] == 0.39
    assert list(loss_choices(["dice"])) == ["cross_entropy", "dice"]
    for wrong in ("focul", "focal:mine", "focal:"):
        with pytest.raises(LossError, match=f"there is no loss '{wrong}'; there are cross_entropy, .*NAME:note"):
            loss_choices([wrong])


@pytest.fixture(scope="module")
def comparison(table: Table, few_resamples: None) -> Comparison:
    """Two seeds of synthetic logits that say something: calibrated, five times too steep, and one loss that failed."""
    labels, rows = table.labels[:ROWS], table.rows[:ROWS]
    choices = loss_choices(["focal_smooth", "dice", "tversky"])
    losses = {name: choice.make(LABELS, labels) for name, choice in choices.items()}
    slopes = {"cross_entropy": 1.0, "focal_smooth": 5.0, "tversky": 1.0}
    rng, runs, evaluations = np.random.default_rng(8), {}, {}
    for name, slope in slopes.items():
        runs[name], evaluations[name] = {}, {}
        for seed in (0,) if name == "tversky" else (0, 1):
            # A mark that is normal about −½ or ½ with variance 1 is its own log likelihood ratio.
            mark = labels - 0.5 + rng.normal(size=ROWS)
            logits = two(slope * (mark + logit(labels.mean())))
            evaluation, answers = nested_evaluation(
                logits, labels, make_folds(labels, 3, seed), rows, SCHEMA, (None,) * 3, inverse=None,
                coverage=0.9, seed=seed, with_baselines=False,
            )  # fmt: skip
            assert evaluation.baselines is None
            runs[name][seed], evaluations[name][seed] = Run(logits, answers.calibrated), evaluation
    failures = {"dice": {0: MESSAGE, 1: MESSAGE}, "tversky": {1: MESSAGE}}
    return Comparison(
        classes=LABELS, labels=labels, losses=losses, steps=STEPS, runs=runs, evaluations=evaluations, failures=failures
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(comparison: Comparison) -> ComparisonReport:
    losses = {name: report_loss(comparison, name) for name in comparison.losses}
    return ComparisonReport(
        data_sha256="0" * 64, base="base", rows=ROWS, classes={"died": 124, "survived": 76}, seeds=(0, 1), folds=3,
        feature=True, recipe=Recipe(epochs=1), losses=losses, tests=count_tests(losses.values()),
        claims=evaluate_claims(comparison, np.random.default_rng(0)), default=default_by_evidence(comparison),
    )  # fmt: skip


def test_a_loss_is_reported_on_both_sides_with_its_distance_to_cross_entropy(
    comparison: Comparison, report: ComparisonReport
) -> None:
    ours, theirs = report.losses["focal_smooth"].measured, report.losses["cross_entropy"].measured
    assert ours is not None
    assert theirs is not None
    assert theirs.raw.differences == {}
    for side in ("raw", "calibrated"):
        values = [one.side(side).figures["log_loss"].over_rows.value for one in (ours, theirs)]
        assert ours.side(side).differences["log_loss"].over_rows.value == pytest.approx(values[0] - values[1])
        by_seed = [getattr(one, side).log_loss.value for one in comparison.evaluations["focal_smooth"].values()]
        assert ours.side(side).figures["log_loss"].by_seed == pytest.approx(by_seed)
    assert ours.raw.differences["log_loss"].over_rows.low > 0
    assert sum(ours.maps_chosen.values()) == 6
    assert ours.own_value_of_reference == pytest.approx(
        np.mean([comparison.losses["focal_smooth"].value(r.logits, comparison.labels) for r in
                 comparison.runs["cross_entropy"].values()])
    )  # fmt: skip
    assert report.losses["focal_smooth"].alpha_shift == pytest.approx(
        math.log((1 - comparison.labels.mean()) / comparison.labels.mean())
    )


def test_a_loss_that_fails_takes_no_other_with_it(report: ComparisonReport) -> None:
    assert report.losses["dice"].measured is None
    assert report.losses["tversky"].seeds == (0,)
    names = {row[0]: row for row in figures(report)[0].rows}
    assert names["dice"][1] == "collapsed"
    assert "tversky (seeds 0)" in names
    part = page_part(report)
    assert part.count(MESSAGE) == 3


def test_every_calibration_test_is_counted(report: ComparisonReport) -> None:
    # Five runs: cross entropy and focal_smooth with two seeds, tversky with one; four tests of two sides each.
    assert [one.tests for one in report.tests] == [5] * 8
    raw, calibrated = ([one for one in report.tests if one.side == side] for side in ("raw", "calibrated"))
    for one in (*raw, *calibrated):
        assert one.expected == pytest.approx(0.25)
        assert one.after_holm <= one.below <= 5
    # The two that are five times too steep are seen; calibrated, they are not.
    assert min(one.after_holm for one in raw) >= 2
    assert sum(one.after_holm for one in calibrated) == 0
    assert count_tests([report.losses["dice"]])[0].tests == 0


def evidence(worse_by: float, rows: int = 400) -> Comparison:
    rng = np.random.default_rng(9)
    true = 1.5 * rng.normal(size=rows)
    labels = (rng.random(rows) < sigmoid(true)).astype(int)
    noise = {"cross_entropy": 0.1, "focal_smooth": 0.1 + worse_by}
    runs = {name: {0: Run(two(z := true + size * rng.normal(size=rows)), sigmoid(z))} for name, size in noise.items()}
    return Comparison(classes=LABELS, labels=labels, losses={}, steps=STEPS, runs=runs)


def test_the_default_stays_unless_it_is_worse_by_more_than_a_standard_error() -> None:
    stays, goes = default_by_evidence(evidence(0.0)), default_by_evidence(evidence(1.5))
    assert not stays.worse
    assert "focal_smooth can stay" in stays.words
    assert goes.worse
    assert goes.difference is not None
    assert goes.difference.over_rows.value > goes.difference.over_rows.standard_error
    assert "should be cross_entropy" in goes.words
    nothing = Comparison(classes=LABELS, labels=np.array([0, 1]), losses={}, steps=1)
    assert default_by_evidence(nothing).words.startswith("not measured")


def test_terminal_page_and_json_say_the_same(report: ComparisonReport) -> None:
    screen = io.StringIO()
    print_comparison(report, Console(file=screen, width=160))
    shown, part = " ".join(screen.getvalue().split()), page_part(report)
    measured = json.loads(msgspec.json.encode(report))["losses"]["focal_smooth"]["measured"]
    value = measured["calibrated"]["figures"]["log_loss"]["over_rows"]["value"]
    for text in (
        f"{value:.4f}",
        "→ not supported",
        "Default by evidence",
        "after Holm",
        "default recipe but for epochs 1",
    ):
        assert text in shown, text
        assert text in part, text
    assert "nan" not in part
    columns = {line.count("|") for line in part.splitlines() if line.startswith(("| cross_entropy", "| dice"))}
    assert max(columns) == 9
    # A table of Markdown breaks where a row has more or fewer cells than its heading.
    for one in figures(report):
        assert {len(row) for row in one.rows} == {len(one.columns)}, one.title


def test_the_page_changes_between_its_marks_only(tmp_path: Path) -> None:
    page = tmp_path / "losses.md"
    page.write_text(f"# Losses\n\nBy hand.\n\n{OPENING}\nold\n{CLOSING}\n\nBy hand, too.\n", encoding="utf-8")
    write_atomic(page, page_with("new", page))
    assert page.read_text() == f"# Losses\n\nBy hand.\n\n{OPENING}\n\nnew\n\n{CLOSING}\n\nBy hand, too.\n"
    again = page_with("new", page)
    assert again == page.read_text()
    assert [one.name for one in tmp_path.iterdir()] == ["losses.md"]
    fresh = tmp_path / "fresh.md"
    write_atomic(fresh, page_with("first", fresh))
    assert page_with("second", fresh) == fresh.read_text().replace("first", "second")


@pytest.mark.parametrize(
    "text", ["", OPENING, CLOSING, f"{CLOSING} {OPENING}", f"{OPENING}{CLOSING}{OPENING}{CLOSING}"]
)
def test_a_page_without_its_marks_is_refused(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"page.md must have the line <!-- compare-losses --> and, after it"):
        page_with("new", page)


def test_the_documentation_has_the_marks() -> None:
    assert "new" in page_with("new", ROOT / "docs" / "losses.md")


def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("no marks")
    for options, message in {
        ("--markdown", page): "must have the line <!-- compare-losses -->",
        ("--json", tmp_path / "no" / "c.json"): "there is no folder",
    }.items():
        assert main(["compare-losses", "--work", str(tmp_path / "work"), *map(str, options)]) == 1
        assert message in capsys.readouterr().err
    assert page.read_text() == "no marks"
    assert not (tmp_path / "work").exists()
    few = ("--data", few_rows(tmp_path / "rows.csv"), "--seeds", 0, "--losses", "focal")
    done = run_here("compare-losses", *few, "--work", tmp_path / "work", "--resume")
    assert done.returncode == 1
    assert "holds nothing of a run with these settings and data" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--losses", "focul"), "there is no loss 'focul'; there are cross_entropy"),
        (("--seeds", "0,x"), "whole numbers from 0 on with commas between"),
        (("--seeds", "-1"), "'-1' must be whole numbers from 0 on"),
    ],
)
def test_wrong_use_is_exit_2(options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["compare-losses", *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    rows, work, page = few_rows(tmp_path / "rows.csv"), tmp_path / "work", tmp_path / "page.md"
    page.write_text(f"By hand.\n{OPENING}{CLOSING}\n")
    recipe = ("--data", rows, "--folds", 2, "--epochs", 2)
    outputs = ("--work", work, "--json", tmp_path / "c.json", "--markdown", page)
    options = ("compare-losses", *recipe, "--seeds", "0", "--losses", "dice,focal_smooth", *outputs)
    pattern = "cross_entropy-seed-0-*.npy"
    returncode, stderr = interrupted(*options, when=lambda: list(work.glob(pattern)))
    assert returncode == 1
    assert "--resume" in stderr.splitlines()[-1]
    assert not (tmp_path / "c.json").exists()
    kept = list(work.glob(pattern))
    before = kept[0].stat().st_mtime_ns
    done = run_here(*options, "--resume")
    assert done.returncode == 0, done.stderr
    assert kept[0].stat().st_mtime_ns == before
    assert "final model" not in done.stderr
    assert page.read_text().startswith("By hand.\n")
    assert "Default by evidence" in page.read_text()
    found = json.loads((tmp_path / "c.json").read_bytes())
    losses = {name: msgspec.convert(one["failures"], dict[str, str]) for name, one in found["losses"].items()}
    assert list(losses) == ["cross_entropy", "dice", "focal_smooth"]
    assert not any(losses.values())
    assert sorted(one.name.split("-seed")[0] for one in work.glob("*.npy")) == list(losses)


@pytest.mark.slow
def test_a_run_is_what_fit_evaluates_with_the_same_loss_and_seed(tmp_path: Path) -> None:
    rows, base = few_rows(tmp_path / "rows.csv"), write_base(tmp_path / "base")
    rates = ("--learning-rate", "5e-3", "--head-learning-rate", "5e-3")
    recipe = ("--data", rows, "--base", base, "--folds", 2, "--epochs", 2, "--batch-rows", 17, *rates, "--quiet")
    assert run_here("fit", *recipe, "--second", "none", "--seeds", 1, "--out", tmp_path / "bundle").returncode == 0
    wanted = ("--seeds", 0, "--losses", "focal_smooth", "--work", tmp_path / "work", "--json", tmp_path / "c.json")
    done = run_here("compare-losses", *recipe, *wanted)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    evaluation = read_bundle(tmp_path / "bundle").evaluation
    measured = json.loads((tmp_path / "c.json").read_bytes())["losses"]["focal_smooth"]["measured"]
    for side in ("raw", "calibrated"):
        assert measured[side]["figures"]["log_loss"]["over_rows"] == pytest.approx(evaluation[side]["log_loss"])
    assert set(measured["maps_chosen"]) == set(evaluation["maps_chosen"])
