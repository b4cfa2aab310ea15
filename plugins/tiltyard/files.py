"""A file or a folder that appears whole or not at all, whoever writes it and whatever stops them.

What is written goes beside its place first, hidden and under a name that no other writer has, and is then renamed,
which the file system does in one step. A reader sees the old content or the new, never half of either. What cannot be
made anew is `lasting`: it is on the disk before it has its name, so that a power cut leaves no empty file of that name.
A page or a cache that a power cut takes is made anew, and waits for no disk.
"""

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_numbers = itertools.count()


@contextmanager
def whole(path: Path, *, lasting: bool = False) -> Iterator[Path]:
    """Yields a path beside `path` to write to; what lies there at the end takes the place of `path`, and where it is
    `lasting` outlives a power cut from then on.

    The folder must exist. The path ends in `.part`, so a writer that chooses its format by the ending must be told it.
    An exception leaves `path` as it was and nothing beside it. Raises OSError when the place cannot be taken.
    """
    part = _beside(path)
    try:
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
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to write to, which takes the place of `folder` if there is none yet.

    The folders above are made. Of several writers at once the first one's files stay, and the others' are dropped:
    they are taken to be the same. An exception leaves nothing behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(folder)
    part.mkdir()
    try:
        yield part
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _on_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    """A hidden name in the same folder, which neither another process nor another thread of this one is given."""
    return path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}.part")
