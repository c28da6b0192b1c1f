"""What schemathesis has to know of our wire; it loads this file itself (``SCHEMATHESIS_HOOKS``)."""

from typing import Any

import msgspec
import schemathesis

JSON, MESSAGEPACK = "application/json", "application/msgpack"
EXACT = 2**53
TIMEOUT, PATIENT_MS = "X-Request-Timeout-Ms", 20_000


@schemathesis.serializer(MESSAGEPACK)
def pack(_: Any, value: Any) -> bytes:
    """MessagePack; what it has no form for, integers past 64 bits, becomes a number as wrong."""
    return msgspec.msgpack.encode(packable(value))


@schemathesis.deserializer(MESSAGEPACK)
def unpack(_: Any, response: Any) -> Any:
    return msgspec.msgpack.decode(response.content)


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
