"""Schemas of the custom resources that deploy/kubernetes/ uses, by hand: the fields used and their neighbours.

ServiceMonitor: prometheus-operator 0.84, example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml.
InferenceService: KServe, pkg/apis/serving/v1beta1/component.go (what is beside the pod's own fields in a predictor) and
predictor_custom.go. The pod's fields are Kubernetes' own, and are checked by its schema.
"""

from typing import Any


def closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """An object of these properties and no others."""
    return {
        "type": "object", "properties": properties, "required": list(required), "additionalProperties": False,
    }  # fmt: skip


STRING, BOOLEAN, COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
STRINGS = {"type": "array", "items": STRING}
MAP = {"type": "object", "additionalProperties": STRING}
DURATION = {
    "type": "string",
    "pattern": "^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$",
}
METADATA = closed(("name",), name=STRING, namespace=STRING, labels=MAP, annotations=MAP)

ENDPOINT = closed(
    port=STRING, targetPort={"type": ["integer", "string"]}, path=STRING, scheme={"enum": ["http", "https"]},
    interval=DURATION, scrapeTimeout=DURATION, honorLabels=BOOLEAN, honorTimestamps=BOOLEAN, followRedirects=BOOLEAN,
    authorization=closed(type=STRING, credentials=closed(("key",), name=STRING, key=STRING, optional=BOOLEAN)),
)  # fmt: skip
SERVICE_MONITOR = closed(
    ("apiVersion", "kind", "metadata", "spec"), apiVersion={"const": "monitoring.coreos.com/v1"},
    kind={"const": "ServiceMonitor"}, metadata=METADATA, spec=closed(
        ("endpoints", "selector"), jobLabel=STRING, targetLabels=STRINGS, podTargetLabels=STRINGS,
        selector=closed(matchLabels=MAP), namespaceSelector=closed(any=BOOLEAN, matchNames=STRINGS),
        endpoints={"type": "array", "items": ENDPOINT},
    ),
)  # fmt: skip

EXTENSION = {
    "minReplicas": COUNT, "maxReplicas": COUNT, "scaleTarget": COUNT, "containerConcurrency": COUNT, "timeout": COUNT,
    "scaleMetric": {"enum": ["cpu", "memory", "concurrency", "rps"]}, "canaryTrafficPercent": COUNT, "labels": MAP,
    "annotations": MAP,
}  # fmt: skip
"""A predictor's fields beside those of a pod."""
INFERENCE_SERVICE = closed(
    ("apiVersion", "kind", "metadata", "spec"), apiVersion={"const": "serving.kserve.io/v1beta1"},
    kind={"const": "InferenceService"}, spec=closed(("predictor",), predictor={"type": "object"}),
    metadata=METADATA | {
        "properties": METADATA["properties"] | {
            "name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
            "annotations": closed(**{
                "serving.kserve.io/deploymentMode": {"enum": ["Standard", "Knative", "RawDeployment", "Serverless"]},
            }),
        },
    },
)  # fmt: skip
