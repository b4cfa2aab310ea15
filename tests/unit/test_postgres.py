"""The embedded PostgreSQL: nothing committed is lost, whatever happens to its processes."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg2
import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy.engine import URL

from tiltyard import postgres
from tiltyard.errors import BadInput, Unavailable
from tiltyard.settings import DATABASES, Settings

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tiltyard home ")) / 'it\'s a "home"'
    yield folder
    postgres.stop(Settings(home=folder, database_url=None))
    shutil.rmtree(folder.parent, ignore_errors=True)


@pytest.fixture
def embedded(home: Path) -> Settings:
    return Settings(home=home, database_url=None)


def run(settings: Settings, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(postgres.conninfo(postgres.url(settings, "ledger")))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def postmaster(settings: Settings) -> int:
    return int((settings.home / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def test_starts_in_a_path_with_spaces_and_quotes_and_makes_the_four_databases(embedded: Settings) -> None:
    targets = postgres.create_all(embedded)

    assert list(targets) == list(DATABASES)
    assert run(embedded, "select current_database()") == [("tiltyard_ledger",)]


def test_a_second_start_is_the_same_server(embedded: Settings) -> None:
    postgres.server_url(embedded)
    before = postmaster(embedded)
    postgres.server_url(embedded)

    assert postmaster(embedded) == before


def test_listens_on_no_network_and_only_its_owner_may_enter(embedded: Settings) -> None:
    postgres.server_url(embedded)

    assert psutil.Process(postmaster(embedded)).net_connections("inet") == []
    assert embedded.runtime.stat().st_mode & 0o077 == 0
    assert run(embedded, "show max_connections") == [(str(postgres.MAX_CONNECTIONS),)]


def test_no_folder_on_the_way_is_opened_to_everybody(embedded: Settings) -> None:
    postgres.create_all(embedded)
    for folder in (embedded.home, embedded.home.parent):  # the second was made by mkdtemp, for its owner alone
        assert folder.stat().st_mode & 0o007 == 0


@pytest.mark.parametrize("kind", ["link", "somebody's"])
def test_a_runtime_folder_of_somebody_else_is_refused_and_nothing_in_it_is_touched(tmp_path: Path, kind: str) -> None:
    settings = Settings(home=tmp_path / "home", database_url=None, runtime_folder=Path(tempfile.mkdtemp(dir="/tmp")))
    elsewhere = tmp_path / "elsewhere"
    try:
        if kind == "link":
            elsewhere.mkdir()
            settings.runtime.symlink_to(elsewhere)
        else:
            if os.geteuid() != 0:
                pytest.skip("only root can make a folder of somebody else's")
            elsewhere = settings.runtime
            elsewhere.mkdir()
            os.chown(elsewhere, 64_001, 64_001)
        theirs = [elsewhere / ".s.PGSQL.5432", elsewhere / ".s.PGSQL.5432.lock"]
        for path in theirs:
            path.write_text("theirs")
        before = elsewhere.stat()
        with pytest.raises(Unavailable, match=r"a link or belongs to somebody else.*TILTYARD_RUNTIME_FOLDER"):
            postgres.server_url(settings)
        assert [path.read_text() for path in theirs] == ["theirs", "theirs"]
        after = elsewhere.stat()
        assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)
        postgres.stop(settings)
        assert all(path.exists() for path in theirs)
    finally:
        shutil.rmtree(settings.runtime_folder or tmp_path)


def test_a_socket_in_a_folder_that_was_taken_over_is_not_spoken_to(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", database_url=None, runtime_folder=Path(tempfile.mkdtemp(dir="/tmp")))
    try:
        postgres.server_url(settings)
        ours, aside = settings.runtime, settings.runtime.with_name("aside")
        ours.rename(aside)
        ours.symlink_to(aside)
        assert not postgres.is_running(settings)
        ours.unlink()
        aside.rename(ours)
        assert postgres.is_running(settings)
    finally:
        postgres.stop(settings)
        shutil.rmtree(settings.runtime_folder or tmp_path)


def test_kill_9_loses_nothing_that_was_committed(embedded: Settings) -> None:
    run(embedded, "create table kept as select range as n from generate_series(1, 1000) as range")
    postgres._known.clear()  # as in a process that begins now
    os.kill(postmaster(embedded), signal.SIGKILL)

    assert run(embedded, "select count(*) from kept") == [(1000,)]


def test_kill_9_of_every_process_loses_nothing_either(embedded: Settings) -> None:
    run(embedded, "create table kept_too as select 1 as n")
    main = psutil.Process(postmaster(embedded))
    postgres._known.clear()
    for process in [main, *main.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # a child may see its parent gone, and go itself
            process.kill()

    assert run(embedded, "select n from kept_too") == [(1,)]


def test_a_pid_file_that_names_a_living_stranger_does_not_stop_it(embedded: Settings) -> None:
    run(embedded, "create table again as select 1 as n")
    postgres.stop(embedded)
    pid_file = embedded.home / "postgres" / "postmaster.pid"
    stale = [str(os.getpid()), str(pid_file.parent.resolve()), "0", "5432", str(embedded.runtime), "", "0 0", "ready"]
    pid_file.write_text("\n".join(stale) + "\n")
    embedded.runtime.mkdir(exist_ok=True)
    (embedded.runtime / ".s.PGSQL.5432.lock").write_text("\n".join(stale) + "\n")

    assert run(embedded, "select n from again") == [(1,)]


def test_a_lost_socket_is_made_anew(embedded: Settings) -> None:
    postgres.server_url(embedded)
    shutil.rmtree(embedded.runtime)

    assert run(embedded, "select 1") == [(1,)]


def test_many_processes_may_start_it_at_once(embedded: Settings) -> None:
    postgres.stop(embedded)
    code = "from tiltyard import postgres; from tiltyard.settings import Settings; postgres.url(Settings(), 'mlflow')"
    environment = {**os.environ, "PYTHONPATH": str(PLUGINS), "TILTYARD_HOME": str(embedded.home)}
    environment.pop("TILTYARD_DATABASE_URL", None)

    def start(_: int) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(start, range(6)))

    assert [(one.returncode, one.stdout, one.stderr) for one in done] == [(0, "", "")] * 6


def test_a_copied_home_gets_a_server_of_its_own(embedded: Settings, tmp_path: Path) -> None:
    run(embedded, "create table original as select 1 as n")
    copy = Settings(home=tmp_path / "copy", database_url=None)
    copy.home.mkdir()
    pid_file = (embedded.home / "postgres" / "postmaster.pid").read_text()
    try:
        postgres.server_url(copy)
        postgres.stop(copy)
        (copy.home / "postgres" / "postmaster.pid").write_text(pid_file)
        run(copy, "create table theirs as select 1 as n")
        assert postmaster(copy) != postmaster(embedded)
        assert run(embedded, "select to_regclass('theirs')") == [(None,)]
    finally:
        postgres.stop(copy)


def test_a_broken_cluster_is_told_in_one_sentence(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", database_url=None)
    (settings.home / "postgres").mkdir(parents=True)
    (settings.home / "postgres" / "holiday.jpg").touch()

    with pytest.raises(Unavailable, match=r"is not a database cluster .*TILTYARD_HOME"):
        postgres.server_url(settings)


def test_stop_ends_every_process_and_twice_is_once(embedded: Settings) -> None:
    postgres.server_url(embedded)
    main = psutil.Process(postmaster(embedded))
    postgres.stop(embedded)
    postgres.stop(embedded)

    assert not main.is_running() or main.status() == psutil.STATUS_ZOMBIE
    assert not postgres.is_running(embedded)


def test_your_own_server_wins_and_is_not_stopped(postgres_url: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", database_url=postgres_url, database_prefix="own_server_")

    assert run(settings, "select current_database()") == [("own_server_ledger",)]
    postgres.stop(settings)
    assert postgres.is_running(settings)
    assert not (tmp_path / "home").exists()


def test_a_role_that_nobody_has_made_yet_is_told_with_what_makes_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=None, database_role="pages")
    said = postgres._no_answer(settings, Exception('connection failed: FATAL:  role "tiltyard_pages" does not exist\n'))
    assert str(said) == (
        "There is no role tiltyard_pages yet; tiltyard roles --apply, without TILTYARD_DATABASE_ROLE, makes it."
    )


def test_your_own_server_that_is_not_there_is_told_in_one_sentence(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url="postgresql://me:secret@127.0.0.1:1/")

    with pytest.raises(Unavailable, match="does not answer") as caught:
        postgres.url(settings, "lake")
    assert "secret" not in str(caught.value)
    assert not postgres.is_running(settings)


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:///x.db",
        "not an address",
        "mysql://me@there/",
        "postgresql://me:secret@there:x/",
        "postgresql://me:secret@there/?unheard_of=1",
        "postgresql://me:secret@there/?dsn=x",
        "postgresql://me:secret%00@there/",
        "postgresql://me:secret\0@there/",
        "postgresql://me:secret\ud800@there/",
    ],
)
def test_what_is_no_postgresql_address_is_refused(address: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=address)
    for work in (lambda: postgres.server_url(settings), lambda: postgres.is_running(settings)):
        with pytest.raises(BadInput, match="TILTYARD_DATABASE_URL") as caught:
            work()
        assert "secret" not in str(caught.value).replace("user:secret@host", "")


def test_a_password_with_an_at_sign_is_not_taken_for_a_host(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="write the one in the user or the password as %40") as caught:
        postgres.url(Settings(home=tmp_path, database_url="postgresql://me:pass@word@127.0.0.1:1/"), "lake")
    assert "word@" not in str(caught.value)


def test_conninfo_without_the_password(tmp_path: Path) -> None:
    target = URL.create("postgresql+psycopg2", "me", "pass", "db.example", 5433, "lake")
    assert parse_dsn(postgres.conninfo(target, with_password=False)) == {
        "host": "db.example", "port": "5433", "dbname": "lake", "user": "me",
    }  # fmt: skip


@pytest.mark.parametrize("password", ["plain", "it's", 'say "hi"', "back\\slash", "sp ace", "a=b'c\\'", "pérç%nt@:/"])
def test_conninfo_carries_any_password(password: str) -> None:
    target = URL.create("postgresql+psycopg2", "me", password, "db.example", 5433, "lake", query={"sslmode": "require"})

    assert parse_dsn(postgres.conninfo(target)) == {
        "host": "db.example",
        "port": "5433",
        "dbname": "lake",
        "user": "me",
        "password": password,
        "sslmode": "require",
    }
