"""Read the encoder of a BERT checkpoint in safetensors, whoever wrote it, as float32 under the names that we have.

Checkpoints differ in a prefix ("bert." before all, or nowhere), in what layer norm's parameters are called (gamma and
beta in TensorFlow's, as google-bert's still are), in whether there is a pooler and which task's head is beside it, in
precision, and in all names by architecture (`models.bert.layouts`). MLX's reader is never given the file: it takes
eight-bit floats for integers, and others not at all.
"""

import json
import math
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from models.bert.layouts.layout import Layout

LFS_POINTER = b"version https://git-lfs"
READ_AS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
RENAMED = {".gamma": ".weight", ".beta": ".bias"}
Shapes = Mapping[str, tuple[int, ...]]


class CheckpointError(ValueError):
    """A file of weights that cannot be used; the message names it, and what is wrong with it."""


class Checkpoint:
    """The header of a checkpoint, checked against the ``expected`` tensors of an encoder in a layout: name → shape.

    Raises CheckpointError, OSError. A pooler may be missing; ``unused`` are the tensors of the file that no parameter
    is made from, such as a task's head.
    """

    def __init__(self, path: Path, expected: Shapes, layout: Layout):
        self._path, self._expected, self._layout = path, expected, layout
        self._pooler = layout.tensor("bert.pooler.dense")
        refuse_pointer(path)
        header, self._start = self._read_header()
        keys: dict[str, str] = {}
        for key in header:
            name = self._canonical(key)
            if name in keys and name in expected:
                raise self._error(f"{keys[name]} and {key} are the same parameter")
            keys[name] = key
        self._tensors = {name: header[keys[name]] for name in expected if name in keys}
        # Position ids are no weights: they count from 0.
        self.unused = tuple(
            sorted(key for name, key in keys.items() if name not in expected and "position_ids" not in name)
        )
        self._check(header)

    def _error(self, reason: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {reason}")

    def _read_header(self) -> tuple[dict[str, Any], int]:
        try:
            # It checks that the tensors fill the file without a gap.
            with safe_open(self._path, framework="numpy"):
                pass
        except SafetensorError as error:
            raise self._error(f"it is cut, or no safetensors file ({str(error)[:100]}); fetch it again") from error
        with self._path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return header, 8 + length

    def _check(self, header: Mapping[str, Any]) -> None:
        missing = [name for name in self._expected if name not in self._tensors]
        if missing := [name for name in missing if self.has_pooler or not name.startswith(self._pooler)]:
            first = next(iter(header), "nothing")
            raise self._error(f"it has no tensor {missing[0]}; it holds {len(header)}, the first is {first}")
        for key in self.unused:
            if (name := self._canonical(key)).startswith(self._layout.tensor("bert.encoder.layer")):
                raise self._error(f"it has a tensor {key}, for which the model of its config.json has no place: {name}")
        for name, tensor in self._tensors.items():
            shape = tuple(tensor["shape"])
            if tensor["dtype"] not in READ_AS:
                kinds = ", ".join(READ_AS)
                raise self._error(f"{name} has dtype {tensor['dtype']}, which is not read; it must be one of {kinds}")
            if shape != tuple(self._expected[name]):
                raise self._error(f"{name} has shape {shape}, its config.json says {tuple(self._expected[name])}")

    @property
    def has_pooler(self) -> bool:
        return any(name.startswith(self._pooler) for name in self._tensors)

    def _canonical(self, key: str) -> str:
        """A tensor's key → its name in the layout, with the prefix and the names of today."""
        for old, new in RENAMED.items():
            if key.endswith(old):
                key = key.removesuffix(old) + new
        prefix = self._layout.encoder
        return key if key.startswith(prefix) or key in self._expected else prefix + key

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each parameter's name and its values, float32 and finite; raises CheckpointError, OSError."""
        with self._path.open("rb") as file:
            for name, tensor in self._tensors.items():
                yield name, self._values(file, name, tensor)

    def _values(self, file: BufferedReader, name: str, tensor: Mapping[str, Any]) -> np.ndarray:
        shape, dtype = tensor["shape"], np.dtype(READ_AS[tensor["dtype"]])
        file.seek(self._start + tensor["data_offsets"][0])
        content = file.read(math.prod(shape) * dtype.itemsize)
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise self._error(f"the file ends inside {name}")
        values = np.frombuffer(content, dtype).reshape(shape)
        with np.errstate(over="ignore"):
            # bfloat16 is the upper half of a float32.
            single = (values.astype("<u4") << 16).view("<f4") if tensor["dtype"] == "BF16" else values.astype("<f4")
        if not np.isfinite(single).all():
            raise self._error(f"{name} holds a value that is not finite in float32")
        return single


def refuse_pointer(path: Path) -> None:
    """Raise CheckpointError for a file that Git LFS has not fetched yet."""
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise CheckpointError(
                f"{path} is a pointer that Git LFS left in place of the file: call `git lfs pull` in {path.parent}"
            )
