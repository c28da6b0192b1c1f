"""The passengers' schema and the type of their rows, for tests that need rows of a real table."""

from pathlib import Path
from typing import Any

from models.rows import Rows
from models.schema import read_packaged

SCHEMA = read_packaged()
ROWS = Rows(SCHEMA)
Passenger: Any = ROWS.struct
DATA = Path(__file__).parents[1] / "data" / "titanic.csv"
COLUMNS = {field.name: field.in_table for field in SCHEMA.fields}
LABELS = SCHEMA.classes
