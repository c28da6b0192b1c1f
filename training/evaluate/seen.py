"""Were rows that a bundle is to be judged on among those that it was trained or calibrated on?"""

from models.bundle.read import Bundle
from models.features.registry import find_feature
from training.data.table import Table


def training_rows(table: Table, bundle: Bundle) -> int:
    """How many of the rows made the bundle, as far as it knows: all where the tables are the same file, else those
    that its feature knows."""
    origin = bundle.manifest.origin
    if table.sha256 in (origin.data.sha256, origin.calibrated_on.sha256):
        return len(table)
    feature = find_feature(bundle.schema)
    return 0 if feature is None else sum(feature.knows(row, bundle.known) for row in table.rows)


def knows_training_rows(bundle: Bundle) -> bool:
    """Whether the bundle can tell its training rows one by one."""
    feature = find_feature(bundle.schema)
    return feature is not None and bundle.known != type(bundle.known)()
