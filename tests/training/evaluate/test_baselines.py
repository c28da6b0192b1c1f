"""Baselines see no label of the rows they are evaluated on; the paired differences are what they say."""

import numpy as np
import pytest

from models.features.titanic import NO_COMPANIONS, Companions
from models.passenger import Passenger
from models.text import render
from training.calibrate.maps import log_losses
from training.data.table import Table, fold_companions
from training.evaluate.baselines import BASELINES, compare_baselines, held_out_probabilities
from training.evaluate.subgroups import SUBGROUPS, members, score_subgroups, subgroups
from training.fit.crossfit import make_folds


def test_no_label_of_a_fold_reaches_its_baselines(table: Table) -> None:
    folds = make_folds(table.labels, 5, 0)

    def probabilities(labels: np.ndarray) -> dict[str, np.ndarray]:
        companions = fold_companions(table.passengers, labels, folds)
        return held_out_probabilities(table.passengers, labels, folds, companions, 0)

    found = probabilities(table.labels)
    assert list(found) == list(BASELINES)
    changed = np.where(folds == 2, 1 - table.labels, table.labels)
    again = probabilities(changed)
    for name in BASELINES:
        assert np.array_equal(found[name][folds == 2], again[name][folds == 2]), name
        assert not np.array_equal(found[name][folds != 2], again[name][folds != 2]), name
        # Better than the base rate's .666 by far, and not so good that a label must have leaked.
        assert 0.36 < log_losses(found[name], table.labels).mean() < 0.48, name


def test_differences_are_paired_and_signed_ours_minus_theirs(table: Table) -> None:
    y = table.labels
    groups = members(table.passengers, [NO_COMPANIONS] * len(table))
    good, poor = np.where(y == 1, 0.8, 0.2), np.where(y == 1, 0.6, 0.4)
    baseline = compare_baselines(poor, dict.fromkeys(BASELINES, good), y, groups)["gradient_boosting"]
    assert baseline.log_loss_difference.value == pytest.approx(np.log(0.8 / 0.6))
    assert baseline.log_loss_difference.standard_error == pytest.approx(0, abs=1e-12)
    assert set(baseline.log_loss_difference_by_subgroup) == {group for _, group in groups}


def test_peers_do_without_what_is_unknown() -> None:
    people = tuple(Passenger(pclass=1 + i % 3, sex=("male", "female")[i % 2]) for i in range(60))
    labels = np.arange(60) // 7 % 2
    for name, p in held_out_probabilities(people, labels, np.arange(60) % 2, [NO_COMPANIONS] * 2, 0).items():
        assert ((p > 0) & (p < 1)).all(), name


def test_every_passenger_is_in_one_group_of_each_attribute(table: Table) -> None:
    known = Companions.of(table.passengers, table.labels.tolist())
    groups = members(table.passengers, [known] * len(table))
    for attribute, names in SUBGROUPS.items():
        rows = np.concatenate([groups[attribute, name] for name in names])
        assert sorted(rows.tolist()) == list(range(len(table)))
    ages = {12.9: "under 13", 13: "13 to 24", 25: "25 to 34", 49.5: "35 to 49", 50: "50 and over", None: "age unknown"}
    for age, band in ages.items():
        assert subgroups(Passenger(pclass=2, sex="male", age=age)) == {
            "sex": "male",
            "class": "second class",
            "age": band,
            "party": "companions unknown",
        }
    known_rows = [i for i, one in enumerate(table.passengers) if render(one, known) != render(one)]
    assert groups["party", "companions known"].tolist() == known_rows


def test_subgroups_count_and_see_a_group_that_is_wrong(table: Table) -> None:
    female = np.array([one.sex == "female" for one in table.passengers])
    rates = np.where(female, table.labels[female].mean(), table.labels[~female].mean())
    wrong = np.where(female, rates - 0.2, rates)
    groups = members(table.passengers, [NO_COMPANIONS] * len(table))
    found = {one.group: one for one in score_subgroups(groups, table.labels, rates, wrong, np.random.default_rng(0))}
    assert found["female"].rows == 314
    assert found["female"].observed.value == pytest.approx(233 / 314)
    assert found["female"].calibrated.excess.value == pytest.approx(0, abs=1e-12)
    assert found["female"].raw.excess.value == pytest.approx(0.2)
    assert found["female"].raw.excess_p < 1e-6 < found["male"].raw.excess_p
    assert found["female"].raw.calibration_error.p_value < 0.01
    assert found["first class"].calibrated.excess_p < 0.05
