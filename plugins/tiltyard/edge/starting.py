"""What `tiltyard start` does: Airflow up for the sources and models that are there, whatever they are.

It fetches nothing and plays no past. What is acceptable of the checkout is put in force, what runs stays, what is
missing is started; nights that are named run as real DAG runs. Safe to repeat.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.edge import quickstart, services
from tiltyard.edge.airflow_api import Airflow, Progress
from tiltyard.edge.quickstart import AirflowAccess, LiveNight, Question
from tiltyard.edge.resting import PAST
from tiltyard.errors import BadInput
from tiltyard.prepare import contracts, ingest, releasing
from tiltyard.rails import Rails
from tiltyard.records import Record, RefusedText
from tiltyard.settings import Settings
from tiltyard.spec import Spec, load_all, portfolio


@dataclass(frozen=True, kw_only=True)
class StartedSource(Record):
    """A source that runs."""

    name: str
    """Its name."""
    schedule: str | None
    """The cron expression, UTC, by which its nights start by themselves; None: nights are asked for."""
    newest: date | None
    """The day of its newest delivery; None where nothing is there."""
    models: tuple[str, ...]
    """The models that it feeds."""


@dataclass(frozen=True, kw_only=True)
class StartOutcome(Record):
    """What a start came to."""

    started: tuple[str, ...]
    """Parts of Airflow that were started now; empty when all of them ran already."""
    airflow: AirflowAccess
    """Where Airflow is, and how to log in."""
    sources: tuple[StartedSource, ...]
    """The active sources."""
    resting: tuple[str, ...]
    """The models whose source is not active here."""
    nights: tuple[date, ...]
    """The nights that were asked for, and are through."""
    refused: tuple[RefusedText, ...]
    """What of the checkout is not in force."""
    notes: tuple[str, ...]
    """What is not as somebody may think, a sentence each."""
    questions: tuple[Question, ...] = ()
    """What a person is asked."""
    untold: tuple[str, ...] = ()
    """Whom nothing could be told, and why, a sentence each."""


def start(
    settings: Settings,
    nights: Sequence[datetime],
    progress: Progress,
    tell: Callable[[str], None] = lambda sentence: None,
    *,
    by: str,
) -> StartOutcome:
    """Start what does not run, wait until Airflow has the DAGs of every model, and let these nights run in it. `tell`
    gets what is not as somebody may think, before anything is waited for. `by`: who puts the checkout in force.

    Raises BadInput where there is no checkout, no source that is active, or, with nights, no model; Unavailable when a
    part stays down; CheckFailed when a night fails.
    """
    quickstart.require_checkout(settings)
    if services.status(settings).pids["api-server"] is None:
        services.check_port(settings)
    with rails_module.opened(settings) as checkout:
        progress("putting the checkout in force", 0.0)
        rails, accepted = releasing.in_force(checkout, clock.now(), by=by)
        specs = portfolio(rails.settings)
        if nights and not specs:
            raise BadInput(
                f"No model feeds on the active sources ({', '.join(rails.settings.sources)}), so that no night can "
                "run; write one with tiltyard new model, or land what its source delivers."
            )
        unscheduled, sources, notes = scheduled(rails)
        played = rails.ledger.played([spec.name for spec in specs]) if nights else set()
        notes += tuple(
            f"{name}: a hindcast plays it at this moment, so that these nights are not done for it; start them once "
            "more when that has ended."
            for name in sorted(played)
        )
        for note in notes:
            tell(note)
        settings = settings.model_copy(update={"unscheduled": unscheduled})  # of the checkout: Airflow follows releases
        free = tuple(spec for spec in specs if spec.name not in played)
        left_to_it = {spec.source for spec in specs} - {spec.source for spec in free}
        through = [
            _live(rails, as_of, [each for each in settings.sources if each not in left_to_it], free) for as_of in nights
        ]
        running = quickstart.nights_in_airflow(replace(checkout, settings=settings), through, progress)
        if not nights:
            with Airflow(settings) as airflow:
                airflow.wait_for_dags(quickstart.dag_ids(settings, specs))
        newest = [clock.night_closing(as_of) for as_of in nights[-1:]]
        asked = tuple(question for night in newest for question in quickstart.questions(rails, free, night))
        untold = quickstart.untold(rails)
        resting = tuple(spec.name for spec in load_all(rails.settings.models) if spec.source not in settings.sources)
    progress("up", 1.0)
    if "api-server" not in running.started:
        note = "Airflow ran already and goes on with the settings that it was started with; tiltyard down ends it."
        tell(note)
        notes = (note, *notes)
    return StartOutcome(
        started=running.started,
        airflow=AirflowAccess(url=running.url, user=running.user, password_file=str(running.password_file)),
        sources=sources,
        resting=resting,
        nights=tuple(clock.night_closing(as_of) for as_of in nights),
        refused=accepted.refused,
        notes=notes,
        questions=asked,
        untold=untold,
    )


def _live(rails: Rails, as_of: datetime, sources: Sequence[str], specs: Sequence[Spec]) -> LiveNight:
    """A night of the sources that delivered then: of the others every table would be held, or empty. Raises BadInput
    where it is no model's."""
    newest = {source: ingest.newest_here(rails, source, until=clock.night_closing(as_of)) for source in sources}
    names = tuple(source for source, day in newest.items() if day and as_of - clock.midnight(day) <= PAST)
    live = LiveNight(as_of, names, tuple(spec for spec in specs if spec.source in names))
    if not live.specs:
        raise BadInput(
            f"The night of {clock.night_closing(as_of)} is no model's: none of their sources "
            f"({', '.join(sources) or 'none that no hindcast plays'}) has delivered in the {PAST.days} days before it. "
            "Name a night that has data; tiltyard start without --night names the one that is due."
        )
    return live


def scheduled(rails: Rails) -> tuple[tuple[str, ...], tuple[StartedSource, ...], tuple[str, ...]]:
    """(TILTYARD_UNSCHEDULED that Airflow is started with, the active sources, what to say of them).

    A source of the past would find every table too old tonight and hold it. So nights start by themselves only where a
    source still delivers, or has nothing yet. A delivery of a day that is yet to come is none that it still delivers.
    """
    settings, now = rails.settings, clock.now()
    newest = {source: ingest.newest_here(rails, source, until=now.date()) for source in settings.sources}
    fetched = {source for source in settings.sources if contracts.fetches(settings, source)}  # what is newer comes
    past = {
        name: day for name, day in newest.items() if day and now - clock.midnight(day) > PAST and name not in fetched
    }
    notes: list[str] = []
    settings = settings.model_copy(update={"unscheduled": tuple(sorted({*settings.unscheduled, *past}))})
    by_itself = {source: contracts.schedule(settings, source) for source in settings.sources}
    notes += _of_the_past(rails, past, by_itself)
    notes += [
        f"{source}: nothing has landed yet; "
        + ("its first night fetches it." if source in fetched else f"put deliveries under {settings.landing / source}.")
        for source, day in newest.items()
        if day is None
    ]
    notes += [
        f"{source}: it has files in the landing zone and no contract, so that its nights fail, alone; write one with "
        f"tiltyard new source {source}, or take it away with tiltyard remove {source}."
        for source in sorted({*settings.sources} - {*contracts.sources(settings)})
    ]
    specs = portfolio(settings)
    sources = tuple(
        StartedSource(
            name=source,
            schedule=by_itself[source],
            newest=newest[source],
            models=tuple(spec.name for spec in specs if spec.source == source),
        )
        for source in settings.sources
    )
    return settings.unscheduled, sources, tuple(notes)


def _of_the_past(rails: Rails, past: Mapping[str, date], by_itself: Mapping[str, str | None]) -> Iterator[str]:
    """What is said of each source of the past, `past`: source → day of its newest delivery."""
    done = rails.ledger.newest_attempts("features", past)
    for source, day in past.items():
        told = f"{source}: its newest delivery is that of {day}"
        asked = f"{told}, so that no night starts by itself; tiltyard start --night"
        due = done[source] + clock.NIGHT if source in done else None
        if by_itself[source] is not None:
            yield (
                f"{told}, and its nights start by themselves: they will hold its tables as too old, or be refused. "
                "Write schedule: none into its contract, or bring deliveries."
            )
        elif due is None:
            night = day + clock.NIGHT
            yield f"{asked} {night} lets one run."
        elif due <= day + clock.NIGHT:
            yield f"{asked} {due} lets the one run that is due."
        else:
            yield f"{told}, and its newest night is that of {done[source]}: none is due until it delivers again."


def summary(outcome: StartOutcome) -> str:
    """What `start` prints at its end."""
    lines = []
    for source in outcome.sources:
        when = f"at {source.schedule} UTC" if source.schedule else "when they are asked for"
        models = ", ".join(source.models) or "no model yet"
        lines.append(f"{source.name}: {models}; its nights start {when}")
    if outcome.resting:
        lines.append(f"resting, since their source is not active here: {', '.join(outcome.resting)}")
    lines += [f"night of {night}: done" for night in outcome.nights]
    lines += map(str, outcome.questions)
    lines += [f"warning: {sentence}" for sentence in outcome.untold]
    lines.append(f"{outcome.airflow}; tiltyard down stops it.")
    return "\n".join(lines)
