"""Strict bodies: nothing is coerced, nothing unknown is taken, and all faults are told at once."""

import difflib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

import msgpack
import msgspec
from msgspec import Struct

from service.http.errors import Fault, InvalidBody, MalformedBody, WrongMediaType
from service.http.negotiation import JSON, MESSAGEPACK, MESSAGEPACK_TYPES

SHOWN_CHARACTERS = 60
MAX_FAULTS = 100
"""Faults listed per body: a client with more has a systematic one."""

T = TypeVar("T", bound=Struct)
Decode = Callable[[bytes], Any]


def decode_body(body: bytes, content_type: str, form: type[T]) -> T:
    """Bytes → ``form``.

    Raises WrongMediaType for anything but JSON and MessagePack, MalformedBody for bytes that are not what they claim,
    InvalidBody with every fault of the value.
    """
    return check(_decode(body, content_type), form)


def check(value: Any, form: type[T]) -> T:
    """What JSON or MessagePack gave → ``form``; raises InvalidBody with every fault."""
    faults = list(_number_faults(value, form, ""))
    if not faults:
        try:
            return msgspec.convert(value, form, strict=True)
        except msgspec.ValidationError:
            pass
    found = [fault for _, fault in zip(range(MAX_FAULTS), _faults(value, form, ""), strict=False)]
    raise InvalidBody(found or faults)


def _decode(body: bytes, content_type: str) -> Any:
    media_type, _, parameters = content_type.partition(";")
    media_type = media_type.strip().lower()
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if media_type == JSON and charset in ("", "charset=utf-8"):
        name, decode = "JSON", cast(Decode, msgspec.json.decode)
    elif media_type in MESSAGEPACK_TYPES:
        name, decode = "MessagePack", cast(Decode, msgspec.msgpack.decode)
    else:
        named = content_type[:SHOWN_CHARACTERS] or "absent"
        raise WrongMediaType(f"Content-Type is {named}; it must be {JSON} (UTF-8) or {MESSAGEPACK}")
    try:
        value = decode(body)
        repeated = _repeated_key(body, value, name)
    except RecursionError as error:
        raise MalformedBody(f"the body is not {name}: nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise MalformedBody(f"the body is not {name}: {error}") from error
    if repeated is not None:
        raise MalformedBody(f"the body has the key {shown(repeated)} twice in one object")
    return value


def _repeated_key(body: bytes, value: Any, name: str) -> Any:
    """A key that an object of the body repeats, of which ``value`` holds the last alone; None if there is none.

    RFC 8259, section 4, leaves open what such an object means, so whoever sends it may mean the other one.
    """
    if name == "JSON" and body.count(b":") == _keys(value):
        # Every pair has its colon, so no pair is missing: the common case, told without a second reading.
        return None
    found: list[Any] = []

    def pairs(items: list[tuple[Any, Any]]) -> None:
        # A tally, and no search among the keys before: a body may hold a hundred thousand.
        if len({key for key, _ in items}) != len(items):
            found.append(Counter(key for key, _ in items).most_common(1)[0][0])

    if name == "JSON":
        json.loads(body, object_pairs_hook=pairs)
    else:
        msgpack.unpackb(body, object_pairs_hook=pairs, strict_map_key=False)
    return found[0] if found else None


def _keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if isinstance(value, list) else 0


def _number_faults(value: Any, form: Any, pointer: str) -> Iterator[Fault]:
    """What msgspec would let pass: 3.0 for an integer, and MessagePack's NaN and infinities."""
    if isinstance(value, dict) and (struct := _struct(form)) is not None:
        for name, field in _fields(struct).items():
            if name in value:
                yield from _number_faults(value[name], field.type, f"{pointer}/{name}")
    elif isinstance(value, list) and (item := _item(form)) is not None:
        for index, one in enumerate(value):
            yield from _number_faults(one, item, f"{pointer}/{index}")
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield Fault(pointer, str(value), "must be a finite number")
        elif _wants_integer(form):
            yield Fault(pointer, str(value), "must be an integer, written without a decimal point")


def _faults(value: Any, form: Any, pointer: str) -> Iterator[Fault]:
    struct, item = _struct(form), _item(form)
    if struct is not None and isinstance(value, dict):
        fields = _fields(struct)
        for name in value:
            if name not in fields:
                yield _unknown(value, name, list(fields), pointer)
        for name, field in fields.items():
            if name in value:
                yield from _faults(value[name], field.type, f"{pointer}/{name}")
            elif field.required:
                yield Fault(f"{pointer}/{name}", "", "is required")
        return
    if item is not None and isinstance(value, list):
        for index, one in enumerate(value):
            yield from _faults(one, item, f"{pointer}/{index}")
    numbers = list(_number_faults(value, form, pointer)) if isinstance(value, float) else []
    yield from numbers
    if not numbers:
        try:
            # The items of a list were judged one by one; what remains is its own type and length.
            msgspec.convert(value, _bare(form) if item is not None else form, strict=True)
        except msgspec.ValidationError as error:
            yield Fault(pointer, shown(value), _accepted(form, error))


def _unknown(value: dict[str, Any], name: Any, known: list[str], pointer: str) -> Fault:
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"the fields are {', '.join(known)}"
    escaped = str(name)[:SHOWN_CHARACTERS].replace("~", "~0").replace("/", "~1")
    return Fault(f"{pointer}/{escaped}", shown(value[name]), f"is not a field; {hint}")


def _accepted(form: Any, error: msgspec.ValidationError) -> str:
    schema = {k: v for k, v in msgspec.json.schema(form).items() if k not in ("$defs", "$ref", "items")}
    reason = str(error).split(" - at ")[0]
    described = f"; accepted: {msgspec.json.encode(schema).decode()}" if schema else ""
    return reason + described


def shown(value: Any) -> str:
    """A value as JSON, shortened."""
    text = msgspec.json.encode(value, enc_hook=str).decode("utf-8", "replace")
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


@cache
def _fields(struct: type[Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields by their name on the wire."""
    return {field.encode_name: field for field in msgspec.structs.fields(struct)}


def _struct(form: Any) -> type[Struct] | None:
    return form if isinstance(form, type) and issubclass(form, Struct) else None


def _item(form: Any) -> Any:
    """The item type of a list type, else None."""
    if get_origin(form) is Annotated:
        form = get_args(form)[0]
    return get_args(form)[0] if get_origin(form) is list else None


def _bare(form: Any) -> Any:
    """A list type with its length constraint but any items."""
    return Annotated[list[Any], *form.__metadata__] if get_origin(form) is Annotated else list[Any]


@cache
def _wants_integer(form: Any) -> bool:
    if get_origin(form) is Annotated:
        return _wants_integer(get_args(form)[0])
    if get_origin(form) in (Union, UnionType):
        return any(_wants_integer(one) for one in get_args(form)) and float not in map(_plain, get_args(form))
    return form is int or any(type(one) is int for one in get_args(form))


def _plain(form: Any) -> Any:
    return get_args(form)[0] if get_origin(form) is Annotated else form
