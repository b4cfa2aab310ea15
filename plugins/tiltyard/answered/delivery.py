"""Every night's answers are brought to where the spec's `deliver` says, exactly once.

A night is owed before it is scored and until it is there, by events in the ledger: whoever dies in between owes it
still, and a destination that is away gets all that it missed with the next night. One that is scored again is owed
again, and replaces what is there of it. So does every hour of a night that is answered by the hour: what is there of
the night grows by the rows of the hour. What is wrong with one model's delivery is an event, and stops nobody.

A hindcast owes nothing: it plays the past.
"""

import logging
from collections.abc import Collection, Iterable
from datetime import date

from tiltyard.answered import destination, predictions
from tiltyard.errors import BadInput, Fenced, OutOfTime, TiltyardError
from tiltyard.prepare.fetch import credentials
from tiltyard.prepare.fetch.credentials import Lookup
from tiltyard.rails import Rails
from tiltyard.records import DeliverySummary, Event
from tiltyard.spec import Spec

OWED, DELIVERED, FAILED = "predictions_owed", "predictions_delivered", "predictions_not_delivered"
KINDS = (OWED, DELIVERED, FAILED)
"""Kinds of event, each of a model and a night."""

ROUTINE = (OWED, DELIVERED)
"""Those of every night, which are nothing to look at."""

log = logging.getLogger(__name__)


def remarkable(events: Iterable[Event]) -> list[Event]:
    """The events that are something to look at: not every night's owing and delivering."""
    return [event for event in events if event.kind not in ROUTINE]


def owe(rails: Rails, spec: Spec, nights: Collection[date]) -> None:
    """Put down, before nights of a model are scored, that they are to be delivered. Nothing where it delivers
    nowhere."""
    for night in sorted(nights) if spec.deliver else ():
        rails.ledger.add_event(OWED, spec.name, night, {})


def owed(rails: Rails, model: str) -> tuple[date, ...]:
    """The nights that have answers and are not delivered since, the oldest first."""
    newest: dict[date, tuple[int, str]] = {}
    for kind in (OWED, DELIVERED):
        for event in rails.ledger.events(model, kind):
            if event.night is not None:
                newest[event.night] = max(newest.get(event.night, (0, "")), (event.id, kind))
    waiting = {night for night, (_, kind) in newest.items() if kind == OWED}
    return tuple(sorted(waiting & predictions.nights(rails, model))) if waiting else ()


def deliver(
    rails: Rails,
    spec: Spec,
    lookup: Lookup = credentials.from_environment,
    scored: Collection[date] = (),
) -> DeliverySummary | None:
    """Bring every night that is owed, and those that were `scored` now, to their destination, the oldest first; None
    where the model delivers nowhere.

    Where one cannot be delivered, those after it wait as well. It raises nothing but OutOfTime: the next night tries
    again. Of two attempts at once only the newest writes.
    """
    if spec.deliver is None:
        return None
    to, delivered = destination.name_of(spec.deliver), {}
    done = predictions.nights(rails, spec.name) & {*scored} if scored else set()
    for night in sorted({*owed(rails, spec.name), *done}):
        try:
            delivered[night] = _deliver(rails, spec, night, lookup)
        except OutOfTime:
            raise
        except Fenced as error:
            log.info("%s", error)  # the newer attempt delivers it, or owes it
        except Exception as error:  # whatever is wrong with this destination, nobody's night waits for it
            unforeseen = f"{type(error).__name__}, which nobody foresaw; the log says more."
            reason = str(error) if isinstance(error, TiltyardError) else unforeseen
            log.warning(
                "%s of %s is not delivered: %s", spec.name, night, reason, exc_info=not isinstance(error, TiltyardError)
            )
            rails.ledger.add_event(FAILED, spec.name, night, {"to": to, "reason": reason})
            return DeliverySummary(to=to, delivered=delivered, owed=owed(rails, spec.name), reason=reason)
    return DeliverySummary(to=to, delivered=delivered)


def _deliver(rails: Rails, spec: Spec, night: date, lookup: Lookup) -> int:
    """Bring one night there; the number of its answers."""
    assert spec.deliver is not None
    fence = rails.ledger.claim(f"delivery/{spec.name}/{night}")
    with fence.held():
        rows = predictions.of_night(rails, spec.name, night, spec.target)
        destination.send(rails.settings, spec.deliver, rows, spec.name, night, lookup)
        detail = {"to": destination.name_of(spec.deliver), "rows": rows.num_rows}
        rails.ledger.add_event(DELIVERED, spec.name, night, detail)
    return int(rows.num_rows)


def again(
    rails: Rails, spec: Spec, night: date | None, lookup: Lookup = credentials.from_environment
) -> DeliverySummary:
    """Bring what is owed to its destination, and this night again. Raises BadInput for a model that delivers nowhere,
    and for a night that was not scored."""
    if spec.deliver is None:
        raise BadInput(
            f"{spec.name} delivers nowhere: write deliver into its spec, like deliver: {{folder: /srv/scores}}."
        )
    if night is not None:
        predictions.require_scored(rails, spec.name, night)
        owe(rails, spec, [night])
    summary = deliver(rails, spec, lookup)
    assert summary is not None
    return summary


def standing(rails: Rails, spec: Spec) -> DeliverySummary | None:
    """How a model's deliveries stand: the newest night that is there, what is owed, and why; None where it delivers
    nowhere."""
    if spec.deliver is None:
        return None
    there = {event.night: event for event in rails.ledger.events(spec.name, DELIVERED) if event.night}
    waiting = owed(rails, spec.name)
    failed = [event for event in rails.ledger.events(spec.name, FAILED) if event.night in waiting]
    newest = max(there, default=None)
    return DeliverySummary(
        to=destination.name_of(spec.deliver),
        delivered={newest: int(str(there[newest].detail["rows"]))} if newest else {},
        owed=waiting,
        reason=str(failed[-1].detail["reason"]) if failed else None,
    )
