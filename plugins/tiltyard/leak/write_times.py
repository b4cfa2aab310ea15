"""The rules on write times, held against anybody's table: exact counts over all rows, and the rows that prove them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import duckdb

from tiltyard.lake import quoted, text
from tiltyard.leak import rules
from tiltyard.leak.engine import Progress, first_row, plain
from tiltyard.leak.roles import ColumnRoles
from tiltyard.leak.rules import Probe, RuleResult, Times
from tiltyard.leak.suspicion import Example, Lateness, Suspicion, Untested
from tiltyard.leak.tabular import AuditedTable
from tiltyard.words import counted

DETAILED = 50
"""For so many broken rules the worst rows are fetched; one scan each."""
PER_SCAN = 400
"""Rules that are counted in one scan; a table with thousands of columns takes a few."""
ENDLESS = "9000-01-01"
"""Times from here on are no times."""
STEPS = (
    ("a minute", timedelta(minutes=1)),
    ("an hour", timedelta(hours=1)),
    ("a day", timedelta(days=1)),
    ("a week", timedelta(days=7)),
    ("30 days", timedelta(days=30)),
    ("a year", timedelta(days=365)),
)
"""Of the scale on which lateness is shown."""


@dataclass(frozen=True)
class Rule:
    """A rule on a feature of the file."""

    probe: Probe
    than: str
    """The column that the feature is held against."""


def applicable(roles: ColumnRoles, table: AuditedTable, features: Sequence[str]) -> list[Rule]:
    """The rules of rules.py that apply to the file: each feature by its own declaration."""
    moment = Times(roles.prediction_time, table.columns[roles.prediction_time])
    availability = roles.availability(features)
    chosen: list[Rule] = []
    for feature in features:
        kind, since = table.columns[feature], availability.get(feature)
        if feature in roles.planned and feature not in roles.available_at:
            continue  # known ahead, whenever its row was
        if since is not None and since != feature:
            available = Times(since, table.columns[since])
            chosen.append(Rule(rules.later("point_in_time", feature, available, moment, value=feature), moment.column))
            chosen.append(Rule(rules.undated(feature, (feature,), since), since))
        if not rules.is_instant(kind) or feature in roles.planned:
            continue
        if since is None or since == feature:
            probe = rules.later("instant_after_prediction", feature, Times(feature, kind), moment)
            chosen.append(Rule(_but_endless(probe, kind), moment.column))
        else:
            available = Times(since, table.columns[since])
            probe = rules.later("later_than_available_at", feature, Times(feature, kind), available)
            chosen.append(Rule(_but_endless(probe, kind), since))
    return chosen


def _but_endless(probe: Probe, kind: str) -> Probe:
    """9999-12-31 and infinity stand for "not yet": a default, which tells nothing about the future."""
    name = quoted(probe.column)
    ends = f"isfinite({name})" if kind == "TIMESTAMP_NS" else f"{name} < {text(ENDLESS)}"  # nanoseconds end in 2262
    return replace(probe, applies=f"{probe.applies} and {ends}", breaks=f"{probe.breaks} and {ends}")


def check(
    connection: duckdb.DuckDBPyConnection,
    table: AuditedTable,
    roles: ColumnRoles,
    features: Sequence[str],
    progress: Progress,
) -> tuple[list[Suspicion], list[Untested]]:
    """What the rules raise, exact over all rows; and what no rule could judge."""
    chosen = applicable(roles, table, features)
    suspicions: list[Suspicion] = []
    for start in range(0, len(chosen), PER_SCAN):
        part = chosen[start : start + PER_SCAN]
        probes = [rule.probe for rule in part]
        results = rules.tally(connection, table.path.name, table.relation, probes, count_applicable=False)
        for rule, result in zip(part, results, strict=True):
            if result.violations:
                is_detailed = len(suspicions) < DETAILED
                suspicions.append(_suspicion(connection, table, roles, rule, result, is_detailed=is_detailed))
        progress("rules on write times", 0.2 + 0.25 * (start + len(part)) / len(chosen))
    if roles.entity:
        progress("rows that repeat", 0.45)
        suspicions += _repeated(connection, table, roles.entity, roles.prediction_time)
    return suspicions, _gaps(connection, table, roles, features)


def _gaps(
    connection: duckdb.DuckDBPyConnection, table: AuditedTable, roles: ColumnRoles, features: Sequence[str]
) -> list[Untested]:
    """Rows that no rule can judge, and rules that hold for no column because nobody said what they compare."""
    gaps = []
    moment = quoted(roles.prediction_time)
    (undated,) = first_row(connection, f"select count(*) filter ({moment} is null) from {table.relation}")
    if undated:
        why = f"{undated:,} of {table.rows:,} rows have no prediction time that can be read; nothing judges them."
        gaps.append(Untested("*", "*", why))
    if not roles.availability(features):
        why = "Of no column it was said since when its values were known."
        kinds = ("point_in_time", "used_without_available_at", "later_than_available_at")
        gaps += [Untested("*", kind, why, "available_at") for kind in kinds]
    if not roles.entity:
        gaps.append(Untested("*", "repeated_prediction", "No entity was given: whom a row is about.", "entity"))
    return gaps


def outcome_first(connection: duckdb.DuckDBPyConnection, table: AuditedTable, roles: ColumnRoles) -> list[str]:
    """How many rows have an outcome that is dated before their prediction, as a sentence; none where none has."""
    if roles.label_time is None or not rules.is_instant(table.columns[roles.label_time]):
        return []
    moment, outcome = (Times(name, table.columns[name]) for name in (roles.prediction_time, roles.label_time))
    probe = rules.later("point_in_time", roles.prediction_time, moment, outcome)
    (result,) = rules.tally(connection, table.path.name, table.relation, [probe], count_applicable=False)
    if not result.violations:
        return []
    by_day = ", compared by day" if "DATE" in (moment.kind, outcome.kind) else ""
    return [
        f"{roles.label_time}: the outcome of {counted(result.violations, 'row')} of {table.rows:,} is dated before the "
        f"prediction time{by_day}. There is nothing to predict there: leave them out, or name another time."
    ]


def in_words(roles: ColumnRoles, features: Sequence[str], table: AuditedTable) -> str:
    """What was counted over all rows, in sentences."""
    dated = len(roles.availability(features))
    undated = len(features) - dated
    sentence = (
        f"Of {counted(dated, 'column')} it is said since when each value was known; that was held against every row."
    )
    if not dated:
        sentence = f"For no column is it said since when its values were known ({roles.words['available_at']})."
    elif undated:
        sentence += f" Of {undated:,} it is not said."
    instants = sum(rules.is_instant(table.columns[name]) and name not in roles.planned for name in features)
    verb = "holds times; it" if instants == 1 else "hold times; each"
    times = f" {counted(instants, 'column')} {verb} was held against its row." if instants else ""
    return f"{sentence}{times}" + (f" Repeated pairs of {roles.entity} and time were counted." if roles.entity else "")


def _suspicion(
    connection: duckdb.DuckDBPyConnection,
    table: AuditedTable,
    roles: ColumnRoles,
    rule: Rule,
    result: RuleResult,
    *,
    is_detailed: bool,
) -> Suspicion:
    """A rule that is broken, in a sentence; where it `is_detailed`, with its worst rows and how late they are."""
    share = result.violations / max(result.rows, 1)
    counts = f"{result.violations:,} of {result.rows:,} values ({share:.2%})"
    by_day = " (compared by day)" if "DATE" in (table.columns[rule.than], table.columns[result.column]) else ""
    worst = result.worst.removeprefix("by ")
    sentences = {
        "point_in_time": f"{counts} were known only after {roles.prediction_time}, up to {worst} late{by_day}.",
        "used_without_available_at": f"{counts} are there while {rule.than} is empty: nothing dates them.",
        "later_than_available_at": f"{counts} lie after {rule.than}, by up to {worst}{by_day}.",
        "instant_after_prediction": f"{counts} lie after {rule.than}, by up to {worst}{by_day}. If it is known "
        f"ahead, like a due date, say so: {roles.words['planned']}.",
    }
    has_lateness = is_detailed and result.rule != "used_without_available_at"
    return Suspicion(
        result.column,
        "critical",
        result.rule,
        share,
        None,
        sentences[result.rule],
        _examples(connection, table, roles, rule) if is_detailed else (),
        _lateness(connection, table, rule) if has_lateness else None,
    )


def _examples(
    connection: duckdb.DuckDBPyConnection, table: AuditedTable, roles: ColumnRoles, rule: Rule
) -> tuple[Example, ...]:
    """The five worst rows."""
    probe = rule.probe
    since = roles.availability((probe.column,)).get(probe.column, rule.than)
    names = dict.fromkeys(
        name for name in (roles.entity, roles.prediction_time, probe.column, since, rule.than) if name is not None
    )
    order = "" if probe.rule == "used_without_available_at" else f"({probe.worst}) desc, "
    rows = connection.execute(
        f"select {', '.join(quoted(name) for name in names)} from {table.relation} where {probe.breaks} "
        f"order by {order}{quoted(table.row_number)} limit 5"
    ).fetchall()
    return tuple(dict(zip(names, map(plain, row), strict=True)) for row in rows)


def _lateness(connection: duckdb.DuckDBPyConnection, table: AuditedTable, rule: Rule) -> Lateness:
    """The plot of all rows, by how far before or after."""
    probe = rule.probe
    edges = [step // timedelta(microseconds=1) for _, step in STEPS]
    bounds = [*(-edge for edge in reversed(edges)), 0, *edges]
    names = [f"−{name}" for name, _ in reversed(STEPS)] + ["0"] + [f"+{name}" for name, _ in STEPS] + ["more"]
    cases = " ".join(f"when late <= {bound} then {place}" for place, bound in enumerate(bounds))
    counts = dict(
        connection.execute(
            f"select case {cases} else {len(bounds)} end, count(*) from (select {probe.worst} as late "
            f"from {table.relation} where {probe.applies}) where late is not null group by 1"
        ).fetchall()
    )
    rows = tuple(counts.get(place, 0) for place in range(len(names)))
    return Lateness(tuple(names), rows, late=len(edges) + 1, than=rule.than)


def _repeated(connection: duckdb.DuckDBPyConnection, table: AuditedTable, entity: str, moment: str) -> list[Suspicion]:
    """The same entity at the same moment, more than once."""
    key = (entity, moment)
    names = ", ".join(quoted(name) for name in key)
    dated = f"(from {table.relation} where {quoted(entity)} is not null and {quoted(moment)} is not null)"
    connection.execute(f"create or replace temp table repeats as {rules.repeats(dated, key)}")
    pairs, rows = first_row(
        connection,
        f"select count(*), (select count(*) from {table.relation} where ({names}) in (from repeats)) from repeats",
    )
    if not pairs:
        return []
    shown = connection.execute(f"select {names} from repeats order by {names} limit 5").fetchall()
    sentence = (
        f"{pairs:,} {'pair' if pairs == 1 else 'pairs'} of {entity} and {moment} {'is' if pairs == 1 else 'are'} there "
        f"more than once: {rows:,} of {table.rows:,} rows. They count double, and land on both sides of a split."
    )
    examples = tuple(dict(zip(key, map(plain, row), strict=True)) for row in shown)
    return [Suspicion(entity, "warning", "repeated_prediction", rows / table.rows, None, sentence, examples)]
