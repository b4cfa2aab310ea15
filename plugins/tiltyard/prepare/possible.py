"""Which nights a source can have: one that nobody can have meant, like that of a mistyped year, is refused before
anything is done. It would find every table too old, hold it, and be the newest night of all that was ever done."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.prepare import contracts, ingest
from tiltyard.rails import Rails

AHEAD = timedelta(days=30)
"""How far after the newest delivery no night is meant: after a week of silence every table is held as it is."""


def require(rails: Rails, sources: Sequence[str], now: datetime, *nights: datetime) -> None:
    """Raises BadInput for a night that has not closed, or that lies AHEAD or more after the newest delivery of all of
    these sources: it would hold every table, and every night up to it with it, until it is done again with data."""
    able(rails, sources, now, max(nights))


def able(rails: Rails, sources: Sequence[str], now: datetime, night: datetime) -> tuple[str, ...]:
    """Those of these sources that can have a night: of the others every table would be held. Raises BadInput where
    none of them can that has delivered, and for a night that has not closed."""
    clock.require_closed(night, now)
    newest = {source: _newest(rails, source, now) for source in sources}
    last = max((day for day in newest.values() if day is not None), default=None)
    is_fetched = any(contracts.fetches(rails.settings, source) for source in sources)
    if last is not None and _is_beyond(last, night) and not is_fetched:
        raise BadInput(f"{_beyond(sources, last, night)}; {_like(last)}.")
    return tuple(source for source in sources if not _is_beyond(newest[source], night))


def require_going_on(rails: Rails, source: str, now: datetime, night: datetime) -> None:
    """The same of a night that comes by its schedule. That of a source that has fallen silent is done, night after
    night, so that its silence is seen: its tables are held. One that would be the first in AHEAD is refused: what lies
    there would land with it, as if it had come today."""
    last = rails.ledger.newest_attempts("features", [source]).get(source)
    newest = _newest(rails, source, now)
    if newest is None or not _is_beyond(newest, night) or (last and night - clock.midnight(last) < AHEAD):
        return
    done = f"the newest that was done is that of {last}" if last else "none was done yet"
    raise BadInput(f"{_beyond([source], newest, night)}, and {done}; {_like(newest)}, under Night.")


def next_due(rails: Rails, source: str, now: datetime) -> datetime:
    """The `as_of` of the night of a source that is due next: after the newest one that was attempted. Raises BadInput
    where none is due, or none was ever done, so that nobody can tell where to begin."""
    newest = rails.ledger.newest_attempts("features", [source]).get(source)
    if newest is None:
        here = ingest.newest_here(rails, source, until=now.date())
        there = f"its newest delivery is that of {here}" if here else "nothing of it has been delivered yet"
        raise BadInput(f"No night of {source} was done yet, and {there}: name the night to begin with, under Night.")
    due = clock.midnight(newest) + clock.NIGHT
    if due > now:
        raise BadInput(
            f"No night of {source} is due: the newest is that of {newest}, and the next one closes at "
            f"{due:%Y-%m-%d %H:%M} UTC; name the one to do again, under Night."
        )
    require(rails, [source], now, due)
    return due


def _newest(rails: Rails, source: str, now: datetime) -> date | None:
    """The day of the newest delivery of a source, landed or lying there; None where nothing bounds its nights: there is
    no delivery, or what is newer may be fetched."""
    if contracts.fetches(rails.settings, source):
        return None
    return ingest.newest_here(rails, source, until=now.date())


def _is_beyond(newest: date | None, night: datetime) -> bool:
    """Whether a night lies AHEAD or more after the one that the newest delivery is of."""
    return newest is not None and night - _of(newest) >= AHEAD


def _of(newest: date) -> datetime:
    """The night that brings a day's delivery."""
    return clock.midnight(newest) + clock.NIGHT


def _beyond(sources: Sequence[str], newest: date, night: datetime) -> str:
    days = (night - _of(newest)).days
    return (
        f"The night of {clock.night_of(night)} lies {days} days after the newest delivery of {', '.join(sources)}, "
        f"which is that of {newest}"
    )


def _like(newest: date) -> str:
    return f"name one that has data, like {_of(newest):%Y-%m-%d}"
