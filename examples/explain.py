"""What each field of a row adds, by both methods, without a service.

./run python examples/explain.py
"""

import os
import sys
from pathlib import Path

from models.bundle.manifest import BundleError
from models.engines.logit_cache import LogitCache
from models.explanation import explain
from models.predictor import Predictor

ROOT = Path(__file__).parents[1]
BUNDLE = os.environ.get("EVENKEEL_BUNDLE", ROOT / "artifacts" / "titanic")
ALLISON = {
    "pclass": 1, "sex": "female", "name": "Allison, Miss. Helen Loraine", "age": 2, "sibsp": 1, "parch": 2,
    "fare": 151.55, "ticket": "113781", "cabin": "C22 C26", "embarked": "S",
}  # fmt: skip


def main() -> int:
    predictor = Predictor.load(BUNDLE, LogitCache(4096))
    for method in ("unknown", "shapley"):
        found = explain(predictor, ALLISON, method)
        total = sum(one.contribution for one in found.contributions)
        print(f'{method}: the model read "{found.text}"')
        for one in found.contributions:
            print(f"  {one.field:8} {one.value!s:30} {one.contribution:+7.3f}")
        print(
            f"  {'sum':39} {total:+7.3f}   log-odds {found.log_odds:+.3f} "
            f"minus the baseline's {found.baseline_log_odds:+.3f} = {found.log_odds - found.baseline_log_odds:+.3f}\n"
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BundleError as error:
        sys.exit(f"explain.py: {error}")
