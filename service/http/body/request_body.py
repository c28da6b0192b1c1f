"""A request's body off the wire: its announced length, its size, its content coding."""

import asyncio
import io
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import zstandard
from litestar.types import Receive

from service.http.errors import (
    SHOWN_CHARACTERS,
    BadHeader,
    BodyTooLarge,
    BodyTooSlow,
    LengthRequired,
    MalformedBody,
    UnknownCoding,
)
from service.http.negotiation import ALIASES
from service.inference.errors import ClientDisconnected

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
MAX_TIMEOUT_DIGITS = 18
MIN_BYTES_PER_SECOND = 1 << 12
"""Of a body, and of an answer that is read, once the seconds that every one has are over."""


def deadline_seconds(given: str | None, limit: float) -> float:
    """How long a client waits by its ``X-Request-Timeout-Ms``: at most ``limit``, which is the default.

    Raises BadHeader for anything but a whole number of milliseconds from 1.
    """
    if given is None:
        return limit
    text = given.strip(" \t")
    if not (text.isascii() and text.isdigit() and text.strip("0")):
        shown = given[:SHOWN_CHARACTERS] if text else "empty"
        raise BadHeader(f"{TIMEOUT_HEADER} is {shown}; it must be a whole number of milliseconds from 1")
    digits = text.lstrip("0")
    # Nobody waits a million years; and Python makes no number of thousands of digits.
    return limit if len(digits) > MAX_TIMEOUT_DIGITS else min(limit, int(digits) / 1e3)


async def read_body(headers: Mapping[str, str], receive: Receive, limit: int, read_seconds: float = 20.0) -> bytes:
    """The body, decompressed; neither what is sent nor what comes of it is longer than ``limit`` bytes.

    It has ``read_seconds`` and what `MIN_BYTES_PER_SECOND` allows its bytes. Raises LengthRequired without
    Content-Length and chunks, UnknownCoding, BodyTooLarge (before anything is read if the length is announced),
    BodyTooSlow, MalformedBody for bytes that are not what Content-Encoding says, and ClientDisconnected.
    """
    announced = headers.get("content-length")
    if announced is None and headers.get("transfer-encoding") is None:
        raise LengthRequired
    decompress = _decompressor(headers.get("content-encoding") or "")
    if announced is not None and int(announced) > limit:
        raise BodyTooLarge(limit)
    chunks: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(read_seconds) as timeout:
            while more:
                message: Any = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise BodyTooLarge(limit)
                chunks.append(chunk)
                more = message.get("more_body", False)
                if more:
                    timeout.reschedule((timeout.when() or 0) + len(chunk) / MIN_BYTES_PER_SECOND)
    except TimeoutError:
        raise BodyTooSlow(size) from None
    return decompress(b"".join(chunks), limit)


def _decompressor(codings: str) -> Callable[[bytes, int], bytes]:
    names = (part.strip().lower() for part in codings.split(","))
    named = [ALIASES.get(name, name) for name in names if name not in ("", "identity")]
    if not named:
        return lambda body, _: body
    if len(named) > 1 or named[0] not in DECOMPRESS:
        shown = codings[:SHOWN_CHARACTERS]
        raise UnknownCoding(f"Content-Encoding is {shown}; it must be {', '.join(DECOMPRESS)} or absent")
    return DECOMPRESS[named[0]]


def _gunzip(body: bytes, limit: int) -> bytes:
    """Members one after the other (RFC 1952, section 2.2), never more than a byte past ``limit``."""
    members: list[bytes] = []
    rest, size = body, 0
    while rest or not members:
        member = zlib.decompressobj(wbits=31)
        try:
            members.append(member.decompress(rest, limit + 1 - size))
        except zlib.error as error:
            raise MalformedBody(f"the body is not gzip: {error}") from error
        size += len(members[-1])
        if size > limit:
            raise BodyTooLarge(limit, decompressed=True)
        if not member.eof:
            raise MalformedBody("the body is not gzip: it ends too early")
        rest = member.unused_data
    return b"".join(members)


def _unzstd(body: bytes, limit: int) -> bytes:
    """Frames one after the other (RFC 8878), never more than a byte past ``limit``."""
    # 8 MiB of window is what a decoder must take (section 3.1.1.1.2); a frame that asks for more is refused.
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 23)
    try:
        with decompressor.stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
            if len(reader.read(limit + 1)) > limit:
                raise BodyTooLarge(limit, decompressed=True)
        # The reader takes a frame that ends too early for whole. These do not, but know no bound, and need none now.
        frames: list[bytes] = []
        rest = body
        while rest or not frames:
            frame = decompressor.decompressobj()
            frames.append(frame.decompress(rest))
            if not frame.eof:
                raise MalformedBody("the body is not zstd: it ends too early")
            rest = frame.unused_data
    except zstandard.ZstdError as error:
        raise MalformedBody(f"the body is not zstd: {error}") from error
    return b"".join(frames)


DECOMPRESS: dict[str, Callable[[bytes, int], bytes]] = {"gzip": _gunzip, "zstd": _unzstd}
