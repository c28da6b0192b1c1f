"""The operators of the encoder, chosen by the device.

A GPU gets MLX's own. On a CPU three things decide:

- OpenBLAS multiplies up to half as fast again when few tokens are columns on the right of a product, not rows on its
  left. So hidden states, (T, D) to the reader, lie in memory as columns, (D, T): `linear` makes them so, and what
  follows keeps them so.
- MLX computes exp and erf value by value. Polynomials take their place (`exp`, `gelu`).
- An operator on a large array costs a pass over memory. `kernels.fused` makes several of them one.
"""

import functools
import math

import mlx.core as mx

from models.bert.kernels import fused
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
MIN_EXPONENT = -20.0
MIN_BIAS = -3e4
"""What is added to the scores of padding, in float16 too, which ends at 65504."""
SQUARINGS = 3


def on_gpu() -> bool:
    """Whether MLX computes on Metal or CUDA."""
    return mx.default_device().type == mx.DeviceType.gpu


def as_columns(x: mx.array) -> mx.array:
    """The same (T, D), laid out for the operators here."""
    return x if on_gpu() else mx.contiguous(x.T).T


def dequantize(weight: Weight) -> mx.array:
    """The matrix that is computed with: codes become float32, halves stay halves."""
    return weight.dequantize() if isinstance(weight, QuantizedMatrix) else weight


def linear(x: mx.array, weight: Weight, bias: mx.array) -> mx.array:
    """x (T, I), weight (O, I), bias (O,) → x Wᵀ + b, (T, O)."""
    if on_gpu():
        return mx.addmm(bias, x, dequantize(weight).T)
    return (dequantize(weight) @ x.T + bias[:, None]).T


def layer_norm(x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
    """x (T, D) → (x − mean)/√(variance + eps) · weight + bias over D (Ba et al., 2016)."""
    if on_gpu():
        return mx.fast.layer_norm(x, weight, bias, eps)
    columns, average = x.T, _average(x.shape[1])
    centred = columns - average @ columns
    scale = mx.rsqrt(average @ (centred * centred) + eps)
    return (centred * scale * weight[:, None] + bias[:, None]).T


@functools.cache
def _average(size: int) -> mx.array:
    """(1, D) of 1/D: the mean as a matrix product, which is the fastest sum there is on a CPU."""
    row = mx.full((1, size), 1 / size)
    mx.eval(row)
    return row


def attention(q: mx.array, k: mx.array, v: mx.array, bias: mx.array | None, texts: int, heads: int) -> mx.array:
    """Softmax(q kᵀ + bias) v per text and head (Vaswani et al., 2017); the scale is already in q.

    q (B·M, D), k and v (B·L, D), tokens of one text after the other; bias (B, L) of the keys → (B·M, D).
    """
    B, D = texts, q.shape[1]
    if on_gpu():
        split = [x.reshape(B, -1, heads, D // heads).transpose(0, 2, 1, 3) for x in (q, k, v)]
        mask = None if bias is None else mx.maximum(bias, MIN_BIAS).astype(q.dtype)[:, None, None, :]
        y = mx.fast.scaled_dot_product_attention(*split, scale=1.0, mask=mask)
        return y.transpose(0, 2, 1, 3).reshape(-1, D)
    # (B, heads, D/heads, tokens) each, so that nothing needs to be transposed again.
    q, k, v = (mx.contiguous(x.T.reshape(heads, D // heads, B, -1).transpose(2, 0, 1, 3)) for x in (q, k, v))
    scores = k.swapaxes(-1, -2) @ q
    if bias is not None:
        scores = scores + bias[:, None, :, None]
    weights: mx.array = exp(scores - mx.stop_gradient(mx.max(scores, axis=-2, keepdims=True)))  # type: ignore[assignment]
    y = v @ (weights / mx.sum(weights, axis=-2, keepdims=True))
    return y.transpose(1, 2, 0, 3).reshape(D, -1).T


def _exp(x: mx.array) -> mx.array:
    t = mx.maximum(x, MIN_EXPONENT) * 2.0**-SQUARINGS
    t2 = t * t
    t4 = t2 * t2
    power = ((1.0 + t) + (1 / 2 + t * (1 / 6)) * t2) + ((1 / 24 + t * (1 / 120)) + (1 / 720 + t * (1 / 5040)) * t2) * t4
    for _ in range(SQUARINGS):
        power = power * power
    return power


@mx.custom_function
def exp(x: mx.array) -> mx.array:
    """e^x for x ≤ 0, to 1e-6: Taylor's polynomial of e^(x/8), squared three times. Below −20 it stays at 1e-10."""
    result: mx.array = fused(_exp)(x)
    return result


@exp.vjp
def _exp_vjp(x: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent * output


# Both polynomials in Estrin's form: MLX fuses expressions up to eleven operators deep.
def _ratio(y: mx.array) -> mx.array:
    t = y * y
    t2 = t * t
    t4 = t2 * t2
    p = ((P[0] + P[1] * t) + (P[2] + P[3] * t) * t2) + ((P[4] + P[5] * t) + P[6] * t2) * t4
    q = ((Q[0] + Q[1] * t) + (Q[2] + Q[3] * t) * t2) + Q[4] * t4
    return p / q


def _gelu(x: mx.array) -> mx.array:
    y = mx.minimum(mx.maximum(x, -MAX_NORMAL), MAX_NORMAL)
    return 0.5 * x + (x * y) * _ratio(y)


def _normal_cdf(x: mx.array) -> mx.array:
    y = mx.minimum(mx.maximum(x, -MAX_NORMAL), MAX_NORMAL)
    return 0.5 + y * _ratio(y)


def _half_square(x: mx.array) -> mx.array:
    return -0.5 * (x * x)


def _gelu_cotangent(cotangent: mx.array, x: mx.array, cdf: mx.array, exponential: mx.array) -> mx.array:
    return cotangent * (cdf + (x * (1 / math.sqrt(2 * math.pi))) * exponential)


@mx.custom_function
def _rational_gelu(x: mx.array) -> mx.array:
    return fused(_gelu)(x)


@_rational_gelu.vjp
def _rational_gelu_vjp(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
    density = fused(_exp)(fused(_half_square)(x))
    return fused(_gelu_cotangent)(cotangent, x, fused(_normal_cdf)(x), density)


def gelu(x: mx.array) -> mx.array:
    """x Φ(x), Φ the normal distribution function (Hendrycks & Gimpel, 2016), exact to 2e-6 (1 + |x|)."""
    if on_gpu():
        return x * 0.5 * (1 + mx.erf(x * math.sqrt(0.5)))
    result: mx.array = _rational_gelu(x)  # type: ignore[assignment]
    return result
