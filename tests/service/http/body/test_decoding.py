"""JSON that has no value in Python, and keys twice: what is wrong is said where it is, of any table."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.body.decoding import decode_body
from service.http.errors import InvalidBody, MalformedBody
from tests.churn import ROWS, Customer

JSON, MESSAGEPACK = "application/json", "application/msgpack"
HALF = "is not a text: it holds one half of a surrogate pair without the other"


def faults(body: bytes, form: type[Any] = ROWS.struct, content_type: str = JSON) -> list[tuple[str, str, str]]:
    with pytest.raises(InvalidBody) as refused:
        decode_body(body, content_type, form)
    return [(fault.pointer, fault.value, fault.message) for fault in refused.value.faults]


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        (b'"bill":1e400', ("/bill", "1e400", "must be a number from 0 to 500, or null")),
        (b'"bill":-1.5E+999', ("/bill", "-1.5E+999", "must be a number from 0 to 500, or null")),
        (b'"tenure":1e400', ("/tenure", "1e400", "must be a whole number of at least 0, or null")),
        (b'"tenure":' + b"9" * 5000, ("/tenure", "9" * 59 + "…", "must be a whole number of at least 0, or null")),
        (b'"note":"a\\ud83d"', ("/note", '"a\\ud83d"', HALF)),
        (b'"note":"\\ude00 is the second"', ("/note", '"\\ude00 is the second"', HALF)),
        (b'"note":1e400', ("/note", "1e400", "must be a text of at most 200 characters, or null")),
        (b'"nope":[1e400]', ("/nope", "[1e400]", 'is not a field; did you mean "note"?')),
    ],
)
def test_json_without_a_value_is_a_fault_of_its_field(written: bytes, fault: tuple[str, str, str]) -> None:
    assert faults(b'{"city":"city 01",' + written + b"}") in ([fault], [(fault[0], '["1e400"]', fault[2])])


def test_all_else_is_named_with_it() -> None:
    body = b'{"bill":1e400,"plan":7,"note":"\\ud83d","senior":"y"}'
    assert [pointer for pointer, _, _ in faults(body)] == ["/city", "/plan", "/senior", "/bill", "/note"]


class Loose(msgspec.Struct, forbid_unknown_fields=True):
    """A form that takes any values."""

    data: list[Any] = []


def test_where_any_value_is_taken_it_is_named_all_the_same() -> None:
    assert sorted(faults(b'{"data":[1,[-1e999],"\\udc00"]}', Loose)) == [
        ("/data/1/0", "-1e999", "must be a finite number"), ("/data/2", '"\\udc00"', HALF),
    ]  # fmt: skip
    assert faults(b'{"data":[{"\\ud800/~":1}]}', Loose) == [
        ("/data/0/\\ud800~1~0", "1", "is not a field; its name holds one half of a surrogate pair without the other")
    ]


@pytest.mark.parametrize("body", [b'{"bill":NaN}', b'{"bill":Infinity}', b'{"bill":1e400', b'["\\ud800', b"\xff1e400"])
def test_what_is_no_json_stays_that(body: bytes) -> None:
    with pytest.raises(MalformedBody, match="is not JSON"):
        decode_body(body, JSON, Customer)


def test_a_key_twice_is_named_before_its_value() -> None:
    with pytest.raises(MalformedBody, match='the key "bill" twice'):
        decode_body(b'{"city":"city 01","bill":1,"bill":1e400}', JSON, Customer)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 12.0])
def test_numbers_of_messagepack_are_as_strict(number: float) -> None:
    body = msgspec.msgpack.encode({"city": "city 01", "tenure": number})
    ((pointer, value, message),) = faults(body, content_type=MESSAGEPACK)
    assert (pointer, value) == ("/tenure", str(number))
    assert message.startswith("must be a whole number of at least 0, or null")


def values() -> st.SearchStrategy[Any]:
    """What JSON holds, halves of surrogate pairs among it."""
    texts = st.text(st.characters(exclude_categories=()))
    plain = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | texts
    return st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


@given(values())
def test_of_any_json_a_row_is_made_or_its_faults_can_be_sent(value: Any) -> None:
    body = json.dumps({"city": "city 01", "note": value}).encode()
    try:
        row: Any = decode_body(body, JSON, ROWS.struct)
    except InvalidBody as error:
        sent = msgspec.json.decode(msgspec.json.encode(error.faults))
        pointers = [fault["pointer"] for fault in sent]
    else:
        pointers = []
        assert row.note == value
    assert all(pointer.startswith("/note") for pointer in pointers)
    taken = value is None or (isinstance(value, str) and len(value) <= 200 and value.isprintable())
    assert not (taken and pointers)
