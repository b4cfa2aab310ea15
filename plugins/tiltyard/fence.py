"""Fences: of two attempts at one piece of work only the newest may commit. And what somebody has to oneself: a hindcast
the models whose past it plays, so that nobody else works on a night of them; whoever changes a champion that model."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tiltyard.errors import BadInput, Fenced
from tiltyard.ledger_tables import fence
from tiltyard.words import listed

PLAYED = "tiltyard/hindcast"
"""Namespace of the locks by which a hindcast has models to itself."""


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


@contextmanager
def playing(engine: sa.Engine, models: Collection[str]) -> Iterator[None]:
    """Have these models to oneself; PostgreSQL lets them go when the process dies, however it does.

    Raises BadInput when another hindcast has one of them: both would decide on the same nights, each on what the other
    has made of them by then.
    """
    lock = sa.text("select pg_try_advisory_lock(hashtext(:space), hashtext(:model))")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            taken = [
                model for model in sorted(models) if not connection.scalar(lock, {"space": PLAYED, "model": model})
            ]
            if taken:
                raise BadInput(
                    f"Another hindcast plays {listed(taken)} at this moment; wait until it has ended, or name other "
                    "models with --model."
                )
            yield
        finally:
            with suppress(sa.exc.DBAPIError):  # where the session is gone, so are its locks
                connection.execute(sa.text("select pg_advisory_unlock_all()"))


@contextmanager
def changing(engine: sa.Engine, model: str) -> Iterator[sa.Connection]:
    """A transaction in which nobody else changes the champion of `model`."""
    with engine.begin() as connection:
        lock = sa.text("select pg_advisory_xact_lock(hashtext(:name))")
        connection.execute(lock, {"name": f"tiltyard/champion/{model}"})
        yield connection


def played(engine: sa.Engine, models: Collection[str]) -> set[str]:
    """Those of the models that a hindcast has to itself at this moment."""
    query = sa.text(
        "select name from unnest(cast(:models as text[])) as asked (name) join pg_locks on locktype = 'advisory' "
        "and database = (select oid from pg_database where datname = current_database()) and objsubid = 2 "
        "and classid = (hashtext(:space)::bigint & 4294967295)::oid "
        "and objid = (hashtext(name)::bigint & 4294967295)::oid"
    )
    with engine.connect() as connection:
        return set(connection.scalars(query, {"space": PLAYED, "models": sorted(models)}))
