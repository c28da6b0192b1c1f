"""Outcomes by group → whether the probabilities broke for all rows, for those of one group, or not."""

import math
from typing import Literal, NamedTuple

import numpy as np
from msgspec import Struct

from service.reliability.groups import GroupCounts

ALPHA = 0.01
"""How likely, at most, groups that are as promised are ever called broken: of all of them together."""
MIN_VARIANCE = 1.0
"""A group whose outcomes tell less cannot be distinguished from the rest."""


class GroupReliability(Struct, frozen=True, kw_only=True):
    """The outcomes of a group of rows: how many, how many came true, and how many of these the bundle's probabilities
    promised. ``broken``: the two are farther apart than the dead band and chance explain."""

    field: str
    bin: str
    outcomes: int
    came_true: int
    expected: float
    broken: bool


class ReliabilityReport(Struct, frozen=True, kw_only=True):
    """For whom the probabilities broke: ``all`` rows, those of one ``group`` ("sex = female"), or ``nothing``; null
    while no outcome can be counted by group. ``outcomes`` are those whose row's bins are known."""

    broken: Literal["all", "group", "nothing"] | None
    group: str | None
    summary: str
    outcomes: int
    groups: list[GroupReliability]


class Split(NamedTuple):
    """A group against all other rows: the z of the difference of their shifts in log-odds, and the others' evidence."""

    group: int
    z: float
    rest_broken: bool


def reliability_report(counts: GroupCounts) -> ReliabilityReport:
    """In words and numbers."""
    # Bonferroni: all groups and all rows are tested.
    threshold = math.log((len(counts.names) + 1) / ALPHA)
    broken = (counts.log_evidence(counts.log_wealth) >= threshold).tolist()
    what, group, summary = _verdict(counts, broken, threshold)
    groups = [
        GroupReliability(
            field=field, bin=name, outcomes=int(n), came_true=int(true), expected=expected, broken=is_broken
        )
        for (field, name), (n, true, expected, _), is_broken in zip(
            counts.names, counts.counts[1:].tolist(), broken[1:], strict=True
        )
        if n
    ]
    return ReliabilityReport(
        broken=what, group=group, summary=summary, outcomes=int(counts.counts[0, 0]), groups=groups
    )  # fmt: skip


def _verdict(
    counts: GroupCounts, broken: list[bool], threshold: float
) -> tuple[Literal["all", "group", "nothing"] | None, str | None, str]:
    outcomes = int(counts.counts[0, 0])
    if not outcomes:
        return None, None, "no outcome has come in whose row's bins are known"
    if not any(broken):
        return "nothing", None, f"nothing is broken: {outcomes} outcomes contradict the probabilities of no group"
    split = _split(counts, threshold)
    # Two-sided, of as many groups.
    differs = split is not None and math.erfc(abs(split.z) / math.sqrt(2)) * len(counts.names) <= ALPHA
    if split is None or not differs:
        return "all", None, f"broken for all: {_said(counts.counts[0])}, and no group differs from the rest"
    name = " = ".join(counts.names[split.group - 1])
    own, rest = counts.counts[split.group], counts.counts[0] - counts.counts[split.group]
    if split.rest_broken:
        return "all", None, f"broken for all, and not alike: {_said(own)} for {name}, {_said(rest)} for all others"
    return "group", name, f"broken for {name}: {_said(own)}; of all others {_said(rest)}"


def _split(counts: GroupCounts, threshold: float) -> Split | None:
    """The group that differs most from all other rows."""
    own, rest = counts.counts[1:], counts.counts[0] - counts.counts[1:]
    can = (own[:, 3] >= MIN_VARIANCE) & (rest[:, 3] >= MIN_VARIANCE)
    if not can.any():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        # (observed − expected) / variance is the score test's first step of a shift in log-odds.
        shifts = [(part[:, 1] - part[:, 2]) / part[:, 3] for part in (own, rest)]
        z = (shifts[0] - shifts[1]) / np.sqrt(1 / own[:, 3] + 1 / rest[:, 3])
    # Where a field has two bins in use, each differs from the other alike: the one with more evidence broke.
    far, evidence = np.where(can, abs(z), -1), counts.log_evidence(counts.log_wealth[1:])
    group = 1 + int(np.argmax(np.where(far >= far.max() - 1e-6, evidence, -np.inf)))
    rest_wealth = counts.log_wealth[0] - counts.log_wealth[group]
    return Split(group, float(z[group - 1]), bool(counts.log_evidence(rest_wealth) >= threshold))


def _said(row: np.ndarray) -> str:
    n, true, expected, _ = row.tolist()
    return f"{true:.0f} of {n:.0f} came true, {expected:.1f} expected"
