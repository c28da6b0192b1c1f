"""Arrivals that depend on the clock alone, and a ramp that finds the knee of a service it does not know."""

import random

import pytest

from loadtest.traffic.scenarios import BATCH_SIZES, SCENARIOS, Ramp, arrivals, parse_sizes, parse_weights


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    due = list(arrivals(lambda _: 100.0, 200, random.Random(1)))
    assert len(due) == pytest.approx(20_000, rel=0.03)
    counts = [0] * 200
    for one in due:
        counts[int(one)] += 1
    mean = sum(counts) / 200
    variance = sum((count - mean) ** 2 for count in counts) / 199
    assert variance / mean == pytest.approx(1.0, abs=0.35)


def test_constant_arrivals_are_evenly_spaced_and_follow_the_course() -> None:
    due = list(arrivals(lambda second: 10.0 if second < 5 else 20.0, 10, random.Random(1), poisson=False))
    assert len([one for one in due if one < 5]) == pytest.approx(50, abs=1)
    assert len([one for one in due if one >= 5]) == pytest.approx(100, abs=2)
    spike = SCENARIOS["spike"].course
    assert [spike(share) for share in (0.1, 0.45, 0.6)] == [1, 6, 1]


def test_batches_are_from_one_to_the_most_that_the_service_takes() -> None:
    assert sum(BATCH_SIZES.values()) == 100
    assert (min(BATCH_SIZES), max(BATCH_SIZES)) == (1, 1024)


@pytest.mark.parametrize("capacity", [30.0, 400.0])
def test_a_ramp_finds_the_knee_within_its_step_and_then_tries_other_rates(capacity: float) -> None:
    ramp, tried, step = Ramp(8.0), [], Ramp(8.0).first
    while step is not None:
        tried.append(step)
        share = min(1.0, capacity / step.rate)
        step = ramp.next(step, share, 10.0 if share == 1 else 500.0)
    assert ramp.knee is not None
    assert capacity / Ramp.FACTOR <= ramp.knee <= capacity
    unseen = [one for one in tried if not one.fitted]
    assert [one.rate / ramp.knee for one in unseen] == pytest.approx(list(Ramp.UNSEEN))
    assert not {one.rate for one in unseen} & {one.rate for one in tried if one.fitted}
    assert [one.rate for one in tried if one.fitted][-1] > 2 * capacity / Ramp.FACTOR


def test_a_ramp_ends_where_latency_tells_before_throughput_does() -> None:
    ramp = Ramp(10.0)
    assert ramp.next(ramp.first, 1.0, 5.0) is not None
    # A bad moment is tried again, and only a second one is the knee.
    assert ramp.next(ramp.first, 1.0, 100.0) == ramp.first
    assert ramp.knee is None
    following = ramp.next(ramp.first, 1.0, 100.0)
    assert ramp.knee == pytest.approx(10.0 / Ramp.FACTOR)
    assert following is not None
    assert following.rate == pytest.approx(Ramp.PAST * ramp.knee)


def test_a_mix_of_ones_own() -> None:
    assert parse_weights("predict=9, batch") == {"predict": 9, "batch": 1}
    assert parse_sizes("8,1024") == {8: 1, 1024: 1}
    with pytest.raises(ValueError, match="'bach=1' is no kind"):
        parse_weights("predict=9,bach=1")
    with pytest.raises(ValueError, match="'1025' is no number of rows"):
        parse_sizes("1025")
