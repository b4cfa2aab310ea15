"""Sources whose data is of the past: their nights do not start by themselves, since tonight's would find every table
too old and hold it. What is asked for runs, and a source that delivers again is awake with its first file."""

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from tiltyard import clock
from tiltyard.prepare import contracts
from tiltyard.settings import Settings

PAST = timedelta(days=30)
"""A source whose newest delivery is that much older than today delivers no more: its data is of the past."""


def noted(settings: Settings) -> Settings:
    """The settings with the sources that rest among those that are `unscheduled`. One whose contract says a schedule
    keeps it."""
    now = clock.now()
    asked = {*settings.sources} - {*settings.unscheduled}  # by every task: what is known already is not looked up
    resting = {source for source in asked if rests(settings, source, now)}
    if not resting:
        return settings
    return settings.model_copy(update={"unscheduled": tuple(sorted({*settings.unscheduled, *resting}))})


def rests(settings: Settings, source: str, now: datetime) -> bool:
    """Whether all that lies in a source's landing zone is of the past, by the names of its files. Not where nothing
    does: it may be new, or what has landed was cleared away; nor where its rows are fetched."""
    folder, days = settings.landing / source, 0
    for table in _names(folder):
        for name in _names(folder / table):
            day = contracts.day_of(name)
            if day is not None and now - PAST <= clock.midnight(day) <= now:
                return False
            days += day is not None
    return days > 0 and not contracts.fetches(settings, source)


def _names(folder: Path) -> Iterator[str]:
    """What a folder holds, hidden things left out; nothing where there is none that one may look into."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if not entry.name.startswith("."))
    except OSError:
        return
