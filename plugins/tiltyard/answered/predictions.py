"""The answers of a night as a table for whoever uses them: a row per row of the spine, with who gave it and why.

The same answers make the same bytes: rows are in the order of their keys, and nothing of the clock is in them.
"""

from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.files import whole
from tiltyard.lake import text
from tiltyard.rails import Rails
from tiltyard.records import ShadowSummary
from tiltyard.spec import OutputFormat
from tiltyard.tables import PREDICTION
from tiltyard.target import YES_OR_NO, Target
from tiltyard.words import counted

COLUMNS = {
    "model": "varchar",
    "night": "date",
    "entity_id": "varchar",
    "prediction_time": "timestamptz",
    "score": "double",
    "version": "integer",
    "tier": "varchar",
    "reason": "varchar",
    "request_id": "varchar",
}
"""Column → DuckDB type, in their order; those of `Target.answered` stand behind. `version` is NULL where the safe
default answered; `tier` says who answered, `reason` why it was not the champion."""
_FORMATS: dict[OutputFormat, str] = {"csv": "format csv, header", "parquet": "format parquet, compression zstd"}


def nights(rails: Rails, model: str) -> set[date]:
    """The nights of a model that have answers: those that were scored, and the one whose hours are being answered."""
    hours = rails.ledger.hours("model", [model]).values()
    return rails.ledger.finished("shadow", model) | {clock.night_of(hour.as_of) for hour in hours}


def newest_night(rails: Rails, model: str) -> date:
    """The newest night that has answers. Raises BadInput where none has."""
    there = nights(rails, model)
    if not there:
        raise BadInput(f"No night of {model} is scored yet; tiltyard status {model} says what comes first.")
    return max(there)


def require_scored(rails: Rails, model: str, night: date) -> None:
    """Raises BadInput for a night that has no answers, naming the newest that has."""
    there = nights(rails, model)
    if night not in there:
        newest = f"its newest scored night is {max(there)}" if there else "no night of it is scored yet"
        raise BadInput(f"{model} has no answers of {night}: {newest}; tiltyard status {model} says how it stands.")


def types(rows: pa.Table) -> dict[str, str]:
    """Column → DuckDB type, of answers as `of_night` gave them."""
    more = {name: "varchar" for name in rows.column_names if name not in COLUMNS}
    return {**COLUMNS, **more}


def of_night(rails: Rails, model: str, night: date, target: Target = YES_OR_NO) -> pa.Table:
    """The answers of a night that was scored, by entity and time; none where its spine had no rows. Of a night whose
    hours are being answered those that there are so far. `target`: the kind of the model's label.

    Raises BadInput for a night that was not, and for one whose answers are in the lake no more.
    """
    require_scored(rails, model, night)
    more = "".join(f", {expression} as {name}" for name, expression in target.answered.items())
    sql = f"""
        select model, night, entity_id, prediction_time, score, version, tier, tier_reason as reason, request_id{more}
        from {{{PREDICTION}}} where model = $model and night = $night and tier <> 'shadow'
        order by entity_id, prediction_time
    """
    as_of = clock.midnight(night)
    rails.lake.ensure(PREDICTION)
    found = rails.lake.connection.execute(rails.lake.sql(sql, as_of), {"model": model, "night": night})
    rows = found.to_arrow_table()
    run = rails.ledger.stage_run(ShadowSummary, model, night)
    if not rows.num_rows and run is not None and run.summary.rows:
        raise BadInput(
            f"The {counted(run.summary.rows, 'answer')} of {model} of {night} are in the lake no more: "
            "TILTYARD_LAKE_RETENTION keeps them for a shorter time; name a newer night."
        )
    return rows


def write(connection: duckdb.DuckDBPyConnection, rows: pa.Table, target: str, kind: OutputFormat) -> None:
    """Write rows to a file, or to an address that the connection may write to. Raises duckdb.Error."""
    connection.execute("set TimeZone = 'UTC'")
    connection.register("_rows", rows)
    try:
        connection.execute(f"copy (from _rows) to {text(target)} ({_FORMATS[kind]})")
    finally:
        connection.unregister("_rows")


def save(rows: pa.Table, path: Path, kind: OutputFormat) -> None:
    """Write rows to a local file, whole or not at all. Raises BadInput where its place cannot be taken."""
    try:
        with whole(path) as part, duckdb.connect(config={"threads": 1}) as connection:
            write(connection, rows, str(part), kind)
    except (OSError, duckdb.IOException) as error:
        why = (isinstance(error, OSError) and error.strerror) or str(error).splitlines()[0]
        raise BadInput(f"{path} cannot be written ({why}); name another place.") from None
