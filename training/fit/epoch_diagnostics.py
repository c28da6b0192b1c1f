"""What one epoch of training looked like: confidence, entropy, p_t, loss and accuracy per class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
from msgspec import Struct

SHOWN_CLASSES = 5
"""On a line for a person; of more, those with the least accuracy."""


class EpochDiagnostics(Struct, frozen=True, kw_only=True):
    """Averages over the rows of one epoch, from the logits of the training pass itself (dropout on).

    ``confidence`` is the mean of max p, ``entropy_bits`` the mean entropy, ``p_t`` the probability of the true class;
    per-class figures are by class name.
    """

    phase: str
    run: int
    epoch: int
    rows: int
    loss: float
    accuracy: float
    confidence: float
    entropy_bits: float
    p_t_min: float
    p_t_mean: float
    p_t_max: float
    log_loss_by_class: dict[str, float]
    accuracy_by_class: dict[str, float]
    predicted_share: dict[str, float]
    seconds: float

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], **where: Any) -> Self:
        """logits (n, K), labels (n,) numbers of ``classes``; ``where`` holds phase, run, epoch, loss and seconds."""
        log_p = logits.astype(np.float64)
        log_p = log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True)
        p, log_p_t, predicted = np.exp(log_p), log_p[np.arange(len(labels)), labels], log_p.argmax(axis=1)
        p_t, right = np.exp(log_p_t), predicted == labels
        return cls(
            rows=len(labels), accuracy=float(right.mean()), confidence=float(p.max(axis=1).mean()),
            entropy_bits=float(-(p * log_p).sum(axis=1).mean() / np.log(2)), p_t_min=float(p_t.min()),
            p_t_mean=float(p_t.mean()), p_t_max=float(p_t.max()),
            log_loss_by_class=_by_class(-log_p_t, labels, classes),
            accuracy_by_class=_by_class(right, labels, classes),
            predicted_share={name: float((predicted == index).mean()) for index, name in enumerate(classes)}, **where,
        )  # fmt: skip

    def line(self) -> str:
        """One line for a person."""
        worst = sorted(self.accuracy_by_class, key=lambda name: self.accuracy_by_class[name])
        shown = self.accuracy_by_class if len(worst) <= SHOWN_CLASSES else worst[:SHOWN_CLASSES]
        classes = " ".join(f"{name} {self.accuracy_by_class[name]:.2f}" for name in shown)
        return (
            f"{self.phase}, epoch {self.epoch}: loss {self.loss:.4f}, accuracy {self.accuracy:.3f} ({classes}), "
            f"confidence {self.confidence:.2f}, p_t {self.p_t_min:.2f}/{self.p_t_mean:.2f}/{self.p_t_max:.2f}"
        )


LOG = "training_log.jsonl"
"""The file of all epochs in a work folder."""


def read_log(path: Path) -> list[EpochDiagnostics]:
    """The epochs of a ``training_log.jsonl``, none when there is no file; a repeated one counts as last written."""
    if not path.exists():
        return []
    epochs = msgspec.json.Decoder(EpochDiagnostics).decode_lines(path.read_bytes())
    return list({(epoch.phase, epoch.run, epoch.epoch): epoch for epoch in epochs}.values())


def _by_class(values: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    return {
        name: float(values[labels == index].mean()) for index, name in enumerate(classes) if (labels == index).any()
    }
