"""Were rows that a bundle is to be judged on among those that it was trained on?"""

from models.bundle.read import Bundle
from models.features.registry import find_feature
from training.data.table import Table


def training_rows(table: Table, bundle: Bundle) -> int:
    """How many of the rows trained the bundle, as far as it knows: all where the tables are the same file, else those
    that its feature knows."""
    if table.sha256 == bundle.manifest.origin.data.sha256:
        return len(table)
    feature = find_feature(bundle.schema)
    return 0 if feature is None else sum(feature.knows(row, bundle.known) for row in table.rows)


def knows_training_rows(bundle: Bundle) -> bool:
    """Whether the bundle can tell its training rows one by one."""
    feature = find_feature(bundle.schema)
    return feature is not None and bundle.known != type(bundle.known)()
