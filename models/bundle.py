"""The bundle, the one seam between training and service: written atomically, verified whole before it is used."""

import ctypes
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

import msgspec
from msgspec import Struct

from models.calibration import PriorShift
from models.confidence import CalibrationRecord
from models.passenger import LABELS, Companions
from models.reference import Reference
from models.tokenizer import Tokenizer
from models.weights import WeightsError, check_weights, expected_tensors

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MAX_BYTES = {
    "config.json": 1 << 20, "model.safetensors": 8 << 30, "tokenizer.json": 64 << 20, "tokenizer_config.json": 1 << 20,
    "calibration.json": 64 << 20, "companions.json": 64 << 20, "reference.json": 1 << 20, "evaluation.json": 4 << 20,
    "README.md": 1 << 20,
}  # fmt: skip
"""The files of a bundle besides its manifest, and the largest accepted size of each."""
OPTIONAL = {"companions.json"}
MAX_MANIFEST_BYTES = 1 << 20
REQUIRED_CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "id2label": {str(index): name for index, name in enumerate(LABELS)},
}


class BundleError(Exception):
    """A bundle that must not be served; the message names the file and what is wrong with it."""


class FileRecord(Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    size: int


class BaseModel(Struct, frozen=True, forbid_unknown_fields=True):
    """The pretrained encoder: its name, and the sha256 of its weights."""

    name: str
    sha256: str


class LossRecord(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any]


class DataRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """The training table: sha256 of the file, its rows, and how many of them survived."""

    sha256: str
    rows: int
    survived: int


class Origin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a bundle came to be: everything in the manifest but the files."""

    name: str
    created: str
    seed: int
    base: BaseModel
    loss: LossRecord
    recipe: dict[str, Any]
    data: DataRecord
    packages: dict[str, str]


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format_version: int
    origin: Origin
    files: dict[str, FileRecord]


class Bundle(Struct, frozen=True, kw_only=True):
    """A verified bundle. ``version`` is the first 12 hex digits of the manifest's sha256."""

    folder: Path
    version: str
    manifest: Manifest
    config: dict[str, Any]
    record: CalibrationRecord
    companions: Companions
    reference: Reference
    evaluation: dict[str, Any]

    @property
    def name(self) -> str:
        return self.manifest.origin.name

    def shifted(self, target_prevalence: float) -> Self:
        """This bundle for a population with another share of survivors, in place of a shift that it may have.

        Raises ValueError for a share that is not inside (0, 1), BundleError when the training rows have none.
        """
        data = self.manifest.origin.data
        if not 0 < data.survived < data.rows:
            raise BundleError(f"{MANIFEST}: {data.survived} of {data.rows} training rows survived; a prevalence "
                              "cannot be shifted from there")  # fmt: skip
        shift = PriorShift(training=data.survived / data.rows, target=target_prevalence)
        record = msgspec.structs.replace(self.record, map=self.record.map.shifted(shift))
        return msgspec.structs.replace(self, record=record)


def read_bundle(folder: Path) -> Bundle:
    """Verify every file of a bundle and read all but the weights; raises BundleError.

    Checked: no file is missing or foreign; every size and sha256; the configuration; every tensor's name, shape,
    dtype, place and finiteness, before MLX sees the file; that calibration and reference are consistent.
    """
    try:
        present = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(folder)}
    except OSError as error:
        raise BundleError(f"{folder} is not a readable folder: {error.strerror}") from error
    for name in (MANIFEST, *MAX_BYTES):
        if name not in present and name not in OPTIONAL:
            raise BundleError(f"{folder}: {name} is missing")
    for name, status in present.items():
        if name not in MAX_BYTES and name != MANIFEST:
            raise BundleError(f"{folder}: {name} does not belong to a bundle")
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES.get(name, MAX_MANIFEST_BYTES):
            raise BundleError(f"{folder}: {name} is not a regular file of an acceptable size")
    try:
        return _read_verified(folder, set(present) - {MANIFEST})
    except OSError as error:
        raise BundleError(f"{folder}: {error.filename or 'a file'} cannot be read: {error.strerror}") from error


def _read_verified(folder: Path, present: set[str]) -> Bundle:
    content = (folder / MANIFEST).read_bytes()
    manifest = _decode(MANIFEST, content, Manifest)
    if manifest.format_version != FORMAT_VERSION:
        raise BundleError(f"{MANIFEST}: format version {manifest.format_version}; this program reads {FORMAT_VERSION}")
    if unlike := sorted(set(manifest.files) ^ present):
        name = unlike[0][:80]
        raise BundleError(f"{name} is missing" if name not in present else f"{MANIFEST}: files does not name {name}")
    with ThreadPoolExecutor(2) as pool:
        weights = pool.submit(_verify, folder, "model.safetensors", manifest)
        for name in present:
            if name != "model.safetensors":
                _verify(folder, name, manifest)
        bundle = Bundle(
            folder=folder, version=hashlib.sha256(content).hexdigest()[:12], manifest=manifest,
            config=_config(folder), record=_load(folder, "calibration.json", CalibrationRecord),
            companions=_load(folder, "companions.json", Companions) if "companions.json" in present else Companions(),
            reference=_load(folder, "reference.json", Reference),
            evaluation=_load(folder, "evaluation.json", dict[str, Any]),
        )  # fmt: skip
        _check_tokenizer(folder, bundle.config)
        weights.result()
        try:
            check_weights(folder / "model.safetensors", expected_tensors(bundle.config))
        except WeightsError as error:
            raise BundleError(f"model.safetensors: {error}") from error
    return bundle


def _verify(folder: Path, name: str, manifest: Manifest) -> None:
    recorded, path = manifest.files[name], folder / name
    if path.stat().st_size != recorded.size:
        raise BundleError(f"{name} has {path.stat().st_size} bytes, the manifest says {recorded.size}")
    if sha256_of(path) != recorded.sha256:
        raise BundleError(f"{name} was changed: its sha256 is not the manifest's")


def _load(folder: Path, name: str, form: Any) -> Any:
    return _decode(name, (folder / name).read_bytes(), form)


def _decode(name: str, content: bytes, form: Any) -> Any:
    try:
        return msgspec.json.decode(content, type=form)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleError(f"{name}: {str(error)[:300]}") from error


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = _load(folder, "config.json", dict[str, Any])
    for field, value in REQUIRED_CONFIG.items():
        if config.get(field) != value:
            raise BundleError(f"config.json: {field} is {str(config.get(field))[:80]}, it must be {value}")
    for field, number in {"layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1}.items():
        value = config.get(field, number)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
            raise BundleError(f"config.json: {field} is {str(value)[:80]}, it must be a number in [0, 1)")
    try:
        expected_tensors(config)
    except WeightsError as error:
        raise BundleError(f"config.json: {error}") from error
    return config


def _check_tokenizer(folder: Path, config: dict[str, Any]) -> None:
    try:
        largest = Tokenizer.load(folder / "tokenizer.json", config["max_position_embeddings"]).largest_id()
    except ValueError as error:
        raise BundleError(f"tokenizer.json: {str(error)[:300]}") from error
    if largest >= config["vocab_size"]:
        raise BundleError(f"tokenizer.json: token id {largest} is outside the vocabulary of {config['vocab_size']}")


def write_bundle(destination: Path, contents: Mapping[str, bytes | Path], origin: Origin) -> Bundle:
    """Write a bundle of these files (bytes, or paths to copy) and read it back.

    A reader sees the old bundle or the new one, never a mixture: everything is written to a sibling folder,
    fsynced, verified, and renamed into place. Raises BundleError; the old bundle is then untouched.
    """
    if set(contents) | OPTIONAL != set(MAX_BYTES):
        raise BundleError(f"a bundle holds exactly {', '.join(MAX_BYTES)}, of which it may lack {', '.join(OPTIONAL)}")
    destination = destination.absolute()
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        for name, content in contents.items():
            _write(temporary / name, content if isinstance(content, bytes) else content.read_bytes())
        files = {n: FileRecord(sha256_of(temporary / n), (temporary / n).stat().st_size) for n in sorted(contents)}
        manifest = Manifest(format_version=FORMAT_VERSION, origin=origin, files=files)
        _write(temporary / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
        temporary.chmod(0o755)
        _sync(temporary)
        read_bundle(temporary)
        _put_in_place(temporary, destination)
        _sync(destination.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_bundle(destination)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put_in_place(temporary: Path, destination: Path) -> None:
    """Rename, exchanging the two folders in one step where there is an old one and the system can."""
    if not destination.exists():
        temporary.rename(destination)
    elif not _exchange(temporary, destination):
        aside = destination.with_name(f".{destination.name}.old-{os.getpid()}")
        destination.rename(aside)
        temporary.rename(destination)
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
