"""API keys: what each may do and how fast, in a file that holds their hashes; python -m service keys.

A key is ``ek_<id>_<secret>``. The id is no secret and finds the entry. The secret is 256 random bits: nobody can guess
it or find it from its hash by trying, so one SHA-256 keeps it. A slow hash (scrypt, Argon2) is for passwords, which
people choose from few; here it would only make each request dear.
"""

import argparse
import fcntl
import hashlib
import hmac
import math
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from models.files import AtomicFile

Scope = Literal["predict", "trial", "outcomes", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
MAX_FILE_BYTES = 1 << 20
"""About 4,000 keys. The file is read on the event loop, so it must be small."""
MAX_KEY_CHARACTERS = 128
NO_HASH = "0" * 64


class KeysError(ValueError):
    """The file of keys cannot be used; the message says why, and holds no key and no hash."""


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is kept of a key. ``name`` is the operator's own, and stands in log lines; without ``rows_per_second`` there
    is no limit; ``burst_rows`` is one second's rows where it is not given."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]
    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{8}\Z")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)]
    rows_per_second: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    burst_rows: Annotated[int, Meta(ge=1, le=1 << 20)] | None = None
    expires: Annotated[datetime, Meta(tz=True)] | None = None

    @property
    def burst(self) -> int:
        """Rows that may come at once."""
        return self.burst_rows or max(1, math.ceil(self.rows_per_second or 1))

    def matches(self, presented: str) -> bool:
        """Whether ``presented`` is this key, found in a time that does not depend on where they differ."""
        return hmac.compare_digest(_sha256(presented), self.sha256)


class KeyFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The file: JSON."""

    keys: list[Key]


class Keys:
    """Keys by id."""

    def __init__(self, keys: Iterable[Key]):
        self._keys = {key.id: key for key in keys}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, id: str) -> bool:
        return id in self._keys

    def find(self, presented: str, now: datetime) -> Key | None:
        """The key that a client presents; None if it is none of these or has expired."""
        if len(presented) > MAX_KEY_CHARACTERS:
            return None
        key = self._keys.get(presented[3:11], NOBODY)
        # Compared also where there is no such id: then too the answer takes its time.
        known = key.matches(presented) and key is not NOBODY
        return key if known and (key.expires is None or now < key.expires) else None


NOBODY = Key(name="nobody", id="0" * 8, sha256=NO_HASH, scopes=("predict",))


def read_keys(path: Path) -> list[Key]:
    """The keys of a file; raises KeysError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise KeysError(f"the file of keys {path} is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, KeysError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise KeysError(f"the file of keys {path} cannot be read: {reason}") from error
    if len(content) > MAX_FILE_BYTES:
        raise KeysError(f"the file of keys {path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        keys = msgspec.json.decode(content, type=KeyFile).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # msgspec's messages name the place and what is wanted, never what stands there.
        raise KeysError(f"the file of keys {path} is not one: {error}") from error
    for what in ("name", "id"):
        values = [str(getattr(key, what)) for key in keys]
        if len(set(values)) < len(values):
            repeated = next(value for place, value in enumerate(values) if value in values[:place])
            raise KeysError(f"the file of keys {path} has the {what} {repeated} twice")
    return keys


def new_key(
    name: str,
    scopes: Sequence[Scope],
    rows_per_second: float | None = None,
    burst_rows: int | None = None,
    expires: datetime | None = None,
) -> tuple[str, Key]:
    """A fresh key as its holder needs it, and what is kept of it; raises KeysError for values out of range."""
    id = secrets.token_hex(4)
    key = f"ek_{id}_{secrets.token_urlsafe(32)}"
    entry = {
        "name": name, "id": id, "sha256": _sha256(key), "scopes": scopes, "rows_per_second": rows_per_second,
        "burst_rows": burst_rows, "expires": expires,
    }  # fmt: skip
    try:
        return key, msgspec.convert(entry, Key)
    except msgspec.ValidationError as error:
        raise KeysError(f"such a key cannot be: {error}") from error


def write_keys(path: Path, keys: list[Key]) -> None:
    """Replace the file, whole or not at all. A new one is for its owner alone; an old one keeps owner and mode, for a
    service that cannot read it any more goes on with the keys it has. Raises OSError."""
    try:
        old = path.stat()
    except FileNotFoundError:
        old = None
    content = msgspec.json.format(msgspec.json.encode(KeyFile(keys))).decode() + "\n"
    with AtomicFile(path) as output:
        os.fchmod(output.file.fileno(), stat.S_IMODE(old.st_mode) if old else 0o600)
        if old and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(output.file.fileno(), old.st_uid, old.st_gid)
        output.file.write(content)
        output.commit()


def main(arguments: Sequence[str]) -> int:
    """Make, list and revoke keys; 0 done, 1 failed, 2 wrong use."""
    given = _parser().parse_args(arguments)
    if given.file is None:
        print("keys: name the file with --file, or in EVENKEEL_KEYS", file=sys.stderr)
        return 2
    if given.command == "new" and given.burst_rows is not None and given.rows_per_second is None:
        print("keys: --burst-rows needs --rows-per-second: without a rate there is no limit", file=sys.stderr)
        return 2
    path = Path(given.file).resolve()
    try:
        if given.command == "list":
            print("\n".join(map(format_key, read_keys(path))))
            return 0
        with file_lock(path):
            return _new(path, given) if given.command == "new" else _revoke(path, given.name)
    except (KeysError, OSError) as error:
        print(f"keys: {error}", file=sys.stderr)
        return 1


def _new(path: Path, given: argparse.Namespace) -> int:
    held = read_keys(path) if path.exists() else []
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=given.days) if given.days else None
    secret, entry = new_key(given.name, given.scopes, given.rows_per_second, given.burst_rows, expires)
    if any(key.name == entry.name for key in held):
        raise KeysError(
            f"there is a key {entry.name} already; revoke it, or take another name to have both for a while"
        )
    if any(key.id == entry.id for key in held):
        raise KeysError("by a rare chance the new key's id is another's; try again")
    write_keys(path, [*held, entry])
    print(f"keys: {format_key(entry)}\nkeys: in {path}; the key is shown this once:", file=sys.stderr)
    print(secret)
    return 0


def _revoke(path: Path, name: str) -> int:
    held = read_keys(path)
    kept = [key for key in held if key.name != name]
    if len(kept) == len(held):
        raise KeysError(f"there is no key {name}; there are {', '.join(key.name for key in held) or 'none'}")
    write_keys(path, kept)
    print(f"keys: {name} is revoked; services that read {path} refuse it within seconds", file=sys.stderr)
    return 0


def format_key(key: Key) -> str:
    """A key's line in a list."""
    rate = f"{key.rows_per_second:g} rows/s, {key.burst} at once" if key.rows_per_second else "no limit"
    expires = f"until {key.expires.isoformat()}" if key.expires else "does not expire"
    return f"{key.name}  ek_{key.id}_…  {','.join(key.scopes)}  {rate}  {expires}"


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the folder, so that of two commands at once neither undoes what the other did."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _scopes(text: str) -> list[str]:
    named = [scope.strip() for scope in text.split(",")]
    wrong = [scope for scope in named if scope not in SCOPES]
    if wrong:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is not a scope; there are {', '.join(SCOPES)}")
    return [scope for scope in SCOPES if scope in named]


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 < days <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days above 0 and up to 36500")
    return days


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service keys", description="Make, list and revoke API keys in a file that keeps their hashes.",
        epilog="A service started with --keys FILE sees a change within seconds.",
    )  # fmt: skip
    file = argparse.ArgumentParser(add_help=False)
    file.add_argument(
        "--file", metavar="FILE", default=os.environ.get("EVENKEEL_KEYS"), help="default: EVENKEEL_KEYS"
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="new | list | revoke")
    new = commands.add_parser("new", parents=[file], help="make a key and print it, this once")
    new.add_argument("name", metavar="NAME", help="who will use it: letters, digits, . _ -")
    new.add_argument("--scopes", type=_scopes, required=True, metavar="A,B", help=f"of {', '.join(SCOPES)}")
    new.add_argument("--rows-per-second", type=float, metavar="R", help="lasting rate; without it there is no limit")
    new.add_argument(
        "--burst-rows", type=int, metavar="N", help="with a rate: rows that may come at once (default: one second's)"
    )
    new.add_argument("--days", type=_days, metavar="D", help="expire after so many days")
    commands.add_parser("list", parents=[file], help="show what is kept of the keys")
    revoke = commands.add_parser("revoke", parents=[file], help="take a key out")
    revoke.add_argument("name", metavar="NAME")
    return parser
