"""Fine-tunings as tasks of a Ray cluster: inputs and results travel as bytes, so that no disk need be shared."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from training.fit.finetune import TrainingError
from training.fit.process import (
    HIDDEN,
    INPUTS,
    JOB,
    FineTuningJob,
    ProcessKilled,
    finetune_in_process,
    result_paths,
)  # fmt: skip
from training.fit.progress import TrainingProgress

RETRIES = 3
"""How often a fine-tuning whose worker or process was killed is started again."""

Message = tuple[str, bytes]
"""("report", line), ("failed", reason) or (name of a result's file, its content)."""


class RayExecutor:
    """An `executors.Executor`: each fine-tuning is a task on one core of any machine. Ray must be connected."""

    def __call__(self, work: Path, job: FineTuningJob, numbers: Sequence[int], progress: TrainingProgress) -> None:
        import ray

        task = ray.remote(num_cpus=1, max_retries=RETRIES, retry_exceptions=[ProcessKilled])(finetuning)
        files = {name: ray.put((work / name).read_bytes()) for name in (INPUTS, HIDDEN) if (work / name).exists()}
        weights, names = ray.put(Path(job.weights).read_bytes()), list(files)
        running = [
            (task.remote(msgspec.json.encode(job), weights, number, names, *files.values()), number)
            for number in numbers
        ]
        try:
            while running:
                ready, _ = ray.wait([stream for stream, _ in running], num_returns=1)
                at = next(place for place, (stream, _) in enumerate(running) if stream is ready[0])
                if not _handle_next(*running[at], work, job, progress):
                    running.pop(at)
        except BaseException:
            for stream, _ in running:
                ray.cancel(stream, force=True)
            raise


def _handle_next(stream: Any, number: int, work: Path, job: FineTuningJob, progress: TrainingProgress) -> bool:
    """Handle the next message of a fine-tuning; False when there is no more."""
    import ray

    try:
        kind, content = ray.get(next(stream))
    except StopIteration:
        return False
    except ray.exceptions.RayError as error:
        reason = "its worker died too often" if isinstance(error, ray.exceptions.WorkerCrashedError) else str(error)
        raise TrainingError(f"{job.phases[number]}: {reason.strip().splitlines()[-1]}") from error
    if kind == "report":
        progress.report(content)
    elif kind == "failed":
        raise TrainingError(content.decode())
    else:
        result = next(path for path in result_paths(work, job, number) if path.name == kind)
        partial = result.with_name("partial-" + result.name)
        partial.write_bytes(content)
        partial.rename(result)
    return True


def finetuning(job: bytes, weights: bytes, number: int, names: Sequence[str], *inputs: bytes) -> Iterator[Message]:
    """One fine-tuning, on whichever machine: its reports, then its results or why there are none.

    ``inputs`` are the files that `save_inputs` left, ``names`` what they are called.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        base = work / "base.safetensors"
        base.write_bytes(weights)
        for name, content in zip(names, inputs, strict=True):
            (work / name).write_bytes(content)
        here = msgspec.structs.replace(msgspec.json.decode(job, type=FineTuningJob), weights=str(base))
        (work / JOB).write_bytes(msgspec.json.encode(here))
        try:
            for line in finetune_in_process(work, number):
                yield "report", line
        except TrainingError as error:
            yield "failed", str(error).encode()
        else:
            for result in result_paths(work, here, number):
                yield result.name, result.read_bytes()
