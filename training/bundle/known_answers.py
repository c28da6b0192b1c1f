"""The content of ``selftest.json``: what the final model answers to made-up rows."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import load

from models.bert.tokenizer import Tokenizer
from models.bundle.known_answers import KnownAnswers
from models.bundle.manifest import FEATURE, STACKED, STACKED_WEIGHTS
from models.engines.choice import choose_engine, load_engine
from models.features.registry import find_feature
from models.prediction import Diagnosis
from models.rows import Row
from models.schema import Schema
from models.second.model import SecondScorers, StackedFile, check_seconds
from models.selftest import answer, make_rows
from models.text import Renderer


def known_answers(
    files: Mapping[str, bytes | Path], tokenizer: Tokenizer, schema: Schema, diagnosis: Diagnosis,
    rows: Collection[Row],
) -> KnownAnswers:  # fmt: skip
    """Of a bundle's ``files``, by the engine that trains; ``rows``, the training's, are not among them."""
    config = _config(files)
    engine = load_engine(choose_engine("mlx"), config, load(_content(files, "model.safetensors")))
    renderer, known = Renderer(schema), read_known(files, schema)
    made_up = make_rows(schema, set(rows), np.random.default_rng(0))
    return answer(made_up, lambda row: renderer(row, known), tokenizer, engine, diagnosis)


def read_known(files: Mapping[str, bytes | Path], schema: Schema) -> Any:
    """What the schema's feature learned, of a bundle's ``files``; None without a feature."""
    feature = find_feature(schema)
    return None if feature is None else msgspec.json.decode(_content(files, FEATURE), type=feature.known_type)


def read_seconds(files: Mapping[str, bytes | Path], schema: Schema, tokenizer: Tokenizer) -> SecondScorers | None:
    """The second models among a bundle's ``files``; None where there are none."""
    if STACKED not in files:
        return None
    weights = _content(files, STACKED_WEIGHTS) if STACKED_WEIGHTS in files else None
    file = msgspec.json.decode(_content(files, STACKED), type=StackedFile)
    return SecondScorers(check_seconds(file, weights, schema), schema, read_known(files, schema), tokenizer)


def read_tokenizer(files: Mapping[str, bytes | Path]) -> Tokenizer:
    """The tokenizer among a bundle's ``files``."""
    return Tokenizer(_content(files, "tokenizer.json"), _config(files)["max_position_embeddings"])


def _config(files: Mapping[str, bytes | Path]) -> dict[str, Any]:
    config: dict[str, Any] = msgspec.json.decode(_content(files, "config.json"))
    return config


def _content(files: Mapping[str, bytes | Path], name: str) -> bytes:
    content = files[name]
    return content if isinstance(content, bytes) else content.read_bytes()
