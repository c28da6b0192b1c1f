"""The drift streams, their alarms and their saved state; over the 891 passengers with a made-up model of the sexes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.bundle.manifest import DataRecord
from models.bundle.read import Bundle
from models.calibration.maps import CalibrationMap
from models.calibration.prior_shift import PriorShift
from models.prediction import Prediction
from models.reference import build_reference
from models.rows import Row
from service.drift import report as diagnosis
from service.drift.monitor import BLOCK_ROWS, HISTORY_POINTS, STREAMS, DriftMonitor
from service.drift.recent import FineCounts
from service.drift.saved_state import StateError, StateFile
from tests import churn
from tests.service.predictions import prediction
from tests.titanic import SCHEMA
from training.data.table import Table

Pool = list[tuple[Row, Prediction]]


def probability(passenger: Row) -> float:
    logit = 2.0 * (passenger.sex == "female") - 0.9 * passenger.pclass + 0.6 - 0.01 * (passenger.age or 30)
    return float(1 / (1 + np.exp(-logit)))


@pytest.fixture(scope="module")
def pool(table: Table) -> Pool:
    return [(one, prediction(probability(one), one)) for one in table.rows]


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Bundle, pool: Pool) -> Bundle:
    p = np.array([answer.probability for _, answer in pool])
    reference = build_reference(p, [one for one, _ in pool], SCHEMA)
    return msgspec.structs.replace(tiny_bundle, reference=reference)


def of_two(outcomes: list[tuple[float, bool]]) -> list[tuple[tuple[float, float], int]]:
    """Outcomes of two classes by the positive one's probability, as the monitor takes them."""
    return [((1 - p, p), int(positive)) for p, positive in outcomes]


def totals(drift: DriftMonitor) -> tuple[np.ndarray, np.ndarray]:
    """Recent rows and sums of the positive class's probability, in fine bins."""
    drift.catch_up()
    assert isinstance(drift.recent, FineCounts)
    return drift.recent.totals()


def make(bundle: Bundle, seed: int = 0, run_length: float = 1e7, dead_band: float = 0.05) -> DriftMonitor:
    return DriftMonitor(bundle, run_length, dead_band, np.random.default_rng(seed))


def with_prevalence(bundle: Bundle, p: np.ndarray) -> Bundle:
    """The bundle with as many positive training rows as the probabilities (n,) say."""
    positive = round(p.sum())
    data = DataRecord("0" * 64, len(p), dict(zip(bundle.schema.classes, (len(p) - positive, positive), strict=True)))
    origin = msgspec.structs.replace(bundle.manifest.origin, data=data)
    return msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, origin=origin))


def feed(drift: DriftMonitor, rows: Pool, count: int, seed: int) -> None:
    """``count`` rows drawn from ``rows`` with replacement."""
    chosen = np.random.default_rng(seed).integers(0, len(rows), count)
    drift.predicted([rows[one][1] for one in chosen])
    drift.catch_up()


def third_class_men(pool: Pool) -> Pool:
    return [row for row in pool if row[0].pclass == 3 and row[0].sex == "male"]


def swapped_sexes(pool: Pool) -> Pool:
    """As many men as there were women, and as many women as there were men."""
    men, women = ([row for row in pool if row[0].sex == sex] for sex in ("male", "female"))
    rng = np.random.default_rng(9)
    return [men[one] for one in rng.integers(0, len(men), 20 * len(women))] + [
        women[one] for one in rng.integers(0, len(women), 20 * len(men))
    ]


def other_currency(pool: Pool) -> Pool:
    fares = [None if one.fare is None else min(1000.0, 4 * one.fare) for one, _ in pool]
    passengers = [msgspec.structs.replace(one, fare=fare) for (one, _), fare in zip(pool, fares, strict=True)]
    return [(one, prediction(answer.probability, one)) for one, (_, answer) in zip(passengers, pool, strict=True)]


@pytest.mark.parametrize(
    ("change", "within", "field"),
    [
        (third_class_men, 100, {"pclass", "sex"}),
        (swapped_sexes, 300, {"sex"}),
        (other_currency, 500, {"fare"}),
    ],
)
def test_a_change_is_seen_soon(
    bundle: Bundle, pool: Pool, change: Callable[[Pool], Pool], within: int, field: set[str]
) -> None:
    at, fields = [], set()
    for seed in range(7):
        drift = make(bundle, seed)
        feed(drift, change(pool), 2 * within, seed + 100)
        at.append(min((latch.at for latch in drift.alarms.values()), default=10**9))
        fields |= {latch.field for stream, latch in drift.alarms.items() if stream == "input"}
    assert np.median(at) <= within
    assert fields <= field


def test_rows_like_the_reference_raise_no_alarm(bundle: Bundle, pool: Pool) -> None:
    drift = make(bundle)
    feed(drift, pool, 20_000, seed=1)
    assert not drift.alarms
    assert drift.seen == {"prediction": 20_000, "input": 20_000, "calibration": 0}


@pytest.mark.slow
def test_a_million_rows_like_the_reference_raise_no_alarm(bundle: Bundle, pool: Pool) -> None:
    drift = make(bundle, seed=1)
    for seed in range(100):
        feed(drift, pool, 10_000, seed)
    assert not drift.alarms


def test_an_alarm_stays_until_it_is_acknowledged(bundle: Bundle, pool: Pool) -> None:
    drift = make(bundle)
    feed(drift, third_class_men(pool), 200, seed=2)
    first = dict(drift.alarms)
    assert set(first) == {"prediction", "input"}
    feed(drift, pool, 2000, seed=3)
    assert drift.alarms == first
    drift.acknowledge("input")
    assert set(drift.alarms) == {"prediction"}
    assert drift.log_evidence("input") == 0 < drift.log_evidence("prediction")


def test_a_test_begins_again_from_the_reference_or_from_the_recent_rows(bundle: Bundle, pool: Pool) -> None:
    men = third_class_men(pool)
    again = {}
    for begin in ("reference", "recent"):
        drift = make(bundle)
        # So many that what came before the change is no longer recent.
        feed(drift, pool, 1000, seed=4)
        for seed in range(12):
            feed(drift, men, 1000, seed)
        for stream in STREAMS:
            drift.acknowledge(stream, begin)
        feed(drift, men, 5000, seed=5)
        again[begin] = dict(drift.alarms)
    assert again["reference"]["input"].at < 13_100
    assert not again["recent"]


def test_how_predictions_are_cut_into_requests_changes_nothing(bundle: Bundle, pool: Pool) -> None:
    one, many = make(bundle), make(bundle)
    one.predicted([answer for _, answer in pool])
    for _, answer in pool:
        many.predicted([answer])
    assert one.snapshot() == many.snapshot()


def test_outcomes_that_contradict_the_probabilities_raise_an_alarm(bundle: Bundle) -> None:
    rng, drift, true = np.random.default_rng(6), make(bundle), make(bundle)
    p = rng.uniform(0.05, 0.95, 3000)
    true.outcomes(of_two(list(zip(p.tolist(), (rng.random(3000) < p).tolist(), strict=True))))
    drift.outcomes(of_two(list(zip(p.tolist(), (rng.random(3000) < np.clip(p + 0.25, 0, 1)).tolist(), strict=True))))
    assert not true.alarms
    assert drift.alarms["calibration"].at < 600
    assert drift.seen["calibration"] == 3000
    assert diagnosis.report(drift).causes[2].found is True
    drift.acknowledge("calibration")
    assert not drift.alarms


def test_a_restart_goes_on_exactly(bundle: Bundle, pool: Pool) -> None:
    drift, twin = make(bundle, seed=1), make(bundle, seed=2)
    feed(drift, third_class_men(pool), 777, seed=7)
    drift.outcomes(of_two([(0.3, True), (0.8, False)]))
    twin.restore(drift.snapshot())
    for one in (drift, twin):
        feed(one, pool, 500, seed=8)
        one.outcomes(of_two([(0.5, True)]))
    assert twin.snapshot() == drift.snapshot()
    assert [twin.log_evidence(stream) for stream in STREAMS] == [drift.log_evidence(stream) for stream in STREAMS]


def test_a_state_that_is_not_ours_is_refused_and_nothing_taken_over(bundle: Bundle, pool: Pool) -> None:
    drift = make(bundle)
    feed(drift, pool, 100, seed=9)
    good = drift.snapshot()
    fresh, before = make(bundle, seed=3), make(bundle, seed=3).snapshot()
    broken: list[dict[str, Any]] = [
        {"version": "ffffffffffff"}, {"format": 2}, {"sums": [[1.0]]}, {"sums": "x"}, {"marks": [["a"]]},
        {"generator": {}}, {"seen": {"prediction": 3}}, {"unknown": 1}, {"calibration_sums": [[-1.0] * 5] * 6},
        {"alarms": {"other": {"since": 1.0, "at": 1}}},
    ]  # fmt: skip
    contents = [msgspec.json.encode({**msgspec.json.decode(good), **one}) for one in broken]
    for content in (b"", b"{", b"null", b"\xff" * 50, good[:-5], *contents):
        with pytest.raises(StateError):
            fresh.restore(content)
        assert fresh.snapshot() == before


def test_another_dead_band_begins_the_calibration_test_again(bundle: Bundle) -> None:
    drift, other = make(bundle), make(bundle, dead_band=0.1)
    drift.outcomes(of_two([(0.1, True)] * 50))
    other.restore(drift.snapshot())
    assert "calibration" in drift.alarms
    assert not other.alarms
    assert other.log_evidence("calibration") == 0
    assert other.seen["calibration"] == 50


def test_probabilities_are_compared_as_they_are_before_a_prior_shift(bundle: Bundle, pool: Pool) -> None:
    mean = float(np.mean([answer.probability for _, answer in pool]))
    shift = PriorShift(training=mean, target=0.05)
    record = msgspec.structs.replace(bundle.record, map=CalibrationMap((shift,)))
    drift = make(msgspec.structs.replace(bundle, record=record))
    shifted = [
        (one, prediction(float(shift.probabilities(np.array(answer.probability))), one, answer.probability))
        for one, answer in pool
    ]
    feed(drift, shifted, 3000, seed=10)
    assert not drift.alarms
    estimates = diagnosis.report(drift).estimates
    assert estimates is not None
    assert estimates.expected_prevalence.value < 0.1
    assert estimates.prior_shift_prevalence.value == pytest.approx(mean, abs=0.05)
    assert estimates.baseline_prevalence == 0.05


def test_lately_is_one_to_two_blocks(bundle: Bundle, pool: Pool) -> None:
    drift = make(bundle)
    for seed in range(25):
        feed(drift, pool, 1000, seed)
        counts, (rows, sums) = drift.recent_counts(), totals(drift)
        seen = 1000 * (seed + 1)
        assert rows.sum() == counts[0].sum() == counts[3].sum() == min(seen, BLOCK_ROWS + seen % BLOCK_ROWS)
        assert 0 < sums.sum() < rows.sum()
    drift.acknowledge("input")
    feed(drift, pool, 50, 99)
    assert [row.sum() for row in drift.recent_counts()[1:]] == [50] * 10


def base_rate(pool: Pool, prevalence: float) -> Pool:
    """Rows weighted as if another share of them survived, each as its probability says."""
    p = np.array([answer.probability for _, answer in pool])
    weights = prevalence / p.mean() * p + (1 - prevalence) / (1 - p.mean()) * (1 - p)
    return [pool[one] for one in np.random.default_rng(11).choice(len(pool), 50_000, p=weights / weights.sum())]


def test_the_course_of_the_evidence_is_bounded_and_loses_no_peak(bundle: Bundle, pool: Pool) -> None:
    drift = make(bundle)
    feed(drift, third_class_men(pool), 300, seed=13)
    feed(drift, pool, 20_000, seed=14)
    trace = drift.histories["input"].points
    rows, values = zip(*trace, strict=True)
    assert HISTORY_POINTS // 2 <= len(trace) <= HISTORY_POINTS
    assert list(rows) == sorted(rows)
    assert rows[-1] == 20_300
    assert values[-1] >= drift.evidence["input"]
    # The alarm was early, and is there still.
    assert max(values) >= drift.run_length
    history = diagnosis.report(drift).streams[1].history
    assert max(value for _, value in history) >= drift.threshold - 1e-3


def test_outcomes_are_kept_by_tenth_also_over_a_restart(bundle: Bundle) -> None:
    drift, twin, old = make(bundle), make(bundle), make(bundle)
    drift.outcomes(of_two([(0.31, True), (0.39, False), (0.35, True), (0.9, True)]))
    content = drift.snapshot()
    twin.restore(content)
    for one in (drift, twin):
        found = {tenth.bin: tenth for tenth in diagnosis.report(one).reliability if tenth.outcomes}
        assert (found["0.3-0.4"].outcomes, found["0.3-0.4"].positive) == (3, 2)
        assert found["0.3-0.4"].probability == pytest.approx(0.35)
        assert list(found) == ["0.3-0.4", "0.9-1.0"]
    # The state of a service that did not keep them is taken up all the same.
    state = json.loads(content)
    del state["outcome_tenths"]
    old.restore(json.dumps(state).encode())
    assert old.seen["calibration"] == 4
    assert all(tenth.probability is None for tenth in diagnosis.report(old).reliability)


def test_three_causes_are_told_apart(bundle: Bundle, pool: Pool) -> None:
    p = np.array([answer.probability for _, answer in pool])
    true = with_prevalence(bundle, p)

    def causes(rows: Pool) -> tuple[bool | None, ...]:
        drift = make(true)
        feed(drift, rows, 4000, seed=12)
        return tuple(one.found for one in diagnosis.report(drift).causes)

    assert causes(pool) == (False, False, None)
    assert causes(base_rate(pool, p.mean() + 0.25))[1:] == (True, None)
    assert causes(third_class_men(pool)) == (True, False, None)
    assert [one.found for one in diagnosis.report(make(true)).causes] == [None, None, None]


def test_a_state_file_is_whole_and_held_by_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = StateFile(tmp_path / "state", "v"), StateFile(tmp_path / "state", "v")
    assert first.open()
    assert first.read() is None
    assert not second.open()
    assert "another process" in caplog.text
    first.write(b"1")
    first.write(b"22")
    assert first.read() == b"22"
    first.set_aside("broken")
    assert (tmp_path / "state" / "drift-v.unusable").read_bytes() == b"22"
    first.close()
    assert second.open()
    second.close()
    (tmp_path / "file").write_bytes(b"")
    assert not StateFile(tmp_path / "file" / "state", "v").open()
    assert "is not kept" in caplog.text


def test_a_field_of_another_schema_alarms_by_its_name(churn_bundle: Bundle) -> None:
    drift = make(churn_bundle)
    moved = [msgspec.structs.replace(row, city=churn.CITIES[-1]) for row in churn.customers(600)]
    drift.predicted([prediction(0.4, row, schema=churn.SCHEMA) for row in moved])
    drift.catch_up()
    assert drift.alarms["input"].field == "city"


def test_the_state_of_another_schema_is_dropped_and_not_misread(bundle: Bundle, churn_bundle: Bundle) -> None:
    drift = make(churn_bundle)
    before, other = drift.snapshot(), json.loads(make(bundle).snapshot())
    # Another schema is another version; even were it not, nothing would be taken for what it is not.
    for version in (bundle.version, churn_bundle.version):
        with pytest.raises(StateError):
            drift.restore(json.dumps(other | {"version": version}).encode())
        assert drift.snapshot() == before
