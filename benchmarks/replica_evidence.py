"""How the drift evidence of several replicas is put together: run lengths to a false alarm, and delays to a true one.

./run bench replica_evidence            about a minute
./run bench replica_evidence --quick    whether it runs

Every replica tests its own rows with the service's own detector, and all began from one and the same reference sample.
Rows are counted at each replica, which all get as many: as many rows of the whole service are that times the replicas.
Where replicas get the same rows, they depend on one another as much as can be.
"""

import argparse
import sys

import numpy as np

from benchmarks.harness.tables import table
from service.drift.detectors import RankDetector

SHARES = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
SHIFTED = np.array([0.25, 0.2, 0.25, 0.2, 0.1])
BLOCK = 25


def alarms(sums: np.ndarray, run_length: float) -> dict[str, np.ndarray]:
    """Shiryaev–Roberts sums (n, runs, replicas) → whether each rule alarms after each of n rows, (n, runs).

    ``mean`` is what the recording rule job_version_stream:evenkeel_drift_log_evidence:mean computes from the gauges
    ln(1 + M); the others are the first replica alone, any replica, and the sum and the product of all.
    """
    gauges, threshold = np.log1p(sums), np.log1p(run_length)
    highest = gauges.max(axis=2)
    mean = highest + np.log(np.exp(gauges - highest[..., None]).mean(axis=2))
    return {
        "one alone": gauges[..., 0] >= threshold, "mean": mean >= threshold, "any": highest >= threshold,
        "sum": sums.sum(axis=2) >= run_length, "product": gauges.sum(axis=2) >= threshold,
    }  # fmt: skip


def run_lengths(
    *, replicas: int, runs: int, run_length: float, reference_rows: int, longest: int, rng: np.random.Generator,
    shares: np.ndarray = SHARES, same_rows: bool = False,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Rows at each replica until each rule alarms, (runs,); ``longest`` where it does not. Each run draws a reference
    of its own from `SHARES`, which all of its replicas begin with; live rows are of ``shares``."""
    reference = rng.multinomial(reference_rows, SHARES, runs).astype(float)
    detector = RankDetector(np.repeat(reference, replicas, axis=0), rng)
    found: dict[str, np.ndarray] = {}
    for first in range(0, longest, BLOCK):
        bins = rng.choice(len(shares), (BLOCK, runs if same_rows else runs * replicas), p=shares)
        sums = detector.observe(np.repeat(bins, replicas, axis=1) if same_rows else bins)
        for rule, alarmed in alarms(sums.reshape(BLOCK, runs, replicas), run_length).items():
            rows = np.where(alarmed.any(axis=0), first + 1 + alarmed.argmax(axis=0), longest)
            found[rule] = np.minimum(found.get(rule, longest), rows)
        if all((rows < longest).all() for rows in found.values()):
            break
    return found


def false_alarms(runs: int, run_length: float) -> str:
    lines = []
    for replicas, size, same in ((2, 891, False), (8, 891, False), (32, 891, False), (8, 30, False), (8, 891, True)):
        found = run_lengths(
            replicas=replicas, runs=runs, run_length=run_length, reference_rows=size, longest=int(6 * run_length),
            rng=np.random.default_rng(replicas + size), same_rows=same,
        )  # fmt: skip
        cells = [f"{rows.mean():.0f} ± {rows.std(ddof=1) / runs**0.5:.0f}" for rows in found.values()]
        lines.append([str(replicas), str(size), "the same" if same else "their own", *cells])
    return table(["replicas", "reference rows", "live rows", "one alone", "mean", "any", "sum", "product"], lines)


def delays(runs: int, run_length: float) -> str:
    lines = []
    for replicas in (1, 2, 8, 32):
        found = run_lengths(
            replicas=replicas, runs=runs, run_length=run_length, reference_rows=891, longest=5000,
            rng=np.random.default_rng(replicas), shares=SHIFTED,
        )  # fmt: skip
        lines.append([str(replicas), *(f"{np.median(found[rule]):.0f}" for rule in ("mean", "any", "sum"))])
    return table(["replicas", "mean", "any", "sum"], lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few runs")
    quick = parser.parse_args().quick
    runs, run_length = (20, 50.0) if quick else (600, 500.0)
    print(
        f"Mean rows at each replica to a false alarm ± standard error, run length {run_length:g}, {runs} runs, cut at "
        f"six times the run length:\n\n{false_alarms(runs, run_length)}\n"
        "Median rows at each replica until a change that is there from the first row on is found, run length 10⁷:\n\n"
        f"{delays(10 if quick else 200, 1e7)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
