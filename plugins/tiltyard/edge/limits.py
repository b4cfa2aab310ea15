"""How long a stage of one model may take, and what ends it when it takes longer.

The work is interrupted where it listens: between two steps of Python, and in a query of DuckDB. Where it does not, its
process ends with every thread's place in the log, and whoever asks the ledger what is left does the other models.
"""

import faulthandler
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING

from tiltyard import clock
from tiltyard.errors import BadInput, OutOfTime
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.stages import IN_CHUNKS, StageName
from tiltyard.words import ended, meant

if TYPE_CHECKING:
    from tiltyard.rails import Rails

LIMITED: tuple[StageName, ...] = (*IN_CHUNKS, "training")
"""The stages that have a limit."""
GRACE = timedelta(minutes=1)
"""How long after its limit a process that does not listen is ended."""
REMINDER_S = 5.0
"""Seconds between two interruptions of work that has swallowed the first."""

_interrupted = threading.Event()
"""Set once work was interrupted here: what it held may keep this process from ending, so its end is limited, too."""

_LIMIT = re.compile(r"(?P<stage>[a-z_]+)(/(?P<tier>[1-3]))?=(?P<limit>.+)")


def limit(settings: Settings, stage: StageName, tier: int) -> timedelta | None:
    """How long a stage of a model of a tier may take; None for as long as it likes. Raises BadInput as `limits`."""
    of_stages = limits(settings)
    return of_stages.get((stage, tier), of_stages.get((stage, None)))


def limits(settings: Settings) -> dict[tuple[str, int | None], timedelta]:
    """(stage, tier or None for every tier) → how long it may take. Raises BadInput for a setting that names no stage
    that can be limited, or no duration."""
    durations: dict[tuple[str, int | None], timedelta] = {}
    for entry in settings.stage_limits:
        match = _LIMIT.fullmatch(entry)
        try:
            if match is None:
                raise ValueError("it is written like shadow=30m or shadow/1=2h")
            if match["stage"] not in LIMITED:
                raise ValueError(
                    f"of stages only {', '.join(LIMITED)} are limited, no '{match['stage']}'"
                    f"{meant(match['stage'], LIMITED)}"
                )
            tier = int(match["tier"]) if match["tier"] else None
            durations[match["stage"], tier] = clock.parse_duration(match["limit"])
        except ValueError as error:
            raise BadInput(ended(f"TILTYARD_STAGE_LIMITS has '{entry}': {error}")) from None
    return durations


@contextmanager
def within(rails: "Rails", stage: StageName, spec: Spec) -> Iterator[None]:
    """What is done inside may take as long as the model's tier allows. Raises OutOfTime when it takes longer, whatever
    was made of the interruption inside.

    Only the main thread of a process can be interrupted; in another one nothing is limited.
    """
    allowed = limit(rails.settings, stage, spec.tier)
    if allowed is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    late = OutOfTime(
        f"{stage} of {spec.name} took longer than {clock.format_duration(allowed)}; see in the log where it was, or "
        "allow more with TILTYARD_STAGE_LIMITS."
    )
    rung = threading.Event()

    def ring(signum: int, frame: FrameType | None) -> None:
        rung.set()
        _interrupted.set()
        rails.lake.connection.interrupt()  # else its threads go on, and closing it waits for them
        raise late

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, allowed.total_seconds(), REMINDER_S)
        _end_after(allowed + GRACE)
        yield
    except Exception as error:
        if rung.is_set() and error is not late:  # DuckDB says only that a query was interrupted
            raise late from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
        if _interrupted.is_set():
            _end_after(GRACE)


def _end_after(time: timedelta) -> None:
    """End this process then, with every thread's place on stderr, unless somebody says otherwise before."""
    faulthandler.dump_traceback_later(time.total_seconds(), exit=True, file=sys.__stderr__ or 2)
