"""Threads of real processes: whoever calls from several of them is answered, and the process ends as it should.

MLX used to end such processes with an abort at exit, in some runs of one program and not in others: so many times.
"""

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.models.engines.networks import ENGINES

TIMES, AT_ONCE = 50, 2
ESTIMATOR = """
import sys
from concurrent.futures import ThreadPoolExecutor
from models.estimator import BundleClassifier

rows = [{"pclass": 1, "sex": "female"}, {"pclass": 3, "sex": "male"}]
classifier = BundleClassifier(sys.argv[1])
with ThreadPoolExecutor(2) as threads:
    answers = list(threads.map(lambda _: classifier.predict_proba(rows).tolist(), range(6)))
assert all(answer == answers[0] for answer in answers), answers
print("answered", len(answers))
"""
PREDICTOR = """
import sys
from concurrent.futures import ThreadPoolExecutor
from models.predictor import Predictor

rows = [{"pclass": 1, "sex": "female"}, {"pclass": 3, "sex": "male"}]
predictor = Predictor.load(sys.argv[1], engine=sys.argv[2])
here = [each.probability for each in predictor.predict(rows)]
with ThreadPoolExecutor(2) as threads:
    answers = list(threads.map(lambda _: [each.probability for each in predictor.predict(rows)], range(6)))
assert all(answer == here for answer in answers), answers
print("answered", len(answers))
"""
PROGRAMS = [(ESTIMATOR, "auto"), *((PREDICTOR, name) for name in ENGINES)]


def answered(program: str, bundle: Path, engine: str = "auto") -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(bundle), engine], cwd=ROOT, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "answered 6\n", "")


@pytest.mark.parametrize(("program", "engine"), PROGRAMS)
def test_threads_share_a_model_and_the_process_ends(program: str, engine: str, bundle_folder: Path) -> None:
    answered(program, bundle_folder, engine)


@pytest.mark.slow
def test_fifty_processes_with_threads_end_without_an_abort(bundle_folder: Path) -> None:
    tried = itertools.islice(itertools.cycle(PROGRAMS), TIMES)
    with ThreadPoolExecutor(AT_ONCE) as starting:
        for each in [starting.submit(answered, program, bundle_folder, engine) for program, engine in tried]:
            each.result()
