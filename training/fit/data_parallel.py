"""Ranks: processes that fine-tune one model together, each on its rows of every batch. ``mlx.launch`` starts them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from training.fit.process import FineTuningJob, run
from training.fit.progress import TrainingProgress

BACKENDS = ("ring", "nccl", "jaccl")
"""Of MLX, by what mlx.launch leaves for each. MPI is not tried: where its library lies about it would be started."""


@dataclass
class BatchShard:
    """This rank's rows ``own`` of the ``rows`` of the current batch."""

    rows: int = 0
    own: slice = field(default_factory=lambda: slice(0, 0))


class SharedDropout(nn.Module):
    """Dropout whose zeros do not depend on how a batch is divided: every rank draws all rows' and takes its own."""

    def __init__(self, kept: float, shard: BatchShard):
        super().__init__()
        self._kept, self._shard = kept, shard

    def __call__(self, x: mx.array) -> mx.array:
        """Hidden states (B·L, D) or (B, D) of the own B rows → the same, some of them zero."""
        if self._kept == 1 or not self.training:
            return x
        own = self._shard.own
        tokens = x.shape[0] // (own.stop - own.start)
        drawn = mx.random.bernoulli(self._kept, (self._shard.rows * tokens, *x.shape[1:]))
        return (drawn[own.start * tokens : own.stop * tokens] * x) * (1 / self._kept)


@dataclass(frozen=True)
class Ranks:
    """This process is number ``rank`` of ``size``, all of which call what follows in the same order."""

    group: mx.distributed.Group

    @property
    def rank(self) -> int:
        return self.group.rank()

    @property
    def size(self) -> int:
        return self.group.size()

    def agree(self, numbers: Sequence[int], count: int) -> list[int]:
        """Those of the numbers 0 … count − 1 that rank 0 has in ``numbers``."""
        chosen = np.isin(np.arange(count), numbers) & (self.rank == 0)
        agreed = mx.distributed.all_sum(mx.array(chosen.astype(np.int32)), group=self.group)
        return np.flatnonzero(np.array(agreed)).tolist()

    def parallel_gradient(self, model: nn.Module, gradient: Callable[..., Any]) -> Callable[..., Any]:
        """``gradient(model, hidden, mask, targets, step)`` → ((loss, logits), gradients) as a function of a whole
        batch of which each rank computes its rows; all get the same loss, logits and gradients of the whole.

        The loss must be a mean over rows. The model's dropout becomes `SharedDropout`.
        """
        shard = BatchShard()
        _share_dropout(model, shard)

        def parallel(model: nn.Module, hidden: mx.array, mask: mx.array, targets: mx.array, step: int) -> Any:
            rows = len(targets)
            first, stop = (rows * rank // self.size for rank in (self.rank, self.rank + 1))
            share = (stop - first) / rows
            # Without rows of its own a rank computes one that does not count.
            shard.rows, shard.own = rows, slice(first, stop) if share else slice(0, 1)
            own = shard.own
            (loss, logits), gradients = gradient(model, hidden[own], mask[own], targets[own], step)
            weighted = tree_map(lambda array: array * (share * self.size), gradients)
            gradients = nn.average_gradients(weighted, group=self.group)
            # The last row carries the loss, so that one reduction is enough.
            outputs = mx.zeros((rows + 1, logits.shape[1]))
            outputs[-1] = loss * share
            if share:
                outputs[own] = logits
            outputs = mx.distributed.all_sum(outputs, group=self.group)
            return (outputs[-1, 0], outputs[:-1]), gradients

        return parallel


def find_ranks() -> Ranks | None:
    """The ranks that mlx.launch started, this process among them; None when it did not, or started one only."""
    for backend in BACKENDS:
        group = mx.distributed.init(backend=backend)
        if group.size() > 1:
            return Ranks(group)
    return None


class NonRootDone(Exception):
    """All fine-tunings are done; only rank 0 goes on with their results."""


@dataclass(frozen=True)
class DataParallel:
    """An `executors.Executor`: all ranks do one fine-tuning after the other, each in a folder of its own.

    Raises NonRootDone in all but the first.
    """

    ranks: Ranks

    def __call__(self, work: Path, job: FineTuningJob, numbers: Sequence[int], progress: TrainingProgress) -> None:
        for number in self.ranks.agree(numbers, len(job.phases)):
            run(work, number, progress, self.ranks.parallel_gradient)
        if self.ranks.rank:
            raise NonRootDone


def _share_dropout(model: nn.Module, shard: BatchShard) -> None:
    def shared(module: nn.Module) -> nn.Module:
        return SharedDropout(module._p_1, shard) if isinstance(module, nn.Dropout) else module

    model.update_modules(tree_map(shared, model.leaf_modules(), is_leaf=nn.Module.is_module))
