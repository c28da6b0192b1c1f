"""The files of a bundle, and the manifest that names them, their sizes and their sha256."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from models.bundle.signature import MAX_SIGNATURE_BYTES, SIGNATURE

FORMAT_VERSION = 2
MANIFEST, WEIGHTS, PRECISIONS_FILE, FEATURE = "manifest.json", "model.safetensors", "precisions.json", "feature.json"
SELFTEST, TRAINING_ROWS = "selftest.json", "training_rows.json"
STACKED, STACKED_WEIGHTS = "stacked.json", "stacked.safetensors"
MAX_BYTES = {
    "config.json": 1 << 16, WEIGHTS: 2 << 30, "tokenizer.json": 8 << 20, "tokenizer_config.json": 1 << 16,
    "schema.json": 1 << 20, "calibration.json": 16 << 20, FEATURE: 16 << 20, "reference.json": 1 << 20,
    "evaluation.json": 2 << 20, "README.md": 1 << 20, PRECISIONS_FILE: 1 << 16, SELFTEST: 1 << 20,
    TRAINING_ROWS: 16 << 20, STACKED: 4 << 20, STACKED_WEIGHTS: 64 << 20,
}  # fmt: skip
"""The files of a bundle that its manifest names, and the largest accepted size of each."""
FOLDER_MAX_BYTES = {**MAX_BYTES, MANIFEST: 1 << 18, SIGNATURE: MAX_SIGNATURE_BYTES}
"""The same with the manifest and its signature."""
OPTIONAL = {FEATURE, PRECISIONS_FILE, SELFTEST, SIGNATURE, STACKED, STACKED_WEIGHTS, TRAINING_ROWS}


class BundleError(Exception):
    """A bundle that must not be served; the message names the file and what is wrong with it.

    It is one printable line of at most 500 characters, whatever the file held.
    """

    def __init__(self, message: str):
        line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in message[:2000])
        super().__init__(line if len(line) <= 500 else f"{line[:300]} … {line[-190:]}")


Count = Annotated[int, Meta(ge=0, le=10**12)]
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\Z")]


class FileRecord(Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    size: int


class BaseModel(Struct, frozen=True, forbid_unknown_fields=True):
    """The pretrained encoder: its name, and the sha256 of its weights."""

    name: str
    sha256: str


class LossRecord(Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    parameters: dict[str, Any]


class DataRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """The training table: sha256 of the file, its rows, and how many of them are of each class."""

    sha256: str
    rows: Count
    classes: dict[str, Count]


class Recalibration(Struct, frozen=True, forbid_unknown_fields=True):
    """The version whose weights a bundle has, and the rows that it was calibrated on instead of those held out."""

    of: Name
    data: DataRecord


class Origin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a bundle came to be: everything in the manifest but the files. ``data`` are the rows of the weights."""

    created: str
    seed: int
    base: BaseModel
    loss: LossRecord
    recipe: dict[str, Any]
    data: DataRecord
    packages: dict[str, str]
    recalibration: Recalibration | None = None

    @property
    def calibrated_on(self) -> DataRecord:
        """The rows whose outcomes the probabilities agree with."""
        return self.data if self.recalibration is None else self.recalibration.data


class Format(Struct, frozen=True):
    """Of a manifest of any version, its version."""

    format_version: int


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format_version: int
    origin: Origin
    files: dict[str, FileRecord]


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
