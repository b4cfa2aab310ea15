"""Challengers score the rows that were answered, unseen: beside the path, from a bounded queue, each on its own thread.

A challenger with a share of the traffic has another thread for that: it races a deadline and must not wait behind rows
that nobody waits for. A call that hangs keeps its own challenger from scoring, and no other.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tiltyard.online.store import Value
from tiltyard.serve.lane import Job, Lane, Scores
from tiltyard.target import YES_OR_NO, Said, Target

QUEUE = 1_000
"""Number of rows of one challenger that may wait for their scores; more are dropped."""
EVERY_S = 0.05
"""Seconds for which rows are gathered: they go to the thread together, after the requests that brought them."""
HANGS_S = 10.0
"""Seconds after which a call is given up: its rows have failed, and later ones go to another thread."""

RowId = tuple[str, int]
"""(request id, number of the row within the request)."""
Tell = Callable[[Sequence[tuple[RowId, Said | None]]], None]
"""Takes rows with their scores; None where a row has no usable score."""


class Shadow:
    """The rows that one challenger has still to score. Use it from the event loop."""

    def __init__(
        self,
        score: Callable[[list[Mapping[str, Value]]], Scores],
        loop: asyncio.AbstractEventLoop,
        name: str,
        tell: Tell,
        target: Target = YES_OR_NO,
    ) -> None:
        """`score` reads rows as they were logged, (rows, *shape) scores come back; `tell` gets every row that was
        put."""
        self._lane = Lane(lambda rows: score(rows.tolist()), loop, name)
        self._loop = loop
        self._tell = tell
        self._target = target
        self._waiting: dict[Job, RowId] = {}
        """Rows for the next turn."""
        self._under_way: dict[Job, RowId] = {}
        """Rows that the thread has."""
        self._scored: list[tuple[RowId, Said | None]] = []
        """Rows to tell of, in this turn of the loop."""

    def put(self, row_id: RowId, values: Mapping[str, Value]) -> bool:
        """Score this row some time. False when too many rows wait already."""
        if len(self._waiting) + len(self._under_way) >= QUEUE:
            return False
        if not self._waiting and not self._under_way:
            self._loop.call_later(EVERY_S, self._turn)
        rows = np.empty(1, dtype=object)  # encoded on the thread, where a row that cannot be encoded fails alone
        rows[0] = values
        job = Job(rows, float("inf"), lambda scores, error: self._come(job, scores, error))
        self._waiting[job] = row_id
        return True

    def close(self) -> None:
        """May be called from any thread. The rows that wait are still scored."""
        self._lane.close()

    def _turn(self) -> None:
        if self._lane.stuck_s > HANGS_S and self._lane.replace():
            self._scored += [(row_id, None) for row_id in self._under_way.values()]
            self._under_way = {}
            self._say()
        for job in self._waiting:
            self._lane.put(job)
        self._under_way |= self._waiting
        self._waiting = {}
        if self._under_way:
            self._loop.call_later(EVERY_S, self._turn)

    def _come(self, job: Job, scores: Scores | None, error: BaseException | None) -> None:
        row_id = self._under_way.pop(job, None)
        if row_id is None:  # its call hung, and it was told of as failed
            return
        if not self._scored:
            self._loop.call_soon(self._say)
        said = None
        if scores is not None and getattr(scores, "shape", None) == (1, *self._target.shape):
            said = self._target.said(scores[0]) if self._target.is_scored(scores)[0] else None
        self._scored.append((row_id, said))

    def _say(self) -> None:
        scored, self._scored = self._scored, []
        if scored:
            self._tell(scored)
