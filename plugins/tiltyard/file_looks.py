"""What is known of the lake's files, in the ledger: the digest of each, when it was looked at, and what is wrong."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tiltyard import reading
from tiltyard.ledger_tables import lake_file, upserting

_COLUMNS = [column.label(column.key) for column in lake_file.c]


@dataclass(frozen=True, kw_only=True)
class FileLook:
    """What is known of one file."""

    name: str
    """Its name, without folders."""
    table: str
    """The table whose rows it holds, `schema.table`."""
    rows: int
    """Number of its rows."""
    sha256: str | None
    """SHA-256 of its bytes when it was first looked at; None where it was never found sound."""
    looked_at: datetime
    """When it was last looked at, wall clock."""
    damage: str | None = None
    """What is wrong with it; None where nothing is."""
    found_at: datetime | None = None
    """When that was found, wall clock."""


class FileLooks:
    """The looks of an open ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def put(self, looks: Sequence[FileLook]) -> None:
        """Put down looks, each in place of the one before."""
        if looks:
            with self._engine.begin() as connection:
                connection.execute(upserting(lake_file, [vars(look) for look in looks]))

    def every(self, names: Collection[str] | None = None) -> Mapping[str, FileLook]:
        """Name → what is known, of all files or of those named."""
        query = sa.select(*_COLUMNS)
        return self._looks(query if names is None else query.where(lake_file.c.name.in_(sorted(names))))

    def damaged(self) -> Mapping[str, FileLook]:
        """Name → what is known, of the files that are damaged."""
        return self._looks(sa.select(*_COLUMNS).where(lake_file.c.damage.is_not(None)).order_by(lake_file.c.name))

    def forget(self, names: Collection[str]) -> None:
        """Forget files that are gone."""
        with self._engine.begin() as connection:
            connection.execute(lake_file.delete().where(lake_file.c.name.in_(sorted(names))))

    def _looks(self, query: sa.Select[tuple[object, ...]]) -> dict[str, FileLook]:
        with reading.connection(self._engine) as connection:
            return {row["name"]: FileLook(**row) for row in map(dict, connection.execute(query).mappings())}
