"""Who was erased, in the ledger: tombstones, what was asked for, and what came of it. None of these is ever changed."""

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tiltyard import clock, reading
from tiltyard.ledger_tables import erasure, erasure_end, erasure_found, erasure_touched, tombstone
from tiltyard.records import Erasure, Receipt


class Erasures:
    """The erasures of an open ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def hashes(self) -> tuple[dict[str, set[str]], set[str]]:
        """(entity → the tombstones of those who were erased, the marks of the keys that they were made with)."""
        found: dict[str, set[str]] = {}
        marks = set()
        with reading.connection(self._engine) as connection:
            for row in connection.execute(sa.select(tombstone.c.entity, tombstone.c.hash, tombstone.c.key_mark)):
                found.setdefault(row.entity, set()).add(row.hash)
                marks.add(row.key_mark)
        return found, marks

    def open(self, entity: str, hashes: Collection[str], *, mark: str, by: str, reason: str) -> Erasure:
        """The erasure of exactly these that is not done yet; else a new one, with their tombstones, in one
        transaction."""
        own = sorted(hashes)
        with self._engine.begin() as connection:
            connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('tiltyard/erasure'))"))
            for one in self._rows(connection, unfinished=True):
                if one.entity == entity and sorted(one.hashes) == own:
                    return one
            now = clock.now()
            values = {"entity": entity, "hashes": own, "reason": reason, "requested_by": by, "recorded_at": now}
            number = connection.scalar(erasure.insert().values(**values).returning(erasure.c.id))
            assert number is not None
            there: set[str] = set(connection.scalars(sa.select(tombstone.c.hash).where(tombstone.c.hash.in_(own))))
            rows = [
                {"hash": one, "entity": entity, "erasure": number, "key_mark": mark, "recorded_at": now}
                for one in own
                if one not in there
            ]
            if rows:
                connection.execute(tombstone.insert(), rows)
        return Erasure(id=number, entity=entity, hashes=tuple(own), reason=reason, requested_by=by, recorded_at=now)

    def begun(self) -> int:
        """Number of all erasures."""
        with reading.connection(self._engine) as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(erasure)) or 0)

    def unfinished(self) -> list[Erasure]:
        """The erasures that were killed, or have not found everything gone; the oldest first."""
        with reading.connection(self._engine) as connection:
            return self._rows(connection, unfinished=True)

    def receipts(self, *, done: bool | None = None) -> list[Receipt]:
        """What came of erasures, the oldest first; of those that are done, or are not."""
        query = sa.select(erasure_end.c.receipt).order_by(erasure_end.c.erasure, erasure_end.c.attempt)
        if done is not None:
            query = query.where(erasure_end.c.outcome == ("done" if done else "failed"))
        with reading.connection(self._engine) as connection:
            return [Receipt.from_json(row.receipt) for row in connection.execute(query)]

    def learned(self, model: str) -> set[int]:
        """The versions of a model whose training frame held somebody who was erased."""
        return {one.version for receipt in self.receipts() for one in receipt.learned if one.model == model}

    def touch(self, number: int, view: str, keys: Collection[str], snapshot: int) -> None:
        """Put down that rows of a view were counted with rows of theirs, by the keys of the view."""
        rows = [{"erasure": number, "view": view, "key": key, "snapshot": snapshot} for key in sorted(keys)]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(pg.insert(erasure_touched).values(rows).on_conflict_do_nothing())

    def touched(self, views: Collection[str]) -> dict[str, dict[str, int]]:
        """View → its key → the newest snapshot at which it was counted with rows of somebody who was erased since."""
        own = erasure_touched.c
        query = sa.select(own.view, own.key, sa.func.max(own.snapshot).label("snapshot"))
        query = query.where(own.view.in_(sorted(views))).group_by(own.view, own.key)
        found: dict[str, dict[str, int]] = {}
        with reading.connection(self._engine) as connection:
            for row in connection.execute(query):
                found.setdefault(row.view, {})[row.key] = row.snapshot
        return found

    def found(self, number: int, place: str, counts: Mapping[str, int]) -> None:
        """Put down what a place holds before it is erased there: the most that any attempt has found."""
        rows = [
            {"erasure": number, "place": place, "part": part, "count": count} for part, count in sorted(counts.items())
        ]
        if not rows:
            return
        insert = pg.insert(erasure_found).values(rows)
        most = {"count": sa.func.greatest(erasure_found.c.count, insert.excluded.count)}
        keys = list(erasure_found.primary_key.columns)
        with self._engine.begin() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=most))

    def counts(self, number: int) -> dict[str, dict[str, int]]:
        """Place → part → what was there when the erasure began."""
        query = sa.select(erasure_found).where(erasure_found.c.erasure == number)
        found: dict[str, dict[str, int]] = {}
        with reading.connection(self._engine) as connection:
            for row in connection.execute(query.order_by(erasure_found.c.place, erasure_found.c.part)):
                found.setdefault(row.place, {})[row.part] = row._mapping["count"]
        return found

    def attempts(self, number: int) -> int:
        """How many attempts at an erasure have come to an end."""
        query = sa.select(sa.func.count()).select_from(erasure_end).where(erasure_end.c.erasure == number)
        with reading.connection(self._engine) as connection:
            return int(connection.scalar(query) or 0)

    def end(self, receipt: Receipt) -> None:
        """Put down what came of an attempt."""
        values: dict[str, Any] = {
            "erasure": receipt.erasure, "attempt": receipt.attempt, "receipt": receipt.to_json(),
            "outcome": "done" if receipt.is_done else "failed", "recorded_at": receipt.ended_at,
        }  # fmt: skip
        with self._engine.begin() as connection:
            connection.execute(erasure_end.insert().values(**values))

    @staticmethod
    def _rows(connection: sa.Connection, *, unfinished: bool) -> list[Erasure]:
        query = sa.select(erasure).order_by(erasure.c.id)
        if unfinished:
            done = sa.select(erasure_end.c.erasure).where(erasure_end.c.outcome == "done")
            query = query.where(erasure.c.id.not_in(done))
        return [Erasure.from_json(dict(row)) for row in connection.execute(query).mappings()]
