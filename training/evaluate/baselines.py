"""What else would predict the same rows: tabular baselines, trained and scored on the same folds.

Their settings were fixed beforehand, scikit-learn's defaults but for what small data call for; none was tuned on these
rows. They minimise log loss themselves, so they are scored without further calibration.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from msgspec import Struct
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, SplineTransformer, StandardScaler
from threadpoolctl import threadpool_limits

from models.calibration.logit import sigmoid
from models.features.titanic import TITLES, Companions, party_outcomes
from models.passenger import Passenger
from models.text import render
from training.calibrate.maps import log_losses
from training.evaluate.estimates import Estimate, mean, roc_auc
from training.evaluate.subgroups import Members

NUMBERS = ["age", "sibsp", "parch", "fare"]
PARTY_OUTCOMES = ["women_outcome", "men_outcome"]
AGE_KNOTS = np.array([[0.0], [6], [13], [25], [40], [60], [80]])
"""Knots of the age spline: denser among children, where survival changes fast."""

WORDS = "words_logistic_regression"
BASELINES = {
    "plain_logistic_regression": "logistic regression on sex, class, port, age, relatives and fare",
    "spline_logistic_regression": "logistic regression on sex × class, sex × age spline, title, family, companions",
    "gradient_boosting": "gradient-boosted trees on the numbers, sex, class, port, title, cabin and companions",
    WORDS: "logistic regression on the numbers and the same words",
}
"""Name → what it is."""


class Baseline(Struct, frozen=True, kw_only=True):
    """A baseline's held-out scores and the paired difference: this model's log loss minus the baseline's, row by row.

    Below 0 this model is better. Standard errors are over rows; the folds' training sets overlap, so the spread that
    another training sample would add is not in them (Bengio & Grandvalet, 2004).
    """

    what: str
    log_loss: Estimate
    brier: Estimate
    auc: Estimate
    log_loss_difference: Estimate
    log_loss_difference_by_subgroup: dict[str, Estimate]


def held_out_probabilities(
    passengers: Sequence[Passenger], labels: np.ndarray, folds: np.ndarray, companions: Sequence[Companions], seed: int
) -> dict[str, np.ndarray]:
    """Baseline's name → probabilities (n,) in (0, 1) of each row from a baseline trained on the other folds.

    ``companions`` are those known to each fold's baselines, which read what the model reads of them.
    """
    probabilities = {name: np.empty(len(labels)) for name in BASELINES}
    # The rows are so few that threads cost more than they give, a hundredfold when other work keeps the cores busy.
    with threadpool_limits(1):
        for fold in np.unique(folds):
            seen, here, frame = folds != fold, folds == fold, _frame(passengers, companions[fold])
            for name, p in probabilities.items():
                model = _make(name, seed).fit(frame[seen], labels[seen])
                p[here] = model.predict_proba(frame[here])[:, 1]
    return {name: np.clip(p, *sigmoid(np.array([-30.0, 30.0]))) for name, p in probabilities.items()}


def compare_baselines(
    ours: np.ndarray, probabilities: dict[str, np.ndarray], labels: np.ndarray, groups: Members
) -> dict[str, Baseline]:
    """Baselines' probabilities (n,) beside ours (n,) for the same rows."""
    own, compared = log_losses(ours, labels), {}
    for name, p in probabilities.items():
        difference = own - log_losses(p, labels)
        compared[name] = Baseline(
            what=BASELINES[name], log_loss=mean(log_losses(p, labels)), brier=mean((p - labels) ** 2),
            auc=roc_auc(p, labels), log_loss_difference=mean(difference),
            log_loss_difference_by_subgroup={group: mean(difference[rows]) for (_, group), rows in groups.items()},
        )  # fmt: skip
    return compared


def _frame(passengers: Sequence[Passenger], companions: Companions) -> pd.DataFrame:
    """The baselines' columns (n rows); ``companions`` are all that they know of labels and of other rows."""
    rows = []
    for passenger in passengers:
        text, outcomes = render(passenger, companions), party_outcomes(passenger, companions)
        phrases, sibsp, parch = _phrases(text), passenger.sibsp or 0, passenger.parch or 0
        rows.append({
            "sex": passenger.sex, "pclass": str(passenger.pclass), "sex_class": f"{passenger.sex} {passenger.pclass}",
            "embarked": passenger.embarked or "unknown", "age": passenger.age, "sibsp": sibsp, "parch": parch,
            "fare": passenger.fare,
            "log_fare": None if passenger.fare is None else math.log1p(passenger.fare), "relatives": sibsp + parch,
            "title": next((word for word in phrases if word in TITLES.values()), "none"),
            "family": next(word for word in phrases if word in ("alone", "small family", "large family")),
            "cabin": next((word for word in phrases if word.startswith("deck")), "none"), "text": text,
            "women_outcome": outcomes[0] or "none", "men_outcome": outcomes[1] or "none",
        })  # fmt: skip
    # None becomes NaN, which is imputed.
    frame = pd.DataFrame(rows).astype(dict.fromkeys([*NUMBERS, "log_fare", "relatives"], float))
    known = frame["age"].notna().to_numpy()
    # An unknown age has no place on the spline: zeros there, and a column that says so.
    spline = SplineTransformer(knots=AGE_KNOTS, extrapolation="constant", include_bias=False).fit(AGE_KNOTS)
    basis = spline.transform(np.nan_to_num(frame[["age"]].to_numpy())) * known[:, None]
    male = (frame["sex"] == "male").to_numpy(float)[:, None]
    ages = np.concatenate([basis, basis * male, 1 - known[:, None], (1 - known[:, None]) * male], axis=1)
    return frame.join(pd.DataFrame(ages).add_prefix("age_"))


def _make(name: str, seed: int) -> Any:
    impute = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    numbers, categories = make_pipeline(impute, StandardScaler()), OneHotEncoder(handle_unknown="ignore")
    if name == "plain_logistic_regression":
        columns = make_column_transformer((numbers, NUMBERS), (categories, ["sex", "pclass", "embarked"]))
    elif name == "spline_logistic_regression":
        columns = make_column_transformer(
            (numbers, ["log_fare", "relatives"]), ("passthrough", make_column_selector(r"age_\d+")),
            (categories, ["sex", "pclass", "sex_class", "title", "family", "embarked", "cabin", *PARTY_OUTCOMES]),
        )  # fmt: skip
    elif name == "gradient_boosting":
        codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        named = ["sex", "pclass", "embarked", "title", "cabin", *PARTY_OUTCOMES]
        trees = HistGradientBoostingClassifier(
            learning_rate=0.05, max_iter=120, max_leaf_nodes=8, min_samples_leaf=20, l2_regularization=1.0,
            early_stopping=False, random_state=seed,
        )  # fmt: skip
        # Unknown is below every value: a side of its own in a tree.
        unknown = SimpleImputer(strategy="constant", fill_value=-1, keep_empty_features=True)
        return make_pipeline(make_column_transformer((codes, named), (unknown, NUMBERS)), trees)
    else:
        columns = make_column_transformer((numbers, NUMBERS), (CountVectorizer(analyzer=_phrases), "text"))
    return make_pipeline(columns, LogisticRegression(max_iter=1000))


def _phrases(text: str) -> list[str]:
    return text.split(", ")
