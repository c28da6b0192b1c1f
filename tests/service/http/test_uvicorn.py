"""uvicorn's internals that service/http/connections.py and server.py build on, each by its name and signature."""

import asyncio
import inspect
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.http.connections import Connection
from service.http.server import Server

CALLBACKS = {
    "connection_made": ["transport"], "connection_lost": ["exc"], "data_received": ["data"], "on_message_begin": [],
    "on_headers_complete": [], "on_body": ["body"], "on_message_complete": [], "on_response_complete": [],
    "send_400_response": ["msg"], "resume_writing": [], "shutdown": [],
}  # fmt: skip
SERVER_METHODS = {
    "on_tick": ["counter"], "shutdown": ["sockets"], "handle_exit": ["sig", "frame"], "capture_signals": [],
}  # fmt: skip


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)[1:]


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_connection_has_the_callbacks_that_ours_extends(name: str) -> None:
    assert parameters(getattr(HttpToolsProtocol, name)) == CALLBACKS[name]


@pytest.mark.parametrize("name", SERVER_METHODS)
def test_a_server_has_the_methods_that_ours_extends(name: str) -> None:
    assert parameters(getattr(uvicorn.Server, name)) == SERVER_METHODS[name]


def test_nothing_else_is_overridden() -> None:
    for ours, theirs, known in ((Connection, HttpToolsProtocol, CALLBACKS), (Server, uvicorn.Server, SERVER_METHODS)):
        assert {name for name in vars(ours) if name in vars(theirs) and not name.startswith("__")} <= set(known)


def test_a_connection_has_the_state_that_ours_reads() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None: ...

    async def made() -> HttpToolsProtocol:
        return HttpToolsProtocol(config=uvicorn.Config(application), server_state=ServerState(), app_state={})

    connection = asyncio.run(made())
    state = {
        "app", "connections", "cycle", "expect_100_continue", "flow", "loop", "parser", "pipeline", "scope",
        "server_state", "transport",
    }  # fmt: skip
    assert state <= set(vars(connection))
    assert connection.connections is connection.server_state.connections
    assert isinstance(connection.server_state.default_headers, list)
    for name in ("get_method", "should_upgrade", "should_keep_alive"):
        assert callable(getattr(connection.parser, name))
    connection.on_message_begin()
    connection.on_url(b"/v1/predict?trial=true")
    assert connection.url == b"/v1/predict?trial=true"
    assert connection.scope["headers"] == []


def test_a_cycle_has_the_state_that_ours_reads_and_sets() -> None:
    arguments = dict.fromkeys(parameters(RequestResponseCycle.__init__))
    cycle = RequestResponseCycle(**arguments)  # type: ignore[arg-type]
    assert {"disconnected", "keep_alive", "response_complete"} <= set(vars(cycle))


def test_status_lines_are_bytes_by_status() -> None:
    assert STATUS_LINE[429] == b"HTTP/1.1 429 Too Many Requests\r\n"


def test_a_server_knows_its_sockets_and_its_state() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None: ...

    server = uvicorn.Server(uvicorn.Config(application))
    assert (server.should_exit, server.started) == (False, False)
    assert server.server_state.connections == set()
    server.config.load()
    assert {"http_protocol_class", "ssl"} <= set(vars(server.config))
    assert server.config.lifespan_class(server.config).state == {}
