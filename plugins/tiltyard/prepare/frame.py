"""Point-in-time frames: what a model sees for each row of its spine, and nothing that was not known then.

The join is the dbt project's own macro (dbt/macros/point_in_time.sql), rendered here with plain Jinja, so that
there is one definition of it. Reads are by `as_of` (what was known) and `at` (what the lake held, or has in service).
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import duckdb
import jinja2
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tiltyard.errors import BadInput
from tiltyard.files import whole
from tiltyard.lake import At, Lake, literal, qualified, quoted, snapshot_of, stored
from tiltyard.prepare import names, transform, truth
from tiltyard.prepare.project import RESERVED
from tiltyard.rails import Rails
from tiltyard.records import FeatureValue, Publication
from tiltyard.spec import DECIDED, Spec, feature_key
from tiltyard.words import counted

log = logging.getLogger(__name__)

FeatureKind = Literal["numeric", "boolean", "categorical"]
_NUMERIC = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE", "DECIMAL")
_INSTANT = timedelta(microseconds=1)
"""The smallest step of time: turns an end that is included into one that is not."""
_EVER = datetime(9999, 1, 1, tzinfo=UTC)
_FILES = ("point_in_time.sql", "answers.sql", "written.sql")
"""Macro files of the dbt project that are rendered here."""


@dataclass(frozen=True)
class Feature:
    """One input of a model."""

    name: str
    """Its column."""
    view: str
    """Feature view that it comes from."""
    kind: FeatureKind
    """How a model reads it."""


@dataclass(frozen=True)
class TrainingFrame:
    """An immutable Parquet file, named by the SHA-256 of its bytes, and where it came from."""

    path: Path
    """The file."""
    digest: str
    """SHA-256 of its bytes, as hexadecimal digits."""
    rows: int
    """Number of its rows."""
    unlabelled: int
    """Number of spine rows of its cohorts that had no label by then; they are left out."""
    snapshot: int
    """Snapshot of the lake that it was read from."""
    start: datetime
    """First prediction_time of its cohorts."""
    end: datetime
    """End of their prediction_times, not included."""
    features: tuple[Feature, ...]
    """The model's inputs, in the order of the columns."""
    at: int | Publication
    """What of the lake it was read from: the snapshot, or every table where it stood."""

    def read(self) -> pd.DataFrame:
        """The frame: key, prediction_time, label, features, `<view>__event_time`, `<view>__available_at`.

        Raises BadInput when the file is gone or its bytes are not the ones it is named by.
        """
        frame: pd.DataFrame = self.table().to_pandas()
        return frame

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The same, or some of its columns, as Arrow has it. Nobody reads the file in another way: its bytes are held
        against its name whenever they are read, and not only when they were written."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            if _erased(self.path).is_file():
                raise BadInput(
                    f"The training frame {self.path} was erased, since it held somebody who was; tiltyard train makes "
                    "another one, without them."
                ) from None
            raise BadInput(f"The training frame {self.path} is gone; run tiltyard train again to rebuild it.") from None
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise BadInput(f"The training frame {self.path} is damaged; run tiltyard train again, which makes it anew.")
        return pq.read_table(pa.BufferReader(content), columns=columns)


def mark_erased(path: Path, at: datetime) -> None:
    """Put down, before a frame goes, that it goes because somebody in it was erased."""
    with whole(_erased(path), lasting=True) as part:
        part.write_text(json.dumps({"erased_at": at.isoformat()}) + "\n")


def _erased(path: Path) -> Path:
    return path.with_suffix(".erased")


def readable(rails: Rails, spec: Spec, at: At = None) -> Spec:
    """The spec with those of its feature views that there is something of; itself where that is all of them.

    One that was never good is left out, and one that is not in the lake yet: a spec may name a view before the first
    night that is built with it.
    """
    views = tuple(view for view in spec.prediction.features if _is_there(rails, view, at))
    if views == spec.prediction.features:
        return spec
    return spec.model_copy(update={"prediction": spec.prediction.model_copy(update={"features": views})})


def features(rails: Rails, spec: Spec, at: At = None) -> tuple[Feature, ...]:
    """The model's inputs, in the order of its views and their columns. Raises BadInput for what cannot be one."""
    at = rails.lake.snapshot() if at is None else at
    inputs: list[Feature] = []
    for view in spec.prediction.features:
        for name, kind in _columns(rails, view, at).items():
            if name not in (feature_key(view), *RESERVED):
                inputs.append(Feature(name, view, _kind(view, name, kind)))
    keys = _keys(spec)
    for feature in inputs:
        if names.is_taken(feature.name, spec, keys):
            raise BadInput(
                f"{feature.view} has a column '{feature.name}', which frames have already; rename it in dbt."
            )
    called = [feature.name.lower() for feature in inputs]
    twice = sorted({name for name in called if called.count(name) > 1})
    if twice:
        raise BadInput(
            f"The feature views of {spec.name} share {counted(len(twice), 'column')}, {', '.join(twice)}; "
            "give each its own name in dbt."
        )
    return tuple(inputs)


def build(rails: Rails, spec: Spec, start: datetime, end: datetime, as_of: datetime, at: At = None) -> pd.DataFrame:
    """One row per spine row with `start` <= prediction_time < `end`, sorted by prediction_time and key.

    Columns: key, prediction_time, the features (numeric ones as float64, NULL as NaN), and per view
    `<view>__event_time` and `<view>__available_at` of the row that was used (NULL where none could be). Columns the
    spine needs for its joins only are left out. `decided_at` follows prediction_time where `label.horizon` goes until a
    column of the spine.
    """
    at = rails.lake.snapshot() if at is None else at
    return rails.lake.connection.execute(select(rails, spec, start, end, as_of, at)).df()


def training(rails: Rails, spec: Spec, as_of: datetime, at: At = None) -> TrainingFrame:
    """The whole cohorts of the last `estimator.window` that had matured at `as_of`, with their labels, as a file.

    Those whose label is trusted (`label.trusted`) are held out. The same rows give the same bytes, hence the same name.
    Raises BadInput when no cohort has matured yet.
    """
    at = rails.lake.snapshot() if at is None else at
    window = _matured_window(spec, as_of)
    inputs = features(rails, spec, at)
    columns = ", ".join(f"_frame.{quoted(name)}" for name in (*_own(spec), *_chosen(spec, inputs)))
    label = rails.lake.relation(spec.label.table, as_of, at)
    sql = f"""
        with _frame as (
            select * from ({select(rails, spec, window.start, window.end, as_of, at)}) where {window.holds(DECIDED)}
        ),
        truth as (
            select "{spec.key}", prediction_time, label, {truth.trusted(rails, spec, "known")} as is_trusted
            from {label} as known
            where label is not null
            qualify row_number() over (
                partition by "{spec.key}", prediction_time order by event_time desc, available_at desc, label desc
            ) = 1
        )
        select _frame."{spec.key}", _frame.prediction_time,
            {spec.target.sql("truth.label", clipped=False)} as label, {columns}
        from _frame left join truth
            on _frame."{spec.key}" = truth."{spec.key}" and _frame.prediction_time = truth.prediction_time
        where truth.is_trusted is not true
        order by _frame.prediction_time, _frame."{spec.key}"
    """
    table = rails.lake.connection.execute(sql).to_arrow_table()
    labelled = table.filter(pa.compute.is_valid(table["label"]))
    if labelled.num_rows == 0:
        strange = f"select label from {label} where {spec.target.sql_outside('label')} limit 1"
        if found := rails.lake.connection.execute(strange).fetchone():
            raise BadInput(
                f"{spec.label.table} holds no label {spec.target.wrong_label}, but '{found[0]}'; mend label in the "
                f"spec of {spec.name}, or the table."
            )
        raise BadInput(
            f"No label of {spec.name} has matured by {as_of:%Y-%m-%d}: labels take {spec.label.wait}; train at a later "
            "night."
        )
    path, digest = _write(labelled, rails.settings.frames)
    return TrainingFrame(
        path=path,
        digest=digest,
        rows=labelled.num_rows,
        unlabelled=table.num_rows - labelled.num_rows,
        snapshot=at.snapshot if isinstance(at, Publication) else at,
        at=at,
        start=window.start,
        end=window.end,
        features=inputs,
    )


@dataclass(frozen=True)
class _Window:
    """Which rows of a spine have matured."""

    start: datetime
    """First prediction time that such a row may have."""
    end: datetime
    """End of their prediction times, not included."""
    decided: tuple[datetime, datetime] | None
    """First and last instant at which their truth is decided; None where their prediction times tell all."""

    def holds(self, decided_at: str) -> str:
        """SQL of whether a row of these prediction times has matured, by the SQL of when its truth is decided."""
        if self.decided is None:
            return "true"
        return f"{decided_at} between {literal(self.decided[0])} and {literal(self.decided[1])}"


def _matured_window(spec: Spec, as_of: datetime, after: datetime | None = None) -> _Window:
    """The rows that had matured at `as_of`: those of the last `estimator.window`; with `after`, those that had not
    matured at that instant."""
    last = as_of - spec.label.lag
    first = last - spec.estimator.window if after is None else after - spec.label.lag + _INSTANT
    if spec.label.until is None:
        return _Window(first, last + _INSTANT, None)
    return _Window(first - spec.label.horizon, last + _INSTANT, (first, last))


def matured(rails: Rails, spec: Spec, as_of: datetime, at: At, after: datetime | None = None) -> int:
    """How many matured labels a training frame of `as_of` would hold; with `after`, how many have matured since that
    instant, however long ago."""
    window = _matured_window(spec, as_of, after)
    counts = rails.lake.query(
        f"""
        select count(distinct (spine."{spec.key}", spine.prediction_time)) as matured
        from (
            select "{spec.key}", prediction_time, {decided_at(rails, spec, at)} as decided_at
            from {{{qualified(spec.prediction.spine)}}}
            where prediction_time >= $start and prediction_time < $end
        ) as spine
        inner join {{{qualified(spec.label.table)}}} as label
            on label."{spec.key}" = spine."{spec.key}" and label.prediction_time = spine.prediction_time
        where label.label is not null and {window.holds("spine.decided_at")}
        """,
        as_of,
        {"start": window.start, "end": window.end},
        at,
    )
    return int(counts["matured"].iloc[0])


def feature_values(
    rails: Rails, spec: Spec, entity_id: str, prediction_time: datetime, at: At = None
) -> tuple[FeatureValue, ...]:
    """One prediction's inputs, in the order of the model's features.

    Raises BadInput when the spine has no such row.
    """
    at = rails.lake.snapshot() if at is None else at
    # the spine row itself may have been written later; what the join may use is bound by the prediction time
    rows = build(rails, spec, prediction_time, prediction_time + _INSTANT, _EVER, at)
    rows = rows[rows[spec.key] == entity_id]
    if rows.empty:
        raise BadInput(
            f"{spec.prediction.spine} has no row for {entity_id} at {prediction_time.isoformat()}; "
            "check the request id."
        )
    row = rows.iloc[0]
    return tuple(
        FeatureValue(
            feature=feature.name,
            value=_plain(row[feature.name]),
            view=feature.view,
            event_time=_plain(row[f"{feature.view}__event_time"]),
            available_at=_plain(row[f"{feature.view}__available_at"]),
        )
        for feature in features(rails, spec, at)
    )


def answers_kept(rails: Rails, snapshot: int) -> frozenset[str]:
    """The feature views whose kept answers hold at `snapshot` (dbt/macros/answers.sql): they need no pruning."""
    views = _views_with_answers.setdefault(rails.lake, {})
    if snapshot not in views:
        sql = macro(transform.macro_path(rails.settings), "answers_hold", "lake", "features", snapshot)
        rows = rails.lake.connection.execute(sql).fetchall()
        views[snapshot] = frozenset(name for (name,) in rows)
    return views[snapshot]


def point_in_time_sql(macros: Path, dialect: str = "duckdb", **arguments: Any) -> str:
    """The SQL of the point-in-time join, from the dbt project's macro, for `dialect` (duckdb, or default)."""
    return macro(macros, f"{dialect}__point_in_time", **arguments)


def macro(macros: Path, name: str, *arguments: Any, **named: Any) -> str:
    """The SQL of a macro in the folder `macros` (of one of _FILES), without dbt."""
    changed = tuple((macros / file).stat().st_mtime_ns for file in _FILES)
    return str(getattr(_macros(macros, changed), name)(*arguments, **named))


def select(rails: Rails, spec: Spec, start: datetime, end: datetime, as_of: datetime, at: int | Publication) -> str:
    """SQL of what `build` gives, for whoever goes on with it in the lake's engine."""
    lake = rails.lake
    keys = _keys(spec)
    spine = _columns(rails, spec.prediction.spine, at)
    for key in (*keys, "prediction_time"):
        if key not in spine:
            raise BadInput(f"The spine {spec.prediction.spine} has no column {key}; add it in dbt.")
    shown_keys = ", ".join(map(quoted, keys))
    decided = f", {decided_at(rails, spec, at)} as {DECIDED}" if spec.label.until else ""
    parts = [
        f"""joined_0 as materialized (
            select {shown_keys}, prediction_time{decided}
            from {lake.relation(spec.prediction.spine, as_of, at)}
            where prediction_time >= {literal(start)} and prediction_time < {literal(end)}
        )"""
    ]
    inputs = features(rails, spec, at)
    age = spec.prediction.max_feature_age
    # a prediction later than what may be read of a view may use a row that, by the whole view, another row hides: its
    # answers are not kept
    pruned = {view for view in spec.prediction.features if end - _INSTANT <= _moment(view, as_of, at)}
    pruned = {view for view in pruned if view in answers_kept(rails, snapshot_of(view, at) or 0)}
    for number, view in enumerate(spec.prediction.features):
        relation = lake.relation(f"{view}__answers" if view in pruned else view, as_of, at)
        if age is not None:  # what is older than any of these rows may use hides none that they may
            relation = f"(select * from {relation} where event_time >= {literal(start - age)})"
        joined = point_in_time_sql(
            transform.macro_path(rails.settings),
            spine=f"joined_{number}",
            view=relation,
            pruned=view in pruned,
            key=feature_key(view),
            columns=[feature.name for feature in inputs if feature.view == view],
            spine_key=[spec.key, "prediction_time"],
            prefix=view,
            max_age_s=None if age is None else int(age.total_seconds()),
        )
        parts.append(f"joined_{number + 1} as materialized ({joined})")
    numbers = {feature.name for feature in inputs if feature.kind == "numeric"}
    listed = ", ".join(
        f"cast({quoted(name)} as double) as {quoted(name)}" if name in numbers else quoted(name)
        for name in (spec.key, "prediction_time", *_own(spec), *_chosen(spec, inputs))
    )
    last = f"joined_{len(spec.prediction.features)}"
    return f'with {", ".join(parts)} select {listed} from {last} order by prediction_time, "{spec.key}"'


def decided_at(rails: Rails, spec: Spec, at: At) -> str:
    """SQL of when the truth of a row of the spine is decided, from the row's columns: what `label.horizon` names, no
    earlier than the prediction and no later than its longest time. Of a day it is the last moment.

    Raises BadInput where the spine has no such column, or it tells no time.
    """
    name, longest = spec.label.until, f"to_microseconds({spec.label.horizon // _INSTANT})"
    if name is None:
        return f"prediction_time + {longest}"
    kind = _columns(rails, spec.prediction.spine, at).get(name)
    if kind is None:
        raise BadInput(f"The spine {spec.prediction.spine} has no column {name}, which label.horizon names; add it.")
    if kind not in ("DATE", "TIMESTAMP WITH TIME ZONE"):
        raise BadInput(
            f"{spec.prediction.spine}.{name}, until which label.horizon goes, is a {kind}; cast it to a date or a "
            "timestamptz in dbt."
        )
    told = f"cast(\"{name}\" + 1 as timestamptz) - interval '1 microsecond'" if kind == "DATE" else f'"{name}"'
    latest = f"prediction_time + {longest}"
    return f"greatest(prediction_time, least({told}, {latest}))"  # least knows no NULL


def cohort(rails: Rails, spec: Spec, at: At) -> str:
    """SQL of the night that names the cohort of a row of the spine: the one that covers its prediction time, or, where
    a column tells when each row is decided, that instant."""
    return f"cast({decided_at(rails, spec, at) if spec.label.until else 'prediction_time'} as date) + 1"


def _keys(spec: Spec) -> list[str]:
    """The keys that the spine has: of the entity, and of every view."""
    return list(dict.fromkeys([spec.key, *(feature_key(view) for view in spec.prediction.features)]))


def _own(spec: Spec) -> tuple[str, ...]:
    """The columns of a frame that say more of its rows than whose they are and when."""
    return (DECIDED,) if spec.label.until else ()


def _chosen(spec: Spec, inputs: Sequence[Feature]) -> list[str]:
    """The columns of a frame after key and prediction time: the features, then the two times of every view."""
    times = [f"{view}__{time}" for view in spec.prediction.features for time in ("event_time", "available_at")]
    return [*(feature.name for feature in inputs), *times]


def _moment(table: str, as_of: datetime, at: int | Publication) -> datetime:
    """The instant up to which a table is read at `as_of`."""
    until = at.until(table) if isinstance(at, Publication) else None
    return as_of if until is None else min(as_of, until)


def _is_there(rails: Rails, table: str, at: At) -> bool:
    try:
        return bool(_columns(rails, table, at))
    except BadInput:
        return False


def _columns(rails: Rails, table: str, at: At) -> dict[str, str]:
    """Column name → DuckDB type of a table as the lake held it at its own snapshot, which never changes."""
    tables, snapshot = _table_columns.setdefault(rails.lake, {}), snapshot_of(table, at)
    if (table, snapshot) not in tables:
        try:
            rows = rails.lake.connection.execute(f"describe select * from {stored(table, snapshot)}").fetchall()
        except duckdb.CatalogException:
            raise BadInput(
                f"The lake has no table '{qualified(table)}' at snapshot {snapshot}; run tiltyard features first, "
                "or mend the name."
            ) from None
        tables[table, snapshot] = {name: kind for name, kind, *_ in rows}
    return tables[table, snapshot]


_views_with_answers: WeakKeyDictionary[Lake, dict[int, frozenset[str]]] = WeakKeyDictionary()
"""Lake → snapshot → the feature views whose kept answers hold there, which never changes."""
_table_columns: WeakKeyDictionary[Lake, dict[tuple[str, int | None], dict[str, str]]] = WeakKeyDictionary()
"""Lake → (table, snapshot) → column name → DuckDB type, which never changes."""


def _kind(view: str, name: str, kind: str) -> FeatureKind:
    """How a model reads a column of this DuckDB type. Raises BadInput when no model can."""
    if kind == "BOOLEAN":
        return "boolean"
    if kind == "VARCHAR":
        return "categorical"
    if kind.startswith(_NUMERIC):
        return "numeric"
    raise BadInput(
        f"{view}.{name} is a {kind}, which no model can read; cast it to a number, a boolean or text in dbt."
    )


def _write(table: pa.Table, folder: Path) -> tuple[Path, str]:
    """The table as Parquet named by the SHA-256 of its bytes: whole, or not at all. One of that name with other
    bytes, which somebody has written into, or the disk, is made anew, and that is logged."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(None).combine_chunks(),
        sink,
        compression="zstd",
        version="2.6",
        row_group_size=131_072,
        store_schema=False,
    )
    content = sink.getvalue().to_pybytes()
    digest = hashlib.sha256(content).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest}.parquet"
    there = path.read_bytes() if path.exists() else None
    if there is not None and there != content:
        log.error("The training frame %s holds other bytes than it is named by; it is made anew.", path)
    if there != content:
        with whole(path, lasting=True) as part:
            part.write_bytes(content)
    return path, digest


def _plain(value: Any) -> Any:
    """A cell of a DataFrame as Python has it; None where it is missing."""
    if value is None or pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return value.item() if hasattr(value, "item") else value


class _Adapter:
    """Stands in for dbt's adapter where the macro files are rendered: its dispatch is not called from here."""

    @staticmethod
    def dispatch(name: str, package: str) -> Any:
        raise NotImplementedError(f"{package}.{name} is called by its dispatched name")

    @staticmethod
    def quote(name: str) -> str:
        return quoted(name)


@lru_cache(maxsize=8)
def _macros(folder: Path, changed_ns: tuple[int, ...]) -> Any:
    """The macro files as one Jinja module, in which a macro may call any other; read again when one has changed."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, extensions=["jinja2.ext.do"])
    template = environment.from_string("\n".join((folder / name).read_text(encoding="utf-8") for name in _FILES))
    return template.make_module({"adapter": _Adapter(), "return": str})
