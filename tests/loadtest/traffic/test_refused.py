"""What the load test says must be refused is refused by the types of the service, of any schema."""

import msgspec
import pytest

from loadtest.traffic.refused import refused_bodies
from loadtest.traffic.rows import known
from models.rows import Rows
from models.schema import Schema
from tests import churn
from tests.titanic import ROWS, SCHEMA


@pytest.mark.parametrize("schema", [SCHEMA, churn.SCHEMA], ids=["titanic", "churn"])
def test_bodies_are_refused_as_malformed_or_as_no_row(schema: Schema) -> None:
    rows = Rows(schema)
    row = known(ROWS.typical() if schema is SCHEMA else churn.customers(1)[0])
    msgspec.json.decode(msgspec.json.encode(row), type=rows.struct)
    found = refused_bodies(schema, row)
    assert {each.statuses for each in found} == {(400,), (422,)}
    for each in found:
        if each.path == "/v1/predict" and each.statuses == (422,):
            with pytest.raises(msgspec.ValidationError):
                msgspec.json.decode(each.body, type=rows.struct)
    assert any(each.body.count(b'"%s":' % next(iter(row)).encode()) == 2 for each in found if each.statuses == (400,))
