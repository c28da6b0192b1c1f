"""Real passengers at a running service, every answer checked.

./run load                                      8 users for 20 s, verdict by exit code
./run load --users 32 --run-time 1m --host http://127.0.0.1:8000
./run load --web                                locust's page on 127.0.0.1:8089
./run load --scenario drift --run-time 2m       from the middle on another mix of passengers; which drift tests alarm
./run load --scenario drift --shift swapped-sexes --shift-after 30
"""

import json
import logging
import random
import time
import urllib.request
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from locust import FastHttpUser, events, task
from locust.clients import ResponseContextManager
from locust.env import Environment

from loadtest.mixes import SHIFTS, Mix, read_passengers

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOGGER = logging.getLogger("evenkeel")


@events.init_command_line_parser.add_listener
def add_flags(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("Evenkeel")
    group.add_argument(
        "--scenario", choices=("steady", "drift"), default="steady", help="drift: the mix changes midway"
    )
    group.add_argument("--shift", choices=sorted(SHIFTS), default="third-class-men", help="what the mix changes to")
    group.add_argument(
        "--shift-after", type=float, metavar="SECONDS", help="when; half of --run-time if it is not given, else 60"
    )


@events.test_start.add_listener
def choose_mix(environment: Environment, **_: Any) -> None:
    """Real passengers, drawn at random. The drift scenario raises alarms, so no host but this machine gets it."""
    options = environment.parsed_options
    drift = options.scenario == "drift"
    if drift and urlsplit(environment.host or Client.host).hostname not in LOOPBACK:
        refuse(environment, f"the drift scenario is for a service on this machine only, not for {environment.host}")
        return
    latched = [one["stream"] for one in drift_report(environment)["streams"] if one["alarm"]] if drift else []
    if latched:
        path = "v1/drift/acknowledge -H 'content-type: application/json' -d '{}'"
        refuse(environment, f"already alarmed: {', '.join(latched)}; curl {environment.host or Client.host}/{path}")
        return
    Client.mix = Mix(read_passengers(), options.shift if drift else None, random.Random())
    after = options.shift_after if options.shift_after is not None else (options.run_time or 120) / 2
    Client.shift_at = time.monotonic() + after if drift else None


@events.test_stop.add_listener
def report_drift(environment: Environment, **_: Any) -> None:
    """What the drift tests say at the end of the scenario; a shift that went unnoticed fails the run."""
    if environment.parsed_options.scenario != "drift" or Client.mix is None or not Client.mix.shifted:
        return
    found = drift_report(environment)
    LOGGER.info("drift: %s", found["summary"])
    alarmed = {one["stream"]: datetime.fromisoformat(one["since"]) for one in found["streams"] if one["alarm"]}
    early = [stream for stream, since in alarmed.items() if since < Client.shift_time]
    if early:
        LOGGER.error("alarmed before the mix changed: %s", ", ".join(early))
    elif not alarmed:
        LOGGER.error("no stream alarmed after the mix changed to %s", environment.parsed_options.shift)
    for stream, since in alarmed.items():
        LOGGER.info("%s alarmed %.0f s after", stream, (since - Client.shift_time).total_seconds())
    environment.process_exit_code = 1 if early or not alarmed else environment.process_exit_code


def refuse(environment: Environment, reason: str) -> None:
    """End the run before it begins."""
    LOGGER.error("%s", reason)
    environment.process_exit_code = 2
    environment.runner.quit()


def drift_report(environment: Environment) -> Any:
    """What the service says of drift."""
    with urllib.request.urlopen(f"{environment.host or Client.host}/v1/drift", timeout=10) as answer:
        return json.load(answer)


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
    mix: Mix | None = None
    shift_at: float | None = None
    shift_time = datetime.max.replace(tzinfo=UTC)

    def draw(self, count: int) -> list[dict[str, Any]]:
        mix = Client.mix
        assert mix is not None
        if Client.shift_at is not None and not mix.shifted and time.monotonic() >= Client.shift_at:
            mix.shifted = True
            # The service tells the time of an alarm in whole seconds.
            Client.shift_time = datetime.now(UTC).replace(microsecond=0)
            LOGGER.info("the mix changes to %s", self.environment.parsed_options.shift)
        return mix.draw(count)

    @task(10)
    def single(self) -> None:
        with self.client.post("/v1/predict", json=self.draw(1)[0], catch_response=True) as response:
            self.judge(response, 1)

    @task(1)
    def batch(self) -> None:
        chosen = self.draw(random.choice((2, 8, 32)))
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
