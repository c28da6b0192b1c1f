"""Requests that are changed at random and delivered in every manner: none gets a 5xx, and the service stays as it was.

The corpus of `test_raw_bytes` is where they begin; EVENKEEL_TEST_FUZZ says how many there are.
"""

import asyncio
import os
import random
import re
import socket
import struct
from collections import Counter
from pathlib import Path

import pytest

from models.bundle.read import Bundle
from service.http.body.request_body import MIN_BYTES_PER_SECOND
from tests.service.http.test_raw_bytes import CORPUS, GOOD, JSON, request
from tests.service.processes import Service

CASES = int(os.environ.get("EVENKEEL_TEST_FUZZ", "300"))
SEED = int(os.environ.get("EVENKEEL_TEST_SEED", "0"))
AT_ONCE = 24
LONG = 20_000
"""Bytes; longer requests of the corpus are taken more rarely."""

TOKENS = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\0", b"\xff", b"%", b"%00", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\u0000",
    b"null", b"-1", b"1e999", b"NaN", b"9" * 400, b"HTTP/1.1", b"HTTP/1.0", b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
    b"Content-Encoding: zstd\r\n", b"Accept: application/msgpack\r\n", b"X-Request-Timeout-Ms: 1\r\n", b"0\r\n\r\n",
    b'{"rows":', b'"pclass":3,"sex":"male"', b"\xf0\x9f\x9a\xa2", b"\xc1", b"\x28\xb5\x2f\xfd", b"\x1f\x8b",
)  # fmt: skip
LAST = request(b"", b"Connection: close", path="/health/live", method="GET")
MANNERS = ("whole", "pieces", "bytes", "pipelined", "truncated", "half-closed", "reset")


def mutated(rng: random.Random) -> bytes:
    """A request of the corpus with up to six changes, or none; its length is put right afterwards or not."""
    sent = rng.choice(CORPUS).sent
    if len(sent) > LONG and rng.random() < 0.9:
        sent = request(GOOD, JSON, path=rng.choice(("/v1/predict", "/v1/outcomes", "/v1/explain", "/v1/predict/batch")))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 6))):
        sent = changed(sent, rng)
    head, end, body = sent.partition(b"\r\n\r\n")
    if rng.random() < 0.6:
        head = re.sub(rb"(?i)(content-length: )\d+", rb"\g<1>%d" % len(body), head)
    return head + end + body


def changed(sent: bytes, rng: random.Random) -> bytes:
    # Half of the changes in the body, where there is one: it is what the service itself reads.
    body = sent.find(b"\r\n\r\n") + 4
    start = rng.randrange(body if 3 < body < len(sent) and rng.random() < 0.5 else 0, len(sent) + 1)
    stop = min(len(sent), start + rng.choice((0, 1, 1, 2, 8, 50)))
    kind = rng.randrange(6)
    if kind == 0:
        return sent[:start] + rng.randbytes(stop - start) + sent[stop:]
    if kind == 1:
        return sent[:start] + sent[stop:]
    if kind == 2:
        return sent[:stop] + sent[start:stop] * rng.choice((1, 2, 100)) + sent[stop:]
    if kind == 3:
        other = rng.choice(CORPUS).sent[:LONG]
        return sent[:start] + other[rng.randrange(len(other)) :]
    return sent[:start] + rng.choice(TOKENS) + sent[stop:]


async def deliver(port: int, rng: random.Random) -> tuple[str, bytes]:
    """How a request was delivered, and all that came back until the service closed; "reset" also where it did so
    before all was sent."""
    manner = rng.choice(MANNERS)
    sent = mutated(rng)
    if manner == "pipelined":
        sent = b"".join([sent, *(mutated(rng) for _ in range(rng.randrange(1, 4)))])
    if manner in ("truncated", "half-closed", "reset"):
        sent = sent[: rng.randrange(len(sent) + 1)]
    else:
        sent += LAST
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = bytearray()
    reading = asyncio.create_task(collect(reader, found))
    try:
        for piece in pieces(sent, manner, rng):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if manner == "half-closed":
            writer.write_eof()
        if manner == "reset":
            held = writer.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
        # As long as a service has patience that waits for the rest of what it was sent.
        await asyncio.wait_for(reading, 30 + len(sent) / MIN_BYTES_PER_SECOND)
        return manner, bytes(found)
    except (ConnectionResetError, BrokenPipeError):
        return "reset", bytes(found)
    finally:
        reading.cancel()
        writer.close()
        await asyncio.gather(reading, writer.wait_closed(), return_exceptions=True)


async def collect(reader: asyncio.StreamReader, found: bytearray) -> None:
    while piece := await reader.read(1 << 16):
        found += piece


def pieces(sent: bytes, manner: str, rng: random.Random) -> list[bytes]:
    if manner == "bytes":
        # The end byte by byte: most of what there is to read.
        return [sent[:-300], *(sent[place : place + 1] for place in range(max(0, len(sent) - 300), len(sent)))]
    if manner == "pieces":
        cuts = sorted(rng.randrange(len(sent)) for _ in range(rng.randrange(1, 8)))
        return [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    return [sent]


async def fuzz(port: int) -> tuple[Counter[str], list[str]]:
    """Deliver all cases: the statuses seen, and what was wrong."""
    rng, free = random.Random(SEED), asyncio.Semaphore(AT_ONCE)
    seen: Counter[str] = Counter()
    wrong: list[str] = []

    async def one(seed: int) -> None:
        async with free:
            try:
                manner, answer = await deliver(port, random.Random(seed))
            except (OSError, TimeoutError) as error:
                wrong.append(f"seed {seed}: {error!r}")
                return
        statuses = [found.decode() for found in re.findall(rb"HTTP/1\.1 (\d\d\d) [A-Z]", answer)]
        seen.update(statuses or [f"nothing ({manner})"])
        if any(status >= "500" for status in statuses):
            wrong.append(f"seed {seed}, {manner}: {answer[:500]!r}")
        if not statuses and manner in ("whole", "pieces", "bytes", "pipelined"):
            # All of these end with a right request: at least something must be said.
            wrong.append(f"seed {seed}, {manner}: no answer")

    await asyncio.gather(*(one(rng.getrandbits(64)) for _ in range(CASES)))
    return seen, wrong


@pytest.mark.slow
def test_whatever_is_sent_gets_no_5xx_and_leaves_nothing_behind(tiny_bundle: Bundle, tmp_path: Path) -> None:
    store = tmp_path / "predictions.sqlite"
    with Service(tiny_bundle.folder, tmp_path, store=store, read_seconds=1, idle_seconds=5) as service:
        assert service.post("/v1/predict", {"pclass": 3, "sex": "male"})[0] == 200
        service.until(lambda: service.value("store_written_total") == 1)
        before = service.descriptors()
        seen, wrong = asyncio.run(fuzz(service.port))
        print(f"{CASES} fuzzed requests, seed {SEED}: {dict(sorted(seen.items()))}")
        assert wrong == []
        assert service.value("http_requests_total", status="500") == 0
        assert service.get("/health/ready")[0] == 200
        assert service.post("/v1/predict", {"pclass": 3, "sex": "male"})[0] == 200
        service.until(lambda: service.descriptors() <= before)
