"""A process beside a hindcast: rails of its own, opened once, and an end when its parent ends."""

import atexit
import importlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing import parent_process
from threading import Thread

from tiltyard.errors import TiltyardError
from tiltyard.rails import Rails, opened
from tiltyard.settings import Settings

_rails: list[Rails] = []
_unopened: list[TiltyardError] = []
_until_exit = ExitStack()


def begin(settings: Settings, modules: Sequence[str] = (), niceness: int = 0) -> None:
    """Initializer of a pool's process: open the rails, import what its work will need, stand back by `niceness`.

    What keeps the rails from being opened is raised by `rails`, since a process whose initializer raises counts as one
    that was killed.
    """
    os.nice(niceness)
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        _rails.append(_until_exit.enter_context(opened(settings)))
    except TiltyardError as error:
        _unopened.append(error)
    for name in modules:
        importlib.import_module(name)
    atexit.register(_until_exit.close)


def rails() -> Rails:
    """This process's rails. Raises what kept them from being opened, like Unavailable."""
    if not _rails:
        raise _unopened[0]
    return _rails[0]


def _end_with_parent() -> None:
    """A killed hindcast must not leave its workers behind, working beside the next attempt."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
