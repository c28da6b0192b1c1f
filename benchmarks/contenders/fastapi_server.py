"""Measured beside Evenkeel: FastAPI and ONNX Runtime with natural batching, written by hand."""

import argparse
import asyncio
import math
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks.contenders.grouping import Grouped
from benchmarks.contenders.onnx_forward import float32, int8
from benchmarks.harness.texts import made, render

MAX_BATCH_ROWS = 64


class Batcher:
    """Takes what waits when the inference thread is free."""

    def __init__(self, forward: Grouped):
        self._forward, self._thread = forward, ThreadPoolExecutor(1)
        self._waiting: list[tuple[str, asyncio.Future[float]]] = []
        self._arrived = asyncio.Event()

    async def logit(self, text: str) -> float:
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, future))
        self._arrived.set()
        return await future

    async def run(self) -> None:
        while True:
            await self._arrived.wait()
            batch, self._waiting = self._waiting[:MAX_BATCH_ROWS], self._waiting[MAX_BATCH_ROWS:]
            if not self._waiting:
                self._arrived.clear()
            texts = [text for text, _ in batch]
            logits = await asyncio.get_running_loop().run_in_executor(self._thread, self._forward, texts)
            for (_, future), z in zip(batch, logits.tolist(), strict=True):
                if not future.done():
                    future.set_result(z)


def create_app(forward: Grouped) -> FastAPI:
    batchers: list[Batcher] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batchers.append(Batcher(forward))
        task = asyncio.create_task(batchers[0].run())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)
    decoder = msgspec.json.Decoder(made().struct)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        row = decoder.decode(await request.body())
        z = await batchers[0].logit(render(row))
        return Response(b'{"probability":%.17g}' % (1 / (1 + math.exp(-z))), media_type="application/json")

    @app.get("/health")
    async def health() -> Response:
        return Response()

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--group-rows", type=int, help="rows computed at once (default: the fastest, tried at the start)"
    )
    parser.add_argument("--precision", choices=("float32", "int8"), default="float32")
    options = parser.parse_args()
    _, forward = (int8 if options.precision == "int8" else float32)(options.bundle, options.group_rows)
    uvicorn.run(
        create_app(forward), host="127.0.0.1", port=options.port, log_level="warning", access_log=False,
        loop="uvloop", http="httptools",
    )  # fmt: skip


if __name__ == "__main__":
    main()
