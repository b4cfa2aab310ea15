"""Which nights a source can have: one that nobody can have meant, like that of a mistyped year, is refused before
anything is done. It would find every table too old, hold it, and be the newest night of all that was ever done."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.prepare import contracts, ingest
from tiltyard.rails import Rails

AHEAD = timedelta(days=30)
"""How far after the newest delivery no night is meant: after a week of silence every table is held as it is."""


def require(rails: Rails, sources: Sequence[str], now: datetime, *nights: datetime) -> None:
    """Raises BadInput for a night that has not closed, or that lies AHEAD or more after the newest delivery of all of
    these sources: it would hold every table, and every night up to it with it, until it is done again with data."""
    night = clock.require_closed(max(nights), now)
    here = (ingest.newest_here(rails, source, until=now.date()) for source in sources)
    newest = max((day for day in here if day), default=None)
    if newest is None or any(contracts.fetches(rails.settings, source) for source in sources):
        return  # what is newer may be fetched
    after = clock.midnight(newest) + timedelta(days=1)
    if night - after >= AHEAD:
        raise BadInput(
            f"The night of {night:%Y-%m-%d} lies {(night - after).days} days after the newest delivery of "
            f"{', '.join(sources)}, which is that of {newest}; name one that has data, like {after:%Y-%m-%d}."
        )


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
