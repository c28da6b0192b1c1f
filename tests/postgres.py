"""A PostgreSQL server of the tests' own, on a free port of this machine, gone with everything it kept when they end."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self


def binaries() -> Path | None:
    """The folder of initdb and postgres; Debian has it outside PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


class PostgresServer:
    """Started on entry. The server refuses to run as root, so then it runs as the user nobody."""

    def __init__(self, durable: bool = False):
        """``durable``: with fsync, as it must be outside tests."""
        self._flags = [] if durable else ["-c", "fsync=off"]
        self._databases = 0
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self._port = int(one.getsockname()[1])

    def __enter__(self) -> Self:
        # Not pytest's folder, which another user may not enter.
        self._folder = Path(tempfile.mkdtemp(prefix="evenkeel-postgres-"))
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._user = {"user": "nobody", "extra_groups": []}
            shutil.chown(self._folder, "nobody")
        self._call("initdb", "--auth=trust", "--username=evenkeel", "--encoding=UTF8", "--locale=C", "--no-sync")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it and wait until it answers."""
        import psycopg

        folder = binaries()
        assert folder is not None
        command = [folder / "postgres", "-D", self._folder / "data", "-p", str(self._port), "-k", self._folder]
        self._process = subprocess.Popen(
            [*command, "-c", "listen_addresses=127.0.0.1", *self._flags], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd="/", **self._user,
        )  # fmt: skip
        for _ in range(300):
            try:
                psycopg.connect(self.url("postgres")).close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, "postgres ended"
                time.sleep(0.1)
        raise AssertionError("postgres does not answer")

    def stop(self) -> None:
        """Stop it without waiting for its clients."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=30)

    def new_database(self) -> str:
        """The URL of an empty database."""
        import psycopg

        self._databases += 1
        name = f"test_{self._databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://evenkeel@127.0.0.1:{self._port}/{name}"

    def _call(self, name: str, *flags: str) -> None:
        folder = binaries()
        assert folder is not None
        done = subprocess.run(
            [folder / name, "-D", self._folder / "data", *flags], capture_output=True, text=True, cwd="/", **self._user
        )
        assert done.returncode == 0, done.stderr
