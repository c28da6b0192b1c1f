"""Stream parallelism: the same logits, however the rows are split."""

import mlx.core as mx
import msgspec
import numpy as np
import pytest

from models.bert.classifier import from_pretrained
from models.engines.backend import prepare
from models.engines.streams import GPU_ROWS, STREAM_ROWS, StreamParallel
from training.fit.pretrained import find_base


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 20000, (37, 24)).astype(np.int32)
    return ids, (np.arange(24) < rng.integers(1, 25, 37)[:, None]).astype(np.int32)


def test_a_row_does_not_depend_on_its_stream(batch: tuple[np.ndarray, np.ndarray]) -> None:
    backend = prepare()
    base, _ = find_base(None)
    model = from_pretrained(base.config, base.weights, seed=1)
    model.eval()
    ids, mask = batch
    whole = np.array(model(mx.array(ids), mx.array(mask)))
    for cores in (1, 2, 3, 8):
        parallel = StreamParallel(msgspec.structs.replace(backend, device="cpu", threads=cores))
        assert parallel.rows == STREAM_ROWS * cores
        for rows in (1, 2, 4, 5, 9, 37):
            found = parallel(model, ids[:rows], mask[:rows])
            assert found.shape == (rows, 2)
            assert np.abs(found - whole[:rows]).max() < 1e-5


def test_a_stream_computes_no_column_that_is_padding_in_all_its_rows() -> None:
    seen: list[tuple[tuple[int, ...], bool]] = []

    def model(ids: mx.array, mask: mx.array | None) -> mx.array:
        seen.append((ids.shape, mask is not None))
        return mx.zeros((len(ids), 2))

    lengths = np.repeat([3, 5, 7, 7], 8)
    mask = (np.arange(12) < lengths[:, None]).astype(np.int32)
    parallel = StreamParallel(msgspec.structs.replace(prepare(), device="cpu", threads=2))
    assert parallel(model, np.ones_like(mask), mask).shape == (32, 2)
    assert seen == [((16, 5), True), ((16, 7), False)]


def test_a_gpu_has_one_stream(batch: tuple[np.ndarray, np.ndarray]) -> None:
    parallel = StreamParallel(msgspec.structs.replace(prepare(), device="metal", threads=0))
    calls: list[int] = []

    def model(ids: mx.array, mask: mx.array | None) -> mx.array:
        assert mask is not None
        calls.append(len(ids))
        return mx.stack([(ids * mask).sum(axis=1), mask.sum(axis=1)], axis=1).astype(mx.float32)

    found = parallel(model, *batch)
    assert parallel.rows == GPU_ROWS
    assert calls == [37]
    assert np.array_equal(found, np.stack([(batch[0] * batch[1]).sum(axis=1), batch[1].sum(axis=1)], axis=1))
