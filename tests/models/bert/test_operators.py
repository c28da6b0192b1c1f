"""Each operator against float64, in the form that a CPU gets and in that of a GPU."""

import math

import mlx.core as mx
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

from models.bert import operators
from models.bert.operators import attention, gelu, linear
from models.engines.backend import prepare

X = np.concatenate([np.linspace(-12, 12, 4801), [-1e4, -40.0, 0.0, 40.0, 1e4]])


@pytest.fixture(params=["for a CPU", "for a GPU"], autouse=True)
def _device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare()
    if request.param == "for a GPU":
        monkeypatch.setattr(operators, "on_gpu", lambda: True)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def single(array: np.ndarray) -> mx.array:
    return mx.array(array.astype(np.float32))


def test_gelu_is_exact_to_float32() -> None:
    exact = X * norm.cdf(X)
    assert np.all(np.abs(np.array(gelu(single(X))) - exact) < 2e-6 * (1 + np.abs(X)))


def test_gelu_has_its_derivative() -> None:
    x = single(X)
    _, (gradient,) = mx.vjp(gelu, [x], [mx.full(x.shape, 2.0)])
    exact = norm.cdf(X) + X * norm.pdf(X)
    assert np.abs(np.array(gradient) / 2 - exact).max() < 1e-5


@pytest.mark.parametrize("rows", [1, 20, 333])
def test_linear_is_exact_to_float32(rows: int) -> None:
    x, weight, bias = random(rows, 384), random(1536, 384, seed=1), random(1536, seed=2)
    y = np.array(linear(single(x), single(weight), single(bias)))
    assert np.abs(y - (x @ weight.T + bias)).max() < 1e-4 * math.sqrt(384)


@pytest.mark.parametrize(("texts", "queries", "keys"), [(1, 20, 20), (5, 17, 17), (5, 1, 17), (3, 1, 1)])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_is_exact_to_float32(texts: int, queries: int, keys: int, padded: bool) -> None:
    heads, size = 12, 32
    q, k, v = (random(texts, n, heads, size, seed=i) for i, n in enumerate((queries, keys, keys)))
    bias = np.where(np.arange(keys) < np.maximum(1, keys - np.arange(texts))[:, None], 0.0, -1e9)
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) + (bias[:, None, None, :] if padded else 0)
    exact = np.einsum("bhqk,bkhd->bqhd", softmax(scores, axis=-1), v).reshape(texts * queries, -1)
    flat = [single(x.reshape(-1, heads * size)) for x in (q, k, v)]
    y = attention(*flat, single(bias) if padded else None, texts, heads)
    assert np.abs(np.array(y) - exact).max() < 5e-5


def test_attention_has_its_derivatives() -> None:
    q, k, v, weights = (random(2 * 3, 8, seed=i) for i in range(4))

    def loss(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return (attention(q, k, v, None, 2, 2) * single(weights)).sum()

    gradients = mx.grad(loss, argnums=(0, 1, 2))(single(q), single(k), single(v))

    def exact(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> float:
        q, k, v = (x.reshape(2, 3, 2, 4) for x in (q, k, v))
        weight = softmax(np.einsum("bqhd,bkhd->bhqk", q, k), axis=-1)
        return float((np.einsum("bhqk,bkhd->bqhd", weight, v).reshape(6, 8) * weights).sum())

    step = 1e-5
    for place, gradient in enumerate(gradients):
        for index in ((0, 0), (3, 5), (5, 7)):
            moved = [[x.copy() for x in (q, k, v)] for _ in range(2)]
            moved[0][place][index] += step
            moved[1][place][index] -= step
            assert abs(np.array(gradient)[index] - (exact(*moved[0]) - exact(*moved[1])) / (2 * step)) < 1e-4
