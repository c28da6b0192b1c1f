"""Which recipe: out-of-fold log loss of variants on the same folds, after the same calibration, paired.

    ./run bench recipe_study --seeds 2 --variants default,layers3 --out study.jsonl

Every variant is cross-fitted; its logits are calibrated by the loss's inverse and a temperature fitted on the
other folds. A difference is printed with its paired standard error over rows (seeds averaged first).
"""

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
from sklearn.linear_model import LogisticRegression

from models.backend import prepare, usable_cores
from models.passenger import describe
from models.tokenizer import Tokenizer
from training.crossfit import crossfit, make_folds
from training.data import read_table
from training.finetune import Pretrained, Recipe, encode
from training.losses import LossChoice
from training.pretrained import find_base
from training.progress import TrainingProgress
from training.task import Job

VARIANTS: dict[str, dict[str, float]] = {
    "default": {},
    "layers1": {"trained_layers": 1},
    "layers3": {"trained_layers": 3, "learning_rate": 1e-4},
    "gentle": {"learning_rate": 1e-4, "head_learning_rate": 2e-4},
    "gentle8": {"learning_rate": 1e-4, "head_learning_rate": 2e-4, "epochs": 8},
    "layers6": {"trained_layers": 6, "learning_rate": 5e-5},
    "epochs3": {"epochs": 3},
    "epochs6": {"epochs": 6},
    "epochs8": {"epochs": 8},
    "rate1e-4": {"learning_rate": 1e-4},
    "rate4e-4": {"learning_rate": 4e-4},
    "head2e-4": {"head_learning_rate": 2e-4},
    "runs2": {"runs": 2},
    "runs3": {"runs": 3},
    "swa": {"epochs": 6, "averaged_epochs": 3, "final_rate": 0.3},
    "swa4": {"epochs": 4, "averaged_epochs": 2, "final_rate": 0.3},
    "batch16": {"batch_rows": 16},
}


def calibrated_log_loss(logits: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Log loss per row (n,), the logistic map (slope and offset) fitted on the other folds."""
    losses = np.empty(len(labels))
    for fold in np.unique(folds):
        rest, here = folds != fold, folds == fold
        platt = LogisticRegression(C=1e4).fit(logits[rest, None], labels[rest])
        p = platt.predict_proba(logits[here, None])[:, 1]
        losses[here] = -np.where(labels[here] == 1, np.log(p), np.log(1 - p))
    return losses


def run_variant(name: str, loss: str, seeds: int, base: Pretrained, tokenizer: Tokenizer) -> dict[str, object]:
    table = read_table(Path("data/titanic.csv"))
    recipe = msgspec.convert(VARIANTS[name], Recipe)
    texts = [describe(row) for row in table.passengers]
    encoded = encode(base, tokenizer, texts, recipe.trained_layers)
    start, losses = time.monotonic(), []
    for seed in range(seeds):
        folds = make_folds(table.labels, 5, seed)
        job = Job(
            config=base.config, weights=str(base.weights), loss=LossChoice(name=loss), recipe=recipe,
            seed=100 * seed, folds=5, start=encoded.start,
        )  # fmt: skip
        with TemporaryDirectory() as folder:
            progress = TrainingProgress(Path(folder) / "log", 1, quiet=True)
            logits = crossfit(
                job, encoded, table.labels, folds, work=Path(folder), processes=usable_cores(), progress=progress,
                final=False,
            )  # fmt: skip
        losses.append(calibrated_log_loss(logits, table.labels, folds))
    rows = np.mean(losses, axis=0)
    return {
        "variant": name, "loss": loss, "seeds": seeds, "log_loss": float(rows.mean()),
        "by_seed": [float(one.mean()) for one in losses], "seconds_per_seed": (time.monotonic() - start) / seeds,
        "rows": rows.tolist(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--loss", default="focal_smooth")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="append one JSON line per variant")
    arguments = parser.parse_args()
    print(prepare(), file=sys.stderr)
    base, tokenizer_path = find_base(None)
    tokenizer = Tokenizer.load(tokenizer_path)
    first: np.ndarray | None = None
    print(f"{'variant':<12} {'log loss':>8} {'difference ± se':>18} {'s/seed':>7}  by seed")
    for name in arguments.variants.split(","):
        result = run_variant(name, arguments.loss, arguments.seeds, base, tokenizer)
        rows = np.array(result["rows"])
        first = rows if first is None else first
        difference = rows - first
        error = difference.std(ddof=1) / np.sqrt(len(rows))
        by_seed = " ".join(f"{value:.4f}" for value in result["by_seed"])
        print(
            f"{name:<12} {result['log_loss']:>8.4f} {difference.mean():>+9.4f} ± {error:.4f} "
            f"{result['seconds_per_seed']:>7.1f}  {by_seed}",
            flush=True,
        )
        if arguments.out:
            with arguments.out.open("a") as out:
                out.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
