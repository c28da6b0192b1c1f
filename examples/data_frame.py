"""Predictions as columns of a pandas data frame, without a service.

./run python examples/data_frame.py [IN.csv [OUT.csv]]
"""

import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from models.bundle.manifest import BundleError
from models.engines.logit_cache import LogitCache
from models.frames import read_frame
from models.predictor import Predictor
from models.rows import RowError

ROOT = Path(__file__).parents[1]
BUNDLE = os.environ.get("EVENKEEL_BUNDLE", ROOT / "artifacts" / "titanic")
ROWS = 4096
"""Rows of one call: enough for full batches, few enough for little memory."""


def add_predictions(frame: pd.DataFrame, predictor: Predictor) -> pd.DataFrame:
    """The frame with what is predicted for its rows; raises RowError naming the row and the field."""
    rows = read_frame(frame, predictor.rows)
    starts = range(0, len(rows), ROWS)
    predictions = [one for start in starts for one in predictor.predict(rows[start : start + ROWS])]
    # Of two classes, as the passengers' are; of more an interval is there for each.
    intervals: list[Any] = [one.confidence.interval or (None, None) for one in predictions]
    return frame.assign(
        probability=[one.probabilities[-1] for one in predictions],
        outcome=[one.outcome for one in predictions],
        interval_low=[low for low, _ in intervals],
        interval_high=[high for _, high in intervals],
        prediction_set=["|".join(one.confidence.prediction_set) for one in predictions],
        typicality=[one.confidence.typicality for one in predictions],
    )


def main(arguments: list[str]) -> int:
    source, destination = [*arguments, *[None] * 2][:2]
    frame = pd.read_csv(source or ROOT / "data" / "titanic.csv")
    scored = add_predictions(frame, Predictor.load(BUNDLE, LogitCache(1 << 16)))
    pd.set_option("display.width", 200)
    print(scored[["probability", "interval_low", "interval_high", "prediction_set", "typicality"]].head(8).round(3))
    by = [column for column in scored.columns if column.lower() in ("sex", "pclass")]
    print(scored.groupby(by)["probability"].agg(["size", "mean"]).round(3))
    if destination:
        scored.to_csv(destination, index=False)
        print(f"{len(scored)} rows written to {destination}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (BundleError, RowError, OSError) as error:
        sys.exit(f"data_frame.py: {error}")
