"""What dbt/profiles.yml names and dbt-duckdb loads: it hands the lake's passwords and keys to dbt's own connection.

dbt prints what it cannot read in its profile, so no secret passes through that.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from dbt.adapters.duckdb.plugins import BasePlugin
from duckdb import DuckDBPyConnection

from tiltyard import lake
from tiltyard.settings import Settings

_in_use: list[Settings] = []
"""The settings of the dbt command that runs in this process; dbt opens its connection in any of its threads."""


@contextmanager
def secrets_of(settings: Settings) -> Iterator[None]:
    """Within it, dbt's connections get the secrets of these settings."""
    _in_use.append(settings)
    try:
        yield
    finally:
        _in_use.pop()


class Plugin(BasePlugin):
    """The secrets of the settings in use; those of the environment where a person runs dbt by hand."""

    def configure_connection(self, conn: DuckDBPyConnection) -> None:
        lake.create_secrets(conn, _in_use[-1] if _in_use else Settings())
