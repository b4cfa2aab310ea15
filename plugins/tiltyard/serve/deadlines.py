"""Many deadlines on one timer of the event loop.

Nearly every deadline is called off milliseconds before it comes. A timer of the loop for each would cost every request
as much as writing its answer to the log; here a deadline is an entry in a heap, and the one timer waits for the
earliest. Use it from one event loop.
"""

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

EARLY_S = 0.001
"""Seconds by which a deadline may come early: the loop's timers count whole milliseconds, which are rounded down."""


class Deadline:
    """One deadline that was set."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call
        """What is called when it comes; None once it has come, or was called off."""

    def cancel(self) -> None:
        """Call it off. Does nothing when it has come already."""
        self.call = None


class Deadlines:
    """The deadlines of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[float, int, Deadline]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    def at(self, instant: float, call: Callable[[], None]) -> Deadline:
        """Call `call` at `instant` (time.monotonic()) or up to EARLY_S before, in a later turn of the loop."""
        deadline = Deadline(call)
        heapq.heappush(self._waiting, (instant, next(self._numbers), deadline))
        if self._timer is None or instant < self._rings_at:
            self._set(instant)
        return deadline

    def _set(self, instant: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = instant
        left_ms = max(1, int((instant - time.monotonic()) * 1e3))
        self._timer = self._loop.call_later(left_ms / 1e3, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now, due = time.monotonic(), []
        while self._waiting and (self._waiting[0][0] <= now + EARLY_S or self._waiting[0][2].call is None):
            due.append(heapq.heappop(self._waiting)[2])
        for deadline in due:  # a deadline that one of these sets comes in a later turn; one that it calls off does not
            call, deadline.call = deadline.call, None
            if call is not None:
                try:
                    call()
                except Exception:  # it is one request's fault; the deadlines of the others come all the same
                    log.exception("a deadline's call failed")
        if self._waiting and (self._timer is None or self._waiting[0][0] < self._rings_at):
            self._set(self._waiting[0][0])
