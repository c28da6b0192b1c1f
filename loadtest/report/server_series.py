"""What the service says of itself while the load runs: its Prometheus series, once a second."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

_SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_PARALLEL = re.compile(r'\bparallel="(\d+)"')


class Scrape(Struct):
    """Sums since the service started, but for ``queue_rows``, ``memory_bytes`` and ``workers``, which are as of
    ``second``. ``workers`` compute a batch each at once; a service that does not say how many has one."""

    second: float
    queue_rows: float = 0.0
    queue_seconds: float = 0.0
    queued: float = 0.0
    inference_seconds: float = 0.0
    inferences: float = 0.0
    rows: float = 0.0
    http_seconds: float = 0.0
    http: float = 0.0
    hits: float = 0.0
    misses: float = 0.0
    predictions: float = 0.0
    dropped: float = 0.0
    cpu_seconds: float = 0.0
    memory_bytes: float = 0.0
    workers: int = 1


class Window(Struct):
    """Between two scrapes: means in milliseconds, NaN of none, and rates per second. ``busy_share`` is of the time of
    all workers."""

    start: float
    stop: float
    inferences: float
    rows_per_second: float
    batch_rows: float
    queue_rows: float
    queue_ms: float
    inference_ms: float
    http_ms: float
    hit_share: float
    busy_share: float
    cpu_cores: float
    memory_mb: float


_FIELDS = {
    "evenkeel_queue_rows": "queue_rows",
    "evenkeel_queue_seconds_sum": "queue_seconds",
    "evenkeel_queue_seconds_count": "queued",
    "evenkeel_inference_seconds_sum": "inference_seconds",
    "evenkeel_inference_seconds_count": "inferences",
    "evenkeel_batch_rows_sum": "rows",
    "evenkeel_predictions_total": "predictions",
    "evenkeel_store_dropped_total": "dropped",
    "process_cpu_seconds_total": "cpu_seconds",
    "process_resident_memory_bytes": "memory_bytes",
}


def parse(text: str, second: float) -> Scrape:
    """The series that show where time goes, summed over labels."""
    scrape = Scrape(second)
    for name, labels, number in _SAMPLE.findall(text):
        value = float(number)
        if name in _FIELDS:
            setattr(scrape, _FIELDS[name], getattr(scrape, _FIELDS[name]) + value)
        elif name == "evenkeel_cache_lookups_total":
            if 'result="hit"' in labels:
                scrape.hits += value
            else:
                scrape.misses += value
        elif name == "evenkeel_model_info" and (parallel := _PARALLEL.search(labels)):
            scrape.workers = int(parallel[1])
        elif name.startswith("evenkeel_http_request_seconds_") and 'route="/v1/predict"' in labels:
            if name.endswith("_sum"):
                scrape.http_seconds += value
            elif name.endswith("_count"):
                scrape.http += value
    return scrape


def windows(scrapes: Sequence[Scrape]) -> list[Window]:
    """What happened between each two scrapes of one service; a restart, when sums go back, is left out."""
    return [
        window(before, after)
        for before, after in pairwise(scrapes)
        if after.second > before.second and after.inferences >= before.inferences
    ]


def window(before: Scrape, after: Scrape) -> Window:
    """What happened between two scrapes."""
    seconds = after.second - before.second
    inferences, inference = after.inferences - before.inferences, after.inference_seconds - before.inference_seconds
    rows, lookups = after.rows - before.rows, after.hits + after.misses - before.hits - before.misses
    return Window(
        start=before.second, stop=after.second, inferences=inferences,
        rows_per_second=rows / seconds,
        batch_rows=_mean(rows, inferences),
        queue_rows=after.queue_rows,
        queue_ms=1e3 * _mean(after.queue_seconds - before.queue_seconds, after.queued - before.queued),
        inference_ms=1e3 * _mean(inference, inferences),
        http_ms=1e3 * _mean(after.http_seconds - before.http_seconds, after.http - before.http),
        hit_share=_mean(after.hits - before.hits, lookups),
        busy_share=inference / (seconds * after.workers),
        cpu_cores=(after.cpu_seconds - before.cpu_seconds) / seconds,
        memory_mb=after.memory_bytes / 1e6,
    )  # fmt: skip


def _mean(total: float, count: float) -> float:
    return total / count if count > 0 else math.nan
