"""What a restart must not lose: the form of the saved state, and the file that it is kept in."""

import contextlib
import fcntl
import logging
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType

from models.files import write_atomic
from service.online.recalibration import OnlineState
from service.reliability.groups import GroupState

LOGGER = logging.getLogger("evenkeel")
STATE_FORMAT = 1


class StateError(ValueError):
    """Bytes that are not the state of this bundle's drift tests; the message says why."""


class Alarm(Struct, frozen=True, forbid_unknown_fields=True):
    """An alarm: when (Unix seconds), at which prediction or outcome of the version, and the field that spoke most."""

    since: float
    at: int
    field: str | None = None


class State(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of `DriftMonitor`. Arrays are nested lists; the generator's 128-bit integers are decimal strings.

    States without ``outcome_tenths`` are of a service that did not keep them; ``online`` is there where outcomes have
    recalibrated what is served, ``groups`` where they are counted by group. Of more than two classes ``fine`` is
    empty, and ``probabilities`` and ``confusion`` are there.
    """

    format: int = STATE_FORMAT
    version: str
    dead_band: float
    target_prevalence: float | None
    generator: dict[str, str]
    seen: dict[str, int]
    alarms: dict[str, Alarm]
    cumulated: list[Any]
    sums: list[Any]
    densities: list[Any]
    calibration_sums: list[Any]
    block_rows: int
    marks: list[Any]
    fine: list[Any]
    outcome_tenths: list[Any] | None = None
    probabilities: list[bytes] | UnsetType = UNSET
    confusion: list[Any] | UnsetType = UNSET
    online: OnlineState | UnsetType = UNSET
    groups: GroupState | UnsetType = UNSET


def read_state(content: bytes, version: str) -> State:
    """Bytes → the state of this version; raises StateError."""
    try:
        state = msgspec.json.decode(content, type=State)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StateError(f"it is not a saved state: {str(error)[:200]}") from error
    if (state.format, state.version) != (STATE_FORMAT, version):
        raise StateError(f"it is of version {state.version[:40]}, format {state.format}")
    return state


def array(lists: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Nested lists → float64 of that shape; raises StateError unless all are finite and at least 0."""
    try:
        values = np.array(lists, float)
    except (ValueError, TypeError) as error:
        raise StateError("an array is not of numbers") from error
    if values.shape != shape or not np.isfinite(values).all() or (values < 0).any():
        raise StateError(f"an array is not {shape} of finite numbers of at least 0")
    return values


def generator_state(rng: np.random.Generator) -> dict[str, str]:
    """All of a PCG64 generator's state."""
    state: dict[str, Any] = dict(rng.bit_generator.state)
    numbers = {**state.pop("state"), **state}
    return {name: str(value) for name, value in numbers.items()}


def restored_generator(state: dict[str, str]) -> np.random.Generator:
    """The generator of a `generator_state`; raises StateError."""
    bits = np.random.PCG64()
    try:
        bits.state = {
            "bit_generator": state["bit_generator"], "state": {"state": int(state["state"]), "inc": int(state["inc"])},
            "has_uint32": int(state["has_uint32"]), "uinteger": int(state["uinteger"]),
        }  # fmt: skip
    except (KeyError, ValueError, OverflowError, TypeError) as error:
        raise StateError("the generator's state is not one of PCG64") from error
    return np.random.Generator(bits)


class StateFile:
    """``drift-VERSION.json`` in a folder; one process at a time holds it. Nothing here ever stops the service."""

    def __init__(self, folder: Path, version: str):
        self.path = folder / f"drift-{version}.json"
        self._lock: int | None = None
        self._failed = False

    def open(self) -> bool:
        """Take hold of the file; False, with a warning, when another process has it or the folder cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            LOGGER.warning("another process keeps %s; this one starts its drift tests afresh and keeps none", self.path)
        except OSError as error:
            LOGGER.warning("the state of the drift tests is not kept: %s: %s", self.path.parent, error.strerror)
        self.close()
        return False

    def read(self) -> bytes | None:
        """What was saved, if anything."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            LOGGER.warning("%s cannot be read: %s", self.path, error.strerror)
            return None

    def write(self, content: bytes) -> None:
        """Put it in place whole, or not at all; the first failure in a row is logged."""
        try:
            write_atomic(self.path, content.decode())
            self._failed = False
        except OSError as error:
            if not self._failed:
                LOGGER.warning("the state of the drift tests was not saved: %s: %s", self.path, error.strerror)
            self._failed = True

    def set_aside(self, reason: str) -> None:
        """Rename a file that cannot be used, so that it can be looked at."""
        aside = self.path.with_suffix(".unusable")
        LOGGER.warning("%s is not used and becomes %s: %s", self.path, aside.name, reason)
        with contextlib.suppress(OSError):
            self.path.replace(aside)

    def close(self) -> None:
        """Let go of the file."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
