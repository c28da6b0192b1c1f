"""PyTorch through transformers' BertForSequenceClassification, on the GPU that it finds or else on the CPU."""

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


def bfloat16(bundle: Path, group_rows: int | None) -> tuple[str, Grouped]:
    return _load(bundle, group_rows, "sdpa", torch.bfloat16)


def float16(bundle: Path, group_rows: int | None) -> tuple[str, Grouped]:
    if _device() == "cpu":
        raise RuntimeError("float16 is for GPUs, there is none here")
    return _load(bundle, group_rows, "sdpa", torch.float16)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _load(
    bundle: Path, group_rows: int | None, attention: str, dtype: torch.dtype = torch.float32
) -> tuple[str, Grouped]:
    torch.set_num_threads(cores())
    device = _device()
    model = AutoModelForSequenceClassification.from_pretrained(bundle, attn_implementation=attention, dtype=dtype)
    model = model.eval().to(device)

    def pairs(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            inputs, attended = (torch.from_numpy(one).long().to(device) for one in (ids, mask))
            output = model(input_ids=inputs, attention_mask=attended)
        result: np.ndarray = output.logits.float().cpu().numpy()
        return result

    grouped = Grouped(bundle, pairs, group_rows)
    return (
        f"transformers' model on {device} in {str(dtype).removeprefix('torch.')}, attention {attention}, inference "
        f"mode, {torch.get_num_threads()} threads, "
        f"rows sorted by length in groups of {grouped.rows}"
    ), grouped
