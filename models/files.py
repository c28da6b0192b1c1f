"""Text files that appear under their name whole, or not at all."""

import os
from pathlib import Path


class AtomicFile:
    """A text file that appears under its name only when it is whole and `keep` was called."""

    def __init__(self, path: Path):
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> "AtomicFile":
        self.file = self._partial.open("w", newline="", encoding="utf-8")
        return self

    def keep(self) -> None:
        """Put it in place."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self._partial.replace(self._path)

    def __exit__(self, *_: object) -> None:
        try:
            self.file.close()
        finally:
            # On a full disk closing fails, and what is there must go all the more.
            self._partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all; raises OSError."""
    with AtomicFile(path) as output:
        output.file.write(text)
        output.keep()
