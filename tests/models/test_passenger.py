"""The fields of a passenger, their columns and bins."""

from models.passenger import COLUMNS, INPUT_BINS, Passenger


def test_every_field_has_a_column_and_bins() -> None:
    assert set(COLUMNS) == set(Passenger.__struct_fields__) == {bins.field for bins in INPUT_BINS}
