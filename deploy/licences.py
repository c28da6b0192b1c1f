"""The licence of every package that serving needs, into docs/licences.md: ``python -m deploy.licences [--check]``.

A package without a licence, or with one that nobody looked at, fails.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
LOCKS = {"serve": "to serve", "core": "to train, and to serve on a GPU"}
"""Lock → what its packages are installed for; the second has those of the first, but for clients of buckets, databases
and collectors."""

ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "LGPL-3.0-only", "MIT", "MIT-0", "MPL-2.0",
    "PSF-2.0", "Zlib",
}  # fmt: skip
"""SPDX identifiers: all let the package be used and shipped unchanged. LGPL and MPL ask for changes to them alone."""

REVIEWED = {
    "colorama": "BSD-3-Clause", "httpx2-jsfetch": "BSD-3-Clause", "mlx-metal": "MIT", "mlx": "MIT", "mlx-cpu": "MIT",
    "rich-click": "MIT", "scipy": "BSD-3-Clause", "scipy-openblas32": "BSD-2-Clause", "uvloop": "MIT OR Apache-2.0",
    "protobuf": "BSD-3-Clause",
}  # fmt: skip
"""Read by a person: packages whose metadata has a licence in prose, and those of other systems."""

CLASSIFIERS = {
    "MIT License": "MIT", "Apache Software License": "Apache-2.0", "BSD License": "BSD-3-Clause",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "ISC License (ISCL)": "ISC",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
}  # fmt: skip
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)(?: ; (.+?))? \\$", re.MULTILINE)

HEAD = """# Licences

Evenkeel is under the Apache License 2.0. Serving and training install these packages, from `locks/`; each keeps its own
licence, whose text is in its `dist-info` folder. This page is written by `./run licences`; `./run check` fails when it
is not current, or when a package has no licence or one outside the list in `deploy/licences.py`.

The wheels of numpy, scipy, scikit-learn and scipy-openblas32 also hold libraries of the GNU compilers (libgfortran,
libgomp), under the GPL 3 with the GCC runtime library exception, which lets them be used by programs of any licence.
Packages of the tests and benchmarks are not listed: nothing of them is shipped.

| package | version | licence | installed |
|---|---|---|---|
"""


class Locked(NamedTuple):
    """A package of a lock, and when it is installed: on some systems only, or for some settings."""

    name: str
    version: str
    when: str


class LicenceError(Exception):
    """A package that must not be depended on as it is; the message names it."""


def locked(lock: str) -> list[Locked]:
    """The packages of ``locks/LOCK.txt``."""
    text = (ROOT / "locks" / f"{lock}.txt").read_text()
    return [Locked(name, version, marker or "") for name, version, marker in PINNED.findall(text)]


def shipped() -> list[Locked]:
    """The packages of all `LOCKS`, each version once."""
    found: dict[tuple[str, str], Locked] = {}
    for lock, when in LOCKS.items():
        for one in locked(lock):
            systems = "" if not one.when else ", on some systems or Pythons"
            found.setdefault((one.name, one.version), one._replace(when=when + systems))
    return sorted(found.values())


def licence(name: str) -> str:
    """SPDX expression of a package's licence; raises LicenceError if it is not known or not allowed."""
    found = REVIEWED.get(name) or _declared(name)
    for part in re.split(r"\s+(?:AND|OR|WITH)\s+|[()]", found):
        if part and part not in ALLOWED:
            raise LicenceError(f"{name} is under {part}, which is not among the licences accepted (deploy/licences.py)")
    return found


def _declared(name: str) -> str:
    try:
        # Typed as a protocol that lacks the methods of the message that it is.
        fields: Any = metadata.metadata(name)
    except metadata.PackageNotFoundError as error:
        raise LicenceError(f"{name} is not installed here: look up its licence and add it to REVIEWED") from error
    if expression := fields.get("License-Expression"):
        return str(expression)
    classifiers = {
        one.rsplit(" :: ", 1)[-1] for one in fields.get_all("Classifier", []) if one.startswith("License ::")
    }
    if classifiers and classifiers <= set(CLASSIFIERS):
        return " OR ".join(sorted({CLASSIFIERS[one] for one in classifiers}))
    if (line := (fields.get("License") or "").strip()) and "\n" not in line:
        return str(line)
    raise LicenceError(f"{name} states no licence: look it up and add it to REVIEWED")


def page() -> str:
    """docs/licences.md; raises LicenceError naming every package that may not be shipped."""
    rows, faults = [], []
    for one in shipped():
        try:
            rows.append(f"| {one.name} | {one.version} | {licence(one.name)} | {one.when} |\n")
        except LicenceError as error:
            faults.append(str(error))
    if faults:
        raise LicenceError("\n".join(faults))
    return HEAD + "".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or with ``--check`` compare; 0 current, 1 not."""
    parser = argparse.ArgumentParser(prog="python -m deploy.licences", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the page is not current")
    options = parser.parse_args(arguments)
    try:
        text = page()
    except LicenceError as error:
        print(error, file=sys.stderr)
        return 1
    if not options.check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print("docs/licences.md is not current: ./run licences", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
