"""Real passengers at a running service, every answer checked.

./run load                                      8 users for 20 s, verdict by exit code
./run load --users 32 --run-time 1m --host http://127.0.0.1:8000
./run load --web                                locust's page on 127.0.0.1:8089
"""

import csv
import random
from pathlib import Path
from typing import Any

from locust import FastHttpUser, task
from locust.clients import ResponseContextManager

DATA = Path(__file__).parents[1] / "data" / "titanic.csv"
NUMBERS = {"Pclass": int, "Age": float, "SibSp": int, "Parch": int, "Fare": float}
FIELDS = ("Pclass", "Sex", "Name", "Age", "SibSp", "Parch", "Fare", "Ticket", "Cabin", "Embarked")


def read_passengers() -> list[dict[str, Any]]:
    """The passengers as the service takes them: known fields only."""
    with DATA.open(newline="", encoding="utf-8") as file:
        return [
            {name.lower(): NUMBERS.get(name, str)(row[name]) for name in FIELDS if row[name]}
            for row in csv.DictReader(file)
        ]


PASSENGERS = read_passengers()


def fault(prediction: Any) -> str | None:
    """What is wrong with an answer, if anything."""
    p = prediction["probability"]
    low, high = prediction["confidence"]["interval"]
    if not 0 < p < 1 or not 0 <= low <= p <= high <= 1:
        return f"probability {p} outside its interval {low}–{high}"
    if prediction["survived"] != (p >= 0.5):
        return f"survived {prediction['survived']} at probability {p}"
    return None


class Client(FastHttpUser):
    """Asks for single passengers mostly, for batches now and then."""

    host = "http://127.0.0.1:8000"

    @task(10)
    def single(self) -> None:
        with self.client.post("/v1/predict", json=random.choice(PASSENGERS), catch_response=True) as response:
            self.judge(response, 1)

    @task(1)
    def batch(self) -> None:
        chosen = random.choices(PASSENGERS, k=random.choice((2, 8, 32)))
        with self.client.post("/v1/predict/batch", json={"passengers": chosen}, catch_response=True) as response:
            self.judge(response, len(chosen))

    def judge(self, response: ResponseContextManager, rows: int) -> None:
        if response.status_code != 200:
            response.failure(f"status {response.status_code}")
            return
        body = response.json()
        predictions = body.get("predictions", [body])
        faults = [found for found in map(fault, predictions) if found]
        if len(predictions) != rows or len({one["id"] for one in predictions}) != rows:
            response.failure(f"{len(predictions)} predictions, or repeated ids, for {rows} passengers")
        elif faults:
            response.failure(faults[0])
