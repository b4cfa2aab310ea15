"""The production loop over past nights, in process: the same stage functions as the DAGs, in the same order.

Data lands once and dbt builds once, up to the last night; every stage reads `as_of`, so each night sees only
what was known that night. It resumes: a night whose stages are all recorded as done is passed over, and so is a
training that a check has stopped, since the same frame would be stopped again. Approvals that tier-1 models need are a
declared assumption (`approve`), recorded as such.

What stops one model stops no other: its night ends there, with a record, and the rest goes on. A table that is held
holds the models that read it; one whose spine is held catches up on the first night on which it is good again.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import date, datetime
from multiprocessing import get_context
from typing import Annotated, Literal

from pydantic import Field

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.errors import Fenced, TiltyardError, Unavailable
from tiltyard.govern import drift, grants
from tiltyard.judge import promotion, scoring, shadow
from tiltyard.online import fill
from tiltyard.prepare import features
from tiltyard.prepare.transform import BuildSummary
from tiltyard.rails import Rails
from tiltyard.records import SUMMARIES, Record, Status
from tiltyard.rewind import worker
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.stages import NIGHTLY, STAGES, StageName
from tiltyard.train import training

log = logging.getLogger(__name__)

Approve = Literal["auto", "never"]
Progress = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class EndedEarly(Record):
    """A stage that a check stopped, or that failed on something to mend."""

    night: date
    """The night."""
    stage: StageName
    """The stage."""
    status: Status
    """How it ended: stopped or failed."""
    reason: str | None
    """Why, as a sentence; None in records that say nothing."""


@dataclass(frozen=True, kw_only=True)
class PromotedNight(Record):
    """A promotion."""

    night: date
    """The night."""
    version: int
    """The version that became champion."""


@dataclass(frozen=True, kw_only=True)
class RetrainedNight(Record):
    """A retrain that was granted."""

    night: date
    """The night."""
    version: int | None
    """The version that was made; None for none."""
    reasons: tuple[str, ...]
    """Why it was granted, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class ModelHindcast(Record):
    """What happened to one model."""

    nights: int
    """Number of nights."""
    resumed: int
    """Number of those that were done already, and passed over."""
    stopped: tuple[str, ...]
    """Why batches were stopped of which no table was good, a sentence per night."""
    ended_early: tuple[EndedEarly, ...]
    """The stages of these nights that did not end well, in this run or before it, by night; `complaint` makes a
    sentence of them."""
    promotions: tuple[PromotedNight, ...]
    """The promotions of this run, by night."""
    retrains: tuple[RetrainedNight, ...]
    """The retrains of this run, by night."""


@dataclass(frozen=True, kw_only=True)
class Hindcast(Record):
    """What a hindcast came to."""

    first: Annotated[date, Field(alias="from", description="The first night.")]
    last: Annotated[date, Field(alias="to", description="The last night.")]
    approvals: str
    """What was assumed of the approvals that tier-1 models need, like `assumed: auto`."""
    models: dict[str, ModelHindcast]
    """Model → what happened to it."""


@dataclass
class _Tally:
    """What has happened to one model so far."""

    nights: int = 0
    resumed: int = 0
    stopped: list[str] = field(default_factory=list)
    promotions: list[PromotedNight] = field(default_factory=list)
    retrains: list[RetrainedNight] = field(default_factory=list)

    def closed(self, ended: Sequence[EndedEarly]) -> ModelHindcast:
        return ModelHindcast(
            nights=self.nights,
            resumed=self.resumed,
            stopped=tuple(self.stopped),
            ended_early=tuple(ended),
            promotions=tuple(self.promotions),
            retrains=tuple(self.retrains),
        )


def hindcast(
    rails: Rails,
    specs: Sequence[Spec],
    first: datetime,
    last: datetime,
    *,
    approve: Approve = "auto",
    render: bool = False,
    progress: Progress | None = None,
) -> Hindcast:
    """Replay every night whose `as_of` lies in [first, last].

    `render` also writes the HTML pages that the DAGs write. Raises BadInput for a range without nights.
    """
    say = progress or (lambda label, fraction: None)
    nights = list(clock.nights(first, last))
    tallies = {spec.name: _Tally() for spec in specs}
    auditor: _Auditor | None = None
    todo = [night for night in nights if not all(complete(rails, spec, night_closing(night)) for spec in specs)]
    if todo:
        say("landing the data", 0.0)
        features.ingest(rails, last)
        say("building the features", 0.0)
        auditor = _Auditor(rails.settings, todo, features.transform(rails, last), render=render)
    published = None
    owed: dict[str, list[datetime]] = {}  # model → nights of which its spine, which is not good, has no rows yet
    with auditor or nullcontext():
        for position, as_of in enumerate(nights):
            night = night_closing(as_of)
            say(f"night of {night}", position / len(nights))
            waiting = [spec for spec in specs if as_of in todo and not complete(rails, spec, night)]
            for spec in specs:
                tallies[spec.name].nights += 1
                tallies[spec.name].resumed += spec not in waiting
            if not waiting:
                continue
            assert auditor is not None  # a night that waits is one to do
            auditor.wait_for(as_of)
            outcomes = {source: features.end(rails, source, as_of) for source in rails.settings.sources}
            if any(outcome.published for outcome in outcomes.values()):
                published = as_of
            for spec in waiting:
                outcome = outcomes.get(spec.source)
                if outcome is not None and not outcome.published:
                    tallies[spec.name].stopped.append(features.complaint(outcome.unpublished, night))
                    owed.setdefault(spec.name, []).append(as_of)
                    continue
                if scoring.waits_for(rails.publication(), spec, as_of) is None:
                    for late in owed.pop(spec.name, ()):
                        _night(rails, spec, late, approve, render, tallies[spec.name])
                        _trainings(rails, [spec], late, tallies)
                else:
                    owed.setdefault(spec.name, []).append(as_of)
                _night(rails, spec, as_of, approve, render, tallies[spec.name])
            _trainings(rails, specs, as_of, tallies)
    if published is not None:
        say("online features", 1.0)
        fill.fill_night(rails, published)
    days = [night_closing(as_of) for as_of in nights]
    models = {spec.name: tallies[spec.name].closed(ended_early(rails, spec, days)) for spec in specs}
    say("done", 1.0)
    return Hindcast(
        first=night_closing(first), last=night_closing(last), approvals=f"assumed: {approve}", models=models
    )


class _Auditor:
    """Checks the batches of the nights ahead in a process beside the loop: no later stage changes what they say."""

    def __init__(self, settings: Settings, nights: Sequence[datetime], build: BuildSummary, *, render: bool) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=worker.begin, initargs=(settings,))
        self._checks = {as_of: self._pool.submit(_check, as_of, build, render) for as_of in nights}

    def __enter__(self) -> "_Auditor":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def wait_for(self, as_of: datetime) -> None:
        """Wait until the night's batch is judged."""
        self._checks[as_of].result()


def _check(as_of: datetime, build: BuildSummary, render: bool) -> None:
    for source in worker.rails().settings.sources:
        with _on_its_own():
            features.check(worker.rails(), source, as_of, build, render=render)


def _night(rails: Rails, spec: Spec, as_of: datetime, approve: Approve, render: bool, tally: _Tally) -> None:
    with _on_its_own():
        shadow.shadow_night(rails, spec, as_of)
        outcome = promotion.judge_night(rails, spec, as_of, assume=approve)
        if outcome.promoted is not None:
            tally.promotions.append(PromotedNight(night=night_closing(as_of), version=outcome.promoted))
        drift.measure_night(rails, spec, as_of)


def _trainings(rails: Rails, specs: Sequence[Spec], as_of: datetime, tallies: dict[str, _Tally]) -> None:
    """The governor's word on the night, and the trainings that it grants, in the order of their precedence."""
    by_name = {spec.name: spec for spec in specs}
    for model, reasons in grants.govern_night(rails, as_of, specs).granted.items():
        version = None
        with _on_its_own():
            version = training.train(rails, by_name[model], as_of, requested_by="hindcast", reasons=reasons).version
        retrain = RetrainedNight(night=night_closing(as_of), version=version, reasons=tuple(reasons))
        tallies[model].retrains.append(retrain)


@contextmanager
def _on_its_own() -> Iterator[None]:
    """What stops one model here is in its records (rails.records_its_end), and stops no other."""
    try:
        yield
    except (Unavailable, Fenced):  # of these there is no record: the whole hindcast is resumed
        raise
    except TiltyardError as error:
        log.warning("%s", error)


def ended_early(rails: Rails, spec: Spec, nights: Sequence[date]) -> tuple[EndedEarly, ...]:
    """The model's stages that have a record of these nights and did not end well, by night."""
    ended = [
        EndedEarly(night=night, stage=stage, status=run.status, reason=run.summary.reason)
        for stage in NIGHTLY
        for night, run in rails.ledger.stage_runs(SUMMARIES[stage], spec.name).items()
        if night in nights and run.status != "done"
    ]
    return tuple(sorted(ended, key=lambda entry: entry.night))


def complaint(ended: Mapping[str, Sequence[EndedEarly]]) -> str | None:
    """Which models did not get through, and why, as a sentence; None when all did. `ended`: model → `ended_early`."""
    entries = [(model, entry) for model, of_model in ended.items() for entry in of_model]
    if not entries:
        return None
    shown = [f"{model}: {entry.stage} of {entry.night} {entry.status}: {entry.reason}" for model, entry in entries[:3]]
    rest = f" And {len(entries) - 3} more." if len(entries) > 3 else ""
    models = len({model for model, _ in entries})
    return f"{models} of {len(ended)} models did not get through. {'; '.join(shown)}{rest}"


def complete(rails: Rails, spec: Spec, night: date) -> bool:
    """True when every stage that the night asked for is recorded as done, or as ended where none is taken up again."""

    def over(stage: StageName) -> bool:
        status = rails.ledger.stage_status(stage, spec.name, night)
        return status == "done" or (status is not None and not STAGES[stage].is_taken_up_again)

    if not all(over(stage) for stage in NIGHTLY if stage != "training"):
        return False
    action = grants.decided(rails, spec.name, night)
    if action is None or action.decision == "waiting":
        return False
    return action.decision != "retrain" or over("training")
