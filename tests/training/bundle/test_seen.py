"""Rows that a bundle was trained on are known from new ones that equal some by chance."""

import dataclasses

import msgspec
import numpy as np
import pytest

from models.bundle.read import Bundle
from models.bundle.training_rows import NO_ROWS, TrainingRows
from tests import churn
from training.bundle.seen import find_seen


def trained_on(bundle: Bundle, rows: list[object]) -> Bundle:
    return msgspec.structs.replace(bundle, schema=churn.SCHEMA, known=None, training_rows=TrainingRows.of(rows))


def test_a_single_row_of_a_table_of_different_rows_is_noticed(tiny_bundle: Bundle) -> None:
    rows = churn.customers(300)
    bundle, new = trained_on(tiny_bundle, rows[:200]), churn.table(100)
    fresh = dataclasses.replace(new, rows=tuple(rows[200:]), sha256="2" * 64)
    assert (find_seen(fresh, bundle).seen, find_seen(fresh, bundle).trained) == (0, False)
    one = dataclasses.replace(fresh, rows=(*rows[200:299], rows[7]))
    assert (find_seen(one, bundle).seen, find_seen(one, bundle).trained) == (1, True)
    assert str(find_seen(one, bundle)) == "1 of 100 rows equal training rows"
    assert find_seen(dataclasses.replace(fresh, sha256=tiny_bundle.manifest.origin.data.sha256), bundle).trained
    assert not find_seen(fresh, msgspec.structs.replace(bundle, training_rows=None)).checkable


@pytest.mark.parametrize("values", [3, 40, 700])
def test_rows_that_are_often_equal_are_not_taken_for_the_same(tiny_bundle: Bundle, values: int) -> None:
    rng = np.random.default_rng(values)
    weights = rng.dirichlet(np.ones(values))

    def draw(count: int) -> list[object]:
        return [churn.Customer(city=churn.CITIES[0], tenure=int(at)) for at in rng.choice(values, count, p=weights)]

    flagged = []
    for _ in range(40):
        before = draw(400)
        bundle = trained_on(tiny_bundle, before)
        found = find_seen(dataclasses.replace(churn.table(300), rows=tuple(draw(300)), sha256="2" * 64), bundle)
        flagged.append(found.trained)
        assert found.by_chance > 0
    # The share by chance is itself an estimate, from the singletons of the training rows.
    assert np.mean(flagged) <= 0.15
    if values == 700:
        again = dataclasses.replace(churn.table(300), rows=tuple(before[:300]), sha256="2" * 64)
        assert find_seen(again, bundle).trained


def test_hashes_are_of_fields_and_values_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = churn.customers(50)
    kept = TrainingRows.of([*rows, rows[0]])
    assert kept is not None
    assert (kept.rows, len(kept.once), len(kept.more)) == (51, 49 * 8, 8)
    assert kept.chance == pytest.approx(2 / 51)
    assert kept.among(rows).all()
    assert not kept.among(churn.customers(50, seed=9)).any()
    assert msgspec.json.decode(msgspec.json.encode(kept), type=TrainingRows) == kept
    for wrong in ({"once": b"1234567"}, {"rows": 1}, {"more": b"9"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(msgspec.structs.asdict(kept) | wrong, TrainingRows)
    monkeypatch.setattr("models.bundle.training_rows.MAX_ROWS", 49)
    assert TrainingRows.of(rows) is None


def test_rows_of_two_tables_are_joined() -> None:
    rows = churn.customers(6)
    parts = [TrainingRows.of(part) for part in (rows[:3], [rows[2], rows[3], rows[3]], [])]
    first, second, nothing = parts
    assert first is not None
    assert second is not None
    assert nothing == NO_ROWS
    whole = TrainingRows.of([*rows[:3], rows[2], rows[3], rows[3]])
    assert first.joined(second) == second.joined(first) == whole
    assert first.joined(NO_ROWS) == first
