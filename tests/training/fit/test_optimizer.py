"""AdamW against its closed form, step by step in float64."""

import mlx.core as mx
import numpy as np

from training.fit.optimizer import AdamW


def test_steps_equal_the_papers() -> None:
    rng = np.random.default_rng(0)
    p, rate, decay = rng.normal(size=(7, 5)), 0.01, 0.1
    m, v = np.zeros_like(p), np.zeros_like(p)
    optimizer, parameters = AdamW(rate, weight_decay=decay), {"w": mx.array(p.astype(np.float32))}
    for step in range(1, 12):
        g = rng.normal(size=p.shape) * 10.0 ** rng.integers(-4, 3)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        p = p - rate * (m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8) + decay * p)
        parameters = optimizer.apply_gradients({"w": mx.array(g.astype(np.float32))}, parameters)
        mx.eval(parameters, optimizer.state)
        assert np.abs(np.array(parameters["w"]) - p).max() < 2e-6
