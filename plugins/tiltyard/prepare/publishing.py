"""Putting a source's tables in service: table by table, and never what is another source's.

A table that several sources feed is settled by the one that comes last: then the batch that was judged last holds the
rows of all of them, and its verdict counts. Which others are still to come is decided while nobody else publishes, so
that of two that come at once one is the last. A source whose schedule has no run for the night is not waited for.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import lru_cache

from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.prepare import contracts, popular, settling, transform
from tiltyard.prepare.graph import Graph, parents, sources
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary, Publication, Record, StageRun, Status, TableState
from tiltyard.records.publication import State
from tiltyard.settings import Settings
from tiltyard.spec import Spec, portfolio
from tiltyard.words import counted, listed


@dataclass(frozen=True, kw_only=True)
class PublishedNight(Record):
    """What of a source was put in service."""

    night: date
    """Date that names the night."""
    snapshot: int | None = None
    """Snapshot of the lake at which the tables of the batch are in service now; None where no batch was judged."""
    published: tuple[str, ...] = ()
    """The tables that are brought up to date."""
    unpublished: tuple[TableState, ...] = ()
    """The tables that stay as they were, and why."""
    waiting: Mapping[str, tuple[str, ...]]
    """Table that other sources feed as well → those that it waits for."""

    @property
    def settled(self) -> frozenset[str]:
        """The tables of which it is decided how they stand after the night."""
        return frozenset((*self.published, *(state.table for state in self.unpublished)))


@lru_cache(maxsize=4)
def _graph(settings: Settings, *_stamp: int) -> tuple[Graph, Mapping[str, str]]:
    """The manifest as it was at its stamp, and raw table → source: a hindcast asks for it night after night."""
    manifest = transform.manifest(settings)
    return Graph(parents(manifest)), sources(manifest)


@dataclass(frozen=True)
class Feeding:
    """Which sources feed which table."""

    graph: Graph
    """Which table stands on which."""
    sources: Mapping[str, str]
    """Raw table → its source."""

    @classmethod
    def of(cls, settings: Settings) -> "Feeding":
        """Of the dbt project as it was built last, whatever its files say now."""
        whole = cls.of_every_source(settings)
        return cls(whole.graph, {table: owner for table, owner in whole.sources.items() if owner in settings.sources})

    @classmethod
    def of_every_source(cls, settings: Settings) -> "Feeding":
        """The same, and not of the active sources alone."""
        stamp = transform.manifest_path(settings).stat()
        return cls(*_graph(settings, stamp.st_mtime_ns, stamp.st_size))

    @classmethod
    def as_built(cls, settings: Settings) -> "Feeding | None":
        """The same, for whoever does not wait for dbt to read the project; None where it was never built here."""
        return cls.of_every_source(settings) if transform.was_built(settings) else None

    def raw(self, source: str) -> tuple[str, ...]:
        """The raw tables of a source."""
        return tuple(table for table, owner in self.sources.items() if owner == source)

    def below(self, source: str) -> tuple[str, ...]:
        """The raw tables of a source and what stands on them, in the order in which they are made."""
        return self.graph.below(self.raw(source))

    def of_table(self, table: str) -> frozenset[str]:
        """The sources that feed a table; none for one that the graph does not know."""
        above = self.graph.upstream(table) if table in self.graph.parents else frozenset()
        return frozenset(self.sources[name] for name in above if name in self.sources)

    def readers(self, specs: Sequence[Spec], table: str) -> tuple[str, ...]:
        """The models that stand on a table, at whatever distance."""
        return tuple(
            spec.name
            for spec in specs
            if table in spec.tables
            or any(name in self.graph.parents and table in self.graph.upstream(name) for name in spec.tables)
        )

    def is_fed(self, table: str) -> bool:
        """Whether an active source feeds a table, or the graph does not know it: what a source left behind that is
        active no more stops nobody."""
        return table not in self.graph.parents or bool(self.of_table(table))


def awaited(rails: Rails, feeding: Feeding, night: date) -> frozenset[str]:
    """The sources that have a run for the night and are not settled for it."""
    settled = {table for table, nights in rails.ledger.settled_at(feeding.sources, 1, night).items() if night in nights}
    return frozenset(
        source
        for source in rails.settings.sources
        if settled.isdisjoint(feeding.raw(source)) and contracts.is_expected(rails.settings, source, night)
    )


def alone(rails: Rails) -> AbstractContextManager[None]:
    """Wait until nobody publishes, and let nobody publish meanwhile."""
    return rails.lake.exclusive("publish")


def waiting(feeding: Feeding, source: str, missing: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Table of a source → the other sources that it waits for, of those that are `missing`."""
    others = {table: feeding.of_table(table) & (frozenset(missing) - {source}) for table in feeding.below(source)}
    return {table: tuple(sorted(names)) for table, names in others.items() if names}


def read_beside(rails: Rails, feeding: Feeding, source: str) -> list[str]:
    """What the models of a source read and the graph does not know, by name."""
    specs = [spec for spec in portfolio(rails.settings) if spec.source == source]
    read = {table for spec in specs for table in spec.tables}
    read |= {spec.fallback.popular.table for spec in specs if spec.fallback.popular}
    return sorted(table for table in read if not feeding.of_table(table))


def settled_on(rails: Rails, night: date) -> dict[str, TableState]:
    """Table → how it was settled for a night, of those that were."""
    return {state.table: state for state in rails.ledger.table_states(until=night) if state.night == night}


def with_kept(
    more: FeaturesSummary, before: StageRun[FeaturesSummary] | None, kept: Sequence[TableState]
) -> FeaturesSummary:
    """What was judged later of a night, as part of what is known of it: `before` is its record, and `kept` the states
    that stay as they are."""
    names = [state.table for state in kept]
    said = before.summary if before else FeaturesSummary()
    ours = tuple(f"{name}{end}" for name in names for end in ".:")
    return replace(
        more,
        warnings=tuple(dict.fromkeys((*(text for text in said.warnings if text.startswith(ours)), *more.warnings))),
        critical=tuple(dict.fromkeys((*(text for text in said.critical if text.startswith(ours)), *more.critical))),
        faults=(*(state for state in said.faults if state.table in names), *more.faults),
        kept=tuple(names),
    )


def publish(rails: Rails, source: str, as_of: datetime, more: FeaturesSummary | None = None) -> PublishedNight:
    """Put the tables of a source that are good in service; the others stay as they were on their last good night.

    `more`: what was judged of the night beside what it has in service, and has no record yet. Twice is once. Raises
    BadInput when the night's batch was not judged, and did not end otherwise either.
    """
    night = night_closing(as_of)
    feeding = Feeding.of(rails.settings)
    with alone(rails):
        run = rails.ledger.features_run(source, night)
        if run is None or run.model != source:
            raise BadInput(
                f"The batch of {source} of {night} is not checked yet and cannot be published; run "
                f"tiltyard features --source {source} --as-of {night}."
            )
        summary = run.summary
        if more is not None and more.kept and more.snapshot >= summary.snapshot:
            summary, run = more, replace(run, status="checked")
        if run.status == "done":  # by an earlier attempt, and perhaps a later night since
            return _outcome(night, summary)
        if run.status == "failed":
            summary = replace(summary, faults=_failures(feeding, source, night, summary.reason))
        summary, states = _decided(rails, feeding, source, night, summary)
        status: Status = "failed" if run.status == "failed" else "done" if summary.published else "stopped"
        if status == "stopped":
            summary = replace(summary, reason=complaint(summary.unpublished, night))
        elif status == "done":
            publication = Publication(
                snapshot=summary.snapshot, tables={state.table: state for state in summary.unpublished}
            )
            specs = [spec for spec in portfolio(rails.settings) if spec.source == source]
            items = {spec.name: popular.items(rails, spec, as_of, publication) for spec in specs}
            summary = replace(summary, popular={name: best for name, best in items.items() if best})
        rails.ledger.publish(states, night, status, summary, source)
    return _outcome(night, summary)


def _outcome(night: date, summary: FeaturesSummary) -> PublishedNight:
    return PublishedNight(
        night=night,
        snapshot=summary.snapshot or None,
        published=summary.published,
        unpublished=summary.unpublished,
        waiting=summary.waiting,
    )


def _failures(feeding: Feeding, source: str, night: date, reason: str | None) -> tuple[TableState, ...]:
    """The raw tables of a source of which nothing was judged: nothing that is made of them is good."""
    why = f"its night ended before it was judged: {reason or 'the record of the stage does not say why'}"
    return settling.at_fault(
        feeding.raw(source), night, failed=dict.fromkeys(feeding.raw(source), why), held={}, late={}
    )


def _decided(
    rails: Rails, feeding: Feeding, source: str, night: date, summary: FeaturesSummary
) -> tuple[FeaturesSummary, list[TableState]]:
    """What the summary says once it is decided, and the states to keep.

    A fault of a table that several sources feed counts as the batch has it that was judged last.
    """
    missing = awaited(rails, feeding, night) - {source}
    held_up = waiting(feeding, source, missing)
    kept = frozenset(summary.kept)
    tables = [table for table in feeding.below(source) if table not in held_up and table not in kept]
    before = {state.table: state for state in rails.ledger.table_states(until=night)}
    batches = {source: summary}
    for other in {name for table in tables for name in feeding.of_table(table)} - {source}:
        run = rails.ledger.features_run(other, night)
        if run is not None and run.summary.snapshot:
            batches[other] = run.summary
    judged = {
        table: max(
            (batches[name] for name in feeding.of_table(table) if name in batches),
            key=lambda batch: (batch.snapshot, batch is summary),
        )
        for table in tables
    }
    beside = [table for table in read_beside(rails, feeding, source) if table not in kept]
    judged |= dict.fromkeys(beside, summary)
    faults = [state for table, batch in judged.items() for state in batch.faults if state.table == table]
    given = [state for table, state in before.items() if table not in judged and feeding.is_fed(table)]
    settled = settling.settle(feeding.graph, [*tables, *beside], night, faults=faults, given=given)
    states = _standing(rails, settled, {table: batch.snapshot for table, batch in judged.items()}, before)
    whole = [*(before[table] for table in summary.kept), *states]
    decided = replace(
        summary,
        states=counted_states(whole),
        published=tuple(state.table for state in whole if state.is_published),
        unpublished=tuple(state for state in whole if not state.is_published),
        waiting=held_up,
    )
    news = [state for state in states if state.is_published or state != before.get(state.table)]
    return decided, news  # what stands as it stood is settled since then


def counted_states(states: Iterable[TableState]) -> dict[State, int]:
    """State → number of tables, by name."""
    counts = Counter(state.state for state in states)
    return dict(sorted(counts.items()))


def _standing(
    rails: Rails, settled: Sequence[TableState], snapshots: Mapping[str, int], before: Mapping[str, TableState]
) -> list[TableState]:
    """The states of a night with what each table's last good night was: asked when it is published, since nights before
    it may have been published after it was judged. `before`: the newest state of each table."""
    in_service = rails.ledger.publication()
    nights = {state.table: state.night for state in settled}
    good_nights = rails.ledger.newest_good(nights)
    states = []
    for state in settled:
        if state.is_published:
            states.append(replace(state, snapshot=snapshots[state.table], good_night=state.night))
            continue
        last = before.get(state.table) or _before_states(rails, state.table)
        good = (last.snapshot, last.good_night) if last else (None, None)
        if state.table in before and last and last.is_published and in_service:
            good = (in_service.of(state.table), last.good_night)  # newer, where a night before it was done again since
        newest = good_nights.get(state.table)
        if newest and (good[1] is None or newest.night > good[1]):  # mended since the newest night was judged
            good, last = (newest.snapshot, newest.night), newest
        since = last.since if last and last.since else state.night
        states.append(replace(state, snapshot=good[0], good_night=good[1], since=since))
    return states


def _before_states(rails: Rails, table: str) -> TableState | None:
    """How a table stood that has no state yet: good on the newest night published, in a home from before there were
    states; None for a table that was not there then."""
    run = rails.ledger.newest_published("")
    if run is None or (not table.startswith("raw.") and not rails.lake.has(table, run.summary.snapshot)):
        return None
    return TableState(
        night=run.night, table=table, state="published", snapshot=run.summary.snapshot, good_night=run.night
    )


def complaint(unpublished: Sequence[TableState], night: date) -> str:
    """Which tables of a night are not published and who is at fault, as a sentence; empty when all are."""
    causes = {state.cause or state.table: state for state in reversed(unpublished)}
    if not unpublished:
        return ""
    own = [state for state in unpublished if state.cause == state.table] or list(causes.values())
    named = listed([f"{state.table} is {state.state}: {state.reason}".rstrip(".") for state in own], "; ")
    return (
        f"Not published of {night}: {counted(len(unpublished), 'table')}, because of {len(causes)}: {named}. "
        "They stay in service as of their last good night, and so do the champions that read them; mend the cause and "
        "run the night again."
    )
