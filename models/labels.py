"""Labels: a cell of the label's column → the number of its class."""

from models.cells import TRUTH, UNKNOWN_CELLS, shorten
from models.schema import Label

SHOWN_CLASSES = 20


class LabelReader:
    """Finds a cell's class by the value of the class, in any spelling of it, or by the name of the class.

    1, 1.0 and 1e0 are one value, as are yes and YES, and true and 1 where the classes are two such words.
    """

    def __init__(self, label: Label):
        self.label = label
        self._classes: dict[str, int] = {}
        values = [each.value for each in label.classes]
        names = [each.name for each in label.classes]
        truths = [truth_of(value) for value in values]
        for spelled in (values, map(str.casefold, values), map(canonical, values), names, map(str.casefold, names)):
            for number, spelling in enumerate(spelled):
                self._classes.setdefault(spelling, number)
        self._truths = {truth: number for number, truth in enumerate(truths)} if set(truths) == {False, True} else {}

    def __call__(self, cell: str) -> int | None:
        """The number of the cell's class; None for none of them."""
        text = cell.strip()
        found = self._classes.get(text)
        if found is None:
            found = self._classes.get(text.casefold(), self._classes.get(canonical(text)))
        return self._truths.get(truth_of(text)) if found is None else found

    def is_missing(self, cell: str) -> bool:
        """Whether the cell is spelled as an unknown value, and no class is spelled so."""
        return self(cell) is None and cell.strip().casefold() in UNKNOWN_CELLS

    def fault(self, cell: str) -> str:
        """The sentence about a cell that has no class."""
        values = [each.value for each in self.label.classes]
        if len(values) > SHOWN_CLASSES:
            values[SHOWN_CLASSES:] = [f"{len(values) - SHOWN_CLASSES} more"]
        shown = shorten(repr(cell.strip()))
        return f"{self.label.column} is {shown}; it must be {', '.join(values[:-1])} or {values[-1]}"


def canonical(text: str) -> str:
    """One spelling for all of the same value: blanks around and case do not matter, nor how a number is written."""
    text = text.strip()
    try:
        number = float(text)
    except ValueError:
        return text.casefold()
    if "_" in text or number - number:
        return text.casefold()
    return str(int(number)) if number.is_integer() else repr(number)


def truth_of(text: str) -> bool | None:
    """What a word of truth says: yes, true, 1 and no, false, 0."""
    return TRUTH.get(canonical(text))
