"""Rows that came before are told by the key of their contract, before anything is appended."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import NIGHT
from tiltyard.errors import BadInput
from tiltyard.prepare import contracts, deliveries, ingest
from tiltyard.prepare.ingest import IngestSummary
from tiltyard.rails import Rails
from tiltyard.settings import Settings

CONTRACT = """
sources:
  - name: shop
    tables:
      - name: sale
        config: {{meta: {{tiltyard: {{event_time: {{column: day}}, available_at: {known}{key}}}}}}}
        columns:
          - {{name: shop, data_type: varchar}}
          - {{name: number, data_type: bigint}}
          - {{name: pieces, data_type: double}}
          - {{name: day, data_type: date}}
"""
FIRST = clock.parse_as_of("2025-01-02")
Opened = Callable[..., Rails]


@pytest.fixture
def shop(tmp_path: Path, postgres_url: str) -> Iterator[Opened]:
    """Rails of a home whose contract is as asked."""
    opened = []

    def open_with(key: str = "", known: str = "{column: day}") -> Rails:
        folder = tmp_path / "dbt" / "models" / "staging" / "shop"
        folder.mkdir(parents=True)
        (folder / "_shop__sources.yml").write_text(CONTRACT.format(key=f", {key}" if key else "", known=known))
        settings = Settings(
            home=tmp_path, dbt=tmp_path / "dbt", database_url=postgres_url, database_prefix=f"t{uuid.uuid4().hex[:8]}_"
        )
        opened.append(rails_module.opened(settings))
        return opened[-1].__enter__()

    yield open_with
    for one in opened:
        one.__exit__(None, None, None)


def deliver(rails: Rails, name: str, *rows: str) -> None:
    path = rails.settings.landing / "shop" / "sale" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["shop,number,pieces,day", *rows]) + "\n")


def land(rails: Rails, night: int = 0) -> IngestSummary:
    return ingest.land_night(rails, "shop", FIRST + night * NIGHT)


def pieces(rails: Rails) -> list[tuple[str, int, float]]:
    query = "select shop, number, pieces from lake.raw.sale order by all"
    return rails.lake.connection.execute(query).fetchall()


KEY = "key: [shop, number]"
OLD = ("a,1,2,2025-01-01", "a,2,3,2025-01-01", "b,1,,2025-01-01")


def test_without_a_key_rows_that_come_again_land_again(shop: Opened) -> None:
    rails = shop()
    deliver(rails, "2025-01-01.csv", *OLD)
    deliver(rails, "2025-01-01-again.csv", *OLD, "c,1,1,2025-01-01")
    assert (land(rails).rows, len(pieces(rails))) == (7, 7)


def test_what_says_the_same_is_dropped_and_counted(shop: Opened) -> None:
    rails = shop(KEY)
    deliver(rails, "2025-01-01.csv", *OLD)
    assert land(rails).notes == ()
    deliver(rails, "2025-01-02.csv", *OLD, "c,1,1,2025-01-02")
    done = land(rails, 1)
    assert (done.rows, done.repeated_rows, done.corrections) == (1, 3, 0)
    assert done.notes == ("3 rows that came before, word for word: dropped",)
    assert pieces(rails) == [("a", 1, 2), ("a", 2, 3), ("b", 1, None), ("c", 1, 1)]
    [said] = deliveries.came_before(rails, "shop", clock.night_of(FIRST + NIGHT))
    assert said == "sale/2025-01-02.csv: 3 rows that came before were dropped"


def test_a_whole_delivery_under_another_name_lands_nothing_whether_it_comes_that_night_or_later(shop: Opened) -> None:
    rails = shop(KEY)
    deliver(rails, "2025-01-01.csv", *OLD)
    deliver(rails, "2025-01-01-again.csv", *reversed(OLD))
    assert (land(rails).rows, land(rails).rows) == (3, 0)
    deliver(rails, "2025-01-02.csv", OLD[1], OLD[0], OLD[2], OLD[0])
    done = land(rails, 1)
    assert (done.rows, done.repeated_rows, len(pieces(rails))) == (0, 4, 3)


def test_other_values_of_a_key_are_a_correction(shop: Opened) -> None:
    rails = shop(KEY)
    deliver(rails, "2025-01-01.csv", *OLD)
    land(rails)
    deliver(rails, "2025-01-02.csv", "a,1,5,2025-01-02", "b,1,,2025-01-01", "d,1,1,2025-01-02", "d,1,2,2025-01-02")
    done = land(rails, 1)
    assert (done.rows, done.repeated_rows, done.corrections) == (3, 1, 2)
    assert pieces(rails).count(("a", 1, 5)) == pieces(rails).count(("a", 1, 2)) == 1


def test_or_they_put_their_file_into_quarantine_and_nothing_else(shop: Opened) -> None:
    rails = shop(f"{KEY}, on_repeat: quarantine")
    deliver(rails, "2025-01-01.csv", *OLD)
    land(rails)
    deliver(rails, "2025-01-02.csv", "a,1,5,2025-01-02", "e,1,1,2025-01-02")
    deliver(rails, "2025-01-02-b.csv", "a,2,3,2025-01-01", "f,1,1,2025-01-02")
    done = land(rails, 1)
    [refused] = done.quarantined
    assert refused.file == "sale/2025-01-02.csv"
    assert refused.reason.startswith("1 row say of shop, number what came before otherwise, shop, number a, 1 first")
    assert (done.rows, done.repeated_rows) == (1, 1)
    assert [row[0] for row in pieces(rails)] == ["a", "a", "b", "f"]


def test_a_value_that_comes_back_is_news_where_the_source_cannot_prove_when_it_was_known(shop: Opened) -> None:
    rails = shop(KEY, known="ingested_at")
    for number, row in enumerate(("a,1,2,2025-01-01", "a,1,3,2025-01-01", "a,1,2,2025-01-01", "a,1,2,2025-01-01")):
        deliver(rails, f"2025-01-0{number + 1}.csv", row, f"z,{number},1,2025-01-01")
        land(rails, number)
    assert pieces(rails)[:3] == [("a", 1, 2), ("a", 1, 2), ("a", 1, 3)], "twice, and not three times"
    assert [row[0] for row in pieces(rails)] == ["a"] * 3 + ["z"] * 4


def test_a_row_without_its_key_repeats_nobodys(shop: Opened) -> None:
    rails = shop(KEY)
    deliver(rails, "2025-01-01.csv", ",1,2,2025-01-01", ",1,2,2025-01-01")
    deliver(rails, "2025-01-02.csv", ",1,2,2025-01-01")
    assert (land(rails, 1).rows, len(pieces(rails))) == (3, 3)


@pytest.mark.parametrize(
    ("key", "said"),
    [("key: nothing", "the key's column 'nothing' is not among its columns"),
     ("on_repeat: quarantine", "on_repeat says what becomes of a row whose key came before; say the key")],
)  # fmt: skip
def test_a_contract_that_cannot_be_is_refused(shop: Opened, key: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        contracts.read(shop(key).settings, "shop")
