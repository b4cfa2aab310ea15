"""The embedded store: LMDB in one folder, read by many processes while one writes."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import lmdb

from tiltyard.errors import Unavailable
from tiltyard.online.store import (
    PAUSE_S,
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

_environments: dict[tuple[int, Path], lmdb.Environment] = {}
"""(process id, folder) → what LMDB opens once per process; whoever asks again shares it, a forked child does not."""
_opening = threading.Lock()


class LmdbStore:
    """LMDB in one folder. A read sees one moment of it, whoever writes meanwhile; a write is whole or not there."""

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
        except lmdb.Error as error:
            raise self._unavailable(error) from None
        return [None if content is None else unpack(content) for content in contents]

    async def aget(self, places: Sequence[Place], until: float) -> list[FeatureRow | None]:
        return self.get(places)

    def put(self, table: str, rows: Iterable[tuple[str, FeatureRow]], *, settled: bool = False) -> int:
        return sum(self._writing(partial(_put, table=table, rows=batch, settled=settled)) for batch in batches(rows))

    def prune(self, table: str, before: float) -> int:
        return self._writing(partial(_prune, table=table, before=before))

    def write_note(self, name: str, note: Record) -> None:
        content = pack_note(note)
        self._writing(lambda writing: writing.put(_note_address(name), content))

    def read_note(self, name: str, kind: type[R]) -> R | None:
        with (self._environment or self._open()).begin() as reading:
            content = reading.get(_note_address(name))
        return unpack_note(content, kind)

    def clear(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to do: the environment belongs to the process, and every write is on the disk already."""

    async def aclose(self) -> None:
        self.close()

    def _writing(self, work: "Callable[[lmdb.Transaction[bytes]], T]") -> T:
        try:
            with (self._environment or self._open()).begin(write=True) as writing:
                return work(writing)
        except lmdb.Error as error:
            raise self._unavailable(error) from None

    def _open(self) -> lmdb.Environment:
        if time.monotonic() < self._retry_at:
            raise Unavailable(f"The online store in {self.folder} does not open.")
        path = self.folder.absolute()
        owner = os.getpid(), path
        with _opening:
            if owner not in _environments:
                try:
                    path.mkdir(parents=True, exist_ok=True)
                    environment = lmdb.open(str(path), map_size=MAP_BYTES, max_readers=1024, metasync=True)
                    environment.reader_check()  # frees the slots of readers that were killed
                except (lmdb.Error, OSError) as error:
                    self._retry_at = time.monotonic() + PAUSE_S
                    raise self._unavailable(error) from None
                _environments[owner] = environment
            self._environment = _environments[owner]
        return self._environment

    def _unavailable(self, error: Exception) -> Unavailable:
        """What to say of an error, and what to do."""
        if isinstance(error, lmdb.MapFullError):
            return Unavailable(
                f"The online store in {self.folder} has grown to its limit of {MAP_BYTES >> 30} GiB; "
                "give its models a prediction.max_feature_age, or set TILTYARD_ONLINE_URL to a Redis."
            )
        return Unavailable(
            f"The online store in {self.folder} does not answer ({error}); mend the folder, or delete it and run "
            "tiltyard online."
        )


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
