"""Check a safetensors file against the network it must hold, before any library opens it.

MLX crashes on crafted headers and accepts wrapped sizes, so every number of the header is checked here first.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

MAX_HEADER_BYTES = 4 << 20
CHUNK = 1 << 20
BOUNDS = {
    "vocab_size": 1_000_000, "hidden_size": 8192, "num_hidden_layers": 96, "num_attention_heads": 128,
    "intermediate_size": 32_768, "max_position_embeddings": 32_768, "type_vocab_size": 16,
}  # fmt: skip
"""The largest accepted value of each field: beyond any BERT, so that a crafted config cannot ask for absurd sizes."""


class WeightsError(ValueError):
    """A configuration or tensor that is not what the classifier needs; the message names it."""


def expected_tensors(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name → shape of every float32 tensor of a two-label ``BertForSequenceClassification``; raises WeightsError."""
    for field, most in BOUNDS.items():
        value = config.get(field)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise WeightsError(f"{field} is {value!r}; it must be an integer from 1 to {most}")
    H, M = config["hidden_size"], config["intermediate_size"]
    if H % config["num_attention_heads"]:
        raise WeightsError(f"hidden_size {H} is not a multiple of num_attention_heads {config['num_attention_heads']}")

    def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (H,), f"{name}.bias": (H,)}

    tensors: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (config["vocab_size"], H),
        "bert.embeddings.position_embeddings.weight": (config["max_position_embeddings"], H),
        "bert.embeddings.token_type_embeddings.weight": (config["type_vocab_size"], H),
        **norm("bert.embeddings.LayerNorm"),
    }
    for number in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            tensors |= linear(f"{layer}.attention.self.{part}", H, H)
        tensors |= linear(f"{layer}.attention.output.dense", H, H) | norm(f"{layer}.attention.output.LayerNorm")
        tensors |= linear(f"{layer}.intermediate.dense", M, H)
        tensors |= linear(f"{layer}.output.dense", H, M) | norm(f"{layer}.output.LayerNorm")
    return tensors | linear("bert.pooler.dense", H, H) | linear("classifier", 2, H)


def check_weights(path: Path, expected: dict[str, tuple[int, ...]]) -> None:
    """Raise WeightsError unless the file holds exactly these tensors, float32, gapless and finite."""
    start, header = _header(path)
    spans = [(name, *_span(name, header.pop(name, None), shape)) for name, shape in expected.items()]
    if header:
        raise WeightsError(f"tensor {next(iter(header))} is not part of the model")
    position = 0
    for name, begin, end in sorted(spans, key=lambda span: span[1]):
        if begin != position:
            raise WeightsError(f"tensor {name} begins at byte {begin} of the data, not at {position}")
        position = end
    if start + position != path.stat().st_size:
        raise WeightsError(f"the file has {path.stat().st_size} bytes, its tensors end at {start + position}")
    data = np.memmap(path, np.uint8, "r", offset=start)
    for name, begin, end in spans:
        for chunk in range(begin, end, CHUNK):
            if not np.isfinite(data[chunk : min(chunk + CHUNK, end)].view("<f4")).all():
                raise WeightsError(f"tensor {name} holds a value that is not finite")


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the data begin, and the header without its metadata."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise WeightsError("the header names something twice")
        return dict(pairs)

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, path.stat().st_size - 8):
            raise WeightsError(f"the header claims {length} bytes")
        try:
            header = json.loads(file.read(length), object_pairs_hook=once)
        except WeightsError:
            raise
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"the header is not JSON: {type(error).__name__}") from error
    if not isinstance(header, dict):
        raise WeightsError("the header is not a JSON object")
    if header.pop("__metadata__", {"format": "pt"}) != {"format": "pt"}:
        raise WeightsError('the metadata are not {"format": "pt"}')
    return 8 + length, header


def _span(name: str, entry: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    if entry is None:
        raise WeightsError(f"tensor {name} is missing")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"tensor {name} is not described by dtype, shape and data_offsets")
    if entry["dtype"] != "F32":
        raise WeightsError(f"tensor {name} has dtype {str(entry['dtype'])[:20]!r}, it must be F32")
    if entry["shape"] != list(shape):
        raise WeightsError(f"tensor {name} has shape {str(entry['shape'])[:60]}, it must be {list(shape)}")
    offsets = entry["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(one) is int for one in offsets):
        raise WeightsError(f"tensor {name} has offsets {str(offsets)[:60]}")
    if offsets[0] < 0 or offsets[1] - offsets[0] != 4 * math.prod(shape):
        raise WeightsError(
            f"tensor {name} spans bytes {offsets[0]} to {offsets[1]}, its shape needs {4 * math.prod(shape)}"
        )
    return offsets[0], offsets[1]
