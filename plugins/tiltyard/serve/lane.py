"""A thread of its own for one version of a model: requests race it against their deadline.

The event loop puts matrices in and goes on; all that wait when the thread looks are scored in one call. A call that
hangs holds up its lane, not the service: whoever waits falls to the next tier at the deadline, and `replace` gives the
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
"""Number of rows scored in one call, at most, but for those that came together."""
DEMOTED = 5
"""Nice value of a thread whose call is late."""
ABANDONED = 4
"""Number of threads of one lane that may be stuck at once."""

Matrix = NDArray[Any]
"""Rows, in whatever form the `score` of the lane reads them."""
Scores = NDArray[np.float64]
"""One score a row, of classes one probability for each, where the model keeps its word: whoever reads them looks at
their shape first."""
Score = Callable[[Matrix], Scores]
Done = Callable[[Scores | None, BaseException | None], None]
"""Takes the scores, or what was raised in their place."""
News = tuple[Done, Scores | None, BaseException | None]
"""Whom to call, and with what."""


@dataclass(slots=True)
class Spare:
    """Who is asked in a job's place when its own answer will not do: on the same thread, since waking another one costs
    as much as an answer."""

    is_needed: Callable[[Scores | None, BaseException | None], bool]
    """Whether the job's own answer will not do. Called on the lane's thread."""
    score: Callable[[], Scores]
    """Scores in the job's place. Called on the lane's thread."""
    done: Done
    """Called on the event loop, after the job's own: a failure is told of at once, however slow the spare is."""


class Job:
    """A matrix to score, and who waits for it."""

    __slots__ = ("done", "expires", "matrix", "spare")

    def __init__(self, matrix: Matrix, expires: float, done: Done, spare: Spare | None = None) -> None:
        """`done(scores, error)` is called on the event loop; that there are as many scores as rows is for it to see.

        `expires` is when nobody waits any more, in seconds of time.monotonic().
        """
        self.matrix = matrix
        self.expires = expires
        self.done = done
        self.spare = spare


JobAnswer = tuple[Job, Scores | None, BaseException | None]


class Lane:
    """Scores with `score` on its own thread, which starts with the first job. Use it from one event loop."""

    def __init__(self, score: Score, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._score = score
        self._loop = loop
        self._name = name
        self._jobs: Jobs | None = None
        """Queue of the thread in charge; None while there is no thread."""
        self._waiting: list[Job] = []
        """Jobs of this turn of the loop."""
        self._busy_since = 0.0
        """When the call under way began, time.monotonic(); 0 while there is none."""
        self._native_id = 0
        """The kernel's number of the thread in charge."""
        self._is_demoted = False
        self._is_closed = False
        self._abandoned: set[Jobs] = set()
        """Queues of the threads that were replaced and have not come back."""

    def put(self, job: Job) -> None:
        """Score a job. All of one turn of the loop go to the thread together: waking it costs more than a row."""
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
        """Number of threads that were replaced and have not come back."""
        return len(self._abandoned)

    @property
    def stuck_s(self) -> float:
        """Seconds since the call under way began; 0 when there is none."""
        since = self._busy_since
        return time.monotonic() - since if since else 0.0

    def demote(self) -> None:
        """Let the call under way, which nobody waits for any more, give way to calls that are waited for.

        Its thread ends with it, since a thread may not raise its own priority again.
        """
        if self._busy_since and not self._is_demoted and self._native_id:
            self._is_demoted = True
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._native_id, DEMOTED)

    def replace(self) -> bool:
        """Leave the thread to the call that it hangs in and take a new one. False when too many hang already."""
        if self.abandoned >= ABANDONED:
            return False
        if self._jobs is not None:
            self._abandoned.add(self._jobs)
        self._leave()
        return True

    def close(self) -> None:
        """End for good; may be called from any thread. The lane's thread ends after the jobs that wait.

        A request that is under way may still put a job: it is scored, by a thread that ends after it.
        """
        with suppress(RuntimeError):  # the loop is closed, so the service has ended already
            self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        self._is_closed = True
        self._leave()

    def _leave(self) -> None:
        """Let the thread end after the jobs that wait; the next job starts another one."""
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
            if jobs in self._abandoned:  # the thread was replaced while it hung, and has come back after all
                break
            spares = [job.spare for job, scores, error in answers if job.spare and job.spare.is_needed(scores, error)]
            self._tell([(job.done, scores, error) for job, scores, error in answers])
            for spare in spares:
                self._tell([(spare.done, *self._answer_of(spare))])
            if jobs not in self._abandoned:
                self._busy_since = 0.0
            if self._is_demoted and jobs is self._jobs:
                self._is_demoted = False
                threading.Thread(target=self._run, args=(jobs,), name=self._name, daemon=True).start()
                return
        self._abandoned.discard(jobs)

    @staticmethod
    def _answer_of(spare: Spare) -> tuple[Scores | None, BaseException | None]:
        try:
            return spare.score(), None
        except Exception as failure:  # whatever a model raises is its tier's outcome
            return None, failure

    @staticmethod
    def _take(first: list[Job], jobs: "Jobs") -> list[Job]:
        """The jobs that wait and have not expired, up to ROWS rows and those that came with them."""
        batch: list[Job] = []
        rows, now = 0, time.monotonic()
        together: list[Job] | None = first
        while together is not None:
            for job in together:
                if job.expires > now:
                    batch.append(job)
                    rows += len(job.matrix)
            if rows >= ROWS or jobs.empty():
                return batch
            together = jobs.get()
        jobs.put(None)  # the end was taken out with the jobs, and is for the thread's next look
        return batch

    def _answer(self, batch: list[Job]) -> list[JobAnswer]:
        matrix = batch[0].matrix if len(batch) == 1 else np.concatenate([job.matrix for job in batch])
        error: BaseException | None = None
        scores: Scores | None = None
        try:
            scores = self._score(matrix)
        except Exception as failure:  # whatever a model raises is its tier's outcome
            error = failure
        if len(batch) == 1:
            return [(batch[0], scores, error)]
        if scores is None or getattr(scores, "shape", ())[:1] != (len(matrix),):  # one by one, to see whose rows fail
            return [answer for job in batch for answer in self._answer([job])]
        answers: list[JobAnswer] = []
        start = 0
        for job in batch:
            answers.append((job, scores[start : start + len(job.matrix)], None))
            start += len(job.matrix)
        return answers

    def _tell(self, news: list[News]) -> None:
        def tell() -> None:
            for done, scores, error in news:
                done(scores, error)

        with suppress(RuntimeError):  # the loop is closed, so the service has ended already
            self._loop.call_soon_threadsafe(tell)


Jobs = SimpleQueue[list[Job] | None]
"""Jobs on their way to one thread, those of one turn of the loop together; None tells the thread to end."""
