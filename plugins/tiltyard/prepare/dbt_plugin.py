"""What dbt/profiles.yml names and dbt-duckdb loads: it attaches the lake to dbt's own connection, with its passwords
and keys, and hands it the stamp of the build.

dbt prints what it cannot read in its profile, so no secret passes through that; and it parses the whole project again
when its profile or a variable of its own has changed, as the stamp does every night, and the lake's address from home
to home.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from dbt.adapters.duckdb.credentials import DuckDBCredentials
from dbt.adapters.duckdb.plugins import BasePlugin
from duckdb import DuckDBPyConnection

from tiltyard import lake
from tiltyard.settings import Settings

_in_use: list[tuple[Settings, datetime | None]] = []
"""The settings of the dbt command that runs in this process, and the stamp of its build; dbt opens its connection in
any of its threads."""


@contextmanager
def connecting(settings: Settings, built_at: datetime | None = None) -> Iterator[None]:
    """Within it, dbt's connections get the secrets of these settings, and `built_at` as the stamp of what they build
    (None: when dbt was started)."""
    _in_use.append((settings, built_at))
    try:
        yield
    finally:
        _in_use.pop()


class Plugin(BasePlugin):
    """The lake of the settings in use; that of the environment where a person runs dbt by hand."""

    def update_connection_config(self, creds: DuckDBCredentials, config: dict[str, Any]) -> None:
        config |= lake.config_of_extensions(map(str, creds.extensions or ()))

    def configure_connection(self, conn: DuckDBPyConnection) -> None:
        lake.lock_extensions(conn)
        settings = _in_use[-1][0] if _in_use else Settings()
        lake.create_secrets(conn, settings)
        lake.attach(conn, settings)

    def configure_cursor(self, cursor: DuckDBPyConnection) -> None:
        if _in_use and (built_at := _in_use[-1][1]):
            cursor.execute(f"set variable built_at = {lake.literal(built_at)}")
