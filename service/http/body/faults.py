"""The faults of a body's value: where, what stands there, and what is accepted."""

import difflib
import json
import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from service.http.body.loose_json import TooLarge, is_text
from service.http.errors import SHOWN_CHARACTERS, Fault, InvalidBody, shortened

MAX_FAULTS = 100
"""Faults listed per body: a client with more has a systematic one."""
ACCEPTS = "accepts"
"""Key of a type's `Meta.extra`: what the type accepts, in words."""
HALF = "holds one half of a surrogate pair without the other"

T = TypeVar("T", bound=Struct)


def check(value: Any, form: type[T]) -> T:
    """What JSON or MessagePack gave → ``form``; raises InvalidBody with every fault."""
    faults = list(_number_faults(value, form, ""))
    if not faults:
        try:
            return msgspec.convert(value, form, strict=True)
        except msgspec.ValidationError:
            pass
    raise InvalidBody(faults_of(value, form) or faults)


def faults_of(value: Any, form: type[Struct]) -> list[Fault]:
    """What is wrong with a value as ``form``."""
    return list(islice(_faults(value, form, ""), MAX_FAULTS))


def find_unreadable(value: Any) -> list[Fault]:
    """What of a value that was read loosely no type can hold."""
    return list(islice(_unreadable(value, ""), MAX_FAULTS))


def _number_faults(value: Any, form: Any, pointer: str) -> Iterator[Fault]:
    """What msgspec would let pass: 3.0 for an integer, and MessagePack's NaN and infinities."""
    if isinstance(value, dict) and (struct := _struct(form)) is not None:
        for name, field in _fields(struct).items():
            if name not in value:
                continue
            inner = value[name]
            if isinstance(inner, dict | list):
                yield from _number_faults(inner, field.form, f"{pointer}/{name}")
            elif isinstance(inner, float) and (field.whole or not math.isfinite(inner)):
                yield _number_fault(inner, field.form, f"{pointer}/{name}")
    elif isinstance(value, list) and (item := _item(form)) is not None:
        whole = _wants_integer(item)
        for index, element in enumerate(value):
            if isinstance(element, dict | list):
                yield from _number_faults(element, item, f"{pointer}/{index}")
            elif isinstance(element, float) and (whole or not math.isfinite(element)):
                yield _number_fault(element, item, f"{pointer}/{index}")


def _number_fault(value: float, form: Any, pointer: str) -> Fault:
    accepted = _in_words(form)
    if not math.isfinite(value):
        return Fault(pointer, shown(value), f"must be {accepted or 'a finite number'}")
    return Fault(pointer, shown(value), f"must be {accepted or 'an integer'}, written without a decimal point")


def _faults(value: Any, form: Any, pointer: str) -> Iterator[Fault]:
    struct, item = _struct(form), _item(form)
    if struct is not None and isinstance(value, dict):
        fields = _fields(struct)
        for name in value:
            if name not in fields:
                yield _unknown(value, name, list(fields), pointer)
        for name, field in fields.items():
            if name in value:
                yield from _faults(value[name], field.form, f"{pointer}/{name}")
            elif field.required:
                yield Fault(f"{pointer}/{name}", "", "is required")
        return
    if item is not None and isinstance(value, list):
        for index, element in enumerate(value):
            yield from _faults(element, item, f"{pointer}/{index}")
    if isinstance(value, float) and (not math.isfinite(value) or _wants_integer(form)):
        yield _number_fault(value, form, pointer)
    elif isinstance(value, str) and not is_text(value):
        yield from _unreadable(value, pointer)
    else:
        try:
            # The items of a list were checked one by one; what remains is its own type and length.
            msgspec.convert(value, _bare(form) if item is not None else form, strict=True)
        except msgspec.ValidationError as error:
            yield Fault(pointer, shown(value), _accepted(form, error))


def _unreadable(value: Any, pointer: str) -> Iterator[Fault]:
    if isinstance(value, dict):
        for key, inner in value.items():
            place = f"{pointer}/{_escaped(key)}"
            if not is_text(key):
                yield Fault(place, shown(inner), f"is not a field; its name {HALF}")
            yield from _unreadable(inner, place)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unreadable(inner, f"{pointer}/{index}")
    elif isinstance(value, TooLarge):
        yield Fault(pointer, shown(value), "must be a finite number")
    elif isinstance(value, str) and not is_text(value):
        yield Fault(pointer, shown(value), f"is not a text: it {HALF}")


def _unknown(value: dict[str, Any], name: Any, known: list[str], pointer: str) -> Fault:
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"the fields are {', '.join(known)}"
    return Fault(f"{pointer}/{_escaped(name)}", shown(value[name]), f"is not a field; {hint}")


def _escaped(name: Any) -> str:
    """A name as a part of a pointer (RFC 6901)."""
    written = str(name)[:SHOWN_CHARACTERS].encode("utf-8", "backslashreplace").decode()
    return written.replace("~", "~0").replace("/", "~1")


def _in_words(form: Any) -> str | None:
    """What a type says that it accepts."""
    metadata = form.__metadata__ if get_origin(form) is Annotated else ()
    extras = [each.extra for each in metadata if isinstance(each, Meta) and each.extra]
    return next((extra[ACCEPTS] for extra in extras if ACCEPTS in extra), None)


def _accepted(form: Any, error: msgspec.ValidationError) -> str:
    if (accepted := _in_words(form)) is not None:
        return f"must be {accepted}"
    schema = {k: v for k, v in msgspec.json.schema(form).items() if k not in ("$defs", "$ref", "items")}
    reason = str(error).split(" - at ")[0]
    described = f"; accepted: {msgspec.json.encode(schema).decode()}" if schema else ""
    return reason + described


def shown(value: Any) -> str:
    """A value as JSON, shortened."""
    if isinstance(value, TooLarge):
        return shortened(value.written)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        return shortened(msgspec.json.encode(value, enc_hook=_without_json).decode("utf-8", "replace"))
    except UnicodeEncodeError:
        return shortened(json.dumps(value))


def _without_json(value: Any) -> str:
    """What JSON has no form for, without the address that str() would give away."""
    if isinstance(value, TooLarge):
        return value.written
    return f"extension {value.code}" if isinstance(value, msgspec.msgpack.Ext) else type(value).__name__


class _Field(NamedTuple):
    form: Any
    required: bool
    whole: bool


@lru_cache(64)
def _fields(struct: type[Struct]) -> dict[str, _Field]:
    """The fields by their name on the wire."""
    return {
        field.encode_name: _Field(field.type, field.required, _wants_integer(field.type))
        for field in msgspec.structs.fields(struct)
    }


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


def _wants_integer(form: Any) -> bool:
    if get_origin(form) is Annotated:
        return _wants_integer(get_args(form)[0])
    if get_origin(form) in (Union, UnionType):
        return any(map(_wants_integer, get_args(form))) and float not in map(_plain, get_args(form))
    return form is int or any(type(argument) is int for argument in get_args(form))


def _plain(form: Any) -> Any:
    return get_args(form)[0] if get_origin(form) is Annotated else form
