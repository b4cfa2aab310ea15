"""What the pages in Airflow show: the portfolio at a glance, and of a model its document, nights, pictures, events."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tiltyard import clock, release
from tiltyard import rails as rails_module
from tiltyard.answered import delivery
from tiltyard.edge import night_metrics, status
from tiltyard.edge.board import Board
from tiltyard.edge.board import read as board_of
from tiltyard.edge.document import Document, ModelStatus
from tiltyard.edge.reports import find_report
from tiltyard.rails import Rails
from tiltyard.records import Event
from tiltyard.settings import Settings
from tiltyard.spec import Spec, portfolio
from tiltyard.stages import NIGHTLY, StageName, dag_of, recorded_as

SHOWN: tuple[StageName, ...] = ("features", *NIGHTLY)
"""The stages that a model's nights are shown by."""
NIGHTS = 7
"""Number of nights that are shown."""
EVENTS = 5
"""Number of events that are shown."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the page shows of one model."""

    name: str
    """The model's name."""
    owner: str
    """Who owns the model."""
    tier: int
    """The model's tier: 1 for the highest stakes."""
    dags: dict[StageName, str]
    """Stage → its DAG."""
    nights: tuple[tuple[date, dict[StageName, str]], ...] = ()
    """The newest nights with how each stage ended, empty where it has no record; the newest first."""
    plot: Path | None = None
    """Picture of the realized losses; None where none was drawn, as for the next one."""
    arrival: Path | None = None
    """Picture of how labels came."""
    latency: bool = False
    """Whether there is a picture to draw of how late rows came."""
    events: tuple[Event, ...] = ()
    """The newest events, the newest last."""
    status: Document | None = None
    """The model's document; None where there is a problem instead."""
    problem: str | None = None
    """Why there is no document, as a sentence; None where there is one."""


def board(settings: Settings) -> Board:
    """All models at a glance."""
    settings = release.in_force(settings)
    with rails_module.opened(settings) as rails:
        return board_of(rails, portfolio(settings), clock.now())


def metrics(settings: Settings) -> bytes:
    """What Prometheus is told of the nights."""
    settings = release.in_force(settings)
    with rails_module.opened(settings) as rails:
        specs = portfolio(settings)
        return night_metrics.text(board_of(rails, specs, clock.now()), night_metrics.beside(rails, specs))


def entry(settings: Settings, name: str) -> Entry | None:
    """What the page of a model shows; None where the portfolio has none of that name."""
    settings = release.in_force(settings)
    spec = next((spec for spec in portfolio(settings) if spec.name == name), None)
    if spec is None:
        return None
    with rails_module.opened(settings) as rails:
        return _entry(rails, spec)


def _entry(rails: Rails, spec: Spec) -> Entry:
    reports = rails.settings.reports
    statuses = {
        stage: rails.ledger.stage_statuses(stage, recorded_as(stage, spec.name, spec.source)) for stage in SHOWN
    }
    nights = sorted({night for of_stage in statuses.values() for night in of_stage}, reverse=True)[:NIGHTS]
    told = status.status_or_reason(rails, spec)
    document, problem = (None, told) if isinstance(told, str) else (told, None)
    return Entry(
        name=spec.name,
        owner=spec.owner,
        tier=spec.tier,
        dags={stage: dag_of(stage, spec.name, spec.source) for stage in SHOWN},
        nights=tuple((night, {stage: statuses[stage].get(night, "") for stage in SHOWN}) for night in nights),
        plot=find_report(reports, f"realized/{spec.name}.png"),
        latency=isinstance(document, ModelStatus) and bool(document.latency),
        arrival=find_report(reports, f"arrival/{spec.name}.png"),
        events=tuple(delivery.remarkable(rails.ledger.events(spec.name))[-EVENTS:]),
        status=document,
        problem=problem,
    )
