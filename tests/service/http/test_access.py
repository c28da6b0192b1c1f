"""Who may use what: keys, scopes, rates, host names, headers for browsers, and where the service listens."""

import asyncio
import json
import logging
import os
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import get
from litestar.params import FromPath

import service.__main__
import service.serve
from models.bundle.read import Bundle
from service.app import Application
from service.http import access, keys, listener
from service.http.access import Keyring, Rates
from service.http.errors import RateLimited
from service.http.keys import SCOPES, Key, KeysError, new_key, read_keys, write_keys
from service.http.logs import JsonFormatter
from service.http.middleware import RequestContext
from service.http.tracing import TraceContext
from service.inference.errors import QueueFull
from service.settings import Settings, SettingsError, read_settings
from tests.deploy.programs import free_port
from tests.service.inference.test_batcher import wait_until
from tests.service.serving import ApplicationClient, make_app
from tests.service.test_app import ALLISON, Deterministic, problem, samples
from tests.service.test_real import start

OUTCOME = {"outcomes": [{"id": "0199c1f2-0000-7000-8000-000000000000", "outcome": "survived"}]}
PAST = datetime.now(UTC) - timedelta(seconds=1)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class Holders:
    """A file with one key for each scope, one of all scopes, one of no use any more, and a slow one."""

    def __init__(self, folder: Path):
        self.path = folder / "keys.json"
        made = {scope: new_key(scope, [scope]) for scope in SCOPES}
        made["all"] = new_key("all", SCOPES)
        made["expired"] = new_key("expired", SCOPES, expires=PAST)
        made["later"] = new_key("later", SCOPES, expires=datetime.now(UTC) + timedelta(hours=1))
        made["slow"] = new_key("slow", SCOPES, rows_per_second=0.01, burst_rows=3)
        self.keys = {name: key for name, (key, _) in made.items()}
        self.entries = [entry for _, entry in made.values()]
        write_keys(self.path, self.entries)


@pytest.fixture
def holders(tmp_path: Path) -> Holders:
    return Holders(tmp_path)


def serve(bundle: Bundle, **settings: Any) -> Iterator[ApplicationClient]:
    app = make_app(Settings(timeout_seconds=5, **settings), lambda _: Deterministic(bundle))
    with ApplicationClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client


@pytest.fixture
def client(tiny_bundle: Bundle, holders: Holders) -> Iterator[ApplicationClient]:
    yield from serve(tiny_bundle, keys=str(holders.path))


@pytest.fixture
def unlocked(tiny_bundle: Bundle) -> Iterator[ApplicationClient]:
    yield from serve(tiny_bundle)


# The file of keys and its command


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = keys.main([str(one) for one in arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_key_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.json"
    made = run(
        capsys, "new", "shop", "--scopes", "outcomes,predict", "--file", path, "--rows-per-second", 50, "--days", 1
    )
    code, key, told = made[0], made[1].strip(), made[2]
    assert code == 0
    assert key.startswith("ek_")
    assert len(key.split("_", 2)[2]) == 43  # 256 bits in base64.
    assert path.stat().st_mode & 0o777 == 0o600
    assert key.split("_", 2)[2] not in path.read_text() + told
    (entry,) = read_keys(path)
    assert entry.matches(key)
    assert not entry.matches(key[:-1])
    assert (entry.name, entry.scopes, entry.rows_per_second, entry.burst) == ("shop", ("predict", "outcomes"), 50, 50)
    assert entry.expires is not None
    assert timedelta(hours=23) < entry.expires - datetime.now(UTC) <= timedelta(days=1)
    code, told, _ = run(capsys, "list", "--file", path)
    assert code == 0
    assert f"shop  ek_{entry.id}_…  predict,outcomes  50 rows/s, 50 at once  until 20" in told
    assert entry.sha256 not in told


def test_a_burst_without_a_rate_is_no_limit_and_so_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.json"
    code, key, told = run(capsys, "new", "a", "--scopes", "predict", "--burst-rows", 5, "--file", path)
    assert (code, key) == (2, "")
    assert told == "keys: --burst-rows needs --rows-per-second: without a rate there is no limit\n"
    assert not path.exists()


def test_keys_are_added_and_revoked_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.json"
    for name in ("a", "b"):
        assert run(capsys, "new", name, "--scopes", "metrics", "--file", path)[0] == 0
    again = run(capsys, "new", "a", "--scopes", "metrics", "--file", path)
    assert (again[0], again[1]) == (1, "")
    assert "there is a key a already" in again[2]
    path.chmod(0o640)  # As an operator does whose service runs as another user.
    assert run(capsys, "revoke", "a", "--file", path)[0] == 0
    assert [one.name for one in read_keys(path)] == ["b"]
    assert path.stat().st_mode & 0o777 == 0o640
    code, _, told = run(capsys, "revoke", "a", "--file", path)
    assert (code, told) == (1, "keys: there is no key a; there are b\n")
    assert [one.name for one in tmp_path.iterdir()] == ["keys.json"]


def test_commands_at_once_do_not_undo_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.json"
    threads = [
        threading.Thread(target=keys.main, args=(["new", f"k{i}", "--scopes", "predict", "--file", str(path)],))
        for i in range(8)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    capsys.readouterr()
    assert {one.name for one in read_keys(path)} == {f"k{i}" for i in range(8)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["new", "x", "--scopes", "predict,root"],
            "'root' is not a scope; there are predict, trial, outcomes, admin, metrics",
        ),
        (["new", "x", "--scopes", ""], "is not a scope"),
        (["new", "x"], "--scopes"),
        (["new", "x", "--scopes", "predict", "--days", "0"], "'0' is not a number of days"),
        (["new", "x", "--scopes", "predict", "--days", "nan"], "is not a number of days"),
        (["forget", "x"], "invalid choice"),
        ([], "required"),
    ],
)
def test_wrong_use_of_the_command_exits_with_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        keys.main([*arguments, *(["--file", str(tmp_path / "k")] if arguments else [])])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_says_what_it_cannot_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENKEEL_KEYS", raising=False)
    assert run(capsys, "list") == (2, "", "keys: name the file with --file, or in EVENKEEL_KEYS\n")
    code, _, told = run(capsys, "new", "a b", "--scopes", "predict", "--file", tmp_path / "k")
    assert code == 1
    assert "name" in told
    assert "cannot be read: No such file" in run(capsys, "list", "--file", tmp_path / "none")[2]
    (tmp_path / "k").write_text("{}")
    code, shown, _ = run(capsys, "new", "x", "--scopes", "predict", "--file", tmp_path / "k")
    assert (code, shown, (tmp_path / "k").read_text()) == (1, "", "{}")
    monkeypatch.setenv("EVENKEEL_KEYS", str(tmp_path / "other"))
    assert run(capsys, "new", "x", "--scopes", "predict")[0] == 0
    assert len(read_keys(tmp_path / "other")) == 1


def entry(**changed: Any) -> dict[str, Any]:
    return {"name": "a", "id": "0123abcd", "sha256": "0" * 64, "scopes": ["predict"], **changed}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not one"),
        (b"{", "is not one"),
        (b"[]", "object"),
        (b"{}", "keys"),
        (b"\xff\xfe", "is not one"),
        (b"[" * 100_000, "is not one"),
        (json.dumps({"keys": [entry(scopes=["root"])]}).encode(), "scopes"),
        (json.dumps({"keys": [entry(scopes=[])]}).encode(), "scopes"),
        (json.dumps({"keys": [entry(sha256="ek_0123abcd_hunter2")]}).encode(), "sha256"),
        (json.dumps({"keys": [entry(name="a\n")]}).encode(), "name"),
        (json.dumps({"keys": [entry(rows_per_second=0)]}).encode(), "rows_per_second"),
        (json.dumps({"keys": [entry(burst_rows=0)]}).encode(), "burst_rows"),
        (json.dumps({"keys": [entry(expires="2030-01-01T00:00:00")]}).encode(), "expires"),
        (json.dumps({"keys": [entry(expire="2030-01-01T00:00:00Z")]}).encode(), "expire"),
        (json.dumps({"keys": [entry(), entry(id="0" * 8)]}).encode(), "the name a twice"),
        (json.dumps({"keys": [entry(), entry(name="b")]}).encode(), "the id 0123abcd twice"),
        (b" " * (1 << 20) + b'{"keys":[]}', "larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_none_is_refused_without_telling_what_it_holds(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    with pytest.raises(KeysError, match=message) as refused:
        read_keys(path)
    assert str(path) in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_folder_or_a_pipe_is_no_file_of_keys(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(KeysError, match="not a regular file"):
            read_keys(path)


# Keys at the routes

REQUESTS: dict[str, Callable[[ApplicationClient, dict[str, str]], httpx.Response]] = {
    "predict": lambda client, headers: client.post("/v1/predict", json=ALLISON, headers=headers),
    "outcomes": lambda client, headers: client.post("/v1/outcomes", json=OUTCOME, headers=headers),
    "admin": lambda client, headers: client.post("/v1/drift/acknowledge", json={"stream": "all"}, headers=headers),
    "metrics": lambda client, headers: client.get("/metrics", headers=headers),
}


@pytest.mark.parametrize("scope", REQUESTS)
def test_a_route_takes_the_keys_of_its_scope_and_no_others(
    client: ApplicationClient, holders: Holders, scope: str
) -> None:
    ask = REQUESTS[scope]
    good = 404 if scope == "outcomes" else 200  # There is no store here: the route was reached.
    for name in (scope, "all", "later"):
        assert ask(client, bearer(holders.keys[name])).status_code == good
        assert ask(client, {"X-API-Key": holders.keys[name]}).status_code == good
    others = set(SCOPES) - {scope}
    if scope == "predict":
        # Its predictions are trials.
        others.remove("trial")
        assert ask(client, bearer(holders.keys["trial"])).status_code == 200
    for name in others:
        refused = ask(client, bearer(holders.keys[name]))
        assert problem(refused, 403)["detail"] == f"the key does not have the scope {scope}"
        assert "WWW-Authenticate" not in refused.headers


def test_every_absent_or_bad_key_gets_the_same_answer(client: ApplicationClient, holders: Holders) -> None:
    good, other = holders.keys["predict"], holders.keys["outcomes"]
    tries: list[dict[str, Any]] = [
        {}, bearer(""), bearer("x"), bearer(good[:-1]), bearer(good + "A"), bearer(good.upper()), bearer("ek_"),
        bearer(good[:12] + other[12:]), bearer("ek_00000000_" + good[12:]), bearer(holders.keys["expired"]),
        {"Authorization": good}, {"Authorization": f"Basic {good}"}, {"Authorization": "Bearer"}, bearer("x" * 5000),
        {"X-API-Key": ""}, {"X-API-Key": "é".encode("latin-1")}, {"X-API-Key": "", **bearer(good)},
        bearer(holders.entries[0].sha256), {"X-API-Key": f"ek_{holders.entries[0].id}_{holders.entries[0].sha256}"},
        {"Cookie": f"key={good}"},
    ]  # fmt: skip
    answers = [client.post("/v1/predict", json=ALLISON, headers=one) for one in tries]
    answers.append(client.post(f"/v1/predict?key={good}&access_token={good}", json=ALLISON))
    for one in answers:
        problem(one, 401)
        assert one.headers["WWW-Authenticate"] == "Bearer"
    assert len({one.content for one in answers}) == 1
    for spelt in ("bearer", "BEARER", "Bearer  "):
        assert client.get("/v1/model", headers={"Authorization": f"{spelt} {good}"}).status_code == 200
    assert client.get("/v1/model", headers={"X-API-Key": good, "Authorization": "Basic eDp5"}).status_code == 200


def test_what_is_open_and_what_takes_any_key(client: ApplicationClient, holders: Holders) -> None:
    for path in ("/health/live", "/health/ready", "/schema/openapi.json"):
        assert client.get(path).status_code == 200
    for path in ("/v1/model", "/v1/drift"):
        problem(client.get(path), 401)
        assert client.head(path).status_code == 401
        assert all(client.get(path, headers=bearer(holders.keys[scope])).status_code == 200 for scope in SCOPES)
    assert client.options("/v1/predict").status_code == 204
    problem(client.get("/nowhere"), 404)
    problem(client.get("/v1/predict"), 405)


def declared(app: Application) -> dict[str, bool]:
    return {route.path_format: access.need_of(route.path_format) is not None for route in app.litestar.routes}


def test_every_route_says_what_it_needs(client: ApplicationClient) -> None:
    undeclared = [path for path, known in declared(client.application).items() if not known]
    assert not undeclared, f"service/http/access.py must say which scope these need: {undeclared}"
    assert len(declared(client.application)) >= 9


def test_a_route_that_says_nothing_opens_to_no_key(tiny_bundle: Bundle, holders: Holders) -> None:
    @get("/v1/new/{what:str}")
    async def fresh(what: FromPath[str]) -> str:
        return what

    @get("/admin/new")
    async def power() -> str:
        return "done"

    for settings, status in ((Settings(keys=str(holders.path)), 403), (Settings(), 200)):
        app = make_app(settings, lambda _: Deterministic(tiny_bundle))
        app.litestar.register(fresh)
        app.litestar.register(power)
        assert not declared(app)["/v1/new/{what}"]
        with ApplicationClient(app, raise_server_exceptions=False) as client:
            assert client.get("/v1/new/x", headers=bearer(holders.keys["all"])).status_code == status
            # Administration needs a key that says so, keys or not.
            assert client.get("/admin/new", headers=bearer(holders.keys["all"])).status_code == 403


def test_a_refusal_comes_before_the_body_is_read(client: ApplicationClient, holders: Holders) -> None:
    async def unread() -> Any:
        raise AssertionError("the body was read")

    async def status(key: str) -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-length", b"100"), (b"content-type", b"application/json"), (b"x-api-key", key.encode())]
        scope = {
            "type": "http", "method": "POST", "path": "/v1/predict", "raw_path": b"/v1/predict", "query_string": b"",
            "headers": headers, "scheme": "http", "http_version": "1.1", "server": ("localhost", 80),
            "client": ("127.0.0.1", 1), "root_path": "",
        }  # fmt: skip
        await client.app(scope, unread, send)
        return int(sent[0]["status"])

    assert asyncio.run(status("unknown")) == 401
    assert asyncio.run(status(holders.keys["metrics"])) == 403


def test_the_key_of_a_request_stands_in_its_log_line_by_name(
    client: ApplicationClient, holders: Holders, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        client.get("/v1/model", headers=bearer(holders.keys["predict"]))
        client.get("/v1/model")
    lines = [json.loads(JsonFormatter().format(one)) for one in caplog.records if one.name == "evenkeel.requests"]
    assert [(line["status"], line.get("key")) for line in lines] == [(200, "predict"), (401, None)]


def test_no_key_and_no_hash_is_told_to_anybody(
    client: ApplicationClient, holders: Holders, caplog: pytest.LogCaptureFixture
) -> None:
    all_keys = [*holders.keys.values(), "ek_deadbeef_a-key-that-never-was", "not a key at all"]
    told: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for key in all_keys:
            for headers in (bearer(key), {"X-API-Key": key}):
                answers = [ask(client, headers) for ask in REQUESTS.values()]
                told += [f"{one.text}{one.headers}" for one in answers]
                told.append(client.post("/v1/predict", json={**ALLISON, "fare": 999}, headers=headers).text)
                told.append(client.get("/nowhere", headers=headers).text)
        holders.path.write_text(holders.path.read_text()[:-9])
        client.application.services.access._keyring._looked -= 10
        client.get("/v1/model")
    told.append(client.get("/metrics", headers=bearer(holders.keys["all"])).text)
    told += [JsonFormatter().format(record) for record in caplog.records]
    everything = "\n".join(told)
    assert "stay in force" in everything
    assert "evenkeel_keys_current 0.0" in everything
    for key in all_keys:
        assert key not in everything
        assert key.split("_", 2)[-1] not in everything
    for one in holders.entries:
        assert one.sha256 not in everything


def test_refusals_are_counted_by_their_reason(client: ApplicationClient, holders: Holders) -> None:
    def ask(**headers: str) -> None:
        client.post("/v1/predict", json=ALLISON, headers=headers)

    ask()
    ask(**bearer(holders.keys["metrics"]))
    for _ in range(4):
        ask(**bearer(holders.keys["slow"]))
    client.post("/v1/outcomes", json=OUTCOME)
    client.headers.update(bearer(holders.keys["metrics"]))
    found = samples(client)
    reasons = {reason: found["evenkeel_rejected_total", frozenset({("reason", reason)})] for reason in (
        "unauthenticated", "forbidden", "rate", "host", "queue_full")}  # fmt: skip
    assert reasons == {"unauthenticated": 2, "forbidden": 1, "rate": 1, "host": 0, "queue_full": 0}
    assert found["evenkeel_keys_current", frozenset()] == 1


# The file changes while the service runs


class Clock:
    def __init__(self) -> None:
        self.now = 100_000.0

    def __call__(self) -> float:
        return self.now


def test_a_changed_file_is_read_and_a_broken_one_changes_nothing(
    holders: Holders, caplog: pytest.LogCaptureFixture
) -> None:
    clock, current = Clock(), list[bool]()
    ring = Keyring(holders.path, current.append, clock)
    now = datetime.now(UTC)

    def known(name: str) -> bool:
        clock.now += 1
        return ring.keys().find(holders.keys[name], now) is not None

    assert known("predict")
    kept = [one for one in holders.entries if one.name != "predict"]
    write_keys(holders.path, kept)
    assert ring.keys().find(holders.keys["predict"], now) is not None  # Not looked at twice within a second.
    assert not known("predict")
    assert known("outcomes")
    for broken in (b"", b'{"keys": [', b'{"keys": [{}]}'):
        holders.path.write_bytes(broken)
        assert known("outcomes")
        assert current[-1] is False
    holders.path.unlink()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert known("outcomes")
        assert known("outcomes")
    # Said once, not each second.
    assert [one.getMessage() for one in caplog.records if "stay in force" in one.getMessage()] == [
        f"the file of keys {holders.path} cannot be read: No such file or directory; the keys read before stay in force"
    ]
    write_keys(holders.path, [])
    assert not known("outcomes")
    assert current[-1] is True


# Rates


def test_a_rate_refuses_with_the_seconds_to_wait(client: ApplicationClient, holders: Holders) -> None:
    headers = bearer(holders.keys["slow"])  # 0.01 rows a second, three at once.
    for _ in range(3):
        assert client.get("/v1/model", headers=headers).status_code == 200
    refused = client.get("/v1/model", headers=headers)
    assert "the key's rate is used up" in problem(refused, 429)["detail"]
    assert 90 <= int(refused.headers["Retry-After"]) <= 100
    assert client.get("/v1/model", headers=bearer(holders.keys["all"])).status_code == 200
    assert client.get("/health/live", headers=headers).status_code == 200


def test_rows_count_and_not_requests_alone(client: ApplicationClient, holders: Holders) -> None:
    headers = bearer(holders.keys["slow"])
    batch = {"rows": [ALLISON] * 10}
    assert client.post("/v1/predict/batch", json=batch, headers=headers).status_code == 200
    refused = client.post("/v1/predict", json=ALLISON, headers=headers)
    problem(refused, 429)
    # Ten rows of three at once: eight must be paid for before the next.
    assert 790 <= int(refused.headers["Retry-After"]) <= 800


def slow(rate: float, burst: int) -> Key:
    return new_key("x", ["predict"], rows_per_second=rate, burst_rows=burst)[1]


def waiting(charge: Callable[[], None]) -> int | None:
    """The seconds that a charge is refused with; None if it is taken."""
    try:
        charge()
    except RateLimited as refused:
        return refused.retry_after_seconds
    return None


@given(
    rate=st.floats(0.1, 1000), burst=st.integers(1, 50),
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 100)), min_size=1, max_size=60),
)  # fmt: skip
def test_rates_are_those_of_a_token_bucket_that_may_be_overdrawn_once(
    rate: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    clock, key = Clock(), slow(rate, burst)
    rates, tokens, allowed, begun = Rates(clock), float(burst), 0, clock.now
    for pause, rows in steps:
        clock.now += pause
        tokens = min(burst, tokens + pause * rate)
        wait = waiting(lambda: rates.charge(key, 1, 1))
        if wait is not None:
            assert tokens < 1 + 1e-3
            # What is told is enough, and not more than a second too much.
            assert (1 - tokens) / rate - 1e-3 <= wait < max((1 - tokens) / rate, 0) + 1.001
            continue
        assert tokens > 1 - 1e-3
        tokens -= 1
        rates.charge(key, rows - 1, 0)
        tokens -= rows - 1
        allowed += rows
        # What was let through is what has accrued and the burst, and the one request that overdrew.
        assert allowed <= burst + (clock.now - begun) * rate + max(rows for _, rows in steps) + 1e-3


def test_many_large_requests_at_once_do_not_all_overdraw() -> None:
    rates, key = Rates(Clock()), slow(1, 5)
    for _ in range(5):
        rates.charge(key, 1, 1)  # Five bodies are being read.
    rates.charge(key, 1023, 0)
    for _ in range(4):
        with pytest.raises(RateLimited) as refused:
            rates.charge(key, 1023, 0)
        assert refused.value.retry_after_seconds == 1023


def admitted(key: Key) -> tuple[access.Access, Any]:
    """Access that has let a request of the key in, and the request's scope."""
    rates = Rates(Clock())
    rates.charge(key, 1, 1)
    context = RequestContext(request_id="1", trace=TraceContext.of(""), method="POST", started=0)
    return access.Access(None, frozenset(), rates), {"state": {"key": key, "rows_paid": 1, "context": context}}


def test_rows_that_come_one_by_one_are_charged_each() -> None:
    guard, scope = admitted(slow(1, 3))

    def taken() -> bool:
        with guard.rows(scope, 1):
            return True

    assert [taken() for _ in range(4)] == [True] * 4  # The burst, and one that overdraws it.
    with pytest.raises(RateLimited):
        taken()
    assert scope["state"]["context"].reason == "rate"


def test_rows_that_found_no_room_in_the_queue_are_not_charged() -> None:
    guard, scope = admitted(slow(1, 3))
    for _ in range(20):
        with pytest.raises(QueueFull), guard.rows(scope, 10):
            raise QueueFull(1)
    with guard.rows(scope, 10):
        pass
    with pytest.raises(RateLimited) as refused, guard.rows(scope, 1):
        pass
    assert refused.value.retry_after_seconds == 7


def test_rates_of_keys_that_are_gone_are_forgotten() -> None:
    rates = Rates()
    for _ in range(100):
        rates.charge(key := slow(0.1, 1), 1, 1)
    rates.forget_others(keys.Keys([key]))
    assert list(rates._paid) == [key.id]


# Browsers


def test_every_answer_bears_the_security_headers(client: ApplicationClient, holders: Holders) -> None:
    key = bearer(holders.keys["all"])
    answers = [
        client.post("/v1/predict", json=ALLISON, headers=key), client.post("/v1/predict", json=ALLISON),
        client.post("/v1/predict", content=b"{", headers=key), client.get("/nowhere"), client.get("/health/live"),
        client.get("/metrics", headers=key), client.options("/v1/predict"), client.head("/v1/model", headers=key),
        client.post("/v1/predict/batch", json={"rows": [ALLISON] * 9}, headers=key),
    ]  # fmt: skip
    for one in answers:
        assert one.headers["X-Content-Type-Options"] == "nosniff"
        assert one.headers["Referrer-Policy"] == "no-referrer"
        assert one.headers["X-Frame-Options"] == "DENY"
        assert one.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert one.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "Strict-Transport-Security" not in one.headers
        assert not [name for name in one.headers if name.lower().startswith(("access-control", "set-cookie", "server"))
                    and name.lower() != "server-timing"]  # fmt: skip
    assert answers[0].headers["Cache-Control"] == "no-store"
    model = client.get("/v1/model", headers=key)
    assert model.headers.get_list("Cache-Control") == ["no-cache"]  # A route's own word stands.


def test_tls_asks_browsers_to_stay_with_it(tiny_bundle: Bundle) -> None:
    for client in serve(tiny_bundle, tls_certificate="some.pem"):
        assert client.get("/health/live").headers["Strict-Transport-Security"] == "max-age=31536000"


PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization, content-type"}  # fmt: skip


def test_scripts_of_other_sites_read_nothing_unless_they_are_listed(
    unlocked: ApplicationClient, tiny_bundle: Bundle, holders: Holders
) -> None:
    assert not [name for name in unlocked.options("/v1/predict", headers=PREFLIGHT).headers if "access-c" in name]
    listed = "https://shop.example,http://localhost:3000"
    for client in serve(tiny_bundle, cors_origins=listed, keys=str(holders.path)):
        allowed = client.options("/v1/predict", headers=PREFLIGHT)
        assert allowed.status_code == 204
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        assert allowed.headers["Access-Control-Allow-Methods"] == "OPTIONS, POST"
        assert "Authorization" in allowed.headers["Access-Control-Allow-Headers"]
        assert "Origin" in allowed.headers["Vary"]
        origin = {"Origin": "http://localhost:3000"}
        good = client.post("/v1/predict", json=ALLISON, headers={**origin, **bearer(holders.keys["predict"])})
        bad = client.post("/v1/predict", json=ALLISON, headers=origin)
        assert (good.status_code, bad.status_code) == (200, 401)
        for one in (good, bad):
            assert one.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
            assert "Access-Control-Allow-Credentials" not in one.headers
            assert "Retry-After" in one.headers["Access-Control-Expose-Headers"]
        assert good.headers["Vary"] == "Accept, Origin"
        for other in ("https://evil.example", "null", "https://shop.example.evil", "http://shop.example", ""):
            refused = client.options("/v1/predict", headers={**PREFLIGHT, "Origin": other})
            assert not [name for name in refused.headers if name.startswith("access-control")]
            assert "Origin" in refused.headers["Vary"]


@pytest.mark.parametrize(
    "origins",
    ["*", "shop.example", "https://shop.example/", "https://shop.example/x", "https://a b", "https://a,", "null"],
)
def test_an_origin_that_is_none_is_refused(origins: str) -> None:
    with pytest.raises(SettingsError, match="cors_origins"):
        read_settings({}, ["--cors-origins", origins])


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "LOCALHOST.:1", "127.0.0.1:9", "[::1]", "[::1]:8000"])
def test_names_of_this_machine_are_answered_to(tiny_bundle: Bundle, host: str) -> None:
    for client in serve(tiny_bundle, allowed_hosts=listener.LOOPBACK):
        assert client.post("/v1/predict", json=ALLISON, headers={"Host": host}).status_code == 200


def test_a_name_that_was_made_to_point_here_is_not(tiny_bundle: Bundle, holders: Holders) -> None:
    for client in serve(tiny_bundle, allowed_hosts=listener.LOOPBACK):
        for host in (
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::2]",
            "",
        ):
            for ask in REQUESTS.values():
                assert "localhost" in problem(ask(client, {"Host": host}), 421)["detail"]
        assert samples(client)["evenkeel_rejected_total", frozenset({("reason", "host")})] == 24
    for client in serve(tiny_bundle, allowed_hosts="*"):
        assert client.get("/v1/model", headers={"Host": "any.example"}).status_code == 200
    for client in serve(tiny_bundle, allowed_hosts="a.example, 127.0.0.1", keys=str(holders.path)):
        key = bearer(holders.keys["all"])
        assert client.get("/v1/model", headers={**key, "Host": "A.example:443"}).status_code == 200
        assert client.get("/v1/model", headers={**key, "Host": "b.example"}).status_code == 421


# Where it listens


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False),
        ("", False), ("192.0.2.7", False), ("2001:db8::1", False), ("0", False), ("127.1", True),
    ],
)  # fmt: skip
def test_only_loopback_may_do_without_keys(host: str, alone: bool) -> None:
    assert listener.loopback(host) is alone
    settings = Settings(host=host)
    if alone:
        assert set(listener.checked(settings).allowed_hosts.split(",")) == {"localhost", "127.0.0.1", "::1", host}
    else:
        with pytest.raises(SettingsError, match=r"without keys .*--keys; .*--insecure"):
            listener.checked(settings)
    for free in (Settings(host=host, keys="k.json"), Settings(host=host, insecure=not alone, allowed_hosts="*")):
        assert listener.checked(free) == free


def test_a_host_that_is_nowhere_is_named() -> None:
    with pytest.raises(SettingsError, match=r"host is 'nowhere\.invalid'"):
        listener.checked(Settings(host="nowhere.invalid"))


def test_insecure_is_a_switch() -> None:
    assert read_settings({}, ["--insecure"]).insecure
    assert read_settings({"EVENKEEL_INSECURE": "true"}, []).insecure
    assert not read_settings({"EVENKEEL_INSECURE": "true"}, ["--insecure", "false"]).insecure
    with pytest.raises(SettingsError, match="insecure"):
        read_settings({}, ["--insecure", "maybe"])


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority (ca.pem), a certificate for localhost (server.pem, server.key) and one for a client."""
    folder = tmp_path_factory.mktemp("tls")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    try:
        openssl(folder, "req", "-x509", *curve, "-subj", "/CN=test", "-keyout", "ca.key", "-out", "ca.pem",
                "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    except FileNotFoundError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("openssl is not installed (on Debian: apt-get install openssl)")
    for name, purpose in (("server", "serverAuth"), ("client", "clientAuth")):
        openssl(folder, "req", "-x509", *curve, "-CA", "ca.pem", "-CAkey", "ca.key", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.pem", "-addext", f"extendedKeyUsage={purpose}",
                "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                "-addext", "basicConstraints=critical,CA:FALSE")  # fmt: skip
    return folder


def test_the_real_service_with_keys_and_tls(bundle_folder: Path, holders: Holders, certificates: Path) -> None:
    port = free_port()
    process = start(
        "--bundle", bundle_folder, "--port", port, "--host", "0.0.0.0", "--grace-seconds", 0, "--keys", holders.path,
        "--tls-certificate", certificates / "server.pem", "--tls-key", certificates / "server.key",
        "--tls-client-ca", certificates / "ca.pem", "--log-format", "json", "--log-requests", "all",
    )  # fmt: skip
    trusting = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    stranger = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    trusting.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    url, used = f"https://localhost:{port}", holders.keys["predict"]
    with httpx.Client(base_url=url, verify=trusting, headers=bearer(used)) as client:
        for _ in range(600):
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                if client.get("/health/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        answer = client.post("/v1/predict", json=ALLISON)
        assert answer.status_code == 200
        assert "max-age" in answer.headers["Strict-Transport-Security"]
        assert client.post("/v1/predict", json=ALLISON, headers=bearer("x")).status_code == 401
        assert client.get("/metrics").status_code == 403
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/health/live", verify=stranger)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://localhost:{port}/health/live")
        assert keys.main(["revoke", "predict", "--file", str(holders.path)]) == 0
        wait_until(lambda: client.post("/v1/predict", json=ALLISON).status_code == 401)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert f"ready: https://0.0.0.0:{port}/v1/model" in stderr
    assert '"key":"predict"' in stderr
    assert used.split("_", 2)[2] not in stderr


def test_what_cannot_be_kept_safe_is_not_served(
    holders: Holders, certificates: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # It is for the whole process, which here is the tests'.
    monkeypatch.setattr(service.serve, "prepare_process", lambda _: None)
    broken, no_certificate = holders.path.with_name("broken.json"), certificates / "ca.key"
    broken.write_text('{"keys": ')
    cases: list[tuple[list[object], str]] = [
        (["--host", "0.0.0.0"], "0.0.0.0 is reached from other machines, and without keys"),
        (["--keys", broken], f"the file of keys {broken} is not one"),
        (["--keys", broken.with_name("none")], "cannot be read: No such file"),
        (["--keys", ""], "keys (--keys) is ''"),
        (["--tls-key", no_certificate], "tls_key needs tls_certificate beside it"),
        (["--tls-certificate", "none.pem"], "tls_certificate is 'none.pem', which cannot be read"),
        (["--tls-certificate", no_certificate], "the TLS certificate, key or authorities cannot be used"),
        (
            ["--tls-certificate", certificates / "server.pem", "--tls-key", certificates / "client.key"],
            "cannot be used",
        ),
    ]
    for flags, message in cases:
        assert service.__main__.main([str(one) for one in ("--port", 0, *flags)]) == 2
        told = capsys.readouterr().err
        assert message in told
        assert told.startswith("service: ")
        assert told.count("\n") == 1
