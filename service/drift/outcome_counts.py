"""Outcomes beside what was served: by tenth of each class's probability, and by predicted class."""

from collections.abc import Sequence

import numpy as np

from models.reference import PROBABILITY_BINS, probability_bin, probability_bins, top_class


class OutcomeCounts:
    """``tenths`` (10, 3) of two classes: outcomes, those of the positive class, and the sum of its probabilities, by
    tenth of these. Of K > 2 ``tenths`` (K, 10, 3) has the same of each class, and ``confusion`` (K, K) the outcomes by
    class, then by the one that was predicted; of two it is None."""

    def __init__(self, classes: int):
        self.tenths = np.zeros((len(PROBABILITY_BINS), 3) if classes == 2 else (classes, len(PROBABILITY_BINS), 3))
        self.confusion = None if classes == 2 else np.zeros((classes, classes))

    def add(self, probabilities: Sequence[float], label: int) -> None:
        """Count an outcome: the served probabilities (K,), and the number of the class that came true."""
        if self.confusion is None:
            p = probabilities[1]
            self.tenths[probability_bin(p)] += (1, label, p)
            return
        classes = np.arange(len(probabilities))
        held = np.stack([np.ones(len(classes)), classes == label, probabilities], axis=1)
        self.tenths[classes, probability_bins(np.array(probabilities))] += held
        self.confusion[label, top_class(probabilities)] += 1
