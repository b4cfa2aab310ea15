"""What a person does to a model by hand: asked for by one, where the stakes are high confirmed by another."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from tiltyard.records.base import Instant, Record

OperationAction = Literal["rollback", "freeze", "unfreeze", "pin", "unpin", "retire", "unretire"]
"""What is done."""
OperationState = Literal["done", "waiting", "refused", "expired"]
"""How it stands: it holds; a second person has to confirm it; somebody has refused it; nobody has confirmed it in
time, which is a no."""


@dataclass(frozen=True, kw_only=True)
class Operation(Record):
    """Something that a person does to a model by hand."""

    id: int = 0
    """Its number; 0 before the ledger has it."""
    model: str
    """The model's name."""
    action: OperationAction
    """What is done."""
    version: int | None = None
    """The version that is in service by it; None for the safe default, and where nobody else is by it."""
    before: int | None = None
    """The champion when it was asked for; None for the safe default."""
    reason: str
    """Why, in the words of whoever asked."""
    requested_by: str
    """Who asked."""
    source: str
    """`airflow`, or `command line`."""
    requested_at: Instant
    """When it was asked for, wall clock."""
    until: Instant | None = None
    """Until when a second person may confirm it; None where one is enough."""
    outcome: Literal["done", "refused"] | None = None
    """What came of it; None where nobody has decided."""
    night: date | None = None
    """The night after which it holds; None where it does not."""
    decided_by: str | None = None
    """The second person, or who refused it; None where one was enough, and before."""
    decided_at: Instant | None = None
    """When that was decided, wall clock; None before."""
    answer: str | None = None
    """What the second person said; None where that was nothing."""

    @property
    def is_done(self) -> bool:
        """Whether it holds."""
        return self.outcome == "done"

    def state(self, now: datetime) -> OperationState:
        """How it stands. `now`: wall clock."""
        if self.outcome is not None:
            return self.outcome
        return "waiting" if self.until is not None and now < self.until else "expired"
