"""The rules on write times: does a table tell what could not have been known yet? Exact, over all rows, in SQL.

Rules know no column names but those that the rules of time give their meaning. A rule is a `Probe`, or SQL of its
own; `tally` counts what breaks it, one `RuleResult` per column. The nightly suite (suite.py), the leakage gate of
training (train/leakage_gate.py) and the auditor of a file (audit.py) run the same rules.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import duckdb

from tiltyard.errors import BadInput
from tiltyard.lake import literal, quoted, text
from tiltyard.spec import DECIDED, Spec

LOADER_TIMES = frozenset({"ingested_at", "built_at", "scored_at", "recorded_at"})
"""Wall clock of our own loaders: later than `available_at` by their meaning, and never a feature."""


@dataclass(frozen=True)
class RuleResult:
    """What one rule counted in one column of one table."""

    rule: str
    """A key of `suite.RULES`."""
    table: str
    column: str
    rows: int
    """Rows that the rule applies to: those that have a value there."""
    violations: int
    """Rows that break it."""
    worst: str
    """The worst case in words, or why nothing could be judged; '' when there is none."""
    sql: str = field(default="", compare=False)
    """SQL of the rows that break it; '' when there is none, and where no rows of the table do."""

    def __str__(self) -> str:
        return f"{self.column}: {self.violations} of {self.rows} rows, worst: {self.worst}"


@dataclass(frozen=True)
class Probe:
    """SQL of a rule on a column."""

    rule: str
    column: str
    applies: str
    """Condition: the rule applies to the row."""
    breaks: str
    """Condition: the row breaks the rule."""
    worst: str
    """Of the rows that break it the greatest of these is shown; microseconds when an integer."""


# -- the parts of a rule -----------------------------------------------------------------------


_NUMERIC = frozenset(
    {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "FLOAT", "DOUBLE"}
)


@dataclass(frozen=True)
class Times:
    """A column that holds times: its name and its DuckDB type."""

    column: str
    kind: str

    @property
    def plain(self) -> str:
        """The column, quoted, as SQL."""
        return quoted(self.column)

    @property
    def day(self) -> str:
        """Its day, as SQL."""
        return self.plain if self.kind == "DATE" else f"{self.plain}::date"

    @property
    def instant(self) -> str:
        """Times without a zone count as UTC, which is the connection's."""
        return self.plain if self.kind == "TIMESTAMP WITH TIME ZONE" else f"{self.plain}::timestamptz"


def is_instant(kind: str) -> bool:
    """Whether a column of this type, as DuckDB calls it, says when something was."""
    return kind.startswith(("TIMESTAMP", "DATE"))


def _is_after(first: str, second: str, zones: Iterable[str]) -> str:
    """SQL: the instant `first` lies after `second`, which was told by the clocks of one of these zones, or by none.

    Of an hour that clocks show twice `second` was read as the first (decision 37), and may have been the other one;
    the engine takes that, so that an instant there and back again is the last one that shows the same.
    """
    lasts = [f"timezone({text(zone)}, timezone({text(zone)}, {second}))" for zone in zones]
    if not lasts:
        return f"{first} > {second}"
    return f"case when {first} > {second} then {first} > greatest({', '.join(lasts)}) else false end"


def later(
    rule: str, column: str, time: Times, than: Times, value: str | None = None, zones: Collection[str] = ()
) -> Probe:
    """`time` lies after `than`, where both are there: by how much. With `value`, only where that column has one.

    Where one of them is a DATE they are compared by day: no more is known. `zones`: by whose clocks `than` may have
    been told.
    """
    used = f" and {quoted(value)} is not null" if value is not None and value != time.column else ""
    applies = f"{quoted(time.column)} is not null{used}"
    if "DATE" in (time.kind, than.kind):
        breaks = f"{time.day} > {than.day}"
        worst = f"({time.day} - {than.day}) * {timedelta(days=1) // timedelta(microseconds=1)}"
    else:
        # two times without a zone need none to be compared; a cast to one costs more than the comparison
        first, second = (time.instant, than.instant) if time.kind != than.kind else (time.plain, than.plain)
        breaks = _is_after(first, second, zones)
        # epoch_us: subtracting instants with a zone goes through a calendar, ten times slower
        worst = f"epoch_us({first}) - epoch_us({second})"
    return Probe(rule, column, applies, breaks + used, worst)


def undated(column: str, values: Iterable[str], available_at: str) -> Probe:
    """One of `values` is there, but `available_at` does not say since when it was known."""
    used = " or ".join(f"{quoted(name)} is not null" for name in values)
    broken = f"({used}) and {quoted(available_at)} is null"
    return Probe("used_without_available_at", column, used, broken, "'undated'")


def repeats(relation: str, key: Sequence[str]) -> str:
    """SQL of the keys that are there more than once: the columns of `key`.

    First by hash, which keeps eight bytes a row instead of the keys; equal keys have equal hashes, so that only
    rows of a repeated hash need to be compared.
    """
    names = ", ".join(quoted(name) for name in key)
    hashes = f"select hash({names}) from {relation} group by 1 having count(*) > 1"
    return f"select {names} from {relation} where hash({names}) in ({hashes}) group by all having count(*) > 1"


def tally(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    relation: str,
    probes: Sequence[Probe],
    *,
    count_applicable: bool = True,
) -> list[RuleResult]:
    """Results of the probes, in their order: counted in one pass over the rows, the worst cases in another one where
    there are any.

    Without `count_applicable`, the rows that a rule applies to are only counted for rules that are broken: half the
    work, where a file is large and clean.
    """
    if not probes:
        return []
    counts = [f"count(*) filter ({probe.breaks})" for probe in probes]
    counts += [f"count(*) filter ({probe.applies})" for probe in probes] if count_applicable else []
    row = connection.execute(f"select {', '.join(counts)} from {relation}").fetchone()
    assert row is not None
    broken = [place for place in range(len(probes)) if row[place]]
    rows = dict(enumerate(row[len(probes) :]))
    worst: dict[int, object] = {}
    if broken:
        parts = [f"max({probes[place].worst}) filter ({probes[place].breaks})" for place in broken]
        parts += [f"count(*) filter ({probes[place].applies})" for place in broken]
        details = connection.execute(f"select {', '.join(parts)} from {relation}").fetchone()
        assert details is not None
        worst = dict(zip(broken, details[: len(broken)], strict=True))
        rows |= dict(zip(broken, details[len(broken) :], strict=True))
    return [
        RuleResult(
            probe.rule, table, probe.column, rows.get(place, 0), row[place], _in_words(worst.get(place)),
            f"select * from {relation} where {probe.breaks}" if row[place] else "",
        )
        for place, probe in enumerate(probes)
    ]  # fmt: skip


def _in_words(worst: object) -> str:
    if worst is None:
        return ""
    if not isinstance(worst, int):
        return str(worst)
    return f"by {timedelta(microseconds=worst)}".removesuffix(", 0:00:00")


# -- the rules ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class WrittenLater:
    """A column that is filled in after its row was first known, beside one that tells when."""

    column: str
    when: str
    """SQL of that instant, or of its day."""
    is_day: bool = False
    """Only the day is known."""

    def probe(self, zones: Collection[str] = ()) -> Probe:
        """It is filled in, and had not been written when the row was known. `zones`: as of `later`."""
        filled = f"{quoted(self.column)} is not null"
        late = f"{self.when} > available_at::date" if self.is_day else _is_after(self.when, "available_at", zones)
        worst = "'undated'" if self.is_day else f"epoch_us({self.when}) - epoch_us(available_at)"
        return Probe("used_before_written", self.column, filled, f"{filled} and ({self.when} is null or {late})", worst)


@dataclass(frozen=True)
class Declared:
    """What is said of a table's columns."""

    planned: tuple[str, ...] = ()
    """Those that are known ahead."""
    written_later: tuple[WrittenLater, ...] = ()
    """Those that are filled in later, where a column tells when."""
    zones: tuple[str, ...] = ()
    """The zones by whose clocks the source tells times."""


def dated(
    connection: duckdb.DuckDBPyConnection, table: str, relation: str, columns: Mapping[str, str], declared: Declared
) -> list[RuleResult]:
    """Three rules on one table, in one pass: its rows are dated, none tells a later time, or what was written later.

    No instant in a row lies after the row's own `available_at`: it would tell the future. What is planned is known
    ahead (a due date); a DATE is compared by day; times without a zone count as UTC; an `available_at` within an hour
    that the source's clocks show twice may be the later one. Rows without `available_at` are
    never read (they fail closed); here they are counted.
    """
    skipped = LOADER_TIMES | {"available_at", *declared.planned}
    known = Times("available_at", columns["available_at"])
    probes = [Probe("null_available_at", "available_at", "true", "available_at is null", "'never read'")]
    probes += [
        later("later_than_available_at", column, Times(column, kind), known, zones=declared.zones)
        for column, kind in columns.items()
        if is_instant(kind) and column not in skipped
    ]
    probes += [column.probe(declared.zones) for column in declared.written_later]
    return tally(connection, table, relation, probes)


def point_in_time(
    connection: duckdb.DuckDBPyConnection, table: str, relation: str, columns: Mapping[str, str], views: Iterable[str]
) -> list[RuleResult]:
    """Both times of every feature view's row lie at or before the prediction time."""
    missing = [
        f"{view}__{time}"
        for view in views
        for time in ("event_time", "available_at")
        if f"{view}__{time}" not in columns
    ]
    if missing:
        raise BadInput(f"{table} has no column {missing[0]}; a frame carries both times of every feature view it uses.")
    moment = Times("prediction_time", columns["prediction_time"])
    names = [f"{view}__{time}" for view in views for time in ("event_time", "available_at")]
    probes = [later("point_in_time", name, Times(name, columns[name]), moment) for name in names]
    return tally(connection, table, relation, probes)


def used_without_available_at(
    connection: duckdb.DuckDBPyConnection, table: str, relation: str, features: Mapping[str, Sequence[str]]
) -> list[RuleResult]:
    """A value is there, but nothing says since when it was known. `features`: view → its feature columns."""
    probes = [
        undated(f"{view}__available_at", (f"{view}__event_time", *names), f"{view}__available_at")
        for view, names in features.items()
    ]
    return tally(connection, table, relation, probes)


def repeated_prediction(connection: duckdb.DuckDBPyConnection, table: str, relation: str, key: str) -> list[RuleResult]:
    """Each (entity, prediction time) is there once; a repeated one counts double and straddles a split."""
    sql = repeats(relation, (key, "prediction_time"))
    row = connection.execute(
        f"select (select count(*) from {relation}), count(*), min({quoted(key)})::varchar from ({sql})"
    ).fetchone()
    assert row is not None
    rows, repeated, worst = row
    names = f"({quoted(key)}, prediction_time)"
    twice = f"select * from {relation} where {names} in (select {names} from ({sql}))" if repeated else ""
    return [RuleResult("repeated_prediction", table, key, rows, repeated, worst or "", twice)]


def label_among_features(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    relation: str,
    columns: Mapping[str, str],
    features: Sequence[str],
    label: str,
    forbidden: Iterable[str],
) -> list[RuleResult]:
    """No feature bears the name of a label column, and none equals the label, or its opposite, in every row."""
    hidden = set(forbidden)
    results = [
        RuleResult("label_among_features", table, name, 1, 1, "a column of the label table")
        for name in features
        if name in hidden
    ]
    numeric = [name for name in features if name not in hidden and columns.get(name, "VARCHAR") in _NUMERIC]
    if not numeric:
        return results
    is_number = columns.get(label) in ("DOUBLE", "FLOAT")
    truth = f"{quoted(label)}::double" if is_number else f"{quoted(label)}::boolean::integer"
    parts = ", ".join(
        f"{{'name': {text(name)}, 'rows': count({quoted(name)}), "
        f"'same': count(*) filter ({quoted(name)}::double = {truth}), "
        f"'opposite': count(*) filter ({quoted(name)}::double = 1 - {truth}), "
        f"'kinds': count(distinct {truth}) filter ({quoted(name)} is not null)}}"
        for name in numeric
    )
    rows = connection.execute(f"select unnest(l, recursive := true) from (select [{parts}] as l from {relation})")
    for name, count, same, opposite, kinds in rows.fetchall():
        leaks = kinds > 1 and (count == same or (kinds == 2 and count == opposite))
        results.append(
            RuleResult(
                "label_among_features", table, name, count, count if leaks else 0, "equals the label" if leaks else ""
            )
        )
    return results


def immature_label(
    connection: duckdb.DuckDBPyConnection, table: str, relation: str, spec: Spec, label: str, as_of: datetime
) -> list[RuleResult]:
    """Every row has its truth, and its whole cohort had had its time to be judged at `as_of` (the cohort rule)."""
    late = f"{DECIDED if spec.label.until else 'prediction_time'} > {literal(as_of - spec.label.lag)}"
    probes = [
        Probe("immature_label", label, "true", f"{quoted(label)} is null", "prediction_time"),
        Probe("immature_label", "prediction_time", "true", late, "prediction_time"),
    ]
    return tally(connection, table, relation, probes)
