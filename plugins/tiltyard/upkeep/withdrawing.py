"""Taking back nights that should never have been: of a mistyped year, or of data that was not meant.

What a night left in the ledger and in `ops.*` goes, so that it is the newest of nothing any more, and stands in one
event of the ledger, with who took it back and why. With it go the nights before it that are only there since it was:
nothing was brought in on them, and a model went through them on its way to it. What it landed stays: each delivery
counts as landed on the night on which it was due. Nights that others stand on, or that have put a version into service,
are not taken back.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import duckdb

from tiltyard import clock, tables
from tiltyard.errors import BadInput
from tiltyard.govern import page as drift_page
from tiltyard.lake import identifier, text
from tiltyard.ledger_tables import WITHDRAWN
from tiltyard.prepare import checks_page, contracts
from tiltyard.prepare.publishing import Feeding
from tiltyard.rails import Rails
from tiltyard.records import Record
from tiltyard.spec import Spec, find, load_all
from tiltyard.stages import NIGHTLY, STAGES
from tiltyard.tables import CHECK_RESULT, COLUMN_PROFILE, FEATURE_LATENCY, INGEST_RUN, LANDED_FILE, Table
from tiltyard.upkeep import holds
from tiltyard.words import counted, listed

OF_MODELS = (
    tables.PREDICTION, tables.LIGHT_SCORE, tables.PROFILE, tables.EVALUATION, tables.ESTIMATE, tables.DRIFT,
    tables.DRIFT_DETECTOR, tables.ONLINE_EVALUATION, tables.TIER_SHARE,
)  # fmt: skip
"""Tables of the lake with what a night says of models. What was requested online stays: it was asked."""
OF_TABLES = (CHECK_RESULT, COLUMN_PROFILE, FEATURE_LATENCY)
"""Tables of the lake with what a night says of other tables."""


@dataclass(frozen=True, kw_only=True)
class Withdrawal(Record):
    """What was taken back."""

    night: date
    """The night that was named."""
    nights: tuple[date, ...]
    """The nights that went, the newest first."""
    followed: tuple[date, ...]
    """Those of them that nobody named, and that were only there since a later one was."""
    sources: tuple[str, ...]
    """The sources whose nights they were."""
    models: tuple[str, ...]
    """The models whose nights they were."""
    rows: dict[str, int] = field(default_factory=dict)
    """Table of the ledger or the lake → number of its rows that went."""
    landed: int = 0
    """Number of deliveries that they had landed, and that stay."""
    notes: tuple[str, ...] = ()
    """What stays, a sentence each."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing of these nights was there."""
        return not self.rows and not self.landed


def withdraw(
    rails: Rails,
    night: date,
    *,
    source: str | None = None,
    model: str | None = None,
    onwards: bool = False,
    by: str,
    reason: str,
) -> Withdrawal:
    """Take a night back, or all nights from it `onwards`, with those that only followed from them: of all sources and
    models, of a `source` with its models, or of one `model` alone. The newest goes first. Twice is once, and where it
    was killed in the middle the next one goes on.

    Raises BadInput, with nothing changed, without a reason, for a source or model that there is not, for a night of
    which nothing was ever there, and where one of them may not be taken back.
    """
    if not reason.strip():
        raise BadInput("A night is taken back for a reason; say why, like --reason 'the year was mistyped'.")
    if source is not None and model is not None:
        raise BadInput("Name a source, whose models go with it, or one model, and not both.")
    rails.ledger.require_right("DELETE")
    sources, specs = _chosen(rails, source, model)
    whole = source is None and model is None
    with rails.lake.exclusive("withdraw"):
        parts = _parts(rails, night, sources, specs, whole, onwards)
        _require(rails, night, parts, sources, specs, onwards)
        rows: Counter[str] = Counter()
        landed = 0
        for part in parts:
            taken, kept = _take(rails, part, {"by": by, "reason": reason.strip()})
            rows.update(taken)
            landed += kept
        _begin_anew(rails, min(part.night for part in parts), specs)
    return Withdrawal(
        night=night,
        nights=tuple(part.night for part in parts),
        followed=tuple(part.night for part in parts if part.follows),
        sources=tuple(sorted({name for part in parts for name in part.named_sources})),
        models=tuple(sorted({name for part in parts for name in part.named_models})),
        rows=dict(rows),
        landed=landed,
        notes=_notes(rails, parts),
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What of one night goes."""

    night: date
    sources: tuple[str, ...]
    """Of these sources, which need not have had it."""
    specs: tuple[Spec, ...]
    """Of these models, which need not have had it."""
    whole: bool
    """Whether what is of all at once goes too."""
    follows: bool
    """Whether it was only there since a later one was."""
    named_sources: tuple[str, ...]
    """The sources that have had it."""
    named_models: tuple[str, ...]
    """The models that have had it."""

    @property
    def models(self) -> list[str]:
        """The names of its models."""
        return [spec.name for spec in self.specs]


def _parts(
    rails: Rails, night: date, sources: Sequence[str], specs: Sequence[Spec], whole: bool, onwards: bool
) -> list[_Part]:
    """What goes, the newest night first: the night, or all from it on of which something is there, and those before it
    that follow from them."""
    names = {spec.name for spec in specs}
    there = rails.ledger.worked_on(night, date.max if onwards else night)
    brought = _brought(rails, night, sources, onwards)
    own = {
        day: {name for stage, name in there.get(day, set()) if name in (sources if stage == "features" else names)}
        | brought.get(day, set())
        for day in {night, *there, *brought}
    }
    parts = [
        _Part(
            night=day, sources=tuple(sources), specs=tuple(specs), whole=whole, follows=False,
            named_sources=tuple(sorted(found & {*sources})), named_models=tuple(sorted(found & names)),
        )
        for day, found in own.items()
        if found or day == night
    ]  # fmt: skip
    parts += _following(rails, night, sources, specs, whole)
    return sorted(parts, key=lambda part: part.night, reverse=True)


def _brought(rails: Rails, night: date, sources: Sequence[str], onwards: bool) -> dict[date, set[str]]:
    """Night → the sources that were brought in on it, with or without more of a night; from the night on, or on it."""
    if not rails.lake.has(INGEST_RUN):
        return {}
    rows = rails.lake.connection.execute(
        f"select distinct available_at, source from {identifier(INGEST_RUN)} where list_contains($sources, source) and "
        f"available_at {'>=' if onwards else '='} $as_of",
        {"sources": [*sources], "as_of": clock.midnight(night)},
    ).fetchall()
    found: dict[date, set[str]] = {}
    for as_of, source in rows:
        found.setdefault(clock.night_of(as_of), set()).add(source)
    return found


def _following(
    rails: Rails, night: date, sources: Sequence[str], specs: Sequence[Spec], whole: bool
) -> Iterator[_Part]:
    """What of the nights before it is only there since the night was, or later ones: a model has a record of them, and
    nothing that it reads was brought in on them, nor after them once these nights are gone. Shadow goes through the
    nights between two that a source has."""
    feeding = Feeding.of_every_source(rails.settings)
    feeds = {
        spec.name: {spec.source, ""}.union(
            *(feeding.of_table(table) for table in (spec.prediction.spine, *spec.prediction.features))
        )
        for spec in specs
    }
    newest = rails.ledger.newest_attempts("features", {*sources}.union(*feeds.values()))
    newest |= dict.fromkeys(sources, date.min) | rails.ledger.newest_before("features", sources, night)
    stands = {name: max(newest.get(source, date.min) for source in own) for name, own in feeds.items()}
    last = max(newest.values(), default=date.min)
    begins = min((day for day in stands.values() if day > date.min), default=night)
    for day, found in rails.ledger.worked_on(begins, night - clock.NIGHT).items():
        had = {name for stage, name in found if stage != "features"}
        own = tuple(spec for spec in specs if spec.name in had and date.min < stands[spec.name] < day)
        is_whole = whole and date.min < last < day
        if own or (is_whole and "" in had):
            yield _Part(
                night=day, sources=(), specs=own, whole=is_whole, follows=True, named_sources=(),
                named_models=tuple(spec.name for spec in own),
            )  # fmt: skip


def _take(rails: Rails, part: _Part, detail: Mapping[str, object]) -> tuple[dict[str, int], int]:
    """(table → rows that went, deliveries that stay) of one night."""
    for key in [*(f"ingest/{name}" for name in part.sources), *_works(part.models, part.night)]:
        rails.ledger.claim(key)  # who is at work on it is outdated from here on
    own = _tables(rails, part.sources)
    rows, landed = _out_of_the_lake(rails, part.night, part.sources, part.models, own)
    detail = {**detail, "sources": [*part.named_sources], "models": [*part.named_models]}
    rows |= rails.ledger.withdraw(
        part.night, part.models, part.sources, own, whole=part.whole, detail=detail, is_more=bool(rows or landed)
    )
    for path in _pages(rails, part.night, part.sources, part.models):
        path.unlink(missing_ok=True)
    return rows, landed


def _chosen(rails: Rails, source: str | None, model: str | None) -> tuple[Sequence[str], Sequence[Spec]]:
    """The sources and models whose night goes."""
    settings = rails.settings
    if model is not None:
        return (), [find(settings.models, model)]
    every = load_all(settings.models)
    if source is None:
        return sorted({*settings.sources, *(spec.source for spec in every)}), every
    if source not in contracts.sources(settings):
        raise BadInput(f"There is no source '{source}'; there are {', '.join(contracts.sources(settings))}.")
    return [source], [spec for spec in every if spec.source == source]


def _require(
    rails: Rails, night: date, parts: Sequence[_Part], sources: Sequence[str], specs: Sequence[Spec], onwards: bool
) -> None:
    """Raises BadInput where the nights may not be taken back, and says what comes first."""
    models = [spec.name for spec in specs]
    rails.ledger.require_unplayed(models)
    if standing := holds.open_ones(rails):
        raise BadInput(
            f"The legal hold {standing[0].id} stands ({standing[0].reason}), and no row goes while it does; tiltyard "
            f"holds release {standing[0].id} ends it."
        )
    newest = _newest(rails, sources, models)
    _require_there(rails, night, parts, max(newest.values(), default=None), onwards)
    later = {} if onwards else {name: day for name, day in newest.items() if day > night}
    if later:
        name, last = max(later.items(), key=lambda pair: pair[1])
        raise BadInput(
            f"The night of {night} is not the newest of {name}: that of {last} stands on it. tiltyard nights withdraw "
            f"--from {night} takes back both, and all between them."
        )
    nights: dict[str, list[date]] = {}
    for part in parts:
        for name in part.models:
            nights.setdefault(name, []).append(part.night)
    _require_undone(rails, nights)
    for name, days in sorted(rails.ledger.changed(nights).items()):
        raise BadInput(
            f"The night of {max(days)} has changed who is champion of {name}, and what was in service stays on "
            f"record: it cannot be taken back, nor any before it. tiltyard rollback {name} puts the one before back "
            "into service."
        )


def _require_there(rails: Rails, night: date, parts: Sequence[_Part], newest: date | None, onwards: bool) -> None:
    """Raises BadInput where there is nothing to take back, and never was: the night is mistyped."""
    if any(part.named_sources or part.named_models for part in parts):
        return
    hours = rails.ledger.hours("table", _tables(rails, [name for part in parts for name in part.sources]))
    if any(clock.night_of(hour.as_of) == night for hour in hours.values()):
        return
    taken = {event.night for event in rails.ledger.events(kind=WITHDRAWN, since=night)}
    if night in taken or (onwards and taken):
        return
    there = f"the newest that there is, is that of {newest}" if newest else "none was done yet"
    asked = f"no night from {night} on" if onwards else f"no night of {night}"
    raise BadInput(f"There is {asked} to take back, and never was: {there}; check the date.")


def _require_undone(rails: Rails, nights: Mapping[str, Collection[date]]) -> None:
    """Raises BadInput where what a person has done to a model holds after one of its nights that are to go: it was done
    on what stood then."""
    done = [
        operation
        for name, own in rails.ledger.operations.of(nights).items()
        for operation in own
        if operation.is_done and operation.night is not None and operation.night >= min(nights[name])
    ]
    if done:
        newest = done[-1]
        raise BadInput(
            f"{newest.model} was changed by hand ({newest.action}, by {newest.requested_by}), which holds after the "
            f"night of {newest.night}: that night cannot be taken back."
        )


def _newest(rails: Rails, sources: Sequence[str], models: Sequence[str]) -> dict[str, date]:
    """Source or model → its newest night that was attempted."""
    newest = dict(rails.ledger.newest_attempts("features", sources))
    for stage in NIGHTLY:
        for name, night in rails.ledger.newest_attempts(stage, models).items():
            newest[name] = max(night, newest.get(name, night))
    return newest


def _works(models: Sequence[str], night: date) -> list[str]:
    """The names of the claims that stages have on a night of these models."""
    works = (*STAGES, "evaluation", "delivery", "online_evaluation")
    return [f"{work}/{name}/{night}" for name in models for work in works]


def _tables(rails: Rails, sources: Sequence[str]) -> list[str]:
    """The tables that these sources feed, as states name them."""
    if not sources:
        return []
    feeding = Feeding.of_every_source(rails.settings)
    return sorted({table for name in sources for table in feeding.below(name)})


def _out_of_the_lake(
    rails: Rails, night: date, sources: Sequence[str], models: Sequence[str], own: Sequence[str]
) -> tuple[dict[str, int], int]:
    """(table → rows that went, deliveries that stay and count as landed when they were due), in one commit."""
    moved = _landed(rails, night, sources)
    schemas = rails.lake.connection.execute(
        "select table_schema || '.' || table_name from information_schema.tables where table_catalog = 'lake'"
    ).fetchall()
    there = {str(name) for (name,) in schemas}
    named = [*own, *(name for name in there if name.split(".")[-1] in own)]

    def work(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
        taken: dict[str, int] = {}

        def take(table: Table, condition: str, values: Mapping[str, object]) -> None:
            if table.name in there:
                query = f"delete from {identifier(table)} where {condition}"
                rows = connection.execute(query, {name: value for name, value in values.items() if f"${name}" in query})
                if count := int((rows.fetchone() or (0,))[0]):
                    taken[table.name] = taken.get(table.name, 0) + count

        values = {"night": night, "models": [*models], "tables": named, "sources": [*sources],
                  "as_of": clock.midnight(night)}  # fmt: skip
        for table in OF_MODELS:
            take(table, "night = $night and list_contains($models, model)", values)
        take(CHECK_RESULT, "night = $night and list_contains($models, model)", values)
        for table in OF_TABLES:
            take(table, "night = $night and list_contains($tables, table_name)", values)
        take(INGEST_RUN, "available_at = $as_of and list_contains($sources, source)", values)
        for (source, name), files in moved.items():
            _date_anew(connection, night, source, name, files, there)
        return taken

    rows = rails.lake.commit(work, message=f"night of {night} withdrawn").result
    return rows, sum(map(len, moved.values()))


def _landed(rails: Rails, night: date, sources: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """(source, table) → the files that the night landed, and that were due before it."""
    if not sources or not rails.lake.has(LANDED_FILE):
        return {}
    rows = rails.lake.connection.execute(
        f"select source, table_name, file from {identifier(LANDED_FILE)} "
        "where landed_night = $night and list_contains($sources, source) order by all",
        {"night": night, "sources": [*sources]},
    ).fetchall()
    files: dict[tuple[str, str], list[str]] = {}
    for source, table, file in rows:
        if clock.night_of(contracts.due(file)) < night:
            files.setdefault((source, table), []).append(file)
    return files


def _date_anew(
    connection: duckdb.DuckDBPyConnection, night: date, source: str, table: str, files: Sequence[str], there: set[str]
) -> None:
    """Let these deliveries count as landed on the night on which each was due."""
    due = ", ".join(f"({text(file)}, date {text(str(clock.night_of(contracts.due(file))))})" for file in files)
    dated = f"(values {due}) as due (name, day)"
    connection.execute(
        f"update {identifier(LANDED_FILE)} set landed_night = due.day, available_at = due.day::timestamptz "
        f"from {dated} where source = $source and table_name = $table and file = due.name and landed_night = $night",
        {"source": source, "table": table, "night": night},
    )
    if f"raw.{table}" in there:
        connection.execute(
            f"update {identifier(f'raw.{table}')} set landed_night = due.day from {dated} "
            "where source_file = due.name and landed_night = $night",
            {"night": night},
        )


def _begin_anew(rails: Rails, night: date, specs: Sequence[Spec]) -> None:
    """A model that was accepted while the night stood was to take part from the night after it: it does from the one
    after its source's newest."""
    first = rails.ledger.first_nights([spec.name for spec in specs])
    newest = rails.ledger.newest_attempts("features", [spec.source for spec in specs])
    for spec in specs:
        if first.get(spec.name, date.min) > night and spec.source in newest:
            rails.ledger.begin(spec.name, newest[spec.source] + clock.NIGHT)


def _pages(rails: Rails, night: date, sources: Sequence[str], models: Sequence[str]) -> Iterator[Path]:
    """The pages of the night, whether they were drawn or not."""
    reports = rails.settings.reports
    yield from (reports / checks_page.path(name, night) for name in sources)
    for name in models:
        drawn = drift_page.path(rails.settings, name, night)
        yield from (drawn, drawn.with_suffix(".json"))


def _notes(rails: Rails, parts: Sequence[_Part]) -> tuple[str, ...]:
    """What stays of the nights, a sentence each."""
    nights = {(name, part.night) for part in parts for name in part.models}
    trained = [
        f"version {version.version} of {name}" for name in sorted({name for name, _ in nights})
        for version in rails.ledger.versions(name) if (name, version.night) in nights
    ]  # fmt: skip
    if not trained:
        return ()
    when = listed([str(part.night) for part in parts])
    return (
        f"{listed(trained)} {'was' if len(trained) == 1 else 'were'} trained as of {when}, and takes part from the "
        f"night after it on: train anew as of a night that there is.",
    )


def summary(withdrawal: Withdrawal) -> str:
    """What the command prints."""
    if withdrawal.is_empty:
        return f"The night of {withdrawal.night}: there was nothing of it to take back any more."
    named = sorted({*withdrawal.nights} - {*withdrawal.followed} or {withdrawal.night})
    what = f"The night of {named[0]} is" if len(named) == 1 else f"{len(named)} nights, {named[0]} to {named[-1]}, are"
    whose = listed([*withdrawal.sources, *withdrawal.models])
    rows = counted(sum(withdrawal.rows.values()), "row")
    lines = [f"{what} taken back{f', of {whose}' if whose else ''}: {rows} of {len(withdrawal.rows)} tables."]
    if withdrawal.followed:
        lines.append(
            f"With it went {counted(len(withdrawal.followed), 'night')} that only followed from it: "
            f"{listed([str(day) for day in sorted(withdrawal.followed)])}."
        )
    if withdrawal.landed:
        lines.append(f"{counted(withdrawal.landed, 'file')} that had landed with it: nothing of that is lost.")
    return "\n".join([*lines, *withdrawal.notes])
