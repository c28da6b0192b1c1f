"""The files of a folder that somebody else may have written: known names, regular files, bounded sizes, no links."""

import errno
import os
import stat
from collections.abc import Collection, Mapping
from io import BufferedReader
from pathlib import Path


class FolderError(Exception):
    """A folder that does not hold what it must; the message names the file."""


class Folder:
    """``limits``: the names of all files that may be there, and the largest size of each in bytes.

    Raises FolderError, also for what the system refuses.
    """

    def __init__(self, path: Path, limits: Mapping[str, int], optional: Collection[str]):
        self.path, self._limits = path, limits
        try:
            self.names = self._listed()
        except OSError as error:
            raise FolderError(f"{path} is not a readable folder: {error.strerror}") from error
        for name in limits:
            if name not in self.names and name not in optional:
                raise FolderError(f"{path}: {name} is missing")

    def _listed(self) -> set[str]:
        names = set()
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name not in self._limits:
                    raise FolderError(f"{self.path}: {entry.name[:80]} does not belong to a bundle")
                self._check(entry.name, entry.stat(follow_symlinks=False))
                names.add(entry.name)
        return names

    def _check(self, name: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode) or status.st_size > self._limits[name]:
            raise FolderError(f"{self.path}: {name} is not a regular file of at most {self._limits[name]} bytes")

    def open(self, name: str) -> BufferedReader:
        """A file for reading. It is checked again: what is there need not be what was listed."""
        try:
            # Neither follow a link nor wait for the writer of a pipe.
            handle = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise FolderError(f"{self.path}: {name} is not a regular file but a link") from error
            raise FolderError(f"{self.path}: {name} cannot be read: {error.strerror}") from error
        file = os.fdopen(handle, "rb")
        try:
            self._check(name, os.fstat(handle))
        except FolderError:
            file.close()
            raise
        return file

    def read(self, name: str) -> bytes:
        """A file's content."""
        try:
            with self.open(name) as file:
                content = file.read(self._limits[name] + 1)
        except OSError as error:
            raise FolderError(f"{self.path}: {name} cannot be read: {error.strerror}") from error
        if len(content) > self._limits[name]:
            raise FolderError(f"{self.path}: {name} grew past {self._limits[name]} bytes while it was read")
        return content
