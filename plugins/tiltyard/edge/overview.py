"""What the pages in Airflow show: the portfolio at a glance, and of a model the part of its page that is asked for.

All of it is read from the ledger and from the texts in force; nothing opens the lake. What is wrong with one model, or
with one part of its page, is a sentence in its place.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args
from urllib.parse import urlencode

from tiltyard import clock, reading, release
from tiltyard import rails as rails_module
from tiltyard.chronicle import lately
from tiltyard.edge import board as boards
from tiltyard.edge import (
    comparing,
    cost_page,
    course,
    feature_rows,
    incident_page,
    night_metrics,
    night_page,
    recorded,
    source_page,
    timeline,
)
from tiltyard.edge.board import Asked, Board, ModelRow
from tiltyard.edge.comparing import Comparison, VersionRow
from tiltyard.edge.cost_page import CostPage, ModelCost
from tiltyard.edge.course import CoursePoint
from tiltyard.edge.document import Document, ModelStatus
from tiltyard.edge.feature_rows import FeatureRows
from tiltyard.edge.incident_page import IncidentPage, Incidents
from tiltyard.edge.night_page import NightHead, NightPage
from tiltyard.edge.reports import find_report
from tiltyard.edge.source_page import SourcePage
from tiltyard.edge.timeline import InService, Timeline
from tiltyard.errors import TiltyardError
from tiltyard.ledger_tables import storable
from tiltyard.rails import Rails
from tiltyard.records import DriftSummary, StageRun
from tiltyard.settings import Settings
from tiltyard.spec import Spec, portfolio
from tiltyard.stages import NIGHTLY, OF_PORTFOLIO, PER_MODEL, StageName, dag_id, dag_of, recorded_as

log = logging.getLogger(__name__)
T = TypeVar("T")

SHOWN: Final[tuple[StageName, ...]] = ("features", *NIGHTLY, "fallback_audit")
"""The stages that a model's nights are shown by."""
NIGHTS = 28
"""Nights a page of them."""
ALARMS = 30
"""Nights of drift that are shown."""
FIRST_YEAR, LAST_YEAR = 1900, 2999
"""Years within which days are looked at: beyond them no night is, and before and after some there is no day."""
Part = Literal["now", "decisions", "versions", "drift", "data", "nights", "card"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
"""The parts of a model's page, in their order."""


@dataclass(frozen=True)
class ModelQuery:
    """What of a model's page somebody asks to see, as it stands in the address; empty: how it stands now."""

    part: Part = "now"
    night: date | None = None
    """The night as of which it is shown; None: the newest."""
    page: int = 1
    """Of decisions, from 1."""
    compare: tuple[int, ...] = ()
    """The versions to hold against each other."""
    on: date | None = None
    """The day of which it is asked who was in service."""
    until: date | None = None
    """The newest night of those that are listed; None: of all."""
    wrong: str | None = None
    """What of the address is no date, as a sentence."""

    @classmethod
    def of(cls, values: Mapping[str, str], compare: Collection[str] = ()) -> "ModelQuery":
        """From the parameters of an address; `compare`: every value of that name. What is no part is the first."""
        part, page = values.get("part", ""), values.get("page", "")
        dates: dict[str, date | None] = {}
        wrong = None
        for name in ("night", "on", "until"):
            text = values.get(name, "").strip()[:40]
            dates[name] = _day(text)
            if text and dates[name] is None:
                wrong = f"'{text}' is no day; write it like 2025-05-30."
        return cls(
            part=next((known for known in PARTS if known == part), "now"),
            page=int(page) if page.isdecimal() and 0 < len(page) < 5 and int(page) else 1,
            compare=comparing.numbers(",".join(compare)),
            wrong=wrong,
            **dates,
        )

    def address(self, **changes: object) -> str:
        """The same with something else, relative to the model's address. Another part begins at its first page."""
        values = {**vars(replace(self, page=1, on=None, until=None, compare=())), **changes}
        if changes.get("part", self.part) == "now":
            values["part"] = None
        shown = {name: value for name, value in values.items() if value not in (None, 1, (), "")}
        shown.pop("wrong", None)
        if not shown:
            return ""
        return "?" + urlencode(
            {name: ",".join(map(str, v)) if isinstance(v, tuple) else v for name, v in shown.items()}
        )


@dataclass(frozen=True, kw_only=True)
class DriftPart:
    """What there is to see of a model's drift."""

    rows: FeatureRows
    """Every signal of the night."""
    nights: tuple[StageRun[DriftSummary], ...]
    """The last nights that were looked at, the newest first."""


@dataclass(frozen=True, kw_only=True)
class VersionsPart:
    """What there is to see of a model's versions."""

    rows: tuple[VersionRow, ...]
    """Each of them, the newest first."""
    comparison: Comparison | None
    """Those that were chosen, side by side; None where none was."""


@dataclass(frozen=True, kw_only=True)
class CardPart:
    """What was written of a model."""

    card: str | None
    """Its card.md; None where there is none."""
    spec: str | None
    """Its spec.yaml."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the page shows of one model."""

    name: str
    """The model's name."""
    owner: str
    """Who owns the model."""
    tier: int
    """The model's tier: 1 for the highest stakes."""
    source: str
    """The source that it belongs to."""
    dags: dict[StageName, str]
    """Stage → its DAG."""
    asked: ModelQuery = ModelQuery()
    """What somebody asked to see."""
    row: ModelRow | None = None
    """How it stands now, as the portfolio has it."""
    inbox: tuple[Asked, ...] = ()
    """What of it waits for a person."""
    newest: date | None = None
    """Its newest night; None before the first."""
    beside: tuple[date | None, date | None] = (None, None)
    """The night before the one that is shown, and the one after it."""
    missing: str | None = None
    """Why the night that was asked for cannot be shown, as a sentence; None where it can."""
    status: Document | None = None
    """The model's document; None where there is a problem instead."""
    problem: str | None = None
    """Why there is no document, or no such part, as a sentence; None where there is one."""
    nights: tuple[tuple[date, dict[StageName, str]], ...] = ()
    """Nights with how each stage ended, empty where it has no record; the newest first."""
    course: tuple[CoursePoint, ...] = ()
    """What was lost, night by night."""
    plot: Path | None = None
    """Picture of the realized losses; None where none was drawn, as for the next one."""
    arrival: Path | None = None
    """Picture of how labels came."""
    latency: bool = False
    """Whether there is a picture to draw of how late rows came."""
    decisions: Timeline | None = None
    """What was decided."""
    in_service: InService | None = None
    """Who was in service on the day that was asked about."""
    versions: VersionsPart | None = None
    """Its versions."""
    drift: DriftPart | None = None
    """Its drift."""
    features: FeatureRows | None = None
    """Its features."""
    card: CardPart | None = None
    """What was written of it."""
    paused: tuple[str, ...] = ()
    """Its DAGs that are paused."""
    cost: ModelCost | None = None
    """What it costs, and whether it is worth it; None where nothing was measured."""


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What the page of the portfolio shows."""

    board: Board
    """Every model."""
    head: NightHead | None = None
    """The newest night in numbers; None before the first."""
    paused: tuple[str, ...] = field(default=())
    """Our DAGs that are paused."""


@contextmanager
def _opened(settings: Settings) -> Iterator[Rails]:
    """The rails of the release in force, without the lake; all of a page is as of one moment."""
    with (
        rails_module.opened(release.in_force(settings), lake_at_once=False) as rails,
        reading.at_once(rails.ledger.engine),
    ):
        yield rails


def board(settings: Settings) -> Board:
    """All models at a glance."""
    with _opened(settings) as rails:
        return boards.read(rails, portfolio(rails.settings), clock.now())


def metrics(settings: Settings) -> bytes:
    """What Prometheus is told of the nights."""
    with _opened(settings) as rails:
        specs = portfolio(rails.settings)
        return night_metrics.text(boards.read(rails, specs, clock.now()), night_metrics.beside(rails, specs))


def costs(settings: Settings) -> CostPage:
    """What nights have cost, and which models are worth it."""
    with _opened(settings) as rails:
        return cost_page.read(rails, portfolio(rails.settings))


def glance(settings: Settings, paused: Collection[str] = ()) -> Glance:
    """The same, with its newest night in numbers. `paused`: Airflow's DAGs that are."""
    with _opened(settings) as rails:
        specs = portfolio(rails.settings)
        found = boards.read(rails, specs, clock.now())
        ours = {dag_id(stage) for stage in OF_PORTFOLIO}
        ours |= {dag_id("features", row.source) for row in found.sources}
        ours |= {dag for spec in specs for dag in _dags(spec).values()}
        return Glance(board=found, head=night_page.head(rails, found), paused=tuple(sorted(ours & {*paused})))


def entry(settings: Settings, name: str, asked: ModelQuery | None = None, paused: Collection[str] = ()) -> Entry | None:
    """What the page of a model shows; None where the portfolio has none of that name."""
    return _of_model(settings, name, lambda rails, spec: _entry(rails, spec, asked or ModelQuery(), paused))


def decisions(settings: Settings, name: str, page: int) -> Timeline | None:
    """What was decided about a model; None where there is none of that name."""
    return _of_model(settings, name, lambda rails, spec: timeline.read(rails, spec, page))


def versions(settings: Settings, name: str) -> tuple[VersionRow, ...] | None:
    """The versions of a model; None where there is none of that name."""
    return _of_model(settings, name, lambda rails, spec: comparing.rows(rails, spec, _following(rails, spec)))


def compared(settings: Settings, name: str, numbers: tuple[int, ...]) -> Comparison | None:
    """Versions of a model side by side; None where there is none of that name."""
    return _of_model(
        settings, name, lambda rails, spec: comparing.compare(rails, spec, numbers, _following(rails, spec))
    )


def source(settings: Settings, name: str) -> SourcePage | None:
    """What there is to see of a source; None where there is none of that name."""
    with _opened(settings) as rails:
        return source_page.read(rails, portfolio(rails.settings), name)


def incident(settings: Settings, node: str) -> IncidentPage | None:
    """What there is to see of an incident's node; None where none is known."""
    if storable(node) != node:
        return None
    with _opened(settings) as rails:
        return incident_page.read(rails, node)


def incidents(settings: Settings) -> Incidents:
    """What is wrong upstream, and what was lately."""
    with _opened(settings) as rails:
        return incident_page.listed(rails)


def night(settings: Settings, text: str) -> NightPage | None:
    """What there is to see of a night; None for what is no night, or one on which nothing was done."""
    if (day := _day(text)) is None:
        return None
    with _opened(settings) as rails:
        return night_page.read(rails, portfolio(rails.settings), day)


def _day(text: str) -> date | None:
    """The day that somebody writes into an address; None for what is none, or lies where no data can be."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if FIRST_YEAR <= day.year <= LAST_YEAR else None


def _of_model(settings: Settings, name: str, read: Callable[[Rails, Spec], T]) -> T | None:
    with _opened(settings) as rails:
        spec = next((spec for spec in portfolio(rails.settings) if spec.name == name), None)
        return None if spec is None else read(rails, spec)


def _following(rails: Rails, spec: Spec) -> date:
    """The night after the model's newest: whose roles hold now."""
    newest = recorded.newest(rails, spec)
    return (newest + clock.NIGHT).date() if newest else date.max


def _dags(spec: Spec) -> dict[StageName, str]:
    dags = {stage: dag_of(stage, spec.name, spec.source) for stage in (*SHOWN, *PER_MODEL)}
    if spec.tier == 1:
        dags["promotion"] = dag_id("promotion", spec.name)
    return dags


# -- a model ----------------------------------------------------------------------------------


def _told(name: str, what: str, read: Callable[[], T]) -> T | str:
    """What is read; or why it cannot be, as a sentence: what is wrong with a model, or a part of it, hides no more."""
    try:
        return read()
    except TiltyardError as error:
        return str(error)
    except Exception as error:  # whatever it is, it is this model's; its text may hold what nobody else may read
        log.exception("The %s of %s cannot be read.", what, name)
        return f"The {what} of {name} cannot be read: {type(error).__name__}; the log says where."


def _entry(rails: Rails, spec: Spec, asked: ModelQuery, paused: Collection[str]) -> Entry:
    dags = _dags(spec)
    bare = Entry(name=spec.name, owner=spec.owner, tier=spec.tier, source=spec.source, dags=dags, asked=asked,
                 paused=tuple(sorted({*dags.values()} & {*paused})))  # fmt: skip
    glanced = _told(spec.name, "state", lambda: boards.read(rails, [spec], clock.now()))
    if isinstance(glanced, Board):
        own = tuple(item for item in glanced.inbox if spec.name in item.models)
        bare = replace(bare, row=glanced.models[0], inbox=own)
    newest = recorded.newest(rails, spec)
    bare = replace(bare, newest=newest.date() if newest else None)
    as_of, night = newest, asked.night or (newest.date() if newest else None)
    if asked.wrong:
        return replace(bare, missing=asked.wrong)
    if night:
        bare = replace(bare, beside=_beside(rails, spec, night))
    if asked.night:
        if not _was_worked_on(rails, spec, asked.night):
            return replace(bare, missing=_missing(spec, asked.night, bare.newest))
        as_of = clock.midnight(asked.night)
    document = _told(spec.name, "status", lambda: recorded.status(rails, spec, as_of if asked.night else None))
    if isinstance(document, str):
        return replace(bare, problem=document)
    bare = replace(bare, status=document)
    shown = _told(spec.name, asked.part, lambda: _part(rails, spec, bare, document, night))
    return replace(bare, problem=shown) if isinstance(shown, str) else shown


def _part(rails: Rails, spec: Spec, bare: Entry, document: Document, night: date | None) -> Entry:
    """The page with the part that is asked for."""
    asked = bare.asked
    if asked.part == "decisions":
        live = timeline.in_service(rails, spec.name, asked.on) if asked.on else None
        return replace(bare, decisions=timeline.read(rails, spec, asked.page), in_service=live)
    if asked.part == "card":
        return replace(bare, card=CardPart(card=_text(rails, spec, "card.md"), spec=_text(rails, spec, "spec.yaml")))
    if not isinstance(document, ModelStatus) or night is None:
        return bare
    following = (document.as_of + clock.NIGHT).date()
    if asked.part == "versions":
        chosen = comparing.compare(rails, spec, asked.compare, night) if asked.compare else None
        return replace(bare, versions=VersionsPart(rows=comparing.rows(rails, spec, following), comparison=chosen))
    if asked.part == "nights":
        return replace(bare, nights=_nights(rails, spec, asked.until or night))
    if asked.part == "data":
        return replace(bare, features=feature_rows.read(rails, spec, document, night), latency=bool(document.latency))
    if asked.part == "drift":
        runs = rails.ledger.runs_since(DriftSummary, {spec.name: lately(night, ALARMS)})[spec.name]
        looked = tuple(run for run in reversed(runs) if run.night <= night)
        return replace(bare, drift=DriftPart(rows=feature_rows.read(rails, spec, document, night), nights=looked))
    reports = rails.settings.reports
    return replace(
        bare,
        cost=cost_page.of_model(rails, portfolio(rails.settings), spec),
        course=course.read(rails, spec, document),
        plot=find_report(reports, f"realized/{spec.name}.png"),
        arrival=find_report(reports, f"arrival/{spec.name}.png"),
    )


def _nights(rails: Rails, spec: Spec, until: date) -> tuple[tuple[date, dict[StageName, str]], ...]:
    """The nights up to one, with how each stage ended."""
    since = lately(until, NIGHTS)
    ends = {}
    for stage in SHOWN:
        name = recorded_as(stage, spec.name, spec.source)
        ends[stage] = rails.ledger.ends(stage, {name: since}, until=until)[name]
    days = sorted({day for of_stage in ends.values() for day in of_stage}, reverse=True)
    return tuple(
        (day, {stage: ends[stage][day].status if day in ends[stage] else "" for stage in SHOWN}) for day in days
    )


def _was_worked_on(rails: Rails, spec: Spec, night: date) -> bool:
    return any(rails.ledger.stage_status(stage, spec.name, night) for stage in NIGHTLY)


def _beside(rails: Rails, spec: Spec, night: date) -> tuple[date | None, date | None]:
    """The model's nights next to one: within a month, since those of a model follow each other."""
    ends = rails.ledger.ends("shadow", {spec.name: lately(night, 31)}, until=night + (night - lately(night, 31)))
    days = ends[spec.name]
    return max((day for day in days if day < night), default=None), min(
        (day for day in days if day > night), default=None
    )


def _missing(spec: Spec, night: date, newest: date | None) -> str:
    there = f"its newest night is that of {newest}" if newest else "it has no night yet"
    return f"Nothing was done for {spec.name} on the night of {night}: {there}."


def _text(rails: Rails, spec: Spec, name: str) -> str | None:
    """A file of a model's folder, of the release in force; None where there is none."""
    path = rails.settings.models / spec.name / name
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
