"""Text → padded token ids, with the tokenizer.json of the bundle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import tokenizers

from models.bert.tokenizer_schema import read_tokenizer_file


class Tokenizer:
    """BERT's tokenizer, which truncates at the encoder's limit and pads a batch to its own longest text."""

    def __init__(self, content: bytes, max_tokens: int):
        """From the content of a ``tokenizer.json``; raises ValueError when it is not a BERT's (tokenizer_schema)."""
        file = read_tokenizer_file(content)
        self.max_tokens, self.largest_id = max_tokens, file.largest_id()
        accepted = msgspec.json.encode(file)
        del file  # A vocabulary is in memory as few times as may be.
        self._tokenizer = tokenizers.Tokenizer.from_buffer(accepted)
        if self._tokenizer.num_special_tokens_to_add(False) >= max_tokens:
            raise ValueError(f"its special tokens alone fill the encoder's {max_tokens} places")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    @classmethod
    def load(cls, path: Path, max_tokens: int = 512) -> Self:
        """Read ``tokenizer.json``; raises ValueError when it is not one."""
        try:
            return cls(path.read_bytes(), max_tokens)
        except ValueError as error:
            raise ValueError(f"{path} is not a tokenizer that is understood: {error}") from error

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, with [CLS] and [SEP], unpadded."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids per row → ids and mask, both (B, L) int32, L the longest row, at least 1."""
        length = max(1, *map(len, rows)) if rows else 1
        ids = np.zeros((len(rows), length), np.int32)
        mask = np.zeros((len(rows), length), np.int32)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return ids, mask

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """texts → ids and mask, both (B, L) int32."""
        return self.pad(self.token_ids(texts))

    def to_json(self) -> str:
        """The content of ``tokenizer.json``."""
        return self._tokenizer.to_str(pretty=False)
