"""The request log on its way to the lake: segments of framed records in a local folder.

One `Spool` per process. A record is in the kernel's hands when `write` returns, so `kill -9` loses none; a thread syncs
every 100 ms, so a power cut loses at most the last 100 ms. `request_log.deliver` takes what is sealed.

A segment is `<boot>-<number>.open` while it is written to and `.log` once it is sealed and synced; `boot` is a random
id of the process. It begins with MAGIC and the running number of the last record that was written before it. A frame is
crc32, length, running number, record; the crc covers everything after itself. Records that the disk did not take leave
a gap in the running numbers, so that a segment shows how many it lacks. The process locks `<boot>.lock` (flock) while
it lives, and writes there how far the numbers went, for records that were lost after the last segment. The kernel
unlocks it when the process dies, which is how the deliverer knows that nobody writes to an open segment any more.
"""

import fcntl
import os
import struct
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

MAGIC = b"tyspool1"
"""First bytes of every segment."""
SYNC_S = 0.1
"""Seconds between two syncs."""
OPEN, SEALED, LOCK = ".open", ".log", ".lock"
"""Endings of a segment that is written to, of one that is sealed, and of a process's lock."""

_START = struct.Struct("<8sQ")  # magic, the last running number written before this segment
_HEAD = struct.Struct("<IQ")  # length of the record, its running number
_CRC = struct.Struct("<I")
_FRAME = _CRC.size + _HEAD.size


class Spool:
    """Writes records. `write` never raises for a disk that is full or gone: it counts in `dropped`, and tries again."""

    def __init__(self, folder: Path, max_bytes: int = 8 << 20, max_age_s: float = 30.0) -> None:
        """A segment is sealed once it has `max_bytes` or is `max_age_s` seconds old."""
        self.folder, self.max_bytes, self.max_age_s = folder, max_bytes, max_age_s
        self.boot = uuid.uuid4().hex
        """Id of this process; another one after its folder was taken away."""
        self.written = 0
        """Number of records that were written."""
        self.dropped = 0
        """Number of records that no disk took."""
        self._number = 0
        """Running number of the last record, whether or not it was written."""
        self._last = 0
        """Running number of the last record that was written."""
        self._segments = 0
        """Number of segments that were begun."""
        self._path: Path | None = None
        """The open segment; None while there is none, and then `_fd` is -1."""
        self._fd = -1
        self._size = 0
        """Bytes of the open segment."""
        self._begun = 0.0
        """When the open segment was begun, time.monotonic()."""
        self._synced = 0
        """`written` at the last sync."""
        self._full: list[tuple[int, Path]] = []
        """Segments that the thread has to sync, seal and close."""
        self._sealed = 0
        """`written` when the last segment was full."""
        self._lock_fd = -1
        self._is_forked = False
        self._guard = threading.Lock()
        self._stop = threading.Event()
        os.register_at_fork(after_in_child=_forgetter(weakref.ref(self)))
        self._thread = threading.Thread(target=self._look_after, name="spool", daemon=True)
        self._thread.start()

    def write(self, records: Sequence[bytes]) -> bool:
        """Write all of `records` in one system call, or none: then they are counted as dropped. Whether they were
        written."""
        with self._guard:
            number = self._number
            parts: list[bytes] = []
            for record in records:
                number += 1
                head = _HEAD.pack(len(record), number)
                parts += (_CRC.pack(crc32(record, crc32(head))), head, record)
            frames = b"".join(parts)
            self._number = number
            if self._fd >= 0 and self._size + len(frames) > self.max_bytes:
                self._retire()
            try:
                if self._fd < 0:
                    self._open()
                length = os.write(self._fd, frames)
                if length == len(frames):
                    self._size += length
                    self._last = number
                    self.written += len(records)
                    return True
                self._cut()  # the disk took only a part
            except OSError:
                pass
            self.dropped += len(records)
            self._say()
            return False

    def close(self) -> None:
        """Seal what is open, and leave everything to the deliverer."""
        self._stop.set()
        self._thread.join()
        with self._guard:
            if self._fd >= 0:
                self._retire()
            self._seal()
            if self._lock_fd >= 0:
                self._say()
                os.close(self._lock_fd)
                self._lock_fd = -1

    # -- with the guard held -------------------------------------------------------------------

    def _open(self) -> None:
        if self._is_forked:
            raise OSError("a spool is one process's")
        if self._lock_fd < 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f".{self.boot}{LOCK}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.pwrite(fd, _digits(0), 0) != len(_digits(0)):  # so that its block is there when the disk is full
                    raise OSError("no room for the lock")
                fcntl.flock(fd, fcntl.LOCK_EX)
                path.rename(self.folder / f"{self.boot}{LOCK}")  # only now, so that nobody sees it unlocked
            except OSError:
                os.close(fd)
                path.unlink(missing_ok=True)
                raise
            self._lock_fd = fd
        path = self.folder / f"{self.boot}-{self._segments + 1:08d}{OPEN}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        start = _START.pack(MAGIC, self._last)
        try:
            if os.write(fd, start) != len(start):
                raise OSError("no room for a segment")
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        self._segments += 1
        self._fd, self._path, self._size, self._begun = fd, path, len(start), time.monotonic()

    def _cut(self) -> None:
        """Take away half a frame, which must not stand before whole ones."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._retire()

    def _retire(self) -> None:
        """Leave the open segment to the thread."""
        assert self._path is not None
        self._full.append((self._fd, self._path))
        self._sealed = self.written
        self._fd, self._path = -1, None

    def _say(self) -> None:
        """Write how far the numbers went, where the deliverer looks when no segment follows."""
        if self._lock_fd >= 0:
            with suppress(OSError):
                os.pwrite(self._lock_fd, _digits(self._number), 0)

    # -- the thread ----------------------------------------------------------------------------

    def _look_after(self) -> None:
        while not self._stop.wait(SYNC_S):
            with self._guard:
                self._look()
                if self._fd >= 0 and time.monotonic() - self._begun > self.max_age_s:
                    self._retire()
                fd, written = self._fd, self.written
            self._seal()
            if fd >= 0 and written != self._synced:
                with suppress(OSError):  # only this thread closes segments, so the descriptor is still this file's
                    os.fsync(fd)
                    self._synced = written

    def _seal(self) -> None:
        while self._full:
            fd, path = self._full[0]
            with suppress(OSError):
                os.fsync(fd)
            with suppress(OSError):  # a segment that stays open by name is delivered when the process has ended
                path.rename(path.with_suffix(SEALED))
            os.close(fd)
            del self._full[0]
            with suppress(OSError):
                _sync_folder(self.folder)

    def _look(self) -> None:
        """When the folder was taken away, count the records that went with it, and begin anew."""
        with suppress(OSError):
            if os.fstat(self._lock_fd).st_nlink and (self._fd < 0 or os.fstat(self._fd).st_nlink):
                return
            self.dropped += self.written - self._sealed
            self._sealed = self.written
            for fd in (self._lock_fd, self._fd):
                if fd >= 0:
                    os.close(fd)
            self._lock_fd = self._fd = -1
            self.boot, self._segments, self._number, self._last = uuid.uuid4().hex, 0, 0, 0

    def _forget(self) -> None:
        """In a forked child, let go of the lock, which must not outlive the parent. The child needs its own spool."""
        for fd in (self._lock_fd, self._fd, *(fd for fd, _ in self._full)):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)
        self._lock_fd = self._fd = -1
        self._full = []
        self._guard = threading.Lock()
        self._is_forked = True


@dataclass(frozen=True)
class Segment:
    """What a segment held."""

    boot: str
    """Id of the process that wrote it."""
    records: list[bytes]
    """The whole records, in order."""
    last: int
    """Running number up to which `records` and `lost` account for everything."""
    lost: int
    """Number of running numbers without a record; a torn tail counts as one."""
    is_damaged: bool
    """Whether bytes are not as they were written: more than a tail that a kill or a power cut left unfinished."""


def read(path: Path) -> Segment:
    """Every whole record of a segment, in order. What stands after damage is read as well."""
    data = path.read_bytes()
    boot = path.name.split("-", 1)[0]
    if len(data) < _START.size or not data.startswith(MAGIC):
        return Segment(boot, [], 0, 0, is_damaged=bool(data.strip(b"\0")) and len(data) >= _START.size)
    last = start = _START.unpack_from(data)[1]
    records: list[bytes] = []
    at, is_damaged, is_torn = _START.size, False, False
    while at < len(data):
        frame = _frame(data, at)
        if frame is None or frame[0] <= last:
            following = _resume(data, at + 1, last)
            if following is None:
                is_torn = True
                is_damaged = is_damaged or _is_more_than_torn(data, at)
                break
            is_damaged, at = True, following
            continue
        last, begins, at = frame
        records.append(data[begins:at])
    lost = last - start - len(records)
    return Segment(boot, records, last + is_torn, lost + is_torn, is_damaged)


def segments(folder: Path) -> list[Path]:
    """The segments that nobody writes to any more, each process's in the order of their writing."""
    sealed = list(folder.glob(f"*{SEALED}"))
    dead = [path for path in folder.glob(f"*-*{OPEN}") if not is_alive(folder, path.name.split("-", 1)[0])]
    return sorted({*sealed, *dead}, key=lambda path: path.stem)


def boots(folder: Path) -> dict[str, int]:
    """Boot → how many records the process numbered, as far as it wrote that down, of every process that has ended."""
    counts = {}
    for path in folder.glob(f"[!.]*{LOCK}"):  # one whose name begins with a dot is being made
        if not is_alive(folder, path.stem):
            with suppress(FileNotFoundError):
                digits = path.read_bytes()
                counts[path.stem] = int(digits) if digits.isdigit() else 0
    return counts


def is_alive(folder: Path, boot: str) -> bool:
    """Whether a process has the boot's lock, which it takes before it begins a segment."""
    try:
        fd = os.open(folder / f"{boot}{LOCK}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    """(running number, begin and end of the record) of the frame at `at`; None where there is no whole one."""
    begins = at + _FRAME
    if begins > len(data):
        return None
    length, number = _HEAD.unpack_from(data, at + _CRC.size)
    ends = begins + length
    if ends > len(data) or crc32(memoryview(data)[at + _CRC.size : ends]) != _CRC.unpack_from(data, at)[0]:
        return None
    return number, begins, ends


def _resume(data: bytes, at: int, last: int) -> int | None:
    """Where the next whole frame after damage begins, known by its running number, which cannot be far off."""
    for start in range(at, len(data) - _FRAME + 1):
        length, number = _HEAD.unpack_from(data, start + _CRC.size)
        if last < number <= last + _FAR and start + _FRAME + length <= len(data) and _frame(data, start):
            return start
    return None


def _is_more_than_torn(data: bytes, at: int) -> bool:
    """Whether a tail is damage: not a frame that would go on past the end, nor the zeros of blocks never written."""
    rest = data[at:]
    if len(rest) < _FRAME or not rest.strip(b"\0"):
        return False
    length, _ = _HEAD.unpack_from(rest, _CRC.size)
    return bool(_FRAME + length <= len(rest))


def _digits(number: int) -> bytes:
    return b"%020d" % number


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _forgetter(spool: "weakref.ref[Spool]") -> Callable[[], None]:
    def forget() -> None:
        alive = spool()
        if alive is not None:
            alive._forget()

    return forget


_FAR = 1 << 32
"""How far a running number may be from the one before damage: no process numbers so many records."""
