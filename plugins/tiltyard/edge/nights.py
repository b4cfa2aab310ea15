"""Which nights a run works on that is about one model, or about all of them at once.

A task learns its nights from the asset events that started its run, or from the run's `as_of` parameter. Events
can be lost or doubled, so they only say *look*: the ledger says what there is. Every run also picks up the nights
of the last week that the stage before has finished and this one has not, and working on a night twice changes nothing.
What a stage that goes through its models in chunks has to do is asked in `due`.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from tiltyard import clock
from tiltyard.edge import hours, log_lines, task_run
from tiltyard.errors import BadInput, Fenced, TiltyardError, Unavailable
from tiltyard.records import JsonObject, Record
from tiltyard.spec import Spec
from tiltyard.stages import STAGES, StageName, recorded_as
from tiltyard.words import listed

if TYPE_CHECKING:
    from tiltyard.rails import Rails

log = logging.getLogger(__name__)

RecordT = TypeVar("RecordT", bound=Record)
SWEEP = timedelta(days=7)
"""How far back of the newest finished night a stage looks for nights that no event announced."""


def nights(rails: "Rails", stage: StageName, spec: Spec) -> list[datetime]:
    """The nights that this run works on, oldest first.

    The parameter alone, when it is given. Else those that the events name plus those that were missed; a
    manual run that finds neither does the newest finished night again. Raises BadInput when there is none, and for a
    night that is asked for of a model that a hindcast plays; without one the task is skipped then, and where the model
    is retired.
    """
    if chosen := chosen_night(rails, [spec.source]):
        rails.ledger.require_unplayed([spec.name])
        return [chosen]
    if not unplayed(rails, [spec]):
        if rails.ledger.operations.retired([spec.name]):
            task_run.skip(f"{spec.name} is retired.")
        task_run.skip(f"A hindcast plays {spec.name} at this moment; what it leaves is done afterwards.")
    before = STAGES[stage].works_on
    assert before, f"{stage} works on no other stage's nights"
    finished, closed = finished_nights(rails, before, spec), closed_nights(rails, stage, spec)
    announced = task_run.announced_nights()
    days = (announced & finished) | missed_nights(finished, closed)
    if not days and finished and not announced:
        days = {max(finished)}
    if not days:
        raise BadInput(f"No night to do: {before} has finished none for {spec.name}; start that first, or give as_of.")
    return [clock.midnight(day) for day in sorted(days)]


def unplayed(rails: "Rails", specs: Sequence[Spec]) -> list[Spec]:
    """Those of the models that are at work: neither retired nor played by a hindcast at this moment. What that leaves
    is picked up by a later run: beside it a night would stand on decisions that it has yet to make."""
    names = [spec.name for spec in specs]
    played, retired = rails.ledger.played(names), rails.ledger.operations.retired(names)
    if played:
        log.info("Left to a hindcast, which plays them at this moment: %s.", listed(sorted(played)))
    return [spec for spec in specs if spec.name not in played | retired]


def chosen_night(rails: "Rails", sources: Sequence[str]) -> datetime | None:
    """The night that the run's parameter names; None where it was left empty. Raises BadInput for one that none of
    these sources can have."""
    from tiltyard.prepare import possible  # with pandas, which a DAG file must not import when it is parsed

    chosen = task_run.chosen_night()
    if chosen is not None:
        possible.require(rails, sources, clock.now(), chosen)
    return chosen


def begin(rails: "Rails", source: str) -> datetime:
    """The one `as_of` of a run of a source's features, and what it is done as of from here on: its parameter; of a run
    by hand without one the next night that is due, else the night or hour of its interval."""
    as_of = _asked(rails, source)
    log.info(
        "%s: %s.",
        source,
        f"the hour {as_of:%Y-%m-%d %H:%M} UTC" if clock.is_hour(as_of) else f"night of {as_of:%Y-%m-%d}",
    )
    task_run.hand_on(task_run.BEGUN, {"as_of": as_of.isoformat()})
    return as_of


def end_of_run(rails: "Rails", source: str) -> datetime:
    """The `as_of` that the first task of a run of a source's features has begun with."""
    return task_run.begun() or _asked(rails, source)


def _asked(rails: "Rails", source: str) -> datetime:
    from tiltyard.prepare import possible

    if chosen := chosen_night(rails, [source]):
        return chosen
    if task_run.is_by_hand():
        return possible.next_due(rails, source, clock.now())
    as_of = hours.as_of(rails, source, *task_run.interval_end())
    possible.require_going_on(rails, source, clock.now(), as_of)
    return as_of


def finished_nights(rails: "Rails", stage: StageName, spec: Spec) -> set[date]:
    """Nights that a stage has finished; of the governor, those on which it granted the model a retrain."""
    if stage == "governor":
        return {retrain.night for retrain in rails.ledger.retrains(spec.name)}
    return own_nights(rails, stage, spec)


def own_nights(rails: "Rails", stage: StageName, spec: Spec) -> set[date]:
    """The nights that a stage has finished for a model."""
    return rails.ledger.finished(stage, recorded_as(stage, spec.name, spec.source))


def closed_nights(rails: "Rails", stage: StageName, spec: Spec) -> set[date]:
    """The nights that a stage has done with: finished, or ended otherwise and not taken up again by itself."""
    if STAGES[stage].is_taken_up_again:
        return own_nights(rails, stage, spec)
    return set(rails.ledger.stage_statuses(stage, recorded_as(stage, spec.name, spec.source)))


def missed_nights(finished: set[date], own: set[date]) -> set[date]:
    """Nights of the last week before the newest finished one that are finished there and not here."""
    if not finished:
        return set()
    return {day for day in finished - own if day > max(finished) - SWEEP}


def governed_nights(rails: "Rails", specs: Sequence[Spec]) -> list[datetime]:
    """The nights that the governor may decide on now, oldest first.

    The parameter alone, when it is given, whoever is missing. Else every published night of the last week that has a
    finding, was not decided on for all of its models, and waits for nobody; and on a second attempt the nights of the
    events, since the first may have decided and not have announced. Skips the task when there is none.
    """
    from tiltyard.govern import grants  # with pandas, which a DAG file must not import when it is parsed

    if chosen := chosen_night(rails, rails.settings.sources):
        return [chosen]
    specs = unplayed(rails, specs)
    again = set() if task_run.is_first_attempt() else task_run.announced_nights()
    now = clock.now()
    ready, late = [], ""
    for day in sorted(grants.published(rails, specs, SWEEP) | again):
        there = rails.ledger.looked_at(day) & {spec.name for spec in specs}
        if not there or not (day in again or grants.undecided(rails, there, day)):
            continue
        if missing := grants.waiting(rails, specs, day, now):
            expected = len(grants.taking_part(rails, specs, day))
            late = f"The night of {day} waits for {len(missing)} of {expected}: {listed(sorted(missing))}."
        else:
            ready.append(clock.midnight(day))
    if not ready:
        task_run.skip(late or "No night has a finding that was not decided on.")
    return ready


def each_night(
    rails: "Rails", spec: Spec, when: Sequence[datetime], work: Callable[["Rails", Spec, datetime], RecordT]
) -> dict[date, RecordT]:
    """Night → what `work` returned; the oldest night first.

    A night that is stopped keeps no later one from its work. Its error is raised in the end, so that the task is red;
    of several nights one error names all.
    """
    done: dict[date, RecordT] = {}
    ended: dict[date, TiltyardError] = {}
    for as_of in when:
        day = clock.night_closing(as_of)
        try:
            done[day] = work(rails, spec, as_of)
            log.info("%s, %s: %s", spec.name, day, log_lines.of_night(done[day]))
        except (Unavailable, Fenced):
            raise
        except TiltyardError as error:
            ended[day] = error
    if ended:
        newest = ended[max(ended)]
        sentences = " ".join(f"{day}: {error}" for day, error in ended.items())
        raise newest if len(ended) == 1 else type(newest)(sentences)
    return done


def kept(done: Mapping[date, Record]) -> dict[str, JsonObject]:
    """An `each_night` result as a task returns it: night, like `2016-05-02`, → the record as JSON."""
    return {day.isoformat(): record.to_json() for day, record in done.items()}


def same_nights(done: Iterable[date]) -> list[datetime]:
    """The nights of an `each_night` result: what one task of a run did, the next one does."""
    return [clock.midnight(day) for day in sorted(done)]
