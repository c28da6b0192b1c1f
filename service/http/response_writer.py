"""A response's head in one packet with the beginning of its body.

uvicorn writes the head by itself, and a system call that sends is a tenth of what a small answer costs.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class ResponseWriter:
    """The transport of one response: the head waits for the next write, which `service.http.response.Responder` makes
    in the same step of the event loop, of a stream with nothing in it."""

    def __init__(self, cycle: RequestResponseCycle):
        self._cycle, self._transport = cycle, cycle.transport
        self._head: bytes | None = None
        self._head_is_written = cycle.scope["method"] == "HEAD"  # To which there is no second write.

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it with the head, if it is not the head."""
        if self._head is not None:
            data, self._head = self._head + data, None
        elif not self._head_is_written and self._cycle.response_started:  # Otherwise it is a 100 (Continue).
            self._head, self._head_is_written = data, True
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close once all is written."""
        if self._head is not None:
            self.write(b"")
        self._transport.close()
