"""The portfolio page in Airflow's UI (`/tiltyard`), and the reports that tasks link to.

Every part of Airflow loads its plugins, tasks included, so this file imports next to nothing: the page is built at
its first request, in the API server.

Reports are HTML made from data, on the same address as Airflow. So that nothing in the data can act as whoever is
looking, no script runs in them, save in drift reports, which need theirs and are shut into an origin of their own.
"""

from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tiltyard.settings import Settings
    from tiltyard.stages import StageName

TEMPLATES = Path(__file__).with_name("templates")
PREFIX = "/tiltyard"
NIGHTS = 7

NO_SCRIPTS = "default-src 'self' data: 'unsafe-inline'; script-src 'none'; form-action 'none'; base-uri 'none'"
OWN_ORIGIN = "sandbox allow-scripts; default-src data: blob: 'unsafe-inline' 'unsafe-eval'; form-action 'none'"


async def portfolio_page(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """The ASGI app that Airflow mounts; what stands behind it is made when somebody asks."""
    await _app()(scope, receive, send)


class Portfolio(AirflowPlugin):
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
        return HTMLResponse(_render("portfolio.html", models=_models(settings)))

    @app.get("/reports/{path:path}")
    def report(path: str) -> Response:
        found = find_report(settings.reports, path)
        if found is None:
            raise HTTPException(404, "There is no such report (any more).")
        if found.is_dir():
            return HTMLResponse(_render("folder.html", path=path, entries=_entries(found)))
        headers = {
            "Content-Security-Policy": content_security(found.relative_to(settings.reports.resolve())),
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
        }
        return FileResponse(found, headers=headers)

    return app


def find_report(reports: Path, path: str) -> Path | None:
    """The file (or folder without an index.html) at `path` under `reports`; None for all that lies elsewhere."""
    root = reports.resolve()
    try:
        found = (root / path).resolve()
        if not found.is_relative_to(root) or any(part.startswith(".") for part in found.relative_to(root).parts):
            return None
        index = found / "index.html"
        return index if index.is_file() else found if found.exists() else None
    except (OSError, ValueError):  # a name too long, or with a NUL in it
        return None


def content_security(report: Path) -> str:
    return OWN_ORIGIN if report.parts[0] == "drift" else NO_SCRIPTS


def _entries(folder: Path) -> list[str]:
    names = (f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir() if path.name[0] != ".")
    return sorted(names, reverse=True)  # they begin with dates: the newest first


def _shown() -> "tuple[StageName, ...]":
    """The stages that a model's nights are shown by."""
    from tiltyard.stages import NIGHTLY

    return ("features", *NIGHTLY)


def _models(settings: "Settings") -> list[dict[str, Any]]:
    """One entry per model: its status document, or the sentence that says why there is none."""
    from tiltyard import rails
    from tiltyard.edge import status
    from tiltyard.errors import TiltyardError
    from tiltyard.spec import portfolio
    from tiltyard.stages import dag_id, recorded_as

    models = []
    with rails.opened(settings) as opened:
        for spec in portfolio(settings):
            runs = {stage: opened.ledger.stage_runs(stage, recorded_as(stage, spec.name)) for stage in _shown()}
            nights = sorted({night for nights in runs.values() for night in nights}, reverse=True)[:NIGHTS]
            entry: dict[str, Any] = {
                "name": spec.name,
                "owner": spec.owner,
                "tier": spec.tier,
                "dags": {stage: dag_id(stage, recorded_as(stage, spec.name)) for stage in _shown()},
                "nights": [
                    (night, {stage: runs[stage][night]["status"] if night in runs[stage] else "" for stage in _shown()})
                    for night in nights
                ],
                "plot": find_report(settings.reports, f"realized/{spec.name}.png"),
                "latency": find_report(settings.reports, f"latency/{spec.name}.png"),
                "arrival": find_report(settings.reports, f"arrival/{spec.name}.png"),
                "events": opened.ledger.events(spec.name)[-5:],
            }
            try:
                entry["status"] = status.status(opened, spec)
            except TiltyardError as error:
                entry["problem"] = str(error)
            models.append(entry)
    return models


def _render(template: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader

    from tiltyard.target import MEASURES

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = lambda value: "–" if value is None else f"{value:.4f}"
    environment.filters["version"] = lambda value: "none" if value is None else f"v{value}"
    return environment.get_template(template).render(prefix=PREFIX, stages=_shown(), measures=MEASURES, **values)
