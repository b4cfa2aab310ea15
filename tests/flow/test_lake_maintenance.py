"""The lake is put in order, and every reader's answer stays what it was: frames, replays, explained predictions, and
all tables at every snapshot that stays. Also after a `kill -9` at any step, beside a build, a reader and another
maintenance."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.flow.test_replay import NIGHTS, business
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.edge import describe_lake, status
from tiltyard.judge import scoring
from tiltyard.lake import put, stored
from tiltyard.prepare import frame, transform
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary, LakeMaintenanceSummary, ShadowSummary
from tiltyard.settings import ROOT
from tiltyard.spec import Spec
from tiltyard.tables import PREDICTION, PROFILE
from tiltyard.train import replay
from tiltyard.upkeep import files, holds, maintenance

AS_OF = clock.parse_as_of("2025-02-13")
LATER = timedelta(days=3)
"""Longer than the grace: what was committed in the test is old."""
SMALL = 12


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, eager_models: Path
) -> Iterator[tuple[Rails, Spec]]:
    """A business whose CRM writes over its past, predicted on two nights."""
    folder = tmp_path_factory.mktemp("maintenance")
    with business(folder, postgres_url, eager_models, cancel_trigger=True, customers=500) as opened:
        yield opened


@pytest.fixture
def lake(home: tuple[Rails, Spec]) -> tuple[Rails, Spec]:
    """The business, with another dozen small commits."""
    rails, _ = home
    rails.lake.ensure(PROFILE)
    for number in range(SMALL):
        rows = pd.DataFrame({"model": ["churn"] * 20, "version": range(20), "available_at": [AS_OF] * 20})
        rails.lake.commit(lambda connection, rows=rows: put(connection, PROFILE, {}, rows), message=f"profile {number}")
    return home


def answers(rails: Rails, spec: Spec) -> dict[str, Any]:
    """What readers are told: a replay with its examples, every frame that was predicted from, some explanations."""
    ranges = [(NIGHTS[0], AS_OF)]
    predictions = rails.lake.connection.execute(
        f"select request_id, snapshot, available_at from {stored(PREDICTION)} order by all"
    ).fetchall()
    frames = {}
    for snapshot, as_of in sorted({row[1:] for row in predictions}):
        start = as_of - spec.prediction.every
        frames[snapshot] = frame.build(rails, spec, start, as_of, as_of, snapshot).sort_values(spec.key).to_csv()
    scored = ShadowSummary(night=NIGHTS[-1].date(), snapshot=rails.publication().snapshot)
    rails.ledger.record_stage("churn", NIGHTS[-1].date(), "done", scored)
    return {
        "replay": repr(replay.replay_nights(rails, spec, ranges, AS_OF)),
        "frames": frames,
        "explained": [status.explain(rails, spec, row[0]).to_json() for row in predictions[:3]],
        "training": frame.training(rails, spec, AS_OF, rails.publication()).digest,
    }


def tables(rails: Rails, snapshots: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Snapshot → table → number and digest of its rows, row numbers included, as the lake held them."""
    contents: dict[int, dict[str, Any]] = {}
    for snapshot in snapshots:
        names = rails.lake.connection.execute(
            "select schema_name || '.' || table_name from __ducklake_metadata_lake.ducklake_table as tables "
            "inner join __ducklake_metadata_lake.ducklake_schema as schemas using (schema_id) "
            "where tables.begin_snapshot <= $at and coalesce(tables.end_snapshot > $at, true)",
            {"at": snapshot},
        ).fetchall()
        digest = "select count(*), sum(hash(held::varchar)) from (select *, rowid from {}) as held"
        contents[snapshot] = {
            name: rails.lake.connection.execute(digest.format(stored(name, snapshot))).fetchone() for (name,) in names
        }
    return contents


def snapshots(rails: Rails) -> set[int]:
    rows = rails.lake.connection.execute("select snapshot_id from ducklake_snapshots('lake')").fetchall()
    return {number for (number,) in rows}


def test_every_answer_stays_what_it_was_and_a_second_night_finds_nothing_to_do(lake: tuple[Rails, Spec]) -> None:
    rails, spec = lake
    before, there = answers(rails, spec), snapshots(rails)
    dry = maintenance.maintain(rails, AS_OF, now=clock.now() + LATER, dry_run=True)
    assert (snapshots(rails), rails.ledger.last_stage_run(LakeMaintenanceSummary)) == (there, None)
    contents = tables(rails, predicted_from(rails) | {*sorted(there)[::8]})

    done = maintenance.maintain(rails, AS_OF, now=clock.now() + LATER)
    assert (done.chain_head, done.chain_faults) == (rails.ledger.verify().head, ())

    assert done.expired == dry.expired > 0
    assert done.merged["ops.profile"] >= SMALL
    assert done.before.files - done.after.files >= SMALL - 1
    assert done.kept["predicted"] >= len(NIGHTS)
    assert {"in_service", "published", "witness"} <= done.kept.keys()
    assert answers(rails, spec) == before
    stay = snapshots(rails) & contents.keys()
    assert stay >= predicted_from(rails)
    assert tables(rails, stay) == {number: contents[number] for number in stay}
    assert rails.ledger.last_stage_run(LakeMaintenanceSummary).summary == done
    assert "maintained on 2025-02-13: " in describe_lake.lake(*maintenance.last_size(rails))

    maintenance.maintain(rails, AS_OF + timedelta(days=1), now=clock.now() + LATER)
    again = maintenance.maintain(rails, AS_OF + timedelta(days=2), now=clock.now() + LATER)
    assert (again.expired, again.merged, again.removed, again.orphans) == (0, {}, 0, 0)
    assert answers(rails, spec) == before


def test_the_next_nights_build_predict_and_replay_on_a_lake_in_order(lake: tuple[Rails, Spec]) -> None:
    rails, spec = lake
    maintenance.maintain(rails, AS_OF, now=clock.now() + LATER)
    transform.build(rails, rails.settings.sources, AS_OF)
    rails.ledger.record_stage("", AS_OF.date(), "done", FeaturesSummary(snapshot=rails.lake.snapshot()))
    scoring.score_night(rails, spec, AS_OF)
    assert replay.replay_nights(rails, spec, [(NIGHTS[0], AS_OF)]).verdict == "fail"  # the CRM did write over its past


KILLS = (
    ("retention.let_go", "after"), ("files.expire", "before"), ("files.expire", "after"), ("files.rewrite", "inside"),
    ("files.rewrite", "after"), ("files.merge", "inside"), ("files.merge", "after"), ("files.remove_unread", "before"),
    ("files.remove_unread", "after"), ("files.remove_orphans", "after"), ("lake.vacuum", "after"),
)  # fmt: skip
"""Step, and whether the process dies before it, after it, or inside: when its files are written and not committed."""
KILLED = """
import os, signal, sys
from datetime import datetime
from tiltyard import rails as rails_module
from tiltyard.lake import Lake
from tiltyard.upkeep import claims, files, maintenance, retention
step, when, as_of, now = sys.argv[1:]
module, name = step.split(".")
owner = {"retention": retention, "claims": claims, "files": files, "lake": Lake}[module]
genuine = getattr(owner, name)
def killed(*given, **named):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if when == "inside":
        Lake.commit = lambda lake, work, **rest: (lake.connection.begin(), work(lake.connection), die())
    genuine(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)
def die():
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, killed)
with rails_module.opened() as rails:
    maintenance.maintain(rails, datetime.fromisoformat(as_of), now=datetime.fromisoformat(now))
"""


def kill(rails: Rails, step: str, when: str, now: datetime) -> None:
    """Run a maintenance in a process of its own that is killed before, inside or after a step."""
    settings = rails.settings
    environment = os.environ | {
        "TILTYARD_HOME": str(settings.home), "TILTYARD_DATABASE_URL": settings.database_url or "",
        "TILTYARD_DATABASE_PREFIX": settings.database_prefix, "TILTYARD_MODELS": str(settings.models),
        "TILTYARD_DBT": str(settings.dbt), "TILTYARD_SOURCES": "subscription", "PYTHONPATH": str(ROOT / "plugins"),
    }  # fmt: skip
    command = [sys.executable, "-c", KILLED, step, when, AS_OF.isoformat(), now.isoformat()]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def test_killed_at_any_step_it_loses_nothing_and_the_next_run_ends_it(lake: tuple[Rails, Spec]) -> None:
    rails, spec = lake
    before, stays = answers(rails, spec), predicted_from(rails)
    contents = tables(rails, stays)
    for step, when in KILLS:
        add_profiles(rails)
        kill(rails, step, when, clock.now() + LATER)
        assert tables(rails, stays) == contents, (step, when)
    assert answers(rails, spec) == before
    maintenance.maintain(rails, AS_OF, now=clock.now() + LATER)
    assert answers(rails, spec) == before
    on_disk = {path.name for path in Path(rails.settings.lake_path).rglob("*.parquet")}
    assert on_disk == named_files(rails), "nothing is missing, and nothing was left behind"


def predicted_from(rails: Rails) -> set[int]:
    rows = rails.lake.connection.execute(f"select distinct snapshot from {stored(PREDICTION)}").fetchall()
    return {rails.publication().snapshot, *(number for (number,) in rows)}


def add_profiles(rails: Rails) -> None:
    """Small files, and files with deleted rows, for every step to have work."""
    insert = (
        "insert into lake.ops.profile (model, version, available_at) "
        "select 'other', range, timestamptz '2025-02-13' from range(20)"
    )
    for number in range(rails.settings.lake_small_files):
        rails.lake.commit(lambda connection: connection.execute(insert), message=f"profile {number}")
    rails.lake.commit(
        lambda connection: connection.execute("delete from lake.ops.profile where model = 'other' and version >= 8"),
        message="delete",
    )


def named_files(rails: Rails) -> set[str]:
    rows = rails.lake.connection.execute(
        "select path from __ducklake_metadata_lake.ducklake_data_file "
        "union all select path from __ducklake_metadata_lake.ducklake_delete_file"
    ).fetchall()
    return {path.rsplit("/", 1)[-1] for (path,) in rows}


def test_it_waits_for_a_build_and_two_at_once_are_one(lake: tuple[Rails, Spec]) -> None:
    rails, _ = lake
    results: list[LakeMaintenanceSummary] = []
    now = clock.now()

    def maintain() -> None:
        with rails_module.opened(rails.settings) as own:
            results.append(maintenance.maintain(own, AS_OF, now=now))

    threads = [threading.Thread(target=maintain) for _ in range(2)]
    there = snapshots(rails)
    with transform.alone(rails):
        for thread in threads:
            thread.start()
        threads[0].join(timeout=3)
        assert threads[0].is_alive() and threads[1].is_alive()
        assert not results
        assert snapshots(rails) == there
    for thread in threads:
        thread.join()
    first, second = results
    assert first == second
    assert first.merged


def test_a_writer_beside_it_loses_no_row(lake: tuple[Rails, Spec]) -> None:
    rails, _ = lake

    def write() -> None:
        with rails_module.opened(rails.settings) as own:
            for number in range(25):
                rows = pd.DataFrame({"model": ["beside"] * 20, "version": [number] * 20, "available_at": [AS_OF] * 20})
                own.lake.replace(PROFILE, {"model": "beside", "version": number}, rows, message="beside")
                own.lake.replace(PROFILE, {"model": "beside", "version": number - 1}, rows[:0], message="beside")

    before = count(rails, "model <> 'beside'")
    thread = threading.Thread(target=write)
    thread.start()
    merges = 0
    while thread.is_alive():
        merges += sum(files.merge(rails, table.table) > 0 for table in files.crowded(rails))
    thread.join()
    assert merges
    assert count(rails, "model <> 'beside'") == before
    assert count(rails, "model = 'beside'") == 20


def count(rails: Rails, where: str) -> int:
    [number] = rails.lake.connection.execute(f"select count(*) from {stored(PROFILE)} where {where}").fetchone() or (0,)
    return int(number)


def test_a_reader_goes_on_with_what_it_began_to_read(lake: tuple[Rails, Spec]) -> None:
    rails, _ = lake
    with rails_module.opened(rails.settings) as reader:
        reader.lake.connection.begin()
        count = reader.lake.connection.execute(f"select count(*), sum(hash(version)) from {stored(PROFILE)}").fetchone()
        done = maintenance.maintain(rails, AS_OF, now=clock.now())
        assert done.merged["ops.profile"] >= SMALL
        assert (done.expired, done.removed, done.orphans) == (0, 0, 0), "all of it is younger than the grace"
        again = reader.lake.connection.execute(f"select count(*), sum(hash(version)) from {stored(PROFILE)}").fetchone()
        assert again == count
        reader.lake.connection.rollback()


def test_a_hold_keeps_the_lake_of_its_days_until_it_is_released(lake: tuple[Rails, Spec]) -> None:
    rails, _ = lake
    there = snapshots(rails)
    today = clock.now().date()
    hold = holds.hold(rails, today - timedelta(days=1), None, by="ann", reason="case 17")
    held = maintenance.maintain(rails, AS_OF, now=clock.now() + LATER)
    assert (held.expired, held.holds, held.kept["held"]) == (0, 1, len(there))
    holds.release(rails, hold.id, by="bob", reason="closed")
    assert maintenance.maintain(rails, AS_OF, now=clock.now() + LATER).expired > 0
    assert files.size(rails).snapshots < len(there)
