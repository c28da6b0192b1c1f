"""A client of the HTTP API, with Python's standard library alone: predictions, outcomes, explanation, drift, errors.

python3 examples/client.py                    (BASE=http://host:port for a service elsewhere)
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

BASE = os.environ.get("BASE", "http://127.0.0.1:8000").rstrip("/")
CUMINGS = {
    "pclass": 1, "sex": "female", "name": "Cumings, Mrs. John Bradley", "age": 38, "sibsp": 1, "fare": 71.28,
    "ticket": "PC 17599", "cabin": "C85", "embarked": "C",
}  # fmt: skip
BRAUND = {"pclass": 3, "sex": "male", "name": "Braund, Mr. Owen Harris", "age": 22, "sibsp": 1, "fare": 7.25}


class Refused(Exception):
    """A problem (RFC 9457) that the service answered with."""

    def __init__(self, problem: dict[str, Any]):
        super().__init__(f"{problem['status']} {problem['title']}: {problem['detail']}")
        self.problem = problem


def ask(path: str, body: Any = None, retries: int = 3) -> Any:
    """The answer to a request; raises Refused. A full queue or a service that still loads is asked again."""
    request = urllib.request.Request(BASE + path, headers={"Accept": "application/json"})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (429, 503) and retries:
                time.sleep(min(10.0, float(error.headers.get("Retry-After", 1))))
                return ask(path, body, retries - 1)
            raise Refused(json.load(error)) from None


def main() -> None:
    model = ask("/v1/model")
    print(f"{BASE} serves {model['name']} version {model['version']}")

    answer = ask("/v1/predict", CUMINGS)
    low, high = answer["confidence"]["interval"]
    print(f"predict: {answer['outcome']}, probability {answer['probability']:.3f}, interval {low:.3f} to {high:.3f}")

    answers = ask("/v1/predict/batch", {"rows": [CUMINGS, BRAUND]})["predictions"]
    print("batch: probability", ", ".join(f"{one['probability']:.3f}" for one in answers))

    explained = ask("/v1/explain?method=shapley", CUMINGS)
    print("explain:", ", ".join(f"{one['field']} {one['contribution']:+.2f}" for one in explained["fields"][:4]))

    try:
        outcomes = [{"id": answers[0]["id"], "outcome": "survived"}, {"id": answers[1]["id"], "outcome": "died"}]
        result = ask("/v1/outcomes", {"outcomes": outcomes})
        print(f"outcomes: {result['counted']} counted, {result['repeated']} repeated, {len(result['unknown'])} unknown")
    except Refused as error:
        if error.problem["status"] != 404:
            raise
        print("outcomes:", error)

    print("drift:", ask("/v1/drift")["summary"])

    try:
        ask("/v1/predict", {"pclass": 4, "sex": "male", "agee": 3})
    except Refused as error:
        print(f"errors: {error}")
        for fault in error.problem["errors"]:
            print(f"  {fault['pointer']} is {fault['value']}: {fault['message']}")
    else:
        raise SystemExit("client.py: a passenger of the fourth class was not refused")


if __name__ == "__main__":
    try:
        main()
    except (Refused, OSError) as error:
        sys.exit(f"client.py: {BASE}: {error}")
