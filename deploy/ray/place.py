"""A folder that one replica at a time holds: where it is scraped, and what its drift tests have seen."""

import fcntl
import json
import os
from pathlib import Path

from models.files import write_atomic

MOST_PLACES = 1000


class Place:
    """``FOLDER/N``, N the lowest number that nobody holds.

    A replica that starts after another ended, or was killed, takes its place, and goes on where that one stopped: there
    are never more places than replicas at once, and what tells of a replica that is gone is written over.
    """

    def __init__(self, folder: Path):
        """Take hold of it; raises OSError."""
        for number in range(MOST_PLACES):
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
        raise OSError(f"all {MOST_PLACES} places of {folder} are taken")

    def tell(self, host: str, port: int) -> None:
        """Say in ``FOLDER/N.json`` where the replica can be scraped, as Prometheus' file_sd_configs read it.

        The name of the place is the series' instance: after a restart they go on as the same.
        """
        target = {"targets": [f"{host}:{port}"], "labels": {"instance": f"{host}/{self.folder.name}"}}
        write_atomic(self.target, json.dumps([target]))

    def leave(self) -> None:
        """Let go of it; whoever scrapes is told first."""
        self.target.unlink(missing_ok=True)
        os.close(self._lock)
