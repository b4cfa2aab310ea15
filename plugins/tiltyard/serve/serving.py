"""The service that answers, whatever breaks.

A request is checked, features that are not given are looked up, the light twin's score is computed at once, and the
heavy model races its deadline on a thread of its own (`race`, `lane`). The first declared tier that has a usable score
answers (`fallback`), else the safe default; the answer says who it was, and why it was not the champion. It is in the
request log before it is on the wire. Challengers score afterwards, beside the path (`shadowing`).
"""

import asyncio
import hashlib
import itertools
import logging
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

import orjson
from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import Receive, Scope

from tiltyard import postgres
from tiltyard.errors import TiltyardError, Unavailable
from tiltyard.online import lookup
from tiltyard.online.connection import connect
from tiltyard.online.redis_store import RedisStore
from tiltyard.serve import access, fallback, timeslice
from tiltyard.serve.access import Admitted, Refused, rounded
from tiltyard.serve.contribution import Explainer
from tiltyard.serve.deadlines import Deadlines
from tiltyard.serve.door import Door, neighbourhood
from tiltyard.serve.headers import is_longer, media_type
from tiltyard.serve.incoming import IncomingRow, Rejected, parsed, rows_of
from tiltyard.serve.lane import Lane
from tiltyard.serve.metrics import Metrics
from tiltyard.serve.race import Race, RowAnswer, default
from tiltyard.serve.repeated import Repeated
from tiltyard.serve.servable import LoadedVersion, Servable, Servables
from tiltyard.serve.shadowing import RowId, Shadow
from tiltyard.serve.spool import Spool
from tiltyard.settings import Settings
from tiltyard.target import Said

log = logging.getLogger(__name__)

FIRST_S = 30.0
"""Seconds for which the first start on a machine waits for models' files: until they come it has safe defaults only."""
DELIVER_S = 600.0
"""Seconds that one delivery of the request log may take; the next one brings the rest."""
KEPT_BACK = 64
"""Refusals of wrong keys that are kept back at once at most; others go out at once, and end their connection."""
JSON = b"application/json"
_TOO_LARGE = "The body is larger than {} bytes; send fewer rows at once."


class Service:
    """All that a serving process is made of: the models in service, the store of features, the log."""

    def __init__(
        self, settings: Settings, now: Callable[[], float], *, delivers: bool, door: Door | None = None
    ) -> None:
        self.settings = settings
        self._delivers = delivers
        self._door = door
        self.now = now
        self.servables = Servables(settings)
        self.store = connect(settings)
        self.spool = Spool(settings.spool)
        self.access = access.access(settings, time.time())
        self._decimals = access.decimals(settings)
        self._explains = access.explains(settings)
        self._kept_back = 0
        """Refusals of wrong keys that are kept back at this moment."""
        self.explainer = Explainer(settings.home)
        self.metrics = Metrics(
            {
                "tiltyard_log_records": ("Records written to the request log.", lambda: self.spool.written),
                "tiltyard_log_dropped": ("Records the request log could not take.", lambda: self.spool.dropped),
                "tiltyard_ledger_age_seconds": ("Since the ledger was heard; -1: never.", self.ledger_age),
                "tiltyard_models": ("Models in service.", lambda: len(self.servables.current)),
                "tiltyard_connections": ("Connections.", lambda: len(self._door.inside) if self._door else 0),
                "tiltyard_connections_turned_away": (
                    "Connections for which there was no room.",
                    lambda: self._door.turned_away if self._door else 0,
                ),
                "tiltyard_connections_sent_away": (
                    "Connections over their time, or that gave their place to a newcomer.",
                    lambda: self._door.sent_away if self._door else 0,
                ),
            }
        )
        self._boot = uuid.uuid4().hex[:12]
        self._numbers = itertools.count()
        self._repeated = Repeated()
        self._nulls: Mapping[str, Mapping[str, None]] = {}
        """Feature view → its features as nulls, where it is up to date (see lookup.nulls). Replaced whole."""
        self._stop = threading.Event()
        self._has_fetched = threading.Event()
        self._troubles: dict[str, str] = {}
        """Background thread → what went wrong in its last turn."""
        self._loop: asyncio.AbstractEventLoop
        """Set by `start`."""
        self._deadlines: Deadlines
        """Set by `start`."""

    # -- life -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Put in service what this machine's disk holds, and go on asking the ledger in the background.

        The first start on a machine asks the ledger at once, and waits a little for the models' files.
        """
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop)
        timeslice.shorten()
        is_first = not self.servables.restore()
        if is_first:
            self.servables.refresh()
        threading.Thread(target=self._refresh, name="refresh", daemon=True).start()
        threading.Thread(target=self._fetch, name="fetch", daemon=True).start()
        if self._delivers:
            threading.Thread(target=self._deliver, name="deliver", daemon=True).start()
        if is_first:
            self._has_fetched.wait(FIRST_S)

    def stop(self) -> None:
        """End every thread, file and connection, and leave the log for delivery."""
        self._stop.set()
        self.servables.close()
        self.spool.close()
        self.store.close()
        self.access.close()
        self.explainer.close()

    def ledger_age(self) -> float:
        """Seconds since the ledger was heard; -1 when it was not heard since the start."""
        heard = self.servables.heard_at
        return -1.0 if heard is None else time.time() - heard

    def _refresh(self) -> None:
        def look() -> None:
            erasures = self.servables.erasures
            self.servables.refresh()
            if self.servables.erasures != erasures:
                self.store.forget_seen()
                self._loop.call_soon_threadsafe(self._repeated.forget)
            self.metrics.look(self.servables.current)
            plans = [servable.plan for servable in self.servables.current.values()]
            self._nulls = lookup.nulls(self.store, plans, self.now())

        while not self._stop.is_set():
            self._turn(look)
            self._stop.wait(self.settings.serve_refresh_s)

    def _fetch(self) -> None:
        lacks = self.servables.lacks
        while not self._stop.is_set():
            lacks.clear()
            self._turn(self.servables.fetch)
            self._has_fetched.set()
            lacks.wait(self.settings.serve_refresh_s)

    def _deliver(self) -> None:
        """Bring the log to the lake by another process of low priority: that takes the lake's engine and a core."""

        def deliver() -> None:
            if postgres.is_running(self.settings):
                command = ["nice", "-n", "10", sys.executable, "-m", "tiltyard.cli", "requests", "deliver", "--json"]
                process = subprocess.run(command, capture_output=True, text=True, timeout=DELIVER_S)
                if process.returncode:
                    raise Unavailable(f"The request log is not delivered: {process.stderr.strip()[-500:]}")

        while not self._stop.wait(self.settings.serve_deliver_s):
            self._turn(deliver)

    def _turn(self, work: Callable[[], None]) -> None:
        """One turn of a background thread. Whatever goes wrong in it is logged once, and the next turn comes."""
        name = threading.current_thread().name
        try:
            work()
            self._troubles.pop(name, None)
        except Exception as error:
            trouble = f"{name}: {str(error) or type(error).__name__}"
            if self._troubles.get(name) != trouble:
                log.warning("%s; it goes on", trouble, exc_info=not isinstance(error, TiltyardError))
            self._troubles[name] = trouble

    # -- a request ------------------------------------------------------------------------------------------

    async def predict(self, model: str, scope: Scope, receive: Receive) -> Response:
        """The whole of a prediction: admitted, read, looked up, scored, logged, answered."""
        began = time.perf_counter()
        try:
            headers = dict(scope["headers"])
            caller = await self._who(scope, headers)
            servable, who = self._servable(model, caller), caller.name
            body = await self._body(headers, receive)
            content = parsed(body)
            rows, request_id = rows_of(content, servable, self.now(), self.settings.serve_max_rows)
            if request_id is None:
                answer = await self._predicted(servable, rows, self._new_id(), who, began)
            else:
                work = partial(self._predicted, servable, rows, request_id, who, began)
                answer = await self._repeated.once((who, model, request_id), hashlib.sha256(body).digest(), work)
            self.metrics.count(self.metrics.requests, model, "200")
            return _Answered(answer)
        except Rejected as error:
            return self._refusal(model, error)

    async def _predicted(
        self, servable: Servable, rows: Sequence[IncomingRow], request_id: str, who: str | None, began: float
    ) -> bytes:
        """The response's body, after its rows were written to the log. Raises Rejected over the caller's limits."""
        await self._pay(who, len(rows))
        answers = await self._answers(servable, rows)
        answer = self._log(servable, rows, answers, request_id, who, began)
        if answer is None:
            self.access.give_back(who, len(rows))
            raise Rejected(503, "The answer cannot be put into the request log, and is not given without; ask again.")
        self.metrics.observe(servable.spec.name, time.perf_counter() - began)
        self._queue_shadow(servable, rows, request_id)
        return answer

    async def explain(self, model: str, request: Request) -> Response:
        """What moved one row's score, by the version that answers first; worked out in a child process.

        It costs its caller a row, and is not in the log, since it is no prediction.
        """
        try:
            answer = await self._explained(model, request)
            self.metrics.count(self.metrics.requests, model, "200")
            return answer
        except Rejected as error:
            return self._refusal(model, error)

    def _refusal(self, model: str, error: Rejected) -> Response:
        label = model if model in self.servables.current else "-"  # callers must not add labels without end
        self.metrics.count(self.metrics.requests, label, str(error.status))
        return refusal(error)

    async def _explained(self, model: str, request: Request) -> Response:
        headers = dict(request.scope["headers"])
        caller = await self._who(request.scope, headers)
        if not self._explains:
            raise Rejected(
                403, "Explanations are not given here; whoever runs the service may set TILTYARD_SERVE_EXPLAIN."
            )
        servable = self._servable(model, caller)
        content = parsed(await self._body(headers, request.receive))
        rows, request_id = rows_of(content, servable, self.now(), 1)
        await self._pay(caller.name, 1)
        await self._look_up(servable, rows)
        version = servable.champion or servable.previous
        if version is None:
            raise Rejected(503, f"No version of {model} is in service; there is nothing to explain.")
        if (lack := rows[0].lacks(version.features)) is not None:
            raise Rejected(
                503 if lack == "store_unavailable" else 422,
                f"The row's features cannot be had ({lack}); give them under features, or ask again.",
            )
        try:
            values = version.matrix([rows[0].values])[0].tolist()
        except TypeError:
            raise Rejected(
                422,
                f"A feature of this row is held as another kind than version {version.number} was trained with; "
                "give it under features.",
            ) from None
        try:
            explained = await self.explainer.ask(servable.roster.versions[version.number], values)
        except Unavailable as error:
            raise Rejected(503, str(error)) from None
        decimals = self._decimals
        return _json(
            {
                "request_id": request_id or self._new_id(),
                "model": model,
                "version": version.number,
                "score": rounded(explained.score, decimals),
                "base": rounded(explained.base, decimals),
                **({"class": explained.of} if explained.of else {}),
                "contributions": {name: rounded(value, decimals) for name, value in explained.contributions.items()},
                "method": explained.method,
            }
        )

    def _new_id(self) -> str:
        return f"{self._boot}-{next(self._numbers):x}"

    def _servable(self, model: str, caller: Admitted) -> Servable:
        if not caller.may_ask(model):
            own = ", ".join(sorted(caller.models or ()))
            raise Rejected(403, f"This API key may not ask for '{model[:60]}'; its models are: {own}.")
        servable = self.servables.current.get(model)
        if servable is None:
            models = ", ".join(filter(caller.may_ask, sorted(self.servables.current))) or "none yet"
            raise Rejected(404, f"There is no model '{model[:60]}' in service; the models are: {models}.")
        return servable

    async def _who(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Admitted:
        """The caller, by the API key. Raises Rejected without a good one, later where many came before."""
        presented = headers.get(b"x-api-key")
        caller = self.access.who(presented)
        if isinstance(caller, Admitted):
            return caller
        address = neighbourhood(scope["client"][0]) if scope.get("client") else ""
        if presented and self.access.wrong_keys.is_too_fast(address, time.monotonic()):
            if self._kept_back < KEPT_BACK:
                self._kept_back += 1
                try:
                    await asyncio.sleep(access.WRONG_S)
                finally:
                    self._kept_back -= 1
            raise Rejected(
                429,
                "Too many wrong API keys came from this address; send the right one, or one a second.",
                {"Retry-After": "1", "Connection": "close"},
            )
        raise _refused(caller)

    async def _pay(self, who: str | None, rows: int) -> None:
        """Let `rows` pass, of this host and of all that share its Redis. Raises Rejected over the caller's limits."""
        now, budget = time.time(), self.access.limits_of(who).budget
        if (refused := self.access.take(who, rows, now)) is not None:
            raise _refused(refused)
        if budget is None or not isinstance(self.store, RedisStore):
            return
        try:
            used = await self.store.spend(who or access.EVERYBODY, int(now // access.DAY), rows, budget)
            self._troubles.pop("budget", None)
        except Unavailable as error:
            trouble = f"budget: {error} Each host counts alone."
            if self._troubles.get("budget") != trouble:
                log.warning("%s", trouble)
            self._troubles["budget"] = trouble
            return
        if used is not None:
            self.access.give_back(who, rows)
            raise _refused(access.over(budget, used, rows, now))

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The request's whole body. Raises Rejected for one that is too large, or no JSON by what it says of itself."""
        most = self.settings.serve_max_bytes
        kind = headers.get(b"content-type", JSON)
        if kind != JSON:  # nearly every request says exactly this
            _check_media_type(kind.decode("latin-1"))
        if is_longer(headers.get(b"content-length", b""), most):
            raise Rejected(413, _TOO_LARGE.format(most))
        body, is_more = b"", True
        while is_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Rejected(400, "The connection ended before the request did.")
            body += message.get("body", b"")
            if len(body) > most:
                raise Rejected(413, _TOO_LARGE.format(most))
            is_more = message.get("more_body", False)
        return body

    # -- features -------------------------------------------------------------------------------------------

    async def _look_up(self, servable: Servable, rows: Sequence[IncomingRow]) -> None:
        """Fill every row's values, and note on it what could not be had."""
        kinds, plan = servable.kinds, servable.plan
        incomplete = [row for row in rows if row.keys and not (kinds and row.given.keys() >= kinds.keys())]
        try:
            if self.store.is_local:
                lookups = [lookup.find(self.store, plan, row.keys, row.at) for row in incomplete]
            else:
                lookups = await lookup.afind_many(self.store, plan, [(row.keys, row.at) for row in incomplete])
        except Unavailable:
            for row in incomplete:
                row.is_store_away = True
        else:
            for row, answer in zip(incomplete, lookups, strict=True):
                row.values, row.views, row.stale = answer.values, answer.views, answer.refused
                for view in answer.absent:  # of a caller's first ticket, say: null is what training had there, too
                    row.values |= self._nulls.get(view, {})
        for row in rows:
            if row.given:
                row.values = {**row.values, **row.given}

    # -- tiers ----------------------------------------------------------------------------------------------

    async def _answers(self, servable: Servable, rows: Sequence[IncomingRow]) -> list[RowAnswer]:
        """An answer for every row: the safe default where the service itself is at fault."""
        try:
            await self._look_up(servable, rows)
            return await self._raced(servable, rows)
        except Exception:
            log.exception("%s is answered by its safe default", servable.spec.name)
            said = default(servable.spec)
            return [RowAnswer(said, "safe_default", fallback.SERVICE_FAILED, None, "champion") for _ in rows]

    async def _raced(self, servable: Servable, rows: Sequence[IncomingRow]) -> list[RowAnswer]:
        race = Race(servable, rows, self._deadlines, self.lane, self.metrics.fell)
        if race.asks:
            await race.go()
        return race.answers()

    def lane(self, model: str, version: LoadedVersion) -> Lane:
        """The lane that the version races in, made with its first job."""
        if version.lane is None:
            version.lane = Lane(version.scorer.score_matrix, self._loop, f"{model}/{version.number}")
            if version.is_closed:
                version.lane.close()
        return version.lane

    # -- the log ------------------------------------------------------------------------------------------------

    def _log(
        self,
        servable: Servable,
        rows: Sequence[IncomingRow],
        answers: Sequence[RowAnswer],
        request_id: str,
        who: str | None,
        began: float,
    ) -> bytes | None:
        """Write every row to the log, count it, and give the response's body. None: the log does not take it."""
        model, decimals = servable.spec.name, self._decimals
        scored_at = datetime.fromtimestamp(self.now(), UTC)
        latency_us = round((time.perf_counter() - began) * 1e6)
        records, predictions = [], []
        items, snapshot = servable.roster.popular, servable.roster.snapshot
        for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            records.append(
                orjson.dumps(
                    {
                        "kind": "request",
                        "request_id": request_id,
                        "row": number,
                        "model": model,
                        "arm": answer.arm,
                        "version": answer.version,
                        "tier": answer.tier,
                        "reason": answer.reason,
                        "score": answer.said.score,
                        "scores": answer.said.shares,
                        "entity_id": row.entity_id,
                        "prediction_time": datetime.fromtimestamp(row.at, UTC),
                        "scored_at": scored_at,
                        "latency_us": latency_us,
                        "snapshot": snapshot,
                        "features": row.values,
                        "given": list(row.given),
                        "views": row.views,
                        "key": who,
                    }
                )
            )
            prediction: dict[str, object] = {
                "score": rounded(answer.said.score, decimals),
                "served_by": answer.tier,
                "version": answer.version,
                "arm": answer.arm,
                "degraded": answer.tier != answer.arm,
                "reason": answer.reason,
            }
            if answer.said.shares:
                prediction["class"] = answer.said.likeliest
                prediction["scores"] = {name: rounded(share, decimals) for name, share in answer.said.shares.items()}
            if items and answer.tier == "safe_default":
                prediction["items"] = items
            predictions.append(prediction)
        if not self.spool.write(records) and not self.settings.serve_unlogged:
            return None
        for answer in answers:
            self.metrics.count(self.metrics.answers, model, answer.tier, answer.reason)
        return orjson.dumps({"request_id": request_id, "model": model, "predictions": predictions})

    # -- about the service --------------------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        """The models in service that the caller may ask for. Raises Rejected without a good key."""
        caller = await self._who(request.scope, dict(request.scope["headers"]))
        current = sorted(self.servables.current.items())
        return _json([_described(servable) for name, servable in current if caller.may_ask(name)])

    def ready(self, request: Request) -> Response:
        """Whether it may have traffic; and what is not as it should be, for those who may see that."""
        current = self.servables.current
        body: dict[str, object] = {"status": "ready" if current else "no model is in service"}
        caller = self.access.who(dict(request.scope["headers"]).get(b"x-api-key"))
        if isinstance(caller, Admitted) and caller.is_operator:
            troubles = [self.servables.trouble, *self._troubles.copy().values()]
            body |= {
                "models": len(current),
                "ledger_age_s": None if self.servables.heard_at is None else round(self.ledger_age(), 1),
                "trouble": "; ".join(filter(None, troubles)) or None,
                "refused": {name: servable.unloaded for name, servable in sorted(current.items()) if servable.unloaded},
                "log_dropped": self.spool.dropped,
            }
        return _json(body, 200 if current else 503)

    async def page(self, request: Request) -> Response:
        """Metrics for Prometheus. Raises Rejected without the key of an operator."""
        caller = await self._who(request.scope, dict(request.scope["headers"]))
        if not caller.is_operator:
            raise Rejected(
                403,
                "This API key may not read the metrics; whoever runs the service may name it in "
                "TILTYARD_SERVE_OPERATORS.",
            )
        return Response(self.metrics.page(self.servables.current), media_type=CONTENT_TYPE_LATEST)

    # -- shadow ---------------------------------------------------------------------------------------------

    def _queue_shadow(self, servable: Servable, rows: Sequence[IncomingRow], request_id: str) -> None:
        model = servable.spec.name
        for version in servable.challengers:
            shadow = version.shadow or self._shadow_of(model, version)
            for number, row in enumerate(rows):
                if row.lacks(version.features) is None and not shadow.put((request_id, number), row.values):
                    self.metrics.count(self.metrics.shadow, model, "dropped")

    def _shadow_of(self, model: str, version: LoadedVersion) -> Shadow:
        name, tell = f"{model}/{version.number} shadow", partial(self._log_shadow, model, version.number)
        version.shadow = Shadow(
            lambda rows: version.scorer.score_matrix(version.matrix(rows)),
            self._loop,
            name,
            tell,
            version.scorer.target,
        )
        if version.is_closed:
            version.shadow.close()
        return version.shadow

    def _log_shadow(self, model: str, version: int, scores: Sequence[tuple[RowId, Said | None]]) -> None:
        """Write a challenger's scores to the log; None where it has none, which harms nobody."""
        scored_at = datetime.fromtimestamp(self.now(), UTC)
        records = [
            orjson.dumps(
                {
                    "kind": "shadow",
                    "request_id": request_id,
                    "row": number,
                    "model": model,
                    "version": version,
                    "score": said.score if said else None,
                    "scores": said.shares if said else None,
                    "scored_at": scored_at,
                }
            )
            for (request_id, number), said in scores
        ]
        self.spool.write(records)
        for _, score in scores:
            self.metrics.count(self.metrics.shadow, model, "failed" if score is None else "scored")


# -- plumbing ----------------------------------------------------------------------------------------------


class _Answered(Response):
    """200 and JSON. Starlette's own way to the same two headers costs as much as making the body."""

    def __init__(self, body: bytes) -> None:
        self.status_code, self.background, self.body = 200, None, body
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]


def _check_media_type(field: str) -> None:
    """Raises Rejected, 415, for a body that is not JSON, or not in UTF-8."""
    media = media_type(field)
    if media is None or not media.is_json:
        raise Rejected(415, f"Send the request as application/json, not as {field[:60]}.")
    if not media.is_utf_8:
        raise Rejected(415, f"Send the request in UTF-8, as JSON is, not in {str(media.charset)[:60]}.")


def _json(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS), status, media_type="application/json")


def _described(servable: Servable) -> dict[str, object]:
    """A model as GET /v1/models has it."""

    def version(holder: LoadedVersion | None) -> dict[str, object] | None:
        return None if holder is None else {"version": holder.number, "breaker": holder.breaker.state}

    spec = servable.spec
    return {
        "model": spec.name,
        "champion": version(servable.champion),
        "previous": version(servable.previous),
        "challengers": [version(challenger) for challenger in servable.challengers],
        "refused": dict(servable.unloaded),
        "tiers": list(spec.fallback.tiers),
        "safe_default": spec.fallback.safe_default,
        "deadline_ms": spec.fallback.deadline_ms,
        "traffic": {"challenger": spec.traffic.challenger},
        "keys": sorted(servable.keys),
        "features": dict(servable.kinds),
        "snapshot": servable.roster.snapshot,
    }


def _refused(refused: Refused) -> Rejected:
    headers = {"Retry-After": str(refused.retry_after_s)} if refused.retry_after_s else {}
    return Rejected(refused.status, refused.sentence, headers)


def refusal(error: Rejected) -> Response:
    """What a caller is told whose request cannot be answered."""
    return Response(
        orjson.dumps({"error": str(error)}), error.status, headers=error.headers, media_type="application/json"
    )
