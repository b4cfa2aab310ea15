"""The hours of hourly models: which are to be answered, and by which names a run or a person asks for one.

Nobody waits for an hour. What was lost, whose source had no run, or that failed is answered with the next hour that is
published, as of its own end, and what is left when the night closes is the night's.
"""

import logging
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.records import AnsweredHour
from tiltyard.spec import Spec

if TYPE_CHECKING:
    from tiltyard.prepare.fetch.credentials import Lookup
    from tiltyard.rails import Rails

log = logging.getLogger(__name__)


def as_of(rails: "Rails", source: str, end: datetime, began: datetime) -> datetime:
    """The `as_of` of a run of a source's features whose interval ends at `end`: of a source with hourly models the hour
    that ended last, of any other the night that closed last.

    An hour comes after the night before it: where that was not done before this run `began` (Airflow skips runs that
    come too close), the run closes the night instead.
    """
    from tiltyard.prepare import features

    night = clock.midnight(end.date())
    every = features.every(rails.settings, source)
    if every is None:
        return night
    closed = rails.ledger.ends("features", {source: night.date()}, until=night.date())[source].get(night.date())
    return clock.floor(end, every) if closed is not None and closed.recorded_at < began else night


def waiting(rails: "Rails", specs: Sequence[Spec]) -> dict[str, tuple[datetime, ...]]:
    """Model → the hours of the night that is open now at which its rows may be answered and were not, oldest first; of
    hourly models with such hours.

    They may when the spine was published at that hour, or at a later one of the night.
    """
    hourly = [spec for spec in specs if spec.prediction.is_hourly]
    if not hourly:
        return {}
    spines = {spec.prediction.spine for spec in hourly}
    published = rails.ledger.hours("table", spines)
    answered = rails.ledger.hours("model", [spec.name for spec in hourly])
    closed = rails.ledger.settled_at(spines, 1)
    first = rails.ledger.first_nights([spec.name for spec in hourly])
    found = {}
    for spec in hourly:
        newest = published.get(spec.prediction.spine)
        if newest is None:
            continue
        night = clock.night_of(newest.as_of)
        if night < first.get(spec.name, date.min) or night in closed.get(spec.prediction.spine, {}):
            continue
        done = answered.get(spec.name)
        open_hours = tuple(
            hour
            for hour in clock.hours(night, spec.prediction.every)
            if hour <= newest.as_of and (done is None or hour > done.as_of)
        )
        if open_hours:
            found[spec.name] = open_hours
    return found


def require_published(rails: "Rails", spec: Spec, hour: datetime) -> None:
    """Raises BadInput for an hour that nothing was published at for a model, or that lies before its first night."""
    from tiltyard.judge import shadow

    shadow.require_hour(spec, hour)
    spine, night = spec.prediction.spine, clock.night_of(hour)
    newest = [end.as_of for end in rails.ledger.hours("table", [spine]).values()]
    newest += [clock.midnight(day) for day in rails.ledger.settled_at([spine], 1).get(spine, {})]
    if not newest or max(newest) < hour:
        there = f"what there is ends at {max(newest):%Y-%m-%d %H:%M} UTC" if newest else "nothing is there yet"
        raise BadInput(
            f"{spec.name}: features has not done the hour {hour:%Y-%m-%dT%H:%MZ}, {there}; run tiltyard features "
            f"--source {spec.source} --as-of {hour:%Y-%m-%dT%H:%MZ} first."
        )
    first = rails.ledger.first_nights([spec.name]).get(spec.name, date.min)
    if night < first:
        raise BadInput(f"{spec.name} begins with the night of {first}, and {hour:%Y-%m-%dT%H:%MZ} comes before it.")


def answer(rails: "Rails", spec: Spec, hours: Sequence[datetime], lookup: "Lookup | None" = None) -> list[AnsweredHour]:
    """Answer these hours of a model, oldest first, and bring what was answered to where its spec says."""
    from tiltyard.answered import delivery
    from tiltyard.judge import shadow
    from tiltyard.prepare.fetch import credentials

    nights = {clock.night_of(hour) for hour in hours}
    delivery.owe(rails, spec, nights)
    done = [shadow.answer_hour(rails, spec, hour) for hour in sorted(hours)]
    sent = delivery.deliver(rails, spec, lookup or credentials.from_environment, nights)
    if sent is not None and sent.reason:
        log.warning("%s of %s is not delivered: %s", spec.name, ", ".join(map(str, sorted(nights))), sent.reason)
    return done
