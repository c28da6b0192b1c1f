"""Connections that take room and no time: idle ones, and some that send a byte a second of a head or of a body.

python -m benchmarks.harness.slow_connections PORT IDLE SLOW, in a process of its own, until it is killed. What
the server ends is opened again. A line on standard output tells when all are open.
"""

import asyncio
import contextlib
import resource
import subprocess
import sys
from typing import Self

from benchmarks.harness.http_client import on_the_loop, request
from benchmarks.harness.machine import ROOT, child_variables, die_with_parent
from benchmarks.harness.process import Unavailable
from benchmarks.harness.texts import body, one_per_text

BYTE_SECONDS = 1.0
OPENED_AT_ONCE = 50


class SlowConnections:
    """The connections as a context manager, all of them open from the start."""

    def __init__(self, port: int, idle: int, slow: int):
        self._command = [sys.executable, "-m", "benchmarks.harness.slow_connections", str(port), str(idle), str(slow)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, cwd=ROOT, env=child_variables(), preexec_fn=die_with_parent
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            self.__exit__()
            raise Unavailable("the idle and slow connections could not be opened")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


async def hold_open(port: int, idle: int, slow: int) -> None:
    whole = request(port, "/v1/predict", body(one_per_text()[0]))
    head = whole.index(b"\r\n\r\n") + 4
    opening, opened = asyncio.Semaphore(OPENED_AT_ONCE), asyncio.Semaphore(0)

    async def one(at_once: bytes, slowly: bytes) -> None:
        first = True
        while True:
            async with opening:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if first:
                opened.release()
                first = False
            with contextlib.suppress(ConnectionError):
                writer.write(at_once)
                sending = asyncio.create_task(trickle(writer, slowly))
                await reader.read()
                sending.cancel()
            writer.close()
            await asyncio.sleep(BYTE_SECONDS)

    kinds = [(b"", b"")] * idle + [(b"", whole), (whole[:head], whole[head:])] * (slow // 2)
    async with asyncio.TaskGroup() as tasks:
        for kind in kinds:
            tasks.create_task(one(*kind))
        for _ in kinds:
            await opened.acquire()
        print("open", flush=True)


async def trickle(writer: asyncio.StreamWriter, content: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        for place in range(len(content)):
            await asyncio.sleep(BYTE_SECONDS)
            writer.write(content[place : place + 1])
            await writer.drain()


def main(port: str, idle: str, slow: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    on_the_loop(hold_open(int(port), int(idle), int(slow)))


if __name__ == "__main__":
    main(*sys.argv[1:])
