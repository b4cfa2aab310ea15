"""A file or a folder that appears whole or not at all, whoever writes it and whatever stops them.

What is written goes beside its place first, hidden and under a name that no other writer has, and is then renamed,
which the file system does in one step. A reader sees the old content or the new, never half of either. What cannot be
made anew is `lasting`: it is on the disk before it has its name, so that a power cut leaves no empty file of that name.
A page or a cache that a power cut takes is made anew, and waits for no disk.

A writer that is killed leaves its part behind: the name says whose it was, and `remove_abandoned` takes away what
nobody will finish.
"""

import errno
import hashlib
import itertools
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_numbers = itertools.count()
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
"""This machine, in names of parts: of a folder that several share, each knows its own processes only."""
_PART = re.compile(r"\..+\.(?:(?P<host>[0-9a-f]{8})-)?(?P<writer>\d+)-\d+\.part")
_DAY_S = 86_400.0


_OF_WRITING = (errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC)
"""What a disk says that takes no more of a file."""


@contextmanager
def whole(path: Path, *, lasting: bool = False) -> Iterator[Path]:
    """Yields a path beside `path` to write to; what lies there at the end takes the place of `path`, and where it is
    `lasting` outlives a power cut from then on.

    The folder must exist. The path ends in `.part`, so a writer that chooses its format by the ending must be told it.
    An exception leaves `path` as it was and nothing beside it. Raises OSError when the place cannot be taken; where a
    disk that has filled up does not say of which file, that is added.
    """
    part = _beside(path)
    try:
        with _naming(path):
            yield part
        if lasting:
            _on_disk(part)
        part.replace(path)
        if lasting:
            _on_disk(path.parent)
    except BaseException:
        with suppress(OSError):  # the reason why nothing could be written is the one to tell
            part.unlink()
        raise


@contextmanager
def whole_once(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, which takes the place of `path` if there is none yet: of several
    writers at once the first one's file stays. The folder must exist; nothing is left beside it."""
    part = _beside(path)
    try:
        with _naming(path):
            yield part
        with suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to write to, which takes the place of `folder` if there is none yet.

    The folders above are made. Of several writers at once the first one's files stay, and the others' are dropped:
    they are taken to be the same. An exception leaves nothing behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(folder)
    part.mkdir()
    try:
        with _naming(folder):
            yield part
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Opening a file that cannot be had says which one it is, writing to it does not."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_WRITING and error.filename is None:
            error.filename = str(path)
        raise


def remove_abandoned(folder: Path) -> int:
    """Remove every part anywhere below a folder whose writer is gone, and return their number.

    A writer is gone when no process of this machine has its number any more; one of another machine is when it has not
    written for a day. Links are not followed.
    """
    count = 0
    for place, folders, names in os.walk(folder):
        for name in [name for name in (*folders, *names) if _is_abandoned(Path(place) / name)]:
            path = Path(place) / name
            if name in folders:
                folders.remove(name)
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):  # of another user, or gone by now
                    path.unlink()
            count += not path.exists()
    return count


def _is_abandoned(path: Path) -> bool:
    named = _PART.fullmatch(path.name)
    if named is None or path.is_symlink():
        return False
    if named["host"] == _HOST:
        import psutil

        return not psutil.pid_exists(int(named["writer"]))
    try:
        return time.time() - path.stat().st_mtime > _DAY_S
    except OSError:
        return False


def _on_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    """A hidden name in the same folder, which neither another process nor another thread of this one is given."""
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{next(_numbers)}.part")
