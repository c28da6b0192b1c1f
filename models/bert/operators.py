"""The operators of the encoder: MLX's own, but for GELU on a CPU, where MLX takes four times as long for erf."""

import math
from collections.abc import Sequence

import mlx.core as mx

from models.bert.quantization import QuantizedMatrix, Weight

ERF_NUMERATOR = (
    -1.60960333262415e-02, -2.95459980854025e-03, -7.34990630326855e-04, -5.69250639462346e-05,
    -2.10102402082508e-06, 2.77068142495902e-08, -2.72614225801306e-10,
)  # fmt: skip
ERF_DENOMINATOR = (
    -1.42647390514189e-02, -7.37332916720468e-03, -1.68282697438203e-03, -2.13374055278905e-04,
    -1.45660718464996e-05,
)  # fmt: skip
"""erf(x) ≈ x P(x²)/Q(x²) on [−4, 4], coefficients from the constant up, within a few units of the last place of
float32 (Eigen's ``erf_float``)."""
MAX_NORMAL = 4 * math.sqrt(2)
"""Beyond this Φ is 0 or 1 to float32."""
# With y = x clipped: Φ(x) − ½ = ½ erf(y/√2) = y P(y²)/Q(y²) with the powers of ½ and the factor in the coefficients.
P = tuple(c * 0.5**i * math.sqrt(0.125) for i, c in enumerate(ERF_NUMERATOR))
Q = tuple(c * 0.5**i for i, c in enumerate(ERF_DENOMINATOR))
MIN_BIAS = -3e4
"""What is added to the scores of padding, in float16 too, which ends at 65504."""


def on_gpu() -> bool:
    """Whether MLX computes on Metal or CUDA."""
    return mx.default_device().type == mx.DeviceType.gpu


def dequantize(weight: Weight) -> mx.array:
    """The matrix that is computed with: codes become float32, halves stay halves."""
    return weight.dequantize() if isinstance(weight, QuantizedMatrix) else weight


def linear(x: mx.array, weight: Weight, bias: mx.array) -> mx.array:
    """x (T, I), weight (O, I), bias (O,) → x Wᵀ + b, (T, O)."""
    return mx.addmm(bias, x, dequantize(weight).T)


def attention(q: mx.array, k: mx.array, v: mx.array, bias: mx.array | None, texts: int, heads: int) -> mx.array:
    """Softmax(q kᵀ + bias) v per text and head (Vaswani et al., 2017); the scale is already in q.

    q (B·M, D), k and v (B·L, D), tokens of one text after the other; bias (B, L) of the keys → (B·M, D).
    """
    B, D = texts, q.shape[1]
    split = [x.reshape(B, -1, heads, D // heads).transpose(0, 2, 1, 3) for x in (q, k, v)]
    mask = None if bias is None else mx.maximum(bias, MIN_BIAS).astype(q.dtype)[:, None, None, :]
    y = mx.fast.scaled_dot_product_attention(*split, scale=1.0, mask=mask)
    return y.transpose(0, 2, 1, 3).reshape(-1, D)


def _normal_cdf(x: mx.array) -> mx.array:
    y = mx.clip(x, -MAX_NORMAL, MAX_NORMAL)
    t = y * y
    return 0.5 + y * (_polynomial(P, t) / _polynomial(Q, t))


def _polynomial(coefficients: Sequence[float], t: mx.array) -> mx.array:
    value = coefficients[-1] * t + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * t + coefficient
    return value


@mx.custom_function
def _rational_gelu(x: mx.array) -> mx.array:
    return x * _normal_cdf(x)


@_rational_gelu.vjp
def _rational_gelu_vjp(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
    density = mx.exp(-0.5 * (x * x)) * (1 / math.sqrt(2 * math.pi))
    return cotangent * (_normal_cdf(x) + x * density)


def gelu(x: mx.array) -> mx.array:
    """x Φ(x), Φ the normal distribution function (Hendrycks & Gimpel, 2016), exact to 2e-6 (1 + |x|)."""
    if on_gpu():
        return x * 0.5 * (1 + mx.erf(x * math.sqrt(0.5)))
    result: mx.array = _rational_gelu(x)  # type: ignore[assignment]
    return result
