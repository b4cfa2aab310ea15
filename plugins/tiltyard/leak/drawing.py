"""The sample that is weighed of anybody's table, however large: whole entities, drawn by hash, and their log.

The same file gives the same sample.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd

from tiltyard.errors import BadInput
from tiltyard.lake import quoted
from tiltyard.leak import tabular
from tiltyard.leak.case import Sample
from tiltyard.leak.engine import first_row, is_readable
from tiltyard.leak.label import AuditedLabel
from tiltyard.leak.roles import ColumnRoles
from tiltyard.leak.tabular import AuditedTable

SAMPLE_ROWS = 100_000
"""Rows of a sample at most."""
SAMPLE_CELLS = 12_000_000
"""A wide table is sampled thinner, to stay within memory: rows × columns."""
FEW_ENTITIES = 30
"""A sample of fewer whole entities stands for nothing; rows are drawn instead."""
HISTORY_ROWS = 1_000_000
"""Rows of a log at most, the oldest first."""
_BUCKETS = 65_536


def draw(
    connection: duckdb.DuckDBPyConnection,
    table: AuditedTable,
    roles: ColumnRoles,
    features: Sequence[str],
    label: AuditedLabel,
) -> tuple[Sample, list[str]]:
    """Labelled rows with a prediction time: all of them, or whole entities by hash, or rows by hash; and notes."""
    usable = f"{label.sql} is not null and {quoted(roles.prediction_time)} is not null"
    (total,) = first_row(connection, f"select count(*) from {table.relation} where {usable}")
    limit = max(1_000, min(SAMPLE_ROWS, SAMPLE_CELLS // len(table.columns)))
    condition, notes = "true", []
    if total > limit:
        whole = _whole_entities(connection, table, roles.entity, usable, limit) if roles.entity else None
        if roles.entity and whole is None:
            notes.append(
                f"{roles.entity}: the entities are too large for a sample of whole ones; the statistics see single "
                "rows of them."
            )
        share = limit / total * (1 - 3 / limit**0.5)
        condition = whole or f"hash({quoted(table.row_number)}) <= {int(share * 2**64)}::ubigint"
    columns = [name for name in (roles.entity, roles.label_time) if name]
    columns += [column for column in features if column not in columns]
    shown = [f"({label.sql})::double as {quoted(label.column)}", quoted(roles.prediction_time)]
    shown += [quoted(column) for column in columns]
    order = [quoted(roles.prediction_time), *([quoted(roles.entity)] if roles.entity else []), quoted(table.row_number)]
    frame = connection.execute(
        f"select {', '.join(shown)} from {table.relation} where {usable} and {condition} order by {', '.join(order)}"
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
    return sample, notes


def _whole_entities(
    connection: duckdb.DuckDBPyConnection, table: AuditedTable, entity: str, usable: str, limit: int
) -> str | None:
    """Condition for the entities of the first hash buckets that fit into `limit` rows; None when too few do."""
    bucket = f"(hash({quoted(entity)}) // {2**64 // _BUCKETS}::ubigint)"
    filled = f"{usable} and {quoted(entity)} is not null"
    counts = connection.execute(
        f"select {bucket}, count(*) from {table.relation} where {filled} group by 1 order by 1"
    ).fetchall()
    rows = buckets = 0
    for place, count in counts:
        if rows + count > limit:
            break
        rows, buckets = rows + count, place + 1
    condition = f"{bucket} < {buckets}"
    (entities,) = first_row(
        connection, f"select count(distinct {quoted(entity)}) from {table.relation} where {filled} and {condition}"
    )
    return condition if entities >= FEW_ENTITIES else None


def with_log(
    connection: duckdb.DuckDBPyConnection, path: Path, folder: Path, roles: ColumnRoles, sample: Sample
) -> tuple[Sample, list[str]]:
    """The sample with the log of its entities, in the order of its times; and notes.

    Raises BadInput when file and log have no entity in common.
    """
    assert roles.entity is not None and roles.history_as_of is not None
    times = {roles.history_as_of: roles.words["history_as_of"]}
    columns = times | {roles.entity: roles.words["entity"]}
    table = tabular.table(
        connection, path, folder, times=times, columns=columns, moment=roles.history_as_of, name="history"
    )
    entity, moment = quoted(roles.entity), quoted(roles.history_as_of)
    names = [column for column, kind in table.columns.items() if is_readable(kind)]
    entities = pd.DataFrame({"entity": sample.frame[roles.entity].dropna().astype(str).unique()})
    connection.register("sampled", entities)
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
            f"{roles.words['history']}: {path.name} and the frame have no '{roles.entity}' in common; do they tell of "
            "the same ones?"
        )
    logged = replace(sample, history=_zoned(log), history_as_of=roles.history_as_of)
    return logged, [f"{path.name}: {note}" for note in table.notes]


def _zoned(frame: pd.DataFrame) -> pd.DataFrame:
    """Every time as UTC; those without a zone count as that."""
    for column in frame.columns:
        if pd.api.types.is_datetime64_any_dtype(frame[column]):
            frame[column] = pd.to_datetime(frame[column], utc=True)
    return frame
