"""Lanes: the same logits, however the rows are split."""

import mlx.core as mx
import msgspec
import numpy as np
import pytest

from models.backend import prepare
from models.classifier import from_pretrained
from models.lanes import GPU_ROWS, LANE_ROWS, Lanes
from training.pretrained import find_base


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 20000, (37, 24)).astype(np.int32)
    return ids, (np.arange(24) < rng.integers(1, 25, 37)[:, None]).astype(np.int32)


def test_a_row_does_not_depend_on_its_lane(batch: tuple[np.ndarray, np.ndarray]) -> None:
    backend = prepare()
    base, _ = find_base(None)
    model = from_pretrained(base.config, base.weights, seed=1)
    model.eval()
    ids, mask = batch
    whole = np.array(model(mx.array(ids), mx.array(mask)))
    for cores in (1, 2, 3, 8):
        lanes = Lanes(msgspec.structs.replace(backend, device="cpu", threads=cores))
        assert lanes.rows == LANE_ROWS * cores
        for rows in (1, 2, 4, 5, 9, 37):
            found = lanes(model, ids[:rows], mask[:rows])
            assert found.shape == (rows, 2)
            assert np.abs(found - whole[:rows]).max() < 1e-5


def test_a_gpu_has_one_lane(batch: tuple[np.ndarray, np.ndarray]) -> None:
    lanes = Lanes(msgspec.structs.replace(prepare(), device="metal", threads=0))
    calls: list[int] = []

    def model(ids: mx.array, mask: mx.array) -> mx.array:
        calls.append(len(ids))
        return mx.stack([ids.sum(axis=1), mask.sum(axis=1)], axis=1).astype(mx.float32)

    found = lanes(model, *batch)
    assert lanes.rows == GPU_ROWS
    assert calls == [37]
    assert np.array_equal(found, np.stack([batch[0].sum(axis=1), batch[1].sum(axis=1)], axis=1))
