"""The store of online features, LMDB or Redis."""

from collections.abc import Iterator
from contextlib import closing

from tiltyard.online.connection import connect
from tiltyard.online.store import FeatureRow
from tiltyard.upkeep.erasing.hunt import Found, Hunt

_AT_ONCE = 1_000
"""Keys that are asked for at once."""
_BYTES = "bytes that were left"
"""The part of what LMDB has deleted and its file still holds."""


class OnlinePlace:
    """The store of online features."""

    name = "online"
    what = "rows of the store of online features"

    def find(self, hunt: Hunt) -> Found:
        found = Found()
        if not _is_there(hunt):
            return found
        for view, key, row in _rows(hunt):
            body = {"key": key, **row.values, "event_time": row.event_time, "available_at": row.available_at}
            found.add(view, {key}, 1, body, hunt.most)
        data = hunt.rails.settings.home / "online" / "data.mdb"
        is_file = hunt.rails.settings.online_url is None and data.is_file()
        if not found.counts and is_file and (left := hunt.needles.within(data.read_bytes())):
            found.add(_BYTES, left)
        return found

    def erase(self, hunt: Hunt, found: Found) -> None:
        if not _is_there(hunt):
            return
        with closing(connect(hunt.rails.settings)) as store:
            for view in hunt.whose.views:
                store.forget(view, sorted(hunt.values))


def _is_there(hunt: Hunt) -> bool:
    settings = hunt.rails.settings
    return settings.online_url is not None or (settings.home / "online" / "data.mdb").is_file()


def _rows(hunt: Hunt) -> Iterator[tuple[str, str, FeatureRow]]:
    values = sorted(hunt.values)
    with closing(connect(hunt.rails.settings)) as store:
        for view in hunt.whose.views:
            for start in range(0, len(values), _AT_ONCE):
                keys = values[start : start + _AT_ONCE]
                for key, row in zip(keys, store.get([(view, key) for key in keys]), strict=True):
                    if row is not None:
                        yield view, key, row
