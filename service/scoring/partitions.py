"""The files of a scoring run: which there are, where what is written of each lies, and whether it is done.

OUT/FILE                            its rows with their predictions
OUT/_scored/FILE/rejected.csv       its rows that the schema refuses, where there are any
OUT/_scored/FILE/record.json        written last: from what, with what, and the sha256 of the above
"""

import glob
import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from models.bundle.precisions import FULL, Precision
from models.files import write_atomic
from service.scoring.columns import ScoreError

SUFFIXES = (".csv", ".parquet")
ABOUT = "_scored"
FORMAT = 2
"""Of the record, and of the columns that are added: another number has everything scored again."""


class ScoringSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the predictions depend on besides the rows."""

    bundle: str
    target_prevalence: float | None
    precision: Precision = FULL
    costs: str | None = None
    format: int = FORMAT


class Content(Struct, frozen=True, forbid_unknown_fields=True):
    """What is in a file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Content | None":
        """None when there is no file."""
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return cls(file.tell(), digest)
        except FileNotFoundError:
            return None


class Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That a file is done: its content, the settings, what was written of it, and how many rows that is."""

    source: Content
    settings: ScoringSettings
    output: Content
    rejects: Content | None
    scored: int
    rejected: int


class Partition(Struct, frozen=True):
    """One file of a run: ``source``, and below ``destination`` by ``name``, its path from the source folder."""

    source: Path
    destination: Path
    name: str

    @property
    def is_parquet(self) -> bool:
        return self.source.suffix.lower() == ".parquet"

    @property
    def output(self) -> Path:
        return self.destination / self.name

    @property
    def rejects(self) -> Path:
        return self.destination / ABOUT / self.name / "rejected.csv"

    @property
    def record(self) -> Path:
        return self.destination / ABOUT / self.name / "record.json"

    def done(self, settings: ScoringSettings) -> Record | None:
        """Its record, if with these settings it was scored as it is now, and what was written is there as it was."""
        try:
            record = msgspec.json.decode(self.record.read_bytes(), type=Record)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        same = (record.settings, record.output.size) == (settings, _size(self.output))
        written = (record.source, record.output, record.rejects)
        there = (Content.of(path) for path in (self.source, self.output, self.rejects))
        return record if same and written == tuple(there) else None

    def score(self, settings: ScoringSettings, write: Callable[[Path, Path, Path], tuple[int, int]]) -> Record:
        """``write(source, output, rejects)``, which returns rows scored and rejected, and keep the record of it.

        Raises ScoreError when the source changed meanwhile, and what ``write`` raises.
        """
        self.record.parent.mkdir(parents=True, exist_ok=True)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        before, source = _state(self.source), Content.of(self.source)
        scored, rejected = write(self.source, self.output, self.rejects)
        output = Content.of(self.output)
        if source is None or output is None or before != _state(self.source):
            raise ScoreError("it changed while it was read")
        record = Record(
            source=source, settings=settings, output=output, rejects=Content.of(self.rejects), scored=scored,
            rejected=rejected,
        )  # fmt: skip
        write_atomic(self.record, msgspec.json.format(msgspec.json.encode(record), indent=1).decode() + "\n")
        return record

    def deaths(self) -> int:
        """How many workers died while they wrote it, since `sweep`."""
        return len(_partials(self.output))

    def sweep(self) -> None:
        """Remove what workers that died left half-written of it."""
        for path in (self.output, self.rejects, self.record):
            for partial in _partials(path):
                partial.unlink(missing_ok=True)


def find_partitions(source: Path, destination: Path) -> list[Partition]:
    """``source``, or the CSV and Parquet files below it; names that begin with a point or _ are passed over.

    Raises ScoreError when there are none, or when source and destination lie within each other.
    """
    if not source.exists():
        raise FileNotFoundError(2, "No such file or directory", str(source))
    folder = source if source.is_dir() else source.parent
    real, real_destination = folder.resolve(), destination.resolve()
    if real == real_destination or (source.is_dir() and real in real_destination.parents):
        raise ScoreError(f"{destination} would mix with the input; name a folder outside {folder}")
    if destination.exists() and not destination.is_dir():
        raise ScoreError(f"{destination} is a file; --engine ray writes a folder")
    found = sorted(source.rglob("*")) if source.is_dir() else [source]
    names = [path.relative_to(folder) for path in found if path.is_file() and path.suffix.lower() in SUFFIXES]
    wanted = [name for name in names if not any(part.startswith((".", "_")) for part in name.parts)]
    if not wanted:
        raise ScoreError(f"there is no {' or '.join(SUFFIXES)} file in {source}")
    return [Partition(folder / name, destination, name.as_posix()) for name in wanted]


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


def _partials(path: Path) -> list[Path]:
    """What `AtomicFile` has written of a file before it is whole."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.*"))
