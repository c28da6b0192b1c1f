"""What is let in, by what batches took lately."""

import pytest

from service.inference.admission import EWMA_ALPHA, OUTLIER_FACTOR, Admission

TIMEOUT = 10.0


def after(batches: list[tuple[int, float]], deliveries: list[float]) -> Admission:
    admission = Admission(4096)
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
    admission, lately = Admission(4096), []
    for _ in range(50):
        for seconds in [hit] * 19 + [miss]:
            admission.computed(1, seconds)
            lately.append(admission.seconds_per_row)
    assert sum(lately[-400:]) / 400 == pytest.approx((19 * hit + miss) / 20, rel=0.1)
