"""The architectures that are read: one file each, chosen by the ``model_type`` of ``config.json``."""

from collections.abc import Mapping
from typing import Any

from models.bert.layouts.bert import BERT
from models.bert.layouts.distilbert import DISTILBERT
from models.bert.layouts.layout import Layout

LAYOUTS = {layout.model_type: layout for layout in (BERT, DISTILBERT)}


class LayoutError(ValueError):
    """An architecture that is not read; the message names it and those that are."""


def layout_of(config: Mapping[str, Any]) -> Layout:
    """The layout of a ``config.json``; raises LayoutError."""
    name = config.get("model_type", BERT.model_type)
    if not isinstance(name, str) or name not in LAYOUTS:
        raise LayoutError(f"model_type is {name!r:.80}, it must be {' or '.join(map(repr, LAYOUTS))}")
    return LAYOUTS[name]
