"""Strict bodies: nothing is coerced, nothing unknown is taken, and all faults are named at once."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Struct

from service.http.body.faults import MAX_FAULTS, check, faults_of, find_unreadable, shown
from service.http.body.loose_json import read_loosely
from service.http.body.repeated_keys import repeated_in_json, repeated_in_messagepack
from service.http.errors import SHOWN_CHARACTERS, Fault, InvalidBody, MalformedBody, WrongMediaType
from service.http.negotiation import JSON, MESSAGEPACK, MESSAGEPACK_TYPES

T = TypeVar("T", bound=Struct)
Decode = Callable[[bytes], tuple[Any, list[Fault]]]


def decode_body(body: bytes, content_type: str, form: type[T]) -> T:
    """Bytes → ``form``.

    Raises WrongMediaType for anything but JSON and MessagePack, MalformedBody for bytes that are not what they claim,
    InvalidBody with every fault of the value.
    """
    value, unreadable = _decode(body, content_type)
    if unreadable:
        found = faults_of(value, form)
        # Where a form takes any value, what no type can hold is the only fault.
        named = tuple(f"{fault.pointer}/" for fault in found)
        more = [fault for fault in unreadable if not f"{fault.pointer}/".startswith(named)]
        raise InvalidBody([*found, *more][:MAX_FAULTS])
    return check(value, form)


def _decode(body: bytes, content_type: str) -> tuple[Any, list[Fault]]:
    """The body's value, and what of it no type can hold."""
    media_type, _, parameters = content_type.partition(";")
    media_type = media_type.strip().lower()
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if media_type == JSON and charset in ("", "charset=utf-8"):
        name, decode, repeated_key = "JSON", cast(Decode, _decode_json), repeated_in_json
    elif media_type in MESSAGEPACK_TYPES:
        name, decode, repeated_key = "MessagePack", _decode_messagepack, repeated_in_messagepack
    else:
        named = content_type[:SHOWN_CHARACTERS] or "absent"
        raise WrongMediaType(f"Content-Type is {named}; it must be {JSON} (UTF-8) or {MESSAGEPACK}")
    try:
        value, faults = decode(body)
        repeated = repeated_key(body, value)
    except RecursionError as error:
        raise MalformedBody(f"the body is not {name}: nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise MalformedBody(f"the body is not {name}: {error}") from error
    if repeated is not None:
        raise MalformedBody(f"the body has the key {shown(repeated)} twice in one object")
    return value, faults


def _decode_messagepack(body: bytes) -> tuple[Any, list[Fault]]:
    return msgspec.msgpack.decode(body), []


def _decode_json(body: bytes) -> tuple[Any, list[Fault]]:
    try:
        return msgspec.json.decode(body), []
    except msgspec.DecodeError:
        try:
            value = read_loosely(body)
        except ValueError:
            value = None
        if faults := find_unreadable(value):
            return value, faults
        raise
