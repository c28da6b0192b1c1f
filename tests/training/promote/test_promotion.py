"""The decision: what passes, what is named, what is refused before any test, and the command from end to end."""

import dataclasses
import json
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.bundle.read import Bundle
from models.bundle.write import write_bundle
from models.calibration.logit import sigmoid
from tests.conftest import TITANIC
from tests.tiny import ORIGIN, Contents
from tests.titanic import SCHEMA
from tests.training.commands import run_here
from training.data.source import DataError
from training.data.table import Table
from training.promote.eligibility import read_for_both, refuse_seen_rows
from training.promote.promotion import (
    Criterion,
    PairedPredictions,
    PromotionLimits,
    decide,
    evaluate_criteria,
    promotion_path,
)
from training.promote.table import verdict

ROWS = 900
LIMITS = PromotionLimits()
EVEN = np.full((21, 2), 1e-3)


def predictions(shift: np.ndarray | float = 0.0, *, seconds: np.ndarray = EVEN, seed: int = 0) -> PairedPredictions:
    """The current model knows the true rates but for a little noise; the candidate's logits are off by ``shift``."""
    rng = np.random.default_rng(seed)
    z = 1.6 * rng.normal(size=ROWS) - 0.5
    labels = (rng.random(ROWS) < sigmoid(z)).astype(int)
    groups = {
        ("sex", "female"): np.arange(300), ("sex", "male"): np.arange(300, 880), ("class", "rare"): np.arange(880, ROWS)
    }  # fmt: skip
    current = sigmoid(z + 0.1 * rng.normal(size=ROWS))
    return PairedPredictions(labels, sigmoid(z + shift), current, np.arange(ROWS), groups, seconds)


def verdicts(found: tuple[Criterion, ...]) -> dict[str, str]:
    return {one.name: one.verdict for one in found}


def test_a_good_candidate_passes_everything_that_can_be_tested() -> None:
    assert verdicts(evaluate_criteria(predictions(), LIMITS, 0)) == {
        "log loss": "passed", "calibration error": "passed", "log loss, sex: female": "passed",
        "log loss, sex: male": "passed", "log loss, class: rare": "too few rows", "milliseconds per row": "passed",
    }  # fmt: skip


def test_harm_to_a_subgroup_alone_refuses() -> None:
    harmful = predictions(np.where(np.arange(ROWS) < 300, 1.5, 0.0))
    found = evaluate_criteria(harmful, PromotionLimits(log_loss=0.9, calibration=0.4), 0)
    assert verdicts(found)["log loss, sex: female"] == "worse"
    assert verdicts(found)["log loss, sex: male"] == "passed"


def test_a_slower_and_a_miscalibrated_one_are_refused() -> None:
    rng = np.random.default_rng(1)
    slow = np.column_stack([1.5e-3 * rng.uniform(0.9, 1.1, 21), 1e-3 * rng.uniform(0.9, 1.1, 21)])
    assert verdicts(evaluate_criteria(predictions(seconds=slow), LIMITS, 0))["milliseconds per row"] == "not shown"
    assert verdicts(evaluate_criteria(predictions(1.2), LIMITS, 0))["calibration error"] == "not shown"
    # Over one that is as far off it is no worse.
    off = predictions(1.2)
    alike = PairedPredictions(off.labels, off.candidate, off.candidate, off.clusters, off.groups, EVEN)
    assert verdicts(evaluate_criteria(alike, PromotionLimits(calibration=0.15), 0))["calibration error"] == "passed"


def test_a_margin_of_zero_asks_for_a_better_one() -> None:
    assert verdicts(evaluate_criteria(predictions(), PromotionLimits(log_loss=0), 0))["log loss"] == "not shown"
    worse_now = predictions()
    better = PairedPredictions(
        worse_now.labels, worse_now.current, sigmoid(1.2 * np.random.default_rng(2).normal(size=ROWS)),
        worse_now.clusters, worse_now.groups, EVEN,
    )  # fmt: skip
    assert verdicts(evaluate_criteria(better, PromotionLimits(log_loss=0), 0))["log loss"] == "passed"


def test_rows_needed_are_about_enough() -> None:
    one = predictions(0.15 * np.random.default_rng(3).normal(size=ROWS))
    known = evaluate_criteria(one, LIMITS, 0)[0]
    limit = (known.difference + known.bound) / 2
    found = evaluate_criteria(one, PromotionLimits(log_loss=limit), 0)[0]
    assert found.verdict == "not shown"
    # Half as wide a bound takes four times the rows.
    assert found.rows_needed == pytest.approx(4 * ROWS, abs=1)


def test_a_wrong_promotion_is_no_likelier_for_many_criteria() -> None:
    """At the limit by log loss alone, and with subgroups that are tested too: refused all the same."""
    rng, promoted, samples = np.random.default_rng(4), 0, 400
    for seed in range(samples):
        one = predictions(0.567, seed=seed)  # Costs 0.02 nats of the true rates' log loss, as the next lines hold.
        promoted += not {"not shown", "worse"} & set(verdicts(evaluate_criteria(one, LIMITS, 0)).values())
    z = 1.6 * rng.normal(size=200_000) - 0.5
    eta, ours, theirs = sigmoid(z), sigmoid(z + 0.567), sigmoid(z + 0.1 * rng.normal(size=len(z)))
    excess = -(eta * np.log(ours / theirs) + (1 - eta) * (np.log1p(-ours) - np.log1p(-theirs))).mean()
    assert excess >= LIMITS.log_loss
    assert promoted / samples <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / samples)


def part(table: Table, rows: slice, sha256: str = "1" * 64) -> Table:
    return Table(table.schema, table.rows[rows], table.labels[rows], sha256)


def test_training_rows_are_refused_by_table_and_row_by_row(tiny_bundle: Bundle, table: Table) -> None:
    with pytest.raises(DataError, match="20 of 40 rows equal training rows of the current bundle: leave them out"):
        refuse_seen_rows([part(table, slice(40, 80))], {"current": tiny_bundle})
    with pytest.raises(DataError, match="are those that the candidate bundle was trained on"):
        refuse_seen_rows([part(table, slice(80, None), "0" * 64)], {"candidate": tiny_bundle})
    rest = [part(table, slice(80, None))]
    assert refuse_seen_rows(rest, {"candidate": tiny_bundle}) == ()
    forgetful = msgspec.structs.replace(tiny_bundle, training_rows=None)
    assert "does not say what was in its training table" in refuse_seen_rows(rest, {"candidate": forgetful})[0]
    # By ticket and name a passenger is known whose other cells were changed.
    other = dataclasses.replace(rest[0], rows=(msgspec.structs.replace(table.rows[3], fare=1.0), *rest[0].rows))
    with pytest.raises(DataError, match=r"1 of \d+ rows equal training rows"):
        refuse_seen_rows([other], {"candidate": forgetful})


def test_a_refusal_names_its_figures(tiny_bundle: Bundle, table: Table) -> None:
    one = predictions(1.2)
    rows = Table(SCHEMA, table.rows[:ROWS], one.labels, "1" * 64)
    found = decide(rows, one, tiny_bundle, tiny_bundle, LIMITS, (), 0)
    assert not found.promoted
    text = verdict(found)
    assert text.startswith(f"REFUSED: {tiny_bundle.version} over {tiny_bundle.version}. Log loss is shown to be worse")
    assert f"the bound is {found.criteria[0].bound:.4f}" in text
    assert found.caveats == ("of class: rare there are fewer than 50 rows: nothing is shown of them",)
    assert verdict(decide(rows, predictions(), tiny_bundle, tiny_bundle, LIMITS, (), 0)).startswith("PROMOTED")


@pytest.fixture(scope="module")
def pair(tiny_contents: Contents, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A candidate that answers as the current bundle does, and rows that neither saw."""
    folder = tmp_path_factory.mktemp("pair")
    write_bundle(folder / "current", tiny_contents, ORIGIN)
    write_bundle(folder / "next", {**tiny_contents, "README.md": b"# the next\n"}, ORIGIN)
    lines = TITANIC.read_text().splitlines(keepends=True)
    (folder / "rows.csv").write_text("".join([lines[0], *lines[400:700]]))
    return folder / "next", folder / "current", folder / "rows.csv"


def promote(pair: tuple[Path, Path, Path], *flags: object) -> subprocess.CompletedProcess[str]:
    lenient = ("--calibration", 0.49, "--slower", 99, "--rounds", 8)
    return run_here("promote", pair[0], "--over", pair[1], "--data", pair[2], *lenient, *flags)


def test_the_command_decides_and_writes_it_beside_the_candidate(pair: tuple[Path, Path, Path]) -> None:
    done = promote(pair)
    assert done.returncode == 0, done.stderr
    assert "PROMOTED" in done.stdout
    kept = json.loads(promotion_path(pair[0]).read_text())
    assert kept["promoted"]
    # The defaults of the flags are those of the limits.
    assert kept["limits"] == msgspec.to_builtins(PromotionLimits(calibration=0.49, slower=99))
    assert kept["criteria"][0]["difference"] == 0
    assert kept["rows"] == 300
    assert kept["candidate"] != kept["current"]
    # The bundle itself is as it was.
    assert sorted(one.name for one in pair[0].parent.iterdir()) == [
        "current",
        "next",
        "next.promotion.json",
        "rows.csv",
    ]
    refused = promote(pair, "--log-loss", 0, "--out", pair[0].parent / "refused.json")
    assert refused.returncode == 1
    assert "Log loss is not shown to be below 0: the bound is 0.0000" in refused.stdout
    assert not json.loads((pair[0].parent / "refused.json").read_text())["promoted"]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--risk", 0.7), 2, "0.7 must be above 0 and below 0.5"),
        (("--slower", 0.5), 2, "0.5 must be at least 1"),
        (("--rounds", 3), 2, "from 8 to 10000"),
        (("--data", "nowhere.csv"), 1, "there is no file nowhere.csv"),
        (("--data", TITANIC), 1, "60 of 891 rows equal training rows of the candidate bundle"),
    ],
)
def test_what_cannot_be_decided_is_said(
    pair: tuple[Path, Path, Path], flags: tuple[object, ...], code: int, message: str
) -> None:
    done = promote(pair, *flags)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bundle_is_not_promoted_over_itself(pair: tuple[Path, Path, Path]) -> None:
    done = promote((pair[1], pair[1], pair[2]))
    assert done.returncode == 1
    assert "there is nothing to decide" in done.stderr


def test_a_bundle_of_other_classes_is_refused_by_name(tiny_bundle: Bundle, table: Table) -> None:
    turned = msgspec.structs.replace(
        SCHEMA, name="turned", examples=(),
        label=msgspec.structs.replace(SCHEMA.label, classes=SCHEMA.label.classes[::-1]),
    )  # fmt: skip
    with pytest.raises(DataError, match="turned, has the classes survived, died, and the current bundle, tiny, has "):
        read_for_both(TITANIC, msgspec.structs.replace(tiny_bundle, schema=turned), tiny_bundle)
    # Another description of the same classes reads the same rows in its own way.
    wider = msgspec.structs.replace(SCHEMA, fields=SCHEMA.fields[:4], text=("{sex}",), feature=None)
    ours, theirs = read_for_both(TITANIC, msgspec.structs.replace(tiny_bundle, schema=wider), tiny_bundle)
    assert ours.labels.tolist() == theirs.labels.tolist() == table.labels.tolist()
    assert list(map(msgspec.structs.asdict, theirs.rows)) == list(map(msgspec.structs.asdict, table.rows))
    assert len(ours.rows[0].__struct_fields__) == 4
    swapped = msgspec.structs.replace(SCHEMA, examples=(), label=msgspec.structs.replace(SCHEMA.label, classes=tuple(
        msgspec.structs.replace(each, value=value) for each, value in zip(SCHEMA.label.classes, "10", strict=True)
    )))  # fmt: skip
    with pytest.raises(DataError, match="their schemas spell the classes differently"):
        read_for_both(TITANIC, msgspec.structs.replace(tiny_bundle, schema=swapped), tiny_bundle)
