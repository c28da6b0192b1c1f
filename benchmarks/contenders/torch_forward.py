"""PyTorch through transformers' BertForSequenceClassification, float32."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from benchmarks.contenders.grouping import Grouped
from benchmarks.harness.machine import cores


def eager(bundle: Path, group_rows: int | None) -> tuple[str, Grouped]:
    return _load(bundle, group_rows, "eager")


def sdpa(bundle: Path, group_rows: int | None) -> tuple[str, Grouped]:
    return _load(bundle, group_rows, "sdpa")


def _load(bundle: Path, group_rows: int | None, attention: str) -> tuple[str, Grouped]:
    torch.set_num_threads(cores())
    model = AutoModelForSequenceClassification.from_pretrained(bundle, attn_implementation=attention).eval()

    def pairs(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            output = model(input_ids=torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask).long())
        result: np.ndarray = output.logits.numpy()
        return result

    grouped = Grouped(bundle, pairs, group_rows)
    return (
        f"transformers' model, attention {attention}, inference mode, {torch.get_num_threads()} threads, "
        f"rows sorted by length in groups of {grouped.rows}"
    ), grouped
