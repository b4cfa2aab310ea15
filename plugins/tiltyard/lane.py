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

Matrix = NDArray[np.float32]
Score = Callable[[Matrix], Any]


@dataclass(frozen=True, slots=True)
class Spare:
    """Who is asked in a job's place when its own answer will not do: on the same thread, for another one costs as much
    as an answer."""

    is_needed: Callable[[Any, BaseException | None], bool]
    score: Callable[[], Any]
    done: Callable[[Any, BaseException | None], None]
    """Called on the event loop, before the job's own."""


class Job:
    """A matrix, and who wants to know: `done(values, error)` is called on the event loop.

    `expires` is in seconds of time.monotonic. `values` is None where the model gave another number of scores.
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
        self.abandoned = 0

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
        self.abandoned += 1
        self.close()
        return True

    def close(self) -> None:
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
            if jobs is not self._jobs and self.abandoned:  # replaced meanwhile, and back after all
                self.abandoned -= 1
                return
            self._tell([(*answer, self._spared(*answer)) for answer in answers])
            self._busy_since = 0.0
            if self._is_demoted and jobs is self._jobs:
                self._is_demoted = False
                threading.Thread(target=self._run, args=(jobs,), name=self._name, daemon=True).start()
                return

    @staticmethod
    def _spared(job: Job, values: Any, error: BaseException | None) -> tuple[Any, BaseException | None] | None:
        """What the job's spare says; None where it is not needed."""
        if job.spare is None or not job.spare.is_needed(values, error):
            return None
        try:
            return job.spare.score(), None
        except Exception as failure:
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
        try:
            values = self._score(matrix)
        except Exception as error:  # whatever a model raises is its tier's outcome
            if len(batch) > 1:  # whose rows it was
                return [answer for job in batch for answer in self._answer([job])]
            return [(batch[0], None, error)]
        if len(batch) == 1:
            return [(batch[0], values, None)]
        if getattr(values, "shape", None) != (len(matrix),):
            return [(job, None, None) for job in batch]
        found: list[Answer] = []
        start = 0
        for job in batch:
            found.append((job, values[start : start + len(job.matrix)], None))
            start += len(job.matrix)
        return found

    def _tell(self, answers: list[tuple[Job, Any, BaseException | None, Any]]) -> None:
        def tell() -> None:
            for job, values, error, spared in answers:
                if spared is not None and job.spare is not None:
                    job.spare.done(*spared)
                job.done(values, error)

        with suppress(RuntimeError):  # the loop is closed: the service ends
            self._loop.call_soon_threadsafe(tell)


Jobs = SimpleQueue[list[Job] | None]
