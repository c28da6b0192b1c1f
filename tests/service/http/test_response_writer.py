"""A head and what follows it are one write; what has nothing to follow it is written at once."""

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.http.response_writer import ResponseWriter

HEAD = b"HTTP/1.1 200 OK\r\n"


class Transport:
    """Keeps what is written to it."""

    def __init__(self) -> None:
        self.writes, self.closed = list[bytes](), False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed


def answered(*messages: Any, method: str = "GET", expects_continue: bool = False, keep_alive: bool = True) -> Transport:
    """The transport after uvicorn's own cycle has sent these messages; with ``expects_continue`` the body is read."""
    transport: Any = Transport()

    async def send() -> None:
        cycle = RequestResponseCycle(
            scope={"type": "http", "method": method},  # type: ignore[typeddict-item]
            transport=transport, flow=FlowControl(transport), logger=logging.getLogger(),
            access_logger=logging.getLogger(), access_log=False, default_headers=[], message_event=asyncio.Event(),
            expect_100_continue=expects_continue, keep_alive=keep_alive, on_response=lambda: None,
        )  # fmt: skip
        cycle.transport = ResponseWriter(cycle)  # type: ignore[assignment]
        if expects_continue:
            cycle.message_event.set()
            await cycle.receive()
        for message in messages:
            await cycle.send(message)

    asyncio.run(send())
    return transport  # type: ignore[no-any-return]


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Any:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(content: bytes, more: bool = False) -> Any:
    return {"type": "http.response.body", "body": content, "more_body": more}


def test_head_and_body_are_one_write() -> None:
    transport = answered(start((b"content-length", b"2")), body(b"ab"))
    assert transport.writes == [HEAD + b"content-length: 2\r\n\r\nab"]


def test_what_a_stream_says_is_written_when_it_is_said() -> None:
    transport = answered(start(), body(b"", more=True), body(b"ab", more=True), body(b""))
    head, *chunks = transport.writes
    assert head == HEAD + b"transfer-encoding: chunked\r\n\r\n"
    assert chunks == [b"2\r\nab\r\n", b"0\r\n\r\n"]


def test_the_answer_to_head_does_not_wait_for_a_body() -> None:
    transport = answered(start((b"content-length", b"2")), body(b""), method="HEAD")
    assert transport.writes == [HEAD + b"content-length: 2\r\n\r\n"]


def test_a_response_without_a_body_is_written() -> None:
    assert b"".join(answered(start(status=304), body(b"")).writes).startswith(b"HTTP/1.1 304 ")


def test_an_interim_response_is_not_held() -> None:
    transport = answered(start((b"content-length", b"2")), body(b"ab"), expects_continue=True)
    assert [one.split(b"\r\n")[0] for one in transport.writes] == [b"HTTP/1.1 100 Continue", b"HTTP/1.1 200 OK"]


def test_a_head_is_written_before_the_connection_closes() -> None:
    transport = answered(start((b"content-length", b"2")))
    assert transport.writes == []
    closing = answered(start((b"content-length", b"0")), body(b""), keep_alive=False)
    assert closing.closed
    assert closing.writes == [HEAD + b"content-length: 0\r\nconnection: close\r\n\r\n"]
    held: Any = Transport()

    class Cycle:
        scope, response_started, transport = {"method": "GET"}, True, held

    writer = ResponseWriter(Cycle())  # type: ignore[arg-type]
    writer.write(b"head")
    writer.close()
    assert (held.writes, held.closed) == ([b"head"], True)
