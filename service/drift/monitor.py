"""The three watched streams, their latched alarms, what was seen lately, and all of it as bytes and back.

Called from the event loop only, so nothing is locked.
"""

import logging
import math
import time
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from models.bundle.read import Bundle
from models.calibration.online import OnlineStep
from models.prediction import Prediction
from models.reference import PredictionBins, Reference, top_class
from service.drift.classwise import ClasswiseCalibrationDetector
from service.drift.detectors import CalibrationDetector, RankDetector
from service.drift.outcome_counts import OutcomeCounts
from service.drift.recent import FineCounts, RecentProbabilities
from service.drift.saved_state import Alarm, State, StateError, array, generator_state, read_state, restored_generator
from service.online.recalibration import OnlineRecalibration, OnlineState
from service.reliability.groups import GroupCounts, GroupState
from service.reliability.recent_bins import RecentBins

WAITING_ROWS = 32
"""Predictions wait for company before they are tested: NumPy takes about as long for one as for ten. Whoever asks for
anything sees all of them, and the tests' results do not depend on how rows are cut into calls."""
LOGGER = logging.getLogger("evenkeel")
STREAMS = ("prediction", "input", "calibration")
ROWS_OF_STREAM = {"prediction": slice(0, 1), "input": slice(1, None)}
"""Variable 0 is the cell of the prediction (`PredictionBins`), the others are the fields in the schema's order."""
HISTORY_POINTS = 120
BLOCK_ROWS = 5000
"""What was seen lately is the block that is being filled and the one before it: 5,000 to 10,000 predictions."""


class EvidenceHistory:
    """The course of a value over any number of rows: its highest in each of at most `HISTORY_POINTS` stretches."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self._rows = 1

    def note(self, row: int, value: float) -> None:
        """The value after a row; ``row`` rises."""
        if self.points and self.points[-1][0] // self._rows == row // self._rows:
            self.points[-1] = (row, max(value, self.points[-1][1]))
            return
        self.points.append((row, value))
        if len(self.points) > HISTORY_POINTS:
            held, self.points = self.points, []
            self._rows *= 2
            for point in held:
                self.note(*point)


class DriftMonitor:
    """The drift tests of one bundle. Each stream alarms falsely at most once in ``run_length`` of its rows on average.

    - ``prediction``: the cells of the predictions (`PredictionBins`; of two classes the tenths of probability), as they
      are before a prior shift, against the held-out ones of the reference; `RankDetector`, counted in predictions.
    - ``input``: the bins of each of the F fields, against the training rows'; alarms when a field's sum reaches
      2 F · ``run_length``. A field's sum is a martingale (less its time) among its own ranks only: given the ranks of
      other fields, which tell of the same rows, a rank need not be uniform, so a mean over fields, unlike a mean over
      bets, has no such proof. What holds for each field is Doob's inequality, P(M reaches c within t) ≤ t / c, so
      P(alarm within t) ≤ F · t / (2 F A) = t / 2A, and E[T] = Σ P(T > t) ≥ Σ_{t ≤ 2A} (1 − t / 2A) ≥ A.
    - ``calibration``: outcomes against the bundle's probabilities; `CalibrationDetector`, or of more than two classes
      `ClasswiseCalibrationDetector`, counted in outcomes.

    With ``recalibrates`` the outcomes also teach the step ``online``, by which the service then changes what it serves.
    All tests keep to the bundle's own probabilities: they tell what became of the bundle, the step repairs what is
    served.
    """

    def __init__(
        self, bundle: Bundle, run_length: float, dead_band: float, rng: np.random.Generator, recalibrates: bool = False
    ):
        reference, shift = bundle.reference, bundle.record.map.prior_shift
        self.version, self.reference, self.run_length = bundle.version, reference, run_length
        self.schema, self._fields = bundle.schema, len(bundle.schema.fields)
        self.prior_shift, self.target_prevalence = shift, shift.target if shift else None
        data = bundle.manifest.origin.data
        self.training_prevalence = shift.training if shift else data.classes.get(self.schema.positive, 0) / data.rows
        shares = [data.classes.get(name, 0) / data.rows for name in self.schema.classes]
        self.training_shares = np.maximum(shares, 0.5 / data.rows)
        self.reference_counts = reference_counts(reference)
        self.seen = dict.fromkeys(STREAMS, 0)
        self.alarms: dict[str, Alarm] = {}
        self.evidence = dict.fromkeys(STREAMS, 0.0)
        self.histories = {stream: EvidenceHistory() for stream in STREAMS}
        classes, self.cells = len(self.schema.classes), PredictionBins(self.schema.classes)
        self.outcome_counts = OutcomeCounts(classes)
        self.groups, self._recent_bins = GroupCounts(self.schema, dead_band), RecentBins()
        self.changed = False
        self.online = OnlineRecalibration(bundle) if recalibrates else None
        self._kept_online: OnlineState | UnsetType = UNSET
        self.dead_band, self._started, self._seen_before = dead_band, time.monotonic(), dict(self.seen)
        self._ranks = RankDetector(self.reference_counts, rng)
        self._calibration: CalibrationDetector | ClasswiseCalibrationDetector = (
            CalibrationDetector(dead_band) if classes == 2 else ClasswiseCalibrationDetector(dead_band, classes)
        )
        self._block_rows = 0
        self._waiting: list[tuple[float, ...]] = []
        self._waiting_bins: list[tuple[int, ...]] = []
        # What the bags held when the last block began, and the one before it.
        self._marks = np.stack([self.reference_counts] * 2)
        self.recent: FineCounts | RecentProbabilities = FineCounts() if classes == 2 else RecentProbabilities(classes)

    @property
    def threshold(self) -> float:
        """The log evidence at which a stream alarms."""
        return math.log1p(self.run_length)

    def log_evidence(self, stream: str) -> float:
        """ln(1 + M), M the stream's Shiryaev–Roberts sum (of the input stream: the largest over 2 F)."""
        self.catch_up()
        return math.log1p(self.evidence[stream])

    def alarmed(self, stream: str) -> bool:
        """Whether the stream's alarm is latched."""
        self.catch_up()
        return stream in self.alarms

    def rows_per_second(self, stream: str) -> float:
        """A stream's rows in this process over the time since the process took it up."""
        return (self.seen[stream] - self._seen_before[stream]) / max(time.monotonic() - self._started, 1e-3)

    def field_evidence(self) -> np.ndarray:
        """The sums of the input fields (F,) on the scale of the input stream's evidence."""
        return np.asarray(self._ranks.evidence()[ROWS_OF_STREAM["input"]] / (2 * self._fields))

    def recent_counts(self) -> np.ndarray:
        """Counts lately per variable and bin (S, B).

        Lately: the last 5,000 to 10,000 predictions, as in `recent`, or fewer since the start or since a test began
        again.
        """
        self.catch_up()
        return np.asarray(self._ranks.counts - self._marks[1])

    def predicted(self, predictions: Sequence[Prediction]) -> None:
        """Take in answered predictions, in the order they were answered."""
        for prediction in predictions:
            self._waiting_bins.append((prediction.unshifted_bin, *prediction.input_bins))
            self._waiting.append(prediction.unshifted_probabilities)
        self.changed = True
        if len(self._waiting) >= WAITING_ROWS:
            self.catch_up()

    def remember(self, ids: Sequence[str], predictions: Sequence[Prediction]) -> None:
        """Keep the bins of these predictions' rows until their outcomes come."""
        for id, prediction in zip(ids, predictions, strict=True):
            self._recent_bins.remember(id, prediction.input_bins)

    def catch_up(self) -> None:
        """Test the predictions that wait."""
        if not self._waiting:
            return
        evidence = self._ranks.observe(np.array(self._waiting_bins))
        self._note("prediction", evidence[:, :1])
        self._note("input", evidence[:, 1:] / (2 * self._fields))
        self.recent.add(self._waiting)
        self._block_rows += len(self._waiting)
        self._waiting, self._waiting_bins = [], []
        if self._block_rows >= BLOCK_ROWS:
            self._block_rows = 0
            self._marks = np.stack([self._ranks.counts, self._marks[0]])
            self.recent.next_block()

    def outcomes(self, pairs: Iterable[tuple[Sequence[float], int]], ids: Iterable[str] = ()) -> None:
        """Take in (the bundle's probabilities (K,), number of the class that came true), each once, in the order they
        became known; ``ids`` of their predictions, as far as they are known."""
        for (probabilities, label), id in zip(pairs, chain(ids, repeat("")), strict=False):
            if isinstance(self._calibration, CalibrationDetector):
                evidence = self._calibration.observe(probabilities[1], label == 1)
            else:
                evidence = self._calibration.observe(probabilities, label)
            self._note("calibration", np.array([[evidence]]))
            self.outcome_counts.add(probabilities, label)
            if (bins := self._recent_bins.take(id)) is not None:
                self._add_to_groups(probabilities, label, bins)
            if self.online is not None:
                self.online.observe(probabilities[1], label, bins)
            self.changed = True

    def _add_to_groups(self, probabilities: Sequence[float], label: int, bins: Sequence[int]) -> None:
        # Of more than two classes, whether the predicted one comes true.
        expected = 1 if len(probabilities) == 2 else top_class(probabilities)
        self.groups.add(probabilities[expected], label == expected, bins)

    def undo_online(self) -> OnlineStep:
        """Serve the bundle's own probabilities and learn anew; returns the step that was."""
        undone = self.online_step
        if self.online is not None:
            self.online.begin()
            self.changed = True
        return undone

    @property
    def online_step(self) -> OnlineStep:
        """What is served of the bundle's probabilities now; may be asked for on any thread."""
        return OnlineStep() if self.online is None else self.online.step

    def acknowledge(self, stream: str, begin: str = "reference") -> None:
        """End a stream's alarm and begin its test again, against the reference or against the ``recent`` rows.

        The run length of a first alarm is exact. After a false alarm the next one against the same reference may
        come sooner, for that reference has just shown itself an odd sample.
        """
        recent = self.recent_counts()
        self.alarms.pop(stream, None)
        self.evidence[stream] = 0.0
        self.changed = True
        if stream == "calibration":
            self._calibration.begin()
            self.groups.begin()
            return
        rows = ROWS_OF_STREAM[stream]
        bag = (recent if begin == "recent" else self.reference_counts)[rows]
        self._ranks.begin(rows, bag)
        self._marks[:, rows] = bag

    def _note(self, stream: str, evidence: np.ndarray) -> None:
        """``evidence`` (n, sums) after each of the next n rows of a stream."""
        highest = evidence.max(axis=1)
        for row, value in enumerate(highest.tolist(), self.seen[stream] + 1):
            self.histories[stream].note(row, value)
        self.evidence[stream] = float(highest[-1])
        if stream not in self.alarms and highest.max() >= self.run_length:
            row = int(np.argmax(highest >= self.run_length))
            field = self.schema.fields[int(evidence[row].argmax())].name if stream == "input" else None
            alarm = self.alarms[stream] = Alarm(time.time(), self.seen[stream] + row + 1, field)
            LOGGER.warning("the %s drift test alarms at row %d%s", stream, alarm.at, f", by {field}" if field else "")
        self.seen[stream] += len(evidence)

    def snapshot(self) -> bytes:
        """All of the state, as JSON."""
        self.catch_up()
        ranks = self._ranks
        state = State(
            version=self.version, dead_band=self.dead_band, target_prevalence=self.target_prevalence,
            generator=generator_state(ranks.rng), seen=self.seen, alarms=self.alarms,
            cumulated=ranks.cumulated.tolist(), sums=ranks.sums.tolist(), densities=ranks.densities.tolist(),
            calibration_sums=self._calibration.sums.tolist(), block_rows=self._block_rows, marks=self._marks.tolist(),
            outcome_tenths=self.outcome_counts.tenths.tolist(),
            online=self._kept_online if self.online is None else self.online.state,
            groups=self.groups.state() if self.groups.counts.any() else UNSET, **self._of_classes(),
        )  # fmt: skip
        self.changed = False
        return msgspec.json.encode(state)

    def _of_classes(self) -> dict[str, Any]:
        """What of the state depends on whether there are more than two classes."""
        if isinstance(self.recent, FineCounts):
            return {"fine": self.recent.blocks}
        confusion = self.outcome_counts.confusion
        assert confusion is not None
        return {"fine": [], "probabilities": self.recent.snapshot(), "confusion": confusion.tolist()}

    def restore(self, content: bytes) -> None:
        """Go on from a snapshot; raises StateError, and nothing is taken over then.

        The calibration test begins again when its dead band or the target prevalence is another one, and with the
        latter the online step.
        """
        state, ranks = read_state(content, self.version), self._ranks
        cumulated, sums = array(state.cumulated, ranks.cumulated.shape), array(state.sums, ranks.sums.shape)
        densities = array(state.densities, ranks.densities.shape)
        calibration = array(state.calibration_sums, self._calibration.sums.shape)
        marks, counts = array(state.marks, self._marks.shape), restored_counts(state, len(self.schema.classes))
        recent = restored_recent(state, len(self.schema.classes))
        groups = GroupCounts(self.schema, self.dead_band)
        if isinstance(state.groups, GroupState):
            try:
                groups.restore(state.groups)
            except ValueError as error:
                raise StateError(str(error)) from error
        if not set(state.alarms) <= set(STREAMS) or set(state.seen) != set(STREAMS):
            raise StateError("it names other streams")
        if (np.diff(cumulated) < 0).any():
            raise StateError("its bags are not counts")
        ranks.rng = restored_generator(state.generator)
        ranks.cumulated, ranks.sums, ranks.densities, self._calibration.sums = cumulated, sums, densities, calibration
        self._marks, self.recent, self._block_rows = marks, recent, state.block_rows
        self.outcome_counts, self.groups = counts, groups
        self.seen, self._seen_before, self.alarms = state.seen, dict(state.seen), state.alarms
        self.evidence["prediction"] = float(ranks.evidence()[0])
        self.evidence["input"] = float(self.field_evidence().max())
        self.evidence["calibration"] = float(calibration.mean())
        if (state.dead_band, state.target_prevalence) != (self.dead_band, self.target_prevalence):
            self.acknowledge("calibration")
        if state.target_prevalence == self.target_prevalence and isinstance(state.online, OnlineState):
            # Where nothing is learnt now, it is kept.
            self._kept_online = state.online
            if self.online is not None:
                self.online.restore(state.online)


def reference_counts(reference: Reference) -> np.ndarray:
    """Counts (1 + F, B) of the tenths of probability and of each field's bins, padded with bins that never occur."""
    rows = [reference.probability_counts, *(tuple(field.counts.values()) for field in reference.inputs)]
    counts = np.zeros((len(rows), max(map(len, rows))))
    for row, bins in zip(counts, rows, strict=True):
        row[: len(bins)] = bins
    return counts


def restored_counts(state: State, classes: int) -> OutcomeCounts:
    """The outcomes that a state holds; raises StateError."""
    counts = OutcomeCounts(classes)
    if state.outcome_tenths is not None:
        counts.tenths = array(state.outcome_tenths, counts.tenths.shape)
    if counts.confusion is not None:
        counts.confusion = array(state.confusion or [], counts.confusion.shape)
    return counts


def restored_recent(state: State, classes: int) -> FineCounts | RecentProbabilities:
    """The recent probabilities that a state holds; raises StateError."""
    if classes == 2:
        fine = FineCounts()
        fine.blocks = array(state.fine, np.shape(fine.blocks)).tolist()
        return fine
    recent = RecentProbabilities(classes)
    try:
        recent.restore(state.probabilities or [])
    except ValueError as error:
        raise StateError(f"its probabilities cannot be used: {error}") from error
    return recent
