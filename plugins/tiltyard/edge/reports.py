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
from collections.abc import Mapping
from contextlib import closing
from datetime import date
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple, cast

from tiltyard.edge.airflow_settings import tiltyard_env
from tiltyard.ledger import Ledger
from tiltyard.settings import Settings

log = logging.getLogger(__name__)

PATIENCE_S = 120
"""How long a picture may take, on a machine that is busy with a night."""
Mark = Literal["", "good", "wait", "bad"]
"""How a page stands, by the colour of its head; empty where it says nothing."""
VERDICTS: Mapping[str | None, Mark] = {"steady": "good", "alarm": "bad", "broken": "bad", "no_reference": ""}
"""What drift says of a night → how its page stands."""
LOOKED_AT = 5
"""Pages of a folder that are looked at for how it stands."""
HEAD_BYTES = 12_000
"""The head of a page stands within so many bytes, after its style."""
_HEAD = re.compile(rb"<header class=(good|wait|bad)>")
_DRIFT = re.compile(r"drift/([a-z][a-z0-9_]*)/(\d{4}-\d{2}-\d{2})\.html")
_LATENCY = re.compile(r"latency/([a-z][a-z0-9_]*)\.png")
_turn = Lock()


def opened(settings: Settings, path: str) -> Path | None:
    """The file (or folder without an index.html) at `path`, drawn now where it is missing or its data is newer; None
    for all that is not there, cannot be drawn, or lies elsewhere."""
    if _drawing(settings, path):  # what is there already waits for nobody's drawing
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


class Entry(NamedTuple):
    """What a folder of reports holds."""

    name: str
    """Its name; a folder's ends in a slash."""
    mark: Mark
    """How it stands, by its page; of a folder, by its newest."""


def entries(folder: Path) -> list[Entry]:
    """What a person is shown of a folder of reports: its files and folders, and the pages that opening draws. They
    begin with dates: the newest first."""
    names = {f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir() if path.name[0] != "."}
    marks: dict[str, Mark] = {}
    if folder.parent.name == "drift":
        for path in [folder / name for name in names if name.endswith(".json")]:
            kept = json.loads(path.read_text())
            if kept.get("report"):
                marks[path.with_suffix(".html").name] = VERDICTS.get(kept.get("verdict"), "")
    drawn = {name: _mark(folder / name) for name in names if name not in marks}
    return [Entry(name, mark) for name, mark in sorted((drawn | marks).items(), reverse=True)]


def _mark(path: Path) -> Mark:
    """How a page stands, as its head says; of a folder, its newest page that says it."""
    if path.is_dir():
        newest = sorted((page for page in path.iterdir() if page.name[0] != "."), reverse=True)[:LOOKED_AT]
        return next((mark for page in newest if (mark := _mark(page))), "")
    if path.suffix != ".html":
        return ""
    with path.open("rb") as file:
        found = _HEAD.search(file.read(HEAD_BYTES))
    return cast(Mark, found[1].decode()) if found else ""
