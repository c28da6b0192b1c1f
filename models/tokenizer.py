"""Text → padded token ids, with the tokenizer.json of the bundle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import tokenizers


class Tokenizer:
    """A Hugging Face tokenizer that truncates at the encoder's limit and pads a batch to its own longest text."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, max_tokens: int):
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    @classmethod
    def load(cls, path: Path, max_tokens: int = 512) -> Self:
        """Read ``tokenizer.json``; raises ValueError when it is not one."""
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)), max_tokens)
        except Exception as error:  # The library raises bare Exception.
            raise ValueError(f"{path} is not a tokenizer: {error}") from error

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, with [CLS] and [SEP], unpadded."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids per row → ids and mask, both (B, L) int32, L the longest row, at least 1."""
        length = max(map(len, rows), default=1)
        ids = np.zeros((len(rows), length), np.int32)
        mask = np.zeros((len(rows), length), np.int32)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return ids, mask

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """texts → ids and mask, both (B, L) int32."""
        return self.pad(self.token_ids(texts))

    def largest_id(self) -> int:
        """The largest token id that it can give."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)

    def to_json(self) -> str:
        """The content of ``tokenizer.json``."""
        return self._tokenizer.to_str(pretty=False)
