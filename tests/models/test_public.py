"""Use from Python without HTTP, as docs/python.md promises it: the predictor, data frames, and what is refused."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from models.engines.engine import EngineName
from models.engines.logit_cache import LogitCache
from models.frames import read_frame
from models.prediction import Prediction
from models.predictor import Predictor
from models.rows import RowError
from tests.conftest import ROOT, TITANIC
from tests.models.engines.networks import ENGINES
from tests.titanic import LABELS, ROWS, Passenger
from training.data.table import Table

CUMINGS = {
    "pclass": 1,
    "sex": "female",
    "name": "Cumings, Mrs. John Bradley",
    "age": 38,
    "fare": 71.28,
    "ticket": "PC 17599",
}


@pytest.fixture(scope="module")
def predictor(bundle_folder: Path) -> Predictor:
    return Predictor.load(bundle_folder, LogitCache(4096))


def test_passengers_and_mappings_are_the_same(predictor: Predictor) -> None:
    found = predictor.predict([Passenger(**CUMINGS), CUMINGS, {"pclass": 3, "sex": "male", "age": None}])
    assert found[0] == found[1] != found[2]
    assert all(isinstance(one, Prediction) for one in found)
    assert found[0].outcome == LABELS[found[0].probability >= 0.5]
    assert found[0].confidence.coverage == 0.9
    assert predictor.predict([]) == []
    assert predictor.predict(iter_once := [CUMINGS]) == predictor.predict(tuple(iter_once))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**CUMINGS, "age": 121}, r"row 1: age is 121; it must be a number from 0 to 120, or unknown"),
        ({**CUMINGS, "age": "38"}, r"row 1: age is '38'; it must be a number from 0 to 120, or unknown"),
        ({**CUMINGS, "age": float("nan")}, r"row 1: age is nan; it must be a number from 0 to 120"),
        ({**CUMINGS, "age": float("inf")}, r"row 1: age is inf"),
        ({**CUMINGS, "pclass": 3.0}, r"row 1: pclass is 3.0; it must be one of 1, 2, 3"),
        ({**CUMINGS, "pclass": np.int64(3)}, r"row 1: pclass is .*3.*; it must be one of 1, 2, 3"),
        ({**CUMINGS, "pclass": True}, r"row 1: pclass is True"),
        ({**CUMINGS, "cabbin": "C85"}, r"row 1: Object contains unknown field `cabbin`"),
        ({"sex": "male"}, r"row 1: Object missing required field `pclass`"),
        ({1: 2}, r"row 1: "),
        ([1, "male"], r"row 1 is a list; it must be a Passenger or a mapping of its fields"),
        (Passenger(pclass=4, sex="male"), r"row 1: pclass is 4; it must be one of 1, 2, 3"),
        (Passenger(pclass=1, sex="male", age="old"), r"row 1: age is 'old'"),
        (
            Passenger(pclass=1, sex="male", name="x" * 201),
            r"row 1: name is 'x{58}…; it must be a text of at most 200 characters",
        ),
    ],
)
def test_what_is_no_passenger_is_named(predictor: Predictor, row: Any, told: str) -> None:
    with pytest.raises(RowError, match=told):
        predictor.predict([CUMINGS, row])


def test_a_checked_passenger_is_unchanged(table: Table) -> None:
    assert ROWS.check(table.rows) == list(table.rows)
    assert ROWS.check(map(msgspec.structs.asdict, table.rows)) == list(table.rows)


def test_the_titanic_file_as_a_frame_is_the_table(table: Table) -> None:
    assert read_frame(pd.read_csv(TITANIC), ROWS) == list(table.rows)


def test_frames_are_taken_as_pandas_makes_them(table: Table) -> None:
    plain = pd.read_csv(TITANIC)
    lower = plain.rename(columns=str.lower).sample(frac=1, axis=1, random_state=0).set_index("passengerid")
    assert read_frame(lower, ROWS) == list(table.rows)
    assert read_frame(plain.convert_dtypes(), ROWS) == list(table.rows)
    assert read_frame(
        plain.astype({"Sex": "category", "Embarked": "category", "Pclass": float, "SibSp": "Int64"}), ROWS
    ) == list(table.rows)
    assert read_frame(plain.astype(object).where(plain.notna(), None), ROWS) == list(table.rows)
    few = pd.DataFrame({"pclass": [3, 1], "sex": ["male", "female"], "sibsp": [np.nan, 2], "other": [pd.NaT, 1]})
    assert read_frame(few, ROWS) == [
        Passenger(pclass=3, sex="male", sibsp=0),
        Passenger(pclass=1, sex="female", sibsp=2),
    ]
    assert read_frame(few.iloc[:0], ROWS) == []


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (pd.DataFrame({"sex": ["male"]}), "the column Pclass is missing; there are: sex"),
        (pd.DataFrame(), "the columns Pclass and Sex are missing; there are: none"),
        (pd.DataFrame([[1, "male", 1]], columns=["Pclass", "sex", "pclass"]), "the column Pclass is there 2 times"),
        (pd.DataFrame([[1, "male", 1]], columns=["pclass", "sex", "pclass"]), "the column Pclass is there 2 times"),
        (pd.DataFrame({"pclass": ["four"], "sex": ["male"]}), "row 0: Pclass is 'four'; it must be one of 1, 2, 3"),
        (
            pd.DataFrame({"pclass": [1, None], "sex": "male"}),
            "row 1: Pclass is None; it must be one of 1, 2, 3 (it is required)",
        ),
        (pd.DataFrame({"pclass": [1, 2.5], "sex": "male"}), "row 1: Pclass is 2.5"),
        (pd.DataFrame({"pclass": [1], "sex": "male", "age": [np.inf]}), "row 0: Age is inf"),
    ],
)
def test_frames_that_are_refused(frame: pd.DataFrame, told: str) -> None:
    with pytest.raises(RowError, match=re.escape(told)):
        read_frame(frame, ROWS)


@pytest.mark.parametrize("engine", ENGINES)
def test_any_thread_may_call_a_predictor(engine: EngineName, bundle_folder: Path) -> None:
    predictor = Predictor.load(bundle_folder, LogitCache(100), engine=engine)
    wanted = [each.probability for each in predictor.predict([CUMINGS, {**CUMINGS, "age": 3}])]

    def ask(_: int) -> list[float | None]:
        return [each.probability for each in predictor.predict([CUMINGS, {**CUMINGS, "age": 3}])]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(40))) == [wanted] * 40


def test_the_lines_of_the_documentation_run(bundle_folder: Path, tmp_path: Path) -> None:
    """Every Python block of docs/python.md, one after the other, in a process of their own."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks) >= 4
    program = "\n".join(blocks).replace("artifacts/titanic", str(bundle_folder))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
