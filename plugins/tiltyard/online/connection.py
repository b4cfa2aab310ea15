"""Which store the settings name."""

from tiltyard.errors import BadInput
from tiltyard.online.lmdb_store import LmdbStore
from tiltyard.online.redis_store import RedisStore, is_address
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
    if not is_address(url):
        raise BadInput(
            "TILTYARD_ONLINE_URL is no address of a Redis; write it like redis://:password@host:6379/0, with %2F, %3F "
            "and %23 for a /, ? or # in the password; after a ? it may have options of redis-py, like socket_timeout=1."
        )
    return RedisStore(url)
