"""Operators that MLX's CPU back end computes element by element, written so that they vectorise."""

import math
from collections.abc import Sequence

import mlx.core as mx

ERF_NUMERATOR = (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
    -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
ERF_DENOMINATOR = (
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
    -1.42647390514189e-02,
)  # fmt: skip
"""erf(x) ≈ x P(x²)/Q(x²) on [−4, 4], within a few units of the last place of float32 (Eigen's ``erf_float``)."""


def _polynomial(coefficients: Sequence[float], t: mx.array) -> mx.array:
    value = coefficients[0] * t + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * t + coefficient
    return value


def _normal_cdf(x: mx.array) -> mx.array:
    y = mx.clip(x * math.sqrt(0.5), -4.0, 4.0)
    t = y * y
    return 0.5 + 0.5 * y * _polynomial(ERF_NUMERATOR, t) / _polynomial(ERF_DENOMINATOR, t)


@mx.custom_function
def _rational_gelu(x: mx.array) -> mx.array:
    return x * _normal_cdf(x)


@_rational_gelu.vjp
def _rational_gelu_vjp(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
    density = mx.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return cotangent * (_normal_cdf(x) + x * density)


def gelu(x: mx.array) -> mx.array:
    """x Φ(x), Φ the normal distribution function (Hendrycks & Gimpel, 2016), exact to 2e-6 (1 + |x|)."""
    if mx.default_device() == mx.Device(mx.gpu, 0):
        return x * 0.5 * (1 + mx.erf(x * math.sqrt(0.5)))
    result: mx.array = _rational_gelu(x)  # type: ignore[assignment]
    return result
