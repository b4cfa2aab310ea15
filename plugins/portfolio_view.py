"""The portfolio page in Airflow's UI (`/tiltyard`), and the reports that tasks link to.

Every part of Airflow loads its plugins, tasks included, so this file imports next to nothing: the page is built at
its first request, in the API server.

Reports are HTML made from data, on the same address as Airflow. So that nothing in the data can act as whoever is
looking, no script runs in them, save in drift reports, which need theirs and are shut into an origin of their own.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI


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

    from tiltyard.edge import overview, reports
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
    def index() -> HTMLResponse:
        return HTMLResponse(
            _render("portfolio.html", models=overview.entries(settings), refused=overview.refused(settings))
        )

    @app.get("/reports/{path:path}")
    def report(path: str) -> Response:
        file = reports.opened(settings, path)
        if file is None:
            raise HTTPException(404, "There is no such report (any more).")
        if file.is_dir():
            return HTMLResponse(_render("folder.html", path=path, entries=reports.entries(file)))
        headers = {
            "Content-Security-Policy": content_security(file.relative_to(settings.reports.resolve())),
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
        }
        return FileResponse(file, headers=headers)

    return app


def content_security(report: Path) -> str:
    """The Content-Security-Policy of a report: Evidently's pages need their own scripts, no other has any."""
    return OWN_ORIGIN if report.parts[0] == "drift" else NO_SCRIPTS


def _render(template: str, **values: object) -> str:
    from jinja2 import Environment, FileSystemLoader

    from tiltyard.edge.overview import SHOWN
    from tiltyard.pages.kit import COLOURS
    from tiltyard.target import MEASURES

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = lambda value: "–" if value is None else f"{value:.4f}"
    environment.filters["version"] = lambda value: "none" if value is None else f"v{value}"
    common = {"prefix": PREFIX, "stages": SHOWN, "measures": MEASURES, "colours": COLOURS}
    return environment.get_template(template).render(common | values)
