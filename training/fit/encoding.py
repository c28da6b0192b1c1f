"""Texts before training: token ids, and the hidden states that the frozen lower layers make of them.

The frozen layers are run once for each distinct text and what they give is kept in a file, or, where that would be too
large or each text is needed about once, anew for each batch. Texts go through the layers with others of their length.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import mlx.core as mx
import numpy as np

from models.bert.classifier import BertClassifier, from_pretrained
from models.bert.config import BertConfig
from models.bert.layouts.registry import layout_of
from models.bert.tokenizer import Tokenizer

INFERENCE_ROWS, INFERENCE_TOKENS = 64, 8192
"""Texts, and tokens with padding, that go through the layers at once: what they take in memory."""
SHORT_TOKENS, LENGTH_STEP = 32, 8
"""Texts up to the first are of one length class, longer ones in classes of the second: shorter texts gain little."""
WINDOW_BATCHES = 8
"""Training batches that are drawn together and then sorted by length: enough to save padding, few enough to stay
random."""
HALF_ABOVE = 1 << 30
"""Bytes of hidden states in single precision above which they are kept in half, which rounds logits by about 1e-3."""
MAX_KEPT_BYTES = 6 << 30
TOKENIZED_TEXTS = 4096
"""At once: Python's own lists of numbers take nine times the memory of the array they become."""

HiddenStates = Callable[[np.ndarray, int], mx.array]
"""(numbers of texts (B,), L) → hidden states (B, L, D) float32 of their first L tokens and of padding."""


@dataclass(frozen=True)
class Pretrained:
    """A pretrained encoder on disk: its ``config.json`` as a dictionary, and its weights.

    ``unused`` are tensors of the file that training leaves out, such as a task's head.
    """

    config: dict[str, Any]
    weights: Path
    unused: tuple[str, ...] = ()
    has_pooler: bool = True

    @property
    def network(self) -> BertConfig:
        """The network's shape."""
        return layout_of(self.config).network(self.config)

    @property
    def max_tokens(self) -> int:
        """Positions that the model has."""
        return self.network.max_position_embeddings

    def print_notes(self, quiet: bool) -> None:
        """Say on standard error, unless ``quiet``, what a user may not expect of it."""
        if self.unused and not quiet:
            print(f"training: of {self.weights} these are not used: {', '.join(self.unused)}", file=sys.stderr)
        if not self.has_pooler and not quiet:
            print(f"training: {self.weights} has no pooler: a new one is trained", file=sys.stderr)

    def first_trained(self, trained_layers: int) -> int:
        """The number of the lowest layer that is trained."""
        return max(0, self.network.num_hidden_layers - trained_layers)


class HiddenFile:
    """Hidden states of all texts in a file, each (L, D) float32 or float16, L the longest of its length class:
    `HiddenStates`.

    Read, not mapped: pages of a mapped file count as memory of the process.
    """

    def __init__(
        self, path: Path, width: int, lengths: np.ndarray, dtype: type[np.floating[Any]], temporary: Any = None
    ):  # fmt: skip
        """Of texts of these lengths (U,) tokens; a ``temporary`` file is kept as long as this is."""
        self.path, self.width, self.dtype = path, width, np.dtype(dtype)
        self._padded, self._temporary = padded_lengths(lengths), temporary
        self._starts = np.concatenate(([0], np.cumsum(self._padded, dtype=np.int64)))

    @classmethod
    def of(cls, path: Path, width: int, lengths: np.ndarray) -> Self:
        """An existing file, whose size tells its precision."""
        half = path.stat().st_size == 2 * width * int(padded_lengths(lengths).sum())
        return cls(path, width, lengths, np.float16 if half else np.float32)

    def __call__(self, texts: np.ndarray, longest: int) -> mx.array:
        hidden = np.zeros((len(texts), longest, self.width), self.dtype)
        with self.path.open("rb", buffering=0) as file:
            for row, text in enumerate(texts.tolist()):
                part = hidden[row, : self._padded[text]]
                if os.preadv(file.fileno(), [part.data], self._position(text)) != part.nbytes:
                    raise OSError(f"{self.path} ends early")
        return mx.array(hidden).astype(mx.float32)

    def write(self, texts: np.ndarray, hidden: np.ndarray) -> None:
        """Keep the states (B, L, D) of texts of one length class."""
        with self.path.open("r+b", buffering=0) as file:
            for text, states in zip(texts.tolist(), np.ascontiguousarray(hidden, self.dtype), strict=True):
                if os.pwrite(file.fileno(), states.data, self._position(text)) != states.nbytes:
                    raise OSError(f"no room for {self.path}")

    def _position(self, text: int) -> int:
        return int(self._starts[text]) * self.width * self.dtype.itemsize


class FrozenLayers:
    """The layers below ``start`` of a model in inference mode, run anew for each batch: `HiddenStates`."""

    def __init__(self, base: Pretrained, tokens: np.ndarray, offsets: np.ndarray, start: int):
        self._model: BertClassifier = from_pretrained(base.config, base.weights, seed=0)
        self._model.eval()
        self._tokens, self._offsets, self._start = tokens, offsets, start

    def __call__(self, texts: np.ndarray, longest: int) -> mx.array:
        starts, ends = self._offsets[texts], self._offsets[texts + 1]
        ids = np.zeros((len(texts), longest), np.int32)
        for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            ids[row, : end - start] = self._tokens[start:end]
        return self._model.bert.hidden(mx.array(ids), _mask(ends - starts, longest), self._start)


@dataclass(frozen=True)
class Encoded:
    """The distinct texts of n rows: ``tokens`` (T,) int32 of all, one text after the other, ``offsets`` (U + 1,) where
    each begins and the last ends; ``index``: row → text.

    ``index`` is (n,), or (m, n) for m models that read different texts of the same rows: see `for_model`. ``hidden`` is
    what the layers below ``start`` make of the tokens.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    index: np.ndarray
    start: int
    hidden: HiddenStates

    def for_model(self, model: int) -> Self:
        """The texts of one of the m models."""
        return replace(self, index=self.index[model])

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each row's text (B,)."""
        texts = self.index[rows]
        return np.asarray(self.offsets[texts + 1] - self.offsets[texts])

    def batch(self, rows: np.ndarray) -> tuple[mx.array, mx.array]:
        """Hidden states (B, L, D) and mask (B, L) of rows, L tokens the longest."""
        lengths = self.lengths(rows)
        longest = int(lengths.max())
        return self.hidden(self.index[rows], longest), _mask(lengths, longest)

    def training_batches(self, rows: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """The rows in random order, ``size`` at a time, those of a batch of about one length.

        Where all are of one length class, the order is a plain permutation.
        """
        order = rng.permutation(rows)
        classes = length_classes(self.lengths(order))
        if classes.min() < classes.max():
            windows = np.arange(len(order)) // (size * WINDOW_BATCHES)
            order = order[np.lexsort((classes, windows))]
        batches = [order[first : first + size] for first in range(0, len(order), size)]
        if classes.min() < classes.max():
            for first in range(0, len(batches), WINDOW_BATCHES):
                window = batches[first : first + WINDOW_BATCHES]
                batches[first : first + WINDOW_BATCHES] = [window[at] for at in rng.permutation(len(window))]
        yield from batches


def length_classes(lengths: np.ndarray) -> np.ndarray:
    """Tokens (B,) → the most that a text of the same length class may have."""
    return np.asarray(np.maximum(SHORT_TOKENS, -(-lengths // LENGTH_STEP) * LENGTH_STEP))


def padded_lengths(lengths: np.ndarray) -> np.ndarray:
    """Tokens (U,) → those of the longest text of the same length class."""
    classes, members = np.unique(length_classes(lengths), return_inverse=True)
    longest = np.zeros(len(classes), np.int64)
    np.maximum.at(longest, members, lengths)
    return np.asarray(longest[members])


def inference_batches(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Numbers of texts that go through the layers together: of one length class, in order."""
    classes = length_classes(lengths)
    for longest in np.unique(classes).tolist():
        members = np.flatnonzero(classes == longest)
        size = max(1, min(INFERENCE_ROWS, INFERENCE_TOKENS // longest))
        for first in range(0, len(members), size):
            yield members[first : first + size]


def tokenize(tokenizer: Tokenizer, texts: Sequence[str] | Sequence[Sequence[str]]) -> tuple[np.ndarray, ...]:
    """Texts of n rows, or of m times n → tokens, offsets and index as in `Encoded`."""
    distinct, index = _distinct(texts)
    tokens: list[np.ndarray] = []
    lengths = [0]
    for first in range(0, len(distinct), TOKENIZED_TEXTS):
        rows = tokenizer.token_ids(distinct[first : first + TOKENIZED_TEXTS])
        lengths += map(len, rows)
        tokens.append(np.fromiter((token for row in rows for token in row), np.int32, sum(map(len, rows))))
    return np.concatenate(tokens), np.cumsum(lengths, dtype=np.int64), index


def encode(
    base: Pretrained, tokenizer: Tokenizer, texts: Sequence[str] | Sequence[Sequence[str]], trained_layers: int,
    path: Path | None = None, keep: bool = True, listener: Callable[[float], None] = lambda share: None,
) -> Encoded:  # fmt: skip
    """Texts of n rows, or of m times n, tokenized, with the hidden states of each distinct one kept in the file
    ``path``, by default one that is gone with the process.

    Without ``keep``, or where the file would exceed `MAX_KEPT_BYTES`, they are computed when they are asked for.
    ``listener`` gets the share that is done.
    """
    tokens, offsets, index = tokenize(tokenizer, texts)
    start = base.first_trained(trained_layers)
    frozen = FrozenLayers(base, tokens, offsets, start)
    lengths, width = np.diff(offsets), base.network.hidden_size
    padded = padded_lengths(lengths)
    numbers = int(padded.sum()) * width
    if not keep or 2 * numbers > MAX_KEPT_BYTES:
        return Encoded(tokens, offsets, index, start, frozen)
    temporary = None
    if path is None:
        temporary = tempfile.NamedTemporaryFile(prefix="hidden-")  # noqa: SIM115
        path = Path(temporary.name)
    path.touch()
    kept = HiddenFile(path, width, lengths, np.float16 if 4 * numbers > HALF_ABOVE else np.float32, temporary)
    done = 0
    for batch in inference_batches(lengths):
        kept.write(batch, np.array(frozen(batch, int(padded[batch[0]]))))
        done += int(padded[batch].sum())
        listener(done / int(padded.sum()))
    return Encoded(tokens, offsets, index, start, kept)


def _distinct(texts: Sequence[str] | Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """Distinct texts in order, and the number of each row's."""
    first = texts[0]
    if not isinstance(first, str) and all(each is first for each in texts):
        distinct, index = np.unique(np.array(first, dtype=object), return_inverse=True)
        return distinct.tolist(), np.broadcast_to(index, (len(texts), len(first)))
    distinct, index = np.unique(np.array(texts, dtype=object), return_inverse=True)
    return distinct.tolist(), index


def _mask(lengths: np.ndarray, longest: int) -> mx.array:
    return mx.array((np.arange(longest)[None, :] < lengths[:, None]).astype(np.int32))
