"""Users of the service: what they ask, and whether the answers are right."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gevent
import msgspec
from locust import FastHttpUser, task
from locust.env import Environment

from loadtest.traffic import responses
from loadtest.traffic.corpus import Case
from loadtest.traffic.responses import Check
from loadtest.traffic.run import Run

JSON = {"Content-Type": "application/json"}
OUTCOME_SECONDS = 3.0
"""How long after its prediction an outcome is sent at the earliest."""

MAX_OUTCOMES = 16


class Client(FastHttpUser):
    """In the open model a connection that sends what is due; in the closed one a client that waits for its answers."""

    host = "http://127.0.0.1:8000"
    environment_of_all: Environment | None = None

    @classmethod
    def current(cls) -> Any:
        return getattr(cls.environment_of_all, "evenkeel_run", None)

    @task
    def ask(self) -> None:
        run = self.environment.evenkeel_run
        if run is None or not hasattr(run, "sampler"):
            gevent.sleep(0.05)
            return
        if run.open:
            due = run.due.get()
        elif run.stopped:
            gevent.sleep(0.2)
            return
        else:
            due = run.now()
        run.in_flight += 1
        try:
            getattr(self, "_" + run.rng.choices(run.kinds, run.weights)[0])(run, due)
        finally:
            run.in_flight -= 1
        if run.options.think and not run.open:
            gevent.sleep(run.options.think)

    def _predict(self, run: Run, due: float) -> None:
        cases = run.take(1)
        check = partial(responses.check_response, cases=cases, batch=False)
        self._send(run, due, "predict", "/v1/predict", check, cases[0].body, cases)

    def _batch(self, run: Run, due: float) -> None:
        sizes = run.scenario.sizes
        cases = run.take(run.rng.choices(list(sizes), list(sizes.values()))[0])
        check = partial(responses.check_response, cases=cases, batch=True)
        body = b'{"rows":[' + b",".join(case.body for case in cases) + b"]}"
        self._send(run, due, "batch", "/v1/predict/batch", check, body, cases)

    def _outcomes(self, run: Run, due: float) -> None:
        ready: list[tuple[float, str, str]] = []
        while run.answered and run.answered[0][0] < run.now() - OUTCOME_SECONDS and len(ready) < MAX_OUTCOMES:
            ready.append(run.answered.popleft())
        if not ready:
            self._predict(run, due)
            return
        body = msgspec.json.encode({"outcomes": [{"id": id_, "outcome": outcome} for _, id_, outcome in ready]})
        self._send(run, due, "outcomes", "/v1/outcomes", partial(responses.check_outcomes, sent=len(ready)), body)

    def _invalid(self, run: Run, due: float) -> None:
        wrong = run.rng.choice(run.refused)
        self._send(
            run, due, "invalid", wrong.path, partial(responses.check_refused, expected=wrong.statuses), wrong.body
        )

    def _page(self, run: Run, due: float) -> None:
        self._send(run, due, "page", "/", partial(responses.check_text, begins=b"<!doctype html"))

    def _metrics(self, run: Run, due: float) -> None:
        self._send(run, due, "metrics", "/metrics", partial(responses.check_text, begins=b"# help"))

    def _send(
        self, run: Run, due: float, kind: str, path: str, check: Callable[..., Check], body: bytes | None = None,
        cases: Sequence[Case] = (),
    ) -> None:  # fmt: skip
        """One request, its answer checked and recorded; ``cases`` are those of a prediction."""
        headers = JSON | run.headers
        if cases and run.scenario.timeout_ms:
            headers |= {"X-Request-Timeout-Ms": str(run.scenario.timeout_ms)}
        sent = run.now()
        method = "GET" if body is None else "POST"
        with self.client.request(method, path, data=body, headers=headers, name=kind, catch_response=True) as response:
            answered = run.now()
            # Counted from when it was due: a wait for a free connection is the service's doing, not a pause of ours.
            response.request_meta["response_time"] = (answered - due) * 1e3
            checked = _check(check, response, bool(cases))
            if checked.result == "ok":
                response.success()
            else:
                response.failure(checked.fault or "429")
        timing = (response.headers or {}).get("server-timing") if cases and checked.result == "ok" else None
        run.recording.add(
            checked.result if checked.result in ("refused", "late") else kind, due, answered, checked.result,
            status=response.status_code, rows=len(cases), fault=checked.fault, version=checked.version, sent=sent,
            timing=responses.server_timing(timing),
        )  # fmt: skip
        if checked.result == "ok" and cases and "outcomes" in run.scenario.weights:
            first = zip(checked.ids[:MAX_OUTCOMES], cases[:MAX_OUTCOMES], strict=True)
            run.answered.extend((answered, id_, case.outcome) for id_, case in first)


def _check(check: Callable[..., Check], response: Any, predicts: bool) -> Check:
    if response.status_code == 0:
        return Check("error", "no answer: the connection failed")
    refusal = {"retry_after": (response.headers or {}).get("retry-after")} if predicts else {}
    return check(response.status_code, response.content or b"", **refusal)
