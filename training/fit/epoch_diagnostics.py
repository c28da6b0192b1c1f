"""What one epoch of training looked like: confidence, entropy, p_t, loss and accuracy per class."""

from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
from msgspec import Struct

from models.passenger import LABELS


class EpochDiagnostics(Struct, frozen=True, kw_only=True):
    """Averages over the rows of one epoch, from the logits of the training pass itself (dropout on).

    ``confidence`` is the mean of max p, ``entropy_bits`` the mean binary entropy, ``p_t`` the probability of
    the true class; per-class figures are by class name.
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
    def of(cls, logits: np.ndarray, labels: np.ndarray, **where: Any) -> Self:
        """logits (n, 2), labels (n,) 0/1; ``where`` holds phase, run, epoch, loss and seconds."""
        z = (logits[:, 1] - logits[:, 0]).astype(np.float64)
        p = np.exp(-np.logaddexp(0, -z))
        p_t = np.where(labels == 1, p, 1 - p)
        log_loss = np.logaddexp(0, np.where(labels == 1, -z, z))
        entropy = (p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)) / np.log(2)
        right = (z > 0) == (labels == 1)
        return cls(
            rows=len(z), accuracy=float(right.mean()), confidence=float(np.maximum(p, 1 - p).mean()),
            entropy_bits=float(entropy.mean()), p_t_min=float(p_t.min()), p_t_mean=float(p_t.mean()),
            p_t_max=float(p_t.max()), log_loss_by_class=_by_class(log_loss, labels),
            accuracy_by_class=_by_class(right, labels),
            predicted_share={LABELS[0]: float((z <= 0).mean()), LABELS[1]: float((z > 0).mean())}, **where,
        )  # fmt: skip

    def line(self) -> str:
        """One line for a person."""
        classes = " ".join(f"{name} {value:.2f}" for name, value in self.accuracy_by_class.items())
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


def _by_class(values: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {name: float(values[labels == index].mean()) for index, name in enumerate(LABELS) if (labels == index).any()}
