"""The auditor for a pandas frame instead of a file."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from tiltyard.leak.audit import Audit, audit

__all__ = ["audit_frame"]


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

    The result's `path` is a name and no file. Raises BadInput for whatever cannot be judged at all.
    """
    with tempfile.TemporaryDirectory(prefix="tiltyard-audit-") as folder:
        path, log = Path(folder, "frame.parquet"), Path(folder, "history.parquet")
        frame.to_parquet(path, index=False)
        if history is not None:
            history.to_parquet(log, index=False)
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
    return replace(result, path=Path(path.name))
