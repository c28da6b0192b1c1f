"""What the benchmarks share as commands: flags, the bundle, raw results on disk, the report on standard output."""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.harness.machine import BUNDLE, KEPT, describe
from benchmarks.harness.process import Unavailable
from models.bundle.manifest import BundleError
from models.bundle.read import read_bundle

Result = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """``scale`` multiplies the number of rounds; ``quick`` only shows that everything runs."""

    bundle: Path
    quick: bool
    scale: float

    def rounds(self, full: int, quick: int = 2) -> int:
        return quick if self.quick else max(2, round(full * self.scale))


Measure = Callable[[Options], Result]
Report = Callable[[Result], str]


def parse(documentation: str | None) -> Options:
    parser = argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: whether it runs, not how fast")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of rounds (default: 1)")
    given = parser.parse_args()
    return Options(given.bundle.resolve(), given.quick, given.scale)


def run(name: str, documentation: str | None, measure: Measure, report: Report) -> int:
    """The body of a benchmark's command: measure, keep the raw results, print the section of the report."""
    options = parse(documentation)

    def one() -> int:
        print(report(measured(name, measure, options)))
        return 0

    return interruptible(one)


def interruptible(work: Callable[[], int]) -> int:
    """Run it: 0 done, 1 with a sentence on standard error. SIGTERM is as Ctrl-C, so that what was started is ended."""

    def stop(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        return work()
    except (Unavailable, BundleError) as error:
        print(f"bench: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
    return 1


def measured(name: str, measure: Measure, options: Options) -> Result:
    """Measure and keep: the result with the machine it was measured on."""
    bundle = read_bundle(options.bundle)
    machine = describe()
    result = {"machine": machine, "bundle": {"name": bundle.name, "version": bundle.version}, **measure(options)}
    path = kept(name, options.quick)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))
    # As it is read back, whether it was just measured or not.
    loaded: Result = json.loads(path.read_text())
    return loaded


def kept(name: str, quick: bool) -> Path:
    """Where the raw results of a benchmark are."""
    return KEPT / ("quick" if quick else "full") / f"{name}.json"
