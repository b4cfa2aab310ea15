"""May this batch be used? The suites of expectations/, judged on what became available in the night.

| suite       | judges                                                        | model  |
|-------------|---------------------------------------------------------------|--------|
| freshness   | each raw table: age, volume, latency, silent outages          | -      |
| features    | the night's rows of each feature view                         | any    |
| leakage     | staging, spine, feature views and label, all that is known    | any    |
| predictions | the night's rows of ops.prediction, beside their spine        | one    |

A critical failure holds the table that it is about (settling.py), a warning alerts. dbt tests say what the SQL
must always satisfy; these say whether *this batch* may be used, and so compare it with its own past: the median
of the same weekday in the last weeks.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import duckdb

from tiltyard import damage, release, suites
from tiltyard.clock import NIGHT, day_ending, night_closing
from tiltyard.errors import BadInput, TiltyardError, Unavailable
from tiltyard.lake import FIRST, literal, quoted, stored, text
from tiltyard.leak import suite as leakage_suite
from tiltyard.leak.rules import Declared, RuleResult, WrittenLater
from tiltyard.prepare import columns, contracts, delivery_rows, latency, observation
from tiltyard.prepare.closed_days import closed_until
from tiltyard.prepare.columns import Columns
from tiltyard.prepare.contracts import SourceContract, TableContract
from tiltyard.prepare.publishing import Feeding
from tiltyard.rails import Rails
from tiltyard.spec import Spec, portfolio
from tiltyard.suites import Batch, CheckReport, CheckResult, Expectation, RowsAt, Suite, SuiteResult
from tiltyard.tables import PREDICTION

__all__ = ["SUITES", "CheckReport", "CheckResult", "check_batch"]

log = logging.getLogger(__name__)

SUITES = ("freshness", "features", "leakage", "predictions")
"""The suites there are."""
WEEKS = 4
"""Number of weeks that "the same weekday" reaches back."""
FEW_ROWS = 20
"""Number of rows on a usual night below which volumes are not compared: of five expected, none is one night in 150."""
ENOUGH_WEEKS = 2
"""Number of weeks of history below which nothing is usual yet."""
ANY = 10**12
"""A bound that no batch reaches: stands for "nothing is usual yet"."""
SERVING = ("champion", "safe_default")
"""Roles of the predictions that are used."""


def check_batch(
    rails: Rails,
    suite: str,
    as_of: datetime,
    *,
    spec: Spec | None = None,
    source: str | None = None,
    tables: Collection[str] | None = None,
    snapshot: int | None = None,
    record: bool = True,
    strict: bool = True,
) -> CheckReport:
    """Hold the night that closes at `as_of` to a suite.

    Without `spec` and `source` the whole portfolio is judged; where `tables` are given, which are those that `source`
    feeds, only these of the models that read one. Results go to ops.check_result; without `record` the caller keeps
    them (suites.record), of several reports at once. Their page is `checks_page`.

    Failed expectations raise nothing; BadInput names file and line of an expectation that cannot be judged, the suite
    that does not exist, or the table that is missing. Not `strict`, what cannot be judged is a fault of its table
    (`unjudged`), and every other table is judged.
    """
    faults = _Faults(rails, strict)
    if suite not in SUITES:
        raise BadInput(f"There is no suite '{suite}'; the suites are {', '.join(SUITES)}.")
    specs = (spec,) if spec else _models(rails, source, tables)
    subject = spec.name if spec else ""
    if suite == "leakage":
        chosen = _Chosen(specs, (source,) if source else tuple(sorted({each.source for each in specs})), tables)
        return _leakage(rails, as_of, chosen, subject or source or "portfolio", snapshot, faults, record=record)
    if suite == "freshness":
        sources = (source,) if source else (spec.source,) if spec else rails.settings.sources
        pages = _freshness(rails, as_of, sources, snapshot, faults)
    elif suite == "features":
        pages = _features(rails, as_of, specs, tables, snapshot, faults)
    else:
        if spec is None:
            raise BadInput("The suite predictions judges one model; name it.")
        pages = _predictions(rails, as_of, spec, snapshot)
    results = tuple(result for page in pages.values() for result in page.results)
    report = CheckReport(suite, night_closing(as_of), subject, results, unjudged=faults.reasons)
    if record:
        suites.record(rails, [report], as_of)
    return report


def _models(rails: Rails, source: str | None, tables: Collection[str] | None) -> tuple[Spec, ...]:
    """The models of a source; those that read one of `tables`, where they are given."""
    specs = portfolio(rails.settings)
    if tables is not None:
        return tuple(spec for spec in specs if not set(spec.tables).isdisjoint(tables))
    return tuple(spec for spec in specs if source in (None, spec.source))


Pages = dict[str, SuiteResult]
"""Table → what the suite found on it, in the order in which the tables were judged."""
Judged = TypeVar("Judged")


class _Faults:
    """What kept tables from being judged: of a strict judge the first of it is raised."""

    def __init__(self, rails: Rails, strict: bool) -> None:
        self.rails = rails
        self.strict = strict
        self.reasons: dict[str, str] = {}
        """Table → why."""

    @contextmanager
    def of(self, *tables: str) -> Iterator[None]:
        """What goes wrong in here is a fault of these tables. What is only out of reach is nobody's, and is tried
        again: a database or a disk that does not answer would hold everybody."""
        try:
            yield
        except (Unavailable, OSError):
            raise
        except Exception as error:
            if self.strict:
                raise
            self._renew(error)
            if damaged := damage.met(self.rails.settings, self.rails.ledger, error, tables):
                error = damaged
            elif isinstance(error, duckdb.OperationalError):
                raise
            if not isinstance(error, TiltyardError):
                log.exception("%s cannot be judged", ", ".join(tables))
            first, *_ = (*str(error).strip().splitlines(), type(error).__name__)
            self.reasons |= dict.fromkeys(tables, f"it cannot be judged: {first}")

    def _renew(self, error: Exception) -> None:
        """A connection that a table has ended is nobody else's fault."""
        if damage.is_fatal(error):
            self.rails.lake.renew()
            suites.forget()

    def each(self, rails: Rails, tables: Iterable[str], judge: Callable[[str], Judged]) -> dict[str, Judged]:
        """Table → what `judge` says, of those that it can judge. They are read in one transaction, unless one fails."""
        tables = list(tables)
        try:
            with suites.one_view(rails):
                return {table: judge(table) for table in tables}
        except Exception as error:
            if self.strict:
                raise
            self._renew(error)
        judged = {}
        for table in tables:
            with self.of(table), suites.one_view(rails):
                judged[table] = judge(table)
        return judged


def _file(rails: Rails, *parts: str) -> Path:
    """A suite's file below settings.expectations."""
    return rails.settings.expectations.joinpath(*parts)


def _suite(rails: Rails, path: Path) -> suites.Suite:
    """The suite in a file; of a release as it was accepted."""
    return suites.load(path, is_accepted=release.name(rails.settings) is not None)


# -- freshness --------------------------------------------------------------------------------

_FRESHNESS = (
    "table_name", "rows_total", "rows_night", "usual_rows", "volume_ratio", "age_hours",
    "rows_landed", "undated_rows", "undated_share", "dated_after_ingest", "keyless_rows", *observation.OBSERVED,
)  # fmt: skip
_UNDATED = f"not coalesce(isfinite(available_at) and available_at >= {FIRST}, false)"
_COUNTED = {
    "undated_rows": _UNDATED,
    "undated_share": _UNDATED,
    "dated_after_ingest": "available_at > ingested_at",
    "keyless_rows": "{key} is null",
}
"""Figure of a raw table that counts rows of the night → the rows that it counts, as SQL."""


def _freshness(rails: Rails, as_of: datetime, sources: tuple[str, ...], snapshot: int | None, faults: _Faults) -> Pages:
    """One row per raw table tells how fresh it is; each table is judged by itself.

    What came is measured and profiled on the way, and a data incident is opened or closed by what it shows.
    """
    observation.expectations()
    pages: Pages = {}
    for source in sources:
        contract = contracts.read(rails.settings, source)
        with faults.of(*(table.raw for table in contract.tables)):
            pages |= _source(rails, contract, as_of, snapshot, faults)
    return pages


def _source(rails: Rails, contract: SourceContract, as_of: datetime, snapshot: int | None, faults: _Faults) -> Pages:
    """The raw tables of one source, by expectations/freshness.yaml and the limits of its contract."""
    suite = _suite(rails, _file(rails, "freshness.yaml"))
    for table in contract.tables:
        rails.lake.columns(table.raw)  # says so when it is missing
    source = contract.name
    night = observation.observe(rails, source, as_of, snapshot)
    closed = closed_until(contract.rhythm.closed, day_ending(as_of))
    pages: Pages = {}
    for table in contract.tables:
        with faults.of(table.raw):
            with suites.one_view(rails):
                key = contracts.known_key(rails.settings, table)
                key = key if key in rails.lake.columns(table.raw) else None
                freshness = _freshness_sql(rails, table.raw, key, as_of, snapshot, closed)
            sql = f"select *, {night.columns(table.raw)} from ({freshness})"
            batch = Batch(table.raw, sql, _FRESHNESS, {"as_of": as_of.isoformat(), **limits(table)}, figures=True)
            found = suites.run_suite(rails, suite, batch, complete=True)
            pages[table.raw] = replace(
                found, results=tuple(_with_rows(check, key, as_of, snapshot) for check in found.results)
            )
    specs = [spec for spec in portfolio(rails.settings) if spec.source == source]
    views = sorted({view for spec in specs for view in spec.prediction.features})
    existing = [view for view in views if rails.lake.has(view)]
    observation.store(rails, night, latency.of_views(rails, existing, as_of, snapshot, source), as_of)
    return pages


def _with_rows(check: CheckResult, key: str | None, as_of: datetime, snapshot: int | None) -> CheckResult:
    """A check of a figure, with the rows that make the figure what it is, where it counts rows. `key`: as of
    `_freshness_sql`."""
    condition = _COUNTED.get(check.column or "")
    if check.success or condition is None or (key is None and "{key}" in condition):
        return check
    landed = f"landed_night = date {text(night_closing(as_of).isoformat())}"
    broken = condition.format(key=quoted(key or ""))
    sql = f"select * from {stored(check.table, snapshot)} where {landed} and {broken}"
    return replace(check, rows=(RowsAt(sql, tuple(name for name in ("available_at", key) if name and name in broken)),))


def limits(table: TableContract) -> dict[str, float]:
    """What the contract allows of a table, as parameters of the suite."""
    hours = (ANY if age is None else age / timedelta(hours=1) for age in (table.age.warn_after, table.age.error_after))
    return {**dict(zip(("warn_age_hours", "hold_age_hours"), hours, strict=True)), **table.volume.model_dump()}


def _freshness_sql(
    rails: Rails, table: str, key: str | None, as_of: datetime, snapshot: int | None, closed: Collection[date]
) -> str:
    """`key`: the column that names a row, None where none is known; `closed`: the days that make nothing older, and on
    which nothing is usual."""
    days_off = f"[{', '.join(f'date {text(night.isoformat())}' for night in closed)}]::date[]"
    night, moment = f"date {text(night_closing(as_of).isoformat())}", literal(as_of)
    rows, usual = _usual(rails, table, as_of, snapshot, closed)
    return f"""
        select {text(table)} as table_name, known.*, {rows} as rows_night,
            {"null" if usual is None else usual}::double as usual_rows,
            case when usual_rows >= {FEW_ROWS} then rows_night / usual_rows end as volume_ratio,
            date_diff('minute', known.newest, {moment}) / 60.0
                - 24 * len(list_filter({days_off}, lambda day: day > (known.newest at time zone 'UTC')::date))
                as age_hours,
            landed.*, landed.undated_rows / greatest(landed.rows_landed, 1) as undated_share
        from (
            select count(*) as rows_total, max(available_at) as newest
            from {rails.lake.relation(table, as_of, snapshot)}
        ) as known
        cross join (
            select count(*) as rows_landed,
                count(*) - count(*) filter (isfinite(available_at) and available_at >= {FIRST}) as undated_rows,
                count(*) filter (available_at > ingested_at) as dated_after_ingest,
                {f"count(*) - count({quoted(key)})" if key else "0"} as keyless_rows
            from {stored(table, snapshot)} where landed_night = {night}
        ) as landed
    """


def _usual(
    rails: Rails, table: str, as_of: datetime, snapshot: int | None, closed: Collection[date] = ()
) -> tuple[int, float | None]:
    """Rows of the night, and the median of the same weekday's batches; None while history is short, and of a closed
    day.

    A weekday counts from the table's first row on; one on which nothing came counts as zero, unless it was closed.
    """
    ends = [as_of - timedelta(days=7) * week for week in range(WEEKS + 1)]
    counts = ", ".join(
        f"count(*) filter (available_at > {literal(end - NIGHT)} and available_at <= {literal(end)})" for end in ends
    )
    relation = rails.lake.relation(table, as_of, snapshot)
    row = rails.lake.connection.execute(f"select min(available_at), {counts} from {relation}").fetchone()
    assert row is not None
    first, now, *past = row
    past = [
        rows
        for rows, end in zip(past, ends[1:], strict=True)
        if first is not None and end - NIGHT >= first and day_ending(end) not in closed
    ]
    is_usual = len(past) >= ENOUGH_WEEKS and day_ending(as_of) not in closed
    return now, float(median(past)) if is_usual else None


# -- features ---------------------------------------------------------------------------------


def _features(
    rails: Rails,
    as_of: datetime,
    specs: tuple[Spec, ...],
    tables: Collection[str] | None,
    snapshot: int | None,
    faults: _Faults,
) -> Pages:
    """The night's rows of every feature view, each by expectations/features/<view>.yaml, or by default.yaml."""
    read = {view for spec in specs for view in spec.prediction.features}
    views = sorted(read if tables is None else read.intersection(tables))
    closed = _closed(rails, views, as_of)
    results = _shared(rails, as_of, snapshot).views
    new = [view for view in views if view not in results]
    batches = faults.each(rails, new, lambda view: _view_batch(rails, view, as_of, snapshot, closed.get(view, ())))
    for view, batch in batches.items():
        with faults.of(view):
            own = _file(rails, "features", f"{view}.yaml")
            suite = _with_volume(_suite(rails, own if own.exists() else _file(rails, "features", "default.yaml")), own)
            results[view] = suites.run_suite(rails, suite, batch)
    return {view: results[view] for view in views if view in results}


@dataclass(frozen=True)
class _Shared:
    """What this process has found of one night at one snapshot of the lake, which never changes.

    Models that share a view share its verdict.
    """

    key: tuple[object, ...] = ()
    """Lake, suites, night and snapshot."""
    views: dict[str, SuiteResult] = field(default_factory=dict)
    """Feature view → what its suite found."""
    rules: dict[str, list[RuleResult]] = field(default_factory=dict)
    """Table → what the leakage rules found."""


_newest = _Shared()


def _shared(rails: Rails, as_of: datetime, snapshot: int | None) -> _Shared:
    """What is known of a night at a snapshot already; without a snapshot nothing is kept."""
    global _newest
    if snapshot is None:
        return _Shared()
    key = (rails.settings.home, rails.settings.database_prefix, rails.settings.expectations, as_of, snapshot)
    if _newest.key != key:
        _newest = _Shared(key)
    return _newest


def _with_volume(suite: Suite, own: Path) -> Suite:
    """The suite, and that the batch has rows at all, unless its meta says `may_be_empty: true`. `own`: the file of the
    view's own suite, which may be there or not."""
    if suite.meta.get("may_be_empty") is True:
        return suite
    volume = Expectation(
        type="expect_table_row_count_to_be_between",
        kwargs={"min_value": {"$PARAMETER": "least_rows"}},
        severity="critical",
        meta={
            "why": "Nothing arrived: a silent source must not look like a quiet night. Where a night may well have no "
            f"row, say so in {own.parent.name}/{own.name}: `meta: {{may_be_empty: true}}`."
        },
        line=1,
    )
    return replace(suite, expectations=(*suite.expectations, volume))


def _closed(rails: Rails, views: Iterable[str], as_of: datetime) -> dict[str, frozenset[date]]:
    """Feature view → the days on which every source that feeds it is closed; empty where no source ever is."""
    closed = {}
    for source in rails.settings.sources:
        with suppress(BadInput):  # its own run says what is wrong with the contract
            rules = contracts.read(rails.settings, source).rhythm.closed
            closed[source] = frozenset(closed_until(rules, day_ending(as_of)))
    if not any(closed.values()):
        return {}
    feeding = Feeding.of(rails.settings)
    of_view = {view: [closed.get(source, frozenset()) for source in feeding.of_table(view)] for view in views}
    return {view: frozenset.intersection(*of_sources) for view, of_sources in of_view.items() if of_sources}


def _view_batch(rails: Rails, view: str, as_of: datetime, snapshot: int | None, closed: Collection[date]) -> Batch:
    """The rows that became available in the day up to `as_of`, and what is usual.

    A weekday on which usually nothing comes may be empty (a shop that says of no day that it is closed), but not the
    whole week; a closed day may.
    """
    columns = tuple(rails.lake.columns(view))
    relation = rails.lake.relation(view, as_of, snapshot)
    sql = f"select * from {relation} where available_at > {literal(as_of - NIGHT)}"
    rows, usual = _usual(rails, view, as_of, snapshot, closed)
    week = f"select 1 from {relation} where available_at > {literal(as_of - timedelta(days=7))} limit 1"
    is_day_off = day_ending(as_of) in closed
    is_day_off |= usual == 0 and rails.lake.connection.execute(week).fetchone() is not None
    parameters = {
        "least_rows": 0 if is_day_off else 1,
        "as_of": as_of.isoformat(),
        "usual_rows": usual or 0,
        "usual_rows_or_any": ANY if usual is None else usual,
    }
    return Batch(view, sql, columns, parameters, empty=rows == 0)


# -- leakage ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chosen:
    """What the leakage suite looks at."""

    specs: tuple[Spec, ...]
    """The models whose tables it judges."""
    sources: tuple[str, ...]
    """The sources whose staging and backfills it judges."""
    tables: Collection[str] | None
    """Only these of the models' tables; None for all."""


def _leakage(
    rails: Rails,
    as_of: datetime,
    chosen: _Chosen,
    subject: str,
    snapshot: int | None,
    faults: _Faults,
    *,
    record: bool,
) -> CheckReport:
    """Every table that a model stands on, with its history: a late row brings an earlier `available_at`."""
    read = {table for spec in chosen.specs for table in spec.tables}
    tables = read if chosen.tables is None else {table for table in read if table in chosen.tables}
    tables |= {name for source in chosen.sources for name in leakage_suite.staging_tables(rails, source)}
    report = CheckReport("leakage", night_closing(as_of), subject, ())
    with faults.of(*sorted(tables)):
        declared = partial(_declared, columns.read(rails.settings), _zones(rails))
        of_table = _shared(rails, as_of, snapshot).rules
        new = sorted(tables - of_table.keys())
        of_table |= faults.each(
            rails,
            new,
            lambda table: leakage_suite.table_results(rails, [table], as_of, snapshot, declared),
        )
        results = [result for table in sorted(tables & of_table.keys()) for result in of_table[table]]
        for source in chosen.sources:
            raw = contracts.raw_tables(rails.settings, source) if source in contracts.sources(rails.settings) else ()
            with faults.of(*raw), suites.one_view(rails):
                results += latency.backfill_results(rails, source, as_of, snapshot)
        report = leakage_suite.report(rails, results, as_of, subject=subject, render=False, record=record)
    return replace(report, unjudged=faults.reasons)


def _zones(rails: Rails) -> tuple[str, ...]:
    """The zones by whose clocks the active sources tell times, by their contracts."""
    zones: set[str] = set()
    for source in rails.settings.sources:
        with suppress(BadInput):  # its own run says what is wrong with the contract
            zones.update(*(table.zones.values() for table in contracts.read(rails.settings, source).tables))
    return tuple(sorted(zones))


def _declared(said: Columns, zones: tuple[str, ...], table: str, kinds: Mapping[str, str]) -> Declared:
    """What is said of a table's columns. `kinds`: column → DuckDB type; `zones`: as of `Declared`."""
    later = []
    for column in said.said.get(table, {}).values():
        name = column.column
        if column.when is not None and {name, column.when.column} <= kinds.keys():
            is_day = kinds[column.when.column] == "DATE"
            when = (
                quoted(column.when.column) if is_day else delivery_rows.instant(column.when, kinds[column.when.column])
            )
            later.append(WrittenLater(name, when, is_day))
    return Declared(said.planned(table, kinds), tuple(later), zones)


# -- predictions ------------------------------------------------------------------------------

_PREDICTIONS = (
    "entity_id", "prediction_time", "request_id", "role", "version", "tier", "score", "is_serving", "in_spine",
)  # fmt: skip


def _predictions(rails: Rails, as_of: datetime, spec: Spec, snapshot: int | None) -> Pages:
    """The night's predictions side by side with the spine they should answer, a row for each of either."""
    suite = _suite(rails, _file(rails, "predictions.yaml"))
    with suites.one_view(rails):
        rails.lake.columns(PREDICTION)
        rails.lake.columns(spec.prediction.spine)
    start, end = as_of - NIGHT, as_of
    spine = rails.lake.relation(spec.prediction.spine, as_of, snapshot)
    roles = ", ".join(text(role) for role in SERVING)
    sql = f"""
        select coalesce(asked."{spec.key}", made.entity_id) as entity_id,
            coalesce(asked.prediction_time, made.prediction_time) as prediction_time,
            made.request_id, made.role, made.version, made.tier, made.score,
            coalesce(made.role in ({roles}), false) as is_serving, asked."{spec.key}" is not null as in_spine
        from (
            select distinct "{spec.key}", prediction_time from {spine}
            where prediction_time >= {literal(start)} and prediction_time < {literal(end)}
        ) as asked
        full outer join (
            select * from {rails.lake.relation(PREDICTION, as_of)}
            where model = {text(spec.name)} and night = date {text(night_closing(as_of).isoformat())}
        ) as made
            on asked."{spec.key}" = made.entity_id and asked.prediction_time = made.prediction_time
    """
    row = rails.lake.connection.execute(f"select count(*) from ({sql})").fetchone()
    empty = row is not None and row[0] == 0
    bounds = dict(zip(("score_low", "score_high"), rails.ledger.bounded(spec).target.bounds, strict=True))
    batch = Batch(PREDICTION.name, sql, _PREDICTIONS, {"as_of": as_of.isoformat(), **bounds}, empty=empty)
    return {PREDICTION.name: suites.run_suite(rails, suite, batch)}
