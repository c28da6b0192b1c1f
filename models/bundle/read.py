"""Read a bundle, the one seam between training and service: verified whole before it is used."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from msgspec import Struct

from models.bert.tokenizer import Tokenizer
from models.bundle.known_answers import KnownAnswers
from models.bundle.manifest import (
    FEATURE,
    FOLDER_MAX_BYTES,
    FORMAT_VERSION,
    MANIFEST,
    OPTIONAL,
    PRECISIONS_FILE,
    SELFTEST,
    STACKED,
    STACKED_WEIGHTS,
    TRAINING_ROWS,
    WEIGHTS,
    BundleError,
    Format,
    Manifest,
)
from models.bundle.precisions import Precisions
from models.bundle.signature import SIGNATURE, SignatureError, public_keys, verify
from models.bundle.training_rows import TrainingRows
from models.bundle.untrusted_folder import Folder, FolderError
from models.bundle.verify import (
    check_config,
    check_digest,
    check_encodable,
    check_record,
    check_reference,
    check_stacked,
    decode,
    load_schema,
    load_tokenizer,
    load_weights,
)
from models.calibration.confidence import CalibrationRecord
from models.calibration.prior_shift import PriorShift
from models.decisions.costs import CostsError, check_costs, parse_costs
from models.features.registry import find_feature
from models.reference import Reference
from models.schema import Schema
from models.second.model import SecondModel, SecondScorers, StackedFile


class Bundle(Struct, frozen=True, kw_only=True):
    """A verified bundle. ``version`` is the first 12 hex digits of the manifest's sha256.

    ``known`` is what the schema's feature learned of the training rows, None without a feature; ``training_rows``
    are hashes of them, where it has them; ``seconds`` the second models of its stack.
    """

    folder: Path
    version: str
    manifest: Manifest
    config: dict[str, Any]
    record: CalibrationRecord
    schema: Schema
    known: Any
    reference: Reference
    evaluation: dict[str, Any]
    precisions: Precisions = Precisions()
    known_answers: KnownAnswers = KnownAnswers()
    training_rows: TrainingRows | None = None
    seconds: tuple[SecondModel, ...] = ()

    @property
    def name(self) -> str:
        return self.schema.name

    def scorers(self, tokenizer: Tokenizer | None) -> SecondScorers | None:
        """What gives the second models' scores of rows; None without any."""
        return SecondScorers(self.seconds, self.schema, self.known, tokenizer) if self.seconds else None

    def shifted(self, target_prevalence: float) -> Self:
        """This bundle for a population with another share of the positive class, in place of a shift that it may have.

        Raises ValueError for a share that is not inside (0, 1), BundleError for more than two classes and when the
        training rows have none.
        """
        if len(self.schema.classes) > 2:
            raise BundleError(f"a target prevalence is of the positive of two classes; {self.name} has "
                              f"{len(self.schema.classes)}")  # fmt: skip
        data, positive = self.manifest.origin.calibrated_on, self.schema.positive
        count = data.classes.get(positive, 0)
        if not 0 < count < data.rows:
            raise BundleError(f"{MANIFEST}: {count} of {data.rows} rows are of the class {positive}; a "
                              "prevalence cannot be shifted from there")  # fmt: skip
        shift = PriorShift(training=count / data.rows, target=target_prevalence)
        record = msgspec.structs.replace(self.record, map=self.record.map.shifted(shift))
        return msgspec.structs.replace(self, record=record)

    def with_costs(self, costs: str) -> Self:
        """This bundle with these costs of mistakes (`parse_costs`), in place of those that its description may have.

        Raises BundleError.
        """
        try:
            table = parse_costs(costs)
            check_costs(table, self.schema.classes)
        except CostsError as error:
            raise BundleError(f"--costs {costs:.100}: {error}") from error
        return msgspec.structs.replace(self, schema=msgspec.structs.replace(self.schema, costs=table))


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
    # Before the rest: another version's manifest may have another form.
    version = decode(MANIFEST, content, Format).format_version
    if version != FORMAT_VERSION:
        raise BundleError(f"{MANIFEST}: format version {version}; this program reads {FORMAT_VERSION}: make the bundle "
                          "anew with ./run train fit")  # fmt: skip
    manifest: Manifest = check_encodable(MANIFEST, decode(MANIFEST, content, Manifest))
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

    schema = load_schema(verified("schema.json"))
    feature = find_feature(schema)
    if feature is not None and FEATURE not in folder.names:
        raise BundleError(f"{FEATURE} is missing, and schema.json names the feature {schema.feature}")
    config = check_config(parsed("config.json", dict[str, Any]), schema)
    with ThreadPoolExecutor(1) as pool:
        # The weights are nearly all of a bundle, and hashing them leaves Python's lock to the rest.
        weights = pool.submit(load_weights, folder, config, manifest.files[WEIGHTS].sha256)
        tokenizer = load_tokenizer(verified("tokenizer.json"), config)
        for name in ("tokenizer_config.json", "README.md"):
            verified(name)
        record = check_record(parsed("calibration.json", CalibrationRecord), schema)
        stacked = parsed(STACKED, StackedFile) if STACKED in folder.names else None
        arrays = verified(STACKED_WEIGHTS) if STACKED_WEIGHTS in folder.names else None
        bundle = Bundle(
            folder=folder.path, version=version, manifest=manifest, config=config,
            schema=schema, known=None if feature is None else parsed(FEATURE, feature.known_type),
            record=record, seconds=check_stacked(stacked, arrays, record, schema),
            reference=check_reference(parsed("reference.json", Reference), schema),
            evaluation=check_encodable("evaluation.json", parsed("evaluation.json", dict[str, Any])),
            precisions=optional(PRECISIONS_FILE, Precisions),
            known_answers=check_encodable(SELFTEST, optional(SELFTEST, KnownAnswers)),
            training_rows=parsed(TRAINING_ROWS, TrainingRows) if TRAINING_ROWS in folder.names else None,
        )  # fmt: skip
        return Opened(bundle, tokenizer, weights.result())
