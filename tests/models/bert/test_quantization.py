"""Rounded weights: no weight moves further than its form allows, and parts of a matrix are parts of the whole."""

import mlx.core as mx
import numpy as np
import pytest

from models.bert.quantization import GROUP_SIZE, QuantizedMatrix, quantize

WEIGHT = np.random.default_rng(0).normal(size=(48, 3 * GROUP_SIZE)).astype(np.float32)


def test_eight_bits_move_a_weight_by_half_a_scale_at_most() -> None:
    whole = np.array(QuantizedMatrix.of(mx.array(WEIGHT)).dequantize())
    groups = np.abs(WEIGHT).reshape(48, 3, GROUP_SIZE)
    scales = np.repeat(groups.max(axis=2) / 127, GROUP_SIZE, axis=1)
    moved = np.abs(whole - WEIGHT)
    assert (moved <= scales * 0.5001).all()
    assert moved.max() > 0.3 * scales.max()
    # The largest of each group is a code's own value.
    largest = groups.argmax(axis=2) + np.arange(0, WEIGHT.shape[1], GROUP_SIZE)
    assert np.allclose(np.take_along_axis(whole, largest, 1), np.take_along_axis(WEIGHT, largest, 1), rtol=1e-6)


def test_they_take_a_quarter_of_the_memory_and_a_scale_for_each_group() -> None:
    held = QuantizedMatrix.of(mx.array(WEIGHT))
    assert held.codes.nbytes == WEIGHT.size
    assert held.scales.nbytes == 4 * WEIGHT.size / GROUP_SIZE


@pytest.mark.parametrize("inputs", [5, GROUP_SIZE - 1, GROUP_SIZE, 2 * GROUP_SIZE])
def test_any_size_has_its_groups(inputs: int) -> None:
    weight = WEIGHT[:, :inputs]
    whole = np.array(QuantizedMatrix.of(mx.array(weight)).dequantize())
    assert whole.shape == weight.shape
    assert np.abs(whole - weight).max() <= np.abs(weight).max() / 127


def test_zeros_stay_zeros() -> None:
    assert not np.array(QuantizedMatrix.of(mx.zeros((3, GROUP_SIZE))).dequantize()).any()


def test_rows_of_it_are_rows_of_the_whole() -> None:
    held = QuantizedMatrix.of(mx.array(WEIGHT))
    whole = np.array(held.dequantize())
    assert np.array_equal(np.array(held[16:].dequantize()), whole[16:])
    ids = np.array([[3, 0, 47], [9, 9, 1]])
    assert np.array_equal(np.array(held[mx.array(ids)].dequantize()), whole[ids])


@pytest.mark.parametrize(("precision", "bits"), [("float16", 10), ("bfloat16", 7)])
def test_halves_keep_their_bits(precision: str, bits: int) -> None:
    half = quantize(mx.array(WEIGHT), precision)
    assert isinstance(half, mx.array)
    assert half.nbytes == 2 * WEIGHT.size
    relative = np.abs(np.array(half.astype(mx.float32)) - WEIGHT) / np.abs(WEIGHT)
    assert 2.0 ** -(bits + 2) < relative.max() <= 2.0 ** -(bits + 1)


def test_float32_is_left_alone() -> None:
    assert np.array_equal(np.array(quantize(mx.array(WEIGHT), "float32")), WEIGHT)
