"""Leakage: does anything here tell what could not have been known yet?

Rules are SQL and know no column names but those that the rules of time give their meaning. Each rule yields
findings, one per column judged, with the rows judged and the rows that break it; expectations/leakage.yaml says
which rule stops a batch. The nightly `leakage` suite (checks.py), the gate before training (`check_frame`) and the
auditor of a file (audit.py) run the same rules: each is defined once, as a `Probe` or as SQL, in this module.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import duckdb

from tiltyard import suites
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.lake import literal, qualified, quoted, stored, text
from tiltyard.leak import evidence
from tiltyard.rails import Rails
from tiltyard.spec import Spec
from tiltyard.suites import CheckReport, CheckResult

if TYPE_CHECKING:
    import pandas as pd

    from tiltyard.prepare.frame import TrainingFrame

SUITE = "leakage"
AUDIT_COLUMNS = frozenset({"ingested_at", "built_at", "scored_at", "recorded_at"})
"""Wall clock of our own loaders: later than `available_at` by their meaning, and never a feature."""

RULES = {
    "later_than_available_at": "expect_no_timestamp_later_than_available_at",
    "null_available_at": "expect_no_null_available_at",
    "point_in_time": "expect_features_known_at_prediction_time",
    "used_without_available_at": "expect_available_at_of_every_feature_used",
    "repeated_prediction": "expect_one_row_per_prediction",
    "label_among_features": "expect_label_not_among_features",
    "immature_label": "expect_labels_to_have_matured",
    "replay": "expect_replay_to_agree",
    "rewritten_history": "expect_no_rewritten_history",
    "backfill": "expect_no_backfill_that_claims_to_be_old",
    "bulk_backfill": "expect_no_history_to_be_rewritten_in_bulk",
    "arrives_in_time": "expect_features_to_arrive_in_time",
    "evidence_of_time": "expect_no_evidence_of_leakage_in_time",
    "statistical_evidence": "expect_no_statistical_evidence_of_leakage",
}
"""Rule → the Great Expectations type that wraps it."""

EVIDENCE = {"critical": "evidence_of_time", "warning": "statistical_evidence"}
"""Severity of a finding of evidence.py → its rule."""
EVIDENCE_ROWS = 100_000
"""Rows of a training frame that are weighed before every training, of whole entities."""
LOG_ROWS = 10_000
"""Rows of a log that its aggregates are tried on, of whole entities: it is hundreds of aggregates."""


@dataclass(frozen=True)
class Finding:
    """One rule on one column of one table."""

    rule: str
    table: str
    column: str
    rows: int
    """Rows judged: those that have a value there."""
    violations: int
    worst: str
    """The worst case in words, or why nothing could be judged; '' when there is none."""

    def __str__(self) -> str:
        if self.rule in EVIDENCE.values():
            return f"{self.column}: {self.worst}"
        return f"{self.column}: {self.violations} of {self.rows} rows, worst: {self.worst}"


@dataclass(frozen=True)
class Probe:
    """SQL of a rule on a column."""

    rule: str
    column: str
    judged: str
    """Condition: the row is judged."""
    broken: str
    """Condition: the row breaks the rule."""
    worst: str
    """Of the rows that break it the greatest of these is shown; microseconds when an integer."""


# -- the rules --------------------------------------------------------------------------------


def dated(
    connection: duckdb.DuckDBPyConnection, table: str, relation: str, columns: Mapping[str, str], planned: Sequence[str]
) -> list[Finding]:
    """Two rules on one table, in one pass: its rows are dated, and none tells a later time.

    No instant in a row lies after the row's own `available_at`: it would tell the future. `planned` columns
    hold instants that are known ahead (a due date); a DATE is compared by day; times without a zone count as
    UTC. Rows without `available_at` are never read (they fail closed); here they are counted.
    """
    skipped = AUDIT_COLUMNS | {"available_at", *planned}
    probes = [Probe("null_available_at", "available_at", "true", "available_at is null", "'never read'")]
    probes += [
        later("later_than_available_at", column, Times(column, kind), Times("available_at", columns["available_at"]))
        for column, kind in columns.items()
        if is_instant(kind) and column not in skipped
    ]
    return tally(connection, table, relation, probes)


def point_in_time(
    connection: duckdb.DuckDBPyConnection, table: str, relation: str, columns: Mapping[str, str], views: Iterable[str]
) -> list[Finding]:
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
) -> list[Finding]:
    """A value is there, but nothing says since when it was known. `features`: view → its feature columns."""
    probes = [
        undated(f"{view}__available_at", (f"{view}__event_time", *names), f"{view}__available_at")
        for view, names in features.items()
    ]
    return tally(connection, table, relation, probes)


def repeated_prediction(connection: duckdb.DuckDBPyConnection, table: str, relation: str, key: str) -> list[Finding]:
    """Each (entity, prediction time) is there once; a repeated one counts double and straddles a split."""
    sql = repeats(relation, (key, "prediction_time"))
    row = connection.execute(
        f"select (select count(*) from {relation}), count(*), min({quoted(key)})::varchar from ({sql})"
    ).fetchone()
    assert row is not None
    rows, repeated, worst = row
    return [Finding("repeated_prediction", table, key, rows, repeated, worst or "")]


def label_among_features(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    relation: str,
    columns: Mapping[str, str],
    features: Sequence[str],
    label: str,
    forbidden: Iterable[str],
) -> list[Finding]:
    """No feature bears the name of a label column, and none equals the label, or its opposite, in every row."""
    named = set(forbidden)
    found = [
        Finding("label_among_features", table, name, 1, 1, "a column of the label table")
        for name in features
        if name in named
    ]
    numeric = [name for name in features if name not in named and columns.get(name, "VARCHAR") in _NUMERIC]
    if not numeric:
        return found
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
        found.append(
            Finding(
                "label_among_features", table, name, count, count if leaks else 0, "equals the label" if leaks else ""
            )
        )
    return found


def immature_label(
    connection: duckdb.DuckDBPyConnection, table: str, relation: str, spec: Spec, label: str, as_of: datetime
) -> list[Finding]:
    """Every row has its truth, and its whole cohort had had its time to be judged at `as_of` (the cohort rule)."""
    last = literal(as_of - spec.label.horizon - spec.label.delay)
    late = f"prediction_time > {last}"
    probes = [
        Probe("immature_label", label, "true", f"{quoted(label)} is null", "prediction_time"),
        Probe("immature_label", "prediction_time", "true", late, "prediction_time"),
    ]
    return tally(connection, table, relation, probes)


def weigh(
    rails: Rails, spec: Spec, frame: "TrainingFrame", table: str, relation: str, label: str, as_of: datetime
) -> tuple[Finding, ...]:
    """What the data of a training frame tells by itself (evidence.py): two rules, critical and warning.

    When the outcome happened comes from the label table, as it was when the frame was made. The source's staging
    tables that hold several rows per entity are its logs: has an aggregate seen rows that came after the prediction?
    """
    key, names = spec.key, [feature.name for feature in frame.features]
    truth = rails.lake.columns(spec.label.table)
    known = next((time for time in ("event_time", "available_at") if time in truth), None)
    label_time = "label_time"
    while label_time in {*names, key, label}:
        label_time += "_"
    shown = ", ".join(f"f.{quoted(name)}" for name in (key, "prediction_time", label, *names))
    source = f"{relation} as f"
    if known:
        shown += f", l.{known} as {quoted(label_time)}"
        labels = rails.lake.relation(spec.label.table, as_of, frame.snapshot)
        on = f"l.{quoted(key)} = f.{quoted(key)} and l.prediction_time = f.prediction_time"
        outcomes = (
            f"select {quoted(key)}, prediction_time, max({known}) as {known} from {labels} "
            f"where {quoted(key)} is not null group by 1, 2"
        )
        source += f" left join ({outcomes}) as l on {on}"
    of_ten_thousand = 10_000 * EVIDENCE_ROWS // max(frame.rows, 1)
    chosen = f"hash(f.{quoted(key)}) % 10000 < {of_ten_thousand}"
    sample = evidence.Sample(
        frame=rails.lake.connection.execute(
            f"select {shown} from {source} where {chosen} order by f.prediction_time, f.{quoted(key)}"
        ).df(),
        label=label,
        prediction_time="prediction_time",
        entity=key,
        label_time=label_time if known else None,
        features=tuple(names),
    )
    weighed = evidence.weigh(sample)
    told_of = {(one.feature, one.kind): one for one in weighed.findings}
    for log in _logs(rails, spec, frame, as_of, chosen):
        mine = sample.frame[sample.frame[key].isin(log[key].unique())]
        more = replace(sample, frame=mine, history=log, history_as_of="available_at")
        for one in evidence.weigh(more, kinds={"future_in_aggregate"}).findings:
            told_of.setdefault((one.feature, one.kind), one)
    idle = next((one.why for one in weighed.untested if one.feature == "*" and one.kind == "too_good"), "")
    found: list[Finding] = []
    for severity, rule in EVIDENCE.items():
        told: dict[str, list[str]] = {name: [] for name in names}
        for one in told_of.values():
            if one.severity == severity:
                told[one.feature].append(f"{one.kind}: {one.evidence}")
        if idle and not any(told.values()):
            found.append(Finding(rule, table, "*", 0, 0, idle))
            continue
        rows = len(sample.frame)
        found += [Finding(rule, table, name, rows, len(said), " ".join(said)) for name, said in told.items()]
    return tuple(found)


def _logs(rails: Rails, spec: Spec, frame: "TrainingFrame", as_of: datetime, chosen: str) -> Iterator["pd.DataFrame"]:
    """The staging tables of the model's source that hold several rows per entity, of the entities that are `chosen`."""
    key = quoted(spec.key)
    for table in staging_tables(rails, spec.source):
        columns = rails.lake.columns(table)
        if spec.key not in columns:
            continue
        rows = f"select * from {rails.lake.relation(table, as_of, frame.snapshot)} as f where {chosen}"
        counted = rails.lake.connection.execute(f"select count(*), count(distinct {key}) from ({rows})").fetchone()
        assert counted is not None
        if counted[0] > 1.5 * counted[1]:
            of_ten_thousand = 10_000 * LOG_ROWS // counted[0]
            left_out = ", ".join(quoted(name) for name in columns if name in AUDIT_COLUMNS)
            shown = f"* exclude ({left_out})" if left_out else "*"
            some = f"hash({key}, 'log') % 10000 < {of_ten_thousand}"
            yield rails.lake.connection.execute(f"select {shown} from ({rows}) where {some}").df()


def staging_tables(rails: Rails, source: str) -> list[str]:
    """The staging tables of a source that carry an `available_at`."""
    rows = rails.lake.connection.execute(
        "select 'staging.' || table_name from information_schema.columns where table_catalog = 'lake' "
        "and table_schema = 'staging' and starts_with(table_name, ?) and column_name = 'available_at' order by 1",
        [f"stg_{source}__"],
    )
    return [name for (name,) in rows.fetchall()]


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
        return quoted(self.column)

    @property
    def day(self) -> str:
        return self.plain if self.kind == "DATE" else f"{self.plain}::date"

    @property
    def instant(self) -> str:
        """Times without a zone count as UTC, which is the connection's."""
        return self.plain if self.kind == "TIMESTAMP WITH TIME ZONE" else f"{self.plain}::timestamptz"


def is_instant(kind: str) -> bool:
    return kind.startswith(("TIMESTAMP", "DATE"))


def later(rule: str, column: str, time: Times, than: Times, value: str | None = None) -> Probe:
    """`time` lies after `than`, where both are there: by how much. With `value`, only where that column has one.

    Where one of them is a DATE they are compared by day: no more is known.
    """
    used = f" and {quoted(value)} is not null" if value is not None and value != time.column else ""
    judged = f"{quoted(time.column)} is not null{used}"
    if "DATE" in (time.kind, than.kind):
        broken = f"{time.day} > {than.day}"
        worst = f"({time.day} - {than.day}) * {timedelta(days=1) // timedelta(microseconds=1)}"
    else:
        # two times without a zone need none to be compared; a cast to one costs more than the comparison
        first, second = (time.instant, than.instant) if time.kind != than.kind else (time.plain, than.plain)
        broken = f"{first} > {second}"
        # epoch_us: subtracting instants with a zone goes through a calendar, ten times slower
        worst = f"epoch_us({first}) - epoch_us({second})"
    return Probe(rule, column, judged, broken + used, worst)


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
    judged: bool = True,
) -> list[Finding]:
    """Findings of the probes, in their order: counted in one pass over the rows; the worst cases in another one,
    where there are any. Without `judged`, the rows that were judged are only counted for rules that are broken:
    half the work, where a file is large and clean.
    """
    if not probes:
        return []
    counts = [f"count(*) filter ({probe.broken})" for probe in probes]
    counts += [f"count(*) filter ({probe.judged})" for probe in probes] if judged else []
    row = connection.execute(f"select {', '.join(counts)} from {relation}").fetchone()
    assert row is not None
    broken = [place for place in range(len(probes)) if row[place]]
    rows = dict(enumerate(row[len(probes) :]))
    worst: dict[int, object] = {}
    if broken:
        parts = [f"max({probes[place].worst}) filter ({probes[place].broken})" for place in broken]
        parts += [f"count(*) filter ({probes[place].judged})" for place in broken]
        seen = connection.execute(f"select {', '.join(parts)} from {relation}").fetchone()
        assert seen is not None
        worst = dict(zip(broken, seen[: len(broken)], strict=True))
        rows |= dict(zip(broken, seen[len(broken) :], strict=True))
    return [
        Finding(probe.rule, table, probe.column, rows.get(place, 0), row[place], _in_words(worst.get(place)))
        for place, probe in enumerate(probes)
    ]


def _in_words(worst: object) -> str:
    if worst is None:
        return ""
    return f"by {timedelta(microseconds=worst)}" if isinstance(worst, int) else str(worst)


# -- what they are run on ---------------------------------------------------------------------


def known_or_undated(table: str, columns: Mapping[str, str], as_of: datetime, snapshot: int | None) -> str:
    """SQL of `table` at `as_of`, with the rows that cannot be dated: those are read nowhere else."""
    moment = literal(as_of)
    unread = "available_at is null"
    if "event_time" in columns:
        unread += f" and (event_time is null or event_time <= {moment})"
    return f"(select * from {stored(table, snapshot)} where available_at <= {moment} or ({unread}))"


def table_findings(
    rails: Rails, tables: Iterable[str], as_of: datetime, snapshot: int | None, planned: Mapping[str, Sequence[str]]
) -> list[Finding]:
    """The rules on single tables of the lake: staging, spine, feature views, label."""
    found: list[Finding] = []
    for table in tables:
        columns = rails.lake.columns(table)
        relation = known_or_undated(table, columns, as_of, snapshot)
        ahead = planned.get(table.split(".")[-1], ())
        found += dated(rails.lake.connection, qualified(table), relation, columns, ahead)
    return found


def judge(
    rails: Rails, suite: suites.Suite, findings: Sequence[Finding], subject: str
) -> tuple[suites.Judged, tuple[CheckResult, ...]]:
    """Hold findings to the leakage suite: one result per rule and table, however many columns there are."""
    expectations()
    rules = {finding.rule for finding in findings}
    wraps = {wrapped: rule for rule, wrapped in RULES.items()}
    only = []
    for index, expectation in enumerate(suite.expectations):
        if expectation["type"] not in wraps:
            raise BadInput(
                f"{suite.where(index)}: '{expectation['type']}' is not a leakage rule; they are {', '.join(wraps)}."
            )
        if wraps[expectation["type"]] in rules:
            only.append(index)
    batch = suites.Batch(subject, _as_values(findings), _FINDING_COLUMNS, empty=not findings)
    judged = suites.judge(rails, suite, batch, complete=True, only=only)
    results: list[CheckResult] = []
    for (index, outcome), result in zip(judged.outcomes, judged.results, strict=True):
        mine = [finding for finding in findings if finding.rule == wraps[suite.expectations[index]["type"]]]
        broken = [finding for finding in mine if finding.violations]
        assert bool(outcome.success) == (not broken), "the expectation and the rule must agree"
        for table in dict.fromkeys(finding.table for finding in mine):
            results.append(_table_result(result, table, [finding for finding in mine if finding.table == table]))
    return judged, tuple(results)


def _table_result(result: CheckResult, table: str, findings: Sequence[Finding]) -> CheckResult:
    broken = [finding for finding in findings if finding.violations]
    seen = "; ".join(map(str, broken))
    idle = all(finding.rows == 0 for finding in findings)
    counted = f"{sum(f.violations for f in findings)} violations in {len(findings)} columns"
    return CheckResult(
        table=table,
        name=result.name,
        column=", ".join(f.column for f in broken) or None,
        severity=result.severity,
        success=not broken,
        observed=f"not judged: {findings[0].worst}" if idle and findings[0].worst else counted,
        detail=result.detail.split(" Seen: ")[0] + (f" Seen: {seen}" if seen else ""),
    )


_FINDING_COLUMNS = ("rule", "table_name", "column_name", "rows", "violations", "worst")


def _as_values(findings: Sequence[Finding]) -> str:
    rows = ", ".join(
        f"({text(f.rule)}, {text(f.table)}, {text(f.column)}, {f.rows}, {f.violations}, {text(f.worst)})"
        for f in findings
    )
    return f"select * from (values {rows}) as findings ({', '.join(_FINDING_COLUMNS)})"


@functools.cache
def expectations() -> Mapping[str, type]:
    """The rules as Great Expectations types: no finding of the rule in the batch has a violation."""
    query = "select * from {{batch}} where rule = {rule} and violations > 0 order by violations desc"
    return {
        kind: suites.no_rows(kind, query.format(rule=text(rule)), f"No finding of the rule {rule}.")
        for rule, kind in RULES.items()
    }


# -- the gate before training -----------------------------------------------------------------


def check_frame(
    rails: Rails,
    spec: Spec,
    training_frame: "TrainingFrame",
    as_of: datetime | None = None,
    *,
    label: str = "label",
    render: bool = True,
    record: bool = True,
) -> CheckReport:
    """The leakage gate: may a model learn from this frame? Without `as_of`, as of the night its end speaks of.

    The results are kept in the lake (`record`), with a page for people (`render`).

    Raises BadInput when the frame lacks columns that a frame must have.
    """
    from tiltyard.prepare import latency  # its findings are this module's

    relation = f"read_parquet({text(str(training_frame.path))})"
    connection = rails.lake.connection
    described = connection.execute(f"describe select * from {relation}").fetchall()
    columns = {name: kind for name, kind, *_ in described}
    for column in (spec.key, "prediction_time", label):
        if column not in columns:
            raise BadInput(f"The training frame {training_frame.path} has no column '{column}'; build it again.")
    as_of = as_of or training_frame.end - timedelta(microseconds=1) + spec.label.horizon + spec.label.delay
    features: dict[str, list[str]] = {view: [] for view in spec.prediction.features}
    for feature in training_frame.features:
        features.setdefault(feature.view, []).append(feature.name)
    names = [feature.name for feature in training_frame.features]
    hidden = {label, *rails.lake.columns(spec.label.table)} - {spec.key}
    table = f"frame_{spec.name}"
    found = [
        *point_in_time(connection, table, relation, columns, features),
        *used_without_available_at(connection, table, relation, features),
        *repeated_prediction(connection, table, relation, spec.key),
        *label_among_features(connection, table, relation, columns, names, label, hidden),
        *immature_label(connection, table, relation, spec, label, as_of),
        *latency.frame_findings(rails, spec, table, relation, features, as_of),
        *weigh(rails, spec, training_frame, table, relation, label, as_of),
    ]
    return report(rails, found, as_of, subject=spec.name, suite_name="training_frame", render=render, record=record)


def report(
    rails: Rails,
    findings: Sequence[Finding],
    as_of: datetime,
    *,
    subject: str,
    suite_name: str = SUITE,
    render: bool,
    record: bool = True,
) -> CheckReport:
    """Judge findings by expectations/leakage.yaml, keep the results and render their page."""
    suite = suites.load(rails.settings.expectations / "leakage.yaml")
    judged, results = judge(rails, suite, findings, subject)
    path = suites.render(rails, suite_name, subject, as_of, {subject: judged}, results) if render else None
    done = CheckReport(suite_name, night_closing(as_of), subject, results, path)
    if record:
        suites.record(rails, [done], as_of)
    return done
