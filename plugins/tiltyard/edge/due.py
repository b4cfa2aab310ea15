"""What a stage has to do for which models: asked of the ledger, once for all models.

An event only says *look*. A night of a model is due when the stage before has finished it and this one has not, or when
the stage before has done it again since; so nothing that was lost is missed, and nothing that comes twice is done
twice. A model that came later owes no night from before it was there (`Ledger.first_nights`). Every question goes back
a week from the model's newest night, however many nights there are.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from tiltyard import clock, operating
from tiltyard.edge.nights import SWEEP
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.records import Instant, Publication, Record
from tiltyard.spec import Spec
from tiltyard.stages import STAGES, StageName

if TYPE_CHECKING:
    from tiltyard.ledger import StageEnd
    from tiltyard.prepare.publishing import Feeding
    from tiltyard.rails import Rails

LONG_AGO = datetime.min.replace(tzinfo=UTC)
LABELLED = 3
"""Models that the label of a task names one by one."""


@dataclass(frozen=True, kw_only=True)
class Lot(Record):
    """Models with the nights that are to be done, and how these stood before."""

    models: Mapping[str, tuple[date, ...]] = field(default_factory=dict)
    """Model → its nights, the oldest first."""
    before: Mapping[str, Mapping[date, Instant]] = field(default_factory=dict)
    """Model → night → when the stage was recorded before, of those nights that had a record."""

    def part(self, models: Iterable[str]) -> "Lot":
        """What it says of some models."""
        names = sorted(models)
        return Lot(
            models={name: self.models[name] for name in names},
            before={name: self.before[name] for name in names if name in self.before},
        )

    @property
    def nights(self) -> list[datetime]:
        """Every night of any of its models, the oldest first."""
        return [clock.midnight(day) for day in sorted({day for days in self.models.values() for day in days})]

    def label(self, failed: Collection[str] = ()) -> str:
        """Who is in it: the first and the last by name, and how many; before them a few of those that have failed."""
        names = sorted(self.models)
        own = ", ".join(names) if len(names) <= LABELLED else f"{names[0]} … {names[-1]} ({len(names)})"
        if not failed or len(names) == 1:
            return own
        more = f" and {len(failed) - LABELLED} more" if len(failed) > LABELLED else ""
        return f"failed: {', '.join(sorted(failed)[:LABELLED])}{more}; of {own}"


def lot(
    rails: "Rails", stage: StageName, specs: Sequence[Spec], chosen: datetime | None = None, *, named: bool = False
) -> Lot:
    """What `stage` has to do for these models; nothing of nights on which they were retired.

    With a night chosen, that night alone, of those models for which the stage before has it; where they were `named`
    one by one, of all with which it has come as far. Raises BadInput where that is none.
    """
    finished: dict[str, dict[date, datetime]] = {}
    if chosen is not None:
        day = clock.night_closing(chosen)
        if named:
            nights = {name: {day} for name, newest in _newest(rails, stage, specs).items() if newest >= day}
        else:
            nights = {name: {day} for name in _finished_on(rails, stage, specs, day)}
        if not nights:
            raise BadInput(
                f"{STAGES[stage].works_on} has not finished the night of {day} for any model; do that first."
            )
    else:
        finished = _finished(rails, stage, specs)
        nights = {name: set(days) for name, days in finished.items() if days}
    operations = rails.ledger.operations.of(nights)
    nights = {
        name: {day for day in days if operating.standing(operations[name], day).retired is None}
        for name, days in nights.items()
    }
    nights = {name: days for name, days in nights.items() if days}
    ends = rails.ledger.ends(stage, {name: min(days) for name, days in nights.items()})
    due = {
        name: days if chosen else {day for day in days if is_due(ends[name].get(day), finished[name][day])}
        for name, days in nights.items()
    }
    return Lot(
        models={name: tuple(sorted(days)) for name, days in sorted(due.items()) if days},
        before={
            name: {day: ends[name][day].recorded_at for day in sorted(days & ends[name].keys())}
            for name, days in sorted(due.items())
            if days & ends[name].keys()
        },
    )


def require_reached(rails: "Rails", stage: StageName, spec: Spec, as_of: datetime) -> None:
    """Raises BadInput for a night after the newest one that the stage before has come to for a model: it would be done
    without rows, and be the model's newest."""
    day, before = clock.night_closing(as_of), STAGES[stage].works_on
    newest = _newest(rails, stage, [spec]).get(spec.name)
    if newest is None or newest < day:
        come = f"the newest night that it has is that of {newest}" if newest else "it has done none yet"
        raise BadInput(
            f"{spec.name}: {before} has not done the night of {day}, {come}; do that first, or name a night that it "
            "has with --as-of."
        )


def _newest(rails: "Rails", stage: StageName, specs: Sequence[Spec]) -> dict[str, date]:
    """Model → the newest night that the stage before has come to, of those with which it has come to any."""
    before = STAGES[stage].works_on
    assert before
    if before != "features":
        return rails.ledger.newest_nights(before, _names(specs))
    settled = rails.ledger.settled_at({spec.prediction.spine for spec in specs}, 1)
    at_once = rails.ledger.newest_nights("features", [""]).get("")
    newest = {}
    for spec in specs:
        nights = [*settled.get(spec.prediction.spine, {}), *([at_once] if at_once else [])]
        if nights:
            newest[spec.name] = max(nights)
    return newest


def left(rails: "Rails", stage: StageName, planned: Lot) -> Lot:
    """Those of the planned models and nights that have not been done since they were planned."""
    ends = _ends(rails, stage, planned)
    models = {
        name: tuple(day for day in days if not _is_done(ends[name].get(day), planned.before.get(name, {}).get(day)))
        for name, days in planned.models.items()
    }
    return Lot(models={name: days for name, days in models.items() if days}, before=planned.before)


def unheard(rails: "Rails", stage: StageName, planned: Lot) -> Lot:
    """Those of the planned models and nights that have no record since they were planned: nobody has said anything."""
    ends = _ends(rails, stage, planned)
    models = {
        name: tuple(day for day in days if _is_old(ends[name].get(day), planned.before.get(name, {}).get(day)))
        for name, days in planned.models.items()
    }
    return Lot(models={name: days for name, days in models.items() if days}, before=planned.before)


def divided(whole: Lot, size: int) -> list[Lot]:
    """As few parts as it takes for none to have more than `size` models, of about as many nights each and in the order
    of their names, so that whoever looks for a model sees from the labels in which one it is."""
    rest, parts = sorted(whole.models), []
    for others in reversed(range(-(-len(rest) // size))):  # the number of parts that are still to come
        share = sum(len(whole.models[name]) for name in rest) / (others + 1)
        count, nights = 0, 0
        while count < min(size, len(rest) - others):
            more = len(whole.models[rest[count]])
            if len(rest) - count <= size * others and nights + more / 2 > share:
                break
            count, nights = count + 1, nights + more
        parts.append(whole.part(rest[:count]))
        rest = rest[count:]
    return parts


def proposals(rails: "Rails", specs: Sequence[Spec], planned: Lot) -> Lot:
    """Those of the planned nights of promotion on which the gate said promote and a person has yet to be asked.

    A model with such a night is its own DAG's, and so are all of its planned nights.
    """
    asking = {spec.name for spec in specs if spec.tier == STAGES["promotion"].asks_tier}
    waiting = {name: days for name, days in left(rails, "promotion", planned).models.items() if name in asking}
    changed = rails.ledger.changed(waiting)
    proposed = rails.ledger.proposed(waiting)
    return planned.part(name for name, days in proposed.items() if days - changed.get(name, set()))


def is_due(end: "StageEnd | None", finished_at: datetime) -> bool:
    """Whether a night is to be done that the stage before has finished at an instant, and that ended here like this."""
    return end is None or end.status != "done" or end.recorded_at < finished_at


def _is_old(end: "StageEnd | None", before: datetime | None) -> bool:
    return end is None or (before is not None and end.recorded_at <= before)


def _is_done(end: "StageEnd | None", before: datetime | None) -> bool:
    return end is not None and end.status == "done" and not _is_old(end, before)


def _ends(rails: "Rails", stage: StageName, planned: Lot) -> dict[str, dict[date, "StageEnd"]]:
    return rails.ledger.ends(stage, {name: min(days) for name, days in planned.models.items()})


def _finished(rails: "Rails", stage: StageName, specs: Sequence[Spec]) -> dict[str, dict[date, datetime]]:
    """Model → night of the last week that the stage before has finished → when it has."""
    before = STAGES[stage].works_on
    assert before, f"{stage} works on no other stage's nights"
    if before == "features":
        return _with_rows(rails, specs, ready_nights(rails, specs))
    since = {name: newest - SWEEP for name, newest in rails.ledger.newest_nights(before, _names(specs)).items()}
    ends = rails.ledger.ends(before, since)
    return {
        spec.name: {
            day: end.recorded_at
            for day, end in ends.get(spec.name, {}).items()
            if end.status == "done" and day > since[spec.name]
        }
        for spec in specs
    }


def _finished_on(rails: "Rails", stage: StageName, specs: Sequence[Spec], day: date) -> list[str]:
    """The models for which the stage before has finished a night."""
    before = STAGES[stage].works_on
    assert before
    if before != "features":
        ends = rails.ledger.ends(before, dict.fromkeys(_names(specs), day), until=day)
        return [name for name, own in ends.items() if day in own and own[day].status == "done"]
    first = rails.ledger.first_nights(_names(specs))
    specs = [spec for spec in specs if day >= first.get(spec.name, date.min)]
    states = rails.ledger.settled_at({spec.prediction.spine for spec in specs}, 1, until=day)
    at_once = rails.ledger.ends("features", {"": day}, until=day)[""].get(day)
    if at_once is not None and at_once.status == "done":
        return _names(specs)
    return [spec.name for spec in specs if day in states.get(spec.prediction.spine, {})]


def ready_nights(rails: "Rails", specs: Sequence[Spec], on: date | None = None) -> dict[str, dict[date, datetime]]:
    """Model → night on which it may start → when the last of its tables was settled. Of the model's own last week,
    since the data of another source may be of another year, or of the night `on` alone; none from before it was there.

    It may start when every table that it reads is published or settled otherwise, or fed by sources alone that have no
    run for the night. In older ledgers all sources are published at once: then a night may be started that is.
    """
    tables = {spec.name: {spec.prediction.spine, *spec.prediction.features} for spec in specs}
    states = rails.ledger.settled_at(set().union(*tables.values()), 1 if on else 2 * SWEEP.days, until=on)
    at_once = _published_at_once(rails, on)
    awaited = _Awaited(rails)
    first = rails.ledger.first_nights(tables)
    ready: dict[str, dict[date, datetime]] = {}
    for spec in specs:
        own = {table: states.get(table, {}) for table in sorted(tables[spec.name])}
        nights = dict(at_once)
        for day in own[spec.prediction.spine]:
            missing = [table for table, of_table in own.items() if day not in of_table]
            if on in (None, day) and not any(awaited.has_to_come(table, day) for table in missing):
                nights[day] = max(of_table[day] for of_table in own.values() if day in of_table)
        newest, begin = max(nights, default=date.min), first.get(spec.name, date.min)
        ready[spec.name] = {day: at for day, at in nights.items() if newest - day < SWEEP and day >= begin}
    return ready


def _published_at_once(rails: "Rails", on: date | None) -> dict[date, datetime]:
    """Night of the last week of an older ledger, or the night `on` alone → when all sources of it were published."""
    newest = on or rails.ledger.newest_nights("features", [""]).get("")
    if newest is None:
        return {}
    ends = rails.ledger.ends("features", {"": on or newest - SWEEP}, until=on)[""]
    return {day: end.recorded_at for day, end in ends.items() if end.status == "done"}


class _Awaited:
    """Which sources have still to come on which night; asked only where something is missing."""

    def __init__(self, rails: "Rails") -> None:
        self._rails = rails
        self._sources: dict[date, frozenset[str]] = {}

    @cached_property
    def _feeding(self) -> "Feeding":
        from tiltyard.prepare.publishing import Feeding

        return Feeding.of(self._rails.settings)

    def has_to_come(self, table: str, night: date) -> bool:
        """Whether a source that feeds a table has a run for the night that has not ended."""
        from tiltyard.prepare import publishing

        if night not in self._sources:
            self._sources[night] = publishing.awaited(self._rails, self._feeding, night)
        return bool(self._feeding.of_table(table) & self._sources[night])


def _with_rows(
    rails: "Rails", specs: Sequence[Spec], settled: Mapping[str, Mapping[date, datetime]]
) -> dict[str, dict[date, datetime]]:
    """Of the settled nights those of which the spine has rows, and those older ones of which it had none then.

    A night whose rows the spine does not have, because it is not good, waits: its record says so, and it is done with
    the first night on which the spine is good again, however long that took. So is a night of the last week on which
    no source had a run, between nights that were scored or may be.
    """
    publication = rails.ledger.publication()
    scored = _scored(rails, settled)
    owed = rails.ledger.unpublished({spec.prediction.spine for spec in specs})
    first = rails.ledger.first_nights(_names(specs))
    finished: dict[str, dict[date, datetime]] = {}
    for spec in specs:
        nights = dict(settled[spec.name])
        nights |= dict.fromkeys(_between(nights, scored.get(spec.name, set())), LONG_AGO)
        nights |= dict.fromkeys(owed.get(spec.prediction.spine, set()) - nights.keys(), LONG_AGO)
        nights = {day: at for day, at in nights.items() if day >= first.get(spec.name, date.min)}
        waiting = waiting_nights(publication, spec, nights) if publication else {}
        _record_waiting(rails, spec, waiting)
        finished[spec.name] = {day: at for day, at in nights.items() if day not in waiting}
    return finished


def _scored(rails: "Rails", settled: Mapping[str, Mapping[date, datetime]]) -> dict[str, set[date]]:
    """Model → its nights of the last week that have a record of being scored, however it ended, and its newest one."""
    since = {name: max(nights) - SWEEP for name, nights in settled.items() if nights}
    scored = {name: set(ends) for name, ends in rails.ledger.ends("shadow", since).items()}
    for name, night in rails.ledger.newest_nights("shadow", list(since)).items():
        scored[name].add(night)
    return scored


def _between(settled: Collection[date], scored: Collection[date]) -> set[date]:
    """The nights of the last week that were neither settled nor scored, between one that was and the newest."""
    if not settled:
        return set()
    newest = max(settled)
    oldest = max(min({*settled, *scored}), newest - SWEEP)
    nights = {oldest + timedelta(days=number) for number in range((newest - oldest).days)}
    return nights - {*settled} - {*scored}


def waiting_nights(publication: Publication, spec: Spec, nights: Collection[date]) -> dict[date, str]:
    """Night → why the spine has no rows of it yet, of those of which it has none."""
    from tiltyard.judge import scoring

    reasons = {day: scoring.waits_for(publication, spec, clock.midnight(day)) for day in nights}
    return {day: reason for day, reason in reasons.items() if reason is not None}


def _record_waiting(rails: "Rails", spec: Spec, waiting: Mapping[date, str]) -> None:
    """Let every night that waits have a record that says so: nobody waits for the model meanwhile."""
    from tiltyard.judge import shadow

    if not waiting:
        return
    recorded = rails.ledger.ends("shadow", {spec.name: min(waiting)})[spec.name]
    for day in sorted(waiting.keys() - recorded.keys()):
        with suppress(CheckFailed):
            shadow.score(rails, spec, clock.midnight(day))


def _names(specs: Sequence[Spec]) -> list[str]:
    return [spec.name for spec in specs]
