"""Text → padded token ids, with the tokenizer.json of the bundle."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import msgspec
import numpy as np
import tokenizers

from models.bert.tokenizer_schema import read_tokenizer_file


class TextMeasure(NamedTuple):
    """How long a text is and how far from the vocabulary: its tokens without special ones, and how many of them are
    ``rare``, the pieces after the first of a word that the vocabulary does not hold whole, and unknown ones."""

    tokens: int
    rare: int


class Tokenizer:
    """BERT's tokenizer, which truncates at the encoder's limit and pads a batch to its own longest text."""

    def __init__(self, content: bytes, max_tokens: int):
        """From the content of a ``tokenizer.json``; raises ValueError when it is not a BERT's (tokenizer_schema)."""
        file = read_tokenizer_file(content)
        self.max_tokens, self.largest_id = max_tokens, file.largest_id()
        prefix, unknown = file.model.continuing_subword_prefix, file.model.unk_token
        accepted = msgspec.json.encode(file)
        del file  # A vocabulary is in memory as few times as may be.
        self._tokenizer = tokenizers.Tokenizer.from_buffer(accepted)
        self._special = self._tokenizer.num_special_tokens_to_add(False)
        self._rare = {
            number for word, number in self._tokenizer.get_vocab().items()
            if word.startswith(prefix) or word == unknown
        }  # fmt: skip
        self._tokenizer.no_padding()
        if self._special >= max_tokens:
            raise ValueError(f"its special tokens alone fill the encoder's {max_tokens} places")
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

    def measure(self, texts: Sequence[str]) -> list[TextMeasure]:
        """Of each text, whole, what `TextMeasure` says."""
        return [
            TextMeasure(sum(map(len, parts)) - len(parts) * self._special, sum(map(self._count_rare, parts)))
            for parts in map(_parts, self._tokenizer.encode_batch_fast(list(texts)))
        ]

    def tokens_of_cut(self, texts: Sequence[str]) -> dict[int, int]:
        """The texts that are truncated, by number: the tokens that each would have, with [CLS] and [SEP]."""
        # A token is a byte of the text or more: what is short need not be tokenized for this.
        long = [number for number, text in enumerate(texts) if len(text.encode()) + self._special > self.max_tokens]
        measures = self.measure([texts[number] for number in long])
        tokens = {number: one.tokens + self._special for number, one in zip(long, measures, strict=True)}
        return {number: count for number, count in tokens.items() if count > self.max_tokens}

    def _count_rare(self, token_ids: Sequence[int]) -> int:
        return sum(map(self._rare.__contains__, token_ids))

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


def _parts(encoding: tokenizers.Encoding) -> list[list[int]]:
    """The token ids of a text, and those that truncation took from it, each part with the special tokens."""
    return [encoding.ids, *(part.ids for part in encoding.overflowing)]
