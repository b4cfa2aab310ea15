"""A night on clocks that are two days ahead, then two nights on right ones: no row is lost, and what is in service
moves on."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import business_home
from tests.homes import cursor
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import NIGHT
from tiltyard.prepare import features
from tiltyard.rails import Rails
from tiltyard.settings import Settings

FIRST = clock.parse_as_of("2025-01-10")
AHEAD = timedelta(days=2)
CLOCK = "create function public.clock_timestamp() returns timestamptz language sql as $$ {} $$"


@contextmanager
def ahead(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clock of the machine, and that of the ledger's database, two days ahead."""
    name, usual = settings.database("ledger"), clock.now
    with cursor(settings, name) as database:
        database.execute(CLOCK.format("select pg_catalog.clock_timestamp() + interval '2 days'"))
        database.execute(f'alter database "{name}" set search_path = public, pg_catalog')
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: usual() + AHEAD)
        yield
    with cursor(settings, name) as database:
        database.execute("drop function public.clock_timestamp()")


def night(settings: Settings, as_of: datetime) -> tuple[int, datetime, dict[str, int]]:
    """(snapshot in service, newest stamp of a build, raw table → rows that its staging lacks) after a night."""
    with rails_module.opened(settings) as rails:
        features.build_night(rails, as_of, ["subscription"], render=False)
        built = rails.lake.connection.execute(
            "select max(built_at) from lake.staging.stg_subscription__login"
        ).fetchone()
        assert built is not None
        return rails.publication().snapshot, built[0], lacking(rails)


def lacking(rails: Rails) -> dict[str, int]:
    found = {}
    for table in ("login", "payment"):
        [rows] = rails.lake.connection.execute(
            f"select (select count(*) from lake.raw.{table}) - count(*) from lake.staging.stg_subscription__{table}"
        ).fetchone() or (None,)
        found[table] = rows
    return found


def test_after_a_night_on_clocks_that_were_ahead_every_row_lands_and_what_is_in_service_moves_on(
    tmp_path: Path, postgres_url: str, eager_models: Path, deliveries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = business_home(tmp_path, postgres_url, eager_models, deliveries)
    with rails_module.opened(settings):
        pass
    with ahead(settings, monkeypatch):
        was, built, lacks = night(settings, FIRST)
    assert built > clock.now() + timedelta(days=1), "the database's clock was ahead"
    assert lacks == {"login": 0, "payment": 0}
    for as_of in (FIRST + NIGHT, FIRST + 2 * NIGHT):
        snapshot, after, lacks = night(settings, as_of)
        assert lacks == {"login": 0, "payment": 0}
        assert snapshot > was
        assert after > built, "stamps of builds only grow"
        was, built = snapshot, after
    with rails_module.opened(settings) as rails:
        newest = rails.ledger.newest_published("subscription")
        assert newest is not None
        assert newest.night == (FIRST + 2 * NIGHT).date()
        assert rails.publication().snapshot == newest.summary.snapshot
