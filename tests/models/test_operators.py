"""GELU and its derivative against scipy in float64."""

import mlx.core as mx
import numpy as np
from scipy.stats import norm

from models.operators import gelu

X = np.concatenate([np.linspace(-12, 12, 4801), [-1e4, -40.0, 0.0, 40.0, 1e4]])


def test_gelu_is_exact_to_float32() -> None:
    exact = X * norm.cdf(X)
    assert np.all(np.abs(np.array(gelu(mx.array(X, mx.float32))) - exact) < 2e-6 * (1 + np.abs(X)))


def test_gelu_has_its_derivative() -> None:
    x = mx.array(X, mx.float32)
    _, (gradient,) = mx.vjp(gelu, [x], [mx.ones_like(x)])
    exact = norm.cdf(X) + X * norm.pdf(X)
    assert np.abs(np.array(gradient) - exact).max() < 1e-5
