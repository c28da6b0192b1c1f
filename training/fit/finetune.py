"""The optimisation loop: fine-tune the upper layers of a pretrained BERT on texts and labels."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Annotated, Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map
from msgspec import Meta, Struct, structs

from models.bert.classifier import BertClassifier, from_pretrained
from training.fit.encoding import Encoded, Pretrained, inference_batches
from training.fit.epoch_diagnostics import EpochDiagnostics
from training.fit.progress import Listener
from training.losses.registry import LOSSES, Loss

MAX_GRADIENT_NORM = 1.0
EPOCHS, MIN_STEPS = 8, 80
ATTEMPTS, LOWER_RATE = 3, 0.4
COLLAPSE_ROWS, SAME_LOGITS = 256, 1e-3
"""Training rows that are asked for at the end, and the range of their logits that is none: of a model that has
collapsed it is about 1e-6, of one that has learned the least above 0.1."""

Divide = Callable[[nn.Module, Callable[..., Any]], Callable[..., Any]]
"""Makes of a model and its gradient function one that several processes compute together: `Ranks.parallel_gradient`."""


class TrainingError(ValueError):
    """Training that went wrong and must not become a bundle; the message says what to change."""


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the classifier is fine-tuned.

    The weights at the end of the last ``averaged_epochs`` epochs of each of ``runs`` fine-tunings, which differ in the
    order of rows and in dropout, are averaged. The learning rate falls linearly to ``final_rate`` of its peak. A run
    ends after ``epochs``, or sooner after ``max_steps`` optimisation steps: many rows need fewer epochs
    (docs/decisions/budget.md).
    """

    epochs: Annotated[int, Meta(ge=1)] = EPOCHS
    max_steps: Annotated[int, Meta(ge=1)] = 600
    batch_rows: Annotated[int, Meta(ge=1)] = 32
    trained_layers: int = 2
    learning_rate: float = 5e-4
    head_learning_rate: float = 1e-3
    warmup: float = 0.1
    final_rate: float = 0.0
    weight_decay: float = 0.01
    runs: Annotated[int, Meta(ge=1)] = 1
    averaged_epochs: Annotated[int, Meta(ge=1)] = 1

    @classmethod
    def epochs_for(cls, rows: int) -> int:
        """Epochs over a table of so many rows, where nobody asks for another number: more where rows are few."""
        return max(EPOCHS, -(-MIN_STEPS // cls().steps_of_epoch(rows)))

    def steps(self, rows: int) -> int:
        """Optimisation steps over ``rows`` training rows, all runs together."""
        return self.runs * self.steps_of_run(rows)

    def steps_of_run(self, rows: int) -> int:
        """Optimisation steps of one run over ``rows`` training rows."""
        return min(self.epochs * self.steps_of_epoch(rows), self.max_steps)

    def steps_of_epoch(self, rows: int) -> int:
        """Batches of ``rows`` training rows."""
        return -(-rows // self.batch_rows)


def finetune(
    base: Pretrained, encoded: Encoded, labels: np.ndarray, rows: np.ndarray, *, recipe: Recipe, loss: Loss,
    seed: int, phase: str, progress: Listener, divide: Divide | None = None,
) -> BertClassifier:  # fmt: skip
    """Fine-tune on ``rows`` (indices into ``labels``) and return the classifier in inference mode.

    Weights are averaged over the last epochs and over runs from one start (Izmailov et al., 2018; Wortsman et al.,
    2022, uniform soup), which costs nothing when serving. With ``divide`` every batch is computed by several processes.
    One that has collapsed, saying the same of every row, is begun anew at lower rates. Raises TrainingError when it
    still has, the loss is not finite, or the loss cannot be divided.
    """
    if divide is not None and not LOSSES[loss.name].pointwise:
        raise TrainingError(f"{loss.name} is a loss of a whole batch, which cannot be divided among processes")
    for attempt in range(ATTEMPTS):
        slower = LOWER_RATE**attempt
        lowered = structs.replace(
            recipe, learning_rate=recipe.learning_rate * slower, head_learning_rate=recipe.head_learning_rate * slower
        )  # fmt: skip
        model = _finetune(base, encoded, labels, rows, lowered, loss, seed, phase, progress, divide)
        if not _has_collapsed(model, encoded, rows):
            return model
        if attempt + 1 < ATTEMPTS:
            progress.advance(-recipe.steps(len(rows)))
            progress.note(f"{phase}: the model has collapsed, and is trained anew at lower rates")
    raise TrainingError(
        f"{phase}: the model has collapsed, it says the same of every row; lower --learning-rate, train more rows, or "
        "take another --loss"
    )


def _finetune(
    base: Pretrained, encoded: Encoded, labels: np.ndarray, rows: np.ndarray, recipe: Recipe, loss: Loss, seed: int,
    phase: str, progress: Listener, divide: Divide | None,
) -> BertClassifier:  # fmt: skip
    """All runs, averaged."""
    total: Any = None
    epochs = -(-recipe.steps_of_run(len(rows)) // recipe.steps_of_epoch(len(rows)))
    for run in range(recipe.runs):
        model = from_pretrained(base.config, base.weights, seed)
        rng = np.random.default_rng([seed, run])
        for epoch in _train(model, encoded, labels, rows, recipe, loss, rng, run, phase, progress, divide):
            if epoch > epochs - recipe.averaged_epochs:
                weights = model.trainable_parameters()
                total = weights if total is None else tree_map(mx.add, total, weights)
                mx.eval(total)
    count = recipe.runs * min(recipe.averaged_epochs, epochs)
    model.update(tree_map(lambda weight: weight / count, total))
    mx.eval(model.parameters())
    return model


def predict(model: BertClassifier, encoded: Encoded, rows: np.ndarray) -> np.ndarray:
    """Logits (len(rows), K) float64 in inference mode, of one row or more."""
    model.eval()
    logits = np.empty((len(rows), model.classifier.weight.shape[0]))
    for batch in inference_batches(encoded.lengths(rows)):
        logits[batch] = np.array(model.forward_from(*encoded.batch(rows[batch]), encoded.start), np.float64)
    return logits


def _train(
    model: BertClassifier, encoded: Encoded, labels: np.ndarray, rows: np.ndarray, recipe: Recipe, loss: Loss,
    rng: np.random.Generator, run: int, phase: str, progress: Listener, divide: Divide | None,
) -> Iterator[int]:  # fmt: skip
    """Train, and yield the number of each finished epoch."""
    mx.random.seed(int(rng.integers(2**31)))
    _freeze_below(model, encoded.start)
    model.train()
    steps = recipe.steps_of_run(len(rows))
    optimizer = _optimizer(recipe, steps)

    def loss_and_logits(
        model: BertClassifier, hidden: mx.array, mask: mx.array, targets: mx.array, step: int
    ) -> tuple[mx.array, mx.array]:
        logits = model.forward_from(hidden, mask, encoded.start)
        return loss(logits, targets, step), logits

    gradient = nn.value_and_grad(model, loss_and_logits)
    if divide is not None:
        gradient = divide(model, gradient)
    step = epoch = 0
    while step < steps:
        start, losses, logits, seen = time.monotonic(), [], [], []
        for batch in islice(encoded.training_batches(rows, recipe.batch_rows, rng), steps - step):
            (value, output), gradients = gradient(model, *encoded.batch(batch), mx.array(labels[batch]), step)
            gradients, _ = optim.clip_grad_norm(gradients, MAX_GRADIENT_NORM)
            optimizer.update(model, gradients)
            mx.eval(model.parameters(), optimizer.state, value, output)
            losses.append(value.item() * len(batch))
            logits.append(np.array(output))
            seen.append(batch)
            step += 1
            progress.advance()
        epoch, order = epoch + 1, np.concatenate(seen)
        if not np.isfinite(losses).all() or not np.isfinite(logits[-1]).all():
            raise TrainingError(f"{phase}, epoch {epoch}: the loss is not a finite number; lower --learning-rate")
        diagnostics = EpochDiagnostics.of(
            np.concatenate(logits), labels[order], loss.classes, phase=phase, run=run + 1, epoch=epoch,
            loss=sum(losses) / len(order), seconds=time.monotonic() - start,
        )  # fmt: skip
        progress.epoch(diagnostics)
        yield epoch


def _has_collapsed(model: BertClassifier, encoded: Encoded, rows: np.ndarray) -> bool:
    """Whether the model tells no text from another, whatever it says of them all."""
    logits = predict(model, encoded, rows[:: -(-len(rows) // COLLAPSE_ROWS)])
    if not np.isfinite(logits).all():
        return True
    return bool(np.ptp(logits - logits.mean(axis=1, keepdims=True), axis=0).max() < SAME_LOGITS)


def _freeze_below(model: BertClassifier, start: int) -> None:
    model.freeze()
    for layer in model.bert.encoder.layer[start:]:
        layer.unfreeze()
    model.bert.pooler.unfreeze()
    model.classifier.unfreeze()


def _optimizer(recipe: Recipe, steps: int) -> optim.Optimizer:
    """AdamW (Loshchilov & Hutter, 2019), the head with its own learning rate; linear warm-up and linear decay.

    With the correction of its bias, which BERT's own training left out: without it the first steps are several times
    too large, and fine-tuning on few rows is unstable (Zhang et al., 2021, section 4).
    """

    def adam(rate: float) -> optim.Optimizer:
        schedule = _schedule(rate, recipe, steps)
        return optim.AdamW(schedule, weight_decay=recipe.weight_decay, bias_correction=True)

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
