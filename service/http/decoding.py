"""Strict bodies: nothing is coerced, nothing unknown is taken, and all faults are named at once."""

import difflib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec import Raw, Struct

from service.http.errors import SHOWN_CHARACTERS, Fault, InvalidBody, MalformedBody, WrongMediaType, shortened
from service.http.negotiation import JSON, MESSAGEPACK, MESSAGEPACK_TYPES

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
    raise InvalidBody(list(islice(_faults(value, form, ""), MAX_FAULTS)) or faults)


def _decode(body: bytes, content_type: str) -> Any:
    media_type, _, parameters = content_type.partition(";")
    media_type = media_type.strip().lower()
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if media_type == JSON and charset in ("", "charset=utf-8"):
        name, decode, repeated_key = "JSON", cast(Decode, msgspec.json.decode), _repeated_in_json
    elif media_type in MESSAGEPACK_TYPES:
        name, decode, repeated_key = "MessagePack", cast(Decode, msgspec.msgpack.decode), _repeated_in_messagepack
    else:
        named = content_type[:SHOWN_CHARACTERS] or "absent"
        raise WrongMediaType(f"Content-Type is {named}; it must be {JSON} (UTF-8) or {MESSAGEPACK}")
    try:
        value = decode(body)
        repeated = repeated_key(body, value)
    except RecursionError as error:
        raise MalformedBody(f"the body is not {name}: nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise MalformedBody(f"the body is not {name}: {error}") from error
    if repeated is not None:
        raise MalformedBody(f"the body has the key {shown(repeated)} twice in one object")
    return value


def _repeated_in_json(body: bytes, value: Any) -> Any:
    """A key that an object of the body repeats, of which ``value`` holds the last alone; None if there is none.

    RFC 8259, section 4, leaves open what such an object means, so whoever sends it may mean the other one.
    """
    if body.count(b":") == _keys(value):
        # Every pair has its colon, so no pair is missing: the common case, seen without a second reading.
        return None
    repeated: list[Any] = []

    def pairs(items: list[tuple[Any, Any]]) -> None:
        repeated.extend(_repeated([key for key, _ in items]))

    json.loads(body, object_pairs_hook=pairs)
    return repeated[0] if repeated else None


def _repeated_in_messagepack(body: bytes, value: Any) -> Any:
    """As of JSON."""
    if msgspec.msgpack.encode(value) == body:
        # Nothing is missing: the common case, of whoever writes each value in its shortest form.
        return None
    return next(_repeated_in_maps(Raw(body)), None)


class _Key:
    """A key of a map, not equal to another with the same value, so that msgspec keeps both."""

    __slots__ = ("value",)

    def __init__(self, _: type, value: Any):
        self.value = value


MAP, ARRAY = msgspec.msgpack.Decoder(dict[_Key, Raw], dec_hook=_Key), msgspec.msgpack.Decoder(list[Raw])
MAP_BYTES = frozenset([*range(0x80, 0x90), 0xDE, 0xDF])
ARRAY_BYTES = frozenset([*range(0x90, 0xA0), 0xDC, 0xDD])
CONTAINER_BYTES = MAP_BYTES | ARRAY_BYTES
"""First bytes of what MessagePack nests in."""


def _repeated_in_maps(body: Raw) -> Iterator[Any]:
    inside: Iterable[Raw] = ()
    if memoryview(body)[0] in MAP_BYTES:
        pairs = MAP.decode(body)
        yield from _repeated([key.value for key in pairs])
        inside = pairs.values()
    elif memoryview(body)[0] in ARRAY_BYTES:
        inside = ARRAY.decode(body)
    for value in inside:
        if memoryview(value)[0] in CONTAINER_BYTES:
            yield from _repeated_in_maps(value)


def _repeated(keys: list[Any]) -> list[Any]:
    """The key that is there most often, if any is there twice."""
    # A tally, and no search among the keys before: a body may hold a hundred thousand.
    return [Counter(keys).most_common(1)[0][0]] if len(set(keys)) != len(keys) else []


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
        for index, element in enumerate(value):
            yield from _number_faults(element, item, f"{pointer}/{index}")
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
        for index, element in enumerate(value):
            yield from _faults(element, item, f"{pointer}/{index}")
    numbers = list(_number_faults(value, form, pointer)) if isinstance(value, float) else []
    yield from numbers
    if not numbers:
        try:
            # The items of a list were checked one by one; what remains is its own type and length.
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
    return shortened(msgspec.json.encode(value, enc_hook=_without_json).decode("utf-8", "replace"))


def _without_json(value: Any) -> str:
    """What JSON has no form for, without the address that str() would give away."""
    return f"extension {value.code}" if isinstance(value, msgspec.msgpack.Ext) else type(value).__name__


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
        return any(map(_wants_integer, get_args(form))) and float not in map(_plain, get_args(form))
    return form is int or any(type(argument) is int for argument in get_args(form))


def _plain(form: Any) -> Any:
    return get_args(form)[0] if get_origin(form) is Annotated else form
