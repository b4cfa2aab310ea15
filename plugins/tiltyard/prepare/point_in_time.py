"""The point-in-time join of two pandas frames: for every prediction the row that was known then, and nothing later.

The join is the one that builds training frames, the dbt project's macro (dbt/macros/point_in_time.sql) in DuckDB. The
package carries it beside this module, so that it is there without a checkout, too.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from tiltyard import arguments, clock
from tiltyard.errors import BadInput
from tiltyard.leak.engine import nearest
from tiltyard.prepare.frame import point_in_time_sql

__all__ = ["point_in_time_join"]

MACROS = Path(__file__).parent


def point_in_time_join(
    predictions: pd.DataFrame,
    features: pd.DataFrame,
    *,
    on: str | Sequence[str],
    prediction_time: str = "prediction_time",
    event_time: str = "event_time",
    available_at: str = "available_at",
    max_age: timedelta | None = None,
) -> pd.DataFrame:
    """Each row of `predictions`, in its order and under its index, with the row of `features` that may be used for it.

    A row of `features` may be used when its `event_time` and its `available_at` are at or before the prediction time
    and its value of `on` is the same; of several columns, all of them. Of those the latest event wins, and of one event
    the correction that became known last. A missing time, and a missing value of `on`, is never used. With `max_age`, a
    row whose event lies further back counts as missing.

    The result has the columns of `predictions` and those of `features` but `on`, empty where no row may be used. The
    two times are those of the row that was used. Instants count to the microsecond.

    Raises BadInput for what is no frame, for a column that is missing, is no instant, or stands in both frames.
    """
    keys = (on,) if isinstance(on, str) else arguments.names(on, "on")
    times = [event_time, available_at]
    arguments.check_frame(predictions, "predictions")
    arguments.check_frame(features, "features")
    columns = [name for name in features.columns if name not in (*keys, *times)]
    _check(predictions, features, keys, prediction_time, times, columns)
    if max_age is not None and (not isinstance(max_age, timedelta) or not timedelta() <= max_age <= clock.LONGEST):
        raise BadInput(f"max_age is a length of time, like datetime.timedelta(days=2), not {max_age!r}.")
    sql = point_in_time_sql(
        MACROS,
        spine="prediction",
        view="feature",
        key="entity",
        columns=["row"],
        spine_key=["place"],
        prefix="used",
        max_age_s=None if max_age is None else max_age.total_seconds(),
    )
    parts = {name: f"key_{number}" for number, name in enumerate(keys)}
    for name in keys:
        whole = {_is_whole(predictions[name]), _is_whole(features[name])}
        if whole == {True, False}:  # 2**53 + 1 would be the float 2**53
            raise BadInput(f"The column '{name}' is of another type in one frame than in the other; cast it.")
    with closing(duckdb.connect()) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("set enable_progress_bar_print = false")
        _read(connection, "prediction", "place", predictions, {**parts, prediction_time: "prediction_time"}, len(keys))
        named = parts | {event_time: "event_time", available_at: "available_at"}
        _read(connection, "feature", "row", features, named, len(keys))
        for name, part in parts.items():
            try:
                connection.execute(f"from prediction where {part} in (select {part} from feature) limit 1")
            except (duckdb.BinderException, duckdb.ConversionException):
                raise BadInput(
                    f"The column '{name}' is of another type in one frame than in the other; cast it."
                ) from None
        used = connection.execute(f"select * from ({sql}) as answer order by place").df()
    # the values themselves never pass through SQL: whatever type they have, they come back as they were
    values = features[columns].reset_index(drop=True).reindex(used["row"].astype("Int64").fillna(-1).astype("int64"))
    moments = used[["used__event_time", "used__available_at"]].set_axis(list(times), axis=1)
    parts_of_answer = (values.set_axis(predictions.index), moments.set_axis(predictions.index))
    return pd.concat([predictions, *parts_of_answer], axis=1)


def _check(
    predictions: pd.DataFrame,
    features: pd.DataFrame,
    keys: Sequence[str],
    prediction_time: str,
    times: Sequence[str],
    columns: Sequence[str],
) -> None:
    if not keys:
        raise BadInput("on names no column; name the one, or those, that both frames have in common.")
    wanted = {"predictions": (predictions, [*keys, prediction_time]), "features": (features, [*keys, *times])}
    for frame_name, (frame, names) in wanted.items():
        for name in names:
            arguments.check_name(name, "A column")
            if names.count(name) > 1:
                raise BadInput(
                    f"The column '{name}' of {frame_name} is named twice; each part has a column of its own."
                )
            if name not in frame.columns:
                raise BadInput(
                    f"The frame of {frame_name} has no column '{name}'{nearest(name, frame.columns)}; name one that it "
                    "has."
                )
            if name not in keys and not pd.api.types.is_datetime64_any_dtype(frame[name]):
                raise BadInput(
                    f"The column '{name}' of {frame_name} is {frame[name].dtype} and no instant; convert it."
                )
        mixed = next(
            (name for name in frame.columns if name in (*names, *columns) and arguments.mixed(frame[name])), None
        )
        if mixed:
            raise BadInput(f"The column '{mixed}' of {frame_name} holds values of several kinds; cast it to one.")
    zones = [predictions[prediction_time].dt.tz, *(features[name].dt.tz for name in times)]
    if len({zone is None for zone in zones}) > 1:
        raise BadInput("Some of the times have a time zone and others have none; give all of them one.")
    twice = sorted({*columns, *times} & set(predictions.columns))
    if twice:
        raise BadInput(f"Both frames have a column '{twice[0]}'; rename it in one of them.")


def _is_whole(values: "pd.Series[Any]") -> bool | None:
    """Whether a column holds whole numbers; None where it holds no numbers."""
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        return None
    return pd.api.types.is_integer_dtype(values)


def _read(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    place: str,
    frame: pd.DataFrame,
    names: Mapping[str, str],
    keys: int,
) -> None:
    """A table of the frame's columns under the names that the macro is given, with the place of each row.

    Its `entity` is what the `keys` columns key_0, key_1, … hold together; NULL where one of them is missing.
    """
    parts = [f"key_{number}" for number in range(keys)]
    known = " and ".join(f"{part} is not null" for part in parts)
    entity = (
        f"case when {known} then struct_pack({', '.join(f'{part} := {part}' for part in parts)}) end"
        if keys > 1
        else parts[0]
    )
    listed = []
    for name, alias in names.items():
        is_time = alias in ("prediction_time", "event_time", "available_at")
        kind = "timestamp" if is_time and frame[name].dt.tz is None else "timestamptz"
        listed.append(f"cast({alias} as {kind}) as {alias}" if is_time else alias)
    # under names of our own: to DuckDB x and X are one
    given = frame[list(names)].set_axis(list(names.values()), axis=1).assign(**{place: np.arange(len(frame))})
    try:
        connection.register("given", given)
        connection.execute(
            f"create temp table {table} as select *, {entity} as entity "
            f"from (select {', '.join(listed)}, {place} from given)"
        )
    except duckdb.Error as error:  # of a type, or with a value, that the engine does not know
        named = ", ".join(f"'{name}' ({frame[name].dtype})" for name, alias in names.items() if alias in parts)
        said = str(error).strip().splitlines()[0].rstrip(".")
        raise BadInput(f"Rows of {table}s cannot be found by {named}: {said}; cast it, say to text.") from None
    connection.unregister("given")
