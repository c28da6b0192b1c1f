"""A service for one run: on a free port of loopback, with a bundle, store and state in a folder of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec

from models.bundle.manifest import MANIFEST, SELFTEST
from models.bundle.read import read_bundle
from models.bundle.signature import SIGNATURE
from models.bundle.write import write_bundle
from models.calibration.maps import CalibrationMap, Temperature
from models.files import pretty_json

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
READY_SECONDS = 120.0
STOP_SECONDS = 45.0


def find_bundle(folder: str | None) -> Path:
    """A bundle's folder, by default the only one in artifacts/; raises ValueError."""
    if folder is None:
        found = sorted(path.parent for path in ARTIFACTS.glob("*/manifest.json"))
        if len(found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise ValueError(f"the right answers are those of a bundle, name it by --bundle; in artifacts/: {names}")
        return found[0]
    if not (Path(folder) / "manifest.json").exists():
        raise ValueError(f"{folder} is no bundle, which gives the right answers; ./run serve makes one")
    return Path(folder)


class LocalService:
    """Started by ``with``, stopped at its end; raises OSError when it does not become ready."""

    def __init__(self, bundle: Path, flags: Sequence[str]):
        self._source, self._flags = bundle, list(flags)
        self._folder = tempfile.TemporaryDirectory(prefix="evenkeel-load-")
        self.folder = Path(self._folder.name)
        self.bundle = self.folder / "bundle"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        shutil.copytree(self._source, self.bundle)
        flags = ["--bundle", str(self.bundle), "--port", self.url.rpartition(":")[2], "--grace-seconds", "0"]
        flags += ["--state", str(self.folder / "state"), "--store", str(self.folder / "predictions.sqlite")]
        flags += ["--log-requests", "none", *self._flags]
        # Settings of the user's own service are none of this one's.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EVENKEEL_")}
        self._log = (self.folder / "service.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", *flags], env=environment, stdout=self._log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()
        self._folder.cleanup()

    def log_tail(self) -> str:
        return (self.folder / "service.log").read_text(errors="replace")[-2000:]

    def replace_bundle(self, bundle: Path) -> None:
        """Put another bundle in the place of what is served, and have the service load it."""
        assert self.process is not None
        copy_bundle(bundle, self.bundle)
        self.process.send_signal(signal.SIGHUP)

    def _wait(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise OSError(f"the service ended with {self.process.returncode}: {self.log_tail()}")
            try:
                with urllib.request.urlopen(f"{self.url}/health/ready", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise OSError(f"the service is not ready after {READY_SECONDS:g} s: {self.log_tail()}")


def copy_bundle(
    bundle: Path, destination: Path, changed: Mapping[str, bytes] | None = None, without: Sequence[str] = ()
) -> Path:
    """A bundle of the same files but those that are ``changed`` or left out, with a manifest of its own."""
    left_out = (MANIFEST, SIGNATURE, *without)
    files: dict[str, bytes | Path] = {
        path.name: path for path in bundle.iterdir() if path.is_file() and path.name not in left_out
    }
    write_bundle(destination, files | dict(changed or {}), read_bundle(bundle).manifest.origin)
    return destination


def other_bundle(bundle: Path, destination: Path) -> Path:
    """The same model, another version with other answers: for a population with half as many of the positive of two
    classes, or with probabilities of more that are nearer to each other."""
    held = read_bundle(bundle)
    data = held.manifest.origin.data
    if len(held.schema.classes) == 2:
        record = held.shifted(0.5 * data.classes[held.schema.positive] / data.rows).record
    else:
        map = CalibrationMap((*held.record.map.steps, Temperature(1.5)))
        record = msgspec.structs.replace(held.record, map=map)
    changed = {"calibration.json": pretty_json(record), "README.md": b"# Another bundle, for a load test\n"}
    # Its known answers are those of the other population.
    return copy_bundle(bundle, destination, changed, [SELFTEST])


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
