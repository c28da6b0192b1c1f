"""AdamW for the CPU: MLX's own, with the update of one array in a single compiled pass where that can be had."""

import functools
import math
from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optim

from models.bert.kernels import native_compiler

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

Update = Callable[..., tuple[mx.array, mx.array, mx.array]]


def _update(
    p: mx.array, g: mx.array, m: mx.array, v: mx.array, rate: mx.array, scale: mx.array, decay: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    m = BETA_1 * m + (1 - BETA_1) * g
    v = BETA_2 * v + (1 - BETA_2) * (g * g)
    return p - rate * (m / (scale * mx.sqrt(v) + EPSILON)) - decay * p, m, v


@functools.cache
def _fastest_update() -> Update:
    """The compiled update; the plain one where MLX finds no compiler (its CPU back end compiles at run time)."""
    compiled = mx.compile(_update, shapeless=True)
    one = mx.ones((2,))
    try:
        with native_compiler():
            mx.eval(compiled(one, one, one, one, mx.array(0.1), mx.array(1.0), mx.array(0.0)))
    except (RuntimeError, OSError):
        return _update
    return compiled


class AdamW(optim.AdamW):
    """AdamW (Loshchilov & Hutter, 2019) with bias correction (Kingma & Ba, 2015, section 3).

    BERT's own training left the correction out, which makes the first steps several times too large and fine-tuning on
    few rows unstable (Zhang et al., 2021, section 4).
    """

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, mx.array]) -> mx.array:
        step = self.step.astype(mx.float32)
        # 1 − β^t without its cancellation.
        unbias_1, unbias_2 = (-1 / mx.expm1(math.log(beta) * step) for beta in (BETA_1, BETA_2))
        updated, state["m"], state["v"] = _fastest_update()(
            parameter, gradient, state["m"], state["v"], self.learning_rate * unbias_1, mx.sqrt(unbias_2),
            self.learning_rate * self.weight_decay,
        )  # fmt: skip
        return updated
