"""What the project makes is its owner's alone: files, folders, and the way to them for the one other user there may be.

`keep` is called where a process begins: what it and its children make from then on has no bits for group or others.
What others are meant to read is made within `as_usual`: files of the checkout, and answers delivered to a folder.
`tighten` takes those bits from what an older version made. `let_through` lets one user, the database's where this
process is root's, pass a folder without opening it to anybody else.
"""

import errno
import logging
import os
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tiltyard.errors import Unavailable

log = logging.getLogger(__name__)

MASK = 0o077
"""Bits that nothing of ours has."""
USUAL = "TILTYARD_USUAL_UMASK"
"""Variable that tells the children of a process with which umask it was started."""

_ACL = "system.posix_acl_access"
_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")  # tag, permissions, id: include/uapi/linux/posix_acl_xattr.h
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NOBODY = 0xFFFFFFFF
_turn = threading.Lock()


def keep() -> None:
    """From now on this process and its children make what their owner alone may read."""
    before = os.umask(MASK)
    os.environ.setdefault(USUAL, f"{before:o}")


@contextmanager
def as_usual() -> Iterator[None]:
    """What is made within is made as by any other program of this user: it is meant for others as well."""
    with _turn:  # the umask is the whole process's
        before = os.umask(int(os.environ.get(USUAL, "22"), 8))
        try:
            yield
        finally:
            os.umask(before)


def tighten(home: Path) -> int:
    """Take the bits of group and others from the home and all that its user has in it; returns from how many files and
    folders. Links are not followed, and what belongs to others is theirs: deliveries, the database's files.
    """
    count, own = 0, os.geteuid()
    for folder, folders, files in os.walk(home):
        for name in ("", *files, *(name for name in folders if Path(folder, name).is_symlink())):
            count += _tightened(Path(folder, name), own)
    return count


def told(home: Path, landing: Path) -> str | None:
    """`tighten`, and a sentence on it where there was something to do."""
    count = tighten(home)
    if not count:
        return None
    others = "; if another user brings deliveries, set TILTYARD_LANDING_ZONE" if landing.is_relative_to(home) else ""
    return f"Others could read {count:,} files and folders of {home}, and from now on their owner alone may{others}."


def _tightened(path: Path, own: int) -> bool:
    with suppress(OSError):  # it went away meanwhile
        status = path.lstat()
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode) or status.st_uid != own or not mode & MASK or is_passage(path):
            return False
        path.chmod(mode & ~MASK)
        with suppress(
            OSError, AttributeError
        ):  # a list keeps what it grants beside those bits, and `chmod` only hid it
            entries = _entries(os.getxattr(path, _ACL))
            _write(path, {key: granted if key[0] == _USER else 0 for key, granted in entries.items()} | _of_owner(mode))
        return True
    return False


def _of_owner(mode: int) -> dict[tuple[int, int], int]:
    return {(_USER_OBJ, _NOBODY): mode >> 6 & 7, (_MASK, _NOBODY): 1}


def is_passage(path: Path) -> bool:
    """Whether this is a folder of which group and others have nothing, and named users no more than the way through."""
    try:
        entries = _entries(os.getxattr(path, _ACL))
    except (OSError, AttributeError):  # it has no list, or this system knows none
        return False
    return (
        path.is_dir()
        and not entries.get((_GROUP_OBJ, _NOBODY), 0)
        and not entries.get((_OTHER, _NOBODY), 0)
        and all(granted <= 1 for (tag, _), granted in entries.items() if tag in (_USER, _GROUP))
    )


def let_through(folder: Path, uid: int) -> bool:
    """Let one user pass a folder on the way to what is below, by an entry of the folder's access control list; nobody
    else may more than before. Where the file system has no such lists everybody may pass, and that is logged: what is
    below stays its owner's. Whether anything had to be done.

    Raises Unavailable where the folder is not ours to change.
    """
    if folder.stat().st_mode & 0o001:
        return False
    try:
        try:
            entries = _entries(os.getxattr(folder, _ACL))
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            mode = stat.S_IMODE(folder.stat().st_mode)
            entries = {
                (_USER_OBJ, _NOBODY): mode >> 6 & 7,
                (_GROUP_OBJ, _NOBODY): mode >> 3 & 7,
                (_OTHER, _NOBODY): mode & 7,
            }
        if entries.get((_USER, uid), 0) & entries.get((_MASK, _NOBODY), 7) & 1:
            return False
        entries[_USER, uid] = entries.get((_USER, uid), 0) | 1
        named = [granted for (tag, _), granted in entries.items() if tag in (_USER, _GROUP_OBJ, _GROUP)]
        mask = 0
        for granted in named:
            mask |= granted
        entries[_MASK, _NOBODY] = mask
        _write(folder, entries)
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOTSUP:
            raise _no_way(folder, uid, error) from None
        try:
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o001)
        except OSError as refused:
            raise _no_way(folder, uid, refused) from None
        log.warning("everybody may pass %s, which knows no access control lists; nobody may list or read it", folder)
    return True


def _no_way(folder: Path, uid: int, error: OSError) -> Unavailable:
    return Unavailable(
        f"The database's user (uid {uid}) may not pass {folder}, and cannot be let through ({error.strerror}); set "
        "TILTYARD_HOME and TILTYARD_RUNTIME_FOLDER to folders whose parents everybody may pass, run as another "
        "user than root, or set TILTYARD_DATABASE_URL."
    )


def _write(path: Path, entries: dict[tuple[int, int], int]) -> None:
    packed = b"".join(_ENTRY.pack(tag, granted, of) for (tag, of), granted in sorted(entries.items()))
    os.setxattr(path, _ACL, _VERSION.pack(2) + packed)


def _entries(packed: bytes) -> dict[tuple[int, int], int]:
    """(tag, id) → permissions, of an access control list as Linux has it."""
    return {(tag, of): granted for tag, granted, of in _ENTRY.iter_unpack(packed[_VERSION.size :])}
