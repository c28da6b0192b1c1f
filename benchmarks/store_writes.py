"""Rows per second that the prediction log's thread writes, from the first row queued to the last one committed.

./run bench store_writes                              a SQLite file on this machine's disk
python -m benchmarks.store_writes --store postgresql://…   another database; needs the extra postgres

The store is the service's own, and nothing else runs in the process: what the event loop takes is in
`./run bench outcomes`. Without the rows, as by default, and with all of their fields.
"""

import argparse
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from prometheus_client import CollectorRegistry

from benchmarks.harness.spread import spread
from benchmarks.harness.tables import table
from benchmarks.harness.texts import one_per_text, schema
from models.calibration.confidence import Confidence
from models.prediction import Prediction
from service.metrics import Metrics
from service.store.databases import database
from service.store.store import Store
from service.uuid7 import uuid7

ROWS = 100_000
CHUNK = 1024
PREDICTION = Prediction(
    outcome="", probability=0.25, probabilities=(0.75, 0.25), text="", logits=(0.0, 0.0),
    unshifted_probabilities=(0.75, 0.25), probability_bin=2, unshifted_bin=2, input_bins=(),
    confidence=Confidence(
        interval=(0, 1), prediction_set=(), coverage=0.9, margin=0, entropy_bits=0, typicality=1, abstain=True,
        uncalibrated_probability=0.5, calibration=(), warnings=(),
    ),
)  # fmt: skip


def rows_per_second(url: str, inputs: str, rows: int) -> float:
    store = Store(
        database(url), Metrics(CollectorRegistry()), inputs=inputs, max_rows=10**9, max_days=90, queue_rows=1 << 20
    )
    store.bundle_loaded("0" * 12, schema())
    store.start()
    logged = list(islice(one_per_text(), 1)) * CHUNK
    predictions = [PREDICTION] * CHUNK
    ids = [[uuid7() for _ in range(CHUNK)] for _ in range(rows // CHUNK)]
    start = time.perf_counter()
    for some in ids:
        store.log("0" * 12, some, logged, predictions)
    store.stop(600)
    if store.failure is not None:
        raise OSError(store.failure)
    return len(ids) * CHUNK / (time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", help="postgresql:// URL (default: a SQLite file in a temporary folder)")
    parser.add_argument("--quick", action="store_true", help="few rows")
    options = parser.parse_args()
    rounds, rows = (1, 4096) if options.quick else (5, ROWS)
    found: dict[str, list[float]] = {"none": [], "row": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for inputs, rates in found.items():
                url = options.store or str(Path(folder) / f"{inputs}-{number}.sqlite")
                rates.append(rows_per_second(url, inputs, rows))
    print(table(["kept of a row", "rows/s"], [(inputs, str(spread(rates))) for inputs, rates in found.items()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
