"""Which recipe: held-out log loss of variants on the same folds, after the same calibration, paired.

    ./run bench recipe_study --seeds 3 --variants default,layers1 --out study.jsonl

Every variant is cross-fitted, one fine-tuning per core at a time. Its logits are calibrated on the other folds in two
ways: by slope and offset, which compares models, and by the loss's inverse and a temperature, which is what a bundle
does. A difference to the first variant is printed with its paired standard error over rows, seeds averaged first.
"""

import argparse
import functools
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.harness.texts import data, schema
from models.bert import bert
from models.bert.tokenizer import Tokenizer
from models.calibration.logit import sigmoid
from models.engines.backend import prepare
from models.engines.engine import usable_cores
from models.text import Renderer
from training.calibrate.maps import fit_temperature, log_losses
from training.data.table import Table, fold_known, read_table, render_texts
from training.evaluate.folds import make_folds
from training.fit.encoding import Encoded, Pretrained, encode
from training.fit.finetune import Recipe, finetune, predict
from training.fit.pretrained import find_base
from training.fit.progress import TrainingProgress
from training.losses.registry import make_loss

FOLDS = 5
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "mean_pooling": {"pooling": "mean"},
    "layers1": {"trained_layers": 1},
    "layers1_fast": {"trained_layers": 1, "epochs": 12, "learning_rate": 1e-3},
    "layers1_runs3": {"trained_layers": 1, "epochs": 12, "learning_rate": 1e-3, "runs": 3},
    "layers3": {"trained_layers": 3, "learning_rate": 3e-4},
    "epochs4": {"epochs": 4},
    "epochs10": {"epochs": 10, "averaged_epochs": 4, "final_rate": 0.3},
    "rate2e-4": {"learning_rate": 2e-4},
    "averaged": {"averaged_epochs": 3, "final_rate": 0.2},
    "runs2": {"runs": 2},
    "batch16": {"batch_rows": 16, "learning_rate": 3e-4, "head_learning_rate": 7e-4},
    "batch64": {"batch_rows": 64},
}
CLS_POOLED = bert.BertModel.pooled


def mean_pooled(self: bert.BertModel, x: mx.array, mask: mx.array, start: int) -> mx.array:
    """As `BertModel.pooled`, but the pooler reads the mean of all tokens, which no Hugging Face head does."""
    B, L, D = x.shape
    x, bias = x.reshape(B * L, D), bert._bias(mask)
    for layer in self.encoder.layer[start:]:
        x = layer(x, bias, B)
    weights = mask[:, :, None].astype(mx.float32)
    return self.pooler((x.reshape(B, L, D) * weights).sum(axis=1) / weights.sum(axis=1))


@functools.cache
def inputs(trained_layers: int, seed: int) -> tuple[Pretrained, Table, Encoded]:
    """Base, table and the texts of each fold, encoded; once per worker."""
    prepare(threads=1)
    base, tokenizer_path = find_base(None)
    table = read_table(data(), schema())
    folds = make_folds(table.labels, FOLDS, seed)
    renderer = Renderer(table.schema)
    texts = render_texts(renderer, table.rows, fold_known(renderer, table.rows, table.labels, folds))
    return base, table, encode(base, Tokenizer.load(tokenizer_path), texts, trained_layers)


def held_out_logits(variant: str, loss: str, seed: int, fold: int) -> tuple[np.ndarray, float]:
    """Logits of one fold's rows from a model trained on the others, and the CPU seconds it took."""
    start, options = time.process_time(), dict(VARIANTS[variant])
    bert.BertModel.pooled = mean_pooled if options.pop("pooling", "cls") == "mean" else CLS_POOLED
    recipe = msgspec.convert(options, Recipe)
    base, table, encoded = inputs(recipe.trained_layers, seed)
    folds = make_folds(table.labels, FOLDS, seed)
    seen, here = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
    with TemporaryDirectory() as folder:
        model = finetune(
            base, encoded.for_model(fold), table.labels, seen, recipe=recipe,
            loss=make_loss(loss, schema().classes, table.labels[seen]), seed=100 * seed + fold, phase=variant,
            progress=TrainingProgress(Path(folder) / "log", 1, quiet=True),
        )  # fmt: skip
    pair = predict(model, encoded.for_model(fold), here)
    return pair[:, 1] - pair[:, 0], time.process_time() - start


def slope_and_offset(logits: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Log loss per row (n,) after logistic regression on the logit, fitted on the other folds."""
    losses = np.empty(len(labels))
    for fold in range(FOLDS):
        rest, here = folds != fold, folds == fold
        platt = LogisticRegression(C=1e4).fit(logits[rest, None], labels[rest])
        losses[here] = log_losses(platt.predict_proba(logits[here, None])[:, 1], labels[here])
    return losses


def inverse_and_temperature(loss: str, logits: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Log loss per row (n,) after the loss's inverse and a temperature fitted on the other folds."""
    inverse = make_loss(loss, schema().classes, labels).inverse()
    unbent = inverse(logits) if inverse else logits
    losses = np.empty(len(labels))
    for fold in range(FOLDS):
        rest, here = folds != fold, folds == fold
        temperature = fit_temperature(unbent[rest], labels[rest])
        losses[here] = log_losses(sigmoid(temperature(unbent[here])), labels[here])
    return losses


def study(variant: str, loss: str, seeds: int, labels: np.ndarray, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Cross-fit a variant over all seeds."""
    jobs = {(seed, fold): pool.submit(held_out_logits, variant, loss, seed, fold)
            for seed in range(seeds) for fold in range(FOLDS)}  # fmt: skip
    platt, served, seconds = [], [], 0.0
    for seed in range(seeds):
        folds, logits = make_folds(labels, FOLDS, seed), np.empty(len(labels))
        for fold in range(FOLDS):
            logits[folds == fold], took = jobs[seed, fold].result()
            seconds += took
        platt.append(slope_and_offset(logits, labels, folds))
        served.append(inverse_and_temperature(loss, logits, labels, folds))
    return {
        "variant": variant, "loss": loss, "seeds": seeds, "cpu_seconds": seconds / seeds,
        "log_loss": [float(rows.mean()) for rows in platt], "served_log_loss": [float(rows.mean()) for rows in served],
        "rows": np.mean(platt, axis=0).tolist(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="default: all")
    parser.add_argument("--loss", default="focal_smooth")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="append one JSON line per variant")
    arguments = parser.parse_args()
    names = arguments.variants.split(",")
    if unknown := set(names) - set(VARIANTS):
        parser.error(f"no variant {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    labels, first = read_table(data(), schema()).labels, None
    print(f"{len(labels)} rows, {FOLDS} folds, {arguments.seeds} seeds, loss {arguments.loss}")
    print(
        "| variant | log loss | difference ± se | served | by seed | CPU seconds per seed |\n|---|---|---|---|---|---|"
    )
    with ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn")) as pool:
        for name in names:
            result = study(name, arguments.loss, arguments.seeds, labels, pool)
            rows = np.array(result["rows"])
            first = rows if first is None else first
            error = (rows - first).std(ddof=1) / np.sqrt(len(rows))
            by_seed = " ".join(f"{value:.4f}" for value in result["log_loss"])
            print(
                f"| {name} | {rows.mean():.4f} | {(rows - first).mean():+.4f} ± {error:.4f} "
                f"| {np.mean(result['served_log_loss']):.4f} | {by_seed} | {result['cpu_seconds']:.0f} |",
                flush=True,
            )
            if arguments.out:
                with arguments.out.open("a") as out:
                    out.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
