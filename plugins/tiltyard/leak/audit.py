"""The auditor: does a table of anybody's tell what could not have been known at prediction time?

It needs a file and the names of a few columns; no spec, no lake, no server. Two kinds of evidence, kept apart:

- **Write times**, where the file carries them: the rules of leakage.py, counted exactly over all rows, in one scan.
- **The data itself**: evidence.py on a sample of whole entities, drawn by hash, so that it is the same for the same
  file.

The verdict is `fail` when something is critical, `warn`, `pass`, or `untestable`: silence about what could not be
tested would look like a pass.
"""

import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pandas as pd

from tiltyard.errors import BadInput
from tiltyard.lake import quoted, text
from tiltyard.leak import evidence, leakage, tabular
from tiltyard.leak.coverage import Coverage, covered
from tiltyard.leak.evidence import Finding, Sample, Untested
from tiltyard.leak.leakage import Probe, Times
from tiltyard.leak.tabular import Progress, Table

Verdict = Literal["pass", "warn", "fail", "untestable"]

KINDS: Mapping[str, str] = {
    "point_in_time": "The value became known only after the prediction that uses it.",
    "used_without_available_at": "A value is there, but nothing says since when it was known; it must not be used.",
    "later_than_available_at": "It tells a time after the moment at which the value is said to have been known.",
    "instant_after_prediction": evidence.KINDS["instant_after_prediction"],
    "repeated_prediction": "The same entity stands in the table more than once for the same moment.",
}
"""What the rules on write times find → one sentence that says what it means."""

EVERY = "*"
"""In `available_at`: every feature that has no column of its own there."""
SAMPLE_ROWS = 100_000
SAMPLE_CELLS = 12_000_000
"""A wide table is sampled thinner, to stay within memory: rows × columns."""
FEW_ENTITIES = 30
"""A sample of fewer whole entities stands for nothing; rows are drawn instead."""
HISTORY_ROWS = 1_000_000
DETAILED = 50
"""For so many broken rules the worst rows are fetched; one scan each."""
ENDLESS = "9000-01-01"
"""Times from here on are no times."""
PER_SCAN = 400
"""Rules that are counted in one scan; a table with thousands of columns takes a few."""
YES = frozenset({"yes", "y", "true", "t", "1", "1.0", "positive", "pos", "ja", "oui", "si", "sí"})
NO = frozenset({"no", "n", "false", "f", "0", "0.0", "-1", "negative", "neg", "nein", "non"})
_BUCKETS = 65_536


@dataclass(frozen=True)
class Label:
    """How the label was read."""

    column: str
    kind: Literal["binary", "number"]
    sql: str
    """Over the table: 0 or 1, or a number; NULL where there is none."""
    positive: str
    """What counts as 1; '' for a number."""
    rows: int
    """Rows that have one."""


@dataclass(frozen=True)
class Audit:
    """What was found, what could not be tested, and on what."""

    path: Path
    verdict: Verdict
    reason: str
    rows: int
    findings: tuple[Finding, ...]
    """Ranked: critical first, exact counts before statistics."""
    untested: tuple[Untested, ...]
    notes: tuple[str, ...]
    """How the file was read, where that was a decision."""
    features: tuple[str, ...]
    label: Label
    sampled: int
    """Rows that the statistics looked at."""
    exact: str
    """What was counted over all rows, in a sentence."""
    coverage: Coverage
    """The kinds of leakage that were looked for, of all that are known, and what to give for the others."""

    @property
    def headline(self) -> str:
        """The reason for the verdict, how many kinds were looked for, and what to give for the others."""
        return f"{self.reason} {self.coverage.sentence}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        shown = [one.name for one in fields(Finding) if one.name != "plot"]
        return {
            "verdict": self.verdict,
            "rows": self.rows,
            "findings": [plain({name: getattr(one, name) for name in shown}) for one in self.findings],
            "untested": [plain(asdict(one)) for one in self.untested],
            "reason": self.headline,
            "looked_for": list(self.coverage.looked_for),
            "not_looked_for": [asdict(gap) for gap in self.coverage.not_looked_for],
            "notes": list(self.notes),
            "features": len(self.features),
            "sampled_rows": self.sampled,
            "label": {"column": self.label.column, "kind": self.label.kind, "positive": self.label.positive or None},
            "file": str(self.path),
        }


def audit(
    path: Path,
    *,
    label: str,
    prediction_time: str,
    entity: str | None = None,
    label_time: str | None = None,
    available_at: Mapping[str, str] | None = None,
    planned: Iterable[str] = (),
    ignore: Iterable[str] = (),
    history: Path | None = None,
    history_as_of: str | None = None,
    progress: Progress | None = None,
    threads: int = 2,
    memory: str = "2GB",
) -> Audit:
    """Judge a Parquet or CSV file of any size within `memory` for the engine and a sample beside it.

    `available_at`: feature → the column that says since when its value was known; the key `*` stands for every
    feature that has none of its own. `planned`: columns with instants that are known ahead. `history`: an event or
    version log of the same entities, with `history_as_of` the time of each row.
    Raises BadInput for whatever cannot be judged at all.
    """
    say = progress or (lambda _label, _share: None)
    roles = Roles(
        label,
        prediction_time,
        entity,
        label_time,
        dict(available_at or {}),
        tuple(planned),
        tuple(ignore),
        history_as_of,
    )
    roles.check(history)
    with tempfile.TemporaryDirectory(prefix="tiltyard-audit-") as made:
        folder = Path(made)
        with closing(tabular.connect(folder, threads=threads, memory=memory)) as connection:
            try:
                return _audit(connection, Path(path), folder, roles, Path(history) if history else None, say)
            except (
                duckdb.IOException,
                duckdb.DataError,
                duckdb.InvalidInputException,
                duckdb.OutOfMemoryException,
            ) as error:
                raise BadInput(_what_stopped(Path(path), folder, str(error))) from None


def declared(words: Iterable[str]) -> dict[str, str]:
    """`feature=column` words as a mapping; a word without `=` is the column of every other feature."""
    found: dict[str, str] = {}
    for word in words:
        feature, _, column = word.rpartition("=")
        if not column or word.startswith("=") or feature in found:
            raise BadInput(f"--available-at is FEATURE=COL, once for each feature, not '{word}'.")
        found[feature or EVERY] = column
    return found


@dataclass(frozen=True)
class Roles:
    """What the columns are, as the user says."""

    label: str
    prediction_time: str
    entity: str | None = None
    label_time: str | None = None
    available_at: Mapping[str, str] = field(default_factory=dict)
    planned: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    history_as_of: str | None = None

    def check(self, history: Path | None) -> None:
        """What can be said without the file. Raises BadInput."""
        named = {"--label": self.label, "--prediction-time": self.prediction_time}
        named |= {"--entity": self.entity} if self.entity else {}
        named |= {"--label-time": self.label_time} if self.label_time else {}
        for option, column in named.items():
            twin = next((other for other, name in named.items() if name == column and other != option), None)
            if twin:
                raise BadInput(f"{option} and {twin} both name the column '{column}'; each has a column of its own.")
        if bool(history) != bool(self.history_as_of):
            raise BadInput("--history and --as-of-column belong together: a log, and the column with its times.")
        for feature in self.available_at:
            role = next((option for option, column in named.items() if column == feature), None)
            if role:
                raise BadInput(f"--available-at: '{feature}' is the column of {role}, and no feature.")
        if history and not self.entity:
            raise BadInput("--history needs --entity: the column that both files have in common.")

    @property
    def times(self) -> dict[str, str]:
        """Columns that must hold times → the option that says so."""
        found = dict.fromkeys(self.available_at.values(), "--available-at")
        found |= {self.label_time: "--label-time"} if self.label_time else {}
        return found | {self.prediction_time: "--prediction-time"}

    @property
    def known(self) -> dict[str, str]:
        """Columns that must be there → the option that says so."""
        found = {self.label: "--label"}
        found |= {self.entity: "--entity"} if self.entity else {}
        found |= {feature: "--available-at" for feature in self.available_at if feature != EVERY}
        found |= dict.fromkeys(self.planned, "--planned") | dict.fromkeys(self.ignore, "--ignore")
        return found | self.times

    def features(self, columns: Iterable[str]) -> tuple[str, ...]:
        """The columns to judge: all that have no other part."""
        parts = {self.label, self.prediction_time, self.entity, self.label_time, *self.ignore}
        parts |= {column for column in self.available_at.values() if column not in self.available_at}
        return tuple(column for column in columns if column not in parts)

    def availability(self, features: Iterable[str]) -> dict[str, str]:
        """Feature → the column that says since when it was known, for those that have one."""
        every = self.available_at.get(EVERY)
        return {
            feature: column for feature in features if (column := self.available_at.get(feature, every)) is not None
        }


def _audit(
    connection: duckdb.DuckDBPyConnection, path: Path, folder: Path, roles: Roles, history: Path | None, say: Progress
) -> Audit:
    say("reading the file", 0.02)
    table = tabular.table(connection, path, folder, times=roles.times, known=roles.known)
    features = roles.features(table.columns)
    if not features:
        raise BadInput(f"{path.name} has no column left to judge beside those that the options name.")
    if roles.entity and not _readable(table.columns[roles.entity]):
        kind = table.columns[roles.entity].lower()[:40]
        raise BadInput(f"--entity: column '{roles.entity}' is {kind}; name one of numbers or text, or a time.")
    label, notes = _label(connection, table, roles.label)
    unread = [
        Untested(feature, "*", f"It holds {table.columns[feature].lower()[:40]}, which nothing here can judge.")
        for feature in features
        if not _readable(table.columns[feature])
    ]
    judged = tuple(feature for feature in features if _readable(table.columns[feature]))
    say("rules on write times", 0.2)
    found, undated = _write_times(connection, table, roles, judged, say)
    undated += _never_declared(roles, table, judged)
    say("drawing the sample", 0.55)
    sample, more = _sample(connection, table, roles, judged, label, history, folder)
    weighed = evidence.weigh(sample, lambda what, share: say(what, 0.7 + 0.3 * (share or 0.0)))
    say("done", 1.0)
    instants = {name for name in judged if leakage.is_instant(table.columns[name])}
    findings = tuple(_ranked(found, weighed.findings, instants))
    untested = (*unread, *undated, *weighed.untested)
    verdict, reason = _verdict(findings, _nothing_weighed(weighed))
    return Audit(
        path=path,
        verdict=verdict,
        reason=reason,
        rows=table.rows,
        findings=findings,
        untested=untested,
        notes=(*table.notes, *notes, *more),
        features=features,
        label=label,
        sampled=len(sample.frame),
        exact=_exact(roles, judged, table),
        coverage=covered(tuple(dict.fromkeys([*KINDS, *evidence.KINDS])), weighed.looked_for, untested),
    )


def _never_declared(roles: Roles, table: Table, features: Sequence[str]) -> list[Untested]:
    """The rules on write times that hold for no column, because nobody said what they compare."""
    gaps = []
    if not roles.availability(features):
        why = "Of no column it was said since when its values were known."
        kinds = ("point_in_time", "used_without_available_at", "later_than_available_at")
        gaps += [Untested("*", kind, why, "available_at") for kind in kinds]
    if not roles.entity:
        gaps.append(Untested("*", "repeated_prediction", "No entity was given: whom a row is about.", "entity"))
    return gaps


def _readable(kind: str) -> bool:
    return kind in tabular.NUMBERS or kind == "VARCHAR" or leakage.is_instant(kind)


# -- the label --------------------------------------------------------------------------------


def _label(connection: duckdb.DuckDBPyConnection, table: Table, column: str) -> tuple[Label, list[str]]:
    """Two values of any kind are 0 and 1; more numbers are a regression. Raises BadInput for anything else."""
    name, kind = quoted(column), table.columns[column]
    if not _readable(kind) or leakage.is_instant(kind):
        raise BadInput(f"--label: column '{column}' is {kind.lower()[:40]}; a label has two values, or is a number.")
    if kind == "VARCHAR":
        clean = f"nullif(trim({name}), '')"
        number = f"try_cast({clean} as double)"
    else:
        clean = number = f"{name}::double"
    finite = f"case when isfinite({number}) then {number} end"
    filled, numbers, good = _row(
        connection, f"select count({clean}), count({number}), count({finite}) from {table.relation}"
    )
    notes = []
    if numbers > good:
        notes.append(f"{column}: {numbers - good:,} labels are NaN or infinite; those rows count as unlabelled.")
    as_text = kind == "VARCHAR" and numbers < filled
    value = clean if as_text else finite
    values = [
        seen
        for (seen,) in connection.execute(
            f"select distinct {value} from {table.relation} where {value} is not null limit 3"
        ).fetchall()
    ]
    rows = filled if as_text else good
    if not values:
        raise BadInput(f"--label: column '{column}' of {table.path.name} is empty; it holds no outcome to look at.")
    if rows < table.rows:
        notes.append(f"{column}: {table.rows - rows:,} of {table.rows:,} rows have no label.")
    if len(values) > 2:
        if as_text:
            shown = ", ".join(repr(str(one)[:30]) for one in sorted(values))
            raise BadInput(
                f"--label: column '{column}' is text of more than two kinds ({shown}, …); give a column with two "
                "values, or with a number."
            )
        return Label(column, "number", finite, "", rows), notes
    positive = _positive(connection, table, value, values)
    compared = text(positive) if as_text else repr(float(positive))
    sql = f"case when {value} is not null then ({value} = {compared})::integer end"
    shown = str(positive) if as_text else _number(positive)
    if len(values) == 2 and (as_text or {_number(one) for one in values} != {"0", "1"}):
        notes.append(f"{column}: {shown} counts as 1, {next(one for one in values if one != positive)} as 0.")
    return Label(column, "binary", sql, shown, rows), notes


def _positive(connection: duckdb.DuckDBPyConnection, table: Table, value: str, values: Sequence[Any]) -> Any:
    """Of two values the one that says yes; the greater number; else the rarer."""
    if not isinstance(values[0], str):
        return max(values) if len(values) == 2 else (values[0] if values[0] != 0 else 1.0)
    for one in values:
        if one.casefold() in YES:
            return one
    for one in values:
        if one.casefold() in NO and len(values) == 2:
            return next(other for other in values if other != one)
    row = connection.execute(
        f"select {value} from {table.relation} where {value} is not null group by 1 order by count(*), 1 limit 1"
    ).fetchone()
    assert row is not None
    return row[0]


def _number(value: float) -> str:
    return f"{value:g}"


# -- the rules on write times -----------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """A rule on a feature of the file, and the column that it is held against."""

    probe: Probe
    than: str


def rules(roles: Roles, table: Table, features: Sequence[str]) -> list[Rule]:
    """The rules of leakage.py that apply to the file: each feature by its own declaration."""
    moment = Times(roles.prediction_time, table.columns[roles.prediction_time])
    declared = roles.availability(features)
    made: list[Rule] = []
    for feature in features:
        kind, since = table.columns[feature], declared.get(feature)
        if since is not None and since != feature:
            known = Times(since, table.columns[since])
            made.append(Rule(leakage.later("point_in_time", feature, known, moment, value=feature), moment.column))
            made.append(Rule(leakage.undated(feature, (feature,), since), since))
        if not leakage.is_instant(kind) or feature in roles.planned:
            continue
        if since is None or since == feature:
            probe = leakage.later("instant_after_prediction", feature, Times(feature, kind), moment)
            made.append(Rule(_but_endless(probe, kind), moment.column))
        else:
            known = Times(since, table.columns[since])
            probe = leakage.later("later_than_available_at", feature, Times(feature, kind), known)
            made.append(Rule(_but_endless(probe, kind), since))
    return made


def _but_endless(probe: Probe, kind: str) -> Probe:
    """9999-12-31 and infinity stand for "not yet": a default, which tells nothing about the future."""
    name = quoted(probe.column)
    ends = f"isfinite({name})" if kind == "TIMESTAMP_NS" else f"{name} < {text(ENDLESS)}"  # nanoseconds end in 2262
    return replace(probe, judged=f"{probe.judged} and {ends}", broken=f"{probe.broken} and {ends}")


def _write_times(
    connection: duckdb.DuckDBPyConnection, table: Table, roles: Roles, features: Sequence[str], say: Progress
) -> tuple[list[Finding], list[Untested]]:
    """Findings of the rules, exact over all rows, and the rows that no rule could judge."""
    made = rules(roles, table, features)
    findings: list[Finding] = []
    for start in range(0, len(made), PER_SCAN):
        part = made[start : start + PER_SCAN]
        counted = leakage.tally(
            connection, table.path.name, table.relation, [rule.probe for rule in part], judged=False
        )
        broken = [(rule, one) for rule, one in zip(part, counted, strict=True) if one.violations]
        for rule, one in broken:
            detailed = len(findings) < DETAILED
            examples = _examples(connection, table, roles, rule) if detailed else ()
            apart = detailed and one.rule != "used_without_available_at"
            plot = _lateness(connection, table, rule) if apart else {}
            findings.append(_finding(rule, one, roles, table, examples, plot))
        say("rules on write times", 0.2 + 0.25 * (start + len(part)) / len(made))
    if roles.entity:
        say("rows that repeat", 0.45)
        findings += _repeated(connection, table, roles)
    moment = quoted(roles.prediction_time)
    nowhere = _row(connection, f"select count(*) filter ({moment} is null) from {table.relation}")[0]
    untested = []
    if nowhere:
        why = f"{nowhere:,} of {table.rows:,} rows have no prediction time that can be read; nothing judges them."
        untested.append(Untested("*", "*", why))
    return findings, untested


def _exact(roles: Roles, features: Sequence[str], table: Table) -> str:
    declared = len(roles.availability(features))
    undeclared = len(features) - declared
    known = f"Of {declared:,} columns it is said since when each value was known; that was held against every row."
    if not declared:
        known = "For no column is it said since when its values were known (--available-at)."
    elif undeclared:
        known += f" Of {undeclared:,} it is not said."
    instants = sum(leakage.is_instant(table.columns[name]) and name not in roles.planned for name in features)
    times = f" {instants:,} columns hold times; each was held against its row." if instants else ""
    return f"{known}{times}" + (f" Repeated pairs of {roles.entity} and time were counted." if roles.entity else "")


def _finding(
    rule: Rule,
    one: leakage.Finding,
    roles: Roles,
    table: Table,
    examples: tuple[Mapping[str, Any], ...],
    plot: Mapping[str, Any],
) -> Finding:
    share = one.violations / max(one.rows, 1)
    counts = f"{one.violations:,} of {one.rows:,} values ({share:.2%})"
    by_day = " (compared by day)" if "DATE" in (table.columns[rule.than], table.columns[one.column]) else ""
    worst = one.worst.removeprefix("by ")
    sentences = {
        "point_in_time": f"{counts} were known only after {roles.prediction_time}, up to {worst} late{by_day}.",
        "used_without_available_at": f"{counts} are there while {rule.than} is empty: nothing dates them.",
        "later_than_available_at": f"{counts} lie after {rule.than}, by up to {worst}{by_day}.",
        "instant_after_prediction": f"{counts} lie after {rule.than}, by up to {worst}{by_day}. If it is known "
        "ahead, like a due date, declare it with --planned.",
    }
    return Finding(one.column, "critical", one.rule, share, None, sentences[one.rule], examples, plot)


def _examples(
    connection: duckdb.DuckDBPyConnection, table: Table, roles: Roles, rule: Rule
) -> tuple[Mapping[str, Any], ...]:
    """The five worst rows."""
    probe = rule.probe
    since = roles.availability((probe.column,)).get(probe.column, rule.than)
    names = dict.fromkeys(
        name for name in (roles.entity, roles.prediction_time, probe.column, since, rule.than) if name is not None
    )
    order = "" if probe.rule == "used_without_available_at" else f"({probe.worst}) desc, "
    rows = connection.execute(
        f"select {', '.join(quoted(name) for name in names)} from {table.relation} where {probe.broken} "
        f"order by {order}{quoted(table.row_number)} limit 5"
    ).fetchall()
    return tuple(dict(zip(names, (plain(value) for value in row), strict=True)) for row in rows)


_STEPS = (
    ("a minute", timedelta(minutes=1)),
    ("an hour", timedelta(hours=1)),
    ("a day", timedelta(days=1)),
    ("a week", timedelta(days=7)),
    ("30 days", timedelta(days=30)),
    ("a year", timedelta(days=365)),
)


def _lateness(connection: duckdb.DuckDBPyConnection, table: Table, rule: Rule) -> dict[str, Any]:
    """Rows by how far before or after, on a scale that grows: minutes and years in one picture.

    {"shape": "lateness", "names": of the bars, "rows", "late": place of the first bar that breaks the rule}
    """
    probe = rule.probe
    edges = [step // timedelta(microseconds=1) for _, step in _STEPS]
    bounds = [*(-edge for edge in reversed(edges)), 0, *edges]
    names = [f"−{name}" for name, _ in reversed(_STEPS)] + ["0"] + [f"+{name}" for name, _ in _STEPS] + ["more"]
    when = " ".join(f"when late <= {bound} then {place}" for place, bound in enumerate(bounds))
    counted = dict(
        connection.execute(
            f"select case {when} else {len(bounds)} end, count(*) from (select {probe.worst} as late "
            f"from {table.relation} where {probe.judged}) where late is not null group by 1"
        ).fetchall()
    )
    rows = [counted.get(place, 0) for place in range(len(names))]
    return {"shape": "lateness", "names": names, "rows": rows, "late": len(edges) + 1, "than": rule.than}


def _repeated(connection: duckdb.DuckDBPyConnection, table: Table, roles: Roles) -> list[Finding]:
    assert roles.entity is not None
    key = (roles.entity, roles.prediction_time)
    dated = f"(from {table.relation} where {quoted(roles.entity)} is not null and {quoted(key[1])} is not null)"
    sql = leakage.repeats(dated, key)
    names = ", ".join(quoted(name) for name in key)
    connection.execute(f"create or replace temp table repeats as {sql}")
    groups, rows = _row(
        connection,
        f"select count(*), (select count(*) from {table.relation} where ({names}) in (from repeats)) from repeats",
    )
    if not groups:
        return []
    examples = connection.execute(f"select {names} from repeats order by {names} limit 5").fetchall()
    counts = f"{groups:,} pairs of {roles.entity} and {roles.prediction_time} are there more than once"
    sentence = f"{counts}: {rows:,} of {table.rows:,} rows. They count double, and land on both sides of a split."
    shown = tuple(dict(zip(key, (plain(value) for value in row), strict=True)) for row in examples)
    share = rows / table.rows
    return [Finding(roles.entity, "warning", "repeated_prediction", share, None, sentence, shown)]


# -- the sample -------------------------------------------------------------------------------


def _sample(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    roles: Roles,
    features: Sequence[str],
    label: Label,
    history: Path | None,
    folder: Path,
) -> tuple[Sample, list[str]]:
    """Labelled rows with a prediction time: all of them, or whole entities by hash, or rows by hash."""
    usable = f"{label.sql} is not null and {quoted(roles.prediction_time)} is not null"
    total = _row(connection, f"select count(*) from {table.relation} where {usable}")[0]
    limit = max(1_000, min(SAMPLE_ROWS, SAMPLE_CELLS // len(table.columns)))
    chosen, notes = "true", []
    if total > limit:
        by_entity = _whole_entities(connection, table, roles.entity, usable, limit) if roles.entity else None
        if roles.entity and by_entity is None:
            notes.append(
                f"{roles.entity}: the entities are too large for a sample of whole ones; the statistics see single "
                "rows of them."
            )
        share = limit / total * (1 - 3 / limit**0.5)
        chosen = by_entity or f"hash({quoted(table.row_number)}) <= {int(share * 2**64)}::ubigint"
    columns = [name for name in (roles.entity, roles.label_time) if name]
    columns += [column for column in features if column not in columns]
    shown = [f"({label.sql})::double as {quoted(label.column)}", quoted(roles.prediction_time)]
    shown += [quoted(column) for column in columns]
    order = [quoted(roles.prediction_time), *([quoted(roles.entity)] if roles.entity else []), quoted(table.row_number)]
    frame = connection.execute(
        f"select {', '.join(shown)} from {table.relation} where {usable} and {chosen} order by {', '.join(order)}"
    ).df()
    if len(frame) < total:
        notes.append(f"The statistics saw {len(frame):,} of {total:,} labelled rows, drawn by hash.")
    sample = Sample(
        frame=_zoned(frame),
        label=label.column,
        prediction_time=roles.prediction_time,
        entity=roles.entity,
        label_time=roles.label_time,
        features=tuple(features),
        planned=frozenset(roles.planned),
    )
    if history is None:
        return sample, notes
    log, more = _history(connection, history, folder, roles, sample)
    return replace(sample, history=log, history_as_of=roles.history_as_of), [*notes, *more]


def _whole_entities(
    connection: duckdb.DuckDBPyConnection, table: Table, entity: str, usable: str, limit: int
) -> str | None:
    """Condition for the entities of the first hash buckets that fit into `limit` rows; None when too few do."""
    bucket = f"(hash({quoted(entity)}) // {2**64 // _BUCKETS}::ubigint)"
    filled = f"{usable} and {quoted(entity)} is not null"
    counts = connection.execute(
        f"select {bucket}, count(*) from {table.relation} where {filled} group by 1 order by 1"
    ).fetchall()
    rows = last = 0
    for place, count in counts:
        if rows + count > limit:
            break
        rows, last = rows + count, place + 1
    chosen = f"{bucket} < {last}"
    entities = _row(
        connection, f"select count(distinct {quoted(entity)}) from {table.relation} where {filled} and {chosen}"
    )[0]
    return chosen if entities >= FEW_ENTITIES else None


def _history(
    connection: duckdb.DuckDBPyConnection, path: Path, folder: Path, roles: Roles, sample: Sample
) -> tuple[pd.DataFrame, list[str]]:
    """The log of the sample's entities, in the order of its times."""
    assert roles.entity is not None and roles.history_as_of is not None
    times = {roles.history_as_of: "--as-of-column"}
    table = tabular.table(
        connection, path, folder, times=times, known=times | {roles.entity: "--entity"}, name="history"
    )
    entity, moment = quoted(roles.entity), quoted(roles.history_as_of)
    names = [column for column, kind in table.columns.items() if _readable(kind)]
    seen = pd.DataFrame({"entity": sample.frame[roles.entity].dropna().astype(str).unique()})
    connection.register("sampled", seen)
    try:
        log = connection.execute(
            f"select {', '.join(quoted(name) for name in names)} from {table.relation} "
            f"where {entity}::varchar in (select entity from sampled) and {moment} is not null "
            f"order by {moment}, {quoted(table.row_number)} limit {HISTORY_ROWS}"
        ).df()
    finally:
        connection.unregister("sampled")
    if log.empty:
        raise BadInput(
            f"--history: {path.name} and the frame have no '{roles.entity}' in common; do they tell of the same ones?"
        )
    return _zoned(log), [f"{path.name}: {note}" for note in table.notes]


def _zoned(frame: pd.DataFrame) -> pd.DataFrame:
    """Every time as UTC; those without a zone count as that."""
    for column in frame.columns:
        if pd.api.types.is_datetime64_any_dtype(frame[column]):
            frame[column] = pd.to_datetime(frame[column], utc=True)
    return frame


# -- the verdict ------------------------------------------------------------------------------


def _nothing_weighed(weighed: evidence.Weighed) -> str:
    """Why no statistic could be tried on any column; '' when one could."""
    return next((one.why for one in weighed.untested if one.feature == "*" and one.kind == "too_good"), "")


def _ranked(exact: Sequence[Finding], statistical: Sequence[Finding], instants: Collection[str]) -> list[Finding]:
    """Critical first, exact counts before statistics; what the rules counted over all rows is not told twice."""
    by_size = sorted(exact, key=lambda finding: (-finding.effect, finding.feature))
    rest = [one for one in statistical if one.kind != "instant_after_prediction" or one.feature not in instants]
    return sorted([*by_size, *rest], key=lambda finding: finding.severity != "critical")


def _verdict(findings: Sequence[Finding], untestable: str) -> tuple[Verdict, str]:
    """The verdict and its reason in one sentence."""
    critical = [finding for finding in findings if finding.severity == "critical"]
    if critical:
        columns = list(dict.fromkeys(finding.feature for finding in critical))
        tells = "tells" if len(columns) == 1 else "tell"
        return "fail", f"{_columns(columns)} {tells} what could not have been known at the prediction time."
    if untestable:
        return "untestable", f"The data itself could not be tested: {untestable}"
    if findings:
        columns = list(dict.fromkeys(finding.feature for finding in findings))
        return "warn", f"Nothing is about time, but somebody should have a look at {_columns(columns)}."
    return "pass", "Nothing of what was looked for tells what could not have been known at the prediction time."


def _columns(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def plain(value: Any) -> Any:
    """A value that JSON can hold: numbers that are none become None, instants ISO 8601, the rest text."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is pd.NaT or value is pd.NA:
        return None
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _row(connection: duckdb.DuckDBPyConnection, sql: str) -> Sequence[Any]:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row


def _what_stopped(path: Path, folder: Path, error: str) -> str:
    first = error.splitlines()[0].rstrip(".")
    if "No space left" in error or "max_temp_directory_size" in error:
        return f"There is no room in {folder.parent} to judge {path}; set TMPDIR to a folder with more."
    return f"{path} cannot be read to its end: {first}."
