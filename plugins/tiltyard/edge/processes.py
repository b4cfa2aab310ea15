"""Airflow's four parts as processes: started, known again, and ended with all that they started.

Each part has its own session, log (`home/logs`) and pid file (`home/run`). A mark in the environment, which every
process inherits, finds also those whose parents are gone.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tiltyard.edge.airflow_settings import airflow_env
from tiltyard.files import whole
from tiltyard.settings import ROOT, Settings

COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    # Their log servers would listen on every interface; on one machine the API reads the files themselves.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
"""Name of a part → the words of its `airflow` command."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine that nobody else reaches."""
STOP_TIMEOUT_S = 20
"""Seconds that a part may take to put its work away before it is killed."""
MAX_LOG_BYTES = 32_000_000
"""Size of a log, in bytes, from which on the next start begins a new one."""
MARK = "TILTYARD_SERVICE"
"""In the environment of every process started here, whatever has become of its parents."""
OPENED = "TILTYARD_OPENED"
"""The same of what a command has opened for as long as it runs, like MLflow, with its port: a start of Airflow leaves
it alone."""


def process_env(settings: Settings) -> dict[str, str]:
    """The whole environment of a part: this shell's without what would change Airflow, and Airflow's settings."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if key not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "AIRFLOW_CONFIG"} and not key.startswith("TILTYARD_")
    }
    bypass = ",".join(dict.fromkeys(filter(None, [os.environ.get("no_proxy", os.environ.get("NO_PROXY")), *LOOPBACK])))
    return {
        **inherited,
        **airflow_env(settings),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": str(ROOT / "plugins"),
        "PYTHONUNBUFFERED": "1",
        "no_proxy": bypass,
        "NO_PROXY": bypass,
        "SPT_NOENV": "1",  # process titles may not overwrite the environment, which holds the mark
        MARK: _tag(settings),
    }


def spawn(settings: Settings, name: str, environment: Mapping[str, str]) -> None:
    """Start a part and write down which process it is."""
    log = log_file(settings, name)
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", *COMPONENTS[name]],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=settings.home / "airflow",
            start_new_session=True,
        )
    record = {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
    path = _pid_file(settings, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_text(json.dumps(record))


def log_file(settings: Settings, name: str) -> Path:
    """Where a part's output goes; its folder is made."""
    folder = settings.home / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def recorded(settings: Settings, name: str) -> psutil.Process | None:
    """The part's living process. A number that another process got since does not count."""
    try:
        record = json.loads(_pid_file(settings, name).read_text())
        process = psutil.Process(record["pid"])
        is_same = abs(process.create_time() - record["created"]) < 2
        return process if is_same and process.status() != psutil.STATUS_ZOMBIE else None
    except (FileNotFoundError, ValueError, KeyError, psutil.Error):
        return None


def marked(settings: Settings) -> list[psutil.Process]:
    """Every living process that was started here, known by the mark in its environment."""
    return _bearing(MARK, _tag(settings))


def opened_env(settings: Settings, port: int) -> dict[str, str]:
    """What is added to the environment of what a command opens on a port."""
    return {OPENED: f"{_tag(settings)}:{port}.", "SPT_NOENV": "1"}


def opened(settings: Settings) -> list[psutil.Process]:
    """Every living process of what commands have opened, also of one that was killed."""
    return _bearing(OPENED, _tag(settings))


def close(settings: Settings, port: int) -> None:
    """End what a command has opened on a port, with all that it started."""
    for _ in range(2):  # what had begun to start another process may have done so before it ended
        _kill(_bearing(OPENED, opened_env(settings, port)[OPENED]), patience_s=10)


def sweep(settings: Settings) -> None:
    """End what killed parts left running, before their successors start."""
    spared = {process.pid for process in _family(_parts(settings, COMPONENTS))}
    _kill([process for process in marked(settings) if process.pid not in spared], patience_s=1)


def end(settings: Settings, names: Sequence[str]) -> None:
    """End these parts: the parts themselves first, so that they can put their work away, then what is left."""
    parts = _parts(settings, names)
    family = _family(parts)
    _kill(parts, patience_s=STOP_TIMEOUT_S)
    everything = set(names) == set(COMPONENTS)
    _kill([*family, *([*marked(settings), *opened(settings)] if everything else [])], patience_s=3)
    for name in names:
        _pid_file(settings, name).unlink(missing_ok=True)


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _bearing(mark: str, begins: str) -> list[psutil.Process]:
    """Every living process but this one and its parents with a mark that begins so."""
    processes = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(mark, "").startswith(begins):
                processes.append(process)
        except psutil.Error:  # gone, or somebody else's
            continue
    own = {parent.pid for parent in psutil.Process().parents()}  # `make down` typed into a task's own shell
    return [process for process in processes if process.pid not in own]


def _tag(settings: Settings) -> str:
    return hashlib.sha256(str(settings.home.resolve()).encode()).hexdigest()[:16]


def _pid_file(settings: Settings, name: str) -> Path:
    return settings.home / "run" / f"{name}.json"


def _parts(settings: Settings, names: Iterable[str]) -> list[psutil.Process]:
    return [process for name in names if (process := recorded(settings, name))]


def _family(parts: Iterable[psutil.Process]) -> list[psutil.Process]:
    """These processes and everything that descends from them."""
    family = list(parts)
    for process in tuple(family):
        with suppress(psutil.NoSuchProcess):
            family.extend(process.children(recursive=True))
    return family


def _kill(processes: Sequence[psutil.Process], patience_s: float) -> None:
    """SIGTERM, and SIGKILL for what has not ended after `patience_s` seconds."""
    for process in processes:
        _signal(process.terminate)
    for process in _alive_after(processes, patience_s):
        _signal(process.kill)
    _alive_after(processes, 5)


def _signal(send: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        send()


def _alive_after(processes: Iterable[psutil.Process], patience_s: float) -> list[psutil.Process]:
    deadline = time.monotonic() + patience_s
    alive = list(processes)
    while True:
        alive = [process for process in alive if is_alive(process)]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.05)
