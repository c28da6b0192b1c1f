"""python -m benchmarks.contenders.torch_training CASE THREADS BUNDLE: the same optimisation step in PyTorch."""

import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from benchmarks.contenders import training_case, worker
from benchmarks.contenders.training_case import BATCH_ROWS, DROPOUT, RATES, Case
from models.bert.tokenizer import Tokenizer

OPTIMIZERS = ("fused", "foreach")
TRIAL_STEPS = 5


class Training:
    """transformers' model with SDPA, its frozen lower layers run once, the upper ones trained."""

    def __init__(self, case: Case):
        torch.set_num_threads(case.threads)
        torch.manual_seed(0)
        self._model = AutoModelForSequenceClassification.from_pretrained(
            case.bundle, attn_implementation="sdpa", hidden_dropout_prob=DROPOUT, attention_probs_dropout_prob=0.0
        )
        self._layers = self._model.bert.encoder.layer
        self._start = len(self._layers) - case.trained_layers(len(self._layers))
        texts, labels = training_case.rows()
        distinct, index = np.unique(np.array(texts, dtype=object), return_inverse=True)
        ids, mask = (
            torch.from_numpy(x).long() for x in Tokenizer.load(case.bundle / "tokenizer.json")(distinct.tolist())
        )
        self._index, self._labels, self._mask = torch.from_numpy(index), torch.from_numpy(labels), mask
        self._hidden = self._encode(ids, mask)
        self._check(ids, mask)
        alpha = torch.tensor([float(labels.mean()), 1 - float(labels.mean())])
        self._weights = alpha[self._labels]
        self._batches = self._endless_batches(np.random.default_rng(0))
        self._case = case
        self.optimizer = self._fastest()

    def steps(self, count: int) -> list[float]:
        """Seconds of ``count`` steps, after one that comes back from having been stopped."""
        self._step()
        return [self._timed() for _ in range(count)]

    def _encode(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self._model.eval()
        with torch.no_grad():
            x = self._model.bert.embeddings(ids)
            for layer in self._layers[: self._start]:
                x = layer(x, mask[:, None, None, :].bool())
        frozen: torch.Tensor = x
        return frozen

    def _upper(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states (B, L, D) before the trained layers → logits (B, 2)."""
        bias = None if mask.all() else mask[:, None, None, :].bool()
        for layer in self._layers[self._start :]:
            x = layer(x, bias)
        logits: torch.Tensor = self._model.classifier(self._model.dropout(self._model.bert.pooler(x)))
        return logits

    def _check(self, ids: torch.Tensor, mask: torch.Tensor) -> None:
        with torch.no_grad():
            whole = self._model(input_ids=ids[:32], attention_mask=mask[:32]).logits
            difference = (self._upper(self._hidden[:32], mask[:32]) - whole).abs().max().item()
        if difference > 1e-4:
            raise ValueError(f"the trained part and the whole model differ by {difference:.1e}")

    def _fastest(self) -> str:
        seconds = {}
        for name in OPTIMIZERS:
            self._begin(name)
            self._step()
            seconds[name] = float(np.median([self._timed() for _ in range(TRIAL_STEPS)]))
        chosen = min(seconds, key=lambda name: seconds[name])
        self._begin(chosen)
        return chosen

    def _begin(self, optimizer: str) -> None:
        self._model.train()
        self._model.requires_grad_(False)
        heads = [self._model.bert.pooler, self._model.classifier]
        for part in (*self._layers[self._start :], *heads):
            part.requires_grad_(True)
        rate, head_rate = RATES[self._case.name]
        head = [parameter for part in heads for parameter in part.parameters()]
        layers = list(self._layers[self._start :].parameters())
        self._parameters = [*head, *layers]
        groups = [{"params": head, "lr": head_rate}, {"params": layers, "lr": rate}]
        self._optimizer = torch.optim.AdamW(
            groups, weight_decay=training_case.WEIGHT_DECAY, **{optimizer: True}
        )  # fmt: skip
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: max(0.0, 1 - step / 1e6))

    def _endless_batches(self, rng: np.random.Generator) -> Iterator[torch.Tensor]:
        while True:
            yield from torch.from_numpy(rng.permutation(len(self._labels))).split(BATCH_ROWS)

    def _step(self) -> None:
        rows = next(self._batches)
        chosen = self._index[rows]
        mask = self._mask[chosen]
        length = int(mask.sum(dim=1).max())
        logits = self._upper(self._hidden[chosen, :length], mask[:, :length])
        loss = self._loss(logits, rows)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, training_case.MAX_GRADIENT_NORM, foreach=True)
        self._optimizer.step()
        self._schedule.step()
        loss.item(), logits.detach().numpy()

    def _loss(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """focal_smooth of training/losses/registry.py."""
        log_p = torch.log_softmax(logits, dim=1)
        smoothing = training_case.SMOOTHING
        targets = (1 - smoothing) * nn.functional.one_hot(self._labels[rows], 2) + smoothing / 2
        focused = torch.exp(training_case.GAMMA * log_p.flip(1)) * log_p
        return -(self._weights[rows] * (targets * focused).sum(dim=1)).mean()

    def _timed(self) -> float:
        start = time.perf_counter()
        self._step()
        return time.perf_counter() - start


def load(case: Case) -> tuple[str, worker.Commands]:
    training = Training(case)
    return f"transformers' model with SDPA, AdamW {training.optimizer}, gradients clipped foreach", {
        "steps": training.steps
    }


if __name__ == "__main__":
    case = training_case.read(*sys.argv[1:])
    worker.end(worker.answer(lambda: load(case)))
