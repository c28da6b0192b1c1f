"""Bundles in an S3-compatible bucket: pushed whole, and verified in a local folder before anybody uses them.

``s3://BUCKET/PREFIX`` holds a folder ``VERSION/`` for each bundle, and ``current``: the sha256 of the manifest that was
pushed last. A reader asks for that one, or with ``@DIGITS`` for the one whose manifest's sha256 begins so; as the
manifest names the sha256 of every other file, nothing else has to be trusted on the way. obstore is loaded only where
this is used, and takes address and credentials from the AWS_* variables of the environment.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self

import msgspec
from msgspec import Meta

from models.bundle.manifest import FOLDER_MAX_BYTES, MANIFEST, MAX_BYTES, BundleError, Manifest, sha256_of
from models.bundle.read import read_bundle
from models.bundle.signature import SIGNATURE

if TYPE_CHECKING:
    from obstore.store import S3Store

SCHEME = "s3://"
CURRENT = "current"
MAX_KEPT = 4
"""Bundles that stay in the local folder: the one in use, its shadow, and what to go back to."""
CHUNK_BYTES = 1 << 20
CLIENT = {"connect_timeout": "5s", "timeout": "10m", "allow_http": True}
"""``timeout`` is of one file; plain HTTP is spoken only where AWS_ENDPOINT_URL says http://."""
RETRY = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
REFERENCE = re.compile(
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<prefix>\w[\w.-]*(?:/\w[\w.-]*)*)"
    r"(?:@(?P<digits>[0-9a-f]{12,64}))?", re.ASCII,
)  # fmt: skip
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class BucketError(BundleError):
    """A bundle that cannot be fetched or pushed; the message names what, where, and why."""


class _ContentError(Exception):
    """What is wrong with what the bucket holds."""


class BucketURI(NamedTuple):
    """A prefix in a bucket, and the first digits of the manifest's sha256, if one bundle is meant and no other."""

    bucket: str
    prefix: str
    digits: str | None

    @classmethod
    def parse(cls, reference: str) -> Self:
        """Raises BucketError for what is no such URL."""
        match = REFERENCE.fullmatch(reference)
        if match is None:
            raise BucketError(
                f"{reference} is not s3://BUCKET/PREFIX or s3://BUCKET/PREFIX@DIGITS, DIGITS being the version or more "
                "of the manifest's sha256"
            )
        return cls(match["bucket"], match["prefix"], match["digits"])

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}"


def bundle_folder(reference: str, kept: Path, keys: Path | None = None) -> Path:
    """Where the bundle of a reference is: a folder's path is itself, an ``s3://`` URL is fetched into ``kept``.

    A bundle that was fetched before is not fetched again, though ``current`` is asked for. Raises BundleError.
    """
    return fetch(reference, kept, keys) if reference.startswith(SCHEME) else Path(reference)


def fetch(reference: str, kept: Path, keys: Path | None = None) -> Path:
    """Fetch a bundle into ``kept``/SHA256 of its manifest, verified as `read_bundle` does, and return that folder.

    It appears there whole or not at all, whoever else fetches it meanwhile. No file is read past the size that the
    manifest names, nor past the bundle's bounds. The `MAX_KEPT` used last stay. A version that is there already needs
    no bucket. Raises BundleError.
    """
    uri = BucketURI.parse(reference)
    if uri.digits and (known := _cached(kept, uri.digits, keys)):
        return known
    with _translate_errors(uri):
        store = _store(uri)
        digits = uri.digits or _current(store)
        manifest = b"".join(_chunks(store, f"{digits[:12]}/{MANIFEST}", FOLDER_MAX_BYTES[MANIFEST]))
    digest = hashlib.sha256(manifest).hexdigest()
    if not digest.startswith(digits):
        raise BucketError(f"{uri}: the manifest of {digits[:12]} was changed: its sha256 is {digest}")
    folder = kept / digest
    try:
        kept.mkdir(parents=True, exist_ok=True)
        if not _usable(folder, keys):
            _download(uri, store, manifest, folder, keys)
        os.utime(folder)
        _prune(kept)
    except OSError as error:
        raise BucketError(f"{kept} cannot hold a bundle: {error.strerror}") from error
    return folder


def push(folder: Path, reference: str) -> str:
    """Verify a bundle, put it under ``reference``, make it the current one there, and return its manifest's sha256.

    Pushing an older bundle again goes back to it. What makes it visible is written last. Raises BundleError.
    """
    uri = BucketURI.parse(reference)
    if uri.digits is not None:
        raise BucketError(f"{reference}: a bundle is pushed to {uri}; its version follows from what it holds")
    bundle = read_bundle(folder)
    manifest = (folder / MANIFEST).read_bytes()
    digest = hashlib.sha256(manifest).hexdigest()
    signed = [SIGNATURE] if (folder / SIGNATURE).exists() else []
    with _translate_errors(uri):
        store = _store(uri)
        for name in [*bundle.manifest.files, *signed]:
            store.put(f"{bundle.version}/{name}", folder / name)
        store.put(f"{bundle.version}/{MANIFEST}", manifest)
        store.put(CURRENT, f"{digest}\n".encode())
    return digest


def _store(uri: BucketURI) -> "S3Store":
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise BucketError(f"{uri} needs the package obstore, which the extra bucket installs") from error
    return S3Store(uri.bucket, prefix=uri.prefix, client_options=CLIENT, retry_config=RETRY)  # type: ignore[arg-type]


def _current(store: "S3Store") -> str:
    content = b"".join(_chunks(store, CURRENT, 100)).decode("ascii", "replace").strip()
    try:
        return msgspec.convert(content, Digest)
    except msgspec.ValidationError as error:
        raise _ContentError(f"{CURRENT} does not hold a sha256") from error


def _cached(kept: Path, digits: str, keys: Path | None) -> Path | None:
    """The bundle fetched before whose manifest's sha256 begins so, if there is one and it is usable."""
    folders = [folder for folder in kept.glob(f"{digits}*") if _usable(folder, keys)]
    if len(folders) != 1:
        return None
    os.utime(folders[0])
    return folders[0]


def _usable(folder: Path, keys: Path | None) -> bool:
    """Whether a bundle fetched before is whole still, the one that it is named after, and signed as is asked now."""
    try:
        read_bundle(folder, keys)
        if sha256_of(folder / MANIFEST) == folder.name:
            return True
    except BundleError:
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _download(uri: BucketURI, store: "S3Store", manifest: bytes, folder: Path, keys: Path | None) -> None:
    temporary = Path(mkdtemp(prefix=".", dir=folder.parent))
    try:
        (temporary / MANIFEST).write_bytes(manifest)
        for name, size in _sizes(uri, manifest).items():
            with _translate_errors(uri), (temporary / name).open("wb") as file:
                for chunk in _chunks(store, f"{folder.name[:12]}/{name}", size):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        with _translate_errors(uri):
            signature = _optional(store, f"{folder.name[:12]}/{SIGNATURE}", FOLDER_MAX_BYTES[SIGNATURE])
        if signature is not None:
            (temporary / SIGNATURE).write_bytes(signature)
        temporary.chmod(0o755)
        read_bundle(temporary, keys)
        _move(temporary, folder)
    except BundleError as error:
        message = str(error).replace(f"{temporary}: ", "")
        raise error if isinstance(error, BucketError) else BucketError(f"{uri}: {message}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sizes(uri: BucketURI, manifest: bytes) -> dict[str, int]:
    """File → bytes, of those that a bundle may have and no larger than they may be."""
    try:
        files = msgspec.json.decode(manifest, type=Manifest).files
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BucketError(f"{uri}: {MANIFEST}: {str(error)[:200]}") from error
    for name, record in files.items():
        if not 0 <= record.size <= MAX_BYTES.get(name, -1):
            raise BucketError(f"{uri}: {MANIFEST} names {name[:80]} of {record.size} bytes, which no bundle has")
    return {name: record.size for name, record in files.items()}


def _chunks(store: "S3Store", name: str, max_bytes: int) -> Iterator[bytes]:
    """A file's bytes, of which there must not be more than ``max_bytes``."""
    read = 0
    for chunk in store.get(name).stream(min_chunk_size=CHUNK_BYTES):
        read += len(chunk)
        if read > max_bytes:
            raise _ContentError(f"{name} has more than {max_bytes} bytes")
        yield chunk


def _optional(store: "S3Store", name: str, max_bytes: int) -> bytes | None:
    try:
        return b"".join(_chunks(store, name, max_bytes))
    except FileNotFoundError:
        return None


def _move(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        # Another process was first, with the same bytes: the name is their sha256.
        if not folder.is_dir():
            raise


def _prune(kept: Path) -> None:
    fetched = [folder for folder in kept.iterdir() if re.fullmatch("[0-9a-f]{64}", folder.name)]
    # Another process may prune too.
    with suppress(FileNotFoundError):
        for old in sorted(fetched, key=lambda folder: folder.stat().st_mtime, reverse=True)[MAX_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _translate_errors(uri: BucketURI) -> Iterator[None]:
    """What the client raises as a BucketError in one sentence."""
    try:
        yield
    except BundleError:
        raise
    except FileNotFoundError as error:
        raise BucketError(f"{uri}: {_missing(str(error))}") from error
    except BaseException as error:
        if isinstance(error, _ContentError):
            raise BucketError(f"{uri}: {error}") from error
        if not type(error).__module__.startswith(("obstore", "pyo3_runtime")):
            raise
        raise BucketError(f"{uri}: {_reason(error)}") from error


def _missing(message: str) -> str:
    if "NoSuchBucket" in message:
        return "there is no such bucket"
    match = re.search(r"at location (?:\S*/)?(\S+) not found", message)
    if match is None or match[1] in (CURRENT, MANIFEST):
        return "there is no such bundle: nothing was pushed here, or not with this version"
    return f"{match[1]} is missing"


def _reason(error: BaseException) -> str:
    message = str(error).split("\n")[0]
    if type(error).__name__ == "PanicException":
        return "the client failed; AWS_ENDPOINT_URL must be a URL, as https://s3.example.org"
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        return "access is denied to these credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN)"
    if "/latest/api/token" in message or "Missing AccessKeyId" in message or "Missing SecretAccessKey" in message:
        return "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if "error sending request" in message:
        return "the server cannot be reached; AWS_ENDPOINT_URL names it, if it is not Amazon's"
    return f"the transfer failed: {message}"
