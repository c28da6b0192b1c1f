"""The service on a real Ray Serve: two replicas are one service, each is scraped, and none is missed when replaced."""

import contextlib
import json
import os
import re
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from loadtest.traffic.corpus import build
from loadtest.traffic.local_service import other_bundle
from loadtest.traffic.rows import read_labelled
from models.bundle.read import read_bundle
from tests.cluster import descendants
from tests.conftest import ROOT
from tests.deploy.programs import (
    free_port,
    need,
    need_environment,
    prometheus_of,
    query,
    running,
    running_service,
    wait,
)
from tests.loadtest.test_command import LIMITS
from tests.loadtest.test_command import python as load_python
from tests.loadtest.test_replicas import load
from tests.titanic import DATA, SCHEMA

pytestmark = pytest.mark.slow
ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d+\.\d+;? ?")
JSON, MSGPACK = {"Content-Type": "application/json"}, {"Accept": "application/msgpack"}
WOMAN = {"pclass": 1, "sex": "female"}
CLIENTS = 4
SLOTS = 8
"""Servers of deploy/ray/haproxy.cfg."""
START_SECONDS = 300
"""In a new environment each of Ray's many processes has Python compile it, on whatever cores there are."""
TOKEN = ROOT / ".venv-cluster" / "ray-token"
PATHS = (
    "/", "/page/app.js", "/schema", "/schema/openapi.json", "/v2", "/v2/models/titanic", "/v2/health/ready",
    "/health/live", "/health/ready", "/v1/nowhere",
)  # fmt: skip
VARYING = {
    "date",
    "server",
    "x-request-id",
    "traceparent",
    "server-timing",
    "transfer-encoding",
    "content-length",
    "etag",
}


class Cluster(NamedTuple):
    """Ray on this machine: the service's address by Ray's proxy and by HAProxy, the dashboard's, and the folder of what
    the replicas keep. Replicas have ports of their own from the first on."""

    url: str
    past_proxy: str
    dashboard: str
    folder: Path
    head: subprocess.Popen[bytes]
    first_port: int

    def deploy(self, bundle: Path) -> None:
        """`./run cluster serve deploy` of the project's own configuration, with this cluster's paths and port."""
        config = yaml.safe_load((ROOT / "deploy" / "ray" / "serve.yaml").read_text())
        config["http_options"]["port"] = int(self.url.rpartition(":")[2])
        config["applications"][0]["args"] |= {
            "bundle": str(bundle), "state": str(self.folder / "state"), "cache_rows": 32,
            "store": str(self.folder / "predictions.sqlite"), "port": self.first_port,
        }  # fmt: skip
        (self.folder / "serve.yaml").write_text(yaml.safe_dump(config))
        command = ["cluster", "serve", "deploy", str(self.folder / "serve.yaml"), "--address", self.dashboard]
        done = subprocess.run([ROOT / "run", *command], capture_output=True, text=True, timeout=START_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr

    def targets(self) -> list[str]:
        """Where the replicas say that they can be scraped."""
        files = (self.folder / "state" / "replicas").glob("*.json")
        return sorted(json.loads(one.read_text())[0]["targets"][0] for one in files)

    def status(self) -> Any:
        """What Ray Serve says of the application."""
        return self.details().json()["applications"]["evenkeel"]

    def details(self) -> httpx.Response:
        """The dashboard's answer, for who has the token."""
        headers = {"Authorization": f"Bearer {TOKEN.read_text()}"}
        return httpx.get(f"{self.dashboard}/api/serve/applications/", timeout=10, headers=headers)


@pytest.fixture(scope="module")
def cluster(bundle_folder: Path) -> Iterator[Cluster]:
    """Ray with two ready replicas of the service; ended with all its processes."""
    need_environment("cluster", "serve")
    # Not pytest's folder: paths of sockets have to be short.
    with (
        tempfile.TemporaryDirectory(prefix="evenkeel-", ignore_cleanup_errors=True) as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        # There is no other machine that replicas could move to when this one goes.
        patch.setenv("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "0")
        # Ports below those that systems give out, as are those of the configuration.
        first = 30_000 + SLOTS * (os.getpid() % 300)
        folder, dashboard = Path(name), free_port()
        flags = ["--port", free_port(), "--dashboard-port", dashboard, "--temp-dir", folder / "ray", "--num-cpus", 2]
        flags += ["--dashboard-agent-listen-port", free_port(), "--ray-client-server-port", free_port()]
        flags += ["--object-store-memory", 100_000_000]
        command = [ROOT / "run", "cluster", "ray", "start", "--head", "--block", *flags]
        with running(command, folder / "ray.log") as head, past_proxy(first, folder) as past:
            found = Cluster(
                f"http://127.0.0.1:{free_port()}", past, f"http://127.0.0.1:{dashboard}", folder, head, first
            )
            try:
                wait(lambda: TOKEN.exists() and found.details().status_code == 200, START_SECONDS)
                found.deploy(bundle_folder)
                wait(lambda: len(found.targets()) == 2, START_SECONDS)
                for url in (found.url, past):
                    wait(lambda url=url: httpx.get(f"{url}/health/ready").status_code == 200, START_SECONDS)
                yield found
            except BaseException:
                print((folder / "ray.log").read_text()[-3000:])
                raise
            finally:
                started = {head.pid, *(pid for pid, _, _ in descendants(head.pid))}
        wait(lambda: not [pid for pid in started if Path(f"/proc/{pid}").exists()], 20)


@contextlib.contextmanager
def past_proxy(first: int, folder: Path) -> Iterator[str]:
    """HAProxy as deploy/ray/ has it, on a port of its own; its URL."""
    port, text = free_port(), (ROOT / "deploy" / "ray" / "haproxy.cfg").read_text()
    for slot in range(SLOTS):
        text = text.replace(f"127.0.0.1:{30_000 + slot}\n", f"127.0.0.1:{first + slot}\n")
    (folder / "haproxy.cfg").write_text(text.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
    with running([need("haproxy"), "-db", "-f", folder / "haproxy.cfg"], folder / "haproxy.log"):
        yield f"http://127.0.0.1:{port}"


def listening(pids: set[int]) -> set[str]:
    """Addresses in hexadecimal that processes listen on."""
    inodes = set()
    for pid in pids:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(path))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].rpartition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def test_nothing_of_it_listens_beyond_this_machine(cluster: Cluster) -> None:
    found = listening({cluster.head.pid, *(pid for pid, _, _ in descendants(cluster.head.pid))})
    assert "0100007F" in found
    assert found <= {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


def test_who_has_no_token_is_told_nothing_and_can_change_nothing(cluster: Cluster) -> None:
    for path in ("/api/serve/applications/", "/api/jobs/", "/api/version"):
        assert httpx.get(cluster.dashboard + path, timeout=10).status_code == 401, path


def exchanges(url: str) -> Iterator[tuple[str, httpx.Response]]:
    """The same requests to every route that answers for itself."""
    rows = [row for row, _ in read_labelled(SCHEMA, DATA, 64)]
    lines = "".join(json.dumps(row) + "\n" for row in rows[:5])
    tensors = {"inputs": [{"name": name, "datatype": kind, "shape": [1], "data": [value]}
               for name, kind, value in (("pclass", "INT64", 3), ("sex", "BYTES", "male"))]}  # fmt: skip
    with httpx.Client(base_url=url, timeout=60) as client:
        for path in PATHS:
            yield f"GET {path}", client.get(path)
        yield "HEAD", client.head("/v1/model")
        yield "OPTIONS", client.options("/v1/predict")
        yield "one", client.post("/v1/predict", json=WOMAN)
        yield "MessagePack", client.post("/v1/predict", json=WOMAN, headers=MSGPACK)
        yield "batch", client.post("/v1/predict/batch", json={"rows": rows}, headers={"Accept-Encoding": "gzip"})
        yield (
            "stream",
            client.post("/v1/predict/stream", content=lines, headers={"Content-Type": "application/x-ndjson"}),
        )
        yield "tensors", client.post("/v2/models/titanic/infer", json=tensors)
        yield "explain", client.post("/v1/explain", json=WOMAN)
        yield "faulty", client.post("/v1/predict", json={"pclass": 4, "sex": "f", "x": 1})
        yield "malformed", client.post("/v1/predict", content=b'{"pclass": \xff', headers=JSON)
        yield "type", client.post("/v1/predict", content=b"x", headers={"Content-Type": "text/plain"})
        yield "large", client.post("/v1/predict", content=b" " * (2 << 20), headers=JSON)
        yield "no keys", client.post("/admin/reload")


def test_every_route_answers_as_one_process_does(cluster: Cluster, bundle_folder: Path, tmp_path: Path) -> None:
    with running_service(bundle_folder, tmp_path) as plain:
        for (name, ours), (_, past), (_, theirs) in zip(
            exchanges(cluster.url), exchanges(cluster.past_proxy), exchanges(plain), strict=True
        ):
            assert ours.status_code == past.status_code, name
            assert ID.sub(b"", ours.content) == ID.sub(b"", past.content), name
            assert ours.status_code == theirs.status_code, name
            one, other = (
                {key: value for key, value in answer.headers.items() if key not in VARYING} for answer in (ours, theirs)
            )
            assert one == other, name
            assert ID.sub(b"", ours.content) == ID.sub(b"", theirs.content), name
        batch = {"rows": [row for row, _ in read_labelled(SCHEMA, DATA, 400)]}
        first, second = (
            httpx.post(f"{url}/v1/predict/batch", json=batch, timeout=60).json()["predictions"]
            for url in (cluster.url, plain)
        )
    assert [one["probability"] for one in first] == pytest.approx([one["probability"] for one in second], abs=1e-5)
    assert len({one["id"] for one in first}) == 400


def test_ids_events_and_what_is_too_late_pass_the_proxy(cluster: Cluster) -> None:
    answer = httpx.post(f"{cluster.url}/v1/predict", json=WOMAN, headers={"X-Request-ID": "mine"}, timeout=30)
    assert answer.headers.get_list("X-Request-ID") == ["mine"]
    assert "inference" in answer.headers["Server-Timing"]
    assert len(httpx.get(f"{cluster.url}/v1/model").headers.get_list("X-Request-ID")) == 1
    with httpx.stream("GET", f"{cluster.url}/v1/drift/events", timeout=10) as events:
        assert next(line for line in events.iter_lines() if line.startswith("event")) == "event: drift"


def test_prometheus_finds_every_replica_and_outcomes_find_their_prediction_wherever_they_go(
    cluster: Cluster, tmp_path: Path
) -> None:
    config = yaml.safe_load((ROOT / "deploy" / "ray" / "prometheus.yml").read_text())
    del config["alerting"], config["rule_files"]
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    found = config["scrape_configs"][0]["file_sd_configs"][0]
    found["files"] = [one.replace("../../artifacts", str(cluster.folder)) for one in found["files"]]
    with prometheus_of(config, tmp_path) as prometheus, httpx.Client(base_url=cluster.url, timeout=60) as client:
        up = wait(lambda: len(got := query(prometheus, 'up{job="evenkeel"} == 1')) == 2 and got, 30)
        assert {one["metric"]["instance"] for one in up} == {"127.0.0.1/0", "127.0.0.1/1"}
        shares = "sum by (instance) (evenkeel_predictions_total)"
        before = sum(float(one["value"][1]) for one in query(prometheus, shares))
        ids = [client.post("/v1/predict", json=WOMAN).json()["id"] for _ in range(40)]
        wait(lambda: sum(float(one["value"][1]) for one in query(prometheus, shares)) == before + 40, 30)
        assert all(float(one["value"][1]) > 0 for one in query(prometheus, shares))
        # Both have written their predictions by now; each outcome goes to whichever replica takes the request.
        fates = [
            client.post("/v1/outcomes", json={"outcomes": [{"id": one, "outcome": "survived"}]}).json() for one in ids
        ]
        assert sum(one["counted"] for one in fates) == 40, fates
        again = client.post(
            "/v1/outcomes", json={"outcomes": [{"id": one, "outcome": "survived"} for one in ids]}
        ).json()
        assert again["repeated"] == 40
        counted = "sum(evenkeel_outcomes_total)"
        wait(lambda: float(query(prometheus, counted)[0]["value"][1]) == 40, 30)


def test_the_mixed_load_gets_right_answers(cluster: Cluster, bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "slo.toml").write_text(LIMITS)
    flags = ["--scenario", "mixed", "--bundle", bundle_folder, "--texts", 64, "--time", "8s", "--rate", 6]
    command = [load_python(), "-m", "loadtest", "--host", cluster.url, *flags, "--limits", tmp_path / "slo.toml"]
    done = subprocess.run(
        [*map(str, command), "--results", str(tmp_path / "results")], cwd=ROOT, capture_output=True, text=True,
        timeout=120, env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert summary["answers_checked"] > 20
    assert summary["measured"]["wrong_answers"] == 0


def test_another_version_takes_over_under_load_and_no_request_fails(
    cluster: Cluster, bundle_folder: Path, tmp_path: Path
) -> None:
    other = other_bundle(bundle_folder, tmp_path / "other")
    old, new = (read_bundle(folder).version for folder in (bundle_folder, other))
    cases = build([bundle_folder, other], 48).cases
    done, total, versions = threading.Event(), Counter[str](), Counter[str]()

    def version(url: str) -> str:
        return str(httpx.get(f"{url}/v1/model", timeout=30).json()["version"])

    def taken_over() -> bool:
        versions[version(cluster.url)] += 1
        of_replicas = [version(f"http://{one}") for one in cluster.targets()]
        return cluster.status()["status"] == "RUNNING" and of_replicas == [new, new]

    with ThreadPoolExecutor(CLIENTS) as pool, contextlib.ExitStack() as ending:
        ending.callback(done.set)
        urls = (cluster.url, cluster.past_proxy)
        clients = [pool.submit(load, urls[seed % 2], cases, done, seed) for seed in range(CLIENTS)]
        time.sleep(1)
        assert version(cluster.url) == old
        cluster.deploy(other)
        wait(taken_over, 120)
        time.sleep(1)
        done.set()
        for one in clients:
            total.update(one.result(timeout=120))
    assert set(total) == {"rows", "requests"}, total
    assert total["requests"] > 10 * CLIENTS
    assert set(versions) == {old, new}
    assert len(cluster.targets()) == 2
