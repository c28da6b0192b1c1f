"""A wrong answer is told from a right one, whatever is wrong with it."""

import json
from typing import Any

import pytest

from loadtest.traffic.corpus import Case
from loadtest.traffic.responses import check_outcomes, check_refused, check_response, check_text, server_timing

CASES = [
    Case(b"{}", "survived", {"v1": (1 - 0.9, 0.9), "v2": (1 - 0.8, 0.8)}),
    Case(b"{}", "died", {"v1": (0.8, 0.2), "v2": (0.7, 0.3)}),
]
IDS = ("0199c1f2-0000-7000-8000-000000000001", "0199c1f2-0000-7000-8000-000000000002")
PROBLEM = json.dumps({"type": "about:blank", "title": "Too Many Requests", "status": 429, "detail": "full"}).encode()


def prediction(place: int = 0, version: str = "v1", **changed: Any) -> dict[str, Any]:
    p = changed.pop("probability", CASES[place].expected[version][1])
    confidence = {
        "interval": [p - 0.05, p + 0.05], "prediction_set": ["survived"], "coverage": 0.9, "margin": abs(2 * p - 1),
        "typicality": 0.5, "abstain": False,
    } | changed.pop("confidence", {})  # fmt: skip
    return {
        "id": IDS[place], "model": {"name": "titanic", "version": version},
        "outcome": "survived" if p >= 0.5 else "died", "probability": p,
        "probabilities": {"died": 1 - p, "survived": p},
        "confidence": confidence,
    } | changed  # fmt: skip


def batch(*predictions: dict[str, Any]) -> Any:
    return check_response(200, json.dumps({"predictions": list(predictions)}).encode(), CASES, None, batch=True)


def single(**changed: Any) -> Any:
    return check_response(200, json.dumps(prediction(**changed)).encode(), CASES[:1], None, batch=False)


def test_the_right_answers_are_right() -> None:
    assert single().result == "ok"
    assert single(version="v2").version == "v2"
    found = batch(prediction(0), prediction(1))
    assert (found.result, found.ids) == ("ok", IDS)


@pytest.mark.parametrize(
    "changed",
    [
        {"probability": 0.9002},
        {"probability": float("nan")},
        {"outcome": "died"},
        {"outcome": "lost"},
        {"probabilities": {"died": 0.9, "survived": 0.1}},
        {"probabilities": {"died": 0.2, "survived": 0.9}},
        {"probabilities": {"survived": 0.9, "died": 0.1}},
        {"confidence": {"prediction_set": ["lost"]}},
        {"id": "1"},
        {"model": {"name": "titanic", "version": "v3"}},
        {"confidence": {"interval": [0.91, 0.95]}},
        {"confidence": {"interval": [0.5, 1.01]}},
        {"confidence": {"abstain": True}},
        {"confidence": {"prediction_set": []}},
        {"confidence": {"margin": 0.1}},
        {"confidence": {"typicality": 1.5}},
        {"confidence": {"typicality": "high"}},
    ],
)
def test_a_wrong_answer_is_wrong(changed: dict[str, Any]) -> None:
    assert single(**changed).result == "wrong"


PENGUIN = Case(b"{}", "Adelie", {"v1": (0.2, 0.7, 0.1)})


def of_three(**changed: Any) -> Any:
    names = ("Gentoo", "Adelie", "Chinstrap")
    confidence = {
        "intervals": {"Gentoo": [0.1, 0.3], "Adelie": [0.6, 0.8], "Chinstrap": [0, 0.2]}, "margin": 0.5,
        "prediction_set": ["Adelie", "Gentoo"], "coverage": 0.9, "typicality": 0.5, "abstain": True,
    } | changed.pop("confidence", {})  # fmt: skip
    body = {
        "id": IDS[0], "model": {"name": "penguins", "version": "v1"}, "outcome": "Adelie",
        "probabilities": dict(zip(names, PENGUIN.expected["v1"], strict=True)), "confidence": confidence,
    } | changed  # fmt: skip
    return check_response(200, json.dumps(body).encode(), [PENGUIN], None, batch=False)


def test_the_right_answer_of_three_classes_is_right() -> None:
    assert of_three().fault == ""


@pytest.mark.parametrize(
    "changed",
    [
        {"probability": 0.1},
        {"outcome": "Gentoo"},
        {"probabilities": {"Adelie": 0.2, "Gentoo": 0.1, "Chinstrap": 0.7}},
        {"probabilities": {"Gentoo": 0.2, "Adelie": 0.8}},
        {"confidence": {"margin": 0.6}},
        {"confidence": {"interval": [0, 1]}},
        {"confidence": {"intervals": {"Gentoo": [0.1, 0.3], "Adelie": [0.6, 0.8]}}},
        {"confidence": {"intervals": {"Gentoo": [0.1, 0.3], "Adelie": [0.71, 0.8], "Chinstrap": [0, 0.2]}}},
        {"confidence": {"prediction_set": ["King", "Adelie"]}},
    ],
)
def test_a_wrong_answer_of_three_classes_is_wrong(changed: dict[str, Any]) -> None:
    assert of_three(**changed).result == "wrong"


def test_the_difference_that_sharing_a_batch_makes_is_none() -> None:
    assert single(probability=0.90001).result == "ok"


def test_a_batch_in_another_order_of_another_length_or_of_two_versions_is_wrong() -> None:
    assert batch(prediction(1), prediction(0)).result == "wrong"
    assert batch(prediction(0)).result == "wrong"
    assert batch(prediction(0), prediction(1, id=IDS[0])).result == "wrong"
    mixed = batch(prediction(0), prediction(1, "v2"))
    assert mixed.result == "wrong"
    assert "v1 and v2" in mixed.fault


def test_refusals_must_say_when_to_come_back() -> None:
    assert check_response(429, PROBLEM, CASES, "2", batch=True).result == "refused"
    assert check_response(429, PROBLEM, CASES, None, batch=True).result == "wrong"
    assert check_response(429, b"busy", CASES, "2", batch=True).result == "wrong"
    assert check_response(504, PROBLEM, CASES, None, batch=True).result == "late"
    assert check_response(504, b"gateway", CASES, None, batch=True).result == "error"
    assert check_response(500, PROBLEM, CASES, None, batch=True).result == "error"
    assert check_response(200, b"<html>", CASES, None, batch=True).result == "wrong"


def test_what_is_invalid_must_be_refused() -> None:
    problem = PROBLEM.replace(b"429", b"422")
    assert check_refused(422, problem, (422,)).result == "ok"
    assert check_refused(422, PROBLEM, (422,)).result == "wrong"
    assert check_refused(200, b"{}", (422,)).result == "wrong"
    assert check_refused(500, problem, (422,)).result == "error"


def test_outcomes_are_all_counted() -> None:
    def told(**changed: Any) -> str:
        body = {"counted": 2, "repeated": 0, "unknown": [], "conflicting": []} | changed
        return check_outcomes(200, json.dumps(body).encode(), 2).result

    assert told() == "ok"
    assert told(counted=1, unknown=["x"]) == "wrong"
    assert told(conflicting=["x"]) == "wrong"


def test_texts_and_timings() -> None:
    assert check_text(200, b"\n<!DOCTYPE html>", b"<!doctype html").result == "ok"
    assert check_text(200, b"{}", b"# help").result == "wrong"
    assert server_timing("queue;dur=1.50, inference;dur=20.00") == (1.5, 20.0)
    assert server_timing(None) is None
