"""The drift monitor of the bundle that serves, its state saved to a file, off the request's path."""

import asyncio
import contextlib
import logging
from pathlib import Path

import numpy as np

from models.bundle.read import Bundle
from models.calibration.online import OnlineStep
from service.drift.errors import NotRecalibrating
from service.drift.monitor import DriftMonitor
from service.drift.saved_state import StateError, StateFile
from service.settings import Settings

LOGGER = logging.getLogger("evenkeel")
SAVE_SECONDS = 5.0
"""A crash loses at most this much of what the tests have seen."""


class PersistedDrift:
    """``monitor`` is that of the bundle that serves, None until one is loaded."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._file: StateFile | None = None
        self._saving: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self.monitor: DriftMonitor | None = None

    def begin(self, bundle: Bundle) -> DriftMonitor:
        """Monitor this bundle, going on from the saved state of the same version where there is one."""
        settings = self._settings
        monitor = DriftMonitor(
            bundle, settings.run_length, settings.drift_dead_band, np.random.default_rng(), settings.recalibrate_online
        )  # fmt: skip
        if settings.state != "":
            folder = bundle.folder.parent / "state" if settings.state is None else Path(settings.state)
            file = StateFile(folder, bundle.version)
            if file.open():
                self._file = file
                _restore(monitor, file)
        self.monitor = monitor
        return monitor

    def online_step(self, version: str) -> OnlineStep:
        """What is served of this version's probabilities; none of them is changed before its tests have begun. May be
        called on any thread."""
        monitor = self.monitor
        return monitor.online_step if monitor is not None and monitor.version == version else OnlineStep()

    async def undo_online(self) -> OnlineStep:
        """Serve the bundle's own probabilities, and learn anew; saved when this returns the step that was.

        Raises NotRecalibrating."""
        if self.monitor is None or self.monitor.online is None:
            raise NotRecalibrating
        undone = self.monitor.undo_online()
        await self._save()
        return undone

    async def renew(self, bundle: Bundle) -> DriftMonitor:
        """Save and end the tests of the bundle before, and begin those of this one."""
        if self._file is not None:
            await self._save()
        async with self._writing:
            if self._file is not None:
                self._file.close()
                self._file = None
            return self.begin(bundle)

    async def start(self) -> None:
        """Save every few seconds from now on."""
        self._saving = asyncio.create_task(self._save_regularly())

    async def stop(self) -> None:
        """Save once more and let go of the file."""
        if self._saving is not None:
            self._saving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._saving
        if self._file is not None:
            await self._save()
            self._file.close()

    async def _save_regularly(self) -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            # Cancelled, it lets the write that has begun end by itself; the last one waits for it.
            await asyncio.shield(self._save())

    async def _save(self) -> None:
        async with self._writing:
            if self._file is not None and self.monitor is not None and self.monitor.changed:
                await asyncio.to_thread(self._file.write, self.monitor.snapshot())


def _restore(monitor: DriftMonitor, file: StateFile) -> None:
    content = file.read()
    if content is None:
        return
    try:
        monitor.restore(content)
    except StateError as error:
        file.set_aside(str(error))
    else:
        LOGGER.info("drift tests go on after %d predictions", monitor.seen["prediction"])
