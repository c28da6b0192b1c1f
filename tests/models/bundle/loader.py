"""Load the bundles that stdin names, one a line, and write to stdout what came of each, as JSON."""

import contextlib
import faulthandler
import json
import math
import os
import resource
import sys
import time
import traceback

import msgspec

from models.bundle.manifest import BundleError
from models.prediction import PredictionError
from models.predictor import Predictor
from models.rows import RowError

ADDRESS_SPACE = 6 << 30
"""Beyond the clean load's, so that an attack on memory ends here and not with the machine."""
PATIENCE = 15.0
PASSENGERS = (
    {"pclass": 3, "sex": "male"},
    {"pclass": 1, "sex": "female", "name": "Allen, Miss. Elisabeth", "age": 29, "fare": 211.3, "ticket": "24160",
     "cabin": "B5"},
    {"pclass": 2, "sex": "male", "name": "Hart, Master. X", "age": 3, "sibsp": 8, "parch": 9, "fare": 0,
     "embarked": "Q"},
)  # fmt: skip


def attempt(folder: str) -> tuple[str, str]:
    """The outcome's name, and its message."""
    try:
        predictor = Predictor.load(folder)
        try:
            predictions = predictor.predict(PASSENGERS)
        except RowError:  # Another schema may be a good one, with other rows.
            predictions = predictor.predict([predictor.rows.typical()])
    except BundleError as error:
        return "refused", str(error)
    except PredictionError as error:
        return "no number", str(error)
    except BaseException:
        return "fault", traceback.format_exc()
    numbers = [x for one in predictions for x in (one.probability, *one.confidence.interval, one.confidence.typicality)]
    numbers += [step.probability for one in predictions for step in one.confidence.calibration]
    if not all(math.isfinite(x) and 0 <= x <= 1 for x in numbers) or not all(
        0 < p.probability < 1 for p in predictions
    ):
        return "fault", f"not probabilities: {numbers}"
    try:
        # What GET /v1/model answers.
        for encode in (msgspec.json.encode, msgspec.msgpack.encode):
            encode((predictor.bundle.manifest, predictor.bundle.evaluation, predictions))
    except BaseException:
        return "fault", traceback.format_exc()
    return "served", predictor.bundle.version


def forget_peak() -> None:
    """Begin the measure of `peak_bytes` again, where the system can."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_bytes() -> int:
    """The most memory that this process held. (Its ru_maxrss would begin with what its parent held.)"""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))


def main() -> None:
    for line in sys.stdin:
        begun = time.monotonic()
        forget_peak()
        # Where it was, should it take so long that it is taken for hung.
        faulthandler.dump_traceback_later(PATIENCE)
        outcome, said = attempt(json.loads(line))
        faulthandler.cancel_dump_traceback_later()
        peak = peak_bytes()
        seconds = time.monotonic() - begun
        print(json.dumps({"outcome": outcome, "said": said, "seconds": seconds, "peak": peak}), flush=True)
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        if most == resource.RLIM_INFINITY and sys.platform == "linux":
            with open("/proc/self/statm") as file:
                now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (now + ADDRESS_SPACE,) * 2)


if __name__ == "__main__":
    main()
    # MLX may abort the process when its statics are destroyed (mlx#2809).
    sys.stdout.flush()
    os._exit(0)
