"""The second models of a bundle: their files ``stacked.json`` and ``stacked.safetensors``, their scores of rows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import Struct
from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.bundle.manifest import STACKED, STACKED_WEIGHTS
from models.calibration.logit import MAX_VALUE, centred, clipped
from models.rows import Row
from models.second.inputs import RowInputs, RowReader
from models.second.linear import MAX_TERMS, LinearModel, LinearScorer, Words, WordsModel
from models.second.trees import MAX_NODES, Trees, TreesModel, TreesScorer

if TYPE_CHECKING:
    from models.bert.tokenizer import Tokenizer
    from models.schema import Schema

MAX_SCORE = 30.0
"""Scores end here: no second model is surer than that."""
AnyModel = LinearModel | WordsModel | TreesModel
Arrays = Words | Trees
ARRAYS: dict[type[AnyModel], type[Arrays]] = {WordsModel: Words, TreesModel: Trees}
DTYPES = {
    "terms": np.int64, "rarity": np.float64, "coefficients": np.float64, "roots": np.int64, "column": np.int64,
    "threshold": np.float64, "missing_left": np.bool_, "left": np.int64, "right": np.int64, "value": np.float64,
}  # fmt: skip


class StackedFile(Struct, frozen=True, forbid_unknown_fields=True):
    """What ``stacked.json`` holds: the second models, each kind once."""

    models: tuple[AnyModel, ...]


class SecondModel(Struct, frozen=True, kw_only=True):
    """A second model, with its arrays where it has any."""

    model: AnyModel
    arrays: Arrays | None = None

    @property
    def name(self) -> str:
        """linear, words or trees."""
        return name_of(self.model)


def name_of(model: AnyModel) -> str:
    """The kind of a second model, by which a stack names it."""
    return str(model.__struct_config__.tag)


def stacked_files(seconds: Sequence[SecondModel]) -> dict[str, bytes]:
    """The content of a bundle's files by name; none where there is no second model."""
    if not seconds:
        return {}
    content = {STACKED: msgspec.json.encode(StackedFile(tuple(second.model for second in seconds)))}
    tensors = {
        f"{second.name}.{name}": np.ascontiguousarray(value)
        for second in seconds
        if second.arrays is not None
        for name, value in msgspec.structs.asdict(second.arrays).items()
    }
    return content | ({STACKED_WEIGHTS: save(tensors)} if tensors else {})


class StackedFileError(ValueError):
    """A file of the second model that must not be used; ``file`` is its name."""

    def __init__(self, file: str, reason: str):
        self.file = file
        super().__init__(f"{file}: {reason}")


def check_seconds(file: StackedFile, weights: bytes | None, schema: "Schema") -> tuple[SecondModel, ...]:
    """The second models of a parsed ``stacked.json`` and of the bytes of ``stacked.safetensors``, None where that is
    not there. Raises StackedFileError."""
    reader, columns = RowReader(schema, None), score_columns(schema)
    try:
        names = [name_of(model) for model in file.models]
        if not names or len(set(names)) != len(names):
            raise ValueError("models must be at least one, and each kind once")
        for model in file.models:
            (model.fields if isinstance(model, WordsModel) else model).check(reader, columns)
    except ValueError as error:
        raise StackedFileError(STACKED, str(error)) from error
    kinds = {name_of(model): ARRAYS[type(model)] for model in file.models if type(model) in ARRAYS}
    try:
        arrays = _arrays(kinds, weights)
        for each in arrays.values():
            if isinstance(each, Trees):
                each.check(len(reader.numbers) + len(reader.categories), columns)
            else:
                _check_words(each, columns)
    except ValueError as error:
        raise StackedFileError(STACKED_WEIGHTS, str(error)) from error
    return tuple(SecondModel(model=model, arrays=arrays.get(name_of(model))) for model in file.models)


def _arrays(kinds: Mapping[str, type[Arrays]], weights: bytes | None) -> dict[str, Arrays]:
    """The arrays of each kind of model that has some, of exactly these names, types and lengths."""
    if not kinds and weights is None:
        return {}
    if weights is None:
        raise ValueError(f"it is missing, and the models {', '.join(kinds)} need it")
    try:
        tensors = load(weights)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"it is no safetensors file: {str(error)[:200]}") from error
    names = {f"{name}.{field}" for name, kind in kinds.items() for field in kind.__struct_fields__}
    if set(tensors) != names:
        raise ValueError(f"its tensors must be {', '.join(sorted(names)) or 'none'}")
    for name, tensor in tensors.items():
        wanted, dimensions = np.dtype(DTYPES[name.partition(".")[2]]), 2 if name.endswith(".coefficients") else 1
        if tensor.dtype != wanted or tensor.ndim != dimensions:
            raise ValueError(
                f"tensor {name} is of the type {tensor.dtype} in {tensor.ndim} dimensions; it must be {wanted} in "
                f"{dimensions}"
            )
    return {name: _of_one_length(kind, name, tensors) for name, kind in kinds.items()}


def _of_one_length(kind: type[Arrays], name: str, tensors: Mapping[str, np.ndarray]) -> Arrays:
    mine = {field: tensors[f"{name}.{field}"] for field in kind.__struct_fields__}
    lengths = {len(tensor) for field, tensor in mine.items() if field != "roots"}
    most = MAX_TERMS if kind is Words else MAX_NODES
    if len(lengths) != 1 or max(lengths) > most:
        raise ValueError(f"the tensors of {name} must be of one length, of at most {most}")
    return kind(**mine)


def _check_words(words: Words, columns: int) -> None:
    if (np.diff(words.terms) <= 0).any() or (words.terms[:1] < 0).any():
        raise ValueError("terms must rise, from 0 on")
    if words.coefficients.shape[1] != columns:
        raise ValueError(f"coefficients must be {columns} for each term")
    if not (np.abs(words.rarity) <= MAX_VALUE).all() or not (np.abs(words.coefficients) <= MAX_VALUE).all():
        raise ValueError(f"rarity and coefficients must be within ±{MAX_VALUE:g}")


def score_columns(schema: "Schema") -> int:
    """1 for two classes, as many as there are for more."""
    return 1 if len(schema.classes) == 2 else len(schema.classes)


def second_scores(raw: np.ndarray) -> np.ndarray:
    """A second model's raw scores (n, 1) or (n, K) → in the form of `calibration_scores`, within ±`MAX_SCORE`."""
    scores = raw[:, 0] if raw.shape[1] == 1 else centred(raw)
    return clipped(scores, -MAX_SCORE, MAX_SCORE)


class SecondScorers:
    """Rows → each second model's scores by its name: of two classes log-odds (n,) of the positive one, of more (n, K).

    ``known`` is what the schema's feature learned of labelled rows.
    """

    def __init__(
        self, seconds: Sequence[SecondModel], schema: "Schema", known: Any, tokenizer: "Tokenizer | None" = None
    ):
        self._read = RowReader(schema, known)
        self._scorers = {second.name: _scorer(second, tokenizer) for second in seconds}

    def __call__(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        return self.of(self.inputs(rows))

    def of(self, inputs: Sequence[RowInputs]) -> dict[str, np.ndarray]:
        """The scores of rows' inputs."""
        return {name: second_scores(scorer(inputs)) for name, scorer in self._scorers.items()}

    def inputs(self, rows: Sequence[Row]) -> list[RowInputs]:
        """All that the second models read of each row."""
        return list(map(self._read, rows))


def _scorer(second: SecondModel, tokenizer: "Tokenizer | None") -> LinearScorer | TreesScorer:
    model, arrays = second.model, second.arrays
    if isinstance(model, TreesModel) and isinstance(arrays, Trees):
        return TreesScorer(model, arrays)
    if isinstance(model, WordsModel) and isinstance(arrays, Words):
        return LinearScorer(model.fields, arrays, tokenizer)
    if isinstance(model, LinearModel):
        return LinearScorer(model)
    raise TypeError(f"a model of the kind {second.name} without its arrays")
