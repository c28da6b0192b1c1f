"""An ONNX model in its wire format: what of ``onnx.proto`` a network of a few operators needs.

The numbers are those of the fields in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, and the encoding is
Protocol Buffers' (https://protobuf.dev/programming-guides/encoding).
"""

import struct
from collections.abc import Sequence

import numpy as np

IR_VERSION = 10
OPSET = 21
"""Of the standard operators: from here on `QuantizeLinear` has a scale for each row."""
CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}
FLOAT, INT, INTS = 1, 2, 7
"""Of `AttributeProto.AttributeType`."""
EXTERNAL = 1
"""Of `TensorProto.DataLocation`."""

Attribute = int | float | tuple[int, ...]


class Graph:
    """The nodes and tensors of a network, written one after the other.

    Values are known by name: each method returns the name of what it adds. ``weights`` are not in the model's bytes:
    they are handed to the runtime as they lie in memory.
    """

    def __init__(self) -> None:
        self.weights: dict[str, np.ndarray] = {}
        self._nodes: list[bytes] = []
        self._tensors: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """An input; a size that is a word is any size, the same wherever the word stands."""
        self._inputs.append(_value(name, dtype, shape))
        return name

    def output(self, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Make a value that is there an output."""
        self._outputs.append(_value(name, dtype, shape))

    def constant(self, value: np.ndarray) -> str:
        """A small tensor, which is in the model's bytes; equal ones are there once."""
        key = (value.dtype.name, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self._tensors.append(_tensor(self._constants[key], value) + _bytes(9, value.tobytes()))
        return self._constants[key]

    def weight(self, name: str, value: np.ndarray) -> str:
        """A large tensor, which the runtime gets beside the model's bytes."""
        self.weights[name] = value
        entries = {"location": "memory", "offset": "0", "length": str(value.nbytes)}
        external = b"".join(_bytes(13, _text(1, key) + _text(2, entry)) for key, entry in entries.items())
        self._tensors.append(_tensor(name, value) + external + _number(14, EXTERNAL))
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """A node with one output; an input "" is one that is left out."""
        name = f"{operator}_{len(self._nodes)}"
        node = b"".join(_text(1, value) for value in inputs) + _text(2, name) + _text(3, name) + _text(4, operator)
        node += b"".join(_bytes(5, _attribute(key, value)) for key, value in attributes.items())
        self._nodes.append(node + _text(7, domain))
        return name

    def serialize(self) -> bytes:
        """The model's bytes."""
        graph = b"".join(_bytes(1, node) for node in self._nodes) + _text(2, "bert")
        for field, parts in ((5, self._tensors), (11, self._inputs), (12, self._outputs)):
            graph += b"".join(_bytes(field, part) for part in parts)
        opsets = (_text(1, "") + _number(2, OPSET), _text(1, CONTRIB) + _number(2, 1))
        return _number(1, IR_VERSION) + _bytes(7, graph) + b"".join(_bytes(8, opset) for opset in opsets)


def _tensor(name: str, value: np.ndarray) -> bytes:
    """A `TensorProto` without its data."""
    sizes = b"".join(_number(1, size) for size in value.shape)
    return sizes + _number(2, ELEMENT_TYPES[value.dtype.name]) + _text(8, name)


def _value(name: str, dtype: str, shape: Sequence[int | str]) -> bytes:
    """A `ValueInfoProto`."""
    sizes = b"".join(_bytes(1, _text(2, size) if isinstance(size, str) else _number(1, size)) for size in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, ELEMENT_TYPES[dtype]) + _bytes(2, sizes)))


def _attribute(name: str, value: Attribute) -> bytes:
    """An `AttributeProto`."""
    if isinstance(value, float):
        return _text(1, name) + _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, FLOAT)
    if isinstance(value, tuple):
        return _text(1, name) + b"".join(_number(8, one) for one in value) + _number(20, INTS)
    return _text(1, name) + _number(3, value) + _number(20, INT)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; what is negative has 64 bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
