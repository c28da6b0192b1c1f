"""The optimisation loop: fine-tune the upper layers of a pretrained BERT on texts and labels.

The frozen lower layers are run once per distinct text, and training starts from their hidden states.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map
from msgspec import Meta, Struct

from models.bert.classifier import BertClassifier, from_pretrained
from models.bert.tokenizer import Tokenizer
from training.fit.epoch_diagnostics import EpochDiagnostics
from training.fit.optimizer import AdamW
from training.fit.progress import Listener
from training.losses.registry import LOSSES, Loss

INFERENCE_ROWS = 64
MAX_GRADIENT_NORM = 1.0

Divide = Callable[[nn.Module, Callable[..., Any]], Callable[..., Any]]
"""Makes of a model and its gradient function one that several processes compute together: `Ranks.parallel_gradient`."""


class TrainingError(ValueError):
    """Training that went wrong and must not become a bundle; the message says what to change."""


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the classifier is fine-tuned.

    The weights at the end of the last ``averaged_epochs`` epochs of each of ``runs`` fine-tunings, which differ in the
    order of rows and in dropout, are averaged. The learning rate falls linearly to ``final_rate`` of its peak.
    """

    epochs: Annotated[int, Meta(ge=1)] = 8
    batch_rows: Annotated[int, Meta(ge=1)] = 32
    trained_layers: int = 2
    learning_rate: float = 5e-4
    head_learning_rate: float = 1e-3
    warmup: float = 0.1
    final_rate: float = 0.0
    weight_decay: float = 0.01
    runs: Annotated[int, Meta(ge=1)] = 1
    averaged_epochs: Annotated[int, Meta(ge=1)] = 1

    def steps(self, rows: int) -> int:
        """Optimisation steps over ``rows`` training rows, all runs together."""
        return self.runs * self.epochs * -(-rows // self.batch_rows)


@dataclass(frozen=True)
class Pretrained:
    """A pretrained encoder on disk: its ``config.json`` as a dictionary, and its weights."""

    config: dict[str, Any]
    weights: Path

    @property
    def max_tokens(self) -> int:
        """Positions that the model has."""
        return int(self.config["max_position_embeddings"])


@dataclass(frozen=True)
class Encoded:
    """Texts after the frozen layers: hidden (U, L, D), mask (U, L) per distinct text; ``index``: row → text.

    ``index`` is (n,), or (m, n) for m models that read different texts of the same rows: see `for_model`.
    """

    hidden: mx.array
    mask: mx.array
    index: np.ndarray
    start: int

    def for_model(self, model: int) -> Self:
        """The texts of one of the m models."""
        return replace(self, index=self.index[model])

    def batch(self, rows: np.ndarray) -> tuple[mx.array, mx.array]:
        chosen = mx.array(self.index[rows])
        mask = self.mask[chosen]
        length = int(np.array(mask).sum(axis=1).max())
        return self.hidden[chosen, :length], mask[:, :length]


def encode(
    base: Pretrained, tokenizer: Tokenizer, texts: Sequence[str] | Sequence[Sequence[str]], trained_layers: int
) -> Encoded:  # fmt: skip
    """Run the frozen layers once over each distinct text of n rows, or of m times n."""
    model = from_pretrained(base.config, base.weights, seed=0)
    model.eval()
    start = max(0, len(model.bert.encoder.layer) - trained_layers)
    distinct, index = np.unique(np.array(texts, dtype=object), return_inverse=True)
    ids, mask = tokenizer(distinct.tolist())
    hidden = []
    for first in range(0, len(ids), INFERENCE_ROWS):
        part = slice(first, first + INFERENCE_ROWS)
        hidden.append(model.bert.hidden(mx.array(ids[part]), mx.array(mask[part]), start))
        mx.eval(hidden[-1])
    return Encoded(mx.concatenate(hidden), mx.array(mask), index, start)


def finetune(
    base: Pretrained, encoded: Encoded, labels: np.ndarray, rows: np.ndarray, *, recipe: Recipe, loss: Loss,
    seed: int, phase: str, progress: Listener, divide: Divide | None = None,
) -> BertClassifier:  # fmt: skip
    """Fine-tune on ``rows`` (indices into ``labels``) and return the classifier in inference mode.

    Weights are averaged over the last epochs and over runs from one start (Izmailov et al., 2018; Wortsman et al.,
    2022, uniform soup), which costs nothing when serving. With ``divide`` every batch is computed by several processes.
    Raises TrainingError when the loss is not finite, an epoch predicts one class only, or the loss cannot be divided.
    """
    if divide is not None and not LOSSES[loss.name].pointwise:
        raise TrainingError(f"{loss.name} is a loss of a whole batch, which cannot be divided among processes")
    total: Any = None
    for run in range(recipe.runs):
        model = from_pretrained(base.config, base.weights, seed)
        rng = np.random.default_rng([seed, run])
        for epoch in _train(model, encoded, labels, rows, recipe, loss, rng, run, phase, progress, divide):
            if epoch > recipe.epochs - recipe.averaged_epochs:
                weights = model.trainable_parameters()
                total = weights if total is None else tree_map(mx.add, total, weights)
                mx.eval(total)
    count = recipe.runs * min(recipe.averaged_epochs, recipe.epochs)
    model.update(tree_map(lambda weight: weight / count, total))
    mx.eval(model.parameters())
    model.eval()
    return model


def predict(model: BertClassifier, encoded: Encoded, rows: np.ndarray) -> np.ndarray:
    """Logits (len(rows), K) float64 in inference mode, of one row or more."""
    model.eval()
    logits = []
    for first in range(0, len(rows), INFERENCE_ROWS):
        hidden, mask = encoded.batch(rows[first : first + INFERENCE_ROWS])
        logits.append(np.array(model.forward_from(hidden, mask, encoded.start), np.float64))
    return np.concatenate(logits)


def _train(
    model: BertClassifier, encoded: Encoded, labels: np.ndarray, rows: np.ndarray, recipe: Recipe, loss: Loss,
    rng: np.random.Generator, run: int, phase: str, progress: Listener, divide: Divide | None,
) -> Iterator[int]:  # fmt: skip
    """Train, and yield the number of each finished epoch."""
    mx.random.seed(int(rng.integers(2**31)))
    _freeze_below(model, encoded.start)
    model.train()
    optimizer = _optimizer(recipe, recipe.epochs * -(-len(rows) // recipe.batch_rows))

    def loss_and_logits(
        model: BertClassifier, hidden: mx.array, mask: mx.array, targets: mx.array, step: int
    ) -> tuple[mx.array, mx.array]:
        logits = model.forward_from(hidden, mask, encoded.start)
        return loss(logits, targets, step), logits

    gradient = nn.value_and_grad(model, loss_and_logits)
    if divide is not None:
        gradient = divide(model, gradient)
    step = 0
    for epoch in range(1, recipe.epochs + 1):
        start, losses, logits, order = time.monotonic(), [], [], rng.permutation(rows)
        for first in range(0, len(order), recipe.batch_rows):
            batch = order[first : first + recipe.batch_rows]
            (value, output), gradients = gradient(model, *encoded.batch(batch), mx.array(labels[batch]), step)
            gradients, _ = optim.clip_grad_norm(gradients, MAX_GRADIENT_NORM)
            optimizer.update(model, gradients)
            mx.eval(model.parameters(), optimizer.state, value, output)
            losses.append(value.item() * len(batch))
            logits.append(np.array(output))
            step += 1
            progress.advance()
        diagnostics = EpochDiagnostics.of(
            np.concatenate(logits), labels[order], loss.classes, phase=phase, run=run + 1, epoch=epoch,
            loss=sum(losses) / len(order), seconds=time.monotonic() - start,
        )  # fmt: skip
        _refuse_failure(diagnostics)
        progress.epoch(diagnostics)
        yield epoch


def _refuse_failure(epoch: EpochDiagnostics) -> None:
    where = f"{epoch.phase}, epoch {epoch.epoch}"
    if not np.isfinite(epoch.loss) or not np.isfinite(epoch.p_t_mean):
        raise TrainingError(f"{where}: the loss is not a finite number; lower --learning-rate")
    for name, share in epoch.predicted_share.items():
        if share == 1.0 and len(epoch.accuracy_by_class) > 1:
            raise TrainingError(
                f"{where}: every row was predicted {name}, the model has collapsed; "
                "lower --learning-rate, train more rows, or take another --loss"
            )


def _freeze_below(model: BertClassifier, start: int) -> None:
    model.freeze()
    for layer in model.bert.encoder.layer[start:]:
        layer.unfreeze()
    model.bert.pooler.unfreeze()
    model.classifier.unfreeze()


def _optimizer(recipe: Recipe, steps: int) -> optim.Optimizer:
    """AdamW, the head with its own learning rate; linear warm-up and linear decay."""

    def adam(rate: float) -> optim.Optimizer:
        return AdamW(_schedule(rate, recipe, steps), weight_decay=recipe.weight_decay)

    return optim.MultiOptimizer(
        [adam(recipe.head_learning_rate), adam(recipe.learning_rate)],
        filters=[lambda name, _: name.startswith(("classifier", "bert.pooler"))],
    )


def _schedule(peak: float, recipe: Recipe, steps: int) -> Callable[[mx.array], mx.array]:
    rising = max(1, round(recipe.warmup * steps))
    falling = max(1, steps - rising)
    return optim.join_schedules(
        [
            optim.linear_schedule(peak / rising, peak, rising),
            optim.linear_schedule(peak, recipe.final_rate * peak, falling),
        ],
        [rising],
    )
