"""Read a safetensors file, checked against the network it must hold.

``safetensors`` checks the header: its form, and that the tensors fill the file without a gap. MLX's reader is never
given the file: it has ended the process on headers whose numbers are wrong, and accepted sizes that overflow.
"""

import hashlib
import os
from io import BufferedReader
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from models.bert.layouts.registry import LayoutError, layout_of

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
    """Name → shape of every float32 tensor of a classifier in its config's layout; raises WeightsError."""
    try:
        layout = layout_of(config)
    except LayoutError as error:
        raise WeightsError(str(error)) from error
    for name, highest in BOUNDS.items():
        field = layout.field(name)
        value = config.get(field)
        if name in layout.fixed:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= highest:
            raise WeightsError(f"{field} is {repr(value)[:80]}; it must be an integer from 1 to {highest}")
    network = layout.network(config)
    H, M, heads = network.hidden_size, network.intermediate_size, network.num_attention_heads
    if H % heads:
        size, parts = layout.field("hidden_size"), layout.field("num_attention_heads")
        raise WeightsError(f"{size} {H} is not a multiple of {parts} {heads}")

    def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (H,), f"{name}.bias": (H,)}

    tensors: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (network.vocab_size, H),
        "bert.embeddings.position_embeddings.weight": (network.max_position_embeddings, H),
    }
    if network.type_vocab_size:
        tensors["bert.embeddings.token_type_embeddings.weight"] = (network.type_vocab_size, H)
    tensors |= norm("bert.embeddings.LayerNorm")
    for number in range(network.num_hidden_layers):
        layer = f"bert.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            tensors |= linear(f"{layer}.attention.self.{part}", H, H)
        tensors |= linear(f"{layer}.attention.output.dense", H, H) | norm(f"{layer}.attention.output.LayerNorm")
        tensors |= linear(f"{layer}.intermediate.dense", M, H)
        tensors |= linear(f"{layer}.output.dense", H, M) | norm(f"{layer}.output.LayerNorm")
    tensors |= linear("bert.pooler.dense", H, H) | linear("classifier", len(config["id2label"]), H)
    return {layout.tensor(name): shape for name, shape in tensors.items()}


def read_weights(file: BufferedReader, expected: dict[str, tuple[int, ...]], sha256: str) -> dict[str, np.ndarray]:
    """Name → float32 array of exactly these tensors, gapless and finite, from a file with this hex sha256.

    The data are read once, and those bytes are what is checked and returned. Raises WeightsError, OSError.
    """
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, os.fstat(file.fileno()).st_size - 8):
        raise WeightsError(f"the header claims {length} bytes")
    names = _names_in_order(file, expected)
    digest = hashlib.sha256(start + file.read(length))
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        # Each into memory of its own: a reader may drop one after the other.
        tensors[name] = np.empty(expected[name], "<f4")
        buffer = tensors[name].reshape(-1).view(np.uint8).data
        if file.readinto(buffer) != buffer.nbytes:
            raise WeightsError(f"the file ends inside tensor {name}")
        digest.update(buffer)
    if digest.hexdigest() != sha256:
        raise WeightsError("the file was changed: its sha256 is not the manifest's")
    for name, tensor in tensors.items():
        flat = tensor.reshape(-1)
        if not all(np.isfinite(flat[first : first + CHUNK]).all() for first in range(0, flat.size, CHUNK)):
            raise WeightsError(f"tensor {name} holds a value that is not finite")
    return tensors


def _names_in_order(file: BufferedReader, expected: dict[str, tuple[int, ...]]) -> list[str]:
    """The tensors in the order of their data, which the library has checked to fill the file without a gap."""
    try:
        # The file that is open, whatever its path names by now.
        with safe_open(f"/dev/fd/{file.fileno()}", framework="numpy") as header:
            names = list(header.offset_keys())
            if strange := sorted(set(names) - set(expected)):
                raise WeightsError(f"tensor {strange[0][:80]} is not part of the model")
            for name, shape in expected.items():
                if name not in names:
                    raise WeightsError(f"tensor {name} is missing")
                _check(name, header.get_slice(name), shape)
            if header.metadata() not in (None, {}, {"format": "pt"}):
                raise WeightsError('the metadata are not {"format": "pt"}')
            return names
    except SafetensorError as error:
        raise WeightsError(str(error)[:200]) from error


def _check(name: str, tensor: Any, shape: tuple[int, ...]) -> None:
    if tensor.get_dtype() != "F32":
        raise WeightsError(f"tensor {name} has dtype {tensor.get_dtype()!r}, it must be F32")
    if tensor.get_shape() != list(shape):
        raise WeightsError(f"tensor {name} has shape {str(tensor.get_shape())[:60]}, it must be {list(shape)}")
