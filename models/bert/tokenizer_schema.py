"""The one form of ``tokenizer.json`` that is accepted: BERT's, WordPiece without patterns.

The library that reads the file would compile any regular expression in it, and give ids that no vocabulary holds. So
the file is decoded into the Structs below, which have no place for either, and the library is given those instead.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

MAX_WORDS = 150_000
"""More than the multilingual BERT's 119,547: the library holds half a kilobyte for each."""

Id = Annotated[int, Meta(ge=0, lt=2 * MAX_WORDS)]
Short = Annotated[str, Meta(max_length=200)]


class BertNormalizer(Struct, frozen=True, tag_field="type", tag="BertNormalizer", forbid_unknown_fields=True):
    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True


class BertPreTokenizer(Struct, frozen=True, tag_field="type", tag="BertPreTokenizer", forbid_unknown_fields=True):
    pass


class TemplatePart(Struct, frozen=True, forbid_unknown_fields=True):
    """Of a special token, or of text A or B, in a template."""

    id: Short
    type_id: Annotated[int, Meta(ge=0, le=1)]


Piece = Annotated[dict[str, TemplatePart], Meta(min_length=1, max_length=1)]
Template = Annotated[tuple[Piece, ...], Meta(max_length=8)]


class SpecialToken(Struct, frozen=True, forbid_unknown_fields=True):
    id: Short
    ids: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=1)]
    tokens: Annotated[tuple[Short, ...], Meta(min_length=1, max_length=1)]


class TemplateProcessing(Struct, frozen=True, tag_field="type", tag="TemplateProcessing", forbid_unknown_fields=True):
    single: Template
    pair: Template
    special_tokens: Annotated[dict[Short, SpecialToken], Meta(max_length=8)]

    def __post_init__(self) -> None:
        if [piece["Sequence"].id for piece in self.single if "Sequence" in piece] != ["A"]:
            raise ValueError("the template of a single text must hold that text once")

    def largest_id(self) -> int:
        return max((id for token in self.special_tokens.values() for id in token.ids), default=0)


class BertProcessing(Struct, frozen=True, tag_field="type", tag="BertProcessing", forbid_unknown_fields=True):
    sep: tuple[Short, Id]
    cls: tuple[Short, Id]

    def largest_id(self) -> int:
        return max(self.sep[1], self.cls[1])


class WordPieceDecoder(Struct, frozen=True, tag_field="type", tag="WordPiece", forbid_unknown_fields=True):
    prefix: Short = "##"
    cleanup: bool = True


class AddedToken(Struct, frozen=True, forbid_unknown_fields=True):
    id: Id
    content: Annotated[str, Meta(min_length=1, max_length=200)]
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = True


class WordPiece(Struct, frozen=True, tag_field="type", tag="WordPiece", forbid_unknown_fields=True):
    vocab: Annotated[dict[str, Id], Meta(max_length=MAX_WORDS)]
    unk_token: Short = "[UNK]"
    continuing_subword_prefix: Short = "##"
    max_input_chars_per_word: Annotated[int, Meta(ge=1, le=1000)] = 100

    def __post_init__(self) -> None:
        if self.unk_token not in self.vocab:
            raise ValueError("the token for unknown words is not in the vocabulary")


class TokenizerFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``tokenizer.json``. ``truncation`` and ``padding`` are read and dropped: the encoder's limits decide."""

    version: Short = "1.0"
    truncation: object = None
    padding: object = None
    added_tokens: Annotated[tuple[AddedToken, ...], Meta(max_length=4096)] = ()
    normalizer: BertNormalizer | None = None
    pre_tokenizer: BertPreTokenizer
    post_processor: TemplateProcessing | BertProcessing
    decoder: WordPieceDecoder | None = None
    model: WordPiece

    def largest_id(self) -> int:
        """The largest token id that the tokenizer can give."""
        added = max((token.id for token in self.added_tokens), default=0)
        return max(*self.model.vocab.values(), added, self.post_processor.largest_id())


def read_tokenizer_file(content: bytes) -> TokenizerFile:
    """Raises ValueError naming what is not BERT's."""
    if content.count(b",") > MAX_WORDS + 30_000:
        # Before they take memory.
        raise ValueError(f"it holds more than {MAX_WORDS} words and tokens")
    try:
        file = msgspec.json.decode(content, type=TokenizerFile)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ValueError(f"not the WordPiece tokenizer of a BERT: {error}") from error
    return msgspec.structs.replace(file, truncation=None, padding=None)
