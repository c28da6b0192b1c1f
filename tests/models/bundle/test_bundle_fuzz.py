"""Whatever is in a bundle's folder: a refusal that names the file, or finite probabilities. Never anything else."""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from models.bundle.manifest import MANIFEST
from models.bundle.read import Bundle
from tests.conftest import ROOT
from tests.models.bundle.mutations import damage
from tests.tiny import FILES

EXTRA_BYTES = 200 << 20
SECONDS = 20.0
MUTATIONS = int(os.environ.get("EVENKEEL_TEST_MUTATIONS", "300"))
LOADS = 200
"""Of one process, before the next one takes over."""


class Loader:
    """A process that loads bundles, watched: it answers, hangs, dies, or takes memory."""

    def __init__(self, clean: Path):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.models.bundle.loader"], cwd=ROOT, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        self.loads = 0
        first = self.load(clean, 120.0)
        assert first["outcome"] == "served", first
        self._clean_peak = first["peak"]

    def load(self, folder: Path, seconds: float = SECONDS) -> dict[str, Any]:
        self.loads += 1
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(str(folder)) + "\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            said = self._stderr()
            self.stop()
            return {"outcome": "hang", "said": f"no answer in {seconds:g} s: {said}"}
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(SECONDS)
            said = self._stderr()
            self.stop()
            return {"outcome": "crash", "said": f"exit {self._process.returncode}: {said}"}
        answer: dict[str, Any] = json.loads(line)
        extra = answer["peak"] - getattr(self, "_clean_peak", answer["peak"])
        if extra > EXTRA_BYTES:
            self.stop()
            return {
                "outcome": "memory",
                "said": f"{extra >> 20} MiB more than the clean bundle; {answer['said'][:300]}",
            }
        return {**answer, "extra": extra}

    def _stderr(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-1500:].decode(errors="replace")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None and self.loads < LOADS

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def run_mutations(numbers: range, clean: Path, work: Path) -> tuple[Counter[str], list[str], int]:
    """Outcomes of these mutations, what is wrong with those that are, and the most memory beyond the clean load."""
    outcomes: Counter[str] = Counter()
    faults, most = [], 0
    loader = Loader(clean)
    try:
        for number in numbers:
            if not loader.alive:
                loader.stop()
                loader = Loader(clean)
            folder = work / str(number)
            how = damage(number, clean, folder)
            answer = loader.load(folder)
            shutil.rmtree(folder)
            outcomes[answer["outcome"]] += 1
            most = max(most, answer.get("extra", 0))
            if fault := wrong(answer):
                faults.append(f"mutation {number}, {how}: {fault}")
    finally:
        loader.stop()
    return outcomes, faults, most


def wrong(answer: dict[str, Any]) -> str | None:
    """What is wrong with an outcome, if anything."""
    said = answer["said"]
    if answer["outcome"] == "served":
        return None
    if answer["outcome"] == "refused":
        named = any(name in said for name in (MANIFEST, *FILES)) or "does not belong" in said
        return None if named and said.isprintable() and len(said) <= 500 else f"a refusal that says: {said[:600]!r}"
    return f"{answer['outcome']}: {said[-2000:]}"


def run(count: int, clean: Path, work: Path) -> None:
    begun, workers = time.monotonic(), 2
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(lambda worker: run_mutations(range(worker, count, workers), clean, work), range(workers)))
    outcomes = sum((part[0] for part in parts), Counter[str]())
    faults = [fault for part in parts for fault in part[1]]
    extra = max(part[2] for part in parts) >> 20
    seconds = time.monotonic() - begun
    print(f"{count} mutations in {seconds:.0f} s: {dict(outcomes)}, at most {extra} MiB beyond the clean load")
    assert not faults, f"{len(faults)} of {count}:\n" + "\n".join(faults[:60])
    assert outcomes["refused"] > count / 2
    assert outcomes["served"] > 0


def test_some_mutations_are_refused_by_name_or_answered(tiny_bundle: Bundle, tmp_path: Path) -> None:
    run(60, tiny_bundle.folder, tmp_path)


@pytest.mark.slow
def test_mutations_are_refused_by_name_or_answered(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """``EVENKEEL_TEST_MUTATIONS=10000`` for the whole run."""
    run(MUTATIONS, tiny_bundle.folder, tmp_path)
