"""Delivered columns that are called like every word of DuckDB's and every alias of ours, all in one table."""

import uuid
from pathlib import Path

import duckdb
import pytest
import yaml

from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.lake import quoted
from tiltyard.prepare import checks, contracts, ingest
from tiltyard.prepare.contracts import AUDIT_COLUMNS
from tiltyard.prepare.names import OF_THE_LAKE
from tiltyard.settings import Settings

NIGHT = clock.parse_as_of("2025-01-03")
ALIASES = [
    "night", "delivery", "raw", "file", "landed_us", "delivered_us", "is_observed", "example", "missed", "known",
    "landed", "rows_total", "newest", "table_name", "usual_rows", "day", "along", "content", "value", "kinds",
    "stamp", "load", "batch", "given", "made", "then_row", "score", "label", "prediction_time", "entity_id", "version",
    "known_at", "built_at",
]  # fmt: skip
"""What our own SQL calls things."""


def words() -> list[str]:
    """Plain names that a contract takes."""
    keywords = [row[0] for row in duckdb.execute("select keyword_name from duckdb_keywords()").fetchall()]
    plain = [word for word in keywords if word.isidentifier() and word[0] != "_"]
    return [word for word in dict.fromkeys([*plain, *ALIASES]) if word not in {*AUDIT_COLUMNS, *OF_THE_LAKE}]


@pytest.fixture(scope="module")
def settings_of_words(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    home = tmp_path_factory.mktemp("words")
    folder = home / "dbt" / "models" / "staging" / "shop"
    folder.mkdir(parents=True)
    columns = [{"name": word, "data_type": ("varchar", "bigint")[place % 2]} for place, word in enumerate(words())]
    at = {"event_time": {"column": "sold_at"}, "available_at": {"column": "sold_at"}}
    table = {
        "name": "order",
        "config": {"meta": {"tiltyard": at}},
        "columns": [*columns, {"name": "sold_at", "data_type": "timestamptz"}],
    }
    (folder / "_shop__sources.yml").write_text(yaml.safe_dump({"sources": [{"name": "shop", "tables": [table]}]}))
    prefix = f"t{uuid.uuid4().hex[:8]}_"
    return Settings(home=home, dbt=home / "dbt", sources=("shop",), database_url=postgres_url, database_prefix=prefix)


def delivered(settings: Settings, day: str, form: str) -> Path:
    """Thirty rows, of a file with a column per word."""
    path = settings.landing / "shop" / "order" / f"{day}.{form}"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [
        f"{'i % 4' if place % 2 else chr(39) + 'v' + chr(39) + ' || i % 3'} as {quoted(word)}"
        for place, word in enumerate(words())
    ]
    sql = f"select {', '.join(values)}, timestamptz '{day} 10:00:00+00' as sold_at from range(30) as t (i)"
    duckdb.execute(f"copy ({sql}) to '{path}'")
    return path


def test_a_column_may_have_any_plain_name(settings_of_words: Settings) -> None:
    assert len(words()) > 400
    for day, form in (("2025-01-01", "csv"), ("2025-01-02", "parquet")):
        delivered(settings_of_words, day, form)
    with rails_module.opened(settings_of_words) as rails:
        landed = ingest.land_night(rails, "shop", NIGHT)
        assert (landed.rows, landed.quarantined) == (60, ()), landed
        report = checks.check_batch(rails, "freshness", NIGHT, source="shop")
        assert report.results and not report.unjudged
        profiled = rails.lake.query("select distinct column_name as name from {ops.column_profile}", NIGHT)
        assert {*words()} <= set(profiled["name"])
        shown = ", ".join(map(quoted, words()))
        rows = rails.lake.connection.execute(f'select {shown} from lake.raw."order" limit 1').fetchone()
        assert rows is not None and None not in rows
        assert contracts.raw_tables(rails.settings, "shop") == ("raw.order",)
