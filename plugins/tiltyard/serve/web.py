"""The service over HTTP: its routes, and `tiltyard serve`. FastAPI on uvicorn; loopback unless told otherwise."""

import gc
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date, datetime

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from tiltyard import clock
from tiltyard.errors import BadInput, Unavailable
from tiltyard.serve import access, api
from tiltyard.serve.incoming import Rejected
from tiltyard.serve.metrics import FOLDER
from tiltyard.serve.serving import Service, refusal
from tiltyard.settings import Settings

SWITCH_S = 0.0002
"""How long a background thread may keep the interpreter from a request; Python's own 5 ms are a whole deadline."""
YOUNG = 10_000
"""See _settle."""
CLOCK = "TILTYARD_SERVE_CLOCK"
"""How far the service's clock is ahead of the wall's, seconds; set by `run` for its worker processes."""
_PREDICT = re.compile(r"/v1/models/([^/]+)/predict")


class App:
    """The service as an ASGI app.

    A prediction goes straight to it: middleware, routing and finding out that there is nothing to read for a function
    that reads its request itself cost as much as an answer does. The rest is FastAPI's, also the description of all.
    """

    def __init__(
        self,
        settings: Settings,
        now: Callable[[], float] = time.time,
        *,
        delivers: bool = False,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """`now` is the service's clock, epoch seconds: another one than time.time for past data.

        `delivers`: it also sees to it that the request log reaches the lake. `started` is called before it answers.
        """
        self._make = lambda: Service(settings, now, delivers=delivers)
        self._started = started
        self._service: Service | None = None
        self.routes = self._routes()

    @property
    def service(self) -> Service:
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
        self._service.stop()

    def _routes(self) -> FastAPI:
        app = FastAPIOffline(
            redoc_url=None,
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
            return self.service.models(request)

        @app.get("/healthz", **api.HEALTH)
        async def healthz() -> Response:
            """Does the process answer? Says nothing of models."""
            return Response(b'{"status": "ok"}', media_type="application/json")

        @app.get("/readyz", **api.READY)
        async def readyz() -> Response:
            """May it have traffic? 503 until a model is in service. Names what is not as it should be."""
            return self.service.ready()

        @app.get("/metrics", **api.METRICS)
        async def metrics(request: Request) -> Response:
            """For Prometheus."""
            return self.service.page(request)

        @app.exception_handler(Rejected)
        async def rejected(_: Request, error: Rejected) -> Response:
            return refusal(error)

        @app.exception_handler(HTTPException)
        async def no_route(request: Request, error: HTTPException) -> Response:
            what = f"{request.method} {request.url.path[:100]}"
            sentence = f"There is no {what} here ({error.detail}); /docs shows what there is."
            return refusal(Rejected(error.status_code, sentence, error.headers))

        return app


def from_environment() -> App:
    """What a worker process of `tiltyard serve` runs: the settings, and TILTYARD_SERVE_CLOCK where it was shifted."""
    shift = float(os.environ.get(CLOCK, "0"))
    settings = Settings()
    sys.setswitchinterval(SWITCH_S)
    now = (lambda: time.time() + shift) if shift else time.time
    return App(settings, now, delivers=settings.serve_deliver_s > 0, started=_settle)


def _settle() -> None:
    """Let the garbage collector look no more at what is there now, and stays: going through it stops every request
    for more than 100 ms, again and again. At what comes later it looks when YOUNG more objects live than before: a few
    requests under way are many times Python's own 700, and none of them is garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)


def begins(settings: Settings, as_of: str | None) -> datetime | None:
    """Where the service's clock begins: `latest` is the newest published night, None the wall clock.

    Raises BadInput for what is no date, and when nothing is published.
    """
    if as_of != "latest":
        return None if as_of is None else clock.parse_as_of(as_of)
    night = published(settings)
    if night is None:
        raise BadInput("No features are published yet; run tiltyard features, or make up, first.")
    return clock.midnight(night)


def published(settings: Settings) -> date | None:
    """The newest night with published features, where the ledger can say it."""
    from tiltyard.ledger import Ledger

    ledger = Ledger(settings)
    try:
        nights = [night for night, row in ledger.stage_runs("features").items() if row["status"] == "done"]
    finally:
        ledger.close()
    return max(nights, default=None)


def run(settings: Settings, as_of: datetime | None, say: Callable[[str], None]) -> None:
    """Serve until told to stop. `as_of`: the service's clock begins there, for data of the past.

    Raises BadInput when it would listen beyond loopback without keys, Unavailable when the port is taken.
    """
    import uvicorn

    keys = settings.serve_keys.get_secret_value() if settings.serve_keys else None
    access.refuse_open(settings.serve_host, keys)
    _free(settings)
    address = f"http://{settings.serve_host}:{settings.serve_port}"
    say(f"Serving on {address} (try {address}/docs, {address}/readyz). Ctrl-C ends it.")
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
        http="httptools",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,  # nobody asks where a request came from
        timeout_graceful_shutdown=10,
    )


def _free(settings: Settings) -> None:
    try:
        with socket.create_server((settings.serve_host, settings.serve_port)):
            return
    except OSError as error:
        raise Unavailable(
            f"{settings.serve_host}:{settings.serve_port} cannot be listened on ({error.strerror or error}); "
            "stop what holds it, or set TILTYARD_SERVE_PORT."
        ) from None
