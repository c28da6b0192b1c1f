"""The drift report in words and numbers, each told from its own counts, rates and estimates."""

import re
import time
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from models.bundle.read import Bundle
from models.calibration.maps import CalibrationMap
from models.calibration.prior_shift import PriorShift
from models.reference import PROBABILITY_BINS, build_reference
from service.drift import report as diagnosis
from service.drift.label_free import expected_accuracy, expected_prevalence, shifted_prevalence, stability_index
from service.drift.monitor import STREAMS, DriftMonitor
from service.drift.report import DriftReport
from tests import churn
from tests.service.drift.test_monitor import (
    Pool,
    base_rate,
    feed,
    make,
    of_two,
    probability,
    third_class_men,
    totals,
    with_prevalence,
)
from tests.service.predictions import prediction
from tests.titanic import SCHEMA
from training.data.table import Table


@pytest.fixture(scope="module")
def pool(table: Table) -> Pool:
    return [(one, prediction(probability(one), one)) for one in table.rows]


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Bundle, pool: Pool) -> Bundle:
    """Made on the passengers, of whom as many survived as the probabilities say."""
    p = np.array([answer.probability for _, answer in pool])
    reference = build_reference(p, [one for one, _ in pool], SCHEMA)
    return with_prevalence(msgspec.structs.replace(tiny_bundle, reference=reference), p)


class Clock:
    """Stands still unless it is told otherwise."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def evidence(report: DriftReport) -> dict[str, str]:
    return {one.cause: one.evidence for one in report.causes}


def test_before_anything_came_in(bundle: Bundle) -> None:
    drift = make(bundle)
    report = diagnosis.report(drift)
    assert (report.version, report.run_length, report.summary) == (bundle.version, 1e7, "no drift test alarms")
    assert report.positive == "survived"
    assert [one.stream for one in report.streams] == list(STREAMS)
    for stream, noun in zip(report.streams, ("prediction", "prediction", "outcome"), strict=True):
        assert stream.summary == f"no alarm in 0 {noun}s; no traffic yet"
        assert (stream.alarm, stream.since, stream.at, stream.field) == (False, None, None, None)
        assert (stream.log_evidence, stream.seen, stream.days_to_false_alarm, stream.history) == (0, 0, None, [])
        assert stream.threshold == pytest.approx(np.log(1e7 + 1))
    assert evidence(report) == {
        "mix": "nothing was predicted yet", "base_rate": "fewer than 100 recent predictions",
        "calibration": "no outcomes have come in, and nothing else can tell",
    }  # fmt: skip
    assert report.estimates is None
    for variable in report.distributions:
        assert (variable.rows, variable.reference_rows, variable.stability_index) == (0, 891, 0)
        assert all(one.live == 0 for one in variable.bins)
        assert sum(one.reference for one in variable.bins) == pytest.approx(1)
    assert [(one.outcomes, one.positive, one.probability) for one in report.reliability] == [(0, 0, None)] * 10


def test_the_price_of_the_alarm_is_told_at_the_rate_seen(bundle: Bundle, pool: Pool, clock: Clock) -> None:
    drift, rare = make(bundle), make(bundle, run_length=1e9)
    for one in (drift, rare):
        feed(one, pool, 100, seed=1)
        one.outcomes(of_two([(0.5, True), (0.4, False)]))
    clock.now += 10
    told, slow = diagnosis.report(drift).streams, diagnosis.report(rare).streams
    assert (
        told[0].summary
        == "no alarm in 100 predictions; one false alarm in about 11.6 days at the 10 predictions/s seen"
    )
    assert told[2].summary == "no alarm in 2 outcomes; one false alarm in about 1.6 years at the 0.2 outcomes/s seen"
    assert (
        slow[1].summary
        == "no alarm in 100 predictions; one false alarm in about 3.2 years at the 10 predictions/s seen"
    )
    assert told[1].days_to_false_alarm == pytest.approx(1e7 / 10 / 86400)
    twin = make(bundle)
    twin.restore(drift.snapshot())
    # What was seen before the process started is no traffic of its own.
    assert diagnosis.report(twin).streams[0].summary == "no alarm in 100 predictions; no traffic yet"


def test_a_moved_mix_is_told_with_the_fields_that_are_farthest(bundle: Bundle, pool: Pool) -> None:
    drift = make(bundle)
    begun = datetime.now(UTC).replace(microsecond=0)
    feed(drift, third_class_men(pool), 300, seed=2)
    report = diagnosis.report(drift)
    first, second, third = report.streams
    assert np.log1p(drift.field_evidence().max()) == pytest.approx(second.log_evidence)
    assert drift.field_evidence().shape == (len(SCHEMA.fields),)
    assert first.summary.startswith(f"alarm since prediction {first.at} at {first.since}; one false alarm in about ")
    for stream in (first, second):
        assert stream.alarm
        assert stream.since is not None
        assert begun <= datetime.fromisoformat(stream.since) <= datetime.now(UTC)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", stream.since)
        assert stream.history[-1][0] == stream.seen == 300
        assert max(value for _, value in stream.history) >= stream.threshold - 1e-3
        assert all(value == round(value, 3) for _, value in stream.history)
        assert any(value % 1 for _, value in stream.history)
    assert (third.alarm, first.field, second.field in {"sex", "pclass"}) == (False, None, True)
    far = sorted(report.distributions, key=lambda one: one.stability_index - one.expected_stability_index)[:-4:-1]
    shown = ", ".join(
        f"{one.variable} (index {one.stability_index:.3f}, {one.expected_stability_index:.3f} expected)" for one in far
    )
    assert evidence(report)["mix"] == (
        f"the prediction test alarmed at prediction {first.at}; the input test alarmed at prediction {second.at}, "
        f"{second.field} most of all. Farthest from the reference lately: {shown}"
    )
    assert report.summary == (
        "the mix of passengers moved; estimates without outcomes are right only while calibration holds"
    )
    drift.acknowledge("input")
    assert evidence(diagnosis.report(drift))["mix"].startswith(
        f"the prediction test alarmed at prediction {first.at}. "
    )
    drift.acknowledge("prediction")
    assert evidence(diagnosis.report(drift))["mix"] == "neither inputs nor predictions have departed from the reference"


def test_distributions_are_those_of_what_came(bundle: Bundle, pool: Pool) -> None:
    drift, men = make(bundle), third_class_men(pool)
    drift.predicted([answer for _, answer in men])
    report = diagnosis.report(drift)
    assert [one.variable for one in report.distributions] == ["probability", *(field.name for field in SCHEMA.fields)]
    assert [one.bin for one in report.distributions[0].bins] == list(PROBABILITY_BINS)
    tenths = np.array([int(answer.probability * 10) for _, answer in men])
    for place, one in enumerate(report.distributions[0].bins):
        assert one.live == pytest.approx((tenths == place).mean())
        assert one.reference == pytest.approx(bundle.reference.probability_counts[place] / 891)
    for variable, bins in zip(report.distributions[1:], SCHEMA.input_bins, strict=True):
        assert (variable.rows, variable.reference_rows) == (len(men), 891)
        assert [one.bin for one in variable.bins] == list(bins.names)
        assert sum(one.live for one in variable.bins) == pytest.approx(1)
    live = np.array([one.live for one in report.distributions[0].bins]) * len(men)
    found = (report.distributions[0].stability_index, report.distributions[0].expected_stability_index)
    assert found == pytest.approx(stability_index(live, np.array(bundle.reference.probability_counts)))


def test_estimates_wait_for_a_hundred_rows_and_are_those_of_the_rows(bundle: Bundle, pool: Pool) -> None:
    drift = make(bundle)
    feed(drift, pool, 99, seed=3)
    assert diagnosis.report(drift).estimates is None
    feed(drift, pool, 1, seed=4)
    told = diagnosis.report(drift).estimates
    assert told is not None
    counts, sums = totals(drift)
    assert told.rows == 100
    assert told.expected_accuracy == expected_accuracy(counts, sums)
    assert told.expected_prevalence == expected_prevalence(counts, sums)
    assert told.prior_shift_prevalence == shifted_prevalence(counts, sums, drift.training_prevalence)
    survived = bundle.manifest.origin.data.classes["survived"]
    assert told.baseline_prevalence == drift.training_prevalence == survived / 891


def test_a_base_rate_is_told_with_what_would_serve_for_it(bundle: Bundle, pool: Pool) -> None:
    p = np.mean([answer.probability for _, answer in pool])
    drift = make(bundle)
    feed(drift, base_rate(pool, float(p) + 0.25), 4000, seed=12)
    report = diagnosis.report(drift)
    assert report.estimates is not None
    live, fit = report.estimates.prior_shift_prevalence, report.estimates.prior_shift_fit
    low, high = live.interval
    told = f"estimated share of survived {live.value:.3f} ({low:.3f}–{high:.3f}), served for {p:.3f}"
    assert evidence(report)["base_rate"] == (
        f"{told}, and that explains the probabilities (p = {fit:.2g}), if passengers of either class look as they did; "
        f"--target-prevalence {live.value:.2f} would serve for it"
    )
    assert report.summary.startswith("the mix of passengers moved and the base rate moved; estimates")
    for stream in STREAMS:
        drift.acknowledge(stream, "recent")
    feed(drift, base_rate(pool, float(p) + 0.25), 200, seed=13)
    assert diagnosis.report(drift).summary == (
        "no drift test alarms, though without an alarm it seems that the base rate moved"
    )
    drift.outcomes(of_two([(0.9, False)] * 60))
    broken = diagnosis.report(drift)
    assert broken.causes[1].found is None
    assert evidence(broken)["base_rate"].endswith(", but from probabilities that the outcomes contradict")
    at = broken.streams[2].at
    assert evidence(broken)["calibration"] == (
        f"outcome {at} made it: rates are more than 0.05 away from the probabilities"
    )
    assert broken.summary == "the calibration broke"


def test_a_mix_that_no_base_rate_explains_and_one_that_is_as_it_was(bundle: Bundle, pool: Pool) -> None:
    men, same = make(bundle), make(bundle)
    feed(men, third_class_men(pool), 500, seed=5)
    feed(same, pool, 1000, seed=6)
    told = evidence(diagnosis.report(men))["base_rate"]
    assert re.search(r", served for 0\.\d{3}, but no base rate explains the probabilities \(p = [\d.e-]+\)$", told)
    assert re.fullmatch(
        r"estimated share of survived 0\.\d{3} \(0\.\d{3}–0\.\d{3}\), served for 0\.\d{3}",
        evidence(diagnosis.report(same))["base_rate"],
    )


def test_outcomes_that_agree_are_counted(bundle: Bundle) -> None:
    drift: DriftMonitor = make(bundle, dead_band=0.1)
    drift.outcomes(of_two([(0.05, False), (0.15, True), (0.15, False), (1 - 1e-12, True)]))
    report = diagnosis.report(drift)
    assert evidence(report)["calibration"] == "4 outcomes do not contradict a calibration within ±0.1"
    assert report.causes[2].found is False
    found = {one.bin: (one.outcomes, one.positive) for one in report.reliability if one.outcomes}
    assert found == {"0.0-0.1": (1, 0), "0.1-0.2": (2, 1), "0.9-1.0": (1, 1)}


def test_what_a_snapshot_lacks_is_known(bundle: Bundle, pool: Pool) -> None:
    drift = make(bundle)
    assert drift.changed is False
    for change in (
        lambda: drift.outcomes(of_two([(0.5, True)])), lambda: feed(drift, pool, 3, seed=1),
        lambda: drift.acknowledge("input"), lambda: drift.acknowledge("calibration"),
    ):  # fmt: skip
        change()
        assert drift.changed is True
        drift.snapshot()
        assert drift.changed is False


def test_alarms_of_all_streams_outlive_a_restart_for_another_population(bundle: Bundle, pool: Pool) -> None:
    shift = PriorShift(training=0.384, target=0.3)
    record = msgspec.structs.replace(bundle.record, map=CalibrationMap((shift,)))
    shifted = msgspec.structs.replace(bundle, record=record)
    drift, twin = make(shifted), make(shifted, seed=5)
    feed(drift, third_class_men(pool), 300, seed=7)
    drift.outcomes(of_two([(0.9, False)] * 60))
    assert set(drift.alarms) == set(STREAMS)
    twin.restore(drift.snapshot())
    assert twin.alarms == drift.alarms
    assert [twin.log_evidence(one) for one in STREAMS] == [drift.log_evidence(one) for one in STREAMS]
    assert twin.log_evidence("calibration") > twin.threshold


def test_variables_and_words_are_the_schemas(churn_bundle: Bundle) -> None:
    drift, rows = make(churn_bundle), churn.customers(400)
    drift.predicted([prediction(0.3, row, schema=churn.SCHEMA) for row in rows])
    drift.outcomes(of_two([(0.3, True), (0.3, False), (0.3, False)]))
    report = diagnosis.report(drift)
    # A field may be called as the variable of the predictions is.
    names = [one.variable for one in report.distributions]
    assert names == ["probability", "city", "plan", "senior", "tenure", "bill", "probability", "note"]
    shown = {one.variable: {bin.bin: bin.live for bin in one.bins} for one in report.distributions}
    assert list(shown["city"])[-2:] == ["other", "unknown"]
    assert shown["city"]["other"] == pytest.approx(np.mean([churn.CITIES.index(row.city) >= 50 for row in rows]))
    assert shown["senior"]["true"] == pytest.approx(np.mean([row.senior is True for row in rows]))
    assert list(shown["note"]) == ["known", "unknown"]
    assert report.positive == "leaves"
    assert {one.bin: (one.outcomes, one.positive) for one in report.reliability if one.outcomes} == {"0.3-0.4": (3, 1)}
    drift.predicted([prediction(0.95, row, schema=churn.SCHEMA) for row in churn.customers(1000, 1)])
    assert evidence(diagnosis.report(drift))["base_rate"].startswith("estimated share of leaves ")
    assert diagnosis.report(drift).summary.startswith("the mix of customers moved")
