"""What every stage stands on: settings, the lake and the ledger, opened together and closed together."""

import difflib
import errno
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import duckdb

from tiltyard import damage, postgres, release, tombstones
from tiltyard.clock import is_hour, night_closing, night_of
from tiltyard.errors import BadInput, CheckFailed, Fenced, Stopped, TiltyardError, Unavailable
from tiltyard.lake import Lake, store_is_away
from tiltyard.ledger import Ledger
from tiltyard.records import SUMMARIES, Decision, Publication, Status
from tiltyard.settings import Settings
from tiltyard.spec import Spec, find
from tiltyard.stages import StageName
from tiltyard.tombstones import Tombstones

log = logging.getLogger(__name__)

NOT_DRAWN = "page_not_drawn"
"""Kind of the ledger's event of a page that could not be drawn."""
HOUR_MISSED = "hour_missed"
"""Kind of the ledger's event of an hour of a model or a source that did not end well; the night catches up on it."""
NO_FILE = (errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPERM, errno.EROFS)
"""What the system says where a folder takes or gives no file."""
More = ParamSpec("More")
T = TypeVar("T")


@dataclass(frozen=True)
class Rails:
    """What every stage is given."""

    settings: Settings
    """The home and everything around it."""
    lake: Lake
    """The data."""
    ledger: Ledger
    """Who decided what."""

    def publication(self) -> Publication:
        """What of every table is in service. Raises BadInput when nothing is."""
        publication = self.ledger.publication()
        if publication is None:
            raise BadInput("No features are published yet; run tiltyard features --as-of DATE first.")
        return publication

    def tombstones(self) -> Tombstones:
        """Of whom nothing is taken in. Raises BadInput where they cannot be told from others: their key is gone."""
        return tombstones.known(self.settings, *self.ledger.erasures.hashes())

    def decisions(self, model: str, until: date | None = None) -> list[Decision]:
        """The gate's verdicts on a model's challengers, by night and challenger, for whoever asks by hand.

        Stages ask the ledger itself, to which a model that was never trained is as good as any other. Raises BadInput
        for a model that has neither a spec here nor a line in the ledger, naming the nearest.
        """
        decisions = self.ledger.decisions(model, until)
        if not decisions:
            specs = {path.parent.name for path in self.settings.models.glob("*/spec.yaml")}
            names = sorted(specs | self.ledger.models())
            if model not in names:
                close = difflib.get_close_matches(str(model), names, n=3)
                beside = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(names) or 'none'}."
                raise BadInput(f"There is no model '{model}' in {self.settings.models} or in the ledger; {beside}")
        return decisions


Work = Callable[Concatenate[Rails, Spec, datetime, More], T]
"""What a stage does for one model as of one night."""


@contextmanager
def opened(settings: Settings | None = None, *, lake_at_once: bool = True) -> Iterator[Rails]:
    """Open the rails (starting the embedded PostgreSQL when it is not running) and close them at the end.

    Without `settings` those of the environment, with the specs, suites and dbt project of the release in force. What
    hardly ever reads the lake, like a page, has it opened by the first read (`lake_at_once=False`).
    """
    settings = settings or release.in_force(Settings())
    with (
        _within_reach(settings),
        closing(Ledger(settings)) as ledger,
        Lake(settings, at_once=lake_at_once) as lake,
        naming_damage(settings, ledger),
    ):
        yield Rails(settings, lake, ledger)


@contextmanager
def _within_reach(settings: Settings) -> Iterator[None]:
    """Where PostgreSQL or the bucket goes away in the middle, each client has words of its own for it: here they become
    one Unavailable, so that what was only out of reach is tried again and nobody is shown a traceback."""
    try:
        yield
    except TiltyardError:
        raise
    except Exception as error:
        if postgres.is_gone(error):
            raise postgres.gone(settings) from error
        if away := store_is_away(settings, error):
            raise away from error
        if refused := postgres.forbidden(settings, error):
            raise refused from error
        raise


@contextmanager
def naming_damage(settings: Settings, ledger: Ledger, model: str = "") -> Iterator[None]:
    """Where a read inside meets a damaged file of the lake, the error becomes one that names table and file; the files
    that `model` reads are tried first."""
    try:
        yield
    except TiltyardError:
        raise
    except Exception as error:
        if found := damage.met(settings, ledger, error, _tables(settings, model)):
            raise found from error
        raise


@contextmanager
def _renewing(lake: Lake) -> Iterator[None]:
    """An error that ends the lake's connection ends it for nobody who comes after."""
    try:
        yield
    except Exception as error:
        if damage.is_fatal(error):
            lake.renew()
        raise


def records_its_end(stage: StageName) -> Callable[[Work[More, T]], Work[More, T]]:
    """Decorates what a stage does for one model on one night: an end that is no good one leaves a record, too."""

    def decorate(work: Work[More, T]) -> Work[More, T]:
        @wraps(work)
        def recorded(rails: Rails, spec: Spec, as_of: datetime, /, *more: More.args, **named: More.kwargs) -> T:
            with recording_its_end(rails, stage, as_of, spec.name):
                return work(rails, rails.ledger.bounded(spec), as_of, *more, **named)

        return recorded

    return decorate


@contextmanager
def recording_its_end(rails: Rails, stage: StageName, as_of: datetime, model: str = "") -> Iterator[None]:
    """What ends a stage inside is in its record: nobody takes the stage for running, or waits for it.

    A check that stops the stage (CheckFailed) is recorded as `stopped`, anything else as `failed`: with its reason when
    a person has to mend it, which a disk that takes no files is as well, and by its kind alone when nobody foresaw it,
    since its text may hold anything. Unavailable
    and Fenced leave no record, since another attempt will be made or is at work. A night that was done stays done,
    since nothing of it was undone, and an attempt that ends well replaces what this one has said. Of an hour there is
    an event instead: its night is still to come.
    """
    try:
        with (
            _within_reach(rails.settings),
            naming_damage(rails.settings, rails.ledger, model),
            _renewing(rails.lake),
        ):
            yield
    except (Unavailable, Fenced):
        raise
    except TiltyardError as error:
        facts = error.facts if isinstance(error, Stopped) else {}
        body = {"model": model, "night": str(night_closing(as_of)), "reason": str(error), **facts}
        status: Status = "stopped" if isinstance(error, CheckFailed) else "failed"
        _record_bad_end(rails, stage, as_of, status, body)
        raise
    except Exception as error:
        reason = _no_file(error) or f"{type(error).__name__}, which nobody foresaw; the log of the attempt says more."
        body = {"model": model, "night": str(night_closing(as_of)), "reason": reason}
        _record_bad_end(rails, stage, as_of, "failed", body)
        raise


def _tables(settings: Settings, model: str) -> tuple[str, ...]:
    """The tables that a model reads; none where `model` is a source, or the portfolio."""
    is_one = model and (settings.models / model / "spec.yaml").is_file()
    return find(settings.models, model).tables if is_one else ()


def _record_bad_end(
    rails: Rails, stage: StageName, as_of: datetime, status: Status, body: Mapping[str, object]
) -> None:
    model = str(body["model"])
    if is_hour(as_of):
        detail = {"stage": stage, "hour": as_of.isoformat(), "reason": body["reason"]}
        rails.ledger.add_event(HOUR_MISSED, model, night_of(as_of), detail)
    else:
        rails.ledger.record_bad_end(model, night_closing(as_of), status, SUMMARIES[stage].from_json({**body}))


def _no_file(error: Exception) -> str | None:
    """What a disk that is full, read-only or broken says, as a sentence; None for every other error. Unlike other
    errors' its words are the system's, and the folder one of ours."""
    words, file = None, ""
    if isinstance(error, OSError) and error.errno in NO_FILE:
        # of a copy the second one is where it was to go
        words, file = error.strerror, os.fsdecode(error.filename2 or error.filename or "")
    elif isinstance(
        error, duckdb.IOException
    ):  # IO Error: Could not write file "/x/y.parquet": No space left on device
        said = re.search(r'file "([^"]*)": (.*)$', str(error), re.MULTILINE)
        if said and said[2] in {os.strerror(code) for code in NO_FILE}:
            file, words = said.groups()
    if words is None:
        return None
    folder = f"in {Path(file).parent} " if file else ""
    return f"A file {folder}could not be read or written ({words}); make room, or mend the folder."


@contextmanager
def drawing(rails: Rails, page: str, night: date) -> Iterator[None]:
    """What is drawn inside is for people to look at, and what it shows is kept elsewhere: where it cannot be drawn,
    that is an event in the ledger, and nobody's night waits for it. `page`: its path below settings.reports."""
    try:
        yield
    except Exception as error:  # a full disk, or a library that cannot draw this
        log.warning("%s is not drawn: %s", page, error)
        rails.ledger.add_event(NOT_DRAWN, "", night, {"page": page, "reason": f"{type(error).__name__}: {error}"})
