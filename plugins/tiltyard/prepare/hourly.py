"""The features stage by the hour: what a source has brought by then is landed, built, judged and published.

An hour settles no night. A table that is good at it stands at its snapshot from then on; any other stays as it was the
hour before. What the newest night has held stays held until a night lets it go, and a table that several sources feed
waits for its night, when all of them have been judged. Decision 36 says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.prepare import checks, features, ingest, publishing, settling
from tiltyard.prepare import transform as transforming
from tiltyard.prepare.ingest import IngestSummary
from tiltyard.prepare.publishing import Feeding
from tiltyard.prepare.transform import BuildSummary
from tiltyard.rails import HOUR_MISSED, Rails
from tiltyard.records import Instant, Record, TableState
from tiltyard.settings import Settings
from tiltyard.words import counted, listed

SUITES = ("features", "leakage")
"""What an hour is held to. How fresh a source is takes a day to tell."""


@dataclass(frozen=True, kw_only=True)
class PublishedHour(Record):
    """What of a source was put in service at an hour."""

    as_of: Instant
    """The end of the hour."""
    night: date
    """Date that names the night that it is an hour of."""
    snapshot: int
    """The lake's snapshot at which the tables were judged."""
    published: tuple[str, ...] = ()
    """The tables that are brought up to date."""
    unpublished: tuple[TableState, ...] = ()
    """The tables that stay as they were the hour before, and why."""

    @property
    def complaint(self) -> str:
        """Which tables are not good and why, as a sentence; empty when all are."""
        if not self.unpublished:
            return ""
        own = [state for state in self.unpublished if state.cause == state.table] or list(self.unpublished)
        named = listed([f"{state.table} is {state.state}: {state.reason}".rstrip(".") for state in own], "; ")
        return (
            f"Not published at {self.as_of:%Y-%m-%d %H:%M} UTC: {counted(len(self.unpublished), 'table')}. {named}. "
            f"They stay as they were the hour before; the night of {self.night} judges them again."
        )


@dataclass(frozen=True, kw_only=True)
class SourceHour(PublishedHour):
    """What the whole stage did for one source at an hour."""

    ingest: IngestSummary
    """What landed."""
    transform: BuildSummary
    """What dbt brought up to date."""


def sources(settings: Settings) -> Mapping[str, timedelta]:
    """Active source with hourly models → how long its hours are."""
    often = {source: features.every(settings, source) for source in settings.sources}
    return {source: every for source, every in often.items() if every is not None}


def require(settings: Settings, source: str, as_of: datetime) -> None:
    """Raises BadInput where `as_of` is no hour of a source."""
    every = features.every(settings, source)
    night = clock.night_of(as_of)
    if every is None:
        raise BadInput(f"No model of {source} is hourly, so that it has nights and no hours; name one, like {night}.")
    if clock.floor(as_of, every) != as_of:
        near = clock.floor(as_of, every)
        raise BadInput(
            f"{as_of:%H:%M} UTC is no hour of {source}: it has one every {clock.format_duration(every)}; "
            f"name one, like {near:%Y-%m-%dT%H:%MZ}."
        )


def build_hour(rails: Rails, source: str, as_of: datetime) -> SourceHour:
    """The whole stage for one source at an hour: what is due has landed, is built, judged and, where it is good,
    published. Twice is once.

    Raises BadInput where it is no hour of the source, or comes before its first night.
    """
    require(rails.settings, source, as_of)
    landed = features.ingest(rails, as_of, [source])[source]
    built = features.transform(rails, as_of, [source])
    return SourceHour(**vars(publish(rails, source, as_of, built)), ingest=landed, transform=built)


def publish(rails: Rails, source: str, as_of: datetime, build: BuildSummary) -> PublishedHour:
    """Judge what a source has brought by an hour, and put what is good of it in service; no night is settled by it.

    `build` is what `transform` said. What is not good is an event of the source.
    """
    feeding, night = Feeding.of(rails.settings), clock.night_of(as_of)
    before = {state.table: state for state in rails.ledger.table_states()}
    if before.keys().isdisjoint(feeding.raw(source)):
        raise BadInput(
            f"{source} has no hours before its first night; run tiltyard features --source {source} "
            f"--as-of {as_of:%Y-%m-%d} first."
        )
    own = [table for table in feeding.below(source) if feeding.of_table(table) == {source}]
    tables = [*own, *publishing.read_beside(rails, feeding, source)]
    with transforming.alone(rails):
        snapshot = rails.lake.snapshot()
    states = _states(rails, feeding, source, tables, as_of, build, snapshot, before)
    hour = PublishedHour(
        as_of=as_of,
        night=night,
        snapshot=snapshot,
        published=tuple(state.table for state in states if state.is_published),
        unpublished=tuple(state for state in states if not state.is_published),
    )
    with publishing.alone(rails):
        rails.ledger.record_hour("table", hour.published, as_of, snapshot)
    if hour.unpublished:
        detail = {"stage": features.STAGE, "hour": as_of.isoformat(), "reason": hour.complaint}
        rails.ledger.add_event(HOUR_MISSED, source, night, detail)
    return hour


def _states(
    rails: Rails,
    feeding: Feeding,
    source: str,
    tables: Sequence[str],
    as_of: datetime,
    build: BuildSummary,
    snapshot: int,
    before: Mapping[str, TableState],
) -> tuple[TableState, ...]:
    """How these tables stand at an hour. `before`: their newest states by night."""
    night = clock.night_of(as_of)
    made = frozenset(table for table in tables if table not in build.failed)
    reports = [
        checks.check_batch(
            rails, suite, as_of, source=source, tables=made, snapshot=snapshot, record=False, strict=False
        )
        for suite in SUITES
    ]
    held = features.held(reports, ingest.quarantined(rails, source, night))
    faults = settling.at_fault(tables, night, failed=build.failed, held=held, late={})
    standing = [
        state for table, state in before.items() if table in tables and state.cause == table and not state.is_published
    ]
    return settling.settle(feeding.graph, tables, night, faults=[*faults, *standing])
