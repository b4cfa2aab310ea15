"""How a stage ends that does not end well is in the ledger, where the governor, a hindcast and status look for it."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import duckdb
import psutil
import psycopg2
import pytest

from tests.lakes import instant, small_spec
from tiltyard import postgres
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput, CheckFailed, Fenced, Stopped, TiltyardError, Unavailable
from tiltyard.govern import grants
from tiltyard.rails import Rails, records_its_end
from tiltyard.records import ShadowSummary
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.tables import PREDICTION

AS_OF = instant("2024-03-05")
NIGHT = night_closing(AS_OF)


def end_with(rails: Rails, spec: Spec, error: Exception) -> None:
    @records_its_end("shadow")
    def work(rails: Rails, spec: Spec, as_of: datetime) -> None:
        raise error

    with pytest.raises(type(error)):
        work(rails, spec, AS_OF)


@pytest.mark.parametrize(
    ("error", "status"),
    [(CheckFailed("a check failed"), "stopped"), (BadInput("the spine is missing"), "failed")],
)
def test_an_end_that_is_no_good_one_is_recorded_with_its_reason(
    rails: Rails, tmp_path: Path, error: TiltyardError, status: str
) -> None:
    spec = small_spec(tmp_path)
    end_with(rails, spec, error)
    record = rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT)
    assert record is not None
    assert (record.status, record.summary.reason) == (status, str(error))
    assert grants.waiting(rails, [spec], NIGHT, AS_OF) == [], "nobody waits for a model whose night is over"


@pytest.mark.parametrize("error", [Unavailable("the store is away"), Fenced("a newer one")])
def test_what_is_tried_again_leaves_no_record(rails: Rails, tmp_path: Path, error: Exception) -> None:
    spec = small_spec(tmp_path)
    end_with(rails, spec, error)
    assert rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT) is None
    assert grants.waiting(rails, [spec], NIGHT, AS_OF) == [spec.name]


def test_what_nobody_foresaw_is_recorded_by_its_kind_and_not_by_its_text(rails: Rails, tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    end_with(rails, spec, ZeroDivisionError("postgresql://me:secret@host/"))
    record = rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT)
    assert record is not None and record.status == "failed"
    assert "ZeroDivisionError" in str(record.summary.reason) and "secret" not in str(record.summary.reason)
    assert grants.waiting(rails, [spec], NIGHT, AS_OF) == []


def test_a_disk_that_takes_no_file_is_in_the_record_with_the_systems_words(rails: Rails, tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    with pytest.raises(OSError) as full, Path("/dev/full").open("wb", buffering=0) as device:
        device.write(b"anything")
    with pytest.raises(duckdb.IOException) as of_duckdb:
        rails.lake.connection.execute("copy (select range from range(100000)) to '/dev/full' (format csv)")
    said = []
    for error in (
        full.value,
        of_duckdb.value,
        OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / ".frame.parquet.part")),
        # as shutil.copy raises it: from where, and to where
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "plot.png"), None, "/dev/plot.png"),
    ):
        end_with(rails, spec, error)
        record = rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT)
        assert record is not None and record.status == "failed"
        said.append(record.summary.reason)
    assert said == [
        "A file could not be read or written (No space left on device); make room, or mend the folder.",
        "A file in /dev could not be read or written (No space left on device); make room, or mend the folder.",
        f"A file in {tmp_path} could not be read or written (Read-only file system); make room, or mend the folder.",
        "A file in /dev could not be read or written (No space left on device); make room, or mend the folder.",
    ]
    end_with(rails, spec, ConnectionResetError(errno.ECONNRESET, "ann's password"))
    assert "password" not in str(rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT))


def test_what_a_check_says_is_in_the_record(rails: Rails, tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    end_with(rails, spec, Stopped("it leaks", rows=7))
    record = rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT)
    assert record is not None
    assert (record.status, record.summary.reason, record.summary.rows) == ("stopped", "it leaks", 7)


def test_a_night_that_was_done_stays_done(rails: Rails, tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    rails.ledger.record_stage(spec.name, NIGHT, "done", ShadowSummary(night=NIGHT))
    end_with(rails, spec, CheckFailed("a later attempt"))
    record = rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT)
    assert record is not None and record.status == "done"


def test_a_later_attempt_that_ends_well_is_what_counts(rails: Rails, tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    end_with(rails, spec, BadInput("the spine is missing"))
    rails.ledger.record_stage(spec.name, NIGHT, "done", ShadowSummary(night=NIGHT))
    record = rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT)
    assert record is not None and record.status == "done"


@pytest.fixture(scope="module")
def embedded() -> Iterator[Settings]:
    """A home whose PostgreSQL is its own, and may be stopped."""
    folder = Path(tempfile.mkdtemp(prefix="tiltyard home "))
    settings = Settings(home=folder, database_url=None)
    yield settings
    postgres.stop(settings)
    shutil.rmtree(folder, ignore_errors=True)


def asks_the_ledger(rails: Rails) -> None:
    rails.ledger.models()


def reads_the_lake(rails: Rails) -> None:
    rails.lake.connection.execute("select * from lake.ops.prediction").fetchall()


def commits(rails: Rails) -> None:
    rails.lake.commit(lambda lake: lake.execute("delete from lake.ops.prediction"), message="nothing")


def waits_for_its_turn(rails: Rails) -> None:
    with rails.lake.exclusive("something"):
        pass


@pytest.mark.parametrize("how", ["stopped", "killed"])
@pytest.mark.parametrize(
    "step",
    [asks_the_ledger, reads_the_lake, commits, waits_for_its_turn],
    ids=lambda step: step.__name__,
)
def test_a_server_that_goes_away_in_the_middle_was_only_out_of_reach(
    embedded: Settings, tmp_path: Path, step: Callable[[Rails], None], how: str
) -> None:
    spec = small_spec(tmp_path)

    @records_its_end("shadow")
    def work(rails: Rails, spec: Spec, as_of: datetime) -> None:
        rails.lake.ensure(PREDICTION)
        step(rails)
        if how == "stopped":
            postgres.stop(embedded)
        else:
            server = psutil.Process(int((embedded.home / "postgres" / "postmaster.pid").read_text().splitlines()[0]))
            for process in [server, *server.children(recursive=True)]:
                process.kill()
            psutil.wait_procs([server])
        step(rails)

    with pytest.raises(Unavailable, match="PostgreSQL went away"), rails_module.opened(embedded) as rails:
        work(rails, spec, AS_OF)
    with rails_module.opened(embedded) as rails:
        assert rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT) is None, "another attempt will be made"


def test_what_is_not_the_servers_fault_is_not_laid_to_it(embedded: Settings) -> None:
    for error in (psycopg2.OperationalError("out of memory"), ValueError("the connection is closed")):
        assert not postgres.is_gone(error)


@pytest.mark.parametrize(
    ("said", "is_away"),
    [
        ("IO Error: Could not connect to server error for HTTP PUT to 'https://127.0.0.1:1/bucket/x.parquet'", True),
        ("HTTP Error: HTTP GET error on 'https://127.0.0.1:1/bucket/x.parquet' (HTTP 403)", True),
        ("HTTP Error: HTTP GET error on 'https://127.0.0.1:1/bucket/x.parquet' (HTTP 404)", False),
        ("IO Error: Cannot open file", False),
    ],
)
def test_a_bucket_that_is_away_in_the_middle_was_only_out_of_reach(
    settings: Settings, said: str, is_away: bool
) -> None:
    on_s3 = settings.model_copy(update={"lake_data": "s3://bucket/lake"})
    for place, wanted in ((on_s3, Unavailable if is_away else duckdb.IOException), (settings, duckdb.IOException)):
        with pytest.raises(wanted), rails_module._within_reach(place):
            raise duckdb.IOException(said)
