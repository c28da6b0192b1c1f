"""The checks of a bundle's files, each by itself; all raise BundleError naming the file."""

import hashlib
from typing import Any

import msgspec
import numpy as np

from models.bert.layouts.registry import LayoutError, layout_of
from models.bert.tokenizer import Tokenizer
from models.bundle.manifest import STACKED, STACKED_WEIGHTS, WEIGHTS, BundleError, FileRecord
from models.bundle.untrusted_folder import Folder
from models.bundle.weights import WeightsError, expected_tensors, read_weights
from models.calibration.confidence import CalibrationRecord
from models.reference import PredictionBins, Reference
from models.rows import check_examples
from models.schema import Schema, SchemaError, schema_of
from models.second.model import SecondModel, StackedFile, StackedFileError, check_seconds
from models.text import Renderer

MAX_VALUES = 300_000
"""Of a JSON file: a value of two bytes there takes up to a hundred in memory."""
MAX_NESTING = 32


def check_digest(name: str, content: bytes, recorded: FileRecord) -> bytes:
    """The content, if it is what the manifest recorded."""
    if len(content) != recorded.size:
        raise BundleError(f"{name} has {len(content)} bytes, the manifest says {recorded.size}")
    if hashlib.sha256(content).hexdigest() != recorded.sha256:
        raise BundleError(f"{name} was changed: its sha256 is not the manifest's")
    return content


def decode(name: str, content: bytes, form: Any) -> Any:
    """JSON of a bounded number of values → ``form``."""
    if content.count(b",") + content.count(b"[") + content.count(b"{") > MAX_VALUES:
        raise BundleError(f"{name} holds more than {MAX_VALUES} values")
    try:
        return msgspec.json.decode(content, type=form)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleError(f"{name}: {str(error)[:300]}") from error


def check_encodable(name: str, value: Any) -> Any:
    """The value, if the service can answer with it in each of its formats."""
    if not _nested(msgspec.to_builtins(value), MAX_NESTING):
        raise BundleError(f"{name} is nested deeper than {MAX_NESTING} levels")
    try:
        msgspec.msgpack.encode(value)
    except OverflowError as error:
        raise BundleError(f"{name} holds an integer of more than 64 bits") from error
    return value


def _nested(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_nested(item, levels - 1) for item in inner)


def labels_config(schema: Schema) -> dict[str, Any]:
    """What ``config.json`` says of the classes."""
    names = schema.classes
    return {"id2label": {str(index): name for index, name in enumerate(names)}, "num_labels": len(names)}


def load_schema(content: bytes) -> Schema:
    """The schema of a ``schema.json``, whose texts and feature are there."""
    try:
        schema = schema_of(decode("schema.json", content, Any))
        Renderer(schema)
        check_examples(schema)
    except SchemaError as error:
        raise BundleError(f"schema.json: {error}") from error
    return schema


def check_config(config: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """The config, if it is of a classifier of the schema's classes, of an architecture here and of bounded size."""
    try:
        written = layout_of(config).written()
    except LayoutError as error:
        raise BundleError(f"config.json: {error}") from error
    for field, value in (written | labels_config(schema)).items():
        if config.get(field) != value:
            raise BundleError(f"config.json: {field} is {str(config.get(field))[:80]}, it must be {value}")
    check_rates(config)
    try:
        expected_tensors(config)
    except WeightsError as error:
        raise BundleError(f"config.json: {error}") from error
    return config


def check_rates(config: dict[str, Any]) -> None:
    """Raise BundleError unless the numbers of a config that are no sizes are in their bounds."""
    layout = layout_of(config)
    for name, (default, lowest) in {"layer_norm_eps": (1e-12, 1e-15), "hidden_dropout_prob": (0.1, 0.0)}.items():
        field = layout.field(name)
        value = default if name in layout.fixed else config.get(field, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not lowest <= value < 1:
            raise BundleError(f"config.json: {field} is {str(value)[:80]}, it must be a number in [{lowest:g}, 1)")


def load_tokenizer(content: bytes, config: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a ``tokenizer.json`` whose ids are all in the vocabulary."""
    try:
        tokenizer = Tokenizer(content, config["max_position_embeddings"])
    except ValueError as error:
        raise BundleError(f"tokenizer.json: {str(error)[:300]}") from error
    if tokenizer.largest_id >= config["vocab_size"]:
        raise BundleError(
            f"tokenizer.json: token id {tokenizer.largest_id} is outside the vocabulary of {config['vocab_size']}"
        )
    return tokenizer


def check_reference(reference: Reference, schema: Schema) -> Reference:
    """The reference, if it has the schema's bins."""
    if tuple(field.bins for field in reference.inputs) != schema.input_bins:
        raise BundleError("reference.json has other bins of the inputs than schema.json")
    cells = len(PredictionBins(schema.classes).names)
    if len(reference.probability_counts) != cells:
        raise BundleError(f"reference.json: probability_counts must be {cells} counts")
    return reference


def check_record(record: CalibrationRecord, schema: Schema) -> CalibrationRecord:
    """The calibration, if it has the schema's classes and bins."""
    if isinstance(record.venn_abers, tuple) != (len(schema.classes) > 2) or (
        isinstance(record.venn_abers, tuple) and len(record.venn_abers) != len(schema.classes)
    ):
        raise BundleError("calibration.json: venn_abers must be one of two classes, and one for each of more")
    try:
        record.conformal.check_schema(schema)
        record.map.check_classes(len(schema.classes))
        if record.stack is not None:
            record.stack.check_classes(len(schema.classes))
    except ValueError as error:
        raise BundleError(f"calibration.json: {error}") from error
    if record.typicality.sizes != tuple(len(bins.names) for bins in schema.input_bins):
        raise BundleError("calibration.json: the typicality has other bins of the inputs than schema.json")
    return record


def check_stacked(
    file: StackedFile | None, weights: bytes | None, record: CalibrationRecord, schema: Schema
) -> tuple[SecondModel, ...]:
    """The second models, if they are those of the record's stack; none without a stack."""
    if file is None:
        if record.stack is not None:
            raise BundleError(f"{STACKED} is missing, and calibration.json has a stack")
        if weights is not None:
            raise BundleError(f"{STACKED_WEIGHTS} is there without {STACKED}")
        return ()
    if record.stack is None:
        raise BundleError(f"{STACKED} is there, and calibration.json has no stack")
    try:
        seconds = check_seconds(file, weights, schema)
    except StackedFileError as error:
        raise BundleError(str(error)) from error
    if {second.name for second in seconds} != set(record.stack.others):
        raise BundleError(f"{STACKED} has other models than the stack of calibration.json")
    return seconds


def load_weights(folder: Folder, config: dict[str, Any], sha256: str) -> dict[str, np.ndarray]:
    """Name → float32 array of the weights with this sha256."""
    try:
        with folder.open(WEIGHTS) as file:
            return read_weights(file, expected_tensors(config), sha256)
    except WeightsError as error:
        raise BundleError(f"{WEIGHTS}: {error}") from error
    except OSError as error:
        raise BundleError(f"{WEIGHTS} cannot be read: {error.strerror}") from error
