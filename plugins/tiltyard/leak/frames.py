"""The auditor for a pandas frame instead of a file."""

import io
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from tiltyard import arguments
from tiltyard.errors import BadInput
from tiltyard.leak.audit import Audit, audit

__all__ = ["audit_frame"]

_UNTYPED = (TypeError, ValueError, OverflowError, NotImplementedError)
"""What the errors of PyArrow are of when a column has no type there."""


def audit_frame(
    frame: pd.DataFrame,
    *,
    label: str,
    prediction_time: str,
    entity: str | None = None,
    label_time: str | None = None,
    available_at: Mapping[str, str] | None = None,
    planned: Iterable[str] = (),
    ignore: Iterable[str] = (),
    history: pd.DataFrame | None = None,
    history_as_of: str | None = None,
) -> Audit:
    """What `audit` says of the frame. Its arguments mean the same; `history` is a frame, too.

    A length of time is read as seconds, and a column of several kinds of values as text. The result's `path` is a name
    and no file. Raises BadInput for whatever cannot be judged at all.
    """
    with tempfile.TemporaryDirectory(prefix="tiltyard-audit-") as folder:
        # their names stand in sentences
        path, log = Path(folder, "the frame"), Path(folder, "the history")
        notes = _write(frame, "frame", path)
        if history is not None:
            notes += [f"the history: {note}" for note in _write(history, "history", log)]
        result = audit(
            path,
            label=label,
            prediction_time=prediction_time,
            entity=entity,
            label_time=label_time,
            available_at=available_at,
            planned=planned,
            ignore=ignore,
            history=log if history is not None else None,
            history_as_of=history_as_of,
        )
    return replace(result, path=Path("frame"), notes=(*notes, *result.notes))


def _write(frame: pd.DataFrame, argument: str, path: Path) -> list[str]:
    """Write the frame as Parquet; notes on the columns that have no type there.

    Raises BadInput for what is no frame, or an empty one.
    """
    arguments.check_frame(frame, argument)
    arguments.check_in_sql(frame.columns, argument)
    if frame.empty:
        raise BadInput(f"{argument} has no {'rows' if len(frame.columns) else 'columns'}.")
    table, notes = frame.copy(deep=False), []
    for name in frame.columns:
        if pd.api.types.is_timedelta64_dtype(frame[name]):
            table[name] = frame[name].dt.total_seconds()
            notes.append(f"{name}: its lengths of time were read as seconds.")
    try:
        table.to_parquet(path, index=False)
    except _UNTYPED:
        for name in frame.columns:
            if not _has_type(table[[name]]):
                table[name] = frame[name].map(_text, na_action="ignore").astype(object)
                notes.append(f"{name}: its values are of several kinds, or of one that no file has; read as text.")
        table.to_parquet(path, index=False)
    return notes


def _text(value: object) -> str:
    """A value as text that a file can hold: half of a surrogate pair, which is no character, as `\\ud800`."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _has_type(column: pd.DataFrame) -> bool:
    """A frame of one column can be written."""
    try:
        column.to_parquet(io.BytesIO(), index=False)
    except _UNTYPED:
        return False
    return True
