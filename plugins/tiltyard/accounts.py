"""What nights have cost, in the ledger, what lies there, and what models are worth."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import date

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tiltyard import clock, reading
from tiltyard.ledger_tables import cost, stored, upserting, worth
from tiltyard.records import Cost, ModelWorth, Stored, Usage
from tiltyard.stages import StageName

ADDED = ("cpu_s", "wall_s", "read_bytes", "written_bytes", "processes")
"""Columns in which what another attempt has used is added."""
WORKED_ON: tuple[StageName, ...] = ("features", "shadow")
"""Stages without which a night is none."""

_WORK = (cost.c.stage.in_(WORKED_ON), cost.c.name != "")
"""Which costs are a night's work. Who only looked what there is to do, as a run that is started by hand does on the day
on which that is, has worked on none."""


class Accounts:
    """The accounts of an open ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def add(self, costs: Sequence[Cost]) -> None:
        """Put down what was used, on top of what is there: a night that is done again costs again."""
        if not costs:
            return
        rows = [
            {"night": entry.night, "stage": entry.stage, "name": entry.name, "processes": entry.processes,
             **vars(entry.usage), "recorded_at": clock.now()}
            for entry in costs
        ]  # fmt: skip
        insert = pg.insert(cost).values(rows)
        new = insert.excluded
        update = {name: cost.c[name] + new[name] for name in ADDED}
        update |= {"memory_bytes": sa.func.greatest(cost.c.memory_bytes, new.memory_bytes)}
        update |= {"recorded_at": new.recorded_at}
        keys = list(cost.primary_key.columns)
        with self._engine.begin() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=update))

    def costs(self, first: date, last: date, names: Collection[str] | None = None) -> list[Cost]:
        """What the nights from `first` to `last` have used, a record per stage and name, over all of them: `night` is
        the newest of each. With `names` only for these."""
        sums = [sa.func.sum(cost.c[name]).label(name) for name in ADDED]
        columns = (cost.c.stage, cost.c.name, sa.func.max(cost.c.night).label("night"), *sums)
        query = (
            sa.select(*columns, sa.func.max(cost.c.memory_bytes).label("memory_bytes"))
            .where(cost.c.night.between(first, last), *([cost.c.name.in_(sorted(names))] if names is not None else []))
            .group_by(cost.c.stage, cost.c.name)
            .order_by(cost.c.name, cost.c.stage)
        )
        with reading.connection(self._engine) as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return [Cost.from_json({**row, "usage": Usage.from_json(row).to_json()}) for row in rows]

    def nights(self, first: date, last: date) -> int:
        """Number of nights from `first` to `last` that were worked on. A stage that catches up on nights of before, as
        the audit does, makes none of it."""
        query = sa.select(sa.func.count(sa.distinct(cost.c.night))).where(*_WORK, cost.c.night.between(first, last))
        with reading.connection(self._engine) as connection:
            return int(connection.scalar(query) or 0)

    def newest(self) -> date | None:
        """The newest night that was worked on; None where there is none. What is done by hand stands under the day on
        which it is done, which may be years after the nights of a past that is played."""
        query = sa.select(sa.func.max(cost.c.night)).where(*_WORK)
        with reading.connection(self._engine) as connection:
            night: date | None = connection.scalar(query)
        return night

    def set_stored(self, found: Sequence[Stored]) -> None:
        """Put down what lies there now, in place of what did."""
        rows = [{"name": entry.name, "bytes": entry.bytes, "recorded_at": clock.now()} for entry in found]
        with self._engine.begin() as connection:
            connection.execute(stored.delete())
            if rows:
                connection.execute(stored.insert(), rows)

    def stored(self) -> list[Stored]:
        """What lay there when it was measured last, by name."""
        with reading.connection(self._engine) as connection:
            rows = connection.execute(sa.select(stored.c.name, stored.c.bytes).order_by(stored.c.name)).mappings()
            return [Stored(**row) for row in rows]

    def set_worths(self, found: Sequence[ModelWorth]) -> None:
        """Put down what models are worth, each in place of what was said of it before."""
        rows = [{"model": entry.model, "body": entry.to_json(), "recorded_at": clock.now()} for entry in found]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(upserting(worth, rows))

    def worths(self, models: Collection[str]) -> list[ModelWorth]:
        """What was said of these models last, by name; nothing of one where that cannot be read, as another version may
        have written it: the next maintenance says it anew."""
        query = sa.select(worth.c.body).where(worth.c.model.in_(sorted(models))).order_by(worth.c.model)
        found = []
        with reading.connection(self._engine) as connection:
            for row in connection.execute(query):
                with suppress(ValueError, TypeError):
                    found.append(ModelWorth.from_json(row.body))
        return found
