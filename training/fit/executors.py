"""Where fine-tunings run: side by side on this machine, as tasks of a Ray cluster, or each over several processes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Protocol

from models.engines.ray_cluster import connected
from training.fit.process import FineTuningJob, finetune_in_process
from training.fit.progress import TrainingProgress
from training.fit.ray_executor import RayExecutor

EXECUTORS = ("local", "ray")


class Executor(Protocol):
    """Runs fine-tunings: leaves `process.result_path` of each number in ``work``, which `process.save_inputs` prepared.

    Raises TrainingError at the first failure, having ended the others.
    """

    def __call__(self, work: Path, job: FineTuningJob, numbers: Sequence[int], progress: TrainingProgress) -> None: ...


class LocalExecutor:
    """At most ``processes`` at once on this machine, each a process of its own."""

    def __init__(self, processes: int):
        self._processes = processes

    def __call__(self, work: Path, job: FineTuningJob, numbers: Sequence[int], progress: TrainingProgress) -> None:
        running: list[Popen[bytes]] = []
        stopped = False

        def run(number: int) -> None:
            if stopped:
                return
            for line in finetune_in_process(work, number, running.append):
                progress.report(line)

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
def make_executor(name: str, address: str | None, prepare: Callable[[], int]) -> Iterator[Executor]:
    """The executor ``name`` of `EXECUTORS`; ``address`` is that of a Ray cluster. Raises ClusterError, ValueError.

    ``prepare`` sets this machine up and gives the processes that fit on it: called when nothing more can be refused.
    """
    if address and name != "ray":
        raise ValueError("--address is for --engine ray")
    if name == "ray":
        with connected(address, ("training",)):
            prepare()
            yield RayExecutor()
    else:
        yield LocalExecutor(prepare())
