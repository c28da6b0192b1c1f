"""A corpus of requests written byte by byte, to a real service: every one is answered, none with 500."""

import contextlib
import gzip
import http.client
import json
import signal
import socket
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import zstandard

from tests.deploy.programs import free_port
from tests.service.test_real import start, wait_ready

PASSENGER = {"pclass": 3, "sex": "male", "name": "Braund, Mr. Owen Harris", "age": 22.0, "sibsp": 1, "fare": 7.25}
GOOD = json.dumps(PASSENGER).encode()
PACKED = msgspec.msgpack.encode(PASSENGER)
ROUTES = ("/v1/predict", "/v1/predict/batch", "/v1/outcomes", "/v1/drift/acknowledge")
JSON, MSGPACK = b"Content-Type: application/json", b"Content-Type: application/msgpack"


class Case(NamedTuple):
    """Bytes to send, and the statuses that are right for them."""

    name: str
    sent: bytes
    statuses: frozenset[int]


def request(
    body: bytes, *headers: bytes, path: str = "/v1/predict", method: str = "POST", length: int | None = None
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", *headers]
    if not any(one.lower().startswith((b"content-length", b"transfer-encoding")) for one in headers):
        lines.append(b"Content-Length: %d" % (len(body) if length is None else length))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def case(name: str, sent: bytes, *statuses: int) -> Case:
    return Case(name, sent, frozenset(statuses))


MALFORMED = {
    "empty": b"",
    "space": b" \n\t",
    "cut": GOOD[:-1],
    "brace": b"{",
    "two values": GOOD + GOOD,
    "trailing": GOOD + b"x",
    "invalid utf-8 in a value": b'{"pclass":3,"sex":"male","name":"\xff"}',
    "invalid utf-8 in a key": b'{"\xc3\x28":1}',
    "overlong utf-8": b'{"name":"\xc0\xaf"}',
    "surrogate as utf-8": b'{"name":"\xed\xa0\x80"}',
    "utf-16": GOOD.decode().encode("utf-16"),
    "utf-32": GOOD.decode().encode("utf-32"),
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "brackets": b"[" * 100_000,
    "closed brackets": b"[" * 50_000 + b"]" * 50_000,
    "braces": b'{"a":' * 50_000,
    "NaN": b'{"pclass":3,"sex":"male","age":NaN}',
    "Infinity": b'{"pclass":3,"sex":"male","age":-Infinity}',
    "hex": b'{"pclass":0x3}',
    "leading zero": b'{"pclass":03}',
    "plus": b'{"pclass":+3}',
    "point": b'{"age":.5}',
    "bare": b"{pclass:3}",
    "single quotes": b"{'pclass':3}",
    "comma": b'{"pclass":3,}',
    "comment": b'/* */{"pclass":3}',
    "nul": GOOD + b"\0",
    "control in a string": b'{"name":"\x01"}',
    "half an escape": b'{"name":"\\u12"}',
    "bad escape": b'{"name":"\\x41"}',
    "repeated key": b'{"stream":"all","stream":"input"}',
    "repeated key, escaped": b'{"sex":"male","s\\u0065x":"male"}',
    "many keys, one of them twice": b"{" + b"".join(b'"%x":0,' % one for one in range(40_000)) + b'"0":0}',
    "python": b"None",
    "form": b"pclass=3&sex=male",
    "xml": b"<a/>",
    "many zeros": b"0" * 100_000,
    "unclosed string": b'"' + b"a" * 100_000,
}
WRONG = {
    "null": b"null",
    "true": b"true",
    "number": b"3",
    "string": b'"x"',
    "list": b"[]",
    "list of lists": b"[[]]",
    "unknown key": b'{"zzz":1}',
    "empty key": b'{"":1}',
    "key of nul": b'{"\\u0000":1}',
    "deep value": b'{"zzz":' + b"[" * 300 + b"]" * 300 + b"}",
    "long value": b'{"zzz":"' + b"a" * 100_000 + b'"}',
    "a thousand unknown keys": json.dumps({f"k{i}": i for i in range(1000)}).encode(),
    "huge integer": b'{"zzz":' + b"9" * 4000 + b"}",
    "tiny float": b'{"zzz":1e-400}',
    "1e999": b'{"pclass":3,"sex":"male","age":1e999}',
    "an integer past Python's": b'{"zzz":' + b"9" * 5000 + b"}",
    "a lone surrogate in a key": b'{"\\ud800":1}',
    "a lone surrogate": b'{"pclass":3,"sex":"\\ud800"}',
    "a lone low surrogate": b'{"zzz":["x\\udc00"]}',
}
FAULTS = {
    "huge integer": b'{"pclass":' + b"9" * 400 + b',"sex":"male"}',
    "float for int": b'{"pclass":3.0,"sex":"male"}',
    "exponent for int": b'{"pclass":3e0,"sex":"male"}',
    "string for int": b'{"pclass":"3","sex":"male"}',
    "bool for int": b'{"pclass":true,"sex":"male"}',
    "null for required": b'{"pclass":null,"sex":"male"}',
    "long name": b'{"pclass":3,"sex":"male","name":"' + b"a" * 201 + b'"}',
    "negative age": b'{"pclass":3,"sex":"male","age":-1e-300}',
    "object for string": b'{"pclass":3,"sex":{"a":"b"}}',
    "list for string": b'{"pclass":3,"sex":["male"]}',
    "missing all": b"{}",
}
ODD_BUT_RIGHT = {
    "null byte in the name": b'{"pclass":3,"sex":"male","name":"a\\u0000b"}',
    "emoji": '{"pclass":3,"sex":"male","name":"🚢🚢"}'.encode(),
    "escaped keys": b'{"p\\u0063lass":3,"sex":"male"}',
    "minus zero": b'{"pclass":3,"sex":"male","age":-0.0}',
    "subnormal": b'{"pclass":3,"sex":"male","age":5e-324}',
    "integer age": b'{"pclass":3,"sex":"male","age":120}',
    "white space": b'\r\n\t {"pclass" : 3 ,\n"sex":"male" } \n',
    "right to left": '{"pclass":3,"sex":"male","name":"שלום"}'.encode(),
    "combining": ('{"pclass":3,"sex":"male","name":"' + "e" + "\u0301" * 150 + '"}').encode(),
}
PACKED_MALFORMED = {
    "empty": b"",
    "reserved": b"\xc1",
    "cut": PACKED[:-1],
    "trailing": PACKED + b"\0",
    "json": GOOD,
    "nested": b"\x91" * 100_000,
    "nested maps": b"\x81\xa1a" * 50_000,
    "a map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "a list of 4 billion": b"\xdd\xff\xff\xff\xff",
    "a string of 4 GB": b"\xdb\xff\xff\xff\xff",
    "bytes of 4 GB": b"\xc6\xff\xff\xff\xff",
    "invalid utf-8": b"\x81\xa3sex\xa1\xff",
    "repeated key": b"\x82\xa3sex\x01\xa3sex\x02",
}
PACKED_WRONG = {
    "nil": b"\xc0",
    "integer keys": msgspec.msgpack.encode({1: 2}),
    "nan": msgspec.msgpack.encode({**PASSENGER, "age": float("nan")}),
    "infinity": msgspec.msgpack.encode({**PASSENGER, "fare": float("inf")}),
    "bytes": msgspec.msgpack.encode({**PASSENGER, "sex": b"male"}),
    "an extension": b"\x81\xa3sex\xd4\x05\x00",
    "a time": b"\x81\xa3sex\xd6\xff\x00\x00\x00\x00",
    "float32": b"\x81\xa6pclass\xca\x40\x40\x00\x00",
    "bytes as key": b"\x81\xc4\x01a\x01",
    "nil as key": b"\x81\xc0\x01",
    "a list as key": b"\x81\x91\x01\x01",
    "false": b"\xc2",
}
TYPES = [
    b"",
    b"text/plain",
    b"application/x-www-form-urlencoded",
    b"multipart/form-data; boundary=x",
    b"application/xml",
    b"application/json; charset=latin-1",
    b"application/json;;",
    b"application/jsonx",
    b"json",
    b"/",
    b";",
    b"application/json, text/plain",
    b"\xff\xfe",
    b"application/" + b"x" * 5000,
]
ACCEPTS = {
    b"text/html": 406,
    b"*/*;q=0": 406,
    b"application/json;q=0, application/*;q=0": 406,
    b"\xff": 406,
    b"x" * 5000: 406,
    b";q=1": 200,
    b",,,": 200,
    b"*/*;q=0.001": 200,
    b"application/json;q=abc": 406,
    b"text/*, application/msgpack": 200,
    b"*/*" + b",*/*" * 1000: 200,
}
CODINGS = {
    "gzip": gzip.compress(GOOD),
    "zstd": zstandard.compress(GOOD),
    "GZIP": gzip.compress(GOOD, 9),
    "identity": GOOD,
    "": GOOD,
}
BAD_CODINGS = {
    "gzip of nothing": ("gzip", b"", {400}),
    "gzip cut": ("gzip", gzip.compress(GOOD)[:-3], {400}),
    "not gzip": ("gzip", GOOD, {400}),
    "gzip and junk": ("gzip", gzip.compress(GOOD) + b"junk", {400}),
    "zstd cut": ("zstd", zstandard.compress(GOOD)[:-2], {400}),
    "not zstd": ("zstd", GOOD, {400}),
    "zstd of nothing": ("zstd", b"", {400}),
    "zstd for gzip": ("gzip", zstandard.compress(GOOD), {400}),
    "a gzip bomb": ("gzip", gzip.compress(bytes(1 << 27)), {413}),
    "a zstd bomb": ("zstd", zstandard.compress(bytes(1 << 29)), {413}),
    "gzip twice": ("gzip, gzip", gzip.compress(gzip.compress(GOOD)), {415}),
    "br": ("br", GOOD, {415}),
    "x": ("x" * 3000, GOOD, {415}),
    "gzip of malformed": ("gzip", gzip.compress(b"{"), {400}),
    "deflate": ("deflate", GOOD, {415}),
    "wrong checksum": ("gzip", gzip.compress(GOOD)[:-8] + bytes(8), {400}),
}
HEADERS = {
    "unicode request id": b"X-Request-ID: \xc3\xa9\xff",
    "long request id": b"X-Request-ID: " + b"a" * 6000,
    "traceparent": b"traceparent: \xff-\x80",
    "many": b"\r\n".join(b"X-%d: y" % i for i in range(90)),
    "host twice": b"Host: other",
    "expect": b"Expect: 100-continue",
    "upgrade": b"Upgrade: h2c",
    "cookie": b"Cookie: " + b"a=b; " * 500,
    "range": b"Range: bytes=0-1",
    "if-match": b'If-Match: "x"',
    "if-none-match": b"If-None-Match: *",
    "forwarded": b"X-Forwarded-For: 1.2.3.4",
    "origin": b"Origin: null",
    "method": b"X-HTTP-Method-Override: DELETE",
    "te": b"TE: trailers",
    "accept-encoding": b"Accept-Encoding: \xff;q=\xff, zstd;q=-1",
}
PATHS = {
    "/": {200, 404},
    "//": {200, 404},
    "/v1": {404},
    "/v1/": {404},
    "/v1/predict/": {405},
    "/V1/predict": {404},
    "/v1/predict%00": {404},
    "/v1/predict/../model": {404},
    "/%2e%2e/%2e%2e/etc/passwd": {404},
    "/v1/predict%2fbatch": {404, 405},
    "/v1/predict?x=%ff": {405},
    "/v1/model?" + "a" * 5000: {200},
    "/" + "a" * 20_000: {404},
    "/é": {400, 404},
    "/v1/model;x": {404},
    "/v1/{x}": {404},
    "/%": {404},
    "/%zz": {404},
    "/schema": {200, 301, 302, 307, 404},
    "/metrics/": {200},
    "/health": {404},
    "http://localhost/v1/model": {200, 404},
    "/*": {404},
    "/v1/model#x": {200, 404},
}
METHODS = ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "OPTIONS", "HEAD", "GET"]


def corpus() -> Iterator[Case]:
    """All cases."""
    for (name, body), path in product(MALFORMED.items(), ROUTES):
        yield case(f"malformed: {name} to {path}", request(body, JSON, path=path), 400)
    for (name, body), path in product(WRONG.items(), ROUTES):
        yield case(f"wrong: {name} to {path}", request(body, JSON, path=path), 422)
    for name, body in FAULTS.items():
        yield case(f"fault: {name}", request(body, JSON), 422)
        batch = b'{"rows":[' + GOOD + b"," + body + b"]}"
        yield case(f"fault in a batch: {name}", request(batch, JSON, path="/v1/predict/batch"), 422)
    for name, body in ODD_BUT_RIGHT.items():
        yield case(f"odd: {name}", request(body, JSON), 200)
    for (name, body), path in product(PACKED_MALFORMED.items(), ROUTES[:2]):
        yield case(f"packed malformed: {name} to {path}", request(body, MSGPACK, path=path), 400)
    for name, body in PACKED_WRONG.items():
        yield case(f"packed wrong: {name}", request(body, MSGPACK), *((400, 422) if "as key" in name else (422,)))
    for kind in TYPES:
        yield case(f"type {kind[:30]!r}", request(GOOD, b"Content-Type: " + kind), 415)
    for accept, status in ACCEPTS.items():
        yield case(f"accept {accept[:30]!r}", request(GOOD, JSON, b"Accept: " + accept), status)
    for coding, body in CODINGS.items():
        yield case(f"coding {coding}", request(body, JSON, b"Content-Encoding: " + coding.encode()), 200)
    for name, (coding, body, statuses) in BAD_CODINGS.items():
        yield case(name, request(body, JSON, b"Content-Encoding: " + coding.encode()), *statuses)
    for name, header in HEADERS.items():
        yield case(f"header: {name}", request(GOOD, JSON, header), 200, 400)
    for path, expected in PATHS.items():
        yield case(
            f"path {path[:30]!r}", request(b"", path=path, method="GET").replace("é".encode(), b"\xe9"), *expected
        )
    for method, path in product(METHODS, ("/v1/predict", "/v1/model", "/metrics", "/health/live", "/nowhere")):
        yield case(f"{method} {path}", request(b"", path=path, method=method), 200, 204, 404, 405)
    yield from framing()


def framing() -> Iterator[Case]:
    """Lengths, chunks and request lines."""
    bare = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n" + JSON + b"\r\n"
    chunked = bare + b"Transfer-Encoding: chunked\r\n\r\n"
    yield case("no length", bare + b"\r\n", 411)
    yield case("a length of 0", bare + b"Content-Length: 0\r\n\r\n", 400)
    yield case("a length past the limit, nothing sent", bare + b"Content-Length: 1048577\r\n\r\n", 413)
    yield case("an enormous length, nothing sent", bare + b"Content-Length: 99999999999999\r\n\r\n", 413)
    yield case("a length past 64 bits", bare + b"Content-Length: 99999999999999999999999\r\n\r\n", 400, 413)
    yield case(
        "expect and a length past the limit", bare + b"Expect: 100-continue\r\nContent-Length: 1048577\r\n\r\n", 413
    )
    yield case("a negative length", bare + b"Content-Length: -1\r\n\r\n", 400)
    yield case("a length that is no number", bare + b"Content-Length: x\r\n\r\n", 400)
    yield case("two lengths", bare + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400)
    yield case("chunks", chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD), 200)
    yield case("chunks of a byte", chunked + b"".join(b"1\r\n%c\r\n" % one for one in GOOD) + b"0\r\n\r\n", 200)
    yield case("no chunk", chunked + b"0\r\n\r\n", 400)
    yield case("chunks past the limit", chunked + (b"10000\r\n" + bytes(1 << 16) + b"\r\n") * 17 + b"0\r\n\r\n", 413)
    yield case("a chunk of no size", chunked + b"zz\r\n{}\r\n0\r\n\r\n", 400)
    yield case("a chunk with trailers", chunked + b"%x\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(GOOD), GOOD), 200, 400)
    yield case("length and chunks", bare + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)
    yield case("an unknown transfer coding", bare + b"Transfer-Encoding: gzip\r\n\r\n", 400, 411, 501)
    yield case(
        "HTTP/1.0", b"POST /v1/predict HTTP/1.0\r\n" + JSON + b"\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD, 200
    )
    yield case("another's host name", b"GET /v1/model HTTP/1.1\r\nHost: x\r\n\r\n", 421)
    yield case("no host", b"GET /health/live HTTP/1.1\r\n\r\n", 200, 400)
    yield case("HTTP/9.9", b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400, 404, 200)
    yield case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 404)
    yield case("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400)
    yield case("nonsense", b"\xff\xfe\xfd\r\n\r\n", 400)
    yield case("line feeds alone", b"GET /health/live HTTP/1.1\nHost: localhost\n\n", 200, 400)
    yield case("a header without a colon", b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nbad\r\n\r\n", 400)
    yield case("a header folded", b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n", 200, 400)
    yield case("nul in a header", b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nA: b\0c\r\n\r\n", 400)
    yield case("an unknown method", b"FOO /v1/model HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, 405)
    yield case("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, 204, 400, 404)


def answer(port: int, sent: bytes, timeout: float = 30) -> tuple[int, http.client.HTTPMessage, bytes]:
    """The whole response to bytes; raises if the connection ends or stalls without one."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(sent)  # It may be refused before all is sent, and is answered all the same.
        method = sent.split(b" ", 1)[0].decode("latin-1")
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        return response.status, response.headers, response.read()


@pytest.fixture(scope="module")
def port(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port, store = free_port(), tmp_path_factory.mktemp("store") / "predictions.sqlite"
    process = start(
        "--bundle", bundle_folder, "--port", port, "--grace-seconds", 0, "--store", store, "--log-requests", "none"
    )
    wait_ready(f"http://127.0.0.1:{port}", process)
    yield port
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert "unexpected" not in stderr


def fault(port: int, one: Case) -> str:
    """What is wrong with the answer to a case; empty if nothing."""
    try:
        status, headers, body = answer(port, one.sent)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error!r}"
    if status not in one.statuses:
        return f"{status} {body[:200]!r}"
    ours = "X-Request-ID" in headers  # What is not HTTP at all, uvicorn refuses before it reaches the application.
    if ours and status >= 400 and not one.sent.startswith(b"HEAD"):
        if headers["Content-Type"] != "application/problem+json":
            return f"{status} is no problem: {headers['Content-Type']}"
        problem = json.loads(body)
        if problem["status"] != status or not problem["detail"] or len(body) > 1 << 16:
            return f"a bad problem: {body[:200]!r}"
    return ""


CORPUS = list(corpus())


def test_every_case_is_answered_and_rightly(port: int) -> None:
    assert len(CORPUS) >= 300
    assert len({one.name for one in CORPUS}) == len(CORPUS)
    faults = {one.name: found for one in CORPUS if (found := fault(port, one))}
    assert not faults, json.dumps(faults, indent=1)
    assert answer(port, request(GOOD, JSON))[0] == 200


def test_a_connection_goes_on_after_every_refusal(port: int) -> None:
    """Several requests one after the other on one connection: a refusal leaves nothing behind in it."""
    refused = [
        one
        for one in CORPUS
        if one.statuses <= {400, 406, 415, 422} and one.name.startswith(("malf", "wrong", "acc", "type"))
    ]
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        for one in refused[::5]:
            for sent, statuses in ((one.sent, one.statuses), (request(GOOD, JSON), {200})):
                connection.sendall(sent)
                response = http.client.HTTPResponse(connection)
                response.begin()
                assert response.status in statuses, one.name
                response.read()


def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    sent = (
        request(GOOD, JSON, b"X-Request-ID: 1")
        + request(b"{", JSON, b"X-Request-ID: 2")
        + request(GOOD, JSON, b"X-Request-ID: 3")
    )
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(sent)
        file = connection.makefile("rb")
        found = []
        for _ in range(3):
            status = int(file.readline().split()[1])
            headers = http.client.parse_headers(file)
            file.read(int(headers["Content-Length"]))
            found.append((status, headers["X-Request-ID"]))
    assert found == [(200, "1"), (400, "2"), (200, "3")]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_clients_that_leave_midway_disturb_nobody(port: int, share: float) -> None:
    whole = request(GOOD, JSON)
    for how in (socket.SHUT_WR, socket.SHUT_RDWR):
        with socket.create_connection(("127.0.0.1", port), 30) as connection:
            connection.sendall(whole[: int(len(whole) * share)])
            connection.shutdown(how)
    assert answer(port, whole)[0] == 200
