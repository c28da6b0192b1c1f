"""What the document says of a table beyond its types: its question, and the names of its classes."""

from collections.abc import Mapping
from typing import Any

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


def with_classes(components: dict[str, Any], schema_of: Mapping[Any, Any], table: Table) -> dict[str, Any]:
    """The components with the names of the classes, which answers have as texts."""

    def properties_of(schema: Mapping[str, str]) -> dict[str, Any]:
        properties: dict[str, Any] = components[schema["$ref"].removeprefix(COMPONENTS)]["properties"]
        return properties

    classes = {"type": "string", "enum": list(table.schema.classes)}
    prediction = properties_of(schema_of[PredictionResponse])
    prediction["outcome"] = classes
    prediction["probabilities"] = {
        "type": "object", "properties": dict.fromkeys(table.schema.classes, prediction["probability"]),
        "required": list(table.schema.classes), "additionalProperties": False,
    }  # fmt: skip
    properties_of(prediction["confidence"])["prediction_set"]["items"] = classes
    properties_of(properties_of(schema_of[ExplanationResponse])["prediction"])["outcome"] = classes
    return components
