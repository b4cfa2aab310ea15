"""The production loop over past nights, in process: the same stage functions as the DAGs, in the same order.

Data lands once and dbt builds once, up to the last night; every stage reads `as_of`, so each night sees only
what was known that night. It resumes: a night whose stages are all recorded as done is passed over, and so is a
training that a check has stopped, since the same frame would be stopped again. Approvals that tier-1 models need are a
declared assumption (`approve`), recorded as such.

What stops one model stops no other: its night ends there, with a record, and the rest goes on.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from multiprocessing import get_context
from typing import Any, Literal

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.errors import CheckFailed, Fenced, TiltyardError, Unavailable
from tiltyard.govern import drift, grants
from tiltyard.judge import promotion, shadow
from tiltyard.online import fill
from tiltyard.prepare import features
from tiltyard.rails import Rails
from tiltyard.records import SUMMARIES
from tiltyard.rewind import worker
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.stages import NIGHTLY, STAGES, StageName
from tiltyard.train import training

log = logging.getLogger(__name__)

Approve = Literal["auto", "never"]
Progress = Callable[[str, float], None]


@dataclass
class _Tally:
    nights: int = 0
    resumed: int = 0
    stopped: list[str] = field(default_factory=list)
    ended_early: list[dict[str, Any]] = field(default_factory=list)
    promotions: list[dict[str, Any]] = field(default_factory=list)
    retrains: list[dict[str, Any]] = field(default_factory=list)


def run(
    rails: Rails,
    specs: Sequence[Spec],
    first: datetime,
    last: datetime,
    *,
    approve: Approve = "auto",
    render: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Replay every night whose `as_of` lies in [first, last]. Returns what happened, per model.

    `render` also writes the HTML pages that the DAGs write. A model's `ended_early` are the stages of these nights that
    a check stopped or that failed on something to mend, in this run or before it: {"night", "stage", "status",
    "reason"}; `complaint` makes a sentence of them. Raises BadInput for a range without nights.
    """
    say = progress or (lambda label, fraction: None)
    nights = list(clock.nights(first, last))
    tallies = {spec.name: _Tally() for spec in specs}
    todo = [night for night in nights if not all(complete(rails, spec, night_closing(night)) for spec in specs)]
    if todo:
        say("landing the data", 0.0)
        features.ingest(rails, last)
        say("building the features", 0.0)
        features.transform(rails, last)
    published = None
    with _Auditor(rails.settings, todo, render=render) as auditor:
        for position, as_of in enumerate(nights):
            night = night_closing(as_of)
            say(f"night of {night}", position / len(nights))
            waiting = [spec for spec in specs if as_of in todo and not complete(rails, spec, night)]
            for spec in specs:
                tallies[spec.name].nights += 1
                tallies[spec.name].resumed += spec not in waiting
            if not waiting:
                continue
            try:
                auditor.result(as_of)
                features.publish(rails, as_of)
                published = as_of
            except CheckFailed as error:
                for spec in waiting:
                    tallies[spec.name].stopped.append(str(error))
                continue
            for spec in waiting:
                with _on_its_own():
                    _night(rails, spec, as_of, approve, render, tallies[spec.name])
            _trainings(rails, specs, as_of, tallies)
    if published is not None:
        say("online features", 1.0)
        fill.fill_night(rails, published)
    for spec in specs:
        tallies[spec.name].ended_early = ended_early(rails, spec, [night_closing(as_of) for as_of in nights])
    say("done", 1.0)
    return {
        "from": str(night_closing(first)),
        "to": str(night_closing(last)),
        "approvals": f"assumed: {approve}",
        "models": {name: vars(tally) for name, tally in tallies.items()},
    }


class _Auditor:
    """Judges the batches of the nights ahead in a process beside the loop: no later stage changes what they say."""

    def __init__(self, settings: Settings, nights: Sequence[datetime], *, render: bool) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=worker.begin, initargs=(settings,))
        self._judged = {as_of: self._pool.submit(_judge, as_of, render) for as_of in nights}

    def __enter__(self) -> "_Auditor":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def result(self, as_of: datetime) -> None:
        """Raises CheckFailed when a critical check stops the batch of the night."""
        self._judged[as_of].result()


def _judge(as_of: datetime, render: bool) -> None:
    features.check(worker.rails(), as_of, render=render)


def _night(rails: Rails, spec: Spec, as_of: datetime, approve: Approve, render: bool, tally: _Tally) -> None:
    night = str(night_closing(as_of))
    shadow.shadow_night(rails, spec, as_of)
    outcome = promotion.judge_night(rails, spec, as_of, assume=approve)
    if outcome.promoted is not None:
        tally.promotions.append({"night": night, "version": outcome.promoted})
    drift.measure_night(rails, spec, as_of, render=None if render else False)


def _trainings(rails: Rails, specs: Sequence[Spec], as_of: datetime, tallies: dict[str, _Tally]) -> None:
    """The governor's word on the night, and the trainings that it grants, in the order of their precedence."""
    named = {spec.name: spec for spec in specs}
    for model, reasons in grants.govern_night(rails, as_of, specs).granted.items():
        version = None
        with _on_its_own():
            trained = training.train(rails, named[model], as_of, requested_by="hindcast", reasons=reasons)
            version = trained.get("version")
        tallies[model].retrains.append({"night": str(night_closing(as_of)), "version": version, "reasons": reasons})


@contextmanager
def _on_its_own() -> Iterator[None]:
    """What stops one model here is in its records (rails.records_its_end), and stops no other."""
    try:
        yield
    except (Unavailable, Fenced):  # of these there is no record: the whole hindcast is resumed
        raise
    except TiltyardError as error:
        log.warning("%s", error)


def ended_early(rails: Rails, spec: Spec, nights: Sequence[date]) -> list[dict[str, Any]]:
    """The model's stages that have a record of these nights and did not end well, by night."""
    rows = [
        {"night": str(night), "stage": stage, "status": run.status, "reason": run.summary.reason}
        for stage in NIGHTLY
        for night, run in rails.ledger.stage_runs(SUMMARIES[stage], spec.name).items()
        if night in nights and run.status != "done"
    ]
    return sorted(rows, key=lambda row: row["night"])


def complaint(ended: Mapping[str, Sequence[Mapping[str, Any]]]) -> str | None:
    """Which models did not get through, and why, as a sentence; None when all did. `ended`: model → `ended_early`."""
    rows = [{"model": model, **row} for model, stages in ended.items() for row in stages]
    if not rows:
        return None
    shown = [f"{row['model']}: {row['stage']} of {row['night']} {row['status']}: {row['reason']}" for row in rows[:3]]
    rest = f" And {len(rows) - 3} more." if len(rows) > 3 else ""
    models = len({row["model"] for row in rows})
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
