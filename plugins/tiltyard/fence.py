"""Fences: of two attempts at one piece of work only the newest may commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tiltyard.errors import Fenced
from tiltyard.ledger_tables import fence


@dataclass(frozen=True)
class Fence:
    """A claim on one piece of work, e.g. `shadow/sla_breach/2016-04-02`. A later claim outdates it."""

    engine: sa.Engine
    """Of the ledger's database."""
    key: str
    """The name of the work."""
    token: int
    """The number of the claim, from 1."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the claim while committing. Raises Fenced when a newer attempt has claimed the work.

        The row lock keeps a newer claim waiting until this commit is done; PostgreSQL lets it go when
        the process dies.
        """
        with self.engine.begin() as connection:
            current = connection.scalar(sa.select(fence.c.token).where(fence.c.key == self.key).with_for_update())
            if current != self.token:
                raise Fenced(
                    f"A newer attempt has taken over {self.key} (token {current}, this one holds {self.token}); "
                    "nothing of this attempt was written."
                )
            yield


def claim(engine: sa.Engine, key: str) -> Fence:
    """Claim a piece of work; every earlier claim on it is outdated from now on."""
    insert = pg.insert(fence).values(key=key, token=1)
    statement = insert.on_conflict_do_update(index_elements=["key"], set_={"token": fence.c.token + 1})
    with engine.begin() as connection:
        token = connection.scalar(statement.returning(fence.c.token))
    assert token is not None
    return Fence(engine, key, token)
