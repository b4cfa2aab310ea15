"""The production loop over past nights, in process: the same stage functions as the DAGs, in the same order.

Data lands once and dbt builds once, up to the last night; every stage reads `as_of`, so each night sees only
what was known that night. Of a model that is answered by the hour the hours of a night are played before it, with what
the night has published. It resumes: a night whose stages are all recorded as done is passed over, and so is a
training that a check has stopped, since the same frame would be stopped again. Approvals that tier-1 models need are a
declared assumption (`approve`), recorded as such.

Models go side by side in processes (crew.py); a night ends when all have done it, for the governor decides on all of
them together, and what is written is the same, to the row, as when they go one by one.

What stops one model stops no other: its night ends there, with a record, and the rest goes on. A table that is held
holds the models that read it; one whose spine is held catches up on the first night on which it is good again.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date, datetime
from multiprocessing import get_context
from typing import Annotated, Literal

from pydantic import Field

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput, Fenced, Stopped, TiltyardError, Unavailable
from tiltyard.govern import drift, grants
from tiltyard.judge import promotion, scoring, shadow
from tiltyard.online import fill
from tiltyard.prepare import features, ingest, source_figures
from tiltyard.prepare.publishing import Feeding
from tiltyard.prepare.transform import BuildSummary
from tiltyard.rails import Rails
from tiltyard.records import (
    SUMMARIES,
    FeaturesSummary,
    QuarantinedFile,
    Record,
    State,
    Status,
    TableState,
    TrainingSummary,
)
from tiltyard.rewind import worker
from tiltyard.rewind.crew import Crew, Killed, Work
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.stages import NIGHTLY, STAGES, StageName
from tiltyard.train import training
from tiltyard.words import counted, listed

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
class HindcastPromotion(Record):
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
    unmade: str | None = None
    """Why no version was made, as a sentence; None where one was."""


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
    promotions: tuple[HindcastPromotion, ...]
    """The promotions of this run, by night."""
    retrains: tuple[RetrainedNight, ...]
    """The retrains of this run, by night."""
    waiting: tuple[date, ...] = ()
    """The nights that have no scores yet, since what they are made of is not good."""


@dataclass(frozen=True, kw_only=True)
class HeldTable(Record):
    """A table that was not good on some of the nights, as the ledger has them by now."""

    table: str
    """The table; of a source with its schema, like `raw.login`."""
    nights: int
    """Number of nights on which it was not good."""
    states: dict[State, int]
    """State → number of those nights: held, blocked, late, failed."""
    first: date
    """The first of them."""
    last: date
    """The last of them."""
    reason: str | None
    """Why it was not good on the last of them, as a sentence."""


@dataclass(frozen=True, kw_only=True)
class Hindcast(Record):
    """What a hindcast came to."""

    first: Annotated[date, Field(alias="from", description="The first night.")]
    last: Annotated[date, Field(alias="to", description="The last night.")]
    approvals: str
    """What was assumed of the approvals that tier-1 models need, like `assumed: auto`."""
    models: dict[str, ModelHindcast]
    """Model → what happened to it."""
    tables: tuple[HeldTable, ...] = ()
    """The tables of these sources that were not good on some of the nights: what is at fault itself first."""
    quarantined: tuple[QuarantinedFile, ...] = ()
    """The files that these nights had to do without, since they lie in quarantine, the oldest first."""


@dataclass
class _Tally:
    """What has happened to one model so far."""

    nights: int = 0
    resumed: int = 0
    stopped: list[str] = field(default_factory=list)
    promotions: list[HindcastPromotion] = field(default_factory=list)
    retrains: list[RetrainedNight] = field(default_factory=list)

    def closed(self, ended: Sequence[EndedEarly], waiting: Sequence[datetime]) -> ModelHindcast:
        return ModelHindcast(
            nights=self.nights,
            resumed=self.resumed,
            stopped=tuple(self.stopped),
            ended_early=tuple(ended),
            promotions=tuple(self.promotions),
            retrains=tuple(self.retrains),
            waiting=tuple(map(night_closing, waiting)),
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
    jobs: int | None = None,
) -> Hindcast:
    """Replay every night whose `as_of` lies in [first, last].

    `render` also writes the HTML pages that the DAGs write. `jobs` is the number of processes that the models are
    spread over, None for settings.hindcast_jobs. Nobody else works on a night of these models meanwhile. Raises
    BadInput for a range without nights, and where another hindcast plays one of the models.
    """
    with rails.ledger.playing([spec.name for spec in specs]):
        return _played(rails, specs, first, last, approve=approve, render=render, progress=progress, jobs=jobs)


def _played(
    rails: Rails,
    specs: Sequence[Spec],
    first: datetime,
    last: datetime,
    *,
    approve: Approve,
    render: bool,
    progress: Progress | None,
    jobs: int | None,
) -> Hindcast:
    say = progress or (lambda label, fraction: None)
    nights = list(clock.nights(first, last))
    tallies = {spec.name: _Tally() for spec in specs}
    auditor: _Auditor | None = None
    done = {night: completed(rails, specs, night_closing(night)) for night in nights}
    todo = [night for night in nights if not all(spec.name in done[night] for spec in specs)]
    if len(todo) < len(nights):
        say(f"{len(nights) - len(todo)} of {counted(len(nights), 'night')} done before", 0.0)
    if todo:
        say("landing the data", 0.0)
        features.ingest(rails, last)
        say("building the features", 0.0)
        wanted = {
            night: frozenset(table for spec in specs if spec.name not in done[night] for table in spec.tables)
            for night in todo
        }
        build = features.transform(rails, last)
        if build.failed:
            say(f"{listed(tuple(build.failed))} failed: what reads it goes on with what stands", 0.0)
        _settle_mended(rails, build, frozenset().union(*wanted.values()), render=render)
        auditor = _Auditor(rails.settings, wanted, build, render=render)
    published = None
    owed: dict[str, list[datetime]] = {}  # model → nights of which its spine, which is not good, has no rows yet
    with auditor or nullcontext(), Crew(rails, (spec.name for spec in specs if todo), jobs) as crew:
        for position, as_of in enumerate(nights):
            night = night_closing(as_of)
            waiting = [spec for spec in specs if spec.name not in done[as_of]]
            for spec in specs:
                tallies[spec.name].nights += 1
                tallies[spec.name].resumed += spec.name in done[as_of]
            if not waiting:
                continue
            say(f"night of {night}", position / len(nights))
            assert auditor is not None  # a night that waits is one to do
            more = auditor.judged(as_of)
            outcomes = {
                source: features.end(rails, source, as_of, more.get(source)) for source in rails.settings.sources
            }
            if any(outcome.published for outcome in outcomes.values()):
                published = as_of
            tonight = []
            for spec in waiting:
                outcome = outcomes.get(spec.source)
                if outcome is not None and not outcome.published:
                    tallies[spec.name].stopped.append(features.complaint(outcome.unpublished, night))
                    owed.setdefault(spec.name, []).append(as_of)
                    continue
                tonight.append(spec)
            publication = rails.publication() if tonight else None
            for spec in tonight:
                if publication is None or scoring.waits_for(publication, spec, as_of) is None:
                    for late in owed.pop(spec.name, ()):
                        _night(rails, crew, [spec], late, approve, tallies)
                        _trainings(rails, crew, [spec], late, tallies)
                else:
                    owed.setdefault(spec.name, []).append(as_of)
            _night(rails, crew, tonight, as_of, approve, tallies)
            _trainings(rails, crew, specs, as_of, tallies)
    if published is not None:
        say("online features", 1.0)
        fill.fill_night(rails, published)
        for source in rails.settings.sources:
            source_figures.keep(rails, source, published)
    days = [night_closing(as_of) for as_of in nights]
    ended = ended_early(rails, days)
    models = {spec.name: tallies[spec.name].closed(ended.get(spec.name, ()), owed.get(spec.name, ())) for spec in specs}
    say("done", 1.0)
    return Hindcast(
        first=days[0],
        last=days[-1],
        approvals=f"assumed: {approve}",
        models=models,
        tables=held_tables(rails, days),
        quarantined=ingest.quarantined_of(rails, days[0], days[-1]),
    )


def _settle_mended(rails: Rails, build: BuildSummary, wanted: frozenset[str], *, render: bool) -> None:
    """Judge the newest night of those tables anew that dbt could not build then, and has built now.

    How a table stands is what its newest night says, which may lie behind the nights that are played: by it a spine
    that failed has no rows on any of them, however they are judged now.
    """
    failed = {
        state.night
        for state in rails.ledger.table_states()
        if state.state == "failed" and state.cause == state.table and state.table not in build.failed
    }
    for as_of in map(clock.midnight, sorted(failed)):
        more = _judged(rails, as_of, build, wanted, render)
        for source, summary in more.items():
            features.end(rails, source, as_of, summary)


def held_tables(rails: Rails, nights: Sequence[date]) -> tuple[HeldTable, ...]:
    """The tables of the active sources that were not good on some of these nights: those at fault themselves first, of
    them those of most nights."""
    states = [state for state in rails.ledger.unpublished_states(min(nights), max(nights)) if state.night in {*nights}]
    if not states:
        return ()
    feeding = Feeding.of(rails.settings)
    by_table: dict[str, list[TableState]] = {}
    for state in states:
        if feeding.of_table(state.table):
            by_table.setdefault(state.table, []).append(state)

    def rank(table: str) -> tuple[bool, int, str]:
        own = by_table[table]
        return (all(state.cause not in (None, table) for state in own), -len(own), table)

    return tuple(
        HeldTable(
            table=table,
            nights=len(by_table[table]),
            states=dict(Counter(state.state for state in by_table[table])),
            first=by_table[table][0].night,
            last=by_table[table][-1].night,
            reason=by_table[table][-1].reason,
        )
        for table in sorted(by_table, key=rank)
    )


class _Auditor:
    """Checks the batches of the nights ahead in a process beside the loop: no later stage changes what they say."""

    def __init__(
        self, settings: Settings, nights: Mapping[datetime, frozenset[str]], build: BuildSummary, *, render: bool
    ) -> None:
        """`nights`: night → the tables that are wanted of it."""
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=worker.begin, initargs=(settings,))
        self._checks = {
            as_of: self._pool.submit(_check, as_of, build, wanted, render) for as_of, wanted in nights.items()
        }

    def __enter__(self) -> "_Auditor":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def judged(self, as_of: datetime) -> dict[str, FeaturesSummary]:
        """Wait until the night's batch is judged. Source → what was judged of it, of those that it is known of."""
        return self._checks[as_of].result()


def _check(as_of: datetime, build: BuildSummary, wanted: frozenset[str], render: bool) -> dict[str, FeaturesSummary]:
    return _judged(worker.rails(), as_of, build, wanted, render)


def _judged(
    rails: Rails, as_of: datetime, build: BuildSummary, wanted: frozenset[str], render: bool
) -> dict[str, FeaturesSummary]:
    """Source → what is judged of its night beside what that has in service, of those that something is judged of."""
    judged = {}
    for source in rails.settings.sources:
        try:
            summary = features.check_more(rails, source, as_of, build, wanted, render=render)
            if summary is not None:
                judged[source] = summary
        except (Unavailable, Fenced):  # of these there is no record: the whole hindcast is resumed
            raise
        except TiltyardError as error:
            log.warning("%s", error)
    return judged


def _night(
    rails: Rails, crew: Crew, specs: Sequence[Spec], as_of: datetime, approve: Approve, tallies: Mapping[str, _Tally]
) -> None:
    """A night of these models, from shadow to drift."""
    promoted, failed = crew.each(specs, as_of, _APPROVED[approve])
    for model, version in promoted.items():
        if version is not None:
            tallies[model].promotions.append(HindcastPromotion(night=night_closing(as_of), version=version))
    _note(rails, failed, as_of, "shadow")


def _with_approvals(rails: Rails, spec: Spec, as_of: datetime) -> int | None:
    return _stages(rails, spec, as_of, "auto")


def _without_approvals(rails: Rails, spec: Spec, as_of: datetime) -> int | None:
    return _stages(rails, spec, as_of, "never")


_APPROVED: dict[Approve, Work[int | None]] = {"auto": _with_approvals, "never": _without_approvals}


def _stages(rails: Rails, spec: Spec, as_of: datetime, approve: Approve) -> int | None:
    """A night of one model; the version that it promoted. What stops it is in its records (rails.records_its_end)."""
    promoted = None
    try:
        for hour in clock.hours(night_closing(as_of), spec.prediction.every):
            _hour(rails, spec, hour)
        shadow.shadow_night(rails, spec, as_of)
        promoted = promotion.judge_night(rails, spec, as_of, assume=approve).promoted
        drift.measure_night(rails, spec, as_of)
    except (Unavailable, Fenced):  # of these there is no record: the whole hindcast is resumed
        raise
    except TiltyardError as error:
        log.warning("%s", error)
    return promoted


def _hour(rails: Rails, spec: Spec, as_of: datetime) -> None:
    """Answer an hour. What keeps it from that keeps the night, too, which says so."""
    try:
        scoring.score_hour(rails, rails.ledger.bounded(spec), as_of)
    except (BadInput, Stopped) as error:
        log.warning("%s at %s: %s", spec.name, f"{as_of:%Y-%m-%dT%H:%MZ}", error)


def _train(rails: Rails, spec: Spec, as_of: datetime) -> int | None:
    """The version that a training which the governor has granted makes; None for none."""
    reasons = next(entry.reasons for entry in rails.ledger.retrains(spec.name) if entry.night == night_closing(as_of))
    return training.train(rails, spec, as_of, requested_by="hindcast", reasons=reasons).version


def _trainings(rails: Rails, crew: Crew, specs: Sequence[Spec], as_of: datetime, tallies: Mapping[str, _Tally]) -> None:
    """The governor's word on the night, and the trainings that it grants."""
    granted = grants.govern_night(rails, as_of, specs).granted
    versions, failed = crew.each([spec for spec in specs if spec.name in granted], as_of, _train)
    _note(rails, failed, as_of, "training")
    night = night_closing(as_of)
    for model, reasons in granted.items():
        version = versions.get(model)
        run = rails.ledger.stage_run(TrainingSummary, model, night) if version is None else None
        tallies[model].retrains.append(
            RetrainedNight(
                night=night, version=version, reasons=tuple(reasons), unmade=run.summary.reason if run else None
            )
        )


def _note(rails: Rails, failed: Mapping[str, Exception], as_of: datetime, stage: StageName) -> None:
    """What a model raised is in its records, unless its process was killed: then nobody has said anything yet."""
    for model, error in failed.items():
        log.warning("%s of %s: %s", stage, model, error)
        if isinstance(error, Killed):
            night = night_closing(as_of)
            body = {"model": model, "night": str(night), "reason": str(error)}
            rails.ledger.record_bad_end(model, night, "failed", SUMMARIES[stage].from_json(body))


def ended_early(rails: Rails, nights: Sequence[date]) -> dict[str, tuple[EndedEarly, ...]]:
    """Model → its stages that have a record of these nights and did not end well, by night."""
    ended: dict[str, list[EndedEarly]] = {}
    days = set(nights)
    for stage in NIGHTLY:
        for run in rails.ledger.bad_ends(SUMMARIES[stage], min(nights), max(nights)):
            if run.night in days:
                entry = EndedEarly(night=run.night, stage=stage, status=run.status, reason=run.summary.reason)
                ended.setdefault(run.model, []).append(entry)
    return {model: tuple(sorted(entries, key=lambda entry: entry.night)) for model, entries in ended.items()}


def unscored(models: Mapping[str, ModelHindcast]) -> str | None:
    """Which models have nights that could not be scored, and why, as a sentence; None where none has."""
    waiting = {name: model for name, model in models.items() if model.waiting}
    if not waiting:
        return None
    shown = [
        f"{name}: {len(model.waiting)} of {counted(model.nights, 'night')} wait for tables that are not good"
        + (f" ({model.stopped[-1].rstrip('.')})" if model.stopped else "")
        for name, model in waiting.items()
    ]
    return f"{len(waiting)} of {counted(len(models), 'model')} not scored on every night. {listed(shown, '; ')}."


def unbuilt(tables: Sequence[HeldTable]) -> str | None:
    """Which tables failed on some of the nights, and why, as a sentence; None where none did. That a check held one is
    none of it: what it was meant to do."""
    failed = [table for table in tables if table.states.get("failed")]
    if not failed:
        return None
    shown = [
        f"{table.table} on {counted(table.states['failed'], 'night')}: {(table.reason or '').rstrip('.')}"
        for table in failed
    ]
    what = f"{counted(len(failed), 'table')} failed: {listed(shown, '; ')}."
    return f"{what} Mend that; meanwhile its models go on with what stands."


def complaint(ended: Mapping[str, Sequence[EndedEarly]]) -> str | None:
    """Which models did not get through, and why, as a sentence; None when all did. `ended`: model → `ended_early`."""
    entries = [(model, entry) for model, of_model in ended.items() for entry in of_model]
    if not entries:
        return None
    shown = [f"{model}: {entry.stage} of {entry.night} {entry.status}: {entry.reason}" for model, entry in entries]
    models = len({model for model, _ in entries})
    return f"{models} of {len(ended)} models did not get through. {listed(shown, '; ')}"


def failures(ended: Mapping[str, Sequence[EndedEarly]]) -> dict[str, tuple[EndedEarly, ...]]:
    """Of `ended` what failed, of every model. What a check stopped is none of it: it is how the loop is meant to end
    where the data is not to be trusted, the champion stays in service, and it is shown."""
    return {model: tuple(entry for entry in own if entry.status == "failed") for model, own in ended.items()}


def stops(ended: Mapping[str, Sequence[EndedEarly]]) -> list[str]:
    """What checks stopped, a sentence per model and stage: the newest night with its reason, and where to look."""
    sentences = []
    for model, entries in ended.items():
        for stage in dict.fromkeys(entry.stage for entry in entries):
            own = [entry for entry in entries if entry.stage == stage and entry.status == "stopped"]
            if not own:
                continue
            earlier = f" (and of {counted(len(own) - 1, 'earlier night')})" if len(own) > 1 else ""
            reason = (own[-1].reason or "it does not say why").rstrip(".")
            sentences.append(
                f"{model}: its {stage} of {own[-1].night}{earlier} was stopped by a check: {reason}; what was in "
                f"service stays, and tiltyard status {model} says how the model stands."
            )
    return sentences


def complete(rails: Rails, spec: Spec, night: date) -> bool:
    """True when every stage that the night asked for is recorded as done, or as ended where none is taken up again."""
    return spec.name in completed(rails, [spec], night)


def completed(rails: Rails, specs: Iterable[Spec], night: date) -> set[str]:
    """Those of the models whose night is complete, as it is of those that are retired on it."""
    specs = list(specs)
    retired = rails.ledger.operations.retired([spec.name for spec in specs], night)
    statuses = {stage: rails.ledger.statuses_of_night(stage, night) for stage in NIGHTLY}
    actions = grants.actions(rails, night)

    def over(stage: StageName, model: str) -> bool:
        status = statuses[stage].get(model)
        return status == "done" or (status is not None and not STAGES[stage].is_taken_up_again)

    def is_complete(model: str) -> bool:
        action = actions.get(model)
        if action is None or action.decision == "waiting":
            return False
        if not all(over(stage, model) for stage in NIGHTLY if stage != "training"):
            return False
        return action.decision != "retrain" or over("training", model)

    return retired | {spec.name for spec in specs if is_complete(spec.name)}
