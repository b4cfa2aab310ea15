"""The processes of a hindcast: each has models of its own for as long as it lasts, and no model waits for another's
failure.

A model stays with its process, which keeps its versions and its connections; the processes work side by side, each
through its models one by one. What a model raises is its own. When a process is killed (for its memory, say), the next
one does what is left, each model alone; one that this one is killed over, too, is `Killed`.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime
from multiprocessing import get_context
from typing import TypeVar

from tiltyard.errors import Fenced, Unavailable
from tiltyard.rails import Rails
from tiltyard.rewind import worker
from tiltyard.settings import Settings
from tiltyard.spec import Spec

T = TypeVar("T")
Work = Callable[[Rails, Spec, datetime], T]
"""What is done for a model on a night: a function of a module, which another process can find."""


ALONE = 2
"""How often a model is tried alone whose process was killed."""


class Killed(Exception):
    """The process that worked on a model was killed whenever it was tried."""


class Crew:
    """The processes, or this one alone. Use it in a `with`."""

    def __init__(self, rails: Rails, models: Iterable[str], jobs: int | None = None) -> None:
        """`jobs`: the number of processes; None for settings.hindcast_jobs. With one no process is started."""
        self._rails = rails
        names = list(models)
        jobs = min(jobs or rails.settings.hindcast_jobs or os.cpu_count() or 1, len(names))
        self._seat = {name: place % jobs for place, name in enumerate(names)} if jobs > 1 else {}
        """Model → the number of its process; empty where there is none."""
        threads = max(1, min(rails.settings.threads, (os.cpu_count() or 1) // max(jobs, 1)))
        self._settings: Settings = rails.settings.model_copy(update={"threads": threads})
        self._pools: dict[int, ProcessPoolExecutor] = {}

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)

    def each(self, specs: Iterable[Spec], as_of: datetime, work: Work[T]) -> tuple[dict[str, T], dict[str, Exception]]:
        """Do `work` for these models. Model → what it returned, and model → what it raised, of those that raised.

        Every one is done; then Unavailable and Fenced, of which a night keeps no record, are raised for all of them.
        """
        done: dict[str, T] = {}
        failed: dict[str, Exception] = {}
        specs = list(specs)
        if self._seat:
            self._side_by_side(specs, as_of, work, done, failed)
        else:
            for spec in specs:
                try:
                    done[spec.name] = work(self._rails, spec, as_of)
                except Exception as error:
                    failed[spec.name] = error
        for ended in failed.values():
            if isinstance(ended, Unavailable | Fenced):
                raise ended
        return done, failed

    def _side_by_side(
        self, specs: list[Spec], as_of: datetime, work: Work[T], done: dict[str, T], failed: dict[str, Exception]
    ) -> None:
        of_name = {spec.name: spec for spec in specs}
        futures = {name: self._submit(spec, as_of, work) for name, spec in of_name.items()}
        for name in self._gathered(futures, done, failed):  # alone, since it is not known over which it was killed
            for _ in range(ALONE):
                if not self._gathered({name: self._submit(of_name[name], as_of, work)}, done, failed):
                    break
            else:
                failed[name] = Killed(f"{name}: its process was killed again and again; its memory is the first guess.")

    def _gathered(
        self, futures: Mapping[str, "Future[T]"], done: dict[str, T], failed: dict[str, Exception]
    ) -> list[str]:
        """Wait for all. Those whose process has ended under them."""
        broken = []
        for name, future in futures.items():
            try:
                done[name] = future.result()
            except BrokenProcessPool:
                broken.append(name)
                self._pools.pop(self._seat[name], None)
            except Exception as error:
                failed[name] = error
        return broken

    def _submit(self, spec: Spec, as_of: datetime, work: Work[T]) -> "Future[T]":
        seat = self._seat[spec.name]
        for _ in range(2):
            if seat not in self._pools:
                self._pools[seat] = ProcessPoolExecutor(
                    1, get_context("spawn"), initializer=worker.begin, initargs=(self._settings,)
                )
            try:
                return self._pools[seat].submit(_do, work, spec, as_of)
            except BrokenProcessPool:  # it ended while it had nothing to do
                del self._pools[seat]
        raise Unavailable("The processes of the hindcast end as soon as they begin; run it again, it resumes.")


def _do(work: Work[T], spec: Spec, as_of: datetime) -> T:
    return work(worker.rails(), spec, as_of)
