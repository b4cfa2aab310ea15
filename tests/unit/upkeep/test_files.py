"""What is removed from a lake's folder is nobody's."""

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import make_settings
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.errors import CheckFailed
from tiltyard.rails import Rails
from tiltyard.tables import PROFILE
from tiltyard.upkeep import files


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
