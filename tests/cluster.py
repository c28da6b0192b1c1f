"""The environment that has Ray, and what its tests look at and kill: processes below one that they started."""

import os
from collections.abc import Iterator
from pathlib import Path

from tests.deploy.programs import need_environment


def python() -> Path:
    """Its interpreter; where it is absent its tests are skipped, in CI they fail."""
    return need_environment("cluster")


def variables() -> dict[str, str]:
    """The environment's variables without those of this interpreter."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def descendants(process: int) -> Iterator[tuple[int, int, str]]:
    """Id, parent and command line of each process below this one, parents first."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    below = [process]
    for parent in below:
        for child in [one for one, its in parents.items() if its == parent]:
            below.append(child)
            try:
                command = (Path("/proc") / str(child) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            yield child, parent, command
