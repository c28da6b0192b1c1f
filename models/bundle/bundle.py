"""The bundle, the one seam between training and service: written atomically, verified whole before it is used."""

import ctypes
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any, NamedTuple, Self

import msgspec
import numpy as np
from msgspec import Meta, Struct

from models.bert.tokenizer import Tokenizer
from models.bundle.precision import Precisions
from models.bundle.signature import MAX_SIGNATURE_BYTES, SIGNATURE, SignatureError, public_keys, verify
from models.bundle.untrusted_folder import Folder, FolderError
from models.bundle.weights import WeightsError, expected_tensors, read_weights
from models.calibration.confidence import CalibrationRecord
from models.calibration.maps import PriorShift
from models.passenger import INPUT_BINS, LABELS, Companions
from models.reference import Reference

FORMAT_VERSION = 1
MANIFEST, WEIGHTS, PRECISIONS_FILE = "manifest.json", "model.safetensors", "precisions.json"
MAX_BYTES = {
    "config.json": 1 << 16, WEIGHTS: 2 << 30, "tokenizer.json": 8 << 20, "tokenizer_config.json": 1 << 16,
    "calibration.json": 16 << 20, "companions.json": 16 << 20, "reference.json": 1 << 16, "evaluation.json": 2 << 20,
    "README.md": 1 << 20, PRECISIONS_FILE: 1 << 16,
}  # fmt: skip
"""The files of a bundle that its manifest names, and the largest accepted size of each."""
OPTIONAL = {"companions.json", PRECISIONS_FILE, SIGNATURE}
LIMITS = {**MAX_BYTES, MANIFEST: 1 << 18, SIGNATURE: MAX_SIGNATURE_BYTES}
MOST_VALUES = 300_000
"""Of a JSON file: a value of two bytes there takes up to a hundred in memory."""
MOST_LEVELS = 32
REQUIRED_CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "id2label": {str(index): name for index, name in enumerate(LABELS)},
}


class BundleError(Exception):
    """A bundle that must not be served; the message names the file and what is wrong with it.

    It is one printable line of at most 500 characters, whatever the file held.
    """

    def __init__(self, message: str):
        told = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in message[:2000])
        super().__init__(told if len(told) <= 500 else f"{told[:300]} … {told[-190:]}")


Count = Annotated[int, Meta(ge=0, le=10**12)]
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


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
    """The training table: sha256 of the file, its rows, and how many of them survived."""

    sha256: str
    rows: Count
    survived: Count


class Origin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a bundle came to be: everything in the manifest but the files."""

    name: Name
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
    precisions: Precisions = Precisions()

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


class Opened(NamedTuple):
    """A verified bundle with what was read of its large files, so that nothing is read a second time."""

    bundle: Bundle
    tokenizer: Tokenizer
    weights: dict[str, np.ndarray]


def read_bundle(path: Path, keys: Path | None = None) -> Bundle:
    """Verify a bundle as `open_bundle` does; raises BundleError."""
    return open_bundle(path, keys).bundle


def open_bundle(path: Path, keys: Path | None = None) -> Opened:
    """Read a bundle whole, each file once: the bytes that are used are those that were verified.

    Checked: no file is missing, foreign, or other than a regular file of bounded size; every size and sha256; the
    configuration; the tokenizer's form; every tensor's name, shape, dtype, place and finiteness; that calibration and
    reference are consistent. With ``keys``, a file or folder of public keys, also that one of
    them signed the manifest. Raises BundleError and nothing else, whatever the folder holds.
    """
    try:
        return _open(Folder(path, LIMITS, OPTIONAL), keys)
    except (FolderError, SignatureError) as error:
        raise BundleError(str(error)) from error


def _open(folder: Folder, keys: Path | None) -> Opened:
    content = folder.read(MANIFEST)
    if keys is not None:
        verify(content, folder.read(SIGNATURE) if SIGNATURE in folder.names else None, public_keys(keys))
    manifest = _served(MANIFEST, _decode(MANIFEST, content, Manifest))
    if manifest.format_version != FORMAT_VERSION:
        raise BundleError(f"{MANIFEST}: format version {manifest.format_version}; this program reads {FORMAT_VERSION}")
    if unlike := sorted(set(manifest.files) ^ (folder.names - {MANIFEST, SIGNATURE})):
        name = unlike[0][:80]
        missing = name not in folder.names
        raise BundleError(
            f"{name} is missing, and {MANIFEST} names it" if missing else f"{MANIFEST}: files does not name {name}"
        )

    def verified(name: str) -> bytes:
        return _verified(name, folder.read(name), manifest.files[name])

    config = _config(_decode("config.json", verified("config.json"), dict[str, Any]))
    with ThreadPoolExecutor(1) as pool:
        # The weights are nearly all of a bundle, and hashing them leaves Python's lock to the rest.
        weights = pool.submit(_weights, folder, config, manifest.files[WEIGHTS].sha256)
        tokenizer = _tokenizer(verified("tokenizer.json"), config)
        for name in ("tokenizer_config.json", "README.md"):
            verified(name)

        def optional(name: str, form: Any) -> Any:
            return _decode(name, verified(name), form) if name in folder.names else form()

        bundle = Bundle(
            folder=folder.path, version=hashlib.sha256(content).hexdigest()[:12], manifest=manifest, config=config,
            record=_decode("calibration.json", verified("calibration.json"), CalibrationRecord),
            companions=optional("companions.json", Companions), precisions=optional(PRECISIONS_FILE, Precisions),
            reference=_reference(_decode("reference.json", verified("reference.json"), Reference)),
            evaluation=_served(
                "evaluation.json", _decode("evaluation.json", verified("evaluation.json"), dict[str, Any])
            ),
        )  # fmt: skip
        return Opened(bundle, tokenizer, weights.result())


def _verified(name: str, content: bytes, recorded: FileRecord) -> bytes:
    if len(content) != recorded.size:
        raise BundleError(f"{name} has {len(content)} bytes, the manifest says {recorded.size}")
    if hashlib.sha256(content).hexdigest() != recorded.sha256:
        raise BundleError(f"{name} was changed: its sha256 is not the manifest's")
    return content


def _decode(name: str, content: bytes, form: Any) -> Any:
    if content.count(b",") + content.count(b"[") + content.count(b"{") > MOST_VALUES:
        raise BundleError(f"{name} holds more than {MOST_VALUES} values")
    try:
        return msgspec.json.decode(content, type=form)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleError(f"{name}: {str(error)[:300]}") from error


def _served(name: str, value: Any) -> Any:
    """``value``, which the service can tell to its clients in any of its forms."""
    if not _nested(msgspec.to_builtins(value), MOST_LEVELS):
        raise BundleError(f"{name} is nested deeper than {MOST_LEVELS} levels")
    try:
        msgspec.msgpack.encode(value)
    except OverflowError as error:
        raise BundleError(f"{name} holds an integer of more than 64 bits") from error
    return value


def _nested(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_nested(one, levels - 1) for one in inner)


def _config(config: dict[str, Any]) -> dict[str, Any]:
    for field, value in REQUIRED_CONFIG.items():
        if config.get(field) != value:
            raise BundleError(f"config.json: {field} is {str(config.get(field))[:80]}, it must be {value}")
    for field, (number, least) in {"layer_norm_eps": (1e-12, 1e-15), "hidden_dropout_prob": (0.1, 0.0)}.items():
        value = config.get(field, number)
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < 1:
            raise BundleError(f"config.json: {field} is {str(value)[:80]}, it must be a number in [{least:g}, 1)")
    try:
        expected_tensors(config)
    except WeightsError as error:
        raise BundleError(f"config.json: {error}") from error
    return config


def _tokenizer(content: bytes, config: dict[str, Any]) -> Tokenizer:
    try:
        tokenizer = Tokenizer(content, config["max_position_embeddings"])
    except ValueError as error:
        raise BundleError(f"tokenizer.json: {str(error)[:300]}") from error
    if tokenizer.largest_id >= config["vocab_size"]:
        raise BundleError(
            f"tokenizer.json: token id {tokenizer.largest_id} is outside the vocabulary of {config['vocab_size']}"
        )
    return tokenizer


def _reference(reference: Reference) -> Reference:
    if tuple(field.bins for field in reference.inputs) != INPUT_BINS:
        raise BundleError("reference.json was made with other bins of the inputs: train the bundle again")
    return reference


def _weights(folder: Folder, config: dict[str, Any], sha256: str) -> dict[str, np.ndarray]:
    try:
        with folder.open(WEIGHTS) as file:
            return read_weights(file, expected_tensors(config), sha256)
    except WeightsError as error:
        raise BundleError(f"{WEIGHTS}: {error}") from error
    except OSError as error:
        raise BundleError(f"{WEIGHTS} cannot be read: {error.strerror}") from error


def write_bundle(destination: Path, contents: Mapping[str, bytes | Path], origin: Origin) -> Bundle:
    """Write a bundle of these files (bytes, or paths to copy) and read it back.

    A reader sees the old bundle or the new one, never a mixture: everything is written to a sibling folder,
    fsynced, verified, and renamed into place. Raises BundleError; the old bundle is then untouched.
    """
    if not set(MAX_BYTES) - OPTIONAL <= set(contents) <= set(MAX_BYTES):
        optional = ", ".join(name for name in MAX_BYTES if name in OPTIONAL)
        raise BundleError(f"a bundle holds exactly {', '.join(MAX_BYTES)}, of which it may lack {optional}")
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
