"""The manifests, rendered by kubectl: valid by Kubernetes' own schemas, and true to what the service is."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import kubernetes_validate
import pytest
import yaml

from models.bundle.read import read_bundle
from service.http.access import ROUTES
from service.http.keys import new_key, write_keys
from service.http.listener import checked
from service.settings import PREFIX, Settings, read_settings
from tests.conftest import ROOT
from tests.deploy.custom_resources import EXTENSION, INFERENCE_SERVICE, SERVICE_MONITOR, closed
from tests.deploy.expressions import alerts, selectors
from tests.deploy.programs import check, free_port, need, wait

FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.29", "1.31", "1.34")
CUSTOM = {"ServiceMonitor": SERVICE_MONITOR, "InferenceService": INFERENCE_SERVICE}
SECRET = {"EVENKEEL_STORE": "postgresql://evenkeel@postgresql/evenkeel"}
"""What comes out of a Secret, which is not in the repository."""
NAME = {"app.kubernetes.io/name": "evenkeel"}

Manifest = dict[str, Any]


def rendered(folder: Path) -> dict[str, Manifest]:
    """Kind → the one manifest of that kind."""
    found = list(yaml.safe_load_all(check(need("kubectl"), "kustomize", folder)))
    assert len({one["kind"] for one in found}) == len(found)
    return {one["kind"]: one for one in found}


@pytest.fixture(scope="module")
def manifests() -> dict[str, Manifest]:
    return rendered(FOLDER)


@pytest.fixture(scope="module")
def inference() -> Manifest:
    return rendered(FOLDER / "kserve")["InferenceService"]


@pytest.fixture(scope="module", params=["Deployment", "InferenceService"])
def pod(request: pytest.FixtureRequest, manifests: dict[str, Manifest], inference: Manifest) -> Manifest:
    """The pod's specification."""
    if request.param == "Deployment":
        return dict(manifests["Deployment"]["spec"]["template"]["spec"])
    return {name: value for name, value in inference["spec"]["predictor"].items() if name not in EXTENSION}


def container(pod: Manifest) -> Manifest:
    (one,) = pod["containers"]
    return dict(one)


@pytest.fixture
def variables(pod: Manifest, manifests: dict[str, Manifest]) -> dict[str, str]:
    """The container's environment, as Kubernetes makes it: the image's, the settings', its own."""
    lines = [line for line in (ROOT / "Dockerfile.dev").read_text().splitlines() if line.startswith("ENV ")]
    found = dict(re.findall(r"(EVENKEEL_\w+)=(\S+)", " ".join(lines)))
    assert found["EVENKEEL_INSECURE"] == "true"
    for source in container(pod).get("envFrom", []):
        settings = manifests["ConfigMap"]
        assert source["configMapRef"]["name"] == settings["metadata"]["name"]
        found |= settings["data"]
    for one in container(pod)["env"]:
        found[one["name"]] = one["value"] if "value" in one else SECRET[one["name"]]
    return found


@pytest.fixture
def settings(variables: dict[str, str]) -> Settings:
    return checked(read_settings(variables, []))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid(version: str, manifests: dict[str, Manifest], inference: Manifest) -> None:
    assert set(manifests) == {
        "ConfigMap", "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy",
        "ServiceMonitor",
    }  # fmt: skip
    for kind, one in {**manifests, "InferenceService": inference}.items():
        if kind in CUSTOM:
            jsonschema.validate(one, CUSTOM[kind])
        else:
            kubernetes_validate.validate(one, version, strict=True)
    predictor = inference["spec"]["predictor"]
    parts = {name: predictor[name] for name in predictor if name in EXTENSION}
    jsonschema.validate(parts, closed(**EXTENSION))
    pod = {name: value for name, value in predictor.items() if name not in EXTENSION}
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": pod}, version, strict=True
    )


def test_the_checkers_refuse_what_is_misspelt(manifests: dict[str, Manifest], inference: Manifest) -> None:
    one = yaml.safe_load(yaml.safe_dump(manifests["Deployment"]))
    one["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
    for kind, wrong in (("ServiceMonitor", {"endpoint": []}), ("InferenceService", {"predictors": {}})):
        given = {**manifests, "InferenceService": inference}[kind]
        with pytest.raises(jsonschema.ValidationError, match=next(iter(wrong))):
            jsonschema.validate({**given, "spec": given["spec"] | wrong}, CUSTOM[kind])


def test_every_variable_is_a_setting_that_the_service_accepts(variables: dict[str, str], settings: Settings) -> None:
    ours = {name for name in variables if name.startswith(PREFIX)}
    assert {name.removeprefix(PREFIX).lower() for name in ours} <= set(Settings.__struct_fields__)
    assert settings.keys is not None
    assert not settings.insecure
    assert settings.store == SECRET["EVENKEEL_STORE"]


def test_kubernetes_adds_no_variables_that_look_like_settings(pod: Manifest) -> None:
    assert pod["enableServiceLinks"] is False


def test_probes_ask_what_answers_without_a_key(pod: Manifest, settings: Settings) -> None:
    ports = {one.get("name"): one["containerPort"] for one in container(pod)["ports"]}
    assert list(ports.values()) == [settings.port]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container(pod)[probe]["httpGet"]
        assert ROUTES[asked["path"]] == "open"
        assert ("ready" in asked["path"]) == (probe == "readinessProbe")
        assert ports.get(asked["port"], asked["port"]) == settings.port


def test_a_pod_has_the_time_to_drain(pod: Manifest, settings: Settings) -> None:
    readiness = container(pod)["readinessProbe"]
    noticed = readiness["periodSeconds"] * readiness["failureThreshold"] + readiness["timeoutSeconds"]
    assert settings.grace_seconds > noticed
    # What uvicorn waits for answers (service/http/server.py), and half a second for those that were let in at last.
    assert pod["terminationGracePeriodSeconds"] > settings.grace_seconds + settings.timeout_seconds + 1 + 0.5


def test_it_is_confined(pod: Manifest, settings: Settings) -> None:
    context, own = pod["securityContext"], container(pod)["securityContext"]
    user = re.findall(r"^USER (\d+)$", (ROOT / "Dockerfile.dev").read_text(), re.MULTILINE)
    assert context["runAsNonRoot"] is True
    assert {str(context["runAsUser"])} == set(user)
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert pod["automountServiceAccountToken"] is False
    kinds = {one["name"]: set(one) - {"name"} for one in pod["volumes"]}
    mounted = {one["mountPath"]: kinds[one["name"]] for one in container(pod)["volumeMounts"]}
    assert mounted == {"/keys": {"secret"}, "/state": {"emptyDir"}, "/tmp": {"emptyDir"}}
    assert settings.state == "/state"
    assert Path(settings.keys or "").parent == Path("/keys")


def test_the_parts_find_each_other(manifests: dict[str, Manifest]) -> None:
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels == manifests["Service"]["metadata"]["labels"] == NAME
    selected = {
        "Deployment": ("selector", "matchLabels"), "Service": ("selector",),
        "NetworkPolicy": ("podSelector", "matchLabels"), "PodDisruptionBudget": ("selector", "matchLabels"),
        "ServiceMonitor": ("selector", "matchLabels"),
    }  # fmt: skip
    for kind, path in selected.items():
        found = manifests[kind]["spec"]
        for step in path:
            found = found[step]
        assert found == NAME, kind
    target = manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", manifests["Deployment"]["metadata"]["name"])
    assert "replicas" not in manifests["Deployment"]["spec"]
    (port,) = manifests["Service"]["spec"]["ports"]
    (named,) = container(manifests["Deployment"]["spec"]["template"]["spec"])["ports"]
    assert port["targetPort"] == named["name"]
    assert manifests["ServiceMonitor"]["spec"]["endpoints"][0]["port"] == port["name"]


def test_a_disruption_leaves_a_replica(manifests: dict[str, Manifest]) -> None:
    allowed = manifests["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    assert manifests["HorizontalPodAutoscaler"]["spec"]["minReplicas"] > allowed
    assert manifests["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_the_scraped_job_is_the_one_that_alerts_are_about(manifests: dict[str, Manifest]) -> None:
    job = manifests["Service"]["metadata"]["labels"][manifests["ServiceMonitor"]["spec"]["jobLabel"]]
    (expression,) = (one["expr"] for one in alerts() if one["alert"] == "EvenkeelScrapeFails")
    (pattern,) = re.findall(r'job=~"([^"]+)"', expression)
    assert re.fullmatch(pattern, job)


def adapter_rule() -> dict[str, Any]:
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    return dict(rule)


def adapter_query(rule: dict[str, Any], namespace: str) -> str:
    """The rule's query as the adapter sends it (prometheus-adapter, docs/config.md)."""
    (series,) = re.findall(r"^\w+", rule["seriesQuery"])
    matchers = f'namespace="{namespace}",pod=~"evenkeel-1|evenkeel-2"'
    places = {"Series": series, "LabelMatchers": matchers, "GroupBy": "pod"}
    query: str = re.sub(r"<<\.(\w+)>>", lambda place: places[place[1]], rule["metricsQuery"])
    return query


def test_the_adapter_makes_the_metric_that_the_autoscaler_asks_for(
    manifests: dict[str, Manifest], tmp_path: Path
) -> None:
    rule, metrics = adapter_rule(), manifests["HorizontalPodAutoscaler"]["spec"]["metrics"]
    (asked,) = (one["pods"] for one in metrics if one["type"] == "Pods")
    ((name, _, _),) = selectors(rule["seriesQuery"])
    assert re.sub(rule["name"]["matches"], rule["name"]["as"], name) == asked["metric"]["name"]
    assert asked["target"] == {"type": "AverageValue", "averageValue": str(Settings().max_batch_rows)}
    # Two pods of this namespace and one of another, four scrapes: the mean of each pod's rows.
    series = [
        ("default", "evenkeel-1", "0 40 80 120 160"), ("default", "evenkeel-2", "8x4"),
        ("other", "evenkeel-1", "999x4"),
    ]  # fmt: skip
    tests = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    {"series": f'{name}{{job="evenkeel",namespace="{one}",pod="{pod}"}}', "values": values}
                    for one, pod, values in series
                ],
                "promql_expr_test": [
                    {
                        "expr": adapter_query(rule, "default"), "eval_time": "59s",
                        "exp_samples": [
                            {"labels": '{pod="evenkeel-1"}', "value": 60}, {"labels": '{pod="evenkeel-2"}', "value": 8},
                        ],
                    }
                ],
            }
        ],
    }  # fmt: skip
    (tmp_path / "adapter.yml").write_text(yaml.safe_dump(tests))
    check(need("promtool"), "test", "rules", tmp_path / "adapter.yml")


def test_the_image_has_what_the_pods_name(pod: Manifest, settings: Settings) -> None:
    text = (FOLDER / "Dockerfile").read_text()
    assert f"\nCOPY . {settings.bundle}\n" in text
    assert "command" not in container(pod)
    assert 'CMD [".venv-serve/bin/python", "-m", "service"]' in text
    assert "RUN ./run setup serve " in (ROOT / "Dockerfile.dev").read_text()
    done = subprocess.run(
        [Path(sys.executable).parent / "hadolint", FOLDER / "Dockerfile"], capture_output=True, text=True
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_kserve_is_told_the_protocol_that_is_spoken(inference: Manifest) -> None:
    predictor = inference["spec"]["predictor"]
    (one,) = predictor["containers"]
    assert one["name"] == "kserve-container"
    assert {"name": "PROTOCOL", "value": "v2"} in one["env"]
    assert "/v2/models/{}/infer" in ROUTES


@pytest.fixture
def running(
    pod: Manifest, variables: dict[str, str], bundle_folder: Path, tmp_path: Path
) -> Iterator[tuple[httpx.Client, str, subprocess.Popen[bytes], Settings]]:
    """The service as the pod starts it, but for its folders, port, database and a shorter grace; a client that asks as
    a node does, by the pod's address."""
    key, entry = new_key("all", ["predict", "metrics"])
    write_keys(tmp_path / "keys.json", [entry])
    port = free_port()
    here = variables | {
        "EVENKEEL_BUNDLE": str(bundle_folder), "EVENKEEL_KEYS": str(tmp_path / "keys.json"), "EVENKEEL_STORE": "none",
        "EVENKEEL_STATE": str(tmp_path / "state"), "EVENKEEL_PORT": str(port), "EVENKEEL_HOST": "127.0.0.1",
        "EVENKEEL_GRACE_SECONDS": "2",
    }  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"], cwd=ROOT, env={"PATH": "/usr/bin:/bin", **here}, stderr=log
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Host": "10.1.2.3:8000"}) as client:
            wait(lambda: client.get("/health/live").status_code == 200, 60)
            yield client, key, process, read_settings(here, [])
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_pod_starts_answers_and_drains(
    running: tuple[httpx.Client, str, subprocess.Popen[bytes], Settings], pod: Manifest, bundle_folder: Path
) -> None:
    client, key, process, settings = running
    probes = {name: container(pod)[name]["httpGet"]["path"] for name in ("livenessProbe", "readinessProbe")}
    bearer = {"Authorization": f"Bearer {key}"}
    wait(lambda: client.get(probes["readinessProbe"]).status_code == 200, 60)
    assert client.get("/metrics").status_code == 401
    scraped = client.get("/metrics", headers=bearer)
    assert "\nevenkeel_queue_rows 0.0\n" in scraped.text
    asked = {"inputs": [{"name": "pclass", "shape": [1], "datatype": "INT64", "data": [1]},
                        {"name": "sex", "shape": [1], "datatype": "BYTES", "data": ["female"]}]}  # fmt: skip
    name = read_bundle(bundle_folder).name
    assert client.post(f"/v2/models/{name}/infer", json=asked, headers=bearer).status_code == 200
    process.terminate()
    begun = time.monotonic()
    wait(lambda: client.get(probes["readinessProbe"]).status_code == 503, 5)
    assert client.get(probes["livenessProbe"]).status_code == 200
    assert client.post("/v1/predict", json={"pclass": 3, "sex": "male"}, headers=bearer).status_code == 200
    assert process.wait(timeout=pod["terminationGracePeriodSeconds"]) == 0
    assert time.monotonic() - begun >= settings.grace_seconds
