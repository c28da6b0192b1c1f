"""./run notebooks [NAME…]: runs the notebooks of examples/ anew and stores what they show.

Each in a new kernel, with the bundle and the variables that its first cells name. What a notebook holds afterwards
depends on the machine in its numbers alone: neither times nor the Python's version are kept.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
NOTEBOOKS = tuple(sorted((ROOT / "examples").glob("*.ipynb")))
CELL_SECONDS = 600
"""For one cell, a fit among them, on a busy machine."""


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def run(notebook: NotebookNode, folder: Path, environment: Mapping[str, str]) -> None:
    """Run all cells in a new kernel that starts in ``folder``; the outputs take the old ones' place.

    Raises CellExecutionError with the cell and its error."""
    client = NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}},
        record_timing=False, coalesce_streams=True,
    )  # fmt: skip
    with TemporaryDirectory() as folder_of_kernel:
        # Sockets that are files of this user: loopback's ports are open to all on the machine.
        client.config.KernelManager.transport = "ipc"
        client.config.KernelManager.connection_file = f"{folder_of_kernel}/kernel.json"
        client.execute(env={**environment, "IPYTHONDIR": folder_of_kernel})
    notebook.metadata.language_info = {"name": "python"}


def write(notebook: NotebookNode, path: Path) -> None:
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook, indent=1).rstrip("\n") + "\n", encoding="utf-8")


def main(words: Sequence[str]) -> int:
    names = [path.stem for path in NOTEBOOKS]
    parser = argparse.ArgumentParser(prog="./run notebooks", description="run the notebooks anew, in place")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all by default")
    wanted = parser.parse_args(words).names or names
    if unknown := set(wanted) - set(names):
        parser.error(f"there is no notebook {unknown.pop()!r}; there are {', '.join(names)}")
    for path in (path for path in NOTEBOOKS if path.stem in wanted):
        print(f"run: {path.relative_to(ROOT)}", file=sys.stderr)
        notebook = read(path)
        try:
            run(notebook, path.parent, os.environ)
        except CellExecutionError as error:
            reason = f"{error.ename}: {error.evalue}"
            print(f"{error}\nrun: {path.relative_to(ROOT)} failed, and is as it was: {reason}", file=sys.stderr)
            return 1
        write(notebook, path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
