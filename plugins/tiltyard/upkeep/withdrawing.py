"""Taking back a night that should never have been: of a mistyped year, or of data that was not meant.

What it left in the ledger and in `ops.*` goes, so that it is the newest of nothing any more, and stands in one event of
the ledger, with who took it back and why. What it landed stays: each delivery counts as landed on the night on which it
was due. A night that others stand on, or that has put a version into service, is not taken back.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import duckdb

from tiltyard import clock, tables
from tiltyard.errors import BadInput
from tiltyard.govern import page as drift_page
from tiltyard.lake import identifier, text
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
    """The night."""
    sources: tuple[str, ...]
    """The sources whose night it was."""
    models: tuple[str, ...]
    """The models whose night it was."""
    rows: dict[str, int] = field(default_factory=dict)
    """Table of the ledger or the lake → number of its rows that went."""
    landed: int = 0
    """Number of deliveries that it had landed, and that stay."""
    notes: tuple[str, ...] = ()
    """What stays, a sentence each."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing of that night was there."""
        return not self.rows and not self.landed


def withdraw(
    rails: Rails, night: date, *, source: str | None = None, model: str | None = None, by: str, reason: str
) -> Withdrawal:
    """Take a night back: of all sources and models, of a `source` with its models, or of one `model` alone. Twice is
    once, also where it was killed in the middle.

    Raises BadInput without a reason, for a source or model that there is not, and where it may not be taken back.
    """
    if not reason.strip():
        raise BadInput("A night is taken back for a reason; say why, like --reason 'the year was mistyped'.")
    if source is not None and model is not None:
        raise BadInput("Name a source, whose models go with it, or one model, and not both.")
    sources, specs = _chosen(rails, source, model)
    models = [spec.name for spec in specs]
    with rails.lake.exclusive("withdraw"):
        _require(rails, night, sources, models)
        for key in [*(f"ingest/{name}" for name in sources), *_works(models, night)]:
            rails.ledger.claim(key)  # who is at work on it is outdated from here on
        own = _tables(rails, sources)
        rows, landed = _out_of_the_lake(rails, night, sources, models, own)
        detail = {"by": by, "reason": reason.strip(), "sources": [*sources], "models": models}
        whole = source is None and model is None
        rows |= rails.ledger.withdraw(night, models, sources, own, whole=whole, detail=detail)
        _begin_anew(rails, night, specs)
        for path in _pages(rails, night, sources, models):
            path.unlink(missing_ok=True)
    return Withdrawal(
        night=night, sources=tuple(sources), models=tuple(models), rows=rows, landed=landed,
        notes=_notes(rails, night, models),
    )  # fmt: skip


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


def _require(rails: Rails, night: date, sources: Sequence[str], models: Sequence[str]) -> None:
    """Raises BadInput where the night may not be taken back, and says what comes first."""
    rails.ledger.require_unplayed(models)
    if standing := holds.open_ones(rails):
        raise BadInput(
            f"The legal hold {standing[0].id} stands ({standing[0].reason}), and no row goes while it does; tiltyard "
            f"holds release {standing[0].id} ends it."
        )
    later = {name: newest for name, newest in _newest(rails, sources, models).items() if newest > night}
    if later:
        name, newest = max(later.items(), key=lambda pair: pair[1])
        raise BadInput(
            f"The night of {night} is not the newest of {name}: that of {newest} stands on it. Take that one back "
            "first, if it is wrong as well."
        )
    _require_undone(rails, night, models)
    changed = rails.ledger.changed({name: [night] for name in models})
    if changed:
        raise BadInput(
            f"The night of {night} has changed who is champion of {listed(sorted(changed))}, and what was in service "
            "stays on record: it cannot be taken back. tiltyard rollback MODEL puts the one before back into service."
        )


def _require_undone(rails: Rails, night: date, models: Sequence[str]) -> None:
    """Raises BadInput where what a person has done to a model holds after the night: it was done on what stood then."""
    done = [
        operation
        for own in rails.ledger.operations.of(models).values()
        for operation in own
        if operation.is_done and operation.night is not None and operation.night >= night
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


def _notes(rails: Rails, night: date, models: Sequence[str]) -> tuple[str, ...]:
    """What stays of the night, a sentence each."""
    trained = [
        f"version {version.version} of {name}" for name in models for version in rails.ledger.versions(name)
        if version.night == night
    ]  # fmt: skip
    if not trained:
        return ()
    return (
        f"{listed(trained)} {'was' if len(trained) == 1 else 'were'} trained as of {night}, and takes part from the "
        f"night after it on: train anew as of a night that there is.",
    )


def summary(withdrawal: Withdrawal) -> str:
    """What the command prints."""
    if withdrawal.is_empty:
        return f"The night of {withdrawal.night}: there was nothing of it to take back."
    whose = listed([*withdrawal.sources, *withdrawal.models])
    rows = counted(sum(withdrawal.rows.values()), "row")
    lines = [f"The night of {withdrawal.night} is taken back, of {whose}: {rows} of {len(withdrawal.rows)} tables."]
    if withdrawal.landed:
        lines.append(f"{counted(withdrawal.landed, 'file')} that it had landed: nothing of that is lost.")
    return "\n".join([*lines, *withdrawal.notes])
