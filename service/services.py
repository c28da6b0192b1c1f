"""What the service is made of: one typed object, which every handler gets from its request."""

from dataclasses import dataclass

from service.drift.events import DriftEvents
from service.drift.persistence import PersistedDrift
from service.http.access import Access
from service.inference.batcher import Batcher
from service.inference.fifo_semaphore import FifoSemaphore
from service.inference.reloading import Reloader
from service.inference.shadow import Shadow
from service.metrics import Metrics
from service.settings import Settings
from service.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Services:
    """``stream_rows`` are the rows of all streams together that may be with the batcher."""

    settings: Settings
    metrics: Metrics
    access: Access
    batcher: Batcher
    drift: PersistedDrift
    drift_events: DriftEvents
    reloader: Reloader
    stream_rows: FifoSemaphore
    store: Store | None
    shadow: Shadow | None

    async def start(self) -> None:
        """Start loading the bundle, and all else that runs beside the requests."""
        self.batcher.start()
        await self.drift.start()
        self.reloader.start()
        if self.store is not None:
            self.store.start()
        if self.shadow is not None:
            self.shadow.start()

    async def stop(self) -> None:
        """Answer and write what waits, then end the threads."""
        seconds = self.settings.timeout_seconds
        self.batcher.stop(seconds)
        if self.store is not None:
            self.store.stop(seconds)
        if self.shadow is not None:
            self.shadow.stop(seconds)
        await self.drift.stop()
