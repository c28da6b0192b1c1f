"""All benchmarks, then docs/benchmarks.md.

./run bench            about an hour and a quarter
./run bench --quick    about four minutes: whether they run; the report stays in artifacts/benchmarks/
"""

import sys

from benchmarks import report
from benchmarks.harness.command import interruptible, measured, parse
from benchmarks.harness.machine import ROOT
from benchmarks.harness.process import say


def main() -> int:
    options = parse(__doc__)

    def everything() -> int:
        for name, (title, module) in report.SECTIONS.items():
            say(title)
            measured(name, module.measure, options)
        say(f"{report.write(options.quick).relative_to(ROOT)} is written")
        return 0

    return interruptible(everything)


if __name__ == "__main__":
    sys.exit(main())
