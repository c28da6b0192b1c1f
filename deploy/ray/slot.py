"""A folder that one replica at a time holds: where it is scraped, and what its drift tests have seen."""

import fcntl
import json
import os
from pathlib import Path

from models.files import write_atomic

MAX_SLOTS = 1000


class ReplicaSlot:
    """``FOLDER/N``, N the lowest number that nobody holds.

    A replica that starts after another ended, or was killed, takes its slot, and goes on where that one stopped: there
    are never more slots than replicas at once, and what names a replica that is gone is written over.
    """

    def __init__(self, folder: Path):
        """Take hold of it; raises OSError."""
        for number in range(MAX_SLOTS):
            self.number = number
            self.folder = folder / str(number)
            # Beside it: Prometheus takes a pattern for a file's name, not for a folder's.
            self.target = folder / f"{number}.json"
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                os.close(self._lock)
        raise OSError(f"all {MAX_SLOTS} slots of {folder} are taken")

    def publish(self, host: str, port: int) -> None:
        """Write in ``FOLDER/N.json`` where the replica can be scraped, as Prometheus' file_sd_configs read it.

        The name of the slot is the series' instance: after a restart they go on as the same.
        """
        target = {"targets": [f"{host}:{port}"], "labels": {"instance": f"{host}/{self.folder.name}"}}
        write_atomic(self.target, json.dumps([target]))

    def release(self) -> None:
        """Let go of it; first it is no longer scraped."""
        self.target.unlink(missing_ok=True)
        os.close(self._lock)
