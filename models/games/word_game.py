"""What the words of a row's texts add to a prediction: the change of the log-odds when they are left out.

The contribution of a group of words g is v(all) − v(all but g), v the log-odds of the row with the words that are left,
one blank between them; all other fields stay as they are. A group is one word, or of longer texts as many neighbours as
make at most `MAX_GROUPS` groups. Nothing is random.

The contributions need not sum to v(all) − v(no words): what two groups both say is credited to neither, and what they
say only together to both. What is left of the difference is what words say with each other.
"""

from collections.abc import Sequence
from itertools import chain

import msgspec
import numpy as np

from models.bundle.read import Bundle
from models.calibration.logit import logit
from models.games.contributions import Contribution, Explanation, Method, explained_class
from models.rows import Row
from models.schema import parts_of
from models.text import Renderer, clean

MAX_GROUPS = 48
"""Of words that are left out together, over all texts of a row; more only where there are more texts than these."""
BASELINE = "all words of the texts left out, the other fields as they are"


class WordGame:
    """The row, the row without the words of any text, and without each group of words: ``rows``, in this order.

    At most `MAX_GROUPS` + 2 of them. Only texts that the model reads as they stand have words here.
    """

    method: Method = "words"

    def __init__(self, row: Row, bundle: Bundle):
        schema = bundle.schema
        said = {name for template in schema.text for _, name in parts_of(template)}
        words = {
            field.name: clean(getattr(row, field.name) or "").split()
            for field in schema.fields
            if field.type == "text" and field.name in said
        }
        self._classes, self.text = schema.classes, Renderer(schema)(row, bundle.known)
        size = group_size([len(each) for each in words.values() if each])
        self._groups = [
            (name, first, min(first + size, len(each))) for name, each in words.items()
            for first in range(0, len(each), size)
        ]  # fmt: skip
        self._words = words
        nothing = {name: "" for name, each in words.items() if each}
        left_out = ({name: self._without(name, first, stop)} for name, first, stop in self._groups)
        self.rows = [msgspec.structs.replace(row, **change) for change in chain(({}, nothing), left_out)]

    def _without(self, name: str, first: int, stop: int) -> str:
        return " ".join(self._words[name][:first] + self._words[name][stop:])

    def explain(self, probabilities: Sequence[Sequence[float]], outcome: str | None = None) -> Explanation:
        """The explanation, from the calibrated probabilities (K) of each of ``rows``; the class ``outcome`` as of
        `models.explanation.CoalitionGame.explain`. Raises ValueError."""
        at = explained_class(self._classes, probabilities[0], outcome)
        log_odds = logit(np.array([each[at] for each in probabilities]))
        gains = (log_odds[0] - log_odds[2:]).tolist()
        return Explanation(
            method=self.method, log_odds=float(log_odds[0]), baseline_log_odds=float(log_odds[1]), text=self.text,
            outcome=self._classes[at],
            contributions=tuple(
                Contribution(name, " ".join(self._words[name][first:stop]), gain)
                for (name, first, stop), gain in zip(self._groups, gains, strict=True)
            ),
        )  # fmt: skip


def group_size(counts: Sequence[int]) -> int:
    """Words of a group, the fewest that make at most `MAX_GROUPS` groups of texts of these numbers of words."""
    size = 1
    while sum(-(-count // size) for count in counts) > max(MAX_GROUPS, len(counts)):
        size += 1
    return size
