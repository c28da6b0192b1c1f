"""Broken for one group, for all, or not at all: simulated outcomes, and the rate of false verdicts."""

from collections import Counter

import numpy as np
import pytest

from service.reliability.groups import GroupCounts, GroupState
from service.reliability.recent_bins import RecentBins
from service.reliability.report import reliability_report
from tests.titanic import SCHEMA

FIELDS = [field.name for field in SCHEMA.fields]
SIZES = [len(bins.names) for bins in SCHEMA.input_bins]
SEX = FIELDS.index("sex")
FEMALE = SCHEMA.input_bins[SEX].names.index("female")


def counted(rows: int, seed: int, everybody: float = 0.0, women: float = 0.0) -> GroupCounts:
    """Outcomes whose log-odds are off by so much, for everybody and for women."""
    rng, counts = np.random.default_rng(seed), GroupCounts(SCHEMA, 0.05)
    bins = np.stack([rng.choice(size, rows, p=rng.dirichlet(np.full(size, 3.0))) for size in SIZES], axis=1)
    bins[:, SEX] = np.where(rng.random(rows) < 0.4, FEMALE, 1 - FEMALE)
    is_woman = bins[:, SEX] == FEMALE
    z = rng.normal(-0.5, 1.5, rows) + np.where(is_woman, 1.2, -0.6)
    p = 1 / (1 + np.exp(-z))
    y = rng.random(rows) < 1 / (1 + np.exp(-(z + everybody + women * is_woman)))
    for one, came_true, numbers in zip(p.tolist(), y.tolist(), bins, strict=True):
        counts.add(one, came_true, numbers)
    return counts


def test_what_broke_is_named() -> None:
    women = [reliability_report(counted(1000, seed, women=-1.5)) for seed in range(10)]
    assert [one.group for one in women] == ["sex = female"] * 10
    assert women[0].summary.startswith("broken for sex = female: ")
    assert "; of all others " in women[0].summary
    everybody = [reliability_report(counted(1000, seed, everybody=1.2)) for seed in range(10)]
    assert [one.broken for one in everybody] == ["all"] * 10
    assert {one.group for one in everybody} == {None}
    assert everybody[0].summary.startswith("broken for all: ")


def test_what_is_well_is_left_alone_however_often_it_is_looked_at() -> None:
    # The miscalibration is within the dead band.
    found: Counter[str | None] = Counter()
    for seed in range(15):
        counts = counted(2000, seed, everybody=0.1)
        found[reliability_report(counts).broken] += 1
    assert found == {"nothing": 15}


def test_the_wealth_is_a_supermartingale() -> None:
    """Its mean over both outcomes is at most what it was, for every rate within the band; at the band's edge exact."""
    counts = GroupCounts(SCHEMA, 0.05)
    bins = [0] * len(SIZES)
    for p in (0.02, 0.3, 0.5, 0.97):
        won = []
        for came_true in (False, True):
            counts.begin()
            counts.add(p, came_true, bins)
            won.append(np.exp(counts.log_wealth[0]))
        for rate in np.clip([p - 0.05, p, p + 0.05], 0, 1):
            assert (won[0] * (1 - rate) + won[1] * rate <= 1 + 1e-9).all()
        upward = won[0][4:] * (1 - min(p + 0.05, 1)) + won[1][4:] * min(p + 0.05, 1)
        assert upward == pytest.approx(1, abs=1e-6)


def test_counts_by_hand_and_their_state() -> None:
    counts = GroupCounts(SCHEMA, 0.05)
    assert reliability_report(counts).broken is None
    bins = [0] * len(SIZES)
    counts.add(0.25, True, bins)
    bins[SEX] = 1
    counts.add(0.5, False, bins)
    report = reliability_report(counts)
    assert (report.broken, report.outcomes) == ("nothing", 2)
    by_name = {(one.field, one.bin): (one.outcomes, one.came_true, one.expected) for one in report.groups}
    names = SCHEMA.input_bins[SEX].names
    assert by_name["sex", names[0]] == (1, 1, 0.25)
    assert by_name["sex", names[1]] == (1, 0, 0.5)
    assert by_name[FIELDS[0], SCHEMA.input_bins[0].names[0]] == (2, 1, 0.75)
    restored = GroupCounts(SCHEMA, 0.05)
    restored.restore(counts.state())
    assert reliability_report(restored) == report
    for state in (GroupState([], []), GroupState([[-1.0] * 4] * len(counts.counts), counts.log_wealth.tolist())):
        with pytest.raises(ValueError, match="not those of this table's groups"):
            restored.restore(state)


def test_bins_are_kept_for_the_last_predictions_and_given_once() -> None:
    recent = RecentBins(2)
    for number, id in enumerate("abc"):
        recent.remember(id, (number, 300))
    assert recent.take("a") is None
    assert recent.take("b") == (1, 300)
    assert recent.take("b") is None
    recent.remember("d", (3, 0))
    assert (recent.take("c"), recent.take("d")) == ((2, 300), (3, 0))
