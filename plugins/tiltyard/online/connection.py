"""Which store the settings name."""

from urllib.parse import urlsplit

from tiltyard.errors import BadInput
from tiltyard.online.lmdb_store import LmdbStore
from tiltyard.online.redis_store import RedisStore
from tiltyard.online.store import Store
from tiltyard.settings import Settings


def connect(settings: Settings) -> Store:
    """The store of these settings: a Redis by `online_url`, otherwise LMDB in `home/online`.

    It is opened at the first use: nothing here waits for a server or fails with it. Raises BadInput for an address that
    is none of a Redis.
    """
    url = settings.online_url.get_secret_value() if settings.online_url else None
    if url is None:
        return LmdbStore(settings.home / "online")
    if not url.startswith(("redis://", "rediss://", "unix://")) or not _has_a_port(url):
        raise BadInput(
            "TILTYARD_ONLINE_URL is no address of a Redis; write it like redis://:password@host:6379/0, with %2F, %3F "
            "and %23 for a /, ? or # in the password."
        )
    return RedisStore(url)


def _has_a_port(url: str) -> bool:
    """Whether what stands in the port's place is one. Part of a password stands there when it holds a / ? or #."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
