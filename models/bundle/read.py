"""Read a bundle, the one seam between training and service: verified whole before it is used."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from msgspec import Struct

from models.bert.tokenizer import Tokenizer
from models.bundle.manifest import (
    FOLDER_MAX_BYTES,
    FORMAT_VERSION,
    MANIFEST,
    OPTIONAL,
    PRECISIONS_FILE,
    WEIGHTS,
    BundleError,
    Manifest,
)
from models.bundle.precisions import Precisions
from models.bundle.signature import SIGNATURE, SignatureError, public_keys, verify
from models.bundle.untrusted_folder import Folder, FolderError
from models.bundle.verify import (
    check_config,
    check_digest,
    check_encodable,
    check_reference,
    decode,
    load_tokenizer,
    load_weights,
)
from models.calibration.confidence import CalibrationRecord
from models.calibration.prior_shift import PriorShift
from models.features.titanic import Companions
from models.reference import Reference


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
        folder = Folder(path, FOLDER_MAX_BYTES, OPTIONAL)
        content = folder.read(MANIFEST)
        if keys is not None:
            verify(content, folder.read(SIGNATURE) if SIGNATURE in folder.names else None, public_keys(keys))
        manifest = _manifest(content, folder.names - {MANIFEST, SIGNATURE})
        return _open(folder, manifest, hashlib.sha256(content).hexdigest()[:12])
    except (FolderError, SignatureError) as error:
        raise BundleError(str(error)) from error


def _manifest(content: bytes, names: set[str]) -> Manifest:
    """The manifest, if it names exactly the files that are there."""
    manifest: Manifest = check_encodable(MANIFEST, decode(MANIFEST, content, Manifest))
    if manifest.format_version != FORMAT_VERSION:
        raise BundleError(f"{MANIFEST}: format version {manifest.format_version}; this program reads {FORMAT_VERSION}")
    for name in sorted(set(manifest.files) ^ names):
        if name in names:
            raise BundleError(f"{MANIFEST}: files does not name {name}")
        raise BundleError(f"{name[:80]} is missing, and {MANIFEST} names it")
    return manifest


def _open(folder: Folder, manifest: Manifest, version: str) -> Opened:
    def verified(name: str) -> bytes:
        return check_digest(name, folder.read(name), manifest.files[name])

    def parsed(name: str, form: Any) -> Any:
        return decode(name, verified(name), form)

    def optional(name: str, form: Any) -> Any:
        return parsed(name, form) if name in folder.names else form()

    config = check_config(parsed("config.json", dict[str, Any]))
    with ThreadPoolExecutor(1) as pool:
        # The weights are nearly all of a bundle, and hashing them leaves Python's lock to the rest.
        weights = pool.submit(load_weights, folder, config, manifest.files[WEIGHTS].sha256)
        tokenizer = load_tokenizer(verified("tokenizer.json"), config)
        for name in ("tokenizer_config.json", "README.md"):
            verified(name)
        bundle = Bundle(
            folder=folder.path, version=version, manifest=manifest, config=config,
            record=parsed("calibration.json", CalibrationRecord), companions=optional("companions.json", Companions),
            reference=check_reference(parsed("reference.json", Reference)),
            evaluation=check_encodable("evaluation.json", parsed("evaluation.json", dict[str, Any])),
            precisions=optional(PRECISIONS_FILE, Precisions),
        )  # fmt: skip
        return Opened(bundle, tokenizer, weights.result())
