"""Code that a schema may name: what it derives from a row beyond the row's own fields."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from models.features.titanic import TitanicFeature
from models.schema import Schema, SchemaError


class Feature(Protocol):
    """Derives words from a row, and from what it learned of labelled rows.

    ``fields`` are those that it reads; ``derived`` the names of its words, each with all that it may say;
    ``known_type`` the type of what it learns, which a bundle keeps as ``feature.json``.
    """

    @property
    def fields(self) -> tuple[str, ...]: ...
    @property
    def derived(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def known_type(self) -> type[Any]: ...

    def learn(self, rows: Sequence[Any], labels: np.ndarray) -> Any:
        """What is to be known of labelled rows, their labels (n,) being numbers of classes; none for no rows."""

    def derive(self, row: Any, known: Any) -> Mapping[str, str | None]:
        """The derived words of a row by name; its own label never reaches them. None: there is nothing to say."""

    def knows(self, row: Any, known: Any) -> bool:
        """Whether the row is among those that were learned from."""

    def cluster(self, row: Any) -> str:
        """Rows with the same non-empty value depend on each other: statistics count them as one."""


FEATURES: Mapping[str, Feature] = {"titanic": TitanicFeature()}


def find_feature(schema: Schema) -> Feature | None:
    """The schema's feature. Raises SchemaError for one that there is not, or whose fields the schema lacks."""
    if schema.feature is None:
        return None
    if schema.feature not in FEATURES:
        raise SchemaError("feature", f"there is no feature {schema.feature}; there are: {', '.join(FEATURES)}")
    feature = FEATURES[schema.feature]
    lacking = [name for name in feature.fields if name not in schema.by_name]
    if lacking:
        raise SchemaError("feature", f"{schema.feature} reads the fields {', '.join(lacking)}, which are not there")
    return feature
