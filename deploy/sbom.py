"""What serving is made of, as CycloneDX 1.6: ``python -m deploy.sbom FILE``.

From the lock: every package with its version and the sha256 of each of its files, on any system; licences are those of
`deploy.licences`, and who needs whom is what uv noted there. The same lock gives the same bytes.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.licences import ROOT, LicenceError, licence

LOCK = ROOT / "locks" / "core.txt"
SPEC = "1.6"
ROOT_PACKAGE = "evenkeel"


def sbom() -> str:
    """The document as JSON; raises LicenceError, and RuntimeError when CycloneDX's tools refuse it."""
    document, needs = _of_lock(), _needs()
    references: dict[str, list[str]] = {}
    for component in document["components"]:
        # The tool's references are line numbers of the lock; these stay when lines move.
        component["bom-ref"] = f"{component['name']}=={component['version']}"
        references.setdefault(component["name"], []).append(component["bom-ref"])
        component["licenses"] = [{"expression": licence(component["name"])}]
        del component["description"]
    document["metadata"]["component"]["bom-ref"] = ROOT_PACKAGE
    document["dependencies"] = [
        {"ref": one, "dependsOn": sorted(two for name in needs.get(package, ()) for two in references[name])}
        for package, own in sorted({ROOT_PACKAGE: [ROOT_PACKAGE], **references}.items())
        for one in own
    ]
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    _validate(text)
    return text


def _of_lock() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", "requirements", LOCK, "--pyproject", ROOT / "pyproject.toml",
         "--output-reproducible", "--spec-version", SPEC, "--short-PURLs"],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"cyclonedx-py failed: {done.stderr.strip()[-500:]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _needs() -> dict[str, set[str]]:
    """Package → the packages that it needs, from the lock's ``# via`` notes."""
    needs: dict[str, set[str]] = {}
    needed, noted = "", False
    for line in LOCK.read_text().splitlines():
        if line[:1].isalnum():
            needed, noted = line.split("==")[0], False
        elif line.startswith("    #"):
            name = line.strip("# ").removeprefix("via").strip()
            noted = noted or line.strip().startswith("# via")
            if noted and name:
                needs.setdefault(name.split(" ")[0], set()).add(needed)
    return needs


def _validate(text: str) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise RuntimeError(f"the document is not CycloneDX {SPEC}: {str(fault)[:500]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the document; 0 done, 1 not."""
    parser = argparse.ArgumentParser(prog="python -m deploy.sbom", description=__doc__)
    parser.add_argument("out", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        text = sbom()
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    except (LicenceError, RuntimeError, OSError) as error:
        print(f"sbom: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
