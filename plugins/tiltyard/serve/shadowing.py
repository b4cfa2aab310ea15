"""Challengers score the rows that were answered, unseen: beside the path, from a bounded queue, each on its own thread.

The thread is another one than that of the challenger's share of the traffic, which races a deadline and must not wait
for rows that nobody waits for. A call that hangs keeps its challenger from scoring, and nobody else.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tiltyard.online.store import Value
from tiltyard.serve.lane import Job, Lane

QUEUE = 1_000
"""Rows of one challenger that wait for their scores; more are dropped."""
EVERY_S = 0.05
"""Rows that come meanwhile go to the thread together, when the requests that brought them are answered."""
HANGS_S = 10.0
"""A call that takes so long is left to itself: its rows have failed, and those that come go to another thread."""

Asked = tuple[str, int]
"""A request's id, and which of its rows."""
Tell = Callable[[Sequence[tuple[Asked, float | None]]], None]


class Shadow:
    """The rows that one challenger has still to score. Use it from the event loop."""

    def __init__(
        self, score: Callable[[list[Mapping[str, Value]]], Any], loop: asyncio.AbstractEventLoop, name: str, tell: Tell
    ) -> None:
        """`score` reads rows as they were logged; `tell` gets every row that was put, None where it has no score."""
        self._lane = Lane(lambda rows: score(rows.tolist()), loop, name)
        self._loop = loop
        self._tell = tell
        self._waiting: dict[Job, Asked] = {}
        self._asked: dict[Job, Asked] = {}
        self._found: list[tuple[Asked, float | None]] = []

    def put(self, asked: Asked, values: Mapping[str, Value]) -> bool:
        """False when too many rows wait already."""
        if len(self._waiting) + len(self._asked) >= QUEUE:
            return False
        if not self._waiting and not self._asked:
            self._loop.call_later(EVERY_S, self._turn)
        rows = np.empty(1, dtype=object)  # encoded on the thread, where a row that cannot be fails alone
        rows[0] = values
        job = Job(rows, float("inf"), lambda scores, error: self._come(job, scores, error))
        self._waiting[job] = asked
        return True

    def close(self) -> None:
        """From any thread: the rows that wait are scored, and no more."""
        self._lane.close()

    def _turn(self) -> None:
        if self._lane.stuck_s > HANGS_S and self._lane.replace():
            self._found += [(asked, None) for asked in self._asked.values()]
            self._asked = {}
            self._say()
        for job in self._waiting:
            self._lane.put(job)
        self._asked |= self._waiting
        self._waiting = {}
        if self._asked:
            self._loop.call_later(EVERY_S, self._turn)

    def _come(self, job: Job, scores: Any, error: BaseException | None) -> None:
        asked = self._asked.pop(job, None)
        if asked is None:  # it hung, and was told of
            return
        if not self._found:
            self._loop.call_soon(self._say)
        is_score = error is None and getattr(scores, "shape", None) == (1,) and np.isfinite(scores[0])
        self._found.append((asked, float(scores[0]) if is_score else None))

    def _say(self) -> None:
        found, self._found = self._found, []
        if found:
            self._tell(found)
