"""A report that somebody opens: what lies under `settings.reports`, and what is drawn when it is first asked for.

Drawn when asked for are the drift page of a night and the picture of a model's latency: they cost seconds of a
processor, a night of a hundred models would pay for hundreds of them, and hardly one is looked at. Each is drawn in a
process of its own, one at a time, so that the API server keeps neither Evidently nor matplotlib in memory.
"""

import json
import logging
import os
import re
import subprocess
import sys
from contextlib import closing
from datetime import date
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from tiltyard.edge.airflow_settings import tiltyard_env
from tiltyard.ledger import Ledger
from tiltyard.settings import Settings

log = logging.getLogger(__name__)

PATIENCE_S = 120
"""How long a picture may take, on a machine that is busy with a night."""
_DRIFT = re.compile(r"drift/([a-z][a-z0-9_]*)/(\d{4}-\d{2}-\d{2})\.html")
_LATENCY = re.compile(r"latency/([a-z][a-z0-9_]*)\.png")
_turn = Lock()


def opened(settings: Settings, path: str) -> Path | None:
    """The file (or folder without an index.html) at `path`, drawn now where it is missing or its data is newer; None
    for all that is not there, cannot be drawn, or lies elsewhere."""
    with _turn:
        if drawing := _drawing(settings, path):
            _draw(settings, drawing)
    return find_report(settings.reports, path)


def _drawing(settings: Settings, path: str) -> list[str] | None:
    """Module and arguments of what draws the report; None where it is not drawn here, needs no drawing, or there is
    nothing to draw."""
    present = find_report(settings.reports, path)
    if match := _DRIFT.fullmatch(path):
        model, night = match.groups()
        return None if present or not _was_compared(settings, model, night) else ["tiltyard.govern.page", model, night]
    if match := _LATENCY.fullmatch(path):
        newest = _newest_night(settings)
        if newest is None or (present and present.stat().st_mtime >= newest.recorded_at):
            return None
        return ["tiltyard.prepare.embargo", match[1], str(newest.night)]
    return None


def _was_compared(settings: Settings, model: str, night: str) -> bool:
    """Whether drift has held the model against its training on this night."""
    try:
        day = date.fromisoformat(night)
    except ValueError:
        return False
    with closing(Ledger(settings)) as ledger:
        finding = ledger.finding(model, day)
    return finding is not None and finding.report is not None


class _Newest(NamedTuple):
    night: date
    """The night that was published last."""
    recorded_at: float
    """When it was, in epoch seconds."""


def _newest_night(settings: Settings) -> _Newest | None:
    with closing(Ledger(settings)) as ledger:
        newest = ledger.newest_published()
    return _Newest(newest.night, newest.recorded_at.timestamp()) if newest and newest.recorded_at else None


def _draw(settings: Settings, drawing: list[str]) -> None:
    """Let a process of its own draw; what keeps it from that is in the log, and there is no report."""
    command = [sys.executable, "-m", *drawing]
    try:
        done = subprocess.run(
            command, env=os.environ | tiltyard_env(settings), capture_output=True, text=True, timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        log.warning("%s took more than %d s and was ended", " ".join(drawing), PATIENCE_S)
        return
    if done.returncode:
        log.warning("%s drew nothing: %s", " ".join(drawing), done.stderr.strip()[-500:])


def find_report(reports: Path, path: str) -> Path | None:
    """The file (or folder without an index.html) at `path` under `reports`; None for all that lies elsewhere."""
    root = reports.resolve()
    try:
        file = (root / path).resolve()
        if not file.is_relative_to(root) or any(part.startswith(".") for part in file.relative_to(root).parts):
            return None
        index = file / "index.html"
        return index if index.is_file() else file if file.exists() else None
    except (OSError, ValueError):  # a name too long, or with a NUL in it
        return None


def entries(folder: Path) -> list[str]:
    """What a person is shown of a folder of reports: its files and folders, and the pages that opening draws."""
    names = {f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir() if path.name[0] != "."}
    if folder.parent.name == "drift":
        kept = [folder / name for name in names if name.endswith(".json")]
        names |= {path.with_suffix(".html").name for path in kept if json.loads(path.read_text()).get("report")}
    return sorted(names, reverse=True)  # they begin with dates: the newest first
