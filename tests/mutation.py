"""./run mutate [GROUP…]: changes the code, one expression at a time, and sees whether a test fails (mutmut).

A change that no test notices has survived: a test is missing, or the change means nothing. Each group of modules is
copied into a folder of its own and tried with its own tests alone. What was noticed once and stands in a function that
did not change since is not tried again; what survived is.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "mutants"
COPIED = ("models", "training", "service", "tests", "data")


class Group(NamedTuple):
    """Modules, and the tests of what they do."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


GROUPS = {
    "calibration": Group(
        (
            "models/calibration/maps.py", "models/calibration/inverse.py", "models/calibration/logit.py",
            "models/calibration/venn_abers.py", "models/calibration/prior_shift.py",
        ),
        ("tests/models/calibration/test_maps.py",),
    ),
    "confidence": Group(
        ("models/prediction.py", "models/calibration/conformal.py", "models/calibration/typicality.py"),
        ("tests/models/calibration/test_confidence.py", "tests/models/test_prediction.py"),
    ),
    "drift": Group(
        (
            "service/drift/detectors.py", "service/drift/label_free.py", "service/drift/monitor.py",
            "service/drift/report.py",
        ),
        (
            "tests/service/drift/test_detectors.py", "tests/service/drift/test_label_free.py",
            "tests/service/drift/test_report.py", "tests/service/drift/test_monitor.py",
        ),
    ),
    "batcher": Group(
        tuple(
            f"service/inference/{name}.py"
            for name in ("batcher", "admission", "supervision", "encode_ahead", "fair_queue", "futures")
        ),
        (
            "tests/service/inference/test_fair_queue.py", "tests/service/inference/test_batcher.py",
            "tests/service/inference/test_batcher_times.py", "tests/service/inference/test_batcher_random.py",
        ),
    ),
}  # fmt: skip
MIN_SHARE = 0.85
"""Of the changes of a group that are to be noticed."""

CONFIGURATION = {
    "source_paths": ["models", "training", "service"],
    # What is logged is for people, and no test reads all of it.
    "do_not_mutate_patterns": [r"LOGGER\."],
    "also_copy": ["data"],
    "pytest_add_cli_args": ["-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-profile=mutation"],
    # Forked from a process that has imported all and started no thread.
    "process_isolation": "forkserver",
    # Fifteen times these seconds and what the tests take: then it never ends.
    "timeout_constant": 2.0,
    "use_git_change_detection": False,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """0: enough of each group's changes are noticed; 1: not enough, or mutmut failed; 2: wrong use."""
    parser = argparse.ArgumentParser(prog="./run mutate", description="Are changes to the code noticed by a test?")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)} (default: all)")
    parser.add_argument("--digits", default="", help="a sample: changes whose number ends in one of these, as 37")
    parser.add_argument("--report", action="store_true", help="only tell what is known already")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="changes tried at once (default: 2)")
    options = parser.parse_args(arguments)
    for name in options.groups:
        if name not in GROUPS:
            parser.error(f"there is no group {name!r}; there are {', '.join(GROUPS)}")
    if options.processes < 1:
        parser.error(f"--processes is {options.processes}; it must be at least 1")
    if not set(options.digits) <= set("0123456789"):
        parser.error(f"--digits is {options.digits!r}; it must be digits")
    names = options.groups or list(GROUPS)
    for name in names if not options.report else ():
        prepare(name)
        if not attempt(name, options.processes, options.digits):
            return 1
    return 0 if min([report(name) for name in names]) >= MIN_SHARE else 1


def attempt(name: str, processes: int, digits: str) -> bool:
    """Try a group's changes; False if mutmut failed."""
    mutmut = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(processes)]
    known = [one for module in GROUPS[name].modules for one in outcomes(name, module).items()]
    chosen = [change for change, status in known if status not in ("killed", "not checked")]
    passes: list[list[str]] = [[], chosen] if chosen else [[]]
    if digits:
        left = [change for change, status in known if status != "killed" and change[-1] in digits]
        passes = [left] if left else [] if known else [[f"*[{digits}]"]]
    return not any(subprocess.call([*mutmut, *changes], cwd=FOLDER / name) for changes in passes)


def prepare(name: str) -> None:
    """A copy of what a group's tests need, and mutmut's configuration for it."""
    folder, group = FOLDER / name, GROUPS[name]
    folder.mkdir(parents=True, exist_ok=True)
    for one in COPIED:
        shutil.rmtree(folder / one, ignore_errors=True)
        shutil.copytree(ROOT / one, folder / one, ignore=shutil.ignore_patterns("__pycache__"))
    values = {
        **CONFIGURATION, "only_mutate": list(group.modules), "pytest_add_cli_args_test_selection": list(group.tests)
    }  # fmt: skip
    # Which test reaches which function is found out anew: mutmut would not notice that a test changed.
    (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
    # JSON's strings, numbers, lists and booleans are TOML's.
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    text = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text("\n".join([text, "[tool.mutmut]", *lines, ""]))


def report(name: str) -> float:
    """Print what became of a group's changes; the share that was noticed, those that never end among them."""
    total, left = Counter[str](), list[str]()
    print(f"{name:24} changes    tried  noticed  survived  no end")
    for module in GROUPS[name].modules:
        found = outcomes(name, module)
        counts = Counter(found.values())
        total += counts
        left += [f"  {change}: {status}" for change, status in found.items() if status not in ("killed", "not checked")]
        line(module, counts)
    share = (total["killed"] + total["timeout"]) / max(total.total() - total["not checked"], 1)
    line("all", total)
    print(f"  noticed: {share:.1%}; in mutants/{name}, mutmut show NAME tells a change")
    print("\n".join(left))
    return share


def outcomes(name: str, module: str) -> dict[str, str]:
    """Name of each change to a module → what became of it."""
    path = FOLDER / name / "mutants" / f"{module}.meta"
    known = json.loads(path.read_text())["exit_code_by_key"] if path.exists() else {}
    return {change: status_by_exit_code[code] for change, code in known.items()}


def line(name: str, counts: Counter[str]) -> None:
    """One row of the table; whatever is neither noticed nor without an end has survived."""
    tried, noticed, endless = counts.total() - counts["not checked"], counts["killed"], counts["timeout"]
    survived = tried - noticed - endless
    print(f"  {name:22} {counts.total():7}  {tried:7}  {noticed:7}  {survived:8}  {endless:6}")


if __name__ == "__main__":
    sys.exit(main())
