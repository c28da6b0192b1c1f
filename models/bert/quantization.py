"""Weights rounded to fewer bits than float32: halves, and codes that become float32 again when they multiply."""

from dataclasses import dataclass

import mlx.core as mx

HALVES = {"float16": mx.float16, "bfloat16": mx.bfloat16}
GROUP_SIZE = 64
MAX_CODE = 127
"""Of the codes −127 … 127."""


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix (…, I) in eight bits: w ≈ scale · code, with a scale for each `GROUP_SIZE` weights of a row.

    codes (…, I / g, g) int8, scales (…, I / g, 1) float32; g is I where it is no multiple of `GROUP_SIZE`. A scale is
    the group's largest |w| / 127, so no weight moves by more than half a scale.
    """

    codes: mx.array
    scales: mx.array

    @classmethod
    def of(cls, weight: mx.array) -> "QuantizedMatrix":
        *outer, inputs = weight.shape
        grouped = weight.reshape(*outer, -1, inputs if inputs % GROUP_SIZE else GROUP_SIZE)
        # A group of zeros has a scale too.
        scales = mx.maximum(mx.max(mx.abs(grouped), axis=-1, keepdims=True), 1e-30) / MAX_CODE
        codes = mx.round(grouped / scales).astype(mx.int8)
        mx.eval(codes, scales)
        return cls(codes, scales)

    def __getitem__(self, rows: slice | mx.array) -> "QuantizedMatrix":
        return QuantizedMatrix(self.codes[rows], self.scales[rows])

    def dequantize(self) -> mx.array:
        """The matrix (…, I) float32 that the codes stand for."""
        return (self.codes.astype(mx.float32) * self.scales).flatten(-2)


Weight = mx.array | QuantizedMatrix


def quantize(weight: mx.array, precision: str) -> Weight:
    """A matrix of float32 in another precision."""
    if precision == "int8":
        return QuantizedMatrix.of(weight)
    if precision not in HALVES:
        return weight
    half = weight.astype(HALVES[precision])
    mx.eval(half)
    return half
