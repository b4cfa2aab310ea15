"""The embedded store: LMDB in one folder, read by many processes while one writes."""

import errno
import fcntl
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import lmdb
from lmdb import verify

from tiltyard.errors import Unavailable
from tiltyard.online import lmdb_header
from tiltyard.online.store import (
    PAUSE_S,
    Damaged,
    FeatureRow,
    Place,
    R,
    batches,
    key_bytes,
    pack,
    pack_note,
    readable,
    unpack,
    unpack_note,
    wins,
)
from tiltyard.records import Record

T = TypeVar("T")

MAP_BYTES = 64 * 2**30
"""How far the store may grow: address space, not disk."""

WRITE_S = 10.0
"""How long a write waits for another process that writes, in seconds."""

_DATA, _READERS, _WRITERS, _FILLING = "data.mdb", "lock.mdb", "writing.lock", "filling"
"""LMDB's two files, the one whose lock a process has while it writes, and the one that is there during a filling."""
_UNREADABLE = (
    lmdb.CorruptedError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.MapResizedError,
    lmdb.PageFullError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    SystemError,
)
"""What is raised for files that LMDB cannot read; MapResizedError: it speaks of more than MAP_BYTES, which nobody
writes; SystemError: its binding does not expect the damage."""


class _Opened(NamedTuple):
    """What LMDB opens once per process, and of which file: another process may have made the store anew."""

    environment: lmdb.Environment
    file: tuple[int, int] | None


_environments: dict[tuple[int, Path], _Opened] = {}
"""(process id, folder) → what is open there; whoever asks again shares it, a forked child does not."""
_opening = threading.Lock()


class LmdbStore:
    """LMDB in one folder. A read sees one moment of it, whoever writes meanwhile; a write is whole or not there.

    Notes and writes look whether the file is still the one that is open; a `get` does not, since it is on the way of a
    request: where the store was made anew, it reads the new one from the next note on.
    """

    is_local = True
    read_s = math.inf

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment: lmdb.Environment | None = None
        self._retry_at = 0.0

    def get(self, places: Sequence[Place]) -> list[FeatureRow | None]:
        environment = self._environment or self._open()
        try:
            with environment.begin() as reading:
                contents = [reading.get(_address(table, key)) for table, key in places]
        except (lmdb.Error, SystemError) as error:
            raise self._unavailable(error) from None
        return [None if content is None else unpack(content) for content in contents]

    async def aget(self, places: Sequence[Place], until: float) -> list[FeatureRow | None]:
        return self.get(places)

    def put(self, table: str, rows: Iterable[tuple[str, FeatureRow]], *, settled: bool = False) -> int:
        return sum(self._writing(partial(_put, table=table, rows=batch, settled=settled)) for batch in batches(rows))

    def prune(self, table: str, before: float) -> int:
        return self._writing(partial(_prune, table=table, before=before))

    def forget(self, table: str, keys: Sequence[str]) -> int:
        count = self._writing(partial(_forget, table=table, keys=keys))
        if keys and (self.folder / _DATA).exists():
            self._write_anew()  # LMDB leaves the bytes of what was deleted in its file
        return count

    def forget_seen(self) -> None:
        """Nothing to do: rows are read where they lie."""

    def _write_anew(self) -> None:
        """Put a file with the same rows in the place of the one that is there. Readers go on with theirs until their
        next note, as after `clear`."""
        beside = self.folder / "anew"
        try:
            with self._alone(), self._open().begin() as reading:
                shutil.rmtree(beside, ignore_errors=True)
                anew = lmdb.open(str(beside), map_size=MAP_BYTES)
                try:
                    with anew.begin(write=True) as writing, reading.cursor() as cursor:
                        for key, value in cursor:
                            writing.put(key, value, append=True)
                finally:
                    anew.close()
                (beside / _DATA).replace(self.folder / _DATA)
                (self.folder / _READERS).unlink(missing_ok=True)
                self._environment = None
        except (lmdb.Error, SystemError, OSError) as error:
            raise self._unavailable(error) from None
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def write_note(self, name: str, note: Record) -> None:
        content = pack_note(note)
        self._writing(lambda writing: writing.put(_note_address(name), content))

    def read_note(self, name: str, kind: type[R]) -> R | None:
        try:
            with self._open().begin() as reading:
                content = reading.get(_note_address(name))
        except (lmdb.Error, SystemError) as error:
            raise self._unavailable(error) from None
        return unpack_note(content, kind)

    @contextmanager
    def filling(self) -> Iterator[None]:
        """A file says that a filling goes on. One that is there already was left by a filling that was killed, perhaps
        by a damage that LMDB does not expect (SIGSEGV, SIGBUS): then every page is looked at, by a reader that takes
        nothing for granted (18 s for a million rows)."""
        mark = self.folder / _FILLING
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            was_killed = mark.exists()
            mark.touch()
        except OSError as error:
            raise self._unavailable(error) from None
        try:
            if was_killed:
                self._examine()
            yield
        finally:
            with suppress(OSError):  # then the next filling looks the store over, which does no harm
                mark.unlink()

    def _examine(self) -> None:
        """Raises Damaged for a file that LMDB might not read to its end."""
        with self._alone():
            if not (self.folder / _DATA).exists():
                return
            try:
                faults: list[str] = verify.verify(str(self.folder / _DATA))  # type: ignore[no-untyped-call]  # has none
            except verify.VerifyError as error:
                faults = [str(error)]
        if faults:
            raise self._unavailable(lmdb.CorruptedError(faults[0]))

    def clear(self) -> None:
        with self._alone():
            try:
                for name in (_DATA, _READERS):
                    (self.folder / name).unlink(missing_ok=True)
            except OSError as error:
                raise self._unavailable(error) from None
            self._environment = None
        self._retry_at = 0.0

    def close(self) -> None:
        """Nothing to do: the environment belongs to the process, and every write is on the disk already."""

    async def aclose(self) -> None:
        self.close()

    def _writing(self, work: "Callable[[lmdb.Transaction[bytes]], T]") -> T:
        try:
            with self._alone(), self._open().begin(write=True) as writing:
                return work(writing)
        except (lmdb.Error, SystemError) as error:
            raise self._unavailable(error) from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else writes meanwhile. LMDB would wait without end for a writer that hangs."""
        until = time.monotonic() + WRITE_S
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / _WRITERS).open("ab")
        except OSError as error:
            raise self._unavailable(error) from None
        with lock:
            while not _locked(lock):
                if time.monotonic() > until:
                    raise Unavailable(
                        f"Another process has been writing to the online store in {self.folder} for more than "
                        f"{WRITE_S:.0f} s; end it, and run tiltyard online."
                    )
                time.sleep(0.002)
            yield

    def _open(self) -> lmdb.Environment:
        """What is open in this process, of the file that is there now."""
        if time.monotonic() < self._retry_at:
            raise Unavailable(f"The online store in {self.folder} does not open.")
        path = self.folder.absolute()
        owner = os.getpid(), path
        with _opening:
            opened = _environments.get(owner)
            if opened is None or opened.file != _file(path):
                # What a parent process opened is of no use here, and LMDB refuses to open a file twice.
                for stale in [key for key in _environments if key == owner or key[0] != owner[0]]:
                    del _environments[stale]
                self._environment = None
                del opened  # of a file that is gone it is closed when its last reader has gone: LMDB must not be sooner
                try:
                    opened = _environments[owner] = _open_in(path)
                except (lmdb.Error, OSError) as error:
                    self._retry_at = time.monotonic() + PAUSE_S
                    raise self._unavailable(error) from None
            self._environment = opened.environment
        return opened.environment

    def _unavailable(self, error: Exception) -> Unavailable:
        """What to say of an error, and what to do."""
        store = f"The online store in {self.folder}"
        if isinstance(error, _UNREADABLE):
            return Damaged(f"{store} is damaged ({error}); tiltyard online makes it anew from the lake.")
        if isinstance(error, lmdb.MapFullError):
            return Unavailable(
                f"{store} has grown to its limit of {MAP_BYTES >> 30} GiB; "
                "give its models a prediction.max_feature_age, or set TILTYARD_ONLINE_URL to a Redis."
            )
        if isinstance(error, lmdb.DiskError) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
            return Unavailable(f"{store} has no room left on its disk; make room, and run tiltyard online.")
        if isinstance(error, lmdb.VersionMismatchError):
            return Unavailable(
                f"{store} was written by another version of LMDB ({error}); install that one, or delete the folder "
                "and run tiltyard online."
            )
        return Unavailable(f"{store} does not answer ({error}); mend the folder, or delete it and run tiltyard online.")


def _open_in(path: Path) -> _Opened:
    """What LMDB opens in a folder. Raises lmdb.CorruptedError for a header that nobody wrote, or of a file that was cut
    off: LMDB would believe it, and reading beyond a file's end kills the process (SIGBUS)."""
    path.mkdir(parents=True, exist_ok=True)
    try:
        environment = lmdb.open(str(path), map_size=MAP_BYTES, max_readers=1024, metasync=True)
    except (*_UNREADABLE, lmdb.DiskError):
        raise
    except lmdb.Error:
        header = lmdb_header.read(path / _DATA)
        if header is None or header.fault is None:
            raise
        if header.is_foreign and not lmdb_header.is_ours(path):
            raise lmdb.VersionMismatchError(header.fault) from None
        raise lmdb.CorruptedError(header.fault) from None
    last, page = environment.info()["last_pgno"], environment.stat()["psize"]
    if fault := lmdb_header.short(last, page, (path / _DATA).stat().st_size):
        environment.close()
        raise lmdb.CorruptedError(fault)
    environment.reader_check()  # frees the slots of readers that were killed
    lmdb_header.note_version(path)
    return _Opened(environment, _file(path))


def _file(path: Path) -> tuple[int, int] | None:
    """Which file the store is in now: device and inode; None for none."""
    try:
        about = (path / _DATA).stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _address(table: str, key: str) -> bytes:
    return b"%b\0%b" % (table.encode(), key_bytes(key))


def _note_address(name: str) -> bytes:
    """Before every table's rows: no table has an empty name."""
    return b"\0%b" % name.encode()


def _put(writing: "lmdb.Transaction[bytes]", table: str, rows: Iterable[tuple[str, FeatureRow]], settled: bool) -> int:
    written = 0
    for key, row in rows:
        address = _address(table, key)
        if wins(row, readable(writing.get(address)), settled=settled):
            writing.put(address, pack(row))
            written += 1
    return written


def _forget(writing: "lmdb.Transaction[bytes]", table: str, keys: Sequence[str]) -> int:
    return sum(writing.delete(_address(table, key)) for key in keys)


def _prune(writing: "lmdb.Transaction[bytes]", table: str, before: float) -> int:
    prefix, count = b"%b\0" % table.encode(), 0
    with writing.cursor() as cursor:
        has_row = cursor.set_range(prefix)
        while has_row and cursor.key().startswith(prefix):
            row = readable(cursor.value())
            if row is None or row.event_time < before:
                cursor.delete()  # and stands on the next one
                count += 1
                has_row = bool(cursor.key())
            else:
                has_row = cursor.next()
    return count
