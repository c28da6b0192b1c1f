"""Many files scored side by side by Ray Data: each is a partition, done whole by one worker, or not at all.

A worker is an actor with the bundle in memory, by default on one core. Where one dies Ray starts another, and its file
is scored again from the beginning; a file whose record says that it is done is passed over.
"""

import fcntl
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from models.bundle.manifest import BundleError
from models.bundle.precisions import FULL, Precision
from models.bundle.read import read_bundle
from models.engines.logit_cache import LogitCache
from models.engines.ray_cluster import ClusterError, connected
from models.prediction import PredictionError
from models.predictor import Predictor
from service.scoring.columns import ScoreError
from service.scoring.csv import score_csv
from service.scoring.parquet import score_parquet
from service.scoring.partitions import ABOUT, Partition, Record, ScoringSettings, find_partitions

MAX_DEATHS = 3
"""Deaths of a worker that one file survives: with more, it is the file that kills them."""
MAX_BLOCKS = 2000
"""Of Ray Data's bookkeeping; with more files than these, several go to a worker together."""
SHOWN_ERRORS = 20


class ScoringRun(Struct, frozen=True, kw_only=True):
    """What was asked for. Every machine of the cluster must see the same files under these absolute paths."""

    source: Path
    destination: Path
    bundle: Path
    keys: Path | None = None
    target_prevalence: float | None = None
    precision: Precision = FULL
    costs: str | None = None
    cache_rows: int = 1 << 16
    threads: int = 1
    """Cores of each worker."""


class ProgressLike(Protocol):
    def show(self, rows: int, done_bytes: int) -> None: ...


StartProgress = Callable[[int], ProgressLike]
"""Bytes in all → what shows how many are done."""


class FileScorer:
    """Scores one file after the other. The bundle must be the one that the run began with."""

    def __init__(self, run: ScoringRun, settings: ScoringSettings):
        self._settings, self._cache = settings, LogitCache(run.cache_rows)
        self._predictor = Predictor.load(
            run.bundle, self._cache, run.target_prevalence, run.keys, run.threads, run.precision, costs=run.costs
        )
        if self._predictor.bundle.version != settings.bundle:
            raise BundleError("the bundle was replaced while files were scored; call the command again")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A `Partition`'s fields → its name, rows scored and rejected, whether it was done before, what went wrong."""
        partition = Partition(Path(row["source"]), Path(row["destination"]), row["name"])
        result = {"name": row["name"], "scored": 0, "rejected": 0, "before": False, "error": ""}
        try:
            before = partition.done(self._settings)
            if not before and partition.deaths() > MAX_DEATHS:
                raise ScoreError(f"its worker died {partition.deaths()} times; does it need more memory than there is?")
            record = before or self._score(partition)
        except (ScoreError, PredictionError) as error:
            return result | {"error": str(error)}
        except OSError as error:
            return result | {"error": f"{error.filename}: {error.strerror}"}
        return result | {"scored": record.scored, "rejected": record.rejected, "before": before is not None}

    def _score(self, partition: Partition) -> Record:
        # A logit's last bits depend on the texts computed with it. So nothing is left over from the file before, and
        # what is written of a file does not depend on which others its worker had.
        self._cache.clear()
        write: Callable[..., tuple[int, int]] = score_parquet if partition.is_parquet else score_csv
        return partition.score(self._settings, partial(write, predictor=self._predictor))


def score_files(run: ScoringRun, address: str | None, workers: int | None, progress: StartProgress) -> int:
    """Score the files of a run; 0 every row, 1 when a file failed or rows were rejected.

    Raises ScoreError, BundleError, ClusterError, OSError.
    """
    partitions = find_partitions(run.source, run.destination)
    bundle = read_bundle(run.bundle, run.keys)
    if run.costs is not None:
        bundle.with_costs(run.costs)
    settings = ScoringSettings(
        bundle=bundle.version, target_prevalence=run.target_prevalence, precision=run.precision, costs=run.costs
    )  # fmt: skip
    with _run_lock(run.destination, partitions), connected(address, ("service",)) as cores:
        done = _score_all(run, settings, partitions, workers or max(1, cores // run.threads), progress)
    return _report(run, done, {one.name for one in partitions})


def _score_all(
    run: ScoringRun, settings: ScoringSettings, partitions: list[Partition], workers: int, progress: StartProgress
) -> list[dict[str, Any]]:
    """What `FileScorer` says of each partition; nothing of those that it could not even fail."""
    sizes = {partition.name: partition.source.stat().st_size for partition in partitions}
    # The largest first, so that none is begun when the others are done.
    queue = sorted(partitions, key=lambda partition: -sizes[partition.name])
    shown, done, rows, size = progress(sum(sizes.values())), [], 0, 0
    for result in _scored(run, settings, queue, min(workers, len(queue))):
        done.append(result)
        rows, size = rows + result["scored"] + result["rejected"], size + sizes[result["name"]]
        shown.show(rows, size)
    return done


def _scored(
    run: ScoringRun, settings: ScoringSettings, queue: list[Partition], workers: int
) -> Iterator[dict[str, Any]]:
    from ray import data
    from ray.exceptions import RayError

    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    items = [{"source": str(one.source), "destination": str(one.destination), "name": one.name} for one in queue]
    dataset = data.from_items(items, override_num_blocks=min(len(items), MAX_BLOCKS)).map(
        FileScorer, fn_constructor_args=(run, settings), num_cpus=run.threads,
        compute=data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
    )  # fmt: skip
    try:
        yield from dataset.iter_rows()
    except RayError as error:
        raise ClusterError(f"Ray gave up: {str(error).strip().splitlines()[-1]}") from error


@contextmanager
def _run_lock(destination: Path, partitions: list[Partition]) -> Iterator[None]:
    """Be the only run that writes to ``destination``, and leave nothing half-written; raises ScoreError."""
    about = destination / ABOUT
    about.mkdir(parents=True, exist_ok=True)
    with (about / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ScoreError(f"another run is writing to {destination}") from None
        try:
            for partition in partitions:
                partition.sweep()
            yield
        finally:
            for partition in partitions:
                partition.sweep()


def _report(run: ScoringRun, done: list[dict[str, Any]], names: set[str]) -> int:
    failed = {one["name"]: one["error"] for one in done if one["error"]}
    failed |= dict.fromkeys(names - {one["name"] for one in done}, "its worker failed")
    for name in sorted(failed)[:SHOWN_ERRORS]:
        print(f"score: {run.source / name}: {failed[name]}", file=sys.stderr)
    scored, rejected = (sum(one[what] for one in done) for what in ("scored", "rejected"))
    before = sum(one["before"] for one in done)
    print(
        f"score: {scored} rows of {len(names) - len(failed)} files to {run.destination}"
        + (f"; {before} files were done before" if before else ""),
        file=sys.stderr,
    )
    if rejected:
        print(f"score: {rejected} rows rejected; {run.destination / ABOUT}/…/rejected.csv say why", file=sys.stderr)
    if failed:
        print(f"score: {len(failed)} files are not done; the same command tries them again", file=sys.stderr)
    return 1 if failed or rejected else 0
