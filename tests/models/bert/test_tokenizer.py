from pathlib import Path

import numpy as np
import pytest

from models.bert.tokenizer import Tokenizer
from training.fit.pretrained import find_base


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(find_base(None)[1], max_tokens=40)


def test_a_batch_is_padded_to_its_longest_text_and_no_further(tokenizer: Tokenizer) -> None:
    ids, mask = tokenizer(["a", "a b c d e f g h"])
    assert ids.shape == mask.shape == (2, 10)
    assert mask.sum(axis=1).tolist() == [3, 10]
    assert not ids[mask == 0].any()


def test_long_text_is_cut_and_keeps_its_end_mark(tokenizer: Tokenizer) -> None:
    ids, mask = tokenizer(["word " * 500])
    assert ids.shape == (1, 40)
    assert ids[0, -1] == tokenizer(["a"])[0][0, 2]
    assert mask.all()


def test_equal_to_transformers(tokenizer: Tokenizer, transformers_classifier: type) -> None:
    from transformers import AutoTokenizer

    peer = AutoTokenizer.from_pretrained(find_base(None)[1].parent)
    text = "third class boy, Master, no cabin, Ålesund ½"
    assert tokenizer.token_ids([text])[0] == peer(text)["input_ids"]


def test_no_texts_give_an_empty_batch(tokenizer: Tokenizer) -> None:
    ids, _ = tokenizer([])
    assert ids.shape[0] == 0
    assert ids.dtype == np.int32


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.json")
