"""What schemathesis has to know of our wire; it loads this file itself (``SCHEMATHESIS_HOOKS``)."""

import json
import os
import zlib
from typing import Any

import msgspec
import schemathesis

from service.http.body.decoding import decode_body
from service.http.errors import ServiceError
from tests.titanic import Passenger

JSON, MESSAGEPACK, LINES = "application/json", "application/msgpack", "application/x-ndjson"
STREAM = "/v1/predict/stream"
EXACT = 2**53
TIMEOUT, PATIENT_MS = "X-Request-Timeout-Ms", 20_000


@schemathesis.serializer(MESSAGEPACK)
def pack(_: Any, value: Any) -> bytes:
    """MessagePack; what it has no form for, integers past 64 bits, becomes a number as wrong."""
    return msgspec.msgpack.encode(packable(value))


@schemathesis.deserializer(MESSAGEPACK)
def unpack(_: Any, response: Any) -> Any:
    return msgspec.msgpack.decode(response.content)


@schemathesis.serializer(LINES)
def write_lines(_: Any, value: Any) -> bytes:
    """An array as a line for each of its values; what is none, and was made to be wrong, as one line."""
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    return b"".join(json.dumps(one).encode() + b"\n" for one in (value if isinstance(value, list) else [value]))


@schemathesis.deserializer(LINES)
def read_lines(_: Any, response: Any) -> Any:
    return [msgspec.json.decode(line) for line in response.content.splitlines()]


@schemathesis.check
def as_many_lines_are_answered_as_are_sent(_: Any, response: Any, case: Any) -> None:
    """Each line of a stream gets its prediction or its problem: a faulty one is no fault of the request."""
    if case.operation.path == STREAM and response.status_code == 200:
        sent = response.request.body or b""
        sent = sent.encode() if isinstance(sent, str) else sent
        lines = [line for line in sent.split(b"\n") if line.strip()]
        found = read_lines(None, response)
        assert len(found) == len(lines), (len(found), len(lines))
        for line, answer in zip(lines, found, strict=True):
            assert ("probability" in answer) == good(line), (line, answer)


def good(line: bytes) -> bool:
    """Whether a line is a passenger."""
    try:
        decode_body(line, JSON, Passenger)
    except ServiceError:
        return False
    return True


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """Half of the answers in MessagePack, and integers written as integers.

    To JSON Schema 3.0 is an integer, to this service only 3 is, which no schema can say (the document's text does).
    """
    # A millisecond is allowed, and answered with 504, as it should be; any 5xx is a fault to schemathesis.
    given = str((case.headers or {}).get(TIMEOUT, ""))
    if given.isascii() and given.isdigit() and 0 < int(given) < PATIENT_MS:
        case.headers[TIMEOUT] = str(PATIENT_MS)
    case.body = written_whole(case.body)
    # Of a random name there is no model. Every other one is replaced by that of what is served, told by our test.
    for name, served in zip(("name", "version"), os.environ["EVENKEEL_TEST_MODEL"].split(), strict=True):
        if name in (case.path_parameters or {}) and zlib.crc32(str(case.path_parameters[name]).encode()) % 2:
            case.path_parameters[name] = served
    if case.media_type == MESSAGEPACK and "Accept" not in case.headers:
        case.headers["Accept"] = MESSAGEPACK


def written_whole(value: Any) -> Any:
    """3.0 → 3 all through a body, which is the same value to JSON Schema."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return int(value)
    return _mapped(value, written_whole)


def packable(value: Any) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return "an integer past 64 bits"
    return _mapped(value, packable)


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {change(key): change(one) for key, one in value.items()}
    if isinstance(value, list):
        return [change(one) for one in value]
    return value
