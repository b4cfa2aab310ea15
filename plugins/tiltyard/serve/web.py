"""The service over HTTP: its routes, and `tiltyard serve`. FastAPI on uvicorn, on loopback by default."""

import gc
import math
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date, datetime

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from tiltyard import clock, redaction
from tiltyard.errors import BadInput, Unavailable
from tiltyard.ledger import Ledger
from tiltyard.serve import access, api, door
from tiltyard.serve.door import Door
from tiltyard.serve.incoming import Rejected
from tiltyard.serve.metrics import FOLDER
from tiltyard.serve.serving import Service, refusal
from tiltyard.settings import Settings
from tiltyard.words import listed

SWITCH_S = 0.0002
"""Seconds for which a background thread may keep the interpreter from a request; Python's 5 ms are a deadline."""
YOUNG = 10_000
"""Number of new objects after which the garbage collector looks at them (see _settle)."""
CLOCK = "TILTYARD_SERVE_CLOCK"
"""Variable that says by how many seconds the service's clock is ahead of the wall's; set by `serve` for its workers."""
_PREDICT = re.compile(r"/v1/models/([^/]+)/predict")


class App:
    """The service as an ASGI app.

    A prediction goes straight to the service, since middleware, routing and the reading of parameters, of which there
    are none, cost as much as an answer does. Everything else goes through FastAPI, which also describes all routes.
    """

    def __init__(
        self,
        settings: Settings,
        now: Callable[[], float] = time.time,
        *,
        delivers: bool = False,
        started: Callable[[], None] = lambda: None,
        door: Door | None = None,
    ) -> None:
        """`now` is the service's clock in epoch seconds: another one than time.time for data of the past.

        `delivers`: whether it also brings the request log to the lake. `started` is called before the first answer.
        `door`: who counts the connections, where they come over uvicorn.
        """
        self._make: Callable[[], Service] = lambda: Service(settings, now, delivers=delivers, door=door)
        self._started = started
        self._service: Service | None = None
        self._is_described = access.explains(settings)
        self.routes = self._routes()

    @property
    def service(self) -> Service:
        """The service, once it has started."""
        assert self._service is not None, "the service has not started"
        return self._service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and (path := _PREDICT.fullmatch(scope["path"])):
            answer = await self.service.predict(path[1], scope, receive)
            await answer(scope, receive, send)
        else:
            await self.routes(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self._service = self._make()
        self._service.start()
        self._started()
        yield
        await self._service.store.aclose()
        self._service.stop()

    def _routes(self) -> FastAPI:
        app = (FastAPIOffline if self._is_described else FastAPI)(
            redoc_url=None,
            docs_url="/docs" if self._is_described else None,
            openapi_url="/openapi.json" if self._is_described else None,
            title="Tiltyard",
            version="1",
            summary="Predictions of every model in service, whatever breaks.",
            lifespan=self._lifespan,
            default_response_class=Response,
        )

        @app.post("/v1/models/{model}/predict", **api.PREDICT)
        async def predict(model: str, request: Request) -> Response:
            """Score one or many rows. Features are given, or looked up by entity; the given ones win."""
            return await self.service.predict(model, request.scope, request.receive)

        @app.post("/v1/models/{model}/explain", **api.EXPLAIN)
        async def explain(model: str, request: Request) -> Response:
            """What each feature adds to one row's score (SHAP), beside the fast path: takes tens of milliseconds."""
            return await self.service.explain(model, request)

        @app.get("/v1/models", **api.MODELS)
        async def models(request: Request) -> Response:
            """Every model in service: its versions, its features, how its tiers are doing."""
            return await self.service.models(request)

        @app.get("/healthz", **api.HEALTH)
        async def healthz() -> Response:
            """Does the process answer? Says nothing of models."""
            return Response(b'{"status": "ok"}', media_type="application/json")

        @app.get("/readyz", **api.READY)
        async def readyz(request: Request) -> Response:
            """May it have traffic? 503 until a model is in service. Tells operators what is not as it should be."""
            return self.service.ready(request)

        @app.get("/metrics", **api.METRICS)
        async def metrics(request: Request) -> Response:
            """For Prometheus."""
            return await self.service.page(request)

        @app.exception_handler(Rejected)
        async def rejected(_: Request, error: Rejected) -> Response:
            return refusal(error)

        @app.exception_handler(HTTPException)
        async def no_route(request: Request, error: HTTPException) -> Response:
            what = f"{request.method} {request.url.path[:100]}"
            described = "; /docs shows what there is" if self._is_described else ""
            sentence = f"There is no {what} here ({error.detail}){described}."
            return refusal(Rejected(error.status_code, sentence, error.headers))

        return app


def from_environment() -> App:
    """The app of a worker process of `tiltyard serve`, by its settings and TILTYARD_SERVE_CLOCK."""
    redaction.install()
    shift = float(os.environ.get(CLOCK, "0"))
    settings = Settings()
    sys.setswitchinterval(SWITCH_S)
    now = (lambda: time.time() + shift) if shift else time.time
    return App(settings, now, delivers=settings.serve_deliver_s > 0, started=_settle, door=door.here())


def _settle() -> None:
    """Let the garbage collector pass over what was made by now, all of which stays: going through it would stop every
    request for more than 100 ms, again and again. At newer objects it looks when there are YOUNG more than the last
    time: a few requests under way have many times Python's own 700, and none of these is garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)


def begins(settings: Settings, as_of: str | None) -> datetime | None:
    """When the service's clock begins: at `latest` with the newest published night. None: it is the wall clock.

    Raises BadInput for what is no date, and for `latest` when nothing is published.
    """
    if as_of != "latest":
        return None if as_of is None else clock.parse_as_of(as_of)
    night = newest_night(settings)
    if night is None:
        raise BadInput("No features are published yet; run tiltyard features, or make up, first.")
    return clock.midnight(night)


def newest_night(settings: Settings) -> date | None:
    """The newest night with published features; None when there is none."""
    ledger = Ledger(settings)
    try:
        nights = sorted(ledger.published_nights())
    finally:
        ledger.close()
    return max(nights, default=None)


def serve(settings: Settings, as_of: datetime | None, say: Callable[[str], None]) -> None:
    """Serve until a signal ends it. `as_of` is when the service's clock begins, for data of the past.

    Raises BadInput when it would listen beyond loopback without keys, Unavailable when the port is taken.
    """
    keys = settings.serve_keys.get_secret_value() if settings.serve_keys else None
    access.refuse_open(settings.serve_host, keys)
    _check_port(settings)
    address = f"http://{settings.serve_host}:{settings.serve_port}"
    page = "docs" if access.explains(settings) else "healthz"
    say(f"Serving on {address} (try {address}/{page}, {address}/readyz). Ctrl-C ends it.")
    strangers = sorted({key.name for key in access.parse(keys)} - set(settings.serve_trusted))
    if strangers and settings.serve_budget is None:
        say(
            f"{listed(strangers)} may ask for {access.DEFAULT_BUDGET} rows a day, so that nobody copies a model; "
            "programs of your own belong into TILTYARD_SERVE_TRUSTED."
        )
    if (most := door.terms(settings).most) < settings.serve_connections:
        say(
            f"Each process takes {most:,} connections, not {settings.serve_connections:,}: of the files that it may "
            f"open (ulimit -n), {door.KEPT_BACK} are kept for log and models."
        )
    if settings.serve_workers > 1:
        folder = settings.home / "serving" / "metrics"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        os.environ[FOLDER] = str(folder)
    os.environ[CLOCK] = str(0.0 if as_of is None else as_of.timestamp() - time.time())
    uvicorn.run(
        "tiltyard.serve.web:from_environment",
        factory=True,
        host=settings.serve_host,
        port=settings.serve_port,
        workers=settings.serve_workers if settings.serve_workers > 1 else None,
        loop="uvloop",
        http="tiltyard.serve.door:Connection",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,  # what a caller says of his address is not believed
        timeout_keep_alive=math.ceil(settings.serve_rest_s),
        timeout_graceful_shutdown=10,
    )


def _check_port(settings: Settings) -> None:
    try:
        with socket.create_server((settings.serve_host, settings.serve_port)):
            return
    except OSError as error:
        raise Unavailable(
            f"{settings.serve_host}:{settings.serve_port} cannot be listened on ({error.strerror or error}); "
            "stop what holds it, or set TILTYARD_SERVE_PORT."
        ) from None
