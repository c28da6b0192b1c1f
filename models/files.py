"""Files that appear under their name whole, or not at all."""

import os
from pathlib import Path
from typing import IO, Any

import msgspec


class AtomicFile:
    """A file, of text unless ``binary``, that appears under its name only when it is whole and `commit` was called.

    Until then it is in the folder ``beside``, of the same file system, or else in its own.
    """

    file: IO[Any]

    def __init__(self, path: Path, binary: bool = False, beside: Path | None = None):
        self._path, self._binary = path, binary
        self._partial = (beside or path.parent) / f".{path.name}.{os.getpid()}"

    def __enter__(self) -> "AtomicFile":
        if self._binary:
            self.file = self._partial.open("wb")
        else:
            self.file = self._partial.open("w", newline="", encoding="utf-8")
        return self

    def commit(self) -> None:
        """Put it in place."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self._partial.replace(self._path)

    def discard(self) -> None:
        """Have nothing in place, nor what was there before."""
        self._path.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        try:
            self.file.close()
        finally:
            # On a full disk closing fails, and what is there must go all the more.
            self._partial.unlink(missing_ok=True)


def write_atomic(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all; raises OSError."""
    with AtomicFile(path) as output:
        output.file.write(text)
        output.commit()


def pretty_json(value: Any) -> bytes:
    """JSON for people to read: indented, with a line break at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def write_json(path: Path, value: Any) -> None:
    """`pretty_json` in a file that appears whole or not at all; raises OSError."""
    write_atomic(path, pretty_json(value).decode())


def rejected_path(path: Path) -> Path:
    """Where rows that were refused go: OUT.csv → OUT.rejected.csv."""
    return path.with_name(f"{path.stem}.rejected{path.suffix}")
