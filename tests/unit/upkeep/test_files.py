"""What is removed from a lake's folder is nobody's."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from tests.conftest import make_settings
from tiltyard import clock, damage
from tiltyard import rails as rails_module
from tiltyard.errors import CheckFailed
from tiltyard.rails import Rails
from tiltyard.settings import ROOT
from tiltyard.tables import PROFILE
from tiltyard.upkeep import files, maintenance

AS_OF = clock.parse_as_of("2025-01-10")


def write(rails: Rails) -> None:
    rails.lake.ensure(PROFILE)
    rows = pd.DataFrame({"version": range(20), "available_at": [clock.parse_as_of("2025-01-01")] * 20})
    rails.lake.replace(PROFILE, {}, rows, message="test")


def test_a_file_that_a_writer_left_behind_goes_when_it_is_old(rails: Rails) -> None:
    write(rails)
    left = Path(rails.settings.lake_path) / "ops" / "profile" / "ducklake-left-behind.parquet"
    left.write_bytes(b"half a file")
    now = clock.now()
    assert files.remove_orphans(rails, now + timedelta(days=1), dry_run=True) == 0, "no mark yet"
    assert files.remove_orphans(rails, now - timedelta(days=1), dry_run=False) == 0, "the mark is young"
    assert left.exists()
    assert files.remove_orphans(rails, now + timedelta(days=1), dry_run=False) == 1
    assert not left.exists()
    assert rails.lake.connection.execute("select count(*) from lake.ops.profile").fetchone() == (20,)


def test_of_two_lakes_in_one_folder_none_takes_the_others_files(
    rails: Rails, tmp_path: Path, postgres_url: str
) -> None:
    shared = make_settings(tmp_path / "other", postgres_url, lake_data=rails.settings.lake_path)
    later = clock.now() + timedelta(days=1)
    with rails_module.opened(shared) as other:
        write(rails)
        write(other)
        assert files.remove_orphans(rails, clock.now() - timedelta(days=1), dry_run=False) == 0
        for one in (other, rails):
            with pytest.raises(CheckFailed, match="holds files of another lake, too"):
                files.remove_orphans(one, later, dry_run=False)
            assert one.lake.connection.execute("select count(*) from lake.ops.profile").fetchone() == (20,)


def on_disk(rails: Rails) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in Path(rails.settings.lake_path).rglob("*.parquet")}


MANY = "insert into lake.ops.profile (version, available_at) select range, timestamptz '2025-01-01' from range(5000)"


def test_a_commit_that_fails_gives_its_space_back_at_once(rails: Rails) -> None:
    write(rails)
    before, during = on_disk(rails), []

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(MANY)
        during.append(on_disk(rails))
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        rails.lake.commit(work, message="test")
    assert len(during[0]) == len(before) + 1
    assert on_disk(rails) == before


KILLED = """
import os, signal
from tiltyard import rails
with rails.opened() as opened:
    opened.lake.connection.begin()
    opened.lake.connection.execute({many!r})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes_with_the_maintenance_and_what_is_under_way_stays(rails: Rails) -> None:
    write(rails)
    maintenance.maintain(rails, AS_OF, now=clock.now())  # it leaves its mark
    before, settings = on_disk(rails), rails.settings
    environment = os.environ | {
        "TILTYARD_HOME": str(settings.home), "TILTYARD_DATABASE_URL": settings.database_url or "",
        "TILTYARD_DATABASE_PREFIX": settings.database_prefix, "PYTHONPATH": str(ROOT / "plugins"),
    }  # fmt: skip
    command = [sys.executable, "-c", KILLED.format(many=MANY)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(on_disk(rails)) == len(before) + 1, "it was killed once its file was written"

    with rails_module.opened(settings) as writer:
        writer.lake.connection.begin()
        writer.lake.connection.execute(MANY)
        under_way = on_disk(rails).keys() - before.keys()
        done = maintenance.maintain(rails, AS_OF + timedelta(days=1), now=clock.now())
        assert done.orphans == 0, "both are younger than the grace"
        assert under_way <= on_disk(rails).keys()
        writer.lake.connection.commit()
    assert rails.lake.connection.execute("select count(*) from lake.ops.profile").fetchone() == (5020,)
    later = clock.now() + timedelta(hours=settings.lake_grace_h + 1)
    done = maintenance.maintain(rails, AS_OF + timedelta(days=2), now=later)
    assert done.orphans == 1
    named = {file.name for file in damage.files(rails.lake)}
    assert on_disk(rails).keys() == named, "and nothing else"
