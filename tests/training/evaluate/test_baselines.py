"""Baselines see no label of the rows they are evaluated on; the paired differences are what they say."""

import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder

from models.rows import Rows
from models.schema import schema_of
from models.second.inputs import free_texts
from models.text import Renderer
from tests import churn
from tests.titanic import SCHEMA, Passenger
from training.calibrate.maps import log_losses
from training.data.table import Table, fold_known
from training.evaluate.baselines import BASELINES, compare_baselines, held_out_probabilities
from training.evaluate.folds import make_folds
from training.evaluate.groups import members
from training.second.inputs import Inputs, PiecewiseLinear


def test_no_label_of_a_fold_reaches_its_baselines(table: Table) -> None:
    folds = make_folds(table.labels, 5, 0)

    def probabilities(labels: np.ndarray) -> dict[str, np.ndarray]:
        known = fold_known(Renderer(SCHEMA), table.rows, labels, folds)
        return held_out_probabilities(table.rows, labels, folds, SCHEMA, known, 0)

    found = probabilities(table.labels)
    assert list(found) == list(BASELINES)
    changed = np.where(folds == 2, 1 - table.labels, table.labels)
    again = probabilities(changed)
    for name in BASELINES:
        assert np.array_equal(found[name][folds == 2], again[name][folds == 2]), name
        assert not np.array_equal(found[name][folds != 2], again[name][folds != 2]), name
        # Better than the base rate's .666 by far, and not so good that a label must have leaked.
        assert 0.36 < log_losses(found[name], table.labels).mean() < 0.42, name


def test_differences_are_paired_and_signed_ours_minus_theirs(table: Table) -> None:
    y = table.labels
    groups = members(table.rows, SCHEMA, [None] * len(table))
    good, poor = np.where(y == 1, 0.8, 0.2), np.where(y == 1, 0.6, 0.4)
    baseline = compare_baselines(poor, dict.fromkeys(BASELINES, good), y, groups, SCHEMA.classes)["gradient_boosting"]
    assert baseline.log_loss_difference.value == pytest.approx(np.log(0.8 / 0.6))
    assert baseline.log_loss_difference.standard_error == pytest.approx(0, abs=1e-12)
    assert "sex: female" in baseline.log_loss_difference_by_subgroup
    assert len(baseline.log_loss_difference_by_subgroup) == len(groups)


def test_baselines_do_without_what_is_unknown() -> None:
    people = [Passenger(pclass=1 + i % 3, sex=("male", "female")[i % 2]) for i in range(60)]
    labels = np.arange(60) // 7 % 2
    for name, p in held_out_probabilities(people, labels, np.arange(60) % 2, SCHEMA, [None] * 2, 0).items():
        assert ((p > 0) & (p < 1)).all(), name


def test_each_kind_of_field_is_learned_from() -> None:
    """Labels that follow one field alone: the baselines that read such a field see it."""
    rows, rng = churn.customers(600), np.random.default_rng(1)
    rows = [churn.Customer(**{name: getattr(row, name) for name in row.__struct_fields__} | {
        "note": rng.choice(["angry about the bill", "pays the bill and is happy"])}) for row in rows]  # fmt: skip
    assert free_texts(churn.SCHEMA) == ["note"]
    assert free_texts(SCHEMA) == []
    folds, base_rate = np.arange(600) % 3, 0.69
    outcomes = {
        "plan": [row.plan == 5 for row in rows], "senior": [bool(row.senior) for row in rows],
        "tenure": [6 <= (row.tenure or 0) < 24 for row in rows], "bill": [row.bill is None for row in rows],
        "note": ["angry" in row.note for row in rows],
    }  # fmt: skip
    for field, labels in outcomes.items():
        y = np.array(labels, np.int64)
        found = held_out_probabilities(rows, y, folds, churn.SCHEMA, [None] * 3, 0)
        losses = {name: log_losses(p, y).mean() / base_rate for name, p in found.items()}
        for name in BASELINES:
            if field != "note" or name == "words_logistic_regression":
                assert losses[name] < 0.5, (field, name)


@pytest.mark.parametrize("shared", [True, False])
def test_a_table_of_texts_alone_is_held_against_its_words(shared: bool) -> None:
    schema = schema_of(
        {
            "name": "notes", "label": {"column": "y", "classes": [{"value": v, "name": v} for v in "ab"]},
            "fields": [{"name": "note", "type": "text"}], "text": ["{note}"],
        }
    )  # fmt: skip
    labels, folds = np.arange(90) % 3 // 2, np.arange(90) // 3 % 2
    texts = [("angry" if y else "happy") if shared else f"word{n}" for n, y in enumerate(labels.tolist())]
    rows = Rows(schema).check([{"note": text} for text in texts])
    found = held_out_probabilities(rows, labels, folds, schema, [None] * 2, 0)
    assert list(found) == ["words_logistic_regression"]
    loss = log_losses(found["words_logistic_regression"], labels).mean()
    # Without a shared word nothing but the base rate is left, whose log loss is .637.
    assert loss < 0.4 if shared else loss == pytest.approx(0.6365, abs=1e-3)


def test_one_hot_is_scikit_learns() -> None:
    inputs = Inputs.of(churn.customers(200), churn.SCHEMA, None)
    expected = OneHotEncoder(categories=[range(size) for size in inputs.sizes]).fit_transform(inputs.categories)
    assert (inputs.one_hot() != expected).nnz == 0
    some = np.array([3, 5])
    assert (inputs[some].one_hot() != expected[some]).nnz == 0


def test_piecewise_linear_columns_add_up_to_a_spline() -> None:
    schema = schema_of({
        "name": "one", "label": {"column": "y", "classes": [{"value": "0", "name": "a"}, {"value": "1", "name": "b"}]},
        "fields": [{"name": "x", "type": "number", "bins": [0, 2, 5, 100]}], "text": ["{x}"],
    })  # fmt: skip
    seen = np.array([[1.0], [4.0], [9.0], [np.nan]])
    columns = PiecewiseLinear(seen, schema)(np.array([[0.0], [1.5], [3.5], [20.0], [np.nan]]))
    # Knots 1, 2, 5 and 9: the schema's, within what was seen.
    assert columns.tolist() == [
        [0, 0, 0, 0], [0.5, 0, 0, 0], [1, 0.5, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]
    ]  # fmt: skip
    nothing = PiecewiseLinear(np.full((3, 1), np.nan), schema)
    assert nothing(seen).tolist() == [[0], [0], [0], [1]]
    assert Rows(schema).struct(x=3).x == 3


def test_a_large_table_is_learned_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.second.held_out.MAX_FIT_ROWS", 100)
    rows = churn.customers(400)
    labels = np.array([(row.bill or 0) > 60 for row in rows], np.int64)
    sizes = []
    real = Inputs.__getitem__

    def counted(inputs: Inputs, places: np.ndarray) -> Inputs:
        sizes.append(len(places))
        return real(inputs, places)

    monkeypatch.setattr(Inputs, "__getitem__", counted)
    found = held_out_probabilities(rows, labels, np.arange(400) % 2, churn.SCHEMA, [None] * 2, 0)
    assert set(sizes) == {100, 200}
    assert log_losses(found["gradient_boosting"], labels).mean() < 0.4
