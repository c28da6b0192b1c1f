"""Another bundle without a stop: verified, loaded and warmed beside the one that serves, then swapped in."""

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable

from msgspec import Struct

from service.drift.persistence import PersistedDrift
from service.inference.batcher import Batcher
from service.inference.errors import BundleRefused, NotReady, ReloadRunning
from service.inference.inference_thread import PredictorLike
from service.metrics import Metrics

LOGGER = logging.getLogger("evenkeel")


class Reloaded(Struct, frozen=True):
    """The version that serves now, and the one that did."""

    version: str
    previous: str


class Reloader:
    """Reads the bundle's folder again when asked, by HTTP or by SIGHUP; one at a time."""

    def __init__(self, batcher: Batcher, drift: PersistedDrift, metrics: Metrics, load: Callable[[], PredictorLike]):
        self._batcher, self._drift, self._metrics, self._load = batcher, drift, metrics, load
        self._running: asyncio.Task[None] | None = None
        self._busy = False

    def start(self) -> None:
        """Reload on SIGHUP from now on, in the main thread, which alone hears signals."""
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._signalled)

    def _signalled(self) -> None:
        # Kept: the event loop itself holds tasks weakly.
        self._running = asyncio.create_task(self._reload_and_log())

    async def _reload_and_log(self) -> None:
        with contextlib.suppress(BundleRefused, ReloadRunning, NotReady):
            await self.reload()

    async def reload(self) -> Reloaded:
        """Swap to what the folder holds now; the old bundle serves until then, and goes on if this fails.

        Raises ReloadRunning, NotReady before the first bundle is loaded, and BundleRefused with the reason: also that
        its table is another one.
        """
        old = self._batcher.predictor
        if old is None or not self._batcher.ready:
            raise NotReady(self._batcher.failure or "the model is being loaded")
        if self._busy:
            raise ReloadRunning
        self._busy = True
        try:
            bundle = await self._batcher.replace(self._load)
        except Exception as error:
            LOGGER.error("the bundle is not taken, version %s goes on: %s", old.bundle.version, error)
            self._metrics.reloaded("refused")
            raise BundleRefused(str(error) or type(error).__name__) from error
        finally:
            self._busy = False
        if bundle.version != old.bundle.version:
            self._metrics.drift_begun(await self._drift.renew(bundle))
        self._metrics.reloaded("done")
        LOGGER.info("version %s serves in place of %s", bundle.version, old.bundle.version)
        return Reloaded(bundle.version, old.bundle.version)
