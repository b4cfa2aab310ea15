"""What a task's process has used, put down for whom it worked.

The whole of it is what the operating system says of the process and of its children that have ended, from its start to
the end of its work: what happens after that, and what Airflow's supervisor, scheduler and the database use meanwhile,
is nobody's. Where a process worked for many models, the CPU seconds of each one's own work say how the whole is
divided. A process that is killed puts down nothing.
"""

import logging
import resource
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tiltyard.records import Cost, Usage
from tiltyard.records.cost import divided
from tiltyard.stages import StageName

if TYPE_CHECKING:
    from tiltyard.rails import Rails

log = logging.getLogger(__name__)


class Meter:
    """The meter of one process. Not for several threads at once: a task does one thing after the other."""

    def __init__(self) -> None:
        self._settled = Usage()
        self._own: dict[str, Usage] = {}
        self._nights: dict[str, set[date]] = {}

    @contextmanager
    def span(self, name: str, nights: Collection[date]) -> Iterator[None]:
        """What is done inside is done for this model or source, on these nights. None goes inside another."""
        before = used()
        try:
            yield
        finally:
            self._own[name] = self._own.get(name, Usage()) + _since(before)
            self._nights.setdefault(name, set()).update(nights)

    def settle(self, stage: StageName, name: str, night: date) -> list[Cost]:
        """What was used since the start of the process, or since it was settled last, for whom it was: those of the
        spans, or, where there were none, `name`. Several nights of one model bear equal parts."""
        whole = _since(self._settled)
        self._settled = used()
        own, nights = self._own or {name: Usage()}, self._nights or {name: {night}}
        self._own, self._nights = {}, {}
        return [
            Cost(stage=stage, name=of, night=day, usage=usage.part(1 / len(nights[of])))
            for of, usage in divided(whole, own).items()
            for day in sorted(nights[of])
        ]


meter = Meter()
"""This process's."""


def used() -> Usage:
    """What this process and its children that have ended have used since it was started."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    read, written = _transferred()
    return Usage(
        cpu_s=own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
        wall_s=time.time() - psutil.Process().create_time(),
        memory_bytes=max(own.ru_maxrss, children.ru_maxrss) * 1024,
        read_bytes=read,
        written_bytes=written,
    )


def put_down(rails: "Rails", costs: Sequence[Cost]) -> None:
    """Put costs down in the ledger. That nobody can is no reason why a night should fail."""
    try:
        rails.ledger.accounts.add(costs)
    except Exception:
        log.warning("What this process has used could not be put down.", exc_info=True)


def _since(before: Usage) -> Usage:
    now = used()
    return Usage(
        cpu_s=now.cpu_s - before.cpu_s,
        wall_s=now.wall_s - before.wall_s,
        memory_bytes=now.memory_bytes,
        read_bytes=now.read_bytes - before.read_bytes,
        written_bytes=now.written_bytes - before.written_bytes,
    )


def _transferred() -> tuple[int, int]:
    """Bytes read and written; none where the system does not count them for a process, as outside Linux."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0, 0
    counts = dict(line.split(": ") for line in lines)
    return int(counts["rchar"]), int(counts["wchar"])
