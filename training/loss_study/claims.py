"""The research note's claims about its focal loss with smoothing, each with a verdict by a rule fixed beforehand.

Each claim names a figure with a direction, and a size where the note gives one. `verdict_on` says "supported" when the
figure's 95 % interval leaves out "no difference" on the claimed side (and reaches the claimed size), "false" when it
leaves it out on the other side, and else "not supported". Where two figures decide, both must say so. The other
figures are there to be read.
"""

import math
from typing import Literal

import numpy as np
from msgspec import Struct, structs

from models.calibration.inverse import FocalInverse
from training.evaluate.estimates import Estimate, proportion
from training.loss_study.comparison import DEFAULT, REFERENCE, Comparison, alpha_shift
from training.loss_study.contrasts import Side, Spread, logit_shift, miscalibration, paired_calibration_error
from training.losses.registry import NOTE

Verdict = Literal["supported", "not supported", "false", "not measured"]
AS_NOTED = f"{DEFAULT}:note"
WEIGHTED = "weighted_ce"
GAIN = (0.03, 0.05)
"""The gain of recall that the note gives."""


class Evidence(Struct, frozen=True):
    """A figure, what it is, and what theory expects of it; ``found`` None: its losses were not measured."""

    what: str
    found: Estimate | None
    expected: float | None = None


class Claim(Struct, frozen=True, kw_only=True):
    """What the note says, the rule, the verdict, all evidence (the deciding figure first) and what it comes to."""

    number: str
    statement: str
    rule: str
    verdict: Verdict
    evidence: tuple[Evidence, ...]
    remark: str = ""


def verdict_on(
    estimate: Estimate | None, claimed: Literal["below", "above"], limit: float = 0.0,
    size: tuple[float, float] | None = None,
) -> Verdict:  # fmt: skip
    """The verdict on "``found`` lies below (above) ``limit``, by an amount within ``size``", by its 95 % interval."""
    if estimate is None or math.isnan(estimate.low):
        return "not measured"
    low, high = estimate.low - limit, estimate.high - limit
    if claimed == "below":
        low, high = -high, -low
    if high < 0:
        return "false"
    reached = size is None or (high >= size[0] and low <= size[1])
    return "supported" if low > 0 and reached else "not supported"


def combine(first: Verdict, second: Verdict) -> Verdict:
    """The verdict that two figures share; "not supported" where they differ, "not measured" where one is missing."""
    if "not measured" in (first, second):
        return "not measured"
    return first if first == second else "not supported"


def evaluate_claims(comparison: Comparison, rng: np.random.Generator) -> tuple[Claim, ...]:
    """All claims; ``rng`` is for the bootstrap of the calibration error. What lacks a loss is "not measured"."""
    return _scale(comparison), _calibrated_before(comparison, rng), *_recall(comparison), _majority(comparison)


def _over_rows(spread: Spread | None) -> Estimate | None:
    return None if spread is None else spread.over_rows


def _difference(comparison: Comparison, ours: str, theirs: str, figure: str, side: Side) -> Evidence:
    name = "log loss" if figure == "log_loss" else figure.replace("recall_", "recall of ", 1)
    what = f"{name}, {side}, {ours} minus {theirs}"
    return Evidence(what, _over_rows(comparison.contrast(ours, theirs, figure, side)))


def _scale(comparison: Comparison) -> Claim:
    one_scale = _difference(comparison, DEFAULT, REFERENCE, "log_loss", "raw")
    own = {name: comparison.own_value(name, REFERENCE) for name in (DEFAULT, AS_NOTED, REFERENCE)}
    values = [
        Evidence(
            f"{name}, in its own scale, of {REFERENCE}'s held-out predictions",
            None if value is None else Estimate(value, math.nan, math.nan, math.nan),
        )
        for name, value in own.items()
    ]
    ours, theirs, remark = own[DEFAULT], own[REFERENCE], ""
    if ours is not None and theirs is not None:
        remark = f"The same predictions are worth {ours:.3f} in one scale and {theirs:.3f} in the other."
    return Claim(
        number="1",
        statement="A loss of .192 with focal loss and smoothing, against .952 with cross entropy, shows the better "
        "model.",
        rule="Each loss has its own scale, so its values of one and the same predictions differ; on one scale, log "
        "loss of raw probabilities, the difference to cross entropy must lie below 0.",
        verdict=verdict_on(one_scale.found, "below"),
        evidence=(one_scale, _difference(comparison, DEFAULT, REFERENCE, "log_loss", "calibrated"), *values),
        remark=remark,
    )  # fmt: skip


def _calibrated_before(comparison: Comparison, rng: np.random.Generator) -> Claim:
    lost = Evidence(
        f"log loss that calibration takes away, {DEFAULT} minus {REFERENCE}",
        _over_rows(comparison.difference(DEFAULT, REFERENCE, miscalibration)),
    )
    ours, theirs = comparison.runs.get(DEFAULT, {}), comparison.runs.get(REFERENCE, {})
    error = paired_calibration_error(ours, theirs, comparison.labels, "raw", rng)
    ece = Evidence(f"10-bin ECE, raw, {DEFAULT} minus {REFERENCE}", _over_rows(error))
    return Claim(
        number="2", statement="Focal loss with smoothing is better calibrated than cross entropy, before any "
        "calibration afterwards.",
        rule="Of raw probabilities, both the log loss that held-out calibration takes away and the 10-bin ECE must be "
        "smaller than cross entropy's.",
        verdict=combine(verdict_on(lost.found, "below"), verdict_on(ece.found, "below")),
        evidence=(lost, ece, _difference(comparison, DEFAULT, REFERENCE, "log_loss", "raw")),
    )  # fmt: skip


def _recall(comparison: Comparison) -> tuple[Claim, ...]:
    def claim(number: str, statement: str, rule: str, *evidence: Evidence) -> Claim:
        gained = verdict_on(evidence[0].found, "above", size=GAIN)
        return Claim(number=number, statement=statement, rule=rule, verdict=gained, evidence=evidence)

    negative, positive = comparison.classes

    def recall(ours: str, theirs: str, side: Side = "raw", of: str = positive) -> Evidence:
        return _difference(comparison, ours, theirs, f"recall_{of}", side)

    return (
        claim(
            "3a", "Focal loss with smoothing, as the note sets it, finds 3 to 5 % more of the minority.",
            f"Recall of {positive} at p ≥ ½, raw, with the note's α: its difference to cross entropy must lie above 0 "
            "and reach .03 to .05.",
            recall(AS_NOTED, REFERENCE), recall(AS_NOTED, REFERENCE, of=negative), recall(DEFAULT, REFERENCE),
        ),
        claim(
            "3b", "It is focusing and smoothing that find 3 to 5 % more of the minority.",
            f"At the same α, recall of {positive} at p ≥ ½, raw: the difference to weighted cross entropy must lie "
            "above 0 and reach .03 to .05. The others change one thing each: α, smoothing, focusing, smoothing, α.",
            recall(DEFAULT, WEIGHTED), recall(WEIGHTED, REFERENCE), recall("label_smooth", REFERENCE),
            recall("focal", WEIGHTED), recall(DEFAULT, "focal"), recall(DEFAULT, AS_NOTED),
        ),
        claim(
            "3c", "It is a better model that finds more of the minority: the gain remains when both are calibrated.",
            f"Recall of {positive} at p ≥ ½, both calibrated, α from the data: the difference to cross entropy must "
            "lie above 0 and reach .03 to .05.",
            recall(DEFAULT, REFERENCE, "calibrated"), recall(WEIGHTED, REFERENCE, "calibrated"),
        ),
    )  # fmt: skip


def _majority(comparison: Comparison) -> Claim:
    share, positive = proportion(comparison.labels == 1), comparison.classes[-1]
    shifts = []
    for name in (AS_NOTED, DEFAULT, REFERENCE):
        inverse = comparison.losses[name].inverse(comparison.steps) if name in comparison.losses else None
        if isinstance(inverse, FocalInverse):
            but_alpha = structs.replace(inverse, alpha_negative=1.0, alpha_positive=1.0)
            what = f"shift of the raw logit when all but α is undone, {name}"
            shift = _over_rows(comparison.average(name, logit_shift(but_alpha)))
            shifts.append(Evidence(what, shift, alpha_shift(inverse)))
    same = _difference(comparison, AS_NOTED, DEFAULT, "log_loss", "calibrated")
    return Claim(
        number="4", statement=f"The class {positive} is the majority, so its α is {NOTE['alpha'][-1]:g}.",
        rule=f"The share of {positive} must lie above ½. α shifts every raw logit; whether calibration repairs a wrong "
        "one is seen from the log loss with the note's α minus that with the data's, raw and calibrated.",
        verdict=verdict_on(share, "above", 0.5), remark=_repaired(same.found),
        evidence=(
            Evidence(f"share of {positive}", share), *shifts,
            _difference(comparison, AS_NOTED, DEFAULT, "log_loss", "raw"), same,
            _difference(comparison, AS_NOTED, DEFAULT, f"recall_{positive}", "calibrated"),
        ),
    )  # fmt: skip


def _repaired(difference: Estimate | None) -> str:
    if difference is None:
        return ""
    if difference.low <= 0 <= difference.high:
        return "After calibration the log losses of the two cannot be distinguished."
    return f"After calibration the note's α is {'worse' if difference.value > 0 else 'better'} still."
