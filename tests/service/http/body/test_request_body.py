"""Bodies off the wire: announced, bounded, decompressed."""

import asyncio
import gzip
import tracemalloc
from typing import Any

import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st
from litestar.datastructures import Headers

from service.http.body.request_body import deadline_seconds, read_body
from service.http.errors import BadHeader, BodyTooLarge, LengthRequired, MalformedBody, ServiceError, UnknownCoding
from service.inference.errors import ClientDisconnected

LIMIT = 10_000


def read(body: bytes, coding: str | None = None, parts: int = 1, limit: int = LIMIT, **headers: str) -> bytes:
    """What comes of a body that arrives in so many parts."""
    step = max(1, -(-len(body) // parts))
    chunks = [body[first : first + step] for first in range(0, len(body), step)] or [b""]
    messages = [{"type": "http.request", "body": one, "more_body": True} for one in chunks]
    messages[-1]["more_body"] = False
    if not headers:
        headers = {"content-length": str(len(body))}
    return receive_all(messages, {**headers, **({"content-encoding": coding} if coding is not None else {})}, limit)


def receive_all(messages: list[Any], headers: dict[str, str], limit: int = LIMIT) -> bytes:
    waiting = iter(messages)

    async def receive() -> Any:
        return next(waiting)

    return asyncio.run(read_body(Headers(headers), receive, limit))


CODERS = {"gzip": lambda body: gzip.compress(body), "zstd": lambda body: zstandard.compress(body)}


@given(body=st.binary(max_size=2000), parts=st.integers(1, 7), coding=st.sampled_from([None, "", "identity", *CODERS]))
def test_what_was_sent_arrives(body: bytes, parts: int, coding: str | None) -> None:
    sent = CODERS[coding](body) if coding in CODERS else body
    assert read(sent, coding, parts) == body
    assert read(sent, coding, parts, **{"transfer-encoding": "chunked"}) == body


@pytest.mark.parametrize("coding", CODERS)
def test_members_follow_one_another(coding: str) -> None:
    code = CODERS[coding]
    assert read(code(b"one") + code(b"") + code(b"two"), coding.upper()) == b"onetwo"


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("members", [1, 64])
def test_a_bomb_is_refused_when_it_has_grown_past_the_limit(coding: str, members: int) -> None:
    limit, grown = 1 << 20, 1 << 26
    bomb = CODERS[coding](bytes(grown // members)) * members
    tracemalloc.start()
    with pytest.raises(BodyTooLarge, match="1048576 bytes when decompressed"):
        read(bomb, coding, limit=limit)
    assert tracemalloc.get_traced_memory()[1] < 8 * limit < grown
    tracemalloc.stop()
    assert read(CODERS[coding](bytes(limit)), coding, limit=limit) == bytes(limit)


@pytest.mark.parametrize("coding", CODERS)
@given(data=st.data())
def test_what_is_no_such_coding_is_malformed(coding: str, data: st.DataObject) -> None:
    whole = CODERS[coding](b"a passenger of the third class" * 3)
    cut = data.draw(st.integers(0, len(whole) - 1))
    junk = data.draw(st.sampled_from([b"", b"junk", b"\0"]))
    assume(whole[:cut] + junk != whole)  # The last byte of gzip's length is such a zero.
    with pytest.raises(ServiceError) as raised:
        read(whole[:cut] + junk, coding)
    assert isinstance(raised.value, MalformedBody)
    with pytest.raises(MalformedBody, match=f"not {coding}"):
        read(whole + b"junk", coding)


def test_gzip_has_an_old_name() -> None:
    assert read(gzip.compress(b"{}"), "X-Gzip") == b"{}"


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, 10.0), ("500", 0.5), (" 500\t", 0.5), ("0500", 0.5), ("10001", 10.0), ("9" * 13, 10.0),
        ("9" * 10_000, 10.0), ("0" * 10_000 + "1", 0.001),
    ],
)  # fmt: skip
def test_a_client_waits_as_long_as_it_says_and_no_longer_than_the_limit(given: str | None, seconds: float) -> None:
    assert deadline_seconds(given, 10.0) == seconds


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("0", "0"),
        ("000", "000"),
        ("5 00", "5 00"),
        ("-1", "-1"),
        ("1.5", "1.5"),
        ("²", "²"),
    ],
)
def test_what_is_no_time_is_shown(given: str, shown: str) -> None:
    with pytest.raises(BadHeader, match=rf"^X-Request-Timeout-Ms is {shown}; it must be a whole number"):
        deadline_seconds(given, 10.0)


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip", "gzip;q=1", "x" * 500])
def test_other_codings_are_refused_and_ours_are_named(coding: str) -> None:
    with pytest.raises(UnknownCoding, match=r"gzip, zstd or absent") as raised:
        read(b"{}", coding)
    assert len(str(raised.value)) < 200


def test_a_length_is_needed_and_one_too_great_is_refused_unread() -> None:
    with pytest.raises(LengthRequired):
        receive_all([], {})
    with pytest.raises(BodyTooLarge, match="larger than 10000 bytes"):
        receive_all([], {"content-length": str(LIMIT + 1)})
    with pytest.raises(BodyTooLarge, match="larger than 10000 bytes"):
        read(bytes(LIMIT + 1), **{"transfer-encoding": "chunked"})


def test_a_client_that_leaves_midway() -> None:
    part = {"type": "http.request", "body": b"{", "more_body": True}
    with pytest.raises(ClientDisconnected):
        receive_all([part, {"type": "http.disconnect"}], {"content-length": "20"})
