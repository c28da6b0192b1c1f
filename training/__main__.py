"""python -m training COMMAND: describe, fit, recalibrate, evaluate, compare-losses, promote, precision, keygen, sign,
push, pull"""

import argparse
import sys
from collections.abc import Callable, Sequence

from threadpoolctl import threadpool_limits

from models.bundle.manifest import BundleError
from models.bundle.signature import SignatureError
from models.engines.engine import EngineError
from models.engines.ray_cluster import ClusterError
from training.commands import bundles, compare_losses, describe, evaluate, fit, precision, promote, recalibrate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 done, 1 failed (one sentence on stderr), 2 wrong use."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Train and evaluate bundles.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (describe, fit, recalibrate, evaluate, compare_losses, precision, promote, bundles):
        command.add(commands)
    options = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        # The matrices of calibration and evaluation are small: threads for them cost more than they give, tenfold when
        # other work keeps the cores busy. MLX has a BLAS of its own.
        with threadpool_limits(1, "blas"):
            return run(options)
    except (BundleError, ClusterError, EngineError, SignatureError, ValueError, OSError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("training: stopped; --resume with the same options goes on from the last fold", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
