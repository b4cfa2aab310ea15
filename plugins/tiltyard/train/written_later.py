"""Does a feature carry what was written later, before it was written? Counted in the lake, without any statistics.

A column that is `written_later` (prepare/columns.py) was empty, or something else, when its row was first known. So a
feature that is made of it is right only if what it carries had been written when the feature was known. Two things
prove that: the table's own versions of a row, each with its `available_at`; or a column that tells when it was written.
A table that holds one version of every row, and no such time, proves nothing: then whoever uses the column is stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from tiltyard.errors import BadInput
from tiltyard.lake import quoted
from tiltyard.leak.rules import RuleResult
from tiltyard.prepare import delivery_rows
from tiltyard.prepare.columns import Columns, Origin
from tiltyard.prepare.frame import TrainingFrame
from tiltyard.rails import Rails
from tiltyard.spec import Spec, feature_key

RULE = "used_before_written"
"""Its key in `leak.suite.RULES`."""
_OF_THE_LOADER = frozenset({"ingested_at", "landed_night", "source_file", "row_number", "built_at"})
"""Columns in which a row that was delivered twice differs from itself."""
_ROWS = "_written_later_rows"
"""Temporary table: the frame's rows, each with the key of one view."""


@dataclass(frozen=True)
class _Told:
    """What a table of the lake tells of one of its columns that is written later."""

    relation: str
    """SQL of the table, as of the night."""
    column: str
    """The column, quoted."""
    since: str
    """SQL of the instant from which on a row is known to have held it; NULL where nothing says when."""
    is_settled: bool
    """No row holds it before it was written, as the column says that tells when."""
    is_versioned: bool = False
    """The first version of every thing is without it, and later ones have it: who counts the rows that were there
    counts what had been written."""
    identity: str | None = None
    """The column, quoted, that tells the rows' things apart, of which there may be versions; None where none does."""


@dataclass(frozen=True)
class _Use:
    """A feature, and the one of its origins that is looked at."""

    feature: str
    kind: str
    """Its DuckDB type in the frame."""
    origin: Origin
    key: str | None
    """The column of the origin's table that carries the view's key, quoted; None where none does."""
    is_alone: bool
    """It is made of nothing but this column, and the one that tells when it was written."""


def frame_results(
    rails: Rails, spec: Spec, frame: TrainingFrame, table: str, relation: str, columns: Columns, as_of: datetime
) -> list[RuleResult]:
    """The rule on every feature of a training frame that is made of a column that is written later.

    `relation`: SQL of the frame; `table`: the name that it bears in the results. A feature may be made of several such
    columns; the worst of them is told.
    """
    kinds = {name: kind for name, kind, *_ in rails.lake.connection.execute(f"describe from {relation}").fetchall()}
    told: dict[tuple[str, str], _Told | None] = {}
    results = []
    for view in spec.prediction.features:
        names = [feature.name for feature in frame.features if feature.view == view]
        made_of = {name: columns.written_later(view, name) for name in names}
        uses = [
            _use(columns, view, name, kinds[name], origin) for name, origins in made_of.items() for origin in origins
        ]
        if not uses:
            continue
        _take_rows(rails, spec, frame, relation, view, [name for name in names if made_of[name]], as_of)
        of_feature: dict[str, list[RuleResult]] = {}
        for use in uses:
            place = use.origin.table, use.origin.column
            if place not in told:
                known = _told(rails, use.origin, as_of, frame)
                known = known and replace(known, identity=_identity(rails, spec, columns, use.origin, known))
                has_time = use.origin.said is not None and use.origin.said.when is not None
                if known is not None and not has_time:
                    versioned = _is_empty_at_first(rails, known) and _has_versions(rails, known)
                    known = replace(known, is_versioned=versioned)
                told[place] = known
            of_feature.setdefault(use.feature, []).append(_judged(rails, table, use, told[place]))
        results += [max(of_one, key=lambda result: result.violations) for of_one in of_feature.values()]
    rails.lake.connection.execute(f"drop table if exists temp.{_ROWS}")
    return results or [RuleResult(RULE, table, "*", 0, 0, "no feature is made of a column that is written later")]


def _use(columns: Columns, view: str, name: str, kind: str, origin: Origin) -> _Use:
    key = next(iter(columns.keys(view, feature_key(view), origin.table)), None)
    when = origin.said.when if origin.said else None
    alone = {origin.column, when.column if when else origin.column}
    made_of = [other for other in columns.origins(view, name) if other.made != "chosen"]
    is_alone = all(other.table == origin.table and other.column in alone for other in made_of)
    return _Use(name, kind, origin, quoted(key) if key else None, is_alone)


def _take_rows(
    rails: Rails, spec: Spec, frame: TrainingFrame, relation: str, view: str, names: Sequence[str], as_of: datetime
) -> None:
    """The frame's rows that hold a row of the view: its key, which the spine has; since when it was known; features."""
    key, own = feature_key(view), quoted(spec.key)
    shown = ", ".join(f"f.{quoted(name)}" for name in names)
    known = f"greatest(f.{quoted(f'{view}__event_time')}, f.{quoted(f'{view}__available_at')})"
    source, carried = f"{relation} as f", f"f.{own}"
    if key != spec.key:
        spine = rails.lake.relation(spec.prediction.spine, as_of, frame.at)
        keys = f"select distinct on ({own}, prediction_time) {own}, prediction_time, {quoted(key)} from {spine}"
        source += f" left join ({keys}) as s on s.{own} = f.{own} and s.prediction_time = f.prediction_time"
        carried = f"s.{quoted(key)}"
    rails.lake.connection.execute(
        f"create or replace temp table {_ROWS} as select row_number() over () as _row, {carried}::varchar as _key, "
        f"{known} as _known, {shown} from {source} where {known} is not null"
    )


def _told(rails: Rails, origin: Origin, as_of: datetime, frame: TrainingFrame) -> _Told | None:
    """What the table of an origin tells; None where the lake does not have it."""
    try:
        kinds = rails.lake.columns(origin.table)
        relation = rails.lake.relation(origin.table, as_of, frame.at)
    except BadInput:
        return None
    column = quoted(origin.column)
    if origin.column not in kinds:
        return None
    when = origin.said.when if origin.said else None
    if when is None:
        return _Told(relation, column, "available_at", is_settled=False)
    if when.column not in kinds:
        return None
    told_by = delivery_rows.instant(when, kinds[when.column])
    is_late = f"{told_by} > available_at"
    if kinds[when.column] == "DATE":
        is_late = f"{quoted(when.column)} > available_at::date"
    early = _number(rails, f"select count(*) from {relation} where {column} is not null "
                           f"and ({told_by} is null or {is_late})")  # fmt: skip
    since = f"case when {told_by} is not null then greatest({told_by}, available_at) end"
    return _Told(relation, column, since, is_settled=early == 0)


def _identity(rails: Rails, spec: Spec, columns: Columns, origin: Origin, told: _Told) -> str | None:
    """The finest of the keys that the model's spine and the project's views carry from the table, quoted, if there is
    one row of each at an instant: several bookings of a customer are no versions of one another."""
    keys = {view: feature_key(view) for view in columns.lineage.queries if view.startswith("ftr_")}
    keys[spec.prediction.spine] = spec.key
    names = sorted({name for table, key in keys.items() for name in columns.keys(table, key, origin.table)})
    if not names:
        return None
    counts = _numbers(rails, f"select {', '.join(f'count(distinct {quoted(name)})' for name in names)} "
                             f"from {told.relation}")  # fmt: skip
    finest = quoted(names[max(range(len(names)), key=lambda place: counts[place])])
    content = ", ".join(quoted(name) for name in rails.lake.columns(origin.table) if name not in _OF_THE_LOADER)
    rows, instants = _numbers(  # a row that was delivered twice is one
        rails,
        f"select count(distinct ({content})), count(distinct ({finest}, available_at)) from {told.relation} "
        f"where {finest} is not null and available_at is not null",
    )
    return finest if rows == instants else None


def _judged(rails: Rails, table: str, use: _Use, told: _Told | None) -> RuleResult:
    """What one column says of one feature."""
    feature, origin = quoted(use.feature), use.origin
    rows = _number(rails, f"select count({feature}) from {_ROWS}")
    result = RuleResult(RULE, table, use.feature, rows, 0, "")

    def stopped(violations: int, why: str) -> RuleResult:
        return replace(result, violations=violations, worst=f"it {_verb(origin)} {origin.said}, which {why}")

    if told is None:
        return stopped(rows, "is written later and is not in the lake: nothing proves that it had been written")
    if origin.made in ("counted", "chosen") or use.key is None:
        if told.is_settled or told.is_versioned:
            return result
        return stopped(
            rows,
            "is written later, and neither a time nor a version of its table proves that it had been written by then",
        )
    has_time = origin.said is not None and origin.said.when is not None
    if not has_time and not _has_versions(rails, told):
        return stopped(rows, f"is written later, but {origin.table} holds one version of it: nothing proves since when")
    if origin.made == "same" and (count := _not_yet(rails, use, told)) is not None:
        return stopped(count, "is written later: the value was not there yet when the feature is said to be known")
    if not use.is_alone or (not has_time and use.key != told.identity):
        if told.is_settled:
            return result
        return stopped(_unwritten(rails, use, told), "is written later, and had not been when the feature was known")
    return stopped(_telling(rails, use, told), "is written later: rows in which it was the same then differ by it")


def _verb(origin: Origin) -> str:
    return {"same": "carries", "made": "is made of", "counted": "is counted from", "chosen": "has its rows chosen by"}[
        origin.made
    ]


def _is_empty_at_first(rails: Rails, told: _Told) -> bool:
    """Whether no thing holds the column in its first version."""
    if told.identity is None:
        return False
    first = f"row_number() over (partition by {told.identity} order by available_at) = 1"
    known = f"select {told.column} as _value from {told.relation} where {told.identity} is not null qualify {first}"
    return _number(rails, f"select count(_value) from ({known})") == 0


def _has_versions(rails: Rails, told: _Told) -> bool:
    """Whether the column of any of the things ever comes to be another one."""
    if told.identity is None:
        return False
    kinds = f"count(distinct {told.column}) + (count(*) > count({told.column}))::integer"
    changed = f"select 1 from {told.relation} where {told.identity} is not null group by {told.identity}"
    return _number(rails, f"select count(*) from ({changed} having {kinds} > 1 limit 1)") > 0


def _not_yet(rails: Rails, use: _Use, told: _Told) -> int | None:
    """Rows whose value no row of the same key had held by then; None where the two cannot be compared as values."""
    value, feature = f"try_cast({told.column} as {use.kind})", quoted(use.feature)
    filled, read = _numbers(rails, f"select count({told.column}), count({value}) from {told.relation}")
    if read < filled / 2:
        return None
    return _number(
        rails,
        f"select count(*) from {_ROWS} as r left join ("
        f"select {use.key}::varchar as _key, {value} as _value, min({told.since}) as _since from {told.relation} "
        f"where {told.column} is not null group by 1, 2) as k on k._key = r._key and k._value = r.{feature} "
        f"where r.{feature} is not null and (k._since is null or k._since > r._known)",
    )


def _states(use: _Use, told: _Told) -> str:
    """SQL of every row's state: `_row`, `_then` (what the column was when the feature was known), and `_is_open`,
    whether it was yet to be written."""
    if use.origin.said and use.origin.said.when:
        written = (
            f"select {use.key}::varchar as _key, min({told.since}) as _since from {told.relation} "
            f"where {told.column} is not null group by 1"
        )
        return (
            "select r._row, case when w._since <= r._known then 'written' else '' end as _then, "
            "w._key is not null and coalesce(w._since > r._known, true) as _is_open "
            f"from {_ROWS} as r left join ({written}) as w on w._key = r._key"
        )
    versions = (
        f"select {use.key}::varchar as _key, available_at as _at, {told.column}::varchar as _value "
        f"from {told.relation} where {use.key} is not null and available_at is not null"
    )
    changes = (
        "select _key, max(_at) as _last from (select *, row_number() over o > 1 "
        f"and _value is distinct from lag(_value) over o as _is_new from ({versions}) "
        "window o as (partition by _key order by _at)) where _is_new group by 1"
    )
    return (
        "select r._row, v._value as _then, coalesce(c._last > r._known, false) as _is_open "
        f"from {_ROWS} as r asof left join ({versions}) as v on v._key = r._key and r._known >= v._at "
        f"left join ({changes}) as c on c._key = r._key"
    )


def _unwritten(rails: Rails, use: _Use, told: _Told) -> int:
    """Rows that hold a value while the column was yet to be written."""
    return _number(
        rails,
        f"select count(*) from {_ROWS} as r join ({_states(use, told)}) as s on s._row = r._row "
        f"where s._is_open and r.{quoted(use.feature)} is not null",
    )


def _telling(rails: Rails, use: _Use, told: _Told) -> int:
    """Rows in which the column was yet to be written, and the feature is not what it is in most rows that were alike.

    Made of nothing else, it is the same in all of them as long as it has not seen what came later.
    """
    return _number(
        rails,
        f"with s as ({_states(use, told)}), f as (select s.*, r.{quoted(use.feature)}::varchar as _is from s "
        f"join {_ROWS} as r on r._row = s._row), "
        "g as (select _then, bool_or(_is_open) as _has_open, count(distinct _is) + "
        "(count(*) > count(_is))::integer as _kinds, mode(_is) as _usual from f group by _then) "
        "select count(*) from f join g on g._then is not distinct from f._then "
        "where g._has_open and g._kinds > 1 and f._is is distinct from g._usual",
    )


def _number(rails: Rails, sql: str) -> int:
    return _numbers(rails, sql)[0]


def _numbers(rails: Rails, sql: str) -> tuple[int, ...]:
    row = rails.lake.connection.execute(sql).fetchone()
    assert row is not None
    return tuple(int(value or 0) for value in row)
