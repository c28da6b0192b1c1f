"""What a bundle answers to a few rows, as training computed it: whatever loads the bundle must answer the same."""

from typing import Annotated, Any

from msgspec import Meta, Struct

MAX_ROWS = 64


class KnownAnswer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A made-up row: its text, the text's token ids, the model's logits (K,), the calibrated probabilities (K,)."""

    row: dict[str, Any]
    text: str
    token_ids: tuple[int, ...]
    logits: tuple[float, ...]
    probabilities: tuple[float, ...]


class KnownAnswers(Struct, frozen=True, forbid_unknown_fields=True):
    """The content of ``selftest.json``; bundles of before have none."""

    answers: Annotated[tuple[KnownAnswer, ...], Meta(max_length=MAX_ROWS)] = ()
