"""Costs of mistakes: how they are written, what is refused, and the decision that costs least."""

from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.bundle.manifest import BundleError
from models.bundle.read import Bundle
from models.decisions.costs import Costs, CostsError, check_costs, parse_costs
from models.predictor import Predictor
from models.schema import SchemaError, schema_of
from tests import churn, penguins
from tests.titanic import DATA, SCHEMA
from training.data.description import read_description
from training.data.source import DataError

TWO = ("died", "survived")


def test_a_pair_says_both_mistakes() -> None:
    assert parse_costs("died:survived=5:1") == {"died": {"survived": 5}, "survived": {"died": 1}}
    assert parse_costs(" left early : stays = .5:1".replace(".5", "0.5") + ",a:b=1e3:2.5") == {
        "left early": {"stays": 0.5}, "stays": {"left early": 1}, "a": {"b": 1000}, "b": {"a": 2.5},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is not of the form CLASS:OTHER=COST:COST, as in died:survived=5:1"),
        ("died:survived=5", "'died:survived=5' is not of the form CLASS:OTHER=COST:COST, as in died:survived=5:1"),
        ("died:survived=-5:1", "'died:survived=-5:1' is not of the form"),
        ("died:survived=nan:1", "'died:survived=nan:1' is not of the form"),
        ("died:survived=5:0", "a cost is above 0 and at most 1e+09, and not 0"),
        ("died:survived=5:1e10", "a cost is above 0 and at most 1e+09, and not 1e+10"),
        ("died:survived=5:1,survived:died=1:5", "survived for died is there twice"),
    ],
)
def test_other_texts_are_refused(text: str, reason: str) -> None:
    with pytest.raises(CostsError) as caught:
        parse_costs(text)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("table", "path", "reason"),
    [
        ({}, "", "they name no mistake; without costs leave them out"),
        ({"died": {}}, "", "they name no mistake; without costs leave them out"),
        ({"lived": {"died": 1.0}}, "lived", "there is no class lived; there are died, survived"),
        ({"died": {"lived": 1.0}}, "died.lived", "there is no class lived; there are died, survived"),
        ({"died": {"died": 1.0}}, "died.died", "to be right costs nothing; only mistakes have costs"),
        ({"died": {"survived": 0.0}}, "died.survived", "a cost is above 0 and at most 1e+09, and not 0"),
        ({"died": {"survived": float("nan")}}, "died.survived", "a cost is above 0 and at most 1e+09, and not nan"),
    ],
)
def test_costs_that_say_nothing_or_too_much_are_refused(
    table: dict[str, dict[str, float]], path: str, reason: str
) -> None:
    with pytest.raises(CostsError) as caught:
        check_costs(table, TWO)
    assert (caught.value.path, str(caught.value)) == (path, reason)
    with pytest.raises(SchemaError) as refused:
        msgspec.structs.replace(SCHEMA, costs=table)
    assert (refused.value.path, refused.value.reason) == (f"costs.{path}".rstrip("."), reason)


def test_a_description_has_costs_and_a_fault_its_line(tmp_path: Path) -> None:
    classes = '[{value = "0", name = "died"}, {value = "1", name = "survived"}]'
    head = f'row = "passenger"\n[label]\ncolumn = "Survived"\nclasses = {classes}\n'
    path = tmp_path / "costs.toml"
    path.write_text(head + "[costs]\ndied = { survived = 5 }\n")
    schema = read_description(path, DATA)
    assert schema.decision_costs is not None
    assert schema.decision_costs.matrix.tolist() == [[0, 5], [1, 0]]
    assert schema_of(msgspec.to_builtins(schema)) == schema
    path.write_text(head + "[costs]\ndied = { lived = 5 }\n")
    with pytest.raises(DataError, match=r"line 6: costs\.died\.lived: there is no class lived; there are died, surv"):
        read_description(path, DATA)


def test_of_two_classes_the_threshold_is_that_of_the_costs() -> None:
    """At 5 to 1 a survived must be five times as likely as a died, or more: from 5/6 on."""
    costs = Costs.of(parse_costs("died:survived=5:1"), TWO)
    assert costs.threshold == pytest.approx(5 / 6)
    assert costs.expected([0.25, 0.75]).tolist() == [0.75, 1.25]
    assert [costs.decide([1 - p, p]) for p in (0.1, 0.5, 0.83, 0.84, 0.99)] == [0, 0, 0, 1, 1]


def test_of_equal_costs_the_likelier_class_and_then_the_later() -> None:
    costs = Costs.of({"a": {"b": 3.0}, "b": {"a": 1.0}}, ("a", "b"))
    assert costs.expected([0.25, 0.75]).tolist() == [0.75, 0.75]
    assert costs.decide([0.25, 0.75]) == 1
    assert Costs.of({"a": {"b": 1.0}}, ("a", "b")).decide([0.5, 0.5]) == 1
    # Both a and b cost 0.5; a is the likelier.
    three = Costs.of({"a": {"b": 0.5, "c": 9.0}, "b": {"a": 1.0, "c": 9.0}, "c": {"a": 1.0, "b": 1.0}}, ("a", "b", "c"))
    p = [0.5, 0.25, 0.25]
    assert three.expected(p).tolist() == [0.5, 0.5, 6.75]
    assert three.decide(p) == 0


def test_of_three_classes_what_is_not_named_costs_one() -> None:
    costs = Costs.of({"Gentoo": {"Adelie": 10.0}}, penguins.SPECIES)
    assert costs.matrix.tolist() == [[0, 10, 1], [1, 0, 1], [1, 1, 0]]
    # To take the likeliest would cost 10 · 0.2 + 0.3; Gentoo 0.5 + 0.3; Chinstrap 0.2 + 0.5.
    assert costs.expected([0.2, 0.5, 0.3]) == pytest.approx([0.8, 2.3, 0.7])
    assert costs.decide([0.2, 0.5, 0.3]) == 2


def test_equal_costs_are_the_outcome() -> None:
    costs = Costs.of({"Gentoo": {"Adelie": 1.0}}, penguins.SPECIES)
    for eighths in product(range(9), repeat=3):
        if sum(eighths) == 8:
            p = [each / 8 for each in eighths]
            assert costs.decide(p) == 2 - int(np.argmax(p[::-1]))


def test_predictions_have_the_decision_of_least_expected_cost(churn_bundle: Bundle, penguins_bundle: Bundle) -> None:
    rows = churn.customers(40, seed=3)
    plain = Predictor.load(churn_bundle.folder).predict(rows)
    assert {one.decision for one in plain} == {None}
    # The false alarm costs t, the miss 1 − t: a row is taken for leaves from the probability t on.
    t = round(float(np.median([one.probabilities[1] for one in plain])), 4)
    found = Predictor.load(churn_bundle.folder, costs=f"stays:leaves={t}:{1 - t}").predict(rows)
    assert [one.decision == "leaves" for one in found] == [one.probabilities[1] >= t for one in plain]
    assert {one.decision for one in found} == {"stays", "leaves"}
    assert [one.outcome for one in found] == [one.outcome for one in plain]
    matrix = np.array([[0, 10, 1], [1, 0, 1], [1, 1, 0]])
    for one in Predictor.load(penguins_bundle.folder, costs="Gentoo:Adelie=10:1").predict(penguins.table(40).rows):
        assert one.decision == penguins.SPECIES[int((np.array(one.probabilities) @ matrix).argmin())]


def test_costs_of_another_table_are_refused_by_the_flag(churn_bundle: Bundle) -> None:
    reason = r"^--costs died:survived=5:1: there is no class died; there are stays, leaves$"
    with pytest.raises(BundleError, match=reason):
        Predictor.load(churn_bundle.folder, costs="died:survived=5:1")
