"""Scoring files by Ray Data's workers beside the single-machine scorer, on the same cores.

    ./run bench ray_score [--quick]

In every round both score the same rows, one after the other in random order, as a user calls them: one process with all
rows in one file, and Ray with as many workers and files as there are cores. Ratios are taken round by round. What
scoring one row takes, start and loading included, is measured too and subtracted for the rates.
"""

import csv
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.command import Options, Result, run
from benchmarks.harness.machine import ROOT, child_variables, cores, die_with_parent, interpreter
from benchmarks.harness.process import Unavailable, last_line, say, scratch
from benchmarks.harness.spread import ratio, spread
from benchmarks.harness.tables import table
from benchmarks.harness.texts import mixed_rows, records, write_csv

FILES = cores()
ROUNDS = 5
ANSWERS = 10_000
CASES: dict[str, dict[str, Any]] = {
    "start": {"name": "one row a file: the start", "rows": FILES, "quick": FILES, "flags": ()},
    "repeated": {"name": "drawn from the 891 real ones", "rows": 250_000 * FILES, "quick": 8_000, "flags": ()},
    "mixed": {"name": "every field drawn on its own", "rows": 10_000 * FILES, "quick": 1_000, "flags": ()},
    "uncached": {
        "name": "every field drawn on its own, --cache-rows 0", "rows": 4_096 * FILES, "quick": 400,
        "flags": ("--cache-rows", "0"),
    },
}  # fmt: skip
"""Of 4,096 rows both compute equal texts once even without a cache, so in the last case both compute the same."""

REPORT = """\
{cores} cores; {rounds} rounds; median [quartiles]. Rates are without the start. Ray's workers have a cache of their own
for every file, so where texts repeat they compute some of them more often.

{table}
The same {answers:,} rows, every field drawn on its own: largest |Δprobability| between Ray's answers and one process's
{difference:.1e}; from one process on one thread (`--threads 1`) {bytes}.
"""


def measure(options: Options) -> Result:
    if not interpreter("cluster").exists():
        raise Unavailable("the environment cluster could not be made")
    rng = np.random.default_rng(0)
    seconds: Any = {name: {"one": [], "ray": []} for name in CASES}
    with scratch() as scratched:
        folder = Path(scratched)
        answers = _answers(folder, options, rng)
        for name, case in CASES.items():
            rows = case["quick"] if options.quick else case["rows"]
            _write(folder / name, _rows(name, rows, rng))
        for number in range(options.rounds(ROUNDS)):
            for name, case in CASES.items():
                say(f"round {number + 1}, {case['name']}")
                for engine in rng.permutation(["one", "ray"]).tolist():
                    seconds[name][engine].append(_score(folder / name, engine, options, case["flags"]))
    counts = {name: case["quick" if options.quick else "rows"] for name, case in CASES.items()}
    return {"seconds": seconds, "rows": counts, "answers": answers, "cores": cores()}


def _rows(name: str, rows: int, rng: np.random.Generator) -> list[dict[str, str]]:
    if name != "repeated":
        return mixed_rows(rng, rows)
    real = records()
    return [real[index] for index in rng.integers(len(real), size=rows)]


def _write(folder: Path, rows: list[dict[str, str]]) -> None:
    """All rows in ``all.csv``, and the same in the files of ``parts``."""
    (folder / "parts").mkdir(parents=True)
    write_csv(folder / "all.csv", rows)
    for part in range(FILES):
        write_csv(folder / "parts" / f"{part}.csv", rows[len(rows) * part // FILES : len(rows) * (part + 1) // FILES])


def _score(folder: Path, engine: str, options: Options, flags: tuple[str, ...]) -> float:
    """Seconds from the start of the command to its end; what it wrote is in ``folder``."""
    if engine == "ray":
        # Or else what is there would be done before.
        shutil.rmtree(folder / "out", ignore_errors=True)
    what = ("all.csv", "out.csv") if engine == "one" else ("parts", "out", "--engine", "ray")
    environment = interpreter("core" if engine == "one" else "cluster")
    command = [environment, "-m", "service", "score", folder / what[0], folder / what[1], *what[2:], *flags]
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        done = subprocess.run(
            [str(part) for part in (*command, "--bundle", options.bundle)], stdout=log, stderr=log, cwd=ROOT,
            env=child_variables(), preexec_fn=die_with_parent,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        if done.returncode:
            raise Unavailable(f"score ended with {done.returncode}: {last_line(log)}")
    return seconds


def _answers(folder: Path, options: Options, rng: np.random.Generator) -> dict[str, Any]:
    """How far Ray's answers are from one process's, and whether they are those of one process on one thread."""
    rows = 400 if options.quick else ANSWERS
    shutil.rmtree(folder / "answers", ignore_errors=True)
    _write(folder / "answers", mixed_rows(rng, rows))
    whole = folder / "answers"
    (whole / "parts" / "0.csv").write_bytes((whole / "all.csv").read_bytes())
    for part in range(1, FILES):
        (whole / "parts" / f"{part}.csv").unlink()
    _score(whole, "ray", options, ())
    _score(whole, "one", options, ())
    ours, theirs = _probabilities(whole / "out" / "0.csv"), _probabilities(whole / "out.csv")
    _score(whole, "one", options, ("--threads", "1"))
    same = (whole / "out" / "0.csv").read_bytes() == (whole / "out.csv").read_bytes()
    return {"rows": rows, "difference": float(np.abs(ours - theirs).max()), "same_bytes": same}


def _probabilities(path: Path) -> np.ndarray:
    with path.open(newline="") as file:
        return np.array([float(row["probability"]) for row in csv.DictReader(file)])


def report(result: Result) -> str:
    start = {engine: float(np.median(took)) for engine, took in result["seconds"]["start"].items()}
    lines = [[CASES["start"]["name"], FILES, *_both(result["seconds"]["start"], " s"), "–"]]
    for name in ("repeated", "mixed", "uncached"):
        rows, took = result["rows"][name], result["seconds"][name]
        rates = {engine: [rows / max(one - start[engine], 1e-9) for one in took[engine]] for engine in ("one", "ray")}
        lines.append([CASES[name]["name"], f"{rows:,}", *_both(rates, "/s"), ratio(rates["ray"], rates["one"])])
    answers = result["answers"]
    return REPORT.format(
        cores=result["cores"], rounds=len(result["seconds"]["start"]["one"]),
        table=table(["rows", "count", "one process", "Ray Data", "Ray ÷ one"], lines),
        answers=answers["rows"], difference=answers["difference"],
        bytes="not a byte differs" if answers["same_bytes"] else "THE BYTES DIFFER",
    )  # fmt: skip


def _both(values: dict[str, list[float]], unit: str) -> list[str]:
    return [f"{spread(values[engine])}{unit}" for engine in ("one", "ray")]


if __name__ == "__main__":
    sys.exit(run("ray_score", __doc__, measure, report))
