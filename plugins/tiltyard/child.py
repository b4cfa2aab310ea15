"""What a child process of the library is given of this one's environment: what it needs to run, and no secret; and that
it does not outlive whoever started it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

_PASSED = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE")
_LIBRARY = Path(__file__).resolve().parents[1]
"""Folder that `import tiltyard` looks in."""
_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ended_with_us() -> Iterator[None]:
    """What ends this process ends the block first, as Ctrl-C does, so that its `finally` ends the children: by
    themselves SIGTERM and a closed terminal let nothing be put away. The process then ends with 128 and the signal's
    number. Whoever has a handler of his own, or ignores the signal, like `nohup`, keeps to that.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may say what signals do
        yield
        return
    ours = [number for number in _ENDING if signal.getsignal(number) == signal.SIG_DFL]

    def leave(number: int, _: object) -> NoReturn:
        for each in ours:  # once is enough: a second one would stop the putting away
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def environment() -> dict[str, str]:
    """Environment for `python -m tiltyard.…` as a child that parses or scores: one thread in every library, no display.

    Settings stay behind, and with them passwords and keys: a child that reads files which a crash or worse may come of
    is told its folder on its command line.
    """
    path = os.pathsep.join(part for part in (str(_LIBRARY), os.environ.get("PYTHONPATH")) if part)
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    return passed | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
