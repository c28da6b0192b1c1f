"""A semaphore whose permits are rows: whoever asked first gets them first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FifoSemaphore:
    """How many rows of all streams together may be with the batcher.

    A few batches keep the device busy. More would only make the requests of others wait longer, and with many streams
    fill the queue.
    """

    def __init__(self, rows: int):
        self._free = rows
        self._first = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def acquired(self, rows: int) -> AsyncIterator[None]:
        """Hold at most half of all rows."""
        async with self._first:
            while self._free < rows:
                self._freed.clear()
                await self._freed.wait()
            self._free -= rows
        try:
            yield
        finally:
            self._free += rows
            self._freed.set()
