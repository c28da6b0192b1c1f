"""Texts before training: kept, kept in half, or computed anew, the hidden states are those of the frozen layers."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from models.bert.classifier import from_pretrained
from models.bert.tokenizer import Tokenizer
from tests.training.bases import write_base
from training.fit import encoding
from training.fit.encoding import Encoded, HiddenFile, Pretrained, encode, length_classes
from training.fit.pretrained import find_base

TEXTS = [
    "a short text", "a long text " * 9, "of a middling length " * 6, "a short text", "one", "a text " * 31,
]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pretrained, Tokenizer]:
    found, tokenizer = find_base(str(write_base(tmp_path_factory.mktemp("base") / "base")))
    return found, Tokenizer.load(tokenizer, found.max_tokens)


def expected(base: tuple[Pretrained, Tokenizer], text: str) -> np.ndarray:
    """Hidden states (L, D) of one text alone."""
    model = from_pretrained(base[0].config, base[0].weights, seed=0)
    model.eval()
    ids, mask = base[1]([text])
    return np.array(model.bert.hidden(mx.array(ids), mx.array(mask), 1))[0]


def check(encoded: Encoded, base: tuple[Pretrained, Tokenizer], tolerance: float) -> None:
    rows = np.array([4, 1, 0, 3, 5])
    hidden, mask = (np.array(each) for each in encoded.batch(rows))
    lengths = encoded.lengths(rows)
    assert hidden.shape == (5, lengths.max(), 32)
    assert mask.sum(axis=1).tolist() == lengths.tolist()
    for row, states, length in zip(rows.tolist(), hidden, lengths.tolist(), strict=True):
        alone = expected(base, TEXTS[row])
        assert len(alone) == length
        assert np.abs(states[:length] - alone).max() < tolerance


def test_kept_in_a_file_or_computed_anew_they_are_the_frozen_layers(
    base: tuple[Pretrained, Tokenizer], tmp_path: Path
) -> None:
    shares: list[float] = []
    kept = encode(*base, TEXTS, 1, tmp_path / "hidden.bin", listener=shares.append)
    assert shares[-1] == 1
    assert isinstance(kept.hidden, HiddenFile)
    assert kept.hidden.dtype == np.float32
    assert len(kept.offsets) == 6
    check(kept, base, 1e-5)
    check(encode(*base, TEXTS, 1), base, 1e-5)
    check(encode(*base, TEXTS, 1, keep=False), base, 1e-5)
    (tmp_path / "hidden.bin").write_bytes((tmp_path / "hidden.bin").read_bytes()[:-4])
    with pytest.raises(OSError, match=r"hidden\.bin ends early"):
        HiddenFile(tmp_path / "hidden.bin", 32, np.diff(kept.offsets), np.float32)(np.arange(5), 64)


def test_a_file_that_would_be_large_is_of_half_precision_and_a_larger_one_is_not_made(
    base: tuple[Pretrained, Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "HALF_ABOVE", 1000)
    kept = encode(*base, TEXTS, 1, tmp_path / "hidden.bin")
    assert isinstance(kept.hidden, HiddenFile)
    assert kept.hidden.dtype == np.float16
    check(kept, base, 5e-3)
    again = HiddenFile.of(tmp_path / "hidden.bin", 32, np.diff(kept.offsets))
    assert np.array_equal(np.array(again(np.array([1, 0]), 60)), np.array(kept.hidden(np.array([1, 0]), 60)))
    monkeypatch.setattr(encoding, "MAX_KEPT_BYTES", 1000)
    anew = encode(*base, TEXTS, 1, tmp_path / "none.bin")
    assert not (tmp_path / "none.bin").exists()
    check(anew, base, 1e-5)


def test_models_that_read_other_texts_share_what_is_equal(base: tuple[Pretrained, Tokenizer]) -> None:
    encoded = encode(*base, [["one", "two"], ["one", "three"]], 1)
    assert len(encoded.offsets) == 4
    assert encoded.index.tolist() == [[0, 2], [0, 1]]
    same = ["one", "two"]
    assert encode(*base, [same, same, same], 1).index.tolist() == [[0, 1]] * 3
    assert encoded.for_model(1).lengths(np.arange(2)).tolist() == [3, 3]


def of_lengths(lengths: np.ndarray) -> Encoded:
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return Encoded(
        np.zeros(int(offsets[-1]), np.int32), offsets, np.arange(len(lengths)), 0, lambda texts, longest: texts
    )


def test_texts_of_one_length_class_are_drawn_in_plain_random_order() -> None:
    rows = np.arange(100, 300)
    batches = list(of_lengths(np.full(300, 20)).training_batches(rows, 32, np.random.default_rng(3)))
    assert np.array_equal(np.concatenate(batches), np.random.default_rng(3).permutation(rows))


def test_batches_of_texts_of_different_lengths_hold_every_row_once_and_little_padding() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 120, 1000)
    encoded, rows = of_lengths(lengths), np.arange(1000)
    padding = 0
    for _ in range(3):
        batches = list(encoded.training_batches(rows, 32, rng))
        assert sorted(np.concatenate(batches).tolist()) == rows.tolist()
        assert len(batches) == 32
        padding += sum(len(batch) * lengths[batch].max() - lengths[batch].sum() for batch in batches)
        longest = [int(lengths[batch].max()) for batch in batches]
        assert longest != sorted(longest)
    assert padding < 0.2 * 3 * lengths.sum()
    random = rng.permutation(1000).reshape(-1, 25)
    assert padding < (lengths[random].max(axis=1) * 25).sum() - lengths.sum()


def test_length_classes() -> None:
    assert length_classes(np.array([3, 32, 33, 40, 41])).tolist() == [32, 32, 40, 40, 48]
