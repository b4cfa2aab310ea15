"""How deliveries become rows: late ones, out of order, corrected, repeated. The tables are drawn in the tests."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.prepare import ingest
from tiltyard.rails import Rails
from tiltyard.settings import Settings
from tiltyard.tables import LANDED_FILE

CONTRACT = """
version: 2
sources:
  - name: shop
    tables:
      - name: price
        config: {meta: {tiltyard: {
          event_time: {column: since, format: "%Y %-d %b %H:%M"},
          available_at: {column: written, format: "%Y %-d %b %H:%M"}}}}
        columns:
          - {name: item, data_type: varchar}
          - {name: eur, data_type: varchar}
          - {name: since, data_type: varchar}
          - {name: written, data_type: varchar}
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Rails]:
    home = tmp_path_factory.mktemp("shop")
    folder = home / "dbt" / "models" / "staging" / "shop"
    folder.mkdir(parents=True)
    (folder / "_shop__sources.yml").write_text(CONTRACT)
    prefix = f"t{uuid.uuid4().hex[:8]}_"
    settings = Settings(home=home, dbt=home / "dbt", database_url=postgres_url, database_prefix=prefix)
    with rails_module.opened(settings) as rails:
        yield rails


@pytest.fixture
def shop(opened: Rails) -> Rails:
    """An empty shop: opening a lake takes longer than emptying one."""
    shutil.rmtree(opened.settings.landing, ignore_errors=True)
    for table in ("raw.price", LANDED_FILE):
        if opened.lake.has(table):
            opened.lake.connection.execute(f"delete from lake.{table}")
    return opened


@pytest.fixture
def deliver(shop: Rails) -> Callable[[str, str], None]:
    def delivered(file: str, drawing: str) -> None:
        lines = [[cell.strip() for cell in line.split("|")] for line in drawing.strip().splitlines()]
        head, *rows = lines
        rows = [[f"2025 {cell}" if cell[-3:-2] == ":" else cell for cell in row] for row in rows]
        path = shop.settings.landing / "shop" / "price" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(",".join(row) + "\n" for row in [head, *rows]))

    return delivered


def night(text: str) -> datetime:
    return datetime.strptime(f"2025 {text}", "%Y %d %b").replace(tzinfo=UTC)


def seen(rails: Rails, as_of: str) -> list[str]:
    """`item eur` of what is known at `as_of` ("2 Jan 12:00"), by event time and then by when it became known."""
    instant = datetime.strptime(f"2025 {as_of}", "%Y %d %b %H:%M").replace(tzinfo=UTC)
    rows = rails.lake.query("select item, eur from {raw.price} order by event_time, available_at", instant)
    return [f"{item} {eur}" for item, eur in rows.itertuples(index=False)]


def everything(rails: Rails) -> list[tuple[Any, ...]]:
    columns = "item, eur, event_time, available_at, source_file, row_number"
    return rails.lake.connection.execute(f"select {columns} from lake.raw.price order by all").fetchall()


def test_a_late_row_is_known_from_when_it_was_written_and_not_before(shop, deliver):
    deliver(
        "2025-01-01.csv",
        """
        item | eur | since       | written
        tea  | 3   | 1 Jan 08:00 | 1 Jan 08:01
    """,
    )
    deliver(
        "2025-01-03.csv",
        """
        item | eur | since       | written
        tea  | 4   | 1 Jan 09:00 | 3 Jan 10:00
    """,
    )
    ingest.land_night(shop, "shop", night("4 Jan"))
    assert seen(shop, "1 Jan 08:00") == []
    assert seen(shop, "1 Jan 08:01") == ["tea 3"]
    assert seen(shop, "3 Jan 09:59") == ["tea 3"]
    assert seen(shop, "3 Jan 10:00") == ["tea 3", "tea 4"]


def test_a_row_that_comes_in_a_later_file_keeps_its_own_write_time(shop, deliver):
    deliver(
        "2025-01-05.csv",
        """
        item | eur | since       | written
        tea  | 5   | 5 Jan 08:00 | 5 Jan 08:00
        tea  | 3   | 1 Jan 08:00 | 1 Jan 08:01
    """,
    )
    ingest.land_night(shop, "shop", night("6 Jan"))
    assert seen(shop, "2 Jan 00:00") == ["tea 3"]
    assert seen(shop, "6 Jan 00:00") == ["tea 3", "tea 5"]


def test_a_correction_is_a_row_more_and_what_was_believed_before_can_still_be_read(shop, deliver):
    deliver(
        "2025-01-01.csv",
        """
        item | eur | since       | written
        tea  | 3   | 1 Jan 08:00 | 1 Jan 08:01
    """,
    )
    deliver(
        "2025-01-02.csv",
        """
        item | eur | since       | written
        tea  | 2   | 1 Jan 08:00 | 2 Jan 12:00
    """,
    )
    ingest.land_night(shop, "shop", night("3 Jan"))
    assert seen(shop, "2 Jan 11:59") == ["tea 3"]
    assert seen(shop, "2 Jan 12:00") == ["tea 3", "tea 2"]


def test_nights_out_of_order_or_twice_leave_the_same_rows(shop, deliver):
    for day in ("01", "02", "03"):
        deliver(
            f"2025-01-{day}.csv",
            f"""
            item | eur  | since          | written
            tea  | {day} | {int(day)} Jan 08:00 | {int(day)} Jan 08:01
        """,
        )
    files = [ingest.land_night(shop, "shop", night(f"{day} Jan")).files for day in (3, 2, 4, 4, 3)]
    assert files == [2, 0, 1, 0, 0]
    assert [row[:2] for row in everything(shop)] == [("tea", "01"), ("tea", "02"), ("tea", "03")]


def test_a_file_is_due_when_its_day_has_ended(shop, deliver):
    deliver(
        "2025-01-01.csv",
        """
        item | eur | since       | written
        tea  | 3   | 1 Jan 08:00 | 1 Jan 08:01
    """,
    )
    assert ingest.land_night(shop, "shop", night("1 Jan")).files == 0
    assert ingest.land_night(shop, "shop", clock.parse_as_of("2025-01-01T23:59:59Z")).files == 0
    assert ingest.land_night(shop, "shop", night("2 Jan")).files == 1


def test_a_row_that_cannot_say_when_it_was_written_lands_is_counted_and_is_never_seen(shop, deliver):
    deliver(
        "2025-01-01.csv",
        """
        item  | eur | since       | written
        tea   | 3   | 1 Jan 08:00 | 1 Jan 08:01
        bread | 2   | 1 Jan 08:00 | yesterday
        milk  | 1   | 1 Jan 08:00 |
    """,
    )
    result = ingest.land_night(shop, "shop", night("2 Jan"))
    assert (result.rows, result.null_available_at) == (3, 2)
    assert seen(shop, "31 Dec 23:59") == ["tea 3"]
    assert len(everything(shop)) == 3


def test_the_same_delivery_under_another_name_lands_once(shop, deliver):
    drawing = """
        item | eur | since       | written
        tea  | 3   | 1 Jan 08:00 | 1 Jan 08:01
    """
    deliver("2025-01-01.csv", drawing)
    deliver("2025-01-01-again.csv", drawing)
    assert ingest.land_night(shop, "shop", night("2 Jan")).repeated == 1
    deliver("2025-01-02.csv", drawing)
    assert ingest.land_night(shop, "shop", night("3 Jan")).files == 0
    assert len(everything(shop)) == 1


def test_another_content_under_a_landed_name_is_refused_and_lands_under_a_new_name(shop, deliver):
    first = """
        item | eur | since       | written
        tea  | 3   | 1 Jan 08:00 | 1 Jan 08:01
    """
    changed = """
        item | eur | since       | written
        tea  | 9   | 1 Jan 08:00 | 2 Jan 08:01
    """
    deliver("2025-01-01.csv", first)
    ingest.land_night(shop, "shop", night("2 Jan"))
    deliver("2025-01-01.csv", changed)
    [refused] = ingest.land_night(shop, "shop", night("2 Jan")).quarantined
    assert "in place of that" in refused.reason
    assert [row[:2] for row in everything(shop)] == [("tea", "3")]
    deliver("2025-01-01-corrected.csv", changed)
    assert ingest.land_night(shop, "shop", night("2 Jan")).files == 1
    assert [row[:2] for row in everything(shop)] == [("tea", "3"), ("tea", "9")]
