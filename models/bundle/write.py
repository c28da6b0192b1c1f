"""Write a bundle: a reader sees the old one or the new one, never a mixture."""

import ctypes
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

import msgspec

from models.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    MAX_BYTES,
    OPTIONAL,
    BundleError,
    FileRecord,
    Manifest,
    Origin,
    sha256_of,
)
from models.bundle.read import Bundle, read_bundle


def write_bundle(destination: Path, contents: Mapping[str, bytes | Path], origin: Origin) -> Bundle:
    """Write a bundle of these files (bytes, or paths to copy) and read it back.

    Everything is written to a sibling folder, fsynced, verified, and renamed into place. Raises BundleError; the old
    bundle is then untouched.
    """
    if not set(MAX_BYTES) - OPTIONAL <= set(contents) <= set(MAX_BYTES):
        optional = ", ".join(name for name in MAX_BYTES if name in OPTIONAL)
        raise BundleError(f"a bundle holds exactly {', '.join(MAX_BYTES)}, of which it may lack {optional}")
    destination = bundle_destination(destination)
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
        _replace_folder(temporary, destination)
        _sync(destination.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_bundle(destination)


def bundle_destination(path: Path) -> Path:
    """Where a bundle that is asked for at ``path`` goes: a link stays, and what it points to is replaced.

    Raises BundleError where something else than a bundle would be lost.
    """
    destination = Path(os.path.realpath(path))
    if not destination.is_dir():
        if destination.exists():
            raise BundleError(f"{path} is no folder; a bundle is one, and replaces nothing else")
        return destination
    bundle = (destination / MANIFEST).is_file() and (destination / "config.json").is_file()
    if not bundle and any(destination.iterdir()):
        raise BundleError(f"{path} is a folder of something else than a bundle; name a new one, or an old bundle's")
    return destination


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


def _replace_folder(temporary: Path, destination: Path) -> None:
    """Rename, exchanging the two folders in one step where there is an old one and the system can."""
    if not destination.exists():
        temporary.rename(destination)
    elif not _exchange(temporary, destination):
        aside = destination.with_name(f".{destination.name}.old-{os.getpid()}")
        destination.rename(aside)
        temporary.rename(destination)
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(folder: Path, other: Path) -> bool:
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(folder), here, os.fsencode(other), exchange) == 0
