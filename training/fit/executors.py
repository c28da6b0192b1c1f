"""Where fine-tunings run: side by side on this machine, as tasks of a Ray cluster, or each over several processes."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Protocol

from models.engines.ray_cluster import connected
from training.fit.process import Job, reports
from training.fit.progress import Report, TrainingProgress
from training.fit.ray_tasks import RayTasks

ENGINES = ("local", "ray")


class Engine(Protocol):
    """Runs fine-tunings: leaves `task.result_path` of each number in ``work``, where `task.save_inputs` was called.

    Raises TrainingError at the first failure, having ended the others.
    """

    def __call__(self, work: Path, job: Job, numbers: Sequence[int], progress: TrainingProgress) -> None: ...


class SideBySide:
    """At most ``processes`` at once on this machine, each a process of its own."""

    def __init__(self, processes: int):
        self._processes = processes

    def __call__(self, work: Path, job: Job, numbers: Sequence[int], progress: TrainingProgress) -> None:
        running: list[Popen[bytes]] = []
        stopped = False

        def run(number: int) -> None:
            if stopped:
                return
            for line in reports(work, number, running.append):
                progress.report(Report.decode(line))

        with ThreadPoolExecutor(self._processes) as pool:
            try:
                for done in as_completed([pool.submit(run, number) for number in numbers]):
                    done.result()
            except BaseException:
                stopped = True
                for process in running:
                    process.kill()
                raise


@contextmanager
def engine(name: str, address: str | None, processes: int) -> Iterator[Engine]:
    """The engine ``name`` of `ENGINES`; ``address`` is that of a Ray cluster. Raises ClusterError, ValueError."""
    if address and name != "ray":
        raise ValueError("--address is for --engine ray")
    if name == "ray":
        with connected(address, ("training",)):
            yield RayTasks()
    else:
        yield SideBySide(processes)
