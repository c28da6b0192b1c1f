"""The end of a connection whose client is still sending: it reads the answer before it meets a reset.

A socket that is closed with bytes unread, or that gets more of them, answers with a reset, and the client's system
then throws away what it has not read yet, our answer with it. So a close comes in stages (RFC 9112, section 9.6):
nothing more is written, what still comes is read and dropped, and only then the socket closes.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

QUIET_SECONDS = 2.0
"""Without a byte from the client, after which it is believed to have had enough."""

MAX_DROPPED_BYTES = 256 << 20
"""Read of one request's body and dropped, because it is answered already; past it the connection is reset."""


class LingeringTransport:
    """A connection's transport, whose `close` lingers while ``unfinished`` says that the client still sends.

    It ends when the client closes its side, says nothing for `QUIET_SECONDS`, has been listened to for
    ``linger_seconds`` or sends more than `MAX_DROPPED_BYTES`.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, linger_seconds: float,
        unfinished: Callable[[], bool],
    ):  # fmt: skip
        self._transport, self._loop, self._unfinished = transport, loop, unfinished
        self._linger_seconds = linger_seconds
        self._dropped_bytes = 0
        self.lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more may be written."""
        return self.lingers or self._transport.is_closing()

    def close(self) -> None:
        """Close once all is written, and once the client has ended if it is still sending."""
        if self.is_closing():
            return
        if self._unfinished():
            self.linger()
        else:
            self._transport.close()

    def linger(self) -> None:
        """Write nothing more, and drop what comes until the client or our patience ends."""
        self.lingers, self._last_byte = True, time.monotonic()
        self._give_up_at = self._last_byte + self._linger_seconds
        if self._transport.can_write_eof():  # Not over TLS.
            self._transport.write_eof()
        self._transport.resume_reading()
        self._loop.call_later(min(QUIET_SECONDS, self._linger_seconds), self._end_if_quiet)

    def dropped(self, size: int) -> None:
        """So many bytes came that nobody will read."""
        self._last_byte = time.monotonic()
        self._dropped_bytes += size
        if self._dropped_bytes > MAX_DROPPED_BYTES:
            self._transport.abort()

    def begin_request(self) -> None:
        """What was dropped before belongs to another request."""
        self._dropped_bytes = 0

    def _end_if_quiet(self) -> None:
        now = time.monotonic()
        ends = min(self._last_byte + QUIET_SECONDS, self._give_up_at)
        if self._transport.is_closing():
            return
        if now < ends:
            self._loop.call_later(ends - now, self._end_if_quiet)
        else:
            self._transport.close()
