import numpy as np
import pytest

from training.data.labels import check_classes
from training.data.source import DataError


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "0 rows, none with a label"),
        ([1, 1, 1], "3 rows, all of 'b': rows of two classes"),
        ([0, 0, 1], "only 1 of 'b': at least 2 rows"),
    ],
)
def test_labels_that_nothing_can_be_learned_from(labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_classes("rows.csv", np.array(labels, dtype=np.int64), ("a", "b"), 2)
