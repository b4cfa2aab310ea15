"""The point-in-time join of two pandas frames: for every prediction the row that was known then, and nothing later.

The join is the one that builds training frames, the dbt project's macro (dbt/macros/point_in_time.sql) in DuckDB. The
package carries it beside this module, so that it is there without a checkout, too.
"""

from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from tiltyard.errors import BadInput
from tiltyard.lake import quoted
from tiltyard.prepare.frame import point_in_time_sql

__all__ = ["point_in_time_join"]

MACROS = Path(__file__).parent


def point_in_time_join(
    predictions: pd.DataFrame,
    features: pd.DataFrame,
    *,
    on: str,
    prediction_time: str = "prediction_time",
    event_time: str = "event_time",
    available_at: str = "available_at",
    max_age: timedelta | None = None,
) -> pd.DataFrame:
    """Each row of `predictions`, in its order and under its index, with the row of `features` that may be used for it.

    A row of `features` may be used when its `event_time` and its `available_at` are at or before the prediction time
    and its value of `on` is the same. Of those the latest event wins, and of one event the correction that became known
    last. A missing time is never used. With `max_age`, a row whose event lies further back counts as missing.

    The result has the columns of `predictions` and those of `features` but `on`, empty where no row may be used. The
    two times are those of the row that was used. Instants count to the microsecond.

    Raises BadInput for a column that is missing, is no instant, or stands in both frames.
    """
    times = [event_time, available_at]
    columns = [str(name) for name in features.columns if name not in (on, *times)]
    _check(predictions, features, on, prediction_time, times, columns)
    numbered = [f"feature_{number}" for number in range(len(columns))]
    sql = point_in_time_sql(
        MACROS,
        spine="prediction",
        view="feature",
        key="entity",
        columns=numbered,
        spine_key=["place"],
        prefix="used",
        max_age_s=None if max_age is None else max_age.total_seconds(),
    )
    with closing(duckdb.connect()) as connection:
        connection.execute("set TimeZone = 'UTC'")
        _read(connection, "prediction", predictions, {on: "entity", prediction_time: "prediction_time"})
        named = {on: "entity", event_time: "event_time", available_at: "available_at"}
        _read(connection, "feature", features, named | dict(zip(columns, numbered, strict=True)))
        try:
            used = connection.execute(f"select * from ({sql}) as answer order by place").df()
        except (duckdb.BinderException, duckdb.ConversionException):
            raise BadInput(f"The column '{on}' is of another type in one frame than in the other; cast it.") from None
    used = used[[*numbered, "used__event_time", "used__available_at"]]
    used.columns = pd.Index([*columns, *times])
    return pd.concat([predictions, used.set_axis(predictions.index)], axis=1)


def _check(
    predictions: pd.DataFrame,
    features: pd.DataFrame,
    on: str,
    prediction_time: str,
    times: Sequence[str],
    columns: Sequence[str],
) -> None:
    wanted = {"predictions": (predictions, [on, prediction_time]), "features": (features, [on, *times])}
    for frame_name, (frame, names) in wanted.items():
        for name in names:
            if name not in frame.columns:
                raise BadInput(f"The frame of {frame_name} has no column '{name}'; name the one that it has.")
            if name != on and not pd.api.types.is_datetime64_any_dtype(frame[name]):
                raise BadInput(
                    f"The column '{name}' of {frame_name} is {frame[name].dtype} and no instant; convert it."
                )
    zones = [predictions[prediction_time].dt.tz, *(features[name].dt.tz for name in times)]
    if len({zone is None for zone in zones}) > 1:
        raise BadInput("Some of the times have a time zone and others have none; give all of them one.")
    twice = sorted({*columns, *times} & set(map(str, predictions.columns)))
    if twice:
        raise BadInput(f"Both frames have a column '{twice[0]}'; rename it in one of them.")


def _read(connection: duckdb.DuckDBPyConnection, table: str, frame: pd.DataFrame, names: dict[str, str]) -> None:
    """A table of the frame's columns under the names that the macro is given, with the place of each row."""
    listed = []
    for name, alias in names.items():
        is_time = alias in ("prediction_time", "event_time", "available_at")
        kind = "timestamp" if is_time and frame[name].dt.tz is None else "timestamptz"
        listed.append(f"cast({quoted(name)} as {kind}) as {alias}" if is_time else f"{quoted(name)} as {alias}")
    connection.register("given", frame[list(names)].assign(place=np.arange(len(frame))))
    connection.execute(f"create temp table {table} as select {', '.join(listed)}, place from given")
    connection.unregister("given")
