"""A thread of its own for one version of a model: requests race it against their deadline.

The event loop puts matrices in and goes on; what is waiting when the thread looks is scored in one call. A call that
hangs keeps its lane, not the service: whoever waits falls to the next tier at the deadline, and `replace` gives the
version a new thread. Threads that never come back are counted and bounded.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 4096
"""Rows scored in one call, at most."""
DEMOTED = 5
"""The nice value of a thread whose call is late."""
ABANDONED = 4
"""Threads of one lane that may be stuck at once."""

Matrix = NDArray[Any]
Score = Callable[[Matrix], Any]
Told = tuple[Callable[[Any, BaseException | None], None], Any, BaseException | None]
"""Who wants to know, and what there is to know."""


@dataclass(slots=True)
class Spare:
    """Who is asked in a job's place when its own answer will not do: on the same thread, for another one costs as much
    as an answer."""

    is_needed: Callable[[Any, BaseException | None], bool]
    score: Callable[[], Any]
    done: Callable[[Any, BaseException | None], None]
    """Called on the event loop, after the job's own: who has failed is told at once, however slow the spare is."""


class Job:
    """A matrix, and who wants to know: `done(values, error)` is called on the event loop.

    `expires` is in seconds of time.monotonic. Whether `values` are as many as the rows is for `done` to see.
    """

    __slots__ = ("done", "expires", "matrix", "spare")

    def __init__(
        self,
        matrix: Matrix,
        expires: float,
        done: Callable[[Any, BaseException | None], None],
        spare: Spare | None = None,
    ) -> None:
        self.matrix = matrix
        self.expires = expires
        self.done = done
        self.spare = spare


Answer = tuple[Job, Any, BaseException | None]


class Lane:
    """Scores with `score` on its own thread, which starts with the first job. Use it from one event loop."""

    def __init__(self, score: Score, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._score = score
        self._loop = loop
        self._name = name
        self._jobs: Jobs | None = None
        self._waiting: list[Job] = []
        self._busy_since = 0.0
        self._native_id = 0
        self._is_demoted = False
        self._is_closed = False
        self._abandoned: set[Jobs] = set()

    def put(self, job: Job) -> None:
        """Jobs that are put in one turn of the loop go to the thread together: waking it costs more than a row."""
        self._waiting.append(job)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        if self._jobs is None:
            self._start()
        assert self._jobs is not None
        self._jobs.put(self._waiting)
        self._waiting = []
        if self._is_closed:
            self._leave()

    @property
    def abandoned(self) -> int:
        """Threads that were replaced and have not come back."""
        return len(self._abandoned)

    @property
    def stuck_s(self) -> float:
        """Seconds for which the call under way has been going on; 0 when there is none."""
        since = self._busy_since
        return time.monotonic() - since if since else 0.0

    def demote(self) -> None:
        """Let the call under way, which nobody waits for any more, not keep a core from those who are waited for. Its
        thread ends with it: an own priority is not given back."""
        if self._busy_since and not self._is_demoted and self._native_id:
            self._is_demoted = True
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._native_id, DEMOTED)

    def replace(self) -> bool:
        """Leave the thread to what it hangs in and take a new one. False when too many hang already."""
        if self.abandoned >= ABANDONED:
            return False
        if self._jobs is not None:
            self._abandoned.add(self._jobs)
        self._leave()
        return True

    def close(self) -> None:
        """For good, and from any thread: the thread ends after the jobs that are waiting. A request that is under way
        meanwhile may put another one: it is scored, by a thread that ends after it."""
        with suppress(RuntimeError):  # the loop is closed: the service ends
            self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        self._is_closed = True
        self._leave()

    def _leave(self) -> None:
        """The thread ends after the jobs that are waiting; another job starts another one."""
        if self._jobs is not None:
            self._jobs.put(None)
        self._jobs = None

    def _start(self) -> None:
        self._busy_since = 0.0
        self._is_demoted = False
        self._jobs = SimpleQueue()
        threading.Thread(target=self._run, args=(self._jobs,), name=self._name, daemon=True).start()

    def _run(self, jobs: "Jobs") -> None:
        self._native_id = threading.get_native_id()
        while (first := jobs.get()) is not None:
            batch = self._take(first, jobs)
            if not batch:
                continue
            self._busy_since = time.monotonic()
            answers = self._answer(batch)
            if jobs in self._abandoned:  # replaced meanwhile, and back after all
                break
            spares = [job.spare for job, *found in answers if job.spare is not None and job.spare.is_needed(*found)]
            self._tell([(job.done, *found) for job, *found in answers])
            for spare in spares:
                self._tell([(spare.done, *self._spared(spare))])
            if jobs not in self._abandoned:
                self._busy_since = 0.0
            if self._is_demoted and jobs is self._jobs:
                self._is_demoted = False
                threading.Thread(target=self._run, args=(jobs,), name=self._name, daemon=True).start()
                return
        self._abandoned.discard(jobs)

    @staticmethod
    def _spared(spare: Spare) -> tuple[Any, BaseException | None]:
        try:
            return spare.score(), None
        except Exception as failure:  # as with the job's own
            return None, failure

    @staticmethod
    def _take(first: list[Job], jobs: "Jobs") -> list[Job]:
        """The jobs that are waiting and still wanted, up to ROWS rows and those that came with them."""
        batch: list[Job] = []
        rows, now = 0, time.monotonic()
        some: list[Job] | None = first
        while some is not None:
            for job in some:
                if job.expires > now:
                    batch.append(job)
                    rows += len(job.matrix)
            if rows >= ROWS or jobs.empty():
                return batch
            some = jobs.get()
        jobs.put(None)  # the end, for the next turn
        return batch

    def _answer(self, batch: list[Job]) -> list[Answer]:
        matrix = batch[0].matrix if len(batch) == 1 else np.concatenate([job.matrix for job in batch])
        error: BaseException | None = None
        values: Any = None
        try:
            values = self._score(matrix)
        except Exception as failure:  # whatever a model raises is its tier's outcome
            error = failure
        if len(batch) == 1:
            return [(batch[0], values, error)]
        if getattr(values, "shape", None) != (len(matrix),):  # it has failed: whose rows it was
            return [answer for job in batch for answer in self._answer([job])]
        found: list[Answer] = []
        start = 0
        for job in batch:
            found.append((job, values[start : start + len(job.matrix)], None))
            start += len(job.matrix)
        return found

    def _tell(self, news: list[Told]) -> None:
        def tell() -> None:
            for done, values, error in news:
                done(values, error)

        with suppress(RuntimeError):  # the loop is closed: the service ends
            self._loop.call_soon_threadsafe(tell)


Jobs = SimpleQueue[list[Job] | None]
