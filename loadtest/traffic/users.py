"""Users of the service: what they ask, and whether the answers are right."""

from typing import Any

import gevent
import msgspec
from locust import FastHttpUser, task
from locust.env import Environment

from loadtest.traffic import answers
from loadtest.traffic.run import Run

JSON = {"Content-Type": "application/json"}
OUTCOME_SECONDS = 3.0
"""How long after its prediction an outcome is sent at the earliest."""

INVALID = (
    ("/v1/predict", b'{"pclass": 1, "sex": "male"', (400,)),
    ("/v1/predict", b"\xff\xfe", (400,)),
    ("/v1/predict", b'{"pclass": 4, "sex": "male"}', (422,)),
    ("/v1/predict", b'{"pclass": "1", "sex": "male"}', (422,)),
    ("/v1/predict", b'{"pclass": 1, "sex": "male", "agee": 3}', (422,)),
    ("/v1/predict", b'{"pclass": 1, "pclass": 2, "sex": "male"}', (400,)),
    ("/v1/predict/batch", b'{"passengers": []}', (422,)),
    ("/v1/outcomes", b'{"outcomes": [{"id": 1}]}', (422,)),
)
"""Path, body, and the statuses that it deserves."""


class Passengers(FastHttpUser):
    """In the open model a connection that sends what is due; in the closed one a client that waits for its answers."""

    host = "http://127.0.0.1:8000"
    environment_of_all: Environment | None = None

    @classmethod
    def current(cls) -> Any:
        return getattr(cls.environment_of_all, "evenkeel_run", None)

    @task
    def ask(self) -> None:
        run = self.environment.evenkeel_run
        if run is None or not hasattr(run, "dealer"):
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
        self._exchange(run, due, "predict", "/v1/predict", cards=run.hand(1))

    def _batch(self, run: Run, due: float) -> None:
        sizes = run.scenario.sizes
        cards = run.hand(run.rng.choices(list(sizes), list(sizes.values()))[0])
        self._exchange(run, due, "batch", "/v1/predict/batch", cards=cards)

    def _outcomes(self, run: Run, due: float) -> None:
        ready: list[tuple[float, str, bool]] = []
        while run.answered and run.answered[0][0] < run.now() - OUTCOME_SECONDS and len(ready) < 16:
            ready.append(run.answered.popleft())
        if not ready:
            self._predict(run, due)
            return
        body = msgspec.json.encode({"outcomes": [{"id": one, "survived": survived} for _, one, survived in ready]})
        self._exchange(run, due, "outcomes", "/v1/outcomes", body=body, sent=len(ready))

    def _invalid(self, run: Run, due: float) -> None:
        path, body, expected = run.rng.choice(INVALID)
        self._exchange(run, due, "invalid", path, body=body, expected=expected)

    def _page(self, run: Run, due: float) -> None:
        self._exchange(run, due, "page", "/")

    def _metrics(self, run: Run, due: float) -> None:
        self._exchange(run, due, "metrics", "/metrics")

    def _exchange(
        self, run: Run, due: float, kind: str, path: str, *, cards: list[Any] | None = None, body: bytes | None = None,
        expected: tuple[int, ...] = (), sent: int = 0,
    ) -> None:  # fmt: skip
        headers = JSON | run.headers
        if cards is not None:
            body = cards[0].body if kind == "predict" else _batch_body(cards)
            if run.scenario.timeout_ms:
                headers |= {"X-Request-Timeout-Ms": str(run.scenario.timeout_ms)}
        begun = run.now()
        method = "GET" if body is None else "POST"
        with self.client.request(method, path, data=body, headers=headers, name=kind, catch_response=True) as response:
            answered = run.now()
            # Counted from when it was due: a wait for a free connection is the service's doing, not a pause of ours.
            response.request_meta["response_time"] = (answered - due) * 1e3
            got, content = response.headers or {}, response.content or b""
            judged = _judge(kind, response.status_code, content, got.get("retry-after"), cards, expected, sent)
            timing = answers.server_timing(got.get("server-timing")) if cards and judged.verdict == "ok" else None
            if judged.verdict == "ok":
                response.success()
            else:
                response.failure(judged.fault or "429")
        run.recording.add(
            judged.verdict if judged.verdict in ("refused", "late") else kind, due, answered, judged.verdict,
            status=response.status_code, rows=len(cards or ()), fault=judged.fault, version=judged.version, sent=begun,
            timing=timing,
        )  # fmt: skip
        if judged.verdict == "ok" and cards and "outcomes" in run.scenario.weights:
            run.answered.extend(
                (answered, one, card.survived) for one, card in zip(judged.ids[:16], cards[:16], strict=True)
            )


def _judge(
    kind: str, status: int, content: bytes, retry_after: str | None, cards: list[Any] | None,
    expected: tuple[int, ...], sent: int,
) -> answers.Judged:  # fmt: skip
    if status == 0:
        return answers.Judged("error", "no answer: the connection failed")
    if cards is not None:
        return answers.judge(status, content, cards, retry_after, batch=kind == "batch")
    if kind == "invalid":
        return answers.judge_invalid(status, content, expected)
    if kind == "outcomes":
        return answers.judge_outcomes(status, content, sent)
    return answers.judge_text(status, content, b"<!doctype html" if kind == "page" else b"# help")


def _batch_body(cards: list[Any]) -> bytes:
    return b'{"passengers":[' + b",".join(card.body for card in cards) + b"]}"
