"""Where predictions are kept: a SQLite file or a PostgreSQL database. The SQL is the same; here is what differs.

StoreError
└── ValueRefused   a row's values, not the database, are at fault
"""

import logging
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.store.tables import FORMAT, make_tables, upgrade

if TYPE_CHECKING:
    import psycopg

LOGGER = logging.getLogger("evenkeel")
APPLICATION_ID = 0x45564B4C
BUSY_SECONDS = 2.0
"""How long another process's lock is waited for."""
WAL_BYTES = 64 << 20
CONNECT_SECONDS = 5
STATEMENT_SECONDS = 10
TABLES_LOCK = 0x45564B4C
COLLATION = ' COLLATE "C"'

Row = tuple[Any, ...]


class StoreError(Exception):
    """The store cannot be used now; the message says why and may be shown to a client."""


class ValueRefused(StoreError):
    """The database works, and will never take this value."""


class Database(ABC):
    """One connection, for one thread. Every method raises StoreError; after one, `close` and `open` again."""

    locks_rows = ""
    """What a SELECT ends with whose rows the same transaction will change."""
    if_new = ""
    """What ADD COLUMN begins with, so that another process may be first."""

    @abstractmethod
    def open(self) -> None:
        """Connect, and make the tables where there are none."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect; nothing is raised."""

    @abstractmethod
    def transaction(self, durable: bool) -> AbstractContextManager[None]:
        """All or nothing. When it ends, ``durable`` changes outlive a loss of power; others, the process."""

    @abstractmethod
    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """The rows of a statement with ``?`` for parameters."""

    @abstractmethod
    def change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement with ``?`` for parameters; returns how many rows it changed."""

    @abstractmethod
    def columns(self, table: str) -> set[str]:
        """The names of a table's columns."""


def database(where: str, create: bool = True) -> Database:
    """The database at a ``postgresql://`` URL, or in a file, made if ``create``. Nothing is opened yet."""
    path = path_of(where)
    return Postgres(where) if path is None else SqliteFile(path, create)


def path_of(where: str) -> Path | None:
    """The file of a store; None for a server's."""
    return None if where.startswith(("postgresql://", "postgres://")) else Path(where)


class SqliteFile(Database):
    """A SQLite file in WAL mode, readable by its owner only.

    What is there is never deleted or repaired: a file that is damaged, or not ours, is refused until somebody moves it.
    """

    def __init__(self, path: Path, create: bool = True):
        self._path, self._create = path, create
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)

    def open(self) -> None:
        with self._translate_errors():
            self._make()
            self._connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            self._identity = _identity(self._path)
            empty = not self.query("SELECT count(*) FROM sqlite_master")[0][0]
            if not empty:
                self._check_origin()
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            # On macOS a sync reaches the disk only with this; elsewhere it changes nothing.
            self._connection.execute("PRAGMA fullfsync = ON")
            if empty:
                self._make_tables()
            elif self._format() < FORMAT:
                self._upgrade()

    def close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    @contextmanager
    def transaction(self, durable: bool) -> Iterator[None]:
        with self._translate_errors():
            if _identity(self._path) != self._identity:
                raise StoreError(f"{self._path} was moved or removed")
            # In WAL mode FULL syncs the log at each commit, NORMAL only when it is copied into the file.
            self._open.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._open.execute("BEGIN IMMEDIATE")
        try:
            yield
            with self._translate_errors():
                self._open.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._open.execute("ROLLBACK")
            raise

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with self._translate_errors():
            return self._open.execute(sql, parameters).fetchall()

    def change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        with self._translate_errors():
            return self._open.execute(sql, parameters).rowcount

    def columns(self, table: str) -> set[str]:
        return {name for (name,) in self.query("SELECT name FROM pragma_table_info(?)", (table,))}

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self._path} is not open")
        return self._connection

    def _make(self) -> None:
        if not self._create:
            if not self._path.is_file():
                raise StoreError(f"there is no file {self._path}")
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            # SQLite gives its other files the same mode. The folder is synced so that a loss of power leaves the name.
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _check_origin(self) -> None:
        origin = self.query("PRAGMA application_id")[0][0]
        if origin != APPLICATION_ID:
            raise StoreError(f"{self._path} is a SQLite file of another program")
        written = self._format()
        if written > FORMAT:
            raise StoreError(f"{self._path} has format {written}, this version reads format {FORMAT}")

    def _make_tables(self) -> None:
        with self.transaction(durable=True):
            make_tables(self.change)
            self._open.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._open.execute(f"PRAGMA user_version = {FORMAT}")

    def _upgrade(self) -> None:
        with self.transaction(durable=True):
            # Another process may have done it while this one waited.
            if self._format() < FORMAT:
                LOGGER.info("%s is rewritten in format %d", self._path, FORMAT)
                upgrade(self.change)
                self._open.execute(f"PRAGMA user_version = {FORMAT}")

    def _format(self) -> int:
        return int(self.query("PRAGMA user_version")[0][0])

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """SQLite's and the system's errors as ours."""
        try:
            yield
        except (
            sqlite3.DataError,
            sqlite3.InterfaceError,
            sqlite3.IntegrityError,
            UnicodeError,
            OverflowError,
        ) as error:
            raise ValueRefused(f"{self._path}: {error}") from error
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        except OSError as error:
            raise StoreError(f"{error.filename or self._path}: {error.strerror}") from error


def _identity(path: Path) -> tuple[int, int]:
    """The file behind a name: whoever writes to a removed file loses what is written."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


class Postgres(Database):
    """A PostgreSQL database, which several replicas may share. Needs psycopg 3.

    All that is set holds for one transaction, so that a pooler between may hand the connection on.
    """

    locks_rows = " ORDER BY id FOR UPDATE"
    if_new = "IF NOT EXISTS "

    def __init__(self, url: str):
        self._url = url
        self._connection: psycopg.Connection[Row] | None = None

    def open(self) -> None:
        try:
            import psycopg
            from psycopg.conninfo import conninfo_to_dict
        except ImportError:
            raise StoreError("a postgresql:// store needs psycopg: ./run setup postgres installs it") from None
        with self._translate_errors():
            defaults: dict[str, Any] = {
                "connect_timeout": CONNECT_SECONDS, "application_name": "evenkeel",
                # An answer that never comes is noticed after this many milliseconds, not after hours.
                "tcp_user_timeout": 1000 * STATEMENT_SECONDS,
            }  # fmt: skip
            settings = {**defaults, **conninfo_to_dict(self._url)}
            self._connection = psycopg.connect(**settings, autocommit=True, prepare_threshold=None)
            if not self._is_current():
                self._make_tables()

    def close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
        self._connection = None

    @contextmanager
    def transaction(self, durable: bool) -> Iterator[None]:
        with self._translate_errors(), self._open.transaction():
            self.query(
                "SELECT set_config('synchronous_commit', ?, true), set_config('statement_timeout', ?, true)",
                ("on" if durable else "off", f"{STATEMENT_SECONDS}s"),
            )
            yield

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with self._translate_errors():
            return self._open.execute(_percent(sql), parameters).fetchall()

    def change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        with self._translate_errors():
            return self._open.execute(_percent(sql), parameters).rowcount

    def columns(self, table: str) -> set[str]:
        sql = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped"
        return {name for (name,) in self.query(sql, (table,))}

    @property
    def _open(self) -> "psycopg.Connection[Row]":
        if self._connection is None:
            raise StoreError("PostgreSQL is not connected")
        return self._connection

    def _is_current(self) -> bool:
        """Whether there are tables of `FORMAT`, the first with this column."""
        return "description" in self.columns("evenkeel_versions")

    def _make_tables(self) -> None:
        """Make the tables, of those of the format before where there are such."""
        with self.transaction(durable=True):
            # Two replicas that make the same table at once would fail each other.
            self.query("SELECT pg_advisory_xact_lock(?)", (TABLES_LOCK,))
            self.query("SELECT set_config('statement_timeout', '0', true)")
            if self.query("SELECT to_regclass('evenkeel_versions')")[0][0] is None:
                make_tables(self.change, COLLATION)
            elif not self._is_current():
                LOGGER.info("the store's tables are rewritten in format %d", FORMAT)
                upgrade(self.change, COLLATION)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """psycopg's errors as ours: their kind only, because their texts name hosts and users."""
        import psycopg

        try:
            yield
        except psycopg.DataError as error:
            raise ValueRefused(f"PostgreSQL: {type(error).__name__}") from error
        except psycopg.Error as error:
            unreachable = isinstance(error, psycopg.OperationalError) and not error.sqlstate
            raise StoreError(f"PostgreSQL: {'cannot be reached' if unreachable else type(error).__name__}") from error


def _percent(sql: str) -> bytes:
    return sql.replace("?", "%s").encode()
