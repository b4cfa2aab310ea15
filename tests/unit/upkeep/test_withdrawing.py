"""Of every table of the lake that knows nights it is known whether a night that is taken back leaves it."""

from tiltyard.tables import REQUEST, TABLES
from tiltyard.upkeep import withdrawing

STAY = (REQUEST,)
"""What was asked online was asked, whatever becomes of the night."""


def test_every_table_with_nights_is_of_models_of_tables_or_stays() -> None:
    with_nights = {table.name for table in TABLES if "night" in table.columns}
    known = {table.name for table in (*withdrawing.OF_MODELS, *withdrawing.OF_TABLES, *STAY)}
    assert with_nights == known
