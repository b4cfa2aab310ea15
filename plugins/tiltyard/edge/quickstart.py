"""What `make up` does: fetch → hindcast a history → start Airflow → let the last nights run as real DAG runs.

Every step is safe to repeat: what is there already is passed over.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from tiltyard import clock, stages
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.edge import describe, services, status
from tiltyard.edge.airflow_api import Airflow, Progress
from tiltyard.edge.airflow_settings import address
from tiltyard.edge.document import Document
from tiltyard.errors import BadInput, CheckFailed, Unavailable
from tiltyard.prepare import datasets, releasing
from tiltyard.rails import Rails
from tiltyard.records import GovernorSummary, Record
from tiltyard.rewind import hindcast
from tiltyard.rewind.hindcast import EndedEarly
from tiltyard.settings import Settings
from tiltyard.spec import Spec, portfolio

LIVE_NIGHTS = 3
PATIENCE_S = 600
"""Seconds in which nothing of a night may end in Airflow before `up` gives up waiting and says where to look."""


@dataclass(frozen=True)
class Demo:
    """A data set with the nights that `make up` plays: hindcast from `first`, the last three in Airflow."""

    source: str
    """The source's name."""
    first: str
    """The first night's `as_of`, a date."""
    last: str
    """The last night's."""


DEMOS = {
    "incident": Demo("incident", "2016-04-01", "2016-06-01"),
    "flights": Demo("flights", "2014-03-01", "2014-03-30"),
    "hotels": Demo("hotels", "2016-09-15", "2016-11-15"),
    "retail": Demo("retail", "2011-09-16", "2011-10-28"),
    "simulated": Demo("subscription", "2025-03-15", "2025-05-31"),
}


@dataclass(frozen=True, kw_only=True)
class AirflowAccess(Record):
    """Where Airflow is, and how to log in."""

    url: str
    """Its address."""
    user: str
    """The user's name."""
    password_file: str
    """The file that holds the password."""


@dataclass(frozen=True, kw_only=True)
class DemoOutcome(Record):
    """What `up` has brought up and played."""

    models: tuple[Document, ...]
    """The document of every model, after the last night."""
    plots: tuple[str, ...]
    """Paths of the pictures that were drawn."""
    nights: tuple[date, ...]
    """The nights that ran in Airflow."""
    ended_early: dict[str, tuple[EndedEarly, ...]]
    """Model → its stages of all these nights that did not end well."""
    airflow: AirflowAccess
    """Where Airflow is, and how to log in."""


def up(settings: Settings, name: str, progress: Progress) -> DemoOutcome:
    """Bring everything up and play the demo. Raises BadInput for an unknown data set, and where there are no models to
    play it with; Unavailable when a part stays down.
    """
    if name not in DEMOS:
        raise BadInput(f"There is no data set '{name}'; DATA is one of: {', '.join(DEMOS)}.")
    demo = DEMOS[name]
    settings = settings.model_copy(update={"sources": (demo.source,), "schedule": "none"})
    specs = _models(settings)  # better now than after minutes of simulating or downloading; so with the port
    if services.status(settings).pids["api-server"] is None:
        services.check_port(settings)
    datasets.fetch(settings, name, progress=lambda label, fraction: progress(label, 0.05 * (fraction or 0.0)))
    nights = list(clock.nights(clock.parse_as_of(demo.first), clock.parse_as_of(demo.last)))
    past, live = nights[:-LIVE_NIGHTS], nights[-LIVE_NIGHTS:]
    with rails_module.opened(settings) as rails:
        in_force, _ = releasing.in_force(rails, clock.now())
        hindcast.hindcast(
            in_force,
            specs,
            past[0],
            past[-1],
            progress=lambda label, fraction: progress(f"hindcast: {label}", 0.05 + 0.65 * fraction),
        )
        started = nights_in_airflow(
            rails, specs, live, progress=lambda label, share: progress(label, 0.7 + 0.3 * (share or 0.0))
        )
        progress("reading the outcome", 0.99)
        documents = tuple(status.status(rails, spec, live[-1]) for spec in specs)
        plots = [status.plot(rails, spec, live[-1]) for spec in specs]
        days = [night_closing(as_of) for as_of in nights]
        of_model = hindcast.ended_early(rails, days)
        ended_early = {spec.name: of_model.get(spec.name, ()) for spec in specs}
    progress("up", 1.0)
    return DemoOutcome(
        models=documents,
        plots=tuple(str(path) for path in plots if path),
        nights=tuple(night_closing(as_of) for as_of in live),
        ended_early=ended_early,
        airflow=AirflowAccess(url=started.url, user=started.user, password_file=str(started.password_file)),
    )


def _models(settings: Settings) -> tuple[Spec, ...]:
    """The models that are played. Raises BadInput where a demo has nothing to stand on: outside a checkout."""
    for name in ("models", "dbt", "expectations"):
        folder = getattr(settings, name)
        if not folder.is_dir():
            raise BadInput(
                f"There is no {name} folder at {folder}; run it in a checkout of Tiltyard, or set TILTYARD_"
                f"{name.upper()}."
            )
    specs = portfolio(settings)
    if not specs:
        raise BadInput(f"No model under {settings.models} feeds on the source {settings.sources[0]}; add one.")
    return specs


def nights_in_airflow(
    rails: Rails, specs: tuple[Spec, ...], nights: Sequence[datetime], progress: Progress | None = None
) -> services.Started:
    """Start what does not run yet, and let these nights run as real DAG runs; those that have run are passed over."""
    say = progress or services.silent
    started = services.start(rails.settings, progress=lambda label, share: say(label, 0.3 * (share or 0.0)))
    with Airflow(rails.settings) as airflow:
        airflow.wait_for_dags(dag_ids(rails.settings, specs))
        for position, as_of in enumerate(nights):
            say(f"night of {night_closing(as_of)} in Airflow", 0.3 + 0.7 * position / len(nights))
            night_in_airflow(rails, airflow, specs, as_of)
    return started


def night_in_airflow(rails: Rails, airflow: Airflow, specs: tuple[Spec, ...], as_of: datetime) -> None:
    """Trigger the features DAG of one night and wait until its assets have carried it through every stage.

    One question to the ledger and one to Airflow a second, whatever the number of models.
    """
    day = night_closing(as_of)
    left = unfinished(rails, specs, day)
    if not left:
        return
    url = address(rails.settings)
    begun = clock.now()
    for source in rails.settings.sources:
        airflow.trigger(stages.dag_id("features", source), {"as_of": str(day)})
    deadline = time.monotonic() + PATIENCE_S
    while left:
        for run in airflow.failed_runs(since=begun):
            raise CheckFailed(
                f"The night of {day} failed in {run.dag_id}; its log: {url}/dags/{run.dag_id}/runs/{run.dag_run_id}"
            )
        if time.monotonic() > deadline:
            raise Unavailable(
                f"Nothing of the night of {day} ended for {PATIENCE_S // 60} minutes, with {len(left)} stages to go; "
                f"look at {url}/dags."
            )
        time.sleep(1.0)
        before, left = left, unfinished(rails, specs, day)
        if left != before:
            deadline = time.monotonic() + PATIENCE_S


def unfinished(rails: Rails, specs: Sequence[Spec], night: date) -> set[tuple[str, str]]:
    """(model, stage) of every stage that the night asked for and that is not recorded as done, or as ended where none
    is taken up again. With the governor's word outstanding, that is the model's `governor`."""
    since = {spec.name: night for spec in specs}
    left = set()
    for stage in stages.NIGHTLY:
        ends = rails.ledger.ends(stage, since, until=night)
        over = {
            name
            for name, own in ends.items()
            if night in own and (own[night].status == "done" or not stages.STAGES[stage].is_taken_up_again)
        }
        left |= {(name, stage) for name in since.keys() - over}
    entry = rails.ledger.stage_run(GovernorSummary, "", night)
    actions = entry.summary.actions if entry else {}
    decisions = {name: action.decision for name, action in actions.items() if action.decision != "waiting"}
    undecided = {(name, "governor") for name in since.keys() - decisions.keys()}
    return {pair for pair in left if pair[1] != "training" or decisions.get(pair[0]) == "retrain"} | undecided


def dag_ids(settings: Settings, specs: tuple[Spec, ...]) -> list[str]:
    """The DAGs that a night of these models goes through."""
    features = {stages.dag_id("features", source) for source in settings.sources}
    own = {stages.dag_of(stage, spec.name, spec.source) for spec in specs for stage in stages.NIGHTLY}
    return sorted(features | own | {"governor"})


def summary(outcome: DemoOutcome) -> str:
    """What `up` prints at its end: what happened, where Airflow is and how to log in."""
    airflow = outcome.airflow
    lines = [describe.model(document) for document in outcome.models]
    lines += [f"  plot         {path}" for path in outcome.plots]
    lines.append(
        f"Airflow {airflow.url}, user {airflow.user}, password in {airflow.password_file}; make down stops it."
    )
    return "\n".join(lines)
