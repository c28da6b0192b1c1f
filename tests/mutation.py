"""./run mutate [GROUP…]: changes the code, one expression at a time, and sees whether a test fails (mutmut).

A change that no test notices has survived: a test is missing, or the change means nothing. What is changed, by which
tests, stands in pyproject.toml; results of functions that did not change since are kept in mutants/.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).parents[1]
GROUPS = {
    "calibration": ("models.calibration", "models.inverse", "models.logit", "models.venn_abers"),
    "confidence": ("models.confidence",),
    "drift": ("service.detectors", "service.drift", "service.estimates", "service.diagnosis"),
    "batcher": ("service.batcher", "service.fair_queue"),
}
LEAST_SHARE = 0.85
"""Of the changes of a group that are to be noticed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0: enough of each group's changes are noticed; 1: not enough, or mutmut failed; 2: wrong use."""
    parser = argparse.ArgumentParser(prog="./run mutate", description="Are changes to the code noticed by a test?")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)} (default: all)")
    parser.add_argument("--report", action="store_true", help="only tell what is known already")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="changes tried at once (default: 2)")
    options = parser.parse_args(arguments)
    unknown = [one for one in options.groups if one not in GROUPS]
    if unknown or options.processes < 1:
        parser.error(f"there is no group {unknown[0]}; there are {', '.join(GROUPS)}" if unknown else "--processes")
    groups = options.groups or list(GROUPS)
    if not options.report:
        mutmut = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(options.processes)]
        patterns = [f"{module}.*" for group in groups for module in GROUPS[group]]
        if subprocess.call([*mutmut, *patterns], cwd=ROOT):
            return 1
    shares = [report(group) for group in groups]
    return 0 if min(shares) >= LEAST_SHARE else 1


def report(group: str) -> float:
    """Print what became of a group's changes; the share that was noticed, those that end in no time among them."""
    total, left = Counter[str](), list[str]()
    print(f"{group:24} changes  noticed  survived  no end  other")
    for module in GROUPS[group]:
        found = outcomes(module)
        counts = Counter(found.values())
        total += counts
        left += [f"  {name}: {status}" for name, status in found.items() if status != "killed"]
        line(module, counts)
    share = (total["killed"] + total["timeout"]) / max(total.total(), 1)
    line("all", total)
    print(f"  noticed: {share:.1%}; mutmut show NAME tells a change")
    print("\n".join(left))
    return share


def outcomes(module: str) -> dict[str, str]:
    """Name of each change to a module → what became of it."""
    path = ROOT / "mutants" / (module.replace(".", "/") + ".py.meta")
    known = json.loads(path.read_text())["exit_code_by_key"] if path.exists() else {}
    return {name: status_by_exit_code[code] for name, code in known.items()}


def line(name: str, counts: Counter[str]) -> None:
    """One row of the table."""
    other = counts.total() - counts["killed"] - counts["survived"] - counts["timeout"]
    numbers = (counts.total(), counts["killed"], counts["survived"], counts["timeout"], other)
    print(f"  {name:22} {numbers[0]:7}  {numbers[1]:7}  {numbers[2]:8}  {numbers[3]:6}  {numbers[4]:5}")


if __name__ == "__main__":
    sys.exit(main())
