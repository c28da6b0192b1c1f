"""The passengers' schema and the type of their rows, for tests that need rows of a real table."""

import tomllib
from typing import Any

from models.rows import Rows
from models.schema import TITANIC, schema_of

SCHEMA = schema_of(tomllib.loads(TITANIC.read_text()))
ROWS = Rows(SCHEMA)
Passenger: Any = ROWS.struct
COLUMNS = {field.name: field.in_table for field in SCHEMA.fields}
LABELS = SCHEMA.classes
