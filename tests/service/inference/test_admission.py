"""What is let in, by what batches took lately."""

import pytest

from service.inference.admission import EWMA_ALPHA, OUTLIER_FACTOR, Admission

TIMEOUT = 10.0


def after(batches: list[tuple[int, float]], deliveries: list[float]) -> Admission:
    admission = Admission(4096, 64)
    for rows, seconds in batches:
        admission.computed(rows, seconds)
    for seconds in deliveries:
        admission.delivered(seconds)
    return admission


def test_batches_weigh_less_the_longer_ago_they_were() -> None:
    admission = after([(10, 0.1), (10, 0.2)], [])
    assert admission.seconds_per_row == pytest.approx(0.9 * 0.01 + 0.1 * 0.02)


@pytest.mark.parametrize("suspended", [3.0, 8 * 3600.0])
def test_a_batch_or_delivery_during_which_the_process_was_suspended_refuses_nobody(suspended: float) -> None:
    usual = [(4, 0.004)] * 50
    admission = after([*usual, (1, suspended)], [0.001] * 50 + [suspended])
    assert admission.seconds_per_row <= 0.001 * (1 + EWMA_ALPHA * OUTLIER_FACTOR)
    assert admission.refusal(300, 300, 300, TIMEOUT) is None


def test_what_is_slower_from_now_on_is_known_after_a_few_batches() -> None:
    admission = after([(4, 0.004)] * 50 + [(4, 0.4)] * 10, [])
    assert admission.seconds_per_row > 0.5 * 0.1
    assert admission.refusal(300, 300, 300, TIMEOUT) is not None


def test_alone_a_request_is_let_in_however_long_it_takes() -> None:
    assert after([(1, 100.0)], [100.0]).refusal(1, 0, 0, TIMEOUT) is None


def test_among_many_rows_of_the_cache_the_few_others_count() -> None:
    hit, miss = 0.00005, 0.003
    admission, lately = Admission(4096, 64), []
    for _ in range(50):
        for seconds in [hit] * 19 + [miss]:
            admission.computed(1, seconds)
            lately.append(admission.seconds_per_row)
    assert sum(lately[-400:]) / 400 == pytest.approx((19 * hit + miss) / 20, rel=0.1)


def test_who_comes_after_into_the_same_batch_is_waited_for_too() -> None:
    admission = after([(10, 0.1)] * 50, [])
    # 300 rows before it, its own 10, and 64 of those behind: 3.74 s, for which it must have half as much again.
    assert admission.refusal(10, 300, 300, 5.62) is None
    refusal = admission.refusal(10, 300, 300, 5.6)
    assert refusal is not None
    assert refusal.retry_after_seconds == 1
    work, before = admission.seconds_of(10, 5.62)
    assert (work, before) == pytest.approx((0.1, 5.62 / 1.5 - 0.1 - 0.64))
    # Behind few there are few: of 20 before it 20 more.
    assert admission.refusal(10, 20, 20, 0.76) is None
    assert admission.refusal(10, 20, 20, 0.74) is not None
    assert admission.seconds_of(10, 0.76)[1] == pytest.approx((0.76 / 1.5 - 0.1) / 2)
