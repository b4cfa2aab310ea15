"""What persons do to models by hand, in the ledger: asked for, and decided exactly once.

A row says what was asked, another one what came of it; neither is ever changed. Where one person is enough both come in
one transaction, under the lock by which promotions and rollbacks change a champion.
"""

from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import fields
from datetime import date, datetime
from functools import cached_property
from typing import Any, Literal

import sqlalchemy as sa

from tiltyard import reading
from tiltyard.errors import BadInput
from tiltyard.fence import changing
from tiltyard.ledger_tables import event, json_text, operation, operation_end
from tiltyard.operating import Standing, hindrance, standing
from tiltyard.records import Operation

ASKED, DONE, REFUSED = "operation_asked", "operation_done", "operation_refused"
"""Kinds of the ledger's events about an operation."""
_ASKED = tuple(column.name for column in operation.c if column.name != "id")
_DECIDED = tuple(column.name for column in operation_end.c if column.name != "id")


class Operations:
    """The operations of an open ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @cached_property
    def _apart(self) -> sa.Engine:
        """For the lock: what is read under it takes a connection of the pool, which others may all have who wait for
        the lock."""
        return sa.create_engine(self._engine.url, poolclass=sa.NullPool, json_serializer=json_text)

    def of(
        self, models: Collection[str] | None = None, connection: sa.Connection | None = None
    ) -> dict[str, list[Operation]]:
        """Model → what was asked for, the oldest first; of all models, or of these. One query."""
        query = sa.select(operation, *(operation_end.c[name] for name in _DECIDED)).select_from(
            operation.outerjoin(operation_end, operation.c.id == operation_end.c.id)
        )
        if models is not None:
            query = query.where(operation.c.model.in_(sorted(models)))
        found: dict[str, list[Operation]] = {name: [] for name in models or ()}
        with nullcontext(connection) if connection is not None else reading.connection(self._engine) as used:
            for row in used.execute(query.order_by(operation.c.id)).mappings():
                found.setdefault(row["model"], []).append(Operation.from_json(dict(row)))
        return found

    def find(self, number: int) -> Operation:
        """An operation by its number. Raises BadInput where there is none."""
        for own in self.of().values():
            for one in own:
                if one.id == number:
                    return one
        raise BadInput(f"There is no operation {number}; tiltyard operations lists them.")

    def standing(self, model: str, night: date = date.max) -> Standing:
        """What holds of a model on a night; now, without one."""
        return standing(self.of([model])[model], night)

    def hindrance(self, model: str, night: date, connection: sa.Connection | None = None) -> str | None:
        """Why nothing that decides by itself may change a champion on a night, as a sentence; None where it may."""
        return hindrance(self.of([model], connection)[model], night)

    def retired(self, models: Collection[str], night: date = date.max) -> set[str]:
        """Those of the models that are retired on a night; now, without one."""
        return {name for name, own in self.of(models).items() if standing(own, night).retired is not None}

    def ask(self, model: str, decide: Callable[[], Operation | str]) -> Operation | str:
        """Put down what `decide` says while nobody else changes the model; what it says, with its number. A sentence
        of it stands for nothing to put down. What needs no second person holds at once."""
        with changing(self._apart, model) as connection:
            asked = decide()
            if isinstance(asked, str):
                return asked
            values = {name: getattr(asked, name) for name in _ASKED}
            number = connection.scalar(sa.insert(operation).values(**values).returning(operation.c.id))
            assert number is not None
            kept = {field.name: getattr(asked, field.name) for field in fields(asked)} | {"id": number}
            if asked.until is None:
                return _end(connection, Operation(**kept), "done", asked.night, None, asked.requested_at, None)
            _note(connection, ASKED, Operation(**kept), asked.requested_at, asked.requested_by)
            return Operation(**kept | {"night": None})

    def end(
        self,
        number: int,
        decide: Callable[[Operation], date | None],
        *,
        by: str,
        at: datetime,
        answer: str | None,
    ) -> Operation:
        """Decide an operation that waits, exactly once. `decide` says after which night it holds, or None where it is
        refused, while nobody else changes the model; what it raises leaves the operation as it was."""
        model = self.find(number).model
        with changing(self._apart, model) as connection:
            asked = self.find(number)
            night = decide(asked)
            return _end(connection, asked, "refused" if night is None else "done", night, by, at, answer)


def _end(
    connection: sa.Connection,
    asked: Operation,
    outcome: Literal["done", "refused"],
    night: date | None,
    by: str | None,
    at: datetime,
    answer: str | None,
) -> Operation:
    values: dict[str, Any] = {"outcome": outcome, "night": night, "decided_by": by, "decided_at": at, "answer": answer}
    connection.execute(sa.insert(operation_end).values(id=asked.id, **values))
    ended = Operation(**{field.name: getattr(asked, field.name) for field in fields(asked)} | values)
    _note(connection, DONE if outcome == "done" else REFUSED, ended, at, by or asked.requested_by)
    return ended


def _note(connection: sa.Connection, kind: str, one: Operation, at: datetime, by: str) -> None:
    """Let it be found among the model's events."""
    detail = {"operation": one.id, "action": one.action, "version": one.version, "by": by,
              "requested_by": one.requested_by, "reason": one.answer or one.reason}  # fmt: skip
    connection.execute(
        event.insert().values(kind=kind, model=one.model, night=one.night, detail=detail, recorded_at=at)
    )
