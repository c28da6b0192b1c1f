"""A fine-tuning: how long it is, what it says on the way, and what becomes of one that learns nothing."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from models.bert.tokenizer import Tokenizer
from tests.training.bases import write_base
from training.fit import finetune as module
from training.fit.crossfit import check_scores, foretell, ranking
from training.fit.encoding import Encoded, Pretrained, encode
from training.fit.epoch_diagnostics import EpochDiagnostics
from training.fit.finetune import Recipe, TrainingError, finetune, predict
from training.fit.pretrained import find_base
from training.fit.process import FineTuningJob
from training.losses.registry import LossChoice

CLASSES = ("stays", "leaves")
LABELS = np.arange(60) % 2
RATES = {"learning_rate": 5e-3, "head_learning_rate": 5e-3}


class Listened:
    """Counts steps, and keeps the epochs and what is said."""

    def __init__(self) -> None:
        self.steps, self.epochs, self.notes = 0, list[EpochDiagnostics](), list[str]()

    def advance(self, steps: int = 1) -> None:
        self.steps += steps

    def epoch(self, diagnostics: EpochDiagnostics) -> None:
        self.epochs.append(diagnostics)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pretrained, Encoded]:
    found, tokenizer = find_base(str(write_base(tmp_path_factory.mktemp("base") / "base")))
    texts = [f"{'few' if label == 0 else 'many'} calls, plan {number % 7}" for number, label in enumerate(LABELS)]
    return found, encode(found, Tokenizer.load(tokenizer, found.max_tokens), texts, 1)


def tuned(base: tuple[Pretrained, Encoded], recipe: Recipe, listened: Listened) -> np.ndarray:
    rows = np.arange(len(LABELS))
    model = finetune(
        *base, LABELS, rows, recipe=recipe, loss=LossChoice().make(CLASSES, LABELS), seed=0, phase="fold 1 of 2",
        progress=listened,
    )  # fmt: skip
    return predict(model, base[1], rows)


def test_steps_end_a_fine_tuning_where_epochs_do_not(base: tuple[Pretrained, Encoded]) -> None:
    recipe, listened = Recipe(epochs=100, max_steps=9, batch_rows=8, **RATES), Listened()
    tuned(base, recipe, listened)
    assert listened.steps == recipe.steps(60) == 9
    assert [(each.epoch, each.rows) for each in listened.epochs] == [(1, 60), (2, 8)]


def test_the_passengers_recipe_is_eight_epochs_and_few_rows_have_more() -> None:
    assert Recipe.epochs_for(891) == Recipe().epochs == 8
    assert Recipe().steps(891) == 8 * 28
    assert Recipe.epochs_for(189) == 14
    assert Recipe().steps(200_000) == 600


def test_what_collapses_is_begun_anew_at_lower_rates(
    base: tuple[Pretrained, Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, collapsed = [], iter([True, False])

    def note_rates(*arguments: object) -> object:
        rates.append((arguments[4].learning_rate, arguments[4].head_learning_rate))  # type: ignore[attr-defined]
        return original(*arguments)  # type: ignore[arg-type]

    original = module._finetune
    monkeypatch.setattr(module, "_finetune", note_rates)
    monkeypatch.setattr(module, "_has_collapsed", lambda *_: next(collapsed))
    recipe, listened = Recipe(epochs=2, **RATES), Listened()
    tuned(base, recipe, listened)
    assert rates == [(5e-3, 5e-3), (pytest.approx(2e-3), pytest.approx(2e-3))]
    assert listened.notes == ["fold 1 of 2: the model has collapsed, and is trained anew at lower rates"]
    assert listened.steps == recipe.steps(60)


def test_what_still_collapses_is_refused_and_what_predicts_one_class_is_not(base: tuple[Pretrained, Encoded]) -> None:
    listened = Listened()
    with pytest.raises(TrainingError, match="fold 1 of 2: the model has collapsed, it says the same of every row"):
        tuned(base, Recipe(epochs=3, learning_rate=1e3, head_learning_rate=1e3), listened)
    assert len(listened.notes) == 2
    logits = tuned(base, Recipe(epochs=1, learning_rate=1e-4, head_learning_rate=1e-4), Listened())
    assert np.ptp(logits[:, 1] - logits[:, 0]) > 1e-3


def test_scores_that_rank_backwards_are_refused_and_chance_is_told() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    z = np.stack([np.zeros(400), labels + rng.normal(size=400)], axis=1)
    assert check_scores(z, labels) == ""
    with pytest.raises(TrainingError, match=r"rank the classes backwards \(AUC 0\.2"):
        check_scores(z, 1 - labels)
    assert check_scores(z, rng.permutation(labels)).startswith("the held-out scores may rank no better than chance")
    held = np.where(np.arange(400)[:, None] < 100, z, np.nan)
    assert check_scores(held, labels) == ""


def test_of_several_classes_each_is_ranked_against_the_others() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 400, p=(0.5, 0.3, 0.15, 0.05))
    z = np.eye(4)[labels] * 1.5 + rng.normal(size=(400, 4))
    assert check_scores(z, labels) == ""
    with pytest.raises(TrainingError, match="rank the classes backwards"):
        check_scores(-z, labels)
    assert check_scores(z, rng.permutation(labels)).startswith("the held-out scores may rank no better than chance")
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    found = ranking(z, labels)
    assert found.value == pytest.approx(roc_auc_score(labels, p, multi_class="ovr", average="macro"))


def test_an_epochs_line_names_the_classes_that_go_worst() -> None:
    labels = np.arange(40) % 8
    logits = np.eye(8)[np.where(labels < 2, 7, labels)]
    names = [f"class_{number}" for number in range(8)]
    epoch = EpochDiagnostics.of(logits, labels, names, phase="fold", run=1, epoch=1, loss=0.5, seconds=1.0)
    assert "accuracy 0.750 (class_0 0.00 class_1 0.00 class_2 1.00 class_3 1.00 class_4 1.00)" in epoch.line()


def test_how_long_it_takes_is_said_where_it_is_long(base: tuple[Pretrained, Encoded]) -> None:
    def job(**recipe: int) -> FineTuningJob:
        return FineTuningJob(
            classes=CLASSES, config=base[0].config, weights=str(base[0].weights), loss=LossChoice(),
            recipe=Recipe(**recipe), seed=0, folds=2, start=base[1].start,
        )  # fmt: skip

    both = Encoded(base[1].tokens, base[1].offsets, np.stack([base[1].index] * 3), base[1].start, base[1].hidden)
    folds = np.arange(60)[None] // 30
    assert foretell(job(epochs=2), both, LABELS, folds) == ""
    sentence = foretell(job(epochs=100), both, LABELS, folds)
    assert sentence.startswith("training takes about ")
    assert "400 steps of 32 texts of 7 tokens" in sentence
    assert "fewer --max-steps" in foretell(job(epochs=10**8, max_steps=10**8), both, LABELS, folds)
