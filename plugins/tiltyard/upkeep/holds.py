"""Legal holds: a person's word that nothing of some time may go. While one stands, no row of any table is removed
either. A hold is an event in the ledger, and so is its release: who, when and why stay for ever."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.rails import Rails
from tiltyard.records import Hold, Instant, Record

SET, RELEASED = "legal_hold", "legal_hold_released"
"""Kinds of event."""


@dataclass(frozen=True, kw_only=True)
class OpenHold(Record):
    """A legal hold that stands."""

    id: int
    """Its number, by which it is released."""
    first: Instant
    """The lake as it stood at this instant stays, and every version from then on."""
    last: Instant | None
    """Up to this instant; None: up to its release."""
    by: str
    """Who set it."""
    reason: str
    """Why."""


def hold(rails: Rails, first: date | None, last: date | None, *, by: str, reason: str) -> OpenHold:
    """Set a legal hold on the lake of these days, both included; without a day, from the beginning or without an end.

    Raises BadInput for a range that ends before it begins, and for a hold without a reason.
    """
    if not reason.strip():
        raise BadInput("A legal hold needs a reason; say why, like --reason 'case 17'.")
    if first and last and last < first:
        raise BadInput(f"The range ends ({last}) before it begins ({first}); swap --from and --to.")
    rails.ledger.add_event(SET, "", None, Hold(first=first, last=last, by=by, reason=reason.strip()).to_json())
    return open_ones(rails)[-1]


def release(rails: Rails, number: int, *, by: str, reason: str) -> OpenHold:
    """End a hold, with who did and why. Raises BadInput when no hold of this number stands."""
    open_holds = {open_hold.id: open_hold for open_hold in open_ones(rails)}
    if number not in open_holds:
        names = ", ".join(map(str, open_holds)) or "none"
        raise BadInput(f"No legal hold {number} stands (there are: {names}); tiltyard holds lists them.")
    rails.ledger.add_event(RELEASED, "", None, {"hold": number, "by": by, "reason": reason})
    return open_holds[number]


def open_ones(rails: Rails) -> list[OpenHold]:
    """The holds that stand, in the order in which they were set."""
    ended = {event.detail.get("hold") for event in rails.ledger.events(kind=RELEASED)}
    open_holds = []
    for event in rails.ledger.events(kind=SET):
        if event.id not in ended:
            body = Hold.from_json(event.detail)
            first, last = _span(body)
            open_holds.append(OpenHold(id=event.id, first=first, last=last, by=body.by, reason=body.reason))
    return open_holds


def sentences(rails: Rails) -> tuple[str, ...]:
    """The holds that stand, a sentence each, for whoever is refused because of one."""
    return tuple(f"the hold {hold.id} ({hold.reason})." for hold in open_ones(rails))


def _span(body: Hold) -> tuple[datetime, datetime | None]:
    first = clock.midnight(body.first or date(1970, 1, 1))
    return first, clock.midnight(body.last + timedelta(days=1)) if body.last else None
