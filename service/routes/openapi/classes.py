"""What the document says of a table beyond its types: its question, and the names of its classes."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.calibration.confidence import CalibrationStep, Confidence
from service.drift.estimates import LabelFreeEstimates
from service.drift.report import DriftReport
from service.routes.explain import ExplanationResponse
from service.routes.schemas import PredictionResponse
from service.routes.table import Table

COMPONENTS = "#/components/schemas/"
"""What references to components begin with."""


def about(table: Table) -> str:
    """What is predicted of what."""
    schema = table.schema
    classes = ", ".join(f"`{name}`" for name in schema.classes)
    question = f" {schema.question}" if schema.question else ""
    return f"A row is a {schema.row}.{question} The classes are {classes}."


OF_CLASSES: dict[type, tuple[tuple[str, ...], tuple[str, ...]]] = {
    PredictionResponse: (("probability",), ()),
    Confidence: (
        ("interval", "venn_abers", "uncalibrated_probability"),
        ("intervals", "venn_abers", "uncalibrated_probabilities"),
    ),
    CalibrationStep: (("probability",), ("probabilities",)),
    DriftReport: (("positive", "reliability"), ("reliabilities", "confusion")),
    LabelFreeEstimates: (
        ("expected_prevalence", "prior_shift_prevalence", "baseline_prevalence"),
        ("expected_prevalences", "prior_shift_prevalences", "baseline_prevalences"),
    ),
}
"""What an answer has of two classes, and what of more; always, and never both."""


def with_classes(components: dict[str, Any], schema_of: Mapping[Any, Any], table: Table) -> dict[str, Any]:
    """The components with the names of the classes, which answers have as texts, and with what answers have of as many
    classes as there are."""

    def component_of(schema: Mapping[str, str]) -> dict[str, Any]:
        component: dict[str, Any] = components[schema["$ref"].removeprefix(COMPONENTS)]
        return component

    def properties_of(schema: Mapping[str, str]) -> dict[str, Any]:
        properties: dict[str, Any] = component_of(schema)["properties"]
        return properties

    names = table.schema.classes
    for form, (of_two, of_more) in OF_CLASSES.items():
        own, others = (of_two, of_more) if len(names) == 2 else (of_more, of_two)
        _choose(component_of(schema_of[form]), own, others, names)
    classes = {"type": "string", "enum": list(names)}
    prediction = properties_of(schema_of[PredictionResponse])
    prediction["outcome"] = classes
    _decide(component_of(schema_of[PredictionResponse]), classes if table.schema.costs else None)
    prediction["probabilities"] = _by_class(prediction["probabilities"], names)
    confidence = properties_of(prediction["confidence"])
    confidence["prediction_set"]["items"] = classes
    confidence["venn_abers"] = confidence["interval" if len(names) == 2 else "intervals"]
    properties_of(properties_of(schema_of[ExplanationResponse])["prediction"])["outcome"] = classes
    return components


def _decide(component: dict[str, Any], classes: dict[str, Any] | None) -> None:
    """Answers have a decision where there are costs, and then always."""
    if classes is None:
        del component["properties"]["decision"]
        return
    component["properties"]["decision"] = classes
    component["required"].insert(component["required"].index("outcome") + 1, "decision")


def _choose(component: dict[str, Any], own: Sequence[str], others: Sequence[str], classes: Sequence[str]) -> None:
    """Take the ``others`` from an object's properties; its ``own`` are always there."""
    properties = component["properties"]
    for name in set(others) - set(own):
        del properties[name]
    for name in own:
        properties[name] = _by_class(properties[name], classes)
    needed = {*component.get("required", ()), *own}
    component["required"] = [name for name in properties if name in needed]


def _by_class(schema: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """A mapping by name → an object with the names of the classes; what is none stays."""
    if "additionalProperties" not in schema:
        return schema
    each = _by_class(schema["additionalProperties"], classes)
    return {
        "type": "object", "properties": dict.fromkeys(classes, each), "required": list(classes),
        "additionalProperties": False,
    }  # fmt: skip
