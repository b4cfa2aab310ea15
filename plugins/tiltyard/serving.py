"""`tiltyard serve`: the service that answers, whatever breaks. FastAPI on uvicorn; loopback unless told otherwise.

A request is checked, its features are looked up where they are not given, the light twin's score is computed at once,
and the heavy model races its deadline on a thread of its own (`lane`); half-way to the deadline the previous champion
is asked as well (a hedged request: Dean & Barroso, The Tail at Scale, CACM 56(2), 2013). The first declared tier that
has a usable score answers (`fallback`), else the safe default; the answer says who, and why it was not the champion.
It is in the request log before it is on the wire. Challengers score afterwards, beside the path, from a bounded queue.
"""

import asyncio
import hashlib
import itertools
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from tiltyard import access, api, clock, fallback, online
from tiltyard.access import Access, Refused, rounded
from tiltyard.errors import BadInput, Unavailable
from tiltyard.lane import Job, Lane
from tiltyard.servable import Servable, Servables, Value, Version
from tiltyard.settings import Settings
from tiltyard.spool import Spool

log = logging.getLogger(__name__)

AHEAD_S = 60.0
"""How far a prediction time may lie ahead of the service's clock."""
REMEMBERED = 10_000
"""Answers kept for request ids that come again."""
QUEUE = 1_000
"""Rows waiting for their shadow scores; more are dropped, and counted."""
SHADOW_EVERY_S = 0.05
TEXT = 1_000
"""The longest text that a feature, a key or an entity may be."""
HEDGE = 0.5
"""Share of the deadline after which the previous champion is asked beside the champion."""
HANGS = 3.0
"""A call that takes so many deadlines is taken to hang: the next probe gets another thread."""
CLOCK = "TILTYARD_SERVE_CLOCK"
"""How far the service's clock is ahead of the wall's, seconds; set by `run` for its worker processes."""
BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_ROW = {"entity_id", "keys", "features", "prediction_time"}
_BODY = {"rows", "request_id"}


class Rejected(Exception):
    """A request that cannot be answered: an HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(slots=True)
class Row:
    """One row of a request, checked: what it speaks for, and what is known of it."""

    entity_id: str | None
    keys: dict[str, str]
    given: dict[str, Value]
    at: float
    """Its prediction time, epoch seconds."""
    values: dict[str, Value]
    """Looked up, and given: the given ones win."""
    views: dict[str, list[Any] | None]
    trouble: fallback.Outcome | None
    """Why the heavy tiers may not score it."""


@dataclass(slots=True)
class Answer:
    score: float
    tier: fallback.Tier
    reason: str
    version: int | None
    arm: str


class Metrics:
    """What Prometheus is told; children of the hot path are kept, so that a request looks up a dict."""

    def __init__(self, service: "Service") -> None:
        self.registry = CollectorRegistry()
        keep = {"registry": self.registry}
        self.requests = Counter("tiltyard_requests", "HTTP answers of predict.", ["model", "status"], **keep)
        self.answers = Counter("tiltyard_answers", "Rows answered.", ["model", "tier", "reason"], **keep)
        self.latency = Histogram("tiltyard_latency_seconds", "From request to answer.", ["model"], buckets=BUCKETS, **keep)
        self.falls = Counter("tiltyard_tier_failures", "What became of a tier.", ["model", "tier", "outcome"], **keep)
        self.shadow = Counter("tiltyard_shadow", "Rows for shadow scoring.", ["model", "outcome"], **keep)
        for name, said, read in (
            ("tiltyard_log_records", "Records written to the request log.", lambda: service.spool.written),
            ("tiltyard_log_dropped", "Records the request log could not take.", lambda: service.spool.dropped),
            ("tiltyard_ledger_age_seconds", "Since the ledger was heard; -1: never.", service.ledger_age),
            ("tiltyard_models", "Models in service.", lambda: len(service.servables.current)),
        ):
            Gauge(name, said, **keep).set_function(read)
        self._breaker = Gauge("tiltyard_breaker_open", "1 while a version is not asked.", ["model", "version"], **keep)
        self._role = Gauge("tiltyard_version", "Version number per role; 0: none.", ["model", "role"], **keep)
        self._children: dict[tuple[Any, ...], Any] = {}

    def count(self, counter: Counter, *labels: str, by: int = 1) -> None:
        key = (counter, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = counter.labels(*labels)
        child.inc(by)

    def observe(self, model: str, seconds: float) -> None:
        child = self._children.get(model)
        if child is None:
            child = self._children[model] = self.latency.labels(model)
        child.observe(seconds)

    def page(self, current: Mapping[str, Servable]) -> bytes:
        for name, one in current.items():
            for version in dict.fromkeys(filter(None, (one.champion, one.previous, *one.challengers))):
                self._breaker.labels(name, version.number).set(version.breaker.state != "closed")
            for role, seated in (("champion", one.champion), ("previous", one.previous), ("challenger", one.challenger)):
                self._role.labels(name, role).set(seated.number if seated else 0)
        return generate_latest(self.registry)


class Service:
    """Everything that answers: the models in service, the store, the log. Made in the process that serves."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.now = now
        self.servables = Servables(settings)
        self.store = online.connect(settings)
        self.spool = Spool(settings.spool)
        self.access = Access.of(settings)
        self.metrics = Metrics(self)
        self._boot = uuid.uuid4().hex[:12]
        self._numbers = itertools.count()
        self._remembered: OrderedDict[tuple[str, str], tuple[bytes, bytes]] = OrderedDict()
        self._shadow: deque[tuple[Version, str, str, int, dict[str, Value]]] = deque()
        self._shadowing: set[Any] = set()
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- life -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Put in service what is kept here, ask the ledger once, and go on asking in the background."""
        self._loop = asyncio.get_running_loop()
        if not self.servables.restore():
            self.servables.refresh()
        threading.Thread(target=self._refresh, name="refresh", daemon=True).start()
        threading.Thread(target=self._score_shadow, name="shadow", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()
        self.servables.close()
        self.spool.close()
        self.store.close()
        self.access.close()

    def ledger_age(self) -> float:
        heard = self.servables.heard_at
        return -1.0 if heard is None else time.time() - heard

    def _refresh(self) -> None:
        while not self._stop.is_set():
            self.servables.refresh()
            self._stop.wait(self.settings.serve_refresh_s)

    # -- a request ------------------------------------------------------------------------------------------

    async def predict(self, model: str, request: Request) -> Response:
        """The whole of a prediction: admitted, read, looked up, scored, logged, answered."""
        began = time.perf_counter()
        try:
            servable = self._servable(model)
            body = await self._body(request)
            content = _parsed(body)
            rows, request_id = _request(content, servable, self.now(), self.settings.serve_max_rows)
            who = self._admit(request, len(rows))
            again = self._again(model, request_id, body) if request_id else None
            if again is not None:
                self.metrics.count(self.metrics.requests, model, "200")
                return Response(again, media_type="application/json")
            if request_id is None:
                request_id = f"{self._boot}-{next(self._numbers):x}"
            await self._look_up(servable, rows)
            answers = await self._answer(servable, rows)
            answer = self._log(servable, rows, answers, request_id, who, began)
            if "request_id" in content:
                self._remember(model, request_id, body, answer)
            self.metrics.count(self.metrics.requests, model, "200")
            self.metrics.observe(model, time.perf_counter() - began)
            self._queue_shadow(servable, rows, request_id)
            return Response(answer, media_type="application/json")
        except Rejected as error:
            known = model if model in self.servables.current else "-"
            self.metrics.count(self.metrics.requests, known, str(error.status))
            return refusal(error)

    def _servable(self, model: str) -> Servable:
        found = self.servables.current.get(model)
        if found is None:
            known = ", ".join(sorted(self.servables.current)) or "none yet"
            raise Rejected(404, f"There is no model '{model[:60]}' in service; the models are: {known}.")
        return found

    def _admit(self, request: Request, rows: int) -> str | None:
        """The name of the caller's key; None where no key is asked for."""
        presented = request.headers.get("x-api-key")
        found = self.access.check(presented.encode() if presented is not None else None, rows, time.time())
        if isinstance(found, Refused):
            headers = {"Retry-After": str(max(1, round(found.retry_after_s)))} if found.retry_after_s else None
            raise Rejected(found.status, found.sentence, headers)
        return found.name

    async def _body(self, request: Request) -> bytes:
        most = self.settings.serve_max_bytes
        kind = request.headers.get("content-type", "application/json")
        if not kind.startswith("application/json"):
            raise Rejected(415, f"Send the request as application/json, not as {kind[:60]}.")
        declared = request.headers.get("content-length", "")
        too_large = Rejected(413, f"The body is larger than {most} bytes; send fewer rows at once.")
        if declared.isdigit() and int(declared) > most:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
        except ClientDisconnect:
            raise Rejected(400, "The connection ended before the request did.") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # -- features -------------------------------------------------------------------------------------------

    async def _look_up(self, servable: Servable, rows: Sequence[Row]) -> None:
        """Fill every row's values, and say why the heavy tiers may not score it where they may not."""
        down = False
        for row in rows:
            if row.keys and not down and any(name not in row.given for name in servable.kinds):
                try:
                    if self.store.is_local:
                        found = online.lookup(self.store, servable.plan, row.keys, row.at)
                    else:
                        found = await online.alookup(self.store, servable.plan, row.keys, row.at)
                except Unavailable:
                    down, row.trouble = True, "store_unavailable"
                else:
                    row.values, row.views = found.values, found.views
                    if len(found.missing) == len(servable.spec.prediction.features) and not row.given:
                        row.trouble = "features_missing"  # nobody there is known by this key
                    elif found.stale and any(name not in row.given for name in servable.plan.columns(found.stale)):
                        row.trouble = "features_stale"
            elif row.keys and down:
                row.trouble = "store_unavailable"
            row.values = {**row.values, **row.given} if row.given else row.values

    # -- tiers ----------------------------------------------------------------------------------------------

    async def _answer(self, servable: Servable, rows: Sequence[Row]) -> list[Answer]:
        spec = servable.spec
        race = Race(self, servable, rows)
        if race.asks:
            await race.run(spec.fallback.deadline_ms / 1000)
        return race.answers()

    def lane(self, model: str, version: Version) -> Lane:
        if version.lane is None:
            assert self._loop is not None
            version.lane = Lane(version.scorer.score_matrix, self._loop, f"{model}/{version.number}")
        return version.lane

    # -- the log, and answers that are asked for again --------------------------------------------------------

    def _log(
        self,
        servable: Servable,
        rows: Sequence[Row],
        answers: Sequence[Answer],
        request_id: str,
        who: str | None,
        began: float,
    ) -> bytes:
        """Write every row to the log, count it, and give the answer's body."""
        model, decimals = servable.spec.name, self.settings.serve_decimals
        scored_at = _iso(self.now())
        took = round((time.perf_counter() - began) * 1e6)
        records, predictions = [], []
        items = servable.kept.popular
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
                        "score": answer.score,
                        "entity_id": row.entity_id,
                        "prediction_time": _iso(row.at),
                        "scored_at": scored_at,
                        "latency_us": took,
                        "snapshot": servable.kept.snapshot,
                        "features": row.values,
                        "given": list(row.given),
                        "views": row.views,
                        "key": who,
                    }
                )
            )
            said: dict[str, Any] = {
                "score": answer.score if decimals is None else rounded(answer.score, decimals),
                "served_by": answer.tier,
                "version": answer.version,
                "arm": answer.arm,
                "degraded": answer.tier != answer.arm,
                "reason": answer.reason,
            }
            if items and answer.tier == "safe_default":
                said["items"] = items
            predictions.append(said)
            self.metrics.count(self.metrics.answers, model, answer.tier, answer.reason)
        self.spool.write(records)
        return orjson.dumps({"request_id": request_id, "model": model, "predictions": predictions})

    def _again(self, model: str, request_id: str, body: bytes) -> bytes | None:
        """The answer that this very request has had; a new request under an old id is refused."""
        kept = self._remembered.get((model, request_id))
        if kept is None:
            return None
        if kept[0] != hashlib.sha256(body).digest():
            raise Rejected(409, f"The request id '{request_id}' was used for another request; give every request its own.")
        return kept[1]

    def _remember(self, model: str, request_id: str, body: bytes, answer: bytes) -> None:
        self._remembered[model, request_id] = (hashlib.sha256(body).digest(), answer)
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    # -- what is said of the service ----------------------------------------------------------------------------

    def models(self, request: Request) -> Response:
        try:
            self._admit(request, 0)
        except Rejected as error:
            return refusal(error)
        return _json([_described(one) for _, one in sorted(self.servables.current.items())])

    def ready(self) -> Response:
        current = self.servables.current
        body = {
            "status": "ready" if current else "no model is in service",
            "models": len(current),
            "ledger_age_s": None if self.servables.heard_at is None else round(self.ledger_age(), 1),
            "trouble": self.servables.trouble,
            "refused": {name: one.refused for name, one in sorted(current.items()) if one.refused},
            "log_dropped": self.spool.dropped,
        }
        return _json(body, 200 if current else 503)

    def page(self, request: Request) -> Response:
        try:
            self._admit(request, 0)
        except Rejected as error:
            return refusal(error)
        return Response(self.metrics.page(self.servables.current), media_type=CONTENT_TYPE_LATEST)

    # -- shadow ---------------------------------------------------------------------------------------------

    def _queue_shadow(self, servable: Servable, rows: Sequence[Row], request_id: str) -> None:
        if not servable.challengers:
            return
        model = servable.spec.name
        for number, row in enumerate(rows):
            if row.trouble is None:
                for version in servable.challengers:
                    if len(self._shadow) >= QUEUE:
                        self.metrics.count(self.metrics.shadow, model, "dropped")
                    else:
                        self._shadow.append((version, model, request_id, number, row.values))

    def _score_shadow(self) -> None:
        """The shadow's thread: takes what waits, version by version, and hands the scores to the log."""
        while not self._stop.wait(SHADOW_EVERY_S):
            waiting: dict[Version, list[tuple[Version, str, str, int, dict[str, Value]]]] = {}
            for _ in range(len(self._shadow)):
                entry = self._shadow.popleft()
                waiting.setdefault(entry[0], []).append(entry)
            for version, entries in waiting.items():
                try:
                    scores = version.scorer.score_matrix(version.matrix([entry[4] for entry in entries]))
                    found: list[float | None] = [float(score) if np.isfinite(score) else None for score in scores]
                except Exception as error:  # a challenger that cannot score harms nobody; the log says that it did not
                    log.debug("version %s does not score in shadow: %s", version.number, error)
                    found = [None] * len(entries)
                scored_at = _iso(self.now())
                records = [
                    orjson.dumps(
                        {
                            "kind": "shadow",
                            "request_id": request_id,
                            "row": number,
                            "model": model,
                            "version": version.number,
                            "score": score,
                            "scored_at": scored_at,
                        }
                    )
                    for (_, model, request_id, number, _), score in zip(entries, found, strict=True)
                ]
                assert self._loop is not None
                with suppress(RuntimeError):  # the loop is closed: the service ends
                    self._loop.call_soon_threadsafe(self._log_shadow, entries[0][1], records)

    def _log_shadow(self, model: str, records: list[bytes]) -> None:
        self.spool.write(records)
        self.metrics.count(self.metrics.shadow, model, "scored", by=len(records))


class Race:
    """The tiers of one request against its deadline."""

    def __init__(self, service: Service, servable: Servable, rows: Sequence[Row]) -> None:
        self._service = service
        self._servable = servable
        self._rows = rows
        self._spec = servable.spec
        self._low, self._high = servable.spec.bounds
        share = servable.spec.traffic.challenger
        challenger = servable.challenger if share else None
        self._is_challengers = [
            challenger is not None and row.entity_id is not None and in_share(self._spec.name, row.entity_id, share)
            for row in rows
        ]
        tiers = self._spec.fallback.tiers
        seats: dict[fallback.Seat, Version | None] = {
            "challenger": challenger if any(self._is_challengers) else None,
            "champion": servable.champion if "champion" in tiers and not all(self._is_challengers) else None,
            "previous": servable.previous if "previous" in tiers else None,
        }
        self._seats = seats
        self._scores: dict[fallback.Seat, Any] = {}
        """What came back: an array of one score a row, or None."""
        self._outcomes: dict[fallback.Seat, fallback.Outcome] = {}
        """Of a tier as a whole, where it has no scores."""
        self._pending: set[fallback.Seat] = set()
        self._waiter: asyncio.Future[None] | None = None
        self._light = self._score_light() if "light" in tiers else None
        self._able = [row.trouble is None for row in rows]
        self.asks = any(self._able) and any(seats.values())

    def _score_light(self) -> Any:
        """The light twin's scores, computed before anything else is asked; None where there is none."""
        champion = self._servable.champion
        if champion is None:
            return None
        try:
            values = champion.scorer.score_light_matrix(champion.matrix([row.values for row in self._rows]))
        except Exception:  # another tier answers, and the reason says that this one could not
            self._outcomes["light"] = "raised"
            return None
        if values.shape != (len(self._rows),):
            self._outcomes["light"] = "wrong_shape"
            return None
        return values

    async def run(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        expires = time.monotonic() + deadline
        self._waiter = loop.create_future()
        first: fallback.Seat
        for first in ("challenger", "champion"):
            self._ask(first, expires)
        hedge = None
        if self._wants_previous():
            if self._pending:
                hedge = loop.call_later(deadline * HEDGE, self._hedge, expires)
            else:
                self._ask("previous", expires)
        if not self._pending:
            return
        timer = loop.call_later(deadline, self._expire)
        try:
            await self._waiter
        finally:
            timer.cancel()
            if hedge is not None:
                hedge.cancel()
            self._waiter = None

    def _wants_previous(self) -> bool:
        return self._seats["previous"] is not None and "previous" not in self._scores

    def _hedge(self, expires: float) -> None:
        if self._waiter is not None and "previous" not in self._pending:
            self._ask("previous", expires)

    def _expire(self) -> None:
        """The deadline: who has not answered is late, and everybody else answers."""
        now = time.monotonic()
        for seat in self._pending:
            self._outcomes[seat] = "late"
            version = self._seats[seat]
            assert version is not None
            version.breaker.failed(now)
        self._pending.clear()
        self._finish()

    def _finish(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ask(self, seat: fallback.Seat, expires: float) -> None:
        version = self._seats[seat]
        if version is None:
            return
        now = time.monotonic()
        if not version.breaker.allows(now):
            self._outcomes[seat] = "breaker_open"
            if version.breaker.wants_probe(now):
                self._probe(version, now)
            return
        self._pending.add(seat)
        self._service.lane(self._spec.name, version).put(
            Job(
                version.matrix([row.values for row in self._rows]),
                expires,
                lambda values, error: self._come(seat, version, values, error),
            )
        )

    def _come(self, seat: fallback.Seat, version: Version, values: Any, error: BaseException | None) -> None:
        if seat not in self._pending:  # late: counted at the deadline
            return
        self._pending.discard(seat)
        outcome = self._judged(values, error)
        if outcome == "scored":
            self._scores[seat] = values
            version.breaker.succeeded()
        else:
            self._outcomes[seat] = outcome
            version.breaker.failed(time.monotonic())
            if seat != "previous" and self._wants_previous() and "previous" not in self._pending:
                self._ask("previous", time.monotonic() + self._spec.fallback.deadline_ms / 1000)
        if not self._pending or (seat != "previous" and outcome == "scored" and self._pending == {"previous"}):
            self._finish()

    def _judged(self, values: Any, error: BaseException | None) -> fallback.Outcome:
        """`scored` when at least one row that may be scored has a usable score."""
        if error is not None:
            return "raised"
        if getattr(values, "shape", None) != (len(self._rows),):
            return "wrong_shape"
        if len(values) == 1:
            return self._of(float(values[0]))
        found = [self._of(float(value)) for value, able in zip(values, self._able, strict=True) if able]
        return "scored" if "scored" in found else found[0]

    def _of(self, value: float) -> fallback.Outcome:
        if self._low <= value <= self._high:
            return "scored"
        return "out_of_range" if np.isfinite(value) else "not_finite"

    def _probe(self, version: Version, now: float) -> None:
        """Ask a version whose breaker is open, for nobody: what it says closes the breaker, or does not."""
        deadline = self._spec.fallback.deadline_ms / 1000
        lane = self._service.lane(self._spec.name, version)
        if lane.stuck_s > HANGS * deadline and not lane.replace():
            return

        def come(values: Any, error: BaseException | None) -> None:
            if self._judged(values, error) == "scored" and time.monotonic() - now <= deadline:
                version.breaker.succeeded()
            else:
                version.breaker.failed(time.monotonic())

        lane.put(Job(version.matrix([row.values for row in self._rows]), now + 60.0, come))

    # -- the answers ----------------------------------------------------------------------------------------

    def answers(self) -> list[Answer]:
        service, model = self._service, self._spec.name
        champion = self._servable.champion
        if len(self._rows) == 1 and self._able[0] and not self._is_challengers[0] and champion is not None:
            scores = self._scores.get("champion")
            if scores is not None and self._spec.fallback.tiers[0] == "champion":  # the way of nearly every request
                return [Answer(float(scores[0]), "champion", fallback.IN_SERVICE, champion.number, "champion")]
        found = []
        for number in range(len(self._rows)):
            is_challengers = self._is_challengers[number]
            tiers: tuple[fallback.Seat, ...] = self._spec.fallback.tiers
            if is_challengers:
                tiers = ("challenger", *tiers)
            outcomes = {seat: self._outcome(seat, number) for seat in tiers}
            served = fallback.choose(tiers, outcomes)
            for seat, outcome in served.skipped:
                service.metrics.count(service.metrics.falls, model, seat, outcome)
            arm = "challenger" if is_challengers else "champion"
            found.append(Answer(self._score(served.tier, number), served.tier, served.reason, self._number(served.tier), arm))
        return found

    def _outcome(self, seat: fallback.Seat, number: int) -> fallback.Outcome:
        row, servable = self._rows[number], self._servable
        if seat == "light":
            if servable.champion is None:
                return "absent" if servable.kept.champion is None else "not_loaded"
            if self._light is None:
                return self._outcomes.get("light", "absent")
            return self._of(float(self._light[number])) if row.values else row.trouble or "features_missing"
        seated = {"challenger": servable.challenger, "champion": servable.champion, "previous": servable.previous}[seat]
        declared = {"champion": servable.kept.champion, "previous": servable.kept.previous}.get(seat)
        if seated is None:
            return "not_loaded" if declared is not None else "absent"
        if row.trouble is not None:
            return row.trouble
        scores = self._scores.get(seat)
        return self._of(float(scores[number])) if scores is not None else self._outcomes.get(seat, "late")

    def _score(self, tier: fallback.Tier, number: int) -> float:
        if tier == "safe_default":
            return self._spec.fallback.safe_default
        return float((self._light if tier == "light" else self._scores[tier])[number])

    def _number(self, tier: fallback.Tier) -> int | None:
        if tier == "safe_default":
            return None
        version = self._servable.champion if tier == "light" else self._seats[tier]
        return version.number if version else None


def in_share(model: str, entity_id: str, share: float) -> bool:
    """Does the entity belong to the challenger's share of a model's traffic? The same one always does, or never."""
    digest = hashlib.blake2b(f"{model}|{entity_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share


# -- the app ------------------------------------------------------------------------------------------------


def create_app(settings: Settings, now: Callable[[], float] = time.time) -> FastAPI:
    """The service as an ASGI app. `now` is its clock, epoch seconds: another one than time.time for past data."""
    service: Service | None = None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal service
        service = app.state.service = Service(settings, now)
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title="Tiltyard",
        version="1",
        summary="Predictions of every model in service, whatever breaks.",
        lifespan=lifespan,
        default_response_class=Response,
    )

    def running() -> Service:
        assert service is not None, "the service has not started"
        return service

    @app.post("/v1/models/{model}/predict", **api.PREDICT)
    async def predict(model: str, request: Request) -> Response:
        """Score one or many rows. Features are given, or looked up by entity; the given ones win."""
        return await running().predict(model, request)

    async def fast(request: Request) -> Response:
        return await running().predict(request.path_params["model"], request)

    # The same once more, before FastAPI's own route, which is there to be described: the service reads a request
    # itself, and FastAPI's way of finding out that there is nothing for it to read costs half of what an answer costs.
    app.router.routes.insert(0, Route("/v1/models/{model}/predict", fast, methods=["POST"]))

    @app.post("/v1/models/{model}/explain", **api.EXPLAIN)
    async def explain(model: str, request: Request) -> Response:
        """What each feature adds to one row's score (SHAP), beside the fast path: takes tens of milliseconds."""
        return await running().explain(model, request)

    @app.get("/v1/models", **api.MODELS)
    async def models(request: Request) -> Response:
        """Every model in service: its versions, its features, how its tiers are doing."""
        return running().models(request)

    @app.get("/healthz", **api.HEALTH)
    async def healthz() -> Response:
        """Does the process answer? Says nothing of models."""
        return Response(b'{"status": "ok"}', media_type="application/json")

    @app.get("/readyz", **api.READY)
    async def readyz() -> Response:
        """May it have traffic? 503 until a model is in service. Names what is not as it should be."""
        return running().ready()

    @app.get("/metrics", **api.METRICS)
    async def metrics(request: Request) -> Response:
        """For Prometheus."""
        return running().page(request)

    return app


def from_environment() -> FastAPI:
    """What a worker process of `tiltyard serve` runs: the settings, and TILTYARD_SERVE_CLOCK where it was shifted."""
    shift = float(os.environ.get(CLOCK, "0"))
    return create_app(Settings(), (lambda: time.time() + shift) if shift else time.time)


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

    access.refuse_open(settings)
    _free(settings)
    address = f"http://{settings.serve_host}:{settings.serve_port}"
    say(f"Serving on {address} (try {address}/docs, {address}/readyz). Ctrl-C ends it.")
    os.environ[CLOCK] = str(0.0 if as_of is None else as_of.timestamp() - time.time())
    uvicorn.run(
        "tiltyard.serving:from_environment",
        factory=True,
        host=settings.serve_host,
        port=settings.serve_port,
        workers=settings.serve_workers if settings.serve_workers > 1 else None,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        server_header=False,
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


# -- reading a request --------------------------------------------------------------------------------------


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Rejected(400, f"The body is not JSON: {error}.") from None
    if not isinstance(content, dict):
        raise Rejected(422, 'The body is an object like {"rows": [{"entity_id": "…"}]}.')
    return content


def _request(content: dict[str, Any], servable: Servable, now: float, most: int) -> tuple[list[Row], str | None]:
    """The rows of a request and its id, checked. Raises Rejected with what to mend."""
    if not content.keys() <= _BODY:
        raise Rejected(422, f"Unknown field '{_shown(content.keys() - _BODY)}'; a request has rows and request_id.")
    request_id = content.get("request_id")
    if request_id is not None and (not isinstance(request_id, str) or not _ID.fullmatch(request_id)):
        raise Rejected(422, "request_id is 1 to 128 letters, digits and . _ : -")
    given = content.get("rows")
    if not isinstance(given, list) or not given:
        raise Rejected(422, "rows is a list of at least one row.")
    if len(given) > most:
        raise Rejected(413, f"{len(given)} rows are more than {most}; send them in several requests.")
    return [_row(number, row, servable, now) for number, row in enumerate(given)], request_id


def _row(number: int, content: Any, servable: Servable, now: float) -> Row:
    if not isinstance(content, dict):
        raise Rejected(422, f"rows[{number}] is an object with entity_id, keys, features or prediction_time.")
    if not content.keys() <= _ROW:
        unknown = _shown(content.keys() - _ROW)
        raise Rejected(422, f"rows[{number}] has an unknown field '{unknown}'; features go under features.")
    entity_id = content.get("entity_id")
    if entity_id is not None and not _is_text(entity_id):
        raise Rejected(422, f"rows[{number}].entity_id is text of 1 to {TEXT} characters.")
    keys = content.get("keys") or {}
    if not isinstance(keys, dict) or not all(_is_text(value) for value in keys.values()):
        raise Rejected(422, f"rows[{number}].keys maps key columns to text of 1 to {TEXT} characters.")
    if not keys.keys() <= servable.plan.keys:
        known = ", ".join(sorted(servable.plan.keys))
        raise Rejected(422, f"rows[{number}].keys has '{_shown(keys.keys() - servable.plan.keys)}'; the keys are {known}.")
    if entity_id is not None:
        if keys.get(servable.spec.key, entity_id) != entity_id:
            raise Rejected(422, f"rows[{number}] names two entities: entity_id and keys.{servable.spec.key} differ.")
        keys = {**keys, servable.spec.key: entity_id}
    entity_id = keys.get(servable.spec.key)
    features = content.get("features") or {}
    if not isinstance(features, dict):
        raise Rejected(422, f"rows[{number}].features maps features to values.")
    kinds = servable.kinds
    for name, value in features.items():
        kind = kinds.get(name)
        if kind is None and kinds:
            raise Rejected(422, f"rows[{number}].features has '{name[:60]}', which {servable.spec.name} does not know.")
        if value is not None and not _is_of(value, kind):
            said = {"numeric": "a finite number", "boolean": "true or false"}.get(kind or "", f"text up to {TEXT} characters")
            raise Rejected(422, f"rows[{number}].features.{name[:60]} is {said}, or null where it is not known.")
    at = _instant(content.get("prediction_time"), number, now)
    trouble: fallback.Outcome | None = None
    if not keys and any(name not in features for name in kinds):
        trouble = "features_missing"
    return Row(entity_id, keys, features, at, {}, {}, trouble)


def _instant(text: Any, number: int, now: float) -> float:
    if text is None:
        return now
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            raise ValueError("no zone")
        at = instant.timestamp()
    except (TypeError, ValueError, OverflowError):
        raise Rejected(
            422, f"rows[{number}].prediction_time is an instant with a zone, like 2016-04-02T06:00:00Z."
        ) from None
    if at > now + AHEAD_S:
        raise Rejected(
            422,
            f"rows[{number}].prediction_time lies {at - now:.0f} s in the future of this service, whose clock says "
            f"{_iso(now)}; check the caller's clock.",
        )
    return at


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= TEXT


def _is_of(value: Any, kind: str | None) -> bool:
    if kind == "numeric":
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) != float("inf")
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "categorical":
        return isinstance(value, str) and len(value) <= TEXT
    return isinstance(value, int | float | bool | str)


def _shown(names: Any) -> str:
    return str(min(names, key=str))[:60]


def _json(body: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS), status, media_type="application/json")


def _described(one: Servable) -> dict[str, Any]:
    def version(seated: Version | None) -> dict[str, Any] | None:
        return None if seated is None else {"version": seated.number, "breaker": seated.breaker.state}

    spec = one.spec
    return {
        "model": spec.name,
        "champion": version(one.champion),
        "previous": version(one.previous),
        "challengers": [version(seated) for seated in one.challengers],
        "refused": dict(one.refused),
        "tiers": list(spec.fallback.tiers),
        "safe_default": spec.fallback.safe_default,
        "deadline_ms": spec.fallback.deadline_ms,
        "traffic": {"challenger": spec.traffic.challenger},
        "keys": sorted(one.plan.keys),
        "features": dict(one.kinds),
        "snapshot": one.kept.snapshot,
    }


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def refusal(error: Rejected) -> Response:
    return Response(
        orjson.dumps({"error": str(error)}), error.status, headers=error.headers, media_type="application/json"
    )
