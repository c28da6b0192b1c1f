"""Files that appear under their name whole, or not at all; what may be replaced by them, and what may not."""

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import msgspec


class AtomicFile:
    """A file, of text unless ``binary``, that appears under its name only when it is whole and `commit` was called.

    Until then it is in the folder ``beside``, of the same file system, or else in its own. A link stays a link: the
    file that it points to is replaced. A pipe, a terminal or /dev/null cannot appear whole, and is written as it comes.
    Raises OSError, for a folder, a disk and a socket too.
    """

    file: IO[Any]

    def __init__(self, path: Path, binary: bool = False, beside: Path | None = None):
        self._binary, self._streams = binary, is_stream(path)
        self._path = path if self._streams else _real(path)
        self._partial = (beside or self._path.parent) / f".{self._path.name}.{os.getpid()}"

    def __enter__(self) -> "AtomicFile":
        # What a shell has opened for the process goes on where the shell and its other commands are in it.
        opened = _descriptor(self._path) if self._streams else None
        where = os.dup(opened) if opened is not None else self._path if self._streams else self._partial
        if self._binary:
            self.file = open(where, "wb")
        else:
            self.file = open(where, "w", newline="", encoding="utf-8")
        return self

    def commit(self) -> None:
        """Put it in place."""
        self.file.flush()
        if self._streams:
            return
        os.fsync(self.file.fileno())
        self.file.close()
        self._partial.replace(self._path)

    def discard(self) -> None:
        """Have nothing in place, nor what was there before."""
        if not self._streams:
            self._path.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        try:
            self.file.close()
        finally:
            # On a full disk closing fails, and what is there must go all the more.
            if not self._streams:
                self._partial.unlink(missing_ok=True)


def is_stream(path: Path) -> bool:
    """Whether what is written to ``path`` goes on to somebody else: a pipe, a terminal, what a shell has opened.

    Raises OSError where a file can be neither put nor written.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISREG(mode):
        return _descriptor(path) is not None
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return True
    kind = "folder" if stat.S_ISDIR(mode) else "disk" if stat.S_ISBLK(mode) else "socket"
    raise OSError(errno.EINVAL, f"is a {kind}, and cannot be written as a file", str(path))


def _real(path: Path) -> Path:
    """Absolute and without links; unlike `Path.resolve` this takes a circle of them for a name."""
    return Path(os.path.realpath(path))


def _descriptor(path: Path) -> int | None:
    """The open file of this process that a path stands for, as /dev/stdout does; None for all others."""
    while True:
        folder = _real(path.parent)
        if str(folder) in ("/dev/fd", f"/proc/{os.getpid()}/fd"):
            return int(path.name) if path.name.isdecimal() else None
        path = folder / path.name
        if not path.is_symlink():
            return None
        path = folder / path.readlink()


class OverwriteError(ValueError):
    """What a command would write is what it reads."""


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
    """Where rows that were refused go: OUT.csv → OUT.rejected.csv; of a stream in the working folder."""
    name = f"{path.stem}.rejected{path.suffix}"
    return Path(name) if path.exists() and is_stream(path) else path.with_name(name)


def refuse_overwriting(inputs: Iterable[Path | None], outputs: Iterable[Path | None]) -> None:
    """Raise OverwriteError if one of the outputs is one of the inputs, by whatever name, is in it or holds it."""
    read = [(path, _real(path)) for path in inputs if path is not None and (path.is_file() or path.is_dir())]
    for output in outputs:
        if output is None or (output.exists() and not (output.is_file() or output.is_dir())):
            continue
        written = _real(output)
        for path, place in read:
            nested = place in written.parents or written in place.parents
            if nested or place == written or (written.exists() and place.samefile(written)):
                raise OverwriteError(f"{output} would overwrite {path}, which is read; write to another place")
