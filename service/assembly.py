"""Settings → the parts of the service and its application, as one process makes them."""

import contextlib
import faulthandler
import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from prometheus_client import CollectorRegistry, disable_created_metrics

from models.bundle.bucket import bundle_folder
from models.bundle.precisions import FULL, Precision
from models.engines.choice import EngineChoice
from models.engines.logit_cache import LogitCache
from models.engines.memory import bound_arenas
from models.predictor import Predictor
from models.schema import Schema
from service.app import Application, create_app
from service.drift.events import DriftEvents
from service.drift.persistence import PersistedDrift
from service.http import logs
from service.http.access import make_access
from service.http.tracing import make_tracing
from service.inference.batcher import Batcher
from service.inference.fifo_semaphore import FifoSemaphore
from service.inference.inference_thread import PredictorLike
from service.inference.reloading import Reloader
from service.inference.same_schema import check_same_schema
from service.inference.shadow import Shadow
from service.metrics import Metrics
from service.online.predictor import RecalibratedPredictor
from service.services import Services
from service.settings import Settings
from service.store.prediction_log import CountedOutcome
from service.store.store import make_store

LOGGER = logging.getLogger("evenkeel")
GAINS = {
    "int8": "about twice as fast on a CPU, a quarter of the memory",
    "float16": "half the memory",
    "bfloat16": "half the memory",
}
SWITCH_SECONDS = 1e-4
"""After which a thread that runs Python gives way to one that waits for it. The event loop and the inference threads
need it for some tenths of a millisecond in turn, and by default each keeps the others from it for up to 5 ms."""
Load = Callable[[str, LogitCache], PredictorLike]
"""Where a bundle is, and the cache of its logits → its predictor."""


def prepare_process(settings: Settings) -> None:
    """What a process does once, before it makes the application: memory, logs, and where a crash is reported."""
    bound_arenas()
    logs.configure(settings.log_level, settings.log_format)
    # A library that is out of memory may take the process with it; then standard error says at least where.
    with contextlib.suppress(OSError, ValueError):  # Where it is no file.
        faulthandler.enable()
    sys.setswitchinterval(SWITCH_SECONDS)
    # Few collections: each goes through all that waiting requests hold, and stops them for as long.
    gc.set_threshold(10_000, 10, 100)
    # Twice the series, for timestamps that nothing here reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]


def make_app(
    settings: Settings, on_ready: Callable[[PredictorLike], None], on_failure: Callable[[str], None] = lambda _: None
) -> Application:
    """The application with the bundle, store and shadow that the settings name, and the traces that the environment
    asks for. Raises KeysError."""
    services = make_services(settings, bundle_loader(settings), on_ready=on_ready, on_failure=on_failure)
    app = create_app(services, make_tracing(os.environ))
    # What is there now lasts as long as the process; a bundle is no part of it.
    gc.collect()
    gc.freeze()
    return app


def bundle_loader(settings: Settings) -> Load:
    """Loads bundles from a folder or a bucket, verified as the settings say."""
    keys = Path(settings.require_signature) if settings.require_signature else None

    def load(reference: str, cache: LogitCache) -> Predictor:
        folder = bundle_folder(reference, Path(settings.bundles), keys)
        return Predictor.load(
            folder, cache, settings.target_prevalence, keys, precision=cast(Precision, settings.precision),
            engine=cast(EngineChoice, settings.engine), costs=settings.costs,
        )  # fmt: skip

    return load


def make_services(
    settings: Settings, load: Load, registry: CollectorRegistry | None = None,
    on_ready: Callable[[PredictorLike], None] = lambda _: None, on_failure: Callable[[str], None] = lambda _: None,
) -> Services:  # fmt: skip
    """The parts, none of which has started. ``load`` is called on an inference thread once they start. Raises
    KeysError where the settings name a file of keys that cannot be used."""
    metrics, drift, shadow = Metrics(registry or CollectorRegistry()), PersistedDrift(settings), settings.shadow

    def load_served() -> PredictorLike:
        predictor = load(settings.bundle, LogitCache(settings.cache_rows, metrics.looked_up))
        if settings.recalibrate_online:
            predictor = RecalibratedPredictor(predictor, drift.online_step)
        if batcher.predictor is not None:
            check_same_schema(batcher.predictor.bundle.schema, predictor.bundle.schema)
        return predictor

    def served_schema() -> Schema:
        assert batcher.predictor is not None  # Nothing is offered to the shadow before.
        return batcher.predictor.bundle.schema

    def on_loaded(predictor: PredictorLike) -> None:
        metrics.model_loaded(predictor.bundle, predictor.backend)
        if store is not None:
            store.bundle_loaded(predictor.bundle.version, predictor.bundle.schema)
        if drift.monitor is None:
            metrics.drift_begun(drift.begin(predictor.bundle))
            on_ready(predictor)

    def on_outcomes(outcomes: Sequence[CountedOutcome]) -> None:
        metrics.outcomes_counted(outcomes)
        if drift.monitor is not None:
            # The test is of the model served; those of an older one may still come in for a while.
            version = drift.monitor.version
            own = [each for each in outcomes if each.version == version]
            drift.monitor.outcomes([(one.bundle_probabilities, one.label) for one in own], [one.id for one in own])

    store = make_store(settings, metrics, on_outcomes)
    batcher = Batcher(
        load_served, metrics, stall_seconds=settings.stall_seconds, max_batch_rows=settings.max_batch_rows,
        max_queue_rows=settings.max_queue_rows, on_loaded=on_loaded, on_failure=on_failure,
    )  # fmt: skip
    return Services(
        settings=settings,
        metrics=metrics,
        access=make_access(settings, metrics.keys_current),
        batcher=batcher,
        drift=drift,
        drift_events=DriftEvents(),
        reloader=Reloader(batcher, drift, metrics, load_served),
        # Two batches keep the device busy.
        stream_rows=FifoSemaphore(2 * settings.max_batch_rows),
        store=store,
        shadow=Shadow(lambda: load(shadow, LogitCache(settings.cache_rows)), metrics, served_schema)
        if shadow
        else None,
    )


def announce(predictor: PredictorLike, url: str) -> None:
    """Log what serves at ``url``, and what an operator may not expect of it."""
    backend, bundle = predictor.backend, predictor.bundle
    if backend.warning:
        LOGGER.warning("%s", backend.warning)
    shift = bundle.record.map.prior_shift
    if shift is not None:
        LOGGER.info(
            "probabilities are for a population of which %g are of the class %s, not %.3g",
            shift.target, bundle.schema.positive, shift.training,
        )  # fmt: skip
    LOGGER.info(
        "ready: %s/v1/model serves %s version %s by %s%s", url, bundle.name, bundle.version, backend.describe(),
        _gain(predictor),
    )  # fmt: skip


def _gain(predictor: PredictorLike) -> str:
    """What fewer bits would gain where they were measured and not refused."""
    bundle, backend = predictor.bundle, predictor.backend
    accepted = [
        one
        for one in bundle.precisions.measured
        if one.device == backend.device and one.precision in backend.offered and one.refusal is None
    ]
    if backend.precision != FULL or not accepted:
        return ""
    best = accepted[-1]
    return (
        f"; --precision {best.precision} would be {GAINS[best.precision]}, and was measured to change the log loss by "
        f"{best.log_loss.value:+.4f}"
    )
