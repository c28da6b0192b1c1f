"""Read a safetensors file, checked against the network it must hold, without any library's reader.

MLX's reader crashes on crafted headers and accepts wrapped sizes, so every number of the header is checked here first.
"""

import hashlib
import json
import math
import os
from io import BufferedReader
from typing import Any

import numpy as np

MAX_HEADER_BYTES = 1 << 20
"""Five times what the largest accepted network needs."""
CHUNK = 1 << 18
BOUNDS = {
    "vocab_size": 500_000, "hidden_size": 8192, "num_hidden_layers": 96, "num_attention_heads": 128,
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
            raise WeightsError(f"{field} is {repr(value)[:80]}; it must be an integer from 1 to {most}")
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


def read_weights(file: BufferedReader, expected: dict[str, tuple[int, ...]], sha256: str) -> dict[str, np.ndarray]:
    """Name → float32 array of exactly these tensors, gapless and finite, from a file with this hex sha256.

    What is returned is what was checked: the file is read once. Raises WeightsError.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    text = _header_text(file, int.from_bytes(start, "little"), size)
    spans = _layout(_header(text), expected, size - len(start) - len(text))
    digest = hashlib.sha256(start + text)
    tensors: dict[str, np.ndarray] = {}
    for name in spans:
        # In the file's order, each into memory of its own: a reader may drop one after the other.
        tensors[name] = np.empty(expected[name], "<f4")
        place = tensors[name].reshape(-1).view(np.uint8).data
        if file.readinto(place) != place.nbytes:
            raise WeightsError(f"the file ends inside tensor {name}")
        digest.update(place)
    if digest.hexdigest() != sha256:
        raise WeightsError("the file was changed: its sha256 is not the manifest's")
    for name, tensor in tensors.items():
        flat = tensor.reshape(-1)
        if not all(np.isfinite(flat[first : first + CHUNK]).all() for first in range(0, flat.size, CHUNK)):
            raise WeightsError(f"tensor {name} holds a value that is not finite")
    return tensors


def _layout(header: dict[str, Any], expected: dict[str, tuple[int, ...]], size: int) -> list[str]:
    """The tensors in the order of their data, which fill ``size`` bytes without a gap."""
    spans = [(*_span(name, header.pop(name, None), shape), name) for name, shape in expected.items()]
    if header:
        raise WeightsError(f"tensor {next(iter(header))[:80]} is not part of the model")
    # By place alone, so that of two that begin together it is not the model's first that is named.
    spans.sort(key=lambda span: span[0])
    position = 0
    for begin, end, name in spans:
        if begin != position:
            raise WeightsError(f"tensor {name} begins at byte {begin} of the data, not at {position}")
        position = end
    if position != size:
        raise WeightsError(f"the data have {size} bytes, its tensors end at {position}")
    return [name for _, _, name in spans]


def _header_text(file: BufferedReader, length: int, size: int) -> bytes:
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise WeightsError(f"the header claims {length} bytes")
    return file.read(length)


def _header(text: bytes) -> dict[str, Any]:
    """The header without its metadata."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise WeightsError("the header names something twice")
        return dict(pairs)

    try:
        header = json.loads(text, object_pairs_hook=once)
    except WeightsError:
        raise
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"the header is not JSON: {type(error).__name__}") from error
    if not isinstance(header, dict):
        raise WeightsError("the header is not a JSON object")
    if header.pop("__metadata__", {"format": "pt"}) != {"format": "pt"}:
        raise WeightsError('the metadata are not {"format": "pt"}')
    return header


def _span(name: str, entry: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    if entry is None:
        raise WeightsError(f"tensor {name} is missing")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"tensor {name} is not described by dtype, shape and data_offsets")
    if entry["dtype"] != "F32":
        raise WeightsError(f"tensor {name} has dtype {str(entry['dtype'])[:20]!r}, it must be F32")
    if entry["shape"] != list(shape) or not all(type(one) is int for one in entry["shape"]):
        raise WeightsError(f"tensor {name} has shape {str(entry['shape'])[:60]}, it must be {list(shape)}")
    offsets = entry["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(one) is int for one in offsets):
        raise WeightsError(f"tensor {name} has offsets {str(offsets)[:60]}")
    if offsets[0] < 0 or offsets[1] - offsets[0] != 4 * math.prod(shape):
        raise WeightsError(
            f"tensor {name} spans bytes {offsets[0]} to {offsets[1]}, its shape needs {4 * math.prod(shape)}"
        )
    return offsets[0], offsets[1]
