"""Keys that an object of a body has twice, of which a decoder keeps the last alone."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Raw


def repeated_in_json(body: bytes, value: Any) -> Any:
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


def repeated_in_messagepack(body: bytes, value: Any) -> Any:
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
