"""AdamW for the CPU: MLX's own, with the update of one array in a single compiled pass where that can be had."""

import functools
from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optim

Update = Callable[..., tuple[mx.array, mx.array, mx.array]]


def _update(
    p: mx.array, g: mx.array, m: mx.array, v: mx.array, rate: mx.array, decay: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * (g * g)
    return p - rate * (m / (mx.sqrt(v) + 1e-8) + decay * p), m, v


@functools.cache
def _fastest_update() -> Update:
    """The compiled update; the plain one where MLX finds no compiler (its CPU back end compiles at run time)."""
    compiled = mx.compile(_update, shapeless=True)
    one = mx.ones((2,))
    try:
        mx.eval(compiled(one, one, one, one, mx.array(0.1), mx.array(0.0)))
    except RuntimeError:
        return _update
    return compiled


class AdamW(optim.AdamW):
    """AdamW (Loshchilov & Hutter, 2019) with β = (.9, .999), without bias correction as in BERT's own training."""

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, mx.array]) -> mx.array:
        updated, state["m"], state["v"] = _fastest_update()(
            parameter, gradient, state["m"], state["v"], self.learning_rate, mx.array(self.weight_decay)
        )
        return updated
