"""One connection for all that a page asks of the ledger.

A page asks some sixty questions. Each would take a connection, see that it is alive, and end a transaction of its own,
which takes longer than most answers do; and a night that writes meanwhile would be in one half of the page and not in
the other. Whoever reads at once asks over one connection, as of one moment.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import sqlalchemy as sa

_held: ContextVar[sa.Connection | None] = ContextVar("held", default=None)


@contextmanager
def at_once(engine: sa.Engine) -> Iterator[None]:
    """For as long, what this thread reads by `connection` is read over one connection and as of one moment: what is
    written meanwhile, by this thread as well, is not seen."""
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with snapshot.connect() as held:
        before = _held.set(held)
        try:
            yield
        finally:
            _held.reset(before)


@contextmanager
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection to read over: the one that is held of this database, or one for this question."""
    held = _held.get()
    if held is not None and held.engine.url == engine.url:
        yield held
    else:
        with engine.connect() as opened:
            yield opened
