"""The lake: reads at an instant, commits that are all or nothing, and only by the newest attempt."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from tiltyard import rails as rails_module
from tiltyard.edge import processes
from tiltyard.errors import BadInput, Fenced, Unavailable
from tiltyard.lake import Lake, put
from tiltyard.rails import Rails
from tiltyard.settings import Settings
from tiltyard.tables import Table

AS_OF = datetime(2016, 4, 2, tzinfo=UTC)
COLUMNS = {"night": "date", "value": "integer", "available_at": "timestamptz"}
PLUGINS = Path(__file__).resolve().parents[2] / "plugins"


def rows(*values: int, night: datetime = AS_OF, available_at: datetime | None = AS_OF) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "night": [night.date()] * len(values),
            "value": list(values),
            "available_at": pd.Series([available_at] * len(values), dtype="datetime64[us, UTC]"),
        }
    )


def values(lake: Lake, as_of: datetime = AS_OF, snapshot: int | None = None) -> list[int]:
    return list(lake.query("select value from {ops.x} order by value", as_of, at=snapshot)["value"])


@pytest.fixture
def lake(rails: Rails) -> Lake:
    rails.lake.ensure(Table("ops.x", COLUMNS))
    return rails.lake


def replace(lake: Lake, *numbers: int, **more: object) -> int:
    return lake.replace("ops.x", {"night": AS_OF.date()}, rows(*numbers), message="test", **more)


# -- reading --------------------------------------------------------------------------------------


def test_a_read_sees_what_was_available_by_then(lake: Lake) -> None:
    #                       night 1      night 2      night 3      unknown
    for number, days in ((1, 0), (2, 1), (3, 2)):
        later = AS_OF + timedelta(days=days)
        lake.replace("ops.x", {"night": later.date()}, rows(number, night=later, available_at=later), message="test")
    never = AS_OF + timedelta(days=9)
    lake.replace("ops.x", {"night": never.date()}, rows(9, night=never, available_at=None), message="test")

    assert values(lake, AS_OF - timedelta(microseconds=1)) == []
    assert values(lake, AS_OF) == [1]
    assert values(lake, AS_OF + timedelta(days=1)) == [1, 2]
    assert values(lake, datetime(2100, 1, 1, tzinfo=UTC)) == [1, 2, 3]  # NULL available_at: never


def test_a_snapshot_is_read_as_it_was(lake: Lake) -> None:
    first = replace(lake, 1)
    second = replace(lake, 2)

    assert second > first
    assert values(lake, snapshot=first) == [1]
    assert values(lake) == [2]


def test_a_read_without_a_zone_is_refused(lake: Lake) -> None:
    with pytest.raises(ValueError, match="time zone"):
        values(lake, datetime(2016, 4, 2))


def test_an_unknown_table_is_told_in_one_sentence(lake: Lake) -> None:
    with pytest.raises(BadInput, match=r"no table 'features\.ftr_nothing'"):
        lake.columns("ftr_nothing")


# -- writing --------------------------------------------------------------------------------------


def test_twice_is_once(lake: Lake) -> None:
    replace(lake, 1, 2, 3)
    replace(lake, 1, 2, 3)

    assert values(lake) == [1, 2, 3]


def test_an_empty_night_replaces_too(lake: Lake) -> None:
    replace(lake, 1)
    replace(lake)

    assert values(lake) == []


def test_other_nights_stay(lake: Lake) -> None:
    earlier = AS_OF - timedelta(days=1)
    lake.replace("ops.x", {"night": earlier.date()}, rows(7, night=earlier, available_at=earlier), message="test")
    replace(lake, 1)

    assert values(lake) == [1, 7]


def test_a_commit_is_all_or_nothing(lake: Lake) -> None:
    def half(connection: duckdb.DuckDBPyConnection) -> None:
        put(connection, "ops.x", {}, rows(1))
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        lake.commit(half, message="test")
    assert values(lake) == []
    assert replace(lake, 2)  # and the lake can be written as before


def test_a_conflict_is_tried_again(lake: Lake, settings: Settings) -> None:
    replace(lake, 1)
    attempts = []

    def work(connection: duckdb.DuckDBPyConnection) -> int:
        attempts.append(len(attempts))
        put(connection, "ops.x", {"night": AS_OF.date()}, rows(10 + len(attempts)))
        if len(attempts) == 1:  # somebody else replaces the same rows before this one commits
            with Lake(settings) as other:
                replace(other, 5)
        return len(attempts)

    commit = lake.commit(work, message="test")

    assert commit.result == len(attempts) == 2
    assert values(lake) == [12]
    assert values(lake, snapshot=commit.snapshot) == [12]


# -- fences ---------------------------------------------------------------------------------------


def test_an_outdated_attempt_may_not_commit(rails: Rails, lake: Lake) -> None:
    older = rails.ledger.claim("shadow/m/2016-04-02")
    newer = rails.ledger.claim("shadow/m/2016-04-02")
    replace(lake, 2, fence=newer)

    with pytest.raises(Fenced, match="newer attempt"):
        replace(lake, 1, fence=older)
    assert values(lake) == [2]
    replace(lake, 3, fence=newer)
    assert values(lake) == [3]


def test_an_outdated_attempt_may_not_commit_even_before_the_newer_one_has(rails: Rails, lake: Lake) -> None:
    older = rails.ledger.claim("key")
    rails.ledger.claim("key")

    with pytest.raises(Fenced):
        replace(lake, 1, fence=older)
    assert values(lake) == []


def test_a_claim_waits_for_a_commit_under_way(rails: Rails, lake: Lake) -> None:
    older = rails.ledger.claim("key")
    with ThreadPoolExecutor(1) as pool, older.held():
        claim = pool.submit(rails.ledger.claim, "key")
        with pytest.raises(TimeoutError):
            claim.result(timeout=0.5)
    assert claim.result().token == older.token + 1


ATTEMPT = """
import sys
from tiltyard import rails
from tiltyard.errors import Fenced
from tiltyard.settings import Settings
sys.path.insert(0, sys.argv[1])
from test_lake import replace
with rails.opened(Settings()) as opened:
    fence = opened.ledger.claim("key")
    print("claimed", flush=True)
    sys.stdin.readline()
    try:
        replace(opened.lake, 1, fence=fence)
    except Fenced:
        print("fenced", flush=True)
    else:
        print("committed", flush=True)
"""


def test_of_two_processes_at_the_same_work_only_the_newer_one_lands(rails: Rails, lake: Lake) -> None:
    attempt = subprocess.Popen(
        [sys.executable, "-c", ATTEMPT, str(Path(__file__).parent)],
        env=processes.process_env(rails.settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert attempt.stdout
    assert attempt.stdout.readline() == "claimed\n"
    newer = rails.ledger.claim("key")
    replace(lake, 2, fence=newer)
    said, _ = attempt.communicate("go\n", timeout=60)

    assert said == "fenced\n"
    assert values(lake) == [2]


# -- many at once ---------------------------------------------------------------------------------


def test_many_create_the_same_table_at_once(settings: Settings) -> None:
    def create(number: int) -> None:
        with Lake(settings) as lake:
            lake.ensure(Table("ops.raced", {**COLUMNS, f"extra_{number % 2}": "integer"}))
            lake.commit(lambda connection: put(connection, "ops.raced", {}, rows(number)), message="test")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(4)))
    with Lake(settings) as lake:
        assert set(lake.columns("ops.raced")) == {*COLUMNS, "extra_0", "extra_1"}
        assert sorted(lake.query("select value from {ops.raced}", AS_OF)["value"]) == [0, 1, 2, 3]


def test_a_catalogue_that_is_away_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        Lake(Settings(home=tmp_path, database_url="postgresql://me@127.0.0.1:1/"))


def test_whoever_waits_for_longer_than_the_limit_is_told_so(rails: Rails) -> None:
    with rails_module.opened(rails.settings) as other, rails.lake.exclusive("build"):
        with (
            pytest.raises(Unavailable, match=r"not its turn \('build'\) for 0.2 s: .* Look for a task that hangs"),
            other.lake.exclusive("build", 0.2),
        ):
            raise AssertionError("both are at work")
        with other.lake.exclusive("publish", 0.2):
            pass
    with rails.lake.exclusive("build", 0.2):
        pass


def test_a_lake_that_is_opened_by_its_first_read_is_opened_by_nothing_else(settings: Settings) -> None:
    with Lake(settings, at_once=False) as lake:
        assert not lake.is_open
    with Lake(settings, at_once=False) as lake:
        assert lake.snapshot() >= 0 and lake.is_open
    away = Settings(home=settings.home, database_url="postgresql://me@127.0.0.1:1/")
    with Lake(away, at_once=False) as lake, pytest.raises(Unavailable):
        lake.snapshot()


def test_an_extension_that_nobody_signed_gets_into_no_lake(rails: Rails, tmp_path: Path) -> None:
    """Not into the first one of a process, nor into a later one, which has the signatures of ours not checked again."""
    row = duckdb.execute("select install_path from duckdb_extensions() where extension_name = 'httpfs'").fetchone()
    assert row is not None
    written = bytearray(Path(row[0]).read_bytes())
    written[-1] ^= 1
    forged = tmp_path / "forged.duckdb_extension"  # of one by a name that is loaded nothing is read
    forged.write_bytes(written)
    with Lake(rails.settings) as later:
        for opened in (rails.lake, later):
            with pytest.raises(duckdb.IOException, match="signature"):
                opened.connection.execute(f"load '{forged}'")
