"""Shared by the tests of training."""

from collections.abc import Iterator

import pytest

from training.evaluate import scores


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    """A bootstrap of 250 draws, for tests of what is made of the figures and not of their spread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "RESAMPLES", 250)
        yield
