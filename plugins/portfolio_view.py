"""The portfolio page in Airflow's UI (`/tiltyard`), and the reports that tasks link to.

Every part of Airflow loads its plugins, tasks included, so this file imports next to nothing: the page is built at
its first request, in the API server.

Reports are HTML made from data, on the same address as Airflow. So that nothing in the data can act as whoever is
looking, no script runs in them, save in drift reports, which need theirs and are shut into an origin of their own.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.responses import Response

    from tiltyard.edge.board import Board

TEMPLATES = Path(__file__).with_name("templates")
PREFIX = "/tiltyard"

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

    from tiltyard.edge import board_query, night_metrics, overview, reports, way_back
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
        """A browser that is not logged in is sent to the login and back; everything else gets the plain answer."""
        if error.status_code == 401 and accepts(request.headers.get("accept", ""), "text/html"):
            return RedirectResponse(f"/api/v2/auth/login?next={request.url.path}", 303)
        return Response(str(error.detail), error.status_code, media_type="text/plain")

    @app.get("/")
    def index(request: Request) -> HTMLResponse:
        return HTMLResponse(board_page(overview.board(settings), request.query_params))

    @app.get("/models/{name}")
    def model(name: str) -> HTMLResponse:
        entry = overview.entry(settings, name)
        if entry is None:
            raise HTTPException(404, f"There is no model {name!r} in the portfolio; {PREFIX}/ lists those there are.")
        return HTMLResponse(_render("model.html", model=entry))

    @app.get("/api/v1/models")
    def models(request: Request) -> Response:
        found = board_query.BoardQuery.of(request.query_params).chosen(overview.board(settings).models)
        return _json([row.to_json() for row in found])

    @app.get("/api/v1/models/{name}")
    def model_document(name: str) -> Response:
        entry = overview.entry(settings, name)
        if entry is None:
            raise HTTPException(404, f"There is no model {name!r} in the portfolio.")
        return _json(entry.status.to_json() if entry.status else {"model": name, "problem": entry.problem})

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(night_metrics.text(overview.board(settings)), media_type="text/plain; version=0.0.4")

    @app.get("/api/v1/{part}")
    def part(part: Literal["inbox", "sources", "incidents"]) -> Response:
        return _json([item.to_json() for item in getattr(overview.board(settings), part)])

    @app.get("/reports/{path:path}")
    def report(path: str) -> Response:
        file = reports.opened(settings, path)
        if file is None:
            raise HTTPException(404, "There is no such report (any more).")
        if file.is_dir():
            above = path.strip("/").rpartition("/")[0]
            return HTMLResponse(_render("folder.html", path=path, above=above, entries=reports.entries(file)))
        headers = {
            "Content-Security-Policy": content_security(file.relative_to(settings.reports.resolve())),
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
        }
        if file.suffix == ".html":
            return HTMLResponse(way_back.added(file, settings.reports, PREFIX), headers=headers)
        return FileResponse(file, headers=headers)

    return app


def board_page(board: "Board", asked: "Mapping[str, str]") -> str:
    """The portfolio at a glance, as HTML. `asked`: the parameters of its address."""
    from tiltyard.edge import board_query
    from tiltyard.edge.board import LOSSES, STATES

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
        marks=board_query.MARKS,
        states=STATES,
        losses=LOSSES,
        inbox_shown=12,
    )


def _json(content: object) -> "Response":
    import json

    from fastapi.responses import Response

    return Response(json.dumps(content, allow_nan=False), media_type="application/json")


def content_security(report: Path) -> str:
    """The Content-Security-Policy of a report: Evidently's pages need their own scripts, no other has any."""
    return OWN_ORIGIN if report.parts[0] == "drift" else NO_SCRIPTS


def _render(template: str, **values: object) -> str:
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    from tiltyard.edge.board_query import sparkline
    from tiltyard.edge.overview import SHOWN
    from tiltyard.pages.kit import COLOURS
    from tiltyard.target import MEASURES
    from tiltyard.words import counted

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = lambda value: "–" if value is None else f"{value:.4f}"
    environment.filters["version"] = lambda value: "none" if value is None else f"v{value}"
    environment.filters["counted"] = counted
    environment.filters["sparkline"] = lambda row: Markup(sparkline(row))  # numbers alone, no text of anybody's
    common = {"prefix": PREFIX, "stages": SHOWN, "measures": MEASURES, "colours": COLOURS}
    return environment.get_template(template).render(common | values)
