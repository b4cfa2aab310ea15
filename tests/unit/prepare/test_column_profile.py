"""What one pass counts of a night's columns."""

from datetime import date
from pathlib import Path

from tests.conftest import make_settings
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.prepare import column_profile, contracts, ingest
from tiltyard.prepare.deliveries import DeliveryTime

CONTRACT = """
sources:
  - name: shop
    tables:
      - name: sale
        config: {meta: {tiltyard: {event_time: {column: sold_at}, available_at: {column: written_at}}}}
        columns:
          - {name: item, data_type: varchar}
          - {name: pieces, data_type: bigint}
          - {name: sold_at, data_type: timestamptz}
          - {name: written_at, data_type: timestamptz}
          - {name: paid_at, data_type: timestamptz}
"""
ROWS = """item,pieces,sold_at,written_at,paid_at
tea,3,2025-01-01T08:00:00Z,2025-01-01T20:00:00Z,2025-01-01T08:00:00Z
milk,3,2025-01-01T08:00:00Z,2025-01-01T20:00:00Z,2025-01-01T08:00:00Z
"""
FILE, NIGHT = "2025-01-01.csv", clock.parse_as_of("2025-01-02")


def test_a_batch_that_was_written_down_at_one_instant_has_lost_nothing(tmp_path: Path, postgres_url: str) -> None:
    """The times of the rows themselves are no columns that can go constant; every other column is."""
    dbt = tmp_path / "dbt"
    folder = dbt / "models" / "staging" / "shop"
    folder.mkdir(parents=True)
    (folder / "_shop__sources.yml").write_text(CONTRACT)
    settings = make_settings(tmp_path, postgres_url, dbt=dbt, sources=("shop",))
    landing = settings.landing / "shop" / "sale"
    landing.mkdir(parents=True)
    (landing / FILE).write_text(ROWS)
    with rails_module.opened(settings) as rails:
        ingest.land_night(rails, "shop", NIGHT)
        table = contracts.read(settings, "shop").table("sale")
        assert table is not None
        nights = {date(2025, 1, 1): {FILE: DeliveryTime(NIGHT, NIGHT, "night")}}
        (profile,) = column_profile.scan(rails, table, nights, None)
        constant = {name for name, column in profile.columns.items() if column.is_constant}
        assert (profile.rows, constant) == (2, {"pieces", "paid_at"})
