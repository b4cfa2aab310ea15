"""The portfolio page in Airflow's UI (`/tiltyard`), and the reports that tasks link to.

Every part of Airflow loads its plugins, tasks included, so this file imports next to nothing: the page is built at
its first request, in the API server.

Reports are HTML made from data, on the same address as Airflow. So that nothing in the data can act as whoever is
looking, no script runs in them, save in drift reports, which need theirs and are shut into an origin of their own.
"""

import base64
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.responses import Response
    from jinja2 import Environment
    from markdown_it import MarkdownIt
    from sqlalchemy.orm import Session

    from tiltyard.edge.board import Board
    from tiltyard.edge.document import ModelStatus
    from tiltyard.edge.night_page import NightHead, NightPage
    from tiltyard.edge.overview import Entry
    from tiltyard.records import Record
    from tiltyard.settings import Settings

TEMPLATES = Path(__file__).with_name("templates")
PREFIX = "/tiltyard"

PAGES = (
    "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'sha256-{script}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
"""The Content-Security-Policy of our own pages: their one script, which sets the theme and leaves Airflow's frame, and
nothing from elsewhere. No text of anybody's can act."""
NO_SCRIPTS = "default-src 'self' data: 'unsafe-inline'; script-src 'none'; form-action 'none'; base-uri 'none'"
OWN_ORIGIN = "sandbox allow-scripts; default-src data: blob: 'unsafe-inline' 'unsafe-eval'; form-action 'none'"


async def portfolio_page(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """The ASGI app that Airflow mounts; what stands behind it is made when somebody asks."""
    await _app()(scope, receive, send)


class Portfolio(AirflowPlugin):
    """What the plugin adds to Airflow: the pages under /tiltyard, and their entry in the navigation."""

    name = "tiltyard"
    fastapi_apps = [{"app": portfolio_page, "url_prefix": PREFIX, "name": "Tiltyard"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Tiltyard",
            "href": f"{PREFIX}/",
            "destination": "nav",
            "url_route": "tiltyard",
            "nav_top_level": True,
        }
    ]


@cache
def _app() -> "FastAPI":
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.core_api.security import requires_access_view
    from fastapi import Depends, FastAPI, HTTPException, Request
    from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

    from tiltyard.edge import overview, reports, way_back
    from tiltyard.records import ADVICE
    from tiltyard.serve.headers import accepts
    from tiltyard.settings import Settings

    settings = Settings()
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(requires_access_view(AccessView.WEBSITE))],
    )

    @app.exception_handler(HTTPException)
    def refuse(request: Request, error: HTTPException) -> Response:
        """A browser that is not logged in is sent to the login and back, and gets a page with a way back where there is
        nothing to see; everything else gets the plain answer."""
        if error.status_code == 401 and accepts(request.headers.get("accept", ""), "text/html"):
            return RedirectResponse(f"/api/v2/auth/login?next={request.url.path}", 303)
        if error.status_code == 404 and accepts(request.headers.get("accept", ""), "text/html"):
            return _page(_render("missing.html", sentence=error.detail), 404)
        return Response(str(error.detail), error.status_code, media_type="text/plain")

    @app.exception_handler(Exception)
    def fail(request: Request, error: Exception) -> Response:
        """What cannot be shown says so: why, where that is a sentence for people, and else where it is written."""
        status, sentence = _unable(error)
        if accepts(request.headers.get("accept", ""), "text/html"):
            return _page(_render("missing.html", heading="This cannot be shown now", sentence=sentence), status)
        return Response(sentence, status, media_type="text/plain")

    @app.get("/")
    def index(request: Request) -> Response:
        found = overview.glance(settings, paused())
        return _page(board_page(found.board, request.query_params, found.head, found.paused))

    @app.get("/models/{name}")
    def model(name: str, request: Request) -> Response:
        asked = overview.ModelQuery.of(request.query_params, request.query_params.getlist("compare"))
        entry = overview.entry(settings, name, asked, paused())
        if entry is None:
            raise HTTPException(404, f"There is no model {name!r} in the portfolio; {PREFIX}/ lists those there are.")
        return _page(model_page(entry))

    @app.get("/sources/{name}")
    def source(name: str) -> Response:
        found = overview.source(settings, name)
        if found is None:
            raise HTTPException(404, f"There is no source {name!r}; {PREFIX}/ lists those there are.")
        return _page(_render("source.html", source=found, paused=paused()))

    @app.get("/incidents/")
    def incidents() -> Response:
        return _page(_render("incidents.html", incidents=overview.incidents(settings)))

    @app.get("/incidents/{node}")
    def incident(node: str) -> Response:
        found = overview.incident(settings, node)
        if found is None:
            raise HTTPException(404, f"No incident of {node!r} is known; {PREFIX}/incidents/ lists those there are.")
        return _page(_render("incident.html", incident=found))

    @app.get("/nights/{day}")
    def night(day: str, request: Request) -> Response:
        found = overview.night(settings, day)
        if found is None:
            raise HTTPException(404, f"Nothing was done on a night {day!r}; {PREFIX}/ names the newest one.")
        return _page(night_page(found, request.query_params.get("page", "")))

    @app.get("/costs")
    def costs() -> Response:
        return _page(_render("costs.html", costs=overview.costs(settings), advice=ADVICE, shown=25))

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(overview.metrics(settings), media_type="text/plain; version=0.0.4")

    @app.get("/reports/{path:path}")
    def report(path: str) -> Response:
        file = reports.opened(settings, path)
        if file is None and not path.strip("/"):
            return _page(_render("folder.html", path="", above="", entries=()))
        if file is None:
            raise HTTPException(404, "There is no such report (any more).")
        if file.is_dir():
            above = path.strip("/").rpartition("/")[0]
            return _page(_render("folder.html", path=path, above=above, entries=reports.entries(file)))
        headers = {
            "Content-Security-Policy": content_security(file.relative_to(settings.reports.resolve())),
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
        }
        if file.suffix == ".html":
            return HTMLResponse(way_back.added(file, settings.reports, PREFIX), headers=headers)
        return FileResponse(file, headers=headers)

    _documents(app, settings)
    return app


def _documents(app: "FastAPI", settings: "Settings") -> None:
    """What the pages show, as JSON."""
    from fastapi import HTTPException, Request
    from fastapi.responses import Response

    from tiltyard.edge import board_query, comparing, overview

    @app.get("/api/v1/costs")
    def costs_document() -> Response:
        return _json(overview.costs(settings).to_json())

    @app.get("/api/v1/models")
    def models(request: Request) -> Response:
        found = board_query.BoardQuery.of(request.query_params).chosen(overview.board(settings).models)
        return _json([row.to_json() for row in found])

    @app.get("/api/v1/models/{name}")
    def model_document(name: str, request: Request) -> Response:
        entry = overview.entry(settings, name, overview.ModelQuery.of({"night": request.query_params.get("night", "")}))
        if entry is None:
            raise HTTPException(404, f"There is no model {name!r} in the portfolio.")
        if entry.missing:
            raise HTTPException(404, entry.missing)
        return _json(entry.status.to_json() if entry.status else {"model": name, "problem": entry.problem})

    @app.get("/api/v1/models/{name}/decisions")
    def decisions(name: str, page: int = 1) -> Response:
        return _found(overview.decisions(settings, name, page), f"There is no model {name!r} in the portfolio.")

    @app.get("/api/v1/models/{name}/versions")
    def versions(name: str, compare: str = "") -> Response:
        missing = f"There is no model {name!r} in the portfolio."
        if compare:
            return _found(overview.compared(settings, name, comparing.numbers(compare)), missing)
        rows = overview.versions(settings, name)
        return _json([row.to_json() for row in rows]) if rows is not None else _found(None, missing)

    @app.get("/api/v1/sources/{name}")
    def source_document(name: str) -> Response:
        return _found(overview.source(settings, name), f"There is no source {name!r}.")

    @app.get("/api/v1/incidents/{node}")
    def incident_document(node: str) -> Response:
        return _found(overview.incident(settings, node), f"No incident of {node!r} is known.")

    @app.get("/api/v1/nights/{day}")
    def night_document(day: str) -> Response:
        return _found(overview.night(settings, day), f"Nothing was done on a night {day!r}.")

    @app.get("/api/v1/{part}")
    def part(part: Literal["inbox", "sources", "incidents"]) -> Response:
        return _json([item.to_json() for item in getattr(overview.board(settings), part)])


def paused() -> frozenset[str]:
    """The DAGs that are paused in Airflow; none where its database cannot be asked."""
    from airflow.utils.session import create_session

    try:
        with create_session() as session:
            return paused_dags(session)
    except Exception as error:  # whatever its database says: the pages show what the ledger knows
        log = logging.getLogger(__name__)
        log.warning("Airflow's database does not say which DAGs are paused: %s", str(error).splitlines()[0])
        return frozenset()


def paused_dags(session: "Session") -> frozenset[str]:
    """Those of a session with Airflow's database that are there and paused."""
    import sqlalchemy as sa
    from airflow.models.dag import DagModel

    names = sa.select(DagModel.dag_id).where(DagModel.is_paused.is_(True), DagModel.is_stale.is_(False))
    return frozenset(session.scalars(names))


def model_page(entry: "Entry") -> str:
    """The page of a model, as HTML: the part of it that was asked for."""
    from tiltyard.edge.overview import NIGHTS

    return _render("model.html", model=entry, nights_a_page=NIGHTS)


def night_page(night: "NightPage", page: str = "") -> str:
    """A night of the portfolio, as HTML. `page`: of its models, from 1."""
    from tiltyard.edge.night_page import PAGE

    pages = max(1, -(-len(night.models) // PAGE))
    number = min(pages, int(page)) if page.isdecimal() and len(page) < 6 and int(page) else 1
    rows = night.models[(number - 1) * PAGE : number * PAGE]
    return _render("night.html", night=night, rows=rows, page=number, pages=pages)


def board_page(
    board: "Board", asked: "Mapping[str, str]", head: "NightHead | None" = None, paused: tuple[str, ...] = ()
) -> str:
    """The portfolio at a glance, as HTML. `asked`: the parameters of its address; `head`: its newest night in numbers;
    `paused`: the DAGs of it that are."""
    from tiltyard.edge import board_query
    from tiltyard.edge.board import LOSSES

    query = board_query.BoardQuery.of(asked)
    found = query.chosen(board.models)
    return _render(
        "portfolio.html",
        board=board,
        rows=query.shown(found),
        found=len(found),
        pages=board_query.pages(found),
        page_size=board_query.PAGE,
        asked=query,
        choices=board_query.choices(board.models),
        orders=[*board_query.ORDERS],
        losses=LOSSES,
        inbox_shown=12,
        head=head,
        paused=paused,
    )


def _page(content: str, status: int = 200) -> "Response":
    from fastapi.responses import HTMLResponse

    headers = {"Content-Security-Policy": PAGES.format(script=_digest(_script())), "X-Content-Type-Options": "nosniff"}
    return HTMLResponse(content, status, headers=headers)


@cache
def _script() -> str:
    """The one script of our pages."""
    return (TEMPLATES / "frame.js").read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _unable(error: Exception) -> tuple[int, str]:
    """The status of an answer that cannot be given, and why, as a sentence without what nobody else may read."""
    from sqlalchemy.exc import OperationalError

    from tiltyard.errors import TiltyardError

    if isinstance(error, TiltyardError):
        return 503, str(error)
    if isinstance(error, OperationalError):
        return 503, "The database of the ledger has gone away; see that PostgreSQL runs, and load the page again."
    return 500, f"Something of it cannot be read ({type(error).__name__}); the log of the API server says what."


def _found(record: "Record | None", missing: str) -> "Response":
    """A record as JSON. Raises HTTPException where there is none."""
    from fastapi import HTTPException

    if record is None:
        raise HTTPException(404, missing)
    return _json(record.to_json())


def _json(content: object) -> "Response":
    import json

    from fastapi.responses import Response

    return Response(json.dumps(content, allow_nan=False), media_type="application/json")


def content_security(report: Path) -> str:
    """The Content-Security-Policy of a report: Evidently's pages need their own scripts, no other has any."""
    return OWN_ORIGIN if report.parts[0] == "drift" else NO_SCRIPTS


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


@cache
def _written() -> "MarkdownIt":
    """What makes a page of somebody's Markdown: a tag in it is a text, and no link runs a script."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table")


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    from tiltyard.edge import course
    from tiltyard.edge.board import STATES
    from tiltyard.edge.board_query import MARKS, sparkline
    from tiltyard.edge.overview import PARTS, SHOWN
    from tiltyard.pages.kit import COLOURS
    from tiltyard.target import MEASURES
    from tiltyard.words import counted, strength

    def drawn(points: "Sequence[course.CoursePoint]", status: "ModelStatus") -> Markup:
        estimate = status.estimated.get(str(status.champion))
        return Markup(course.drawn(points, estimate.brier if estimate and status.measure == "brier" else None))

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = lambda value: "–" if value is None else f"{value:.4f}"
    environment.filters["version"] = lambda value: "none" if value is None else f"v{value}"
    environment.filters["counted"] = counted
    environment.filters["strength"] = strength
    environment.filters["lasted"] = lambda span: str(timedelta(seconds=round(span.total_seconds())))
    environment.filters["sparkline"] = lambda row: Markup(sparkline(row))  # numbers alone, no text of anybody's
    environment.filters["course"] = drawn  # likewise
    environment.filters["markdown"] = lambda text: Markup(_written().render(text))  # tags in it are shown, not obeyed
    environment.globals |= {"prefix": PREFIX, "stages": SHOWN, "parts": PARTS, "marks": MARKS, "states": STATES}
    environment.globals |= {"measures": MEASURES, "colours": COLOURS, "frame_script": _script()}
    return environment
