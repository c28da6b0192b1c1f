"""In how many bits a bundle's weights are served, and the measurement that comes before fewer than 32.

Rounding changes every logit a little, and so every probability. By how much that hurts is measured on labelled rows
(training/promote/precision.py), against float32 on the same rows; the measurement goes into the bundle, and the
service serves in a precision that stands there and is within its margins, and in no other. Each engine offers those
that are faster with it than float32.
"""

from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct

Precision = Literal["float32", "float16", "bfloat16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FULL: Precision = "float32"
COMMAND = "python -m training precision"
LOG_LOSS_MARGIN = 0.005
"""Nats; a third of the standard error that the held-out log loss of 891 rows has."""
CALIBRATION_MARGIN = 0.01
"""Of the smooth calibration error; less than a perfect model shows by chance on 891 rows."""


class Change(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure in a lower precision minus that in float32, paired by row; worse is above 0.

    ``high`` is the upper end of its 95 % interval, which must not be above ``margin``.
    """

    value: float
    standard_error: float
    high: float
    margin: float


class Measurement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A precision against float32 on labelled rows, on one device: log loss in nats, smooth calibration error.

    ``training_rows``: whether the rows are those of the training: their losses flatter, and a difference between
    two roundings of one and the same model hardly does. ``decisions_changed`` is the share of rows on the other side of
    ½, and the ``largest`` differences are those of all rows; the map may have steps, on which a probability moves more
    than its logit.
    """

    precision: Precision
    device: str
    rows: Annotated[int, Meta(ge=1, le=10**12)]
    data_sha256: str
    training_rows: bool
    log_loss: Change
    calibration_error: Change
    decisions_changed: float
    largest_logit_difference: float
    largest_probability_difference: float

    @property
    def refusal(self) -> str | None:
        """What is past its margin, with the figures; None if nothing is."""
        for name, change in (("log loss", self.log_loss), ("calibration error", self.calibration_error)):
            # So that what is not a number is refused too.
            if not change.high <= change.margin:
                return (
                    f"{name} is worse by {change.value:.4f} ± {change.standard_error:.4f} on {self.rows} rows; the end "
                    f"of the 95 % interval, {change.high:.4f}, is past the margin of {change.margin:g}"
                )
        return None


class Precisions(Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured of a bundle, at most once for each precision and device."""

    measured: Annotated[tuple[Measurement, ...], Meta(max_length=64)] = ()

    def refusal(self, precision: Precision, device: str) -> str | None:
        """Why the bundle must not be served so; None if it may."""
        if precision == FULL:
            return None
        measured = [m for m in self.measured if (m.precision, m.device) == (precision, device)]
        if not measured:
            return f"{precision} was not measured on {device}: {COMMAND} does it"
        refusal = measured[-1].refusal
        return None if refusal is None else f"{precision} was measured on {device} and refused: {refusal}"

    def with_measured(self, *new: Measurement) -> "Precisions":
        """These and ``new``, which take the place of older ones of the same precision and device."""
        replaced = {(m.precision, m.device) for m in new}
        kept = (m for m in self.measured if (m.precision, m.device) not in replaced)
        return Precisions((*kept, *new))


def format_measurement(measurement: Measurement) -> dict[str, Any]:
    """The figures of a measurement as a person reads them."""
    return {
        "log loss": _signed(measurement.log_loss), "calibration error": _signed(measurement.calibration_error),
        "decisions changed": f"{measurement.decisions_changed:.2%}",
        "largest |Δlogit|": f"{measurement.largest_logit_difference:.2g}",
        "|Δp|": f"{measurement.largest_probability_difference:.2g}",
    }  # fmt: skip


def _signed(change: Change) -> str:
    return f"{change.value:+.5f} ± {change.standard_error:.5f} (to {change.high:+.5f}, margin {change.margin:g})"
