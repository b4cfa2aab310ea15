"""Passwords of roles on a server that asks for them, set by an owner who is no superuser: they come from the
environment, and stand in no log and on no command line."""

import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg2
import pytest
from sqlalchemy.engine import URL

from tests.homes import cursor
from tiltyard import postgres, roles
from tiltyard.settings import ROLES, Settings

HBA = "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
LOGGED = {
    "log_statement": "all",
    "log_connections": "on",
    "log_min_messages": "debug1",
    "log_error_verbosity": "verbose",
}


@dataclass(frozen=True)
class Server:
    """A PostgreSQL of somebody's own."""

    port: int
    log: Path
    folder: Path
    owner: URL
    """Its address as the owner of the databases, who may create roles and databases and nothing else."""
    passwords: dict[str, str]
    """Part → password."""

    def address(self, part: str, password: str | None = None) -> str:
        own = self.owner.set(username=f"tiltyard_{part}", password=password or self.passwords[part])
        return own.render_as_string(hide_password=False)

    def run(self, *words: str, address: str = "", **more: str) -> "subprocess.CompletedProcess[str]":
        """A command as a user types it. No process of its family is called with a password."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TILTYARD_")} | more
        environment |= {"TILTYARD_HOME": str(self.folder / "home"), "TILTYARD_SOURCES": "subscription"}
        environment |= {"TILTYARD_DATABASE_URL": address or self.owner.render_as_string(hide_password=False)}
        command = subprocess.Popen(
            [sys.executable, "-m", "tiltyard.cli", *words], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        called: set[str] = set()
        while command.poll() is None:
            try:
                own = psutil.Process(command.pid)
                called |= {" ".join(process.cmdline()) for process in (own, *own.children(recursive=True))}
                command.wait(0.1)
            except (psutil.Error, subprocess.TimeoutExpired):
                continue
        assert called
        assert self.told("\n".join(called)) == []
        return subprocess.CompletedProcess(words, command.returncode, *command.communicate())

    def told(self, text: str) -> list[str]:
        """Whose passwords a text holds."""
        every = self.passwords | {"owner": str(self.owner.password)}
        return [part for part, password in every.items() if password in text]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="tiltyard-scram-"))
    folder.chmod(0o755)  # run as root, PostgreSQL drops to a user of its own
    made = Settings(home=folder / "server", database_url=None, runtime_folder=folder)
    postgres.server_url(made)
    postgres.stop(made)
    cluster, user = postgres._cluster(made), postgres._owner(made)
    (cluster / "pg_hba.conf").write_text(HBA)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    runtime = postgres._private_folder(made.runtime, user)
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": str(runtime), "fsync": "off"}
    flags = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in (options | LOGGED).items())
    done = postgres._pg(made, user, "pg_ctl", "-D", ".", "-w", "-l", "tcp.log", "-o", flags, "start")
    assert done.returncode == 0, done.stderr
    try:
        password = secrets.token_hex(16)
        with psycopg2.connect(host=str(runtime), port=port, user="postgres") as connection, connection.cursor() as own:
            kept = psycopg2.extensions.encrypt_password(password, "owner", connection, "scram-sha-256")
            own.execute("create role owner login createrole createdb password %s", [kept])
        url = URL.create("postgresql+psycopg2", "owner", password, "127.0.0.1", port)
        yield Server(port, cluster / "tcp.log", folder, url, {part: secrets.token_hex(16) for part in ROLES})
    finally:
        postgres._pg(made, user, "pg_ctl", "-D", ".", "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def applied(server: Server) -> "subprocess.CompletedProcess[str]":
    variables = {roles.variable(part): password for part, password in server.passwords.items()}
    done = server.run("roles", "--apply", **variables)
    assert done.returncode == 0, done.stderr
    return done


def test_an_owner_who_is_no_superuser_makes_them_and_twice_is_once(
    server: Server, applied: "subprocess.CompletedProcess[str]"
) -> None:
    assert "Passwords set: tiltyard_nightly, tiltyard_pages, " in applied.stdout
    again = server.run("roles", "--apply")
    assert (again.returncode, again.stdout) == (0, "The roles are as they should be.\n")
    assert "No password is set here for tiltyard_nightly, " in again.stderr
    refused = server.run("roles", "--apply", address=server.address("nightly"))
    assert (refused.returncode, "tiltyard_nightly is one of the roles" in refused.stderr) == (2, True)


@pytest.mark.usefixtures("applied")
def test_each_part_comes_in_with_its_password_and_with_no_other(server: Server) -> None:
    for part in ROLES:
        [database, *_] = roles.ENTERS[part]
        postgres._known.clear()
        settings = Settings(home=server.folder / "home", database_url=server.address(part))
        with cursor(settings, settings.database(database)) as connection:
            connection.execute("select session_user")
            assert connection.fetchone() == (f"tiltyard_{part}",)
        wrong = settings.model_copy(update={"database_url": server.address(part, "another-password")})
        with (
            pytest.raises(psycopg2.OperationalError, match="password authentication failed"),
            cursor(wrong, settings.database(database)),
        ):
            pass


@pytest.mark.usefixtures("applied")
def test_commands_work_as_the_parts_whose_they_are_and_refuse_in_a_sentence_elsewhere(server: Server) -> None:
    for part, words in (("nightly", ["costs"]), ("pages", ["verify"]), ("nightly", ["holds"])):
        done = server.run(*words, address=server.address(part))
        assert done.returncode == 0, done.stderr
    for part, words in (("pages", ["verify", "--accept", "--reason", "why not"]), ("serving", ["holds"])):
        done = server.run(*words, address=server.address(part))
        if words[0] == "verify":  # there is nothing to accept
            assert done.returncode == 0
            continue
        assert (done.returncode, done.stdout) == (2, "")
        assert f"PostgreSQL's user tiltyard_{part} may not do this (permission denied for " in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    wrong = server.run("holds", address=server.address("nightly", "wrong-and-secret"))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "password authentication failed" in wrong.stderr
    assert "wrong-and-secret" not in wrong.stderr


def test_no_log_and_no_answer_holds_a_password(server: Server, applied: "subprocess.CompletedProcess[str]") -> None:
    """The last test of this file: the log has everything that was asked of the server."""
    log = server.log.read_text()
    assert "alter role" in log.lower()
    assert "SCRAM-SHA-256$" in log, "the verifier is what the server was sent"
    assert server.told(log) == []
    assert server.told(applied.stdout + applied.stderr) == []
    texts = [path.read_text(errors="replace") for path in (server.folder / "home").rglob("*.log")]
    assert server.told("\n".join(texts)) == []
