"""A bit that has turned in a file of the lake is found, by whoever reads it or by the scrub, and is told by table and
file."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from tests.conftest import make_settings
from tiltyard import clock, damage
from tiltyard import lake as lakes
from tiltyard import rails as rails_module
from tiltyard.errors import Unavailable
from tiltyard.rails import Rails, recording_its_end
from tiltyard.records import LakeMaintenanceSummary
from tiltyard.tables import CHECK_RESULT, PROFILE
from tiltyard.upkeep import maintenance, scrub

AS_OF = clock.parse_as_of("2025-01-01")
FLIPS = 20
SEED = 20160229
PLAIN_TYPES = ("varchar", "integer", "bigint", "double")


@pytest.fixture
def plain(tmp_path: Path, postgres_url: str) -> Iterator[Rails]:
    """A lake that was made without encryption, opened by settings that would make it encrypted."""
    settings = make_settings(tmp_path / "plain", postgres_url, lake_encrypted=False)
    with rails_module.opened(settings):
        pass
    with rails_module.opened(settings.model_copy(update={"lake_encrypted": True})) as opened:
        yield opened


def write(rails: Rails, rows: int = 3_000) -> None:
    """Rows in two tables, in a file each."""
    for table in (PROFILE, CHECK_RESULT):
        rails.lake.ensure(table)
        columns = {name: kind for name, kind in table.columns.items() if kind in PLAIN_TYPES}
        values = {
            name: [f"{name} {number * 7919 % 1009}" for number in range(rows)] if kind == "varchar" else range(rows)
            for name, kind in columns.items()
        }
        rails.lake.replace(table, {}, pd.DataFrame({**values, "available_at": [AS_OF] * rows}), message="test")


def file_of(rails: Rails, table: str) -> damage.LakeFile:
    [file] = [file for file in damage.files(rails.lake) if file.table == table]
    return file


@contextmanager
def flipped(file: damage.LakeFile, bit: int) -> Iterator[None]:
    """One bit of a file turned, as long as it lasts."""
    path, whole = Path(file.path), Path(file.path).read_bytes()
    turned = bytearray(whole)
    turned[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(turned))
    yield
    path.write_bytes(whole)


def bits(file: damage.LakeFile) -> list[int]:
    return random.Random(SEED).sample(range(file.bytes * 8), FLIPS)


def everything(rails: Rails, table: str) -> object:
    return rails.lake.connection.execute(f"select bit_xor(hash(*columns(*))) from {lakes.stored(table)}").fetchone()


def test_a_read_finds_every_flip_in_an_encrypted_lake_and_names_table_and_file(rails: Rails) -> None:
    write(rails)
    file = file_of(rails, "ops.profile")
    assert lakes.is_encrypted(rails.lake.connection)
    before = everything(rails, file.table)
    for bit in bits(file):
        with flipped(file, bit), pytest.raises(damage.Damaged) as told, recording_its_end(rails, "shadow", AS_OF):
            everything(rails, file.table)
        assert f"A file of ops.profile is damaged, {file.name} with 3,000 rows" in str(told.value)
    assert everything(rails, file.table) == before
    assert [event.detail["file"] for event in rails.ledger.events(kind=damage.DAMAGED)] == [file.name]
    assert not isinstance(told.value, Unavailable), "nobody tries it again"


def test_what_was_found_is_over_when_the_file_is_restored(rails: Rails) -> None:
    write(rails)
    file = file_of(rails, "ops.profile")
    with flipped(file, 8 * (file.bytes // 2)):
        found = scrub.scrub_all(rails, lambda label, share: None)
        [one] = found.damaged
        assert (one.table, one.file, one.rows, one.is_current) == ("ops.profile", file.name, 3_000, True)
        assert [each.file for each in scrub.damages(rails)] == [file.name]
    assert scrub.scrub_night(rails).damaged == (), "whatever the night's share, what is damaged is looked at again"
    assert [event.detail["file"] for event in rails.ledger.events(kind=damage.MENDED)] == [file.name]


def test_in_a_plain_lake_the_scrub_finds_every_flip_after_its_first_look(plain: Rails) -> None:
    write(plain)
    assert not lakes.is_encrypted(plain.lake.connection)
    file = file_of(plain, "ops.profile")
    assert (scrub.scrub_night(plain).looked_at, scrub.scrub_night(plain).looked_at) == (2, 1), (
        "what is new, then a share"
    )
    unseen = 0
    for bit in bits(file):
        with flipped(file, bit):
            with suppress(duckdb.Error):
                unseen += everything(plain, file.table) is not None
            [one] = scrub.scrub_all(plain, lambda label, share: None).damaged
            assert one.file == file.name
        assert scrub.scrub_all(plain, lambda label, share: None).damaged == ()
    assert unseen, "reads alone do not find them all"


def test_a_file_that_is_gone_or_cut_off_is_damaged_too(rails: Rails) -> None:
    write(rails)
    path, whole = Path(file_of(rails, "ops.profile").path), Path(file_of(rails, "ops.profile").path).read_bytes()
    for change, said in (
        (lambda: path.write_bytes(whole[:-1]), "it has"),
        (lambda: path.write_bytes(b""), "it has 0 bytes of"),
        (path.unlink, "it is gone"),
    ):
        change()
        with pytest.raises(damage.Damaged, match=said), recording_its_end(rails, "shadow", AS_OF):
            everything(rails, "ops.profile")
        path.write_bytes(whole)


def test_the_look_ends_at_what_has_no_end_as_well(rails: Rails) -> None:
    write(rails)
    path = Path(file_of(rails, "ops.profile").path)
    for put in (lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), lambda: path.symlink_to(path),
                path.mkdir):  # fmt: skip
        path.unlink()
        put()
        (look,) = damage.inspect(rails.lake, rails.ledger, [file_of(rails, "ops.profile")])
        assert look.damage and look.damage.startswith(("it is no file", "it cannot be read"))


def test_an_error_that_is_not_of_a_damaged_file_stays_what_it_is(rails: Rails) -> None:
    write(rails)
    for query in ("select no_such_column from lake.ops.profile", "select * from read_parquet('/nowhere/x.parquet')"):
        with pytest.raises(duckdb.Error), recording_its_end(rails, "shadow", AS_OF):
            rails.lake.connection.execute(query)


def test_within_its_nights_the_scrub_looks_at_every_file_once(rails: Rails) -> None:
    rails.lake.ensure(PROFILE)
    for number in range(12):
        rows = pd.DataFrame({"version": [number] * 20, "available_at": [AS_OF] * 20})
        rails.lake.replace(PROFILE, {"version": number}, rows, message="test")
    settings = rails.settings.model_copy(update={"lake_scrub_nights": 4})
    nights = [scrub.scrub_night(rails_module.Rails(settings, rails.lake, rails.ledger)) for _ in range(4)]
    assert [night.looked_at for night in nights] == [3, 3, 3, 3]
    assert [night.never for night in nights] == [9, 6, 3, 0]


def test_the_maintenance_scrubs_and_goes_round_a_damaged_table(rails: Rails) -> None:
    rails.lake.ensure(PROFILE)
    for number in range(rails.settings.lake_small_files):
        rows = pd.DataFrame({"version": [number] * 20, "available_at": [AS_OF] * 20})
        rails.lake.replace(PROFILE, {"version": number}, rows, message="test")
    first = damage.files(rails.lake)[0]
    with flipped(first, 8 * (first.bytes // 2)):
        done = maintenance.maintain(rails, AS_OF, now=clock.now())
        assert done.busy == ("ops.profile",)
        assert done.scrub is not None
        assert [one.file for one in done.scrub.damaged] == [first.name]
        run = rails.ledger.last_stage_run(LakeMaintenanceSummary)
        assert run is not None
        assert run.summary.scrub == done.scrub
    again = maintenance.maintain(rails, AS_OF + timedelta(days=1), now=clock.now())
    assert again.merged == {"ops.profile": rails.settings.lake_small_files}
    assert again.scrub is not None
    assert again.scrub.damaged == ()
