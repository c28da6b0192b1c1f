"""The content of ``selftest.json``: what the final model answers to made-up rows."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import load

from models.bert.tokenizer import Tokenizer
from models.bundle.known_answers import KnownAnswers
from models.engines.choice import choose_engine, load_engine
from models.prediction import Diagnosis
from models.rows import Row
from models.schema import Schema
from models.selftest import answer, make_rows
from models.text import Renderer


def known_answers(
    files: Mapping[str, bytes | Path], tokenizer: Tokenizer, schema: Schema, diagnosis: Diagnosis,
    rows: Collection[Row],
) -> KnownAnswers:  # fmt: skip
    """Of a bundle's ``files``, by the engine that trains; ``rows``, the training's, are not among them."""
    config = _config(files)
    engine = load_engine(choose_engine("mlx"), config, load(_content(files, "model.safetensors")))
    renderer, known = Renderer(schema), None
    if renderer.feature is not None:
        known = msgspec.json.decode(_content(files, "feature.json"), type=renderer.feature.known_type)
    made_up = make_rows(schema, set(rows), np.random.default_rng(0))
    return answer(made_up, lambda row: renderer(row, known), tokenizer, engine, diagnosis)


def read_tokenizer(files: Mapping[str, bytes | Path]) -> Tokenizer:
    """The tokenizer among a bundle's ``files``."""
    return Tokenizer(_content(files, "tokenizer.json"), _config(files)["max_position_embeddings"])


def _config(files: Mapping[str, bytes | Path]) -> dict[str, Any]:
    config: dict[str, Any] = msgspec.json.decode(_content(files, "config.json"))
    return config


def _content(files: Mapping[str, bytes | Path], name: str) -> bytes:
    content = files[name]
    return content if isinstance(content, bytes) else content.read_bytes()
