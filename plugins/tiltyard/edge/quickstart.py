"""What `make up` does: fetch → hindcast a history → start Airflow → let the last nights run as real DAG runs.

Every step is safe to repeat: what is there already is passed over.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from tiltyard import clock, release, stages
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.edge import describe, due, proposals, services, status
from tiltyard.edge.airflow_api import Airflow, Progress
from tiltyard.edge.airflow_settings import SECOND_USER, address
from tiltyard.edge.document import Document
from tiltyard.edge.nights import SWEEP
from tiltyard.edge.open_forms import Forms
from tiltyard.errors import BadInput, CheckFailed, Unavailable
from tiltyard.outbox import PATIENCE
from tiltyard.prepare import datasets, releasing
from tiltyard.rails import Rails, drawing
from tiltyard.records import GovernorSummary, Record
from tiltyard.rewind import hindcast
from tiltyard.rewind.hindcast import EndedEarly
from tiltyard.settings import Settings
from tiltyard.spec import Spec, portfolio

LIVE_NIGHTS = 3
ALL = "all"
"""In place of a data set's name: all of them, beside each other."""
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
    """The file that holds the passwords."""

    def __str__(self) -> str:
        return (
            f"Airflow {self.url}, user {self.user}, and {SECOND_USER} to answer what {self.user} has asked for; "
            f"passwords in {self.password_file}"
        )


@dataclass(frozen=True, kw_only=True)
class Question(Record):
    """A promotion that a person is asked about."""

    model: str
    """The model."""
    version: int
    """The version that may be promoted."""
    night: date
    """The night on which the gate said so."""
    until: datetime | None
    """When silence counts as a no; None as long as there is no form."""
    form: str
    """Where it is answered."""
    who: str
    """Who may answer, or that there is no form yet, in sentences."""

    def __str__(self) -> str:
        until = f", until {self.until:%Y-%m-%d %H:%M} UTC; silence is a no" if self.until else ""
        who = f" {self.who}" if self.who else ""
        form = "The form" if self.until else "Its DAG"
        return (
            f"{self.model}: a person is asked whether version {self.version} may be promoted{until}.{who} {form}: "
            f"{self.form}"
        )


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
    questions: tuple[Question, ...] = ()
    """What a person is asked, and nothing goes on without."""
    untold: tuple[str, ...] = ()
    """Whom nothing could be told, and why, a sentence each."""


def up(settings: Settings, name: str, progress: Progress, *, by: str) -> DemoOutcome:
    """Bring everything up and play a demo, or all of them beside each other, each on its own nights. `by`: who puts
    the checkout in force. Raises BadInput for an unknown data set, and where there are no models to play it with;
    Unavailable when a part stays down.
    """
    if name not in (*DEMOS, ALL):
        raise BadInput(f"There is no data set '{name}'; DATA is one of: {', '.join(DEMOS)}; or {ALL}.")
    demos = [PlayedDemo(key, demo) for key, demo in DEMOS.items() if name in (key, ALL)]
    settings = settings.model_copy(
        update={"sources": tuple(played.demo.source for played in demos), "schedule": "none"}
    )
    specs = _models(settings)  # better now than after minutes of simulating or downloading; so with the port
    if services.status(settings).pids["api-server"] is None:
        services.check_port(settings)
    share = 1 / len(demos)
    for position, played in enumerate(demos):
        datasets.fetch(settings, played.name, progress=_part(progress, 0.05 * position * share, 0.05 * share))
    with rails_module.opened(settings) as rails:
        for position, played in enumerate(demos):
            _play_past(rails, played, _part(progress, 0.05 + 0.65 * position * share, 0.65 * share), by)
        started = nights_in_airflow(
            rails, [night for played in demos for night in played.live(specs)], _part(progress, 0.7, 0.3)
        )
        progress("reading the outcome", 0.99)
        asked = tuple(
            question
            for played in demos
            for question in questions(rails, played.models(specs), night_closing(played.nights[-1]))
        )
        newest = [(spec, played.nights[-1]) for played in demos for spec in played.models(specs)]
        documents = tuple(status.status(rails, spec, as_of) for spec, as_of in newest)
        plots = []
        for spec, as_of in newest:
            with drawing(rails, f"realized/{spec.name}.png", night_closing(as_of)):
                plots.append(status.plot(rails, spec, as_of))
        untold_to = untold(rails)
        ended_early: dict[str, tuple[EndedEarly, ...]] = {}
        for played in demos:
            of_model = hindcast.ended_early(rails, [night_closing(as_of) for as_of in played.nights])
            ended_early |= {spec.name: of_model.get(spec.name, ()) for spec in played.models(specs)}
    progress("up", 1.0)
    return DemoOutcome(
        models=documents,
        plots=tuple(str(path) for path in plots if path),
        nights=tuple(sorted(night_closing(as_of) for played in demos for as_of in played.nights[-LIVE_NIGHTS:])),
        ended_early=ended_early,
        airflow=AirflowAccess(url=started.url, user=started.user, password_file=str(started.password_file)),
        questions=asked,
        untold=untold_to,
    )


@dataclass(frozen=True)
class LiveNight:
    """A night that runs in Airflow."""

    as_of: datetime
    """Its end."""
    sources: tuple[str, ...]
    """The sources whose features it begins with."""
    specs: tuple[Spec, ...]
    """The models that go through it."""


@dataclass(frozen=True)
class PlayedDemo:
    """A demo that is played."""

    name: str
    """The name of its data set."""
    demo: Demo
    """What it is."""

    @property
    def nights(self) -> list[datetime]:
        """Its nights, the oldest first."""
        return list(clock.nights(clock.parse_as_of(self.demo.first), clock.parse_as_of(self.demo.last)))

    def models(self, specs: Iterable[Spec]) -> tuple[Spec, ...]:
        """Those of the models that are its own."""
        return tuple(spec for spec in specs if spec.source == self.demo.source)

    def live(self, specs: Iterable[Spec]) -> list[LiveNight]:
        """The nights that run in Airflow."""
        own = self.models(specs)
        return [LiveNight(as_of, (self.demo.source,), own) for as_of in self.nights[-LIVE_NIGHTS:]]


def _play_past(rails: Rails, played: PlayedDemo, progress: Progress, by: str) -> None:
    """Hindcast a demo's nights but the last ones."""
    in_force, _ = releasing.in_force(rails, clock.now(), by=by)
    alone = replace(in_force, settings=in_force.settings.model_copy(update={"sources": (played.demo.source,)}))
    past = played.nights[:-LIVE_NIGHTS]
    labelled = f"hindcast of {played.name}" if len(rails.settings.sources) > 1 else "hindcast"
    hindcast.hindcast(
        alone,
        played.models(_models(alone.settings)),
        past[0],
        past[-1],
        progress=lambda label, share: progress(f"{labelled}: {label}", share),
    )


def _part(progress: Progress, begin: float, share: float) -> Progress:
    """Progress of a part that begins somewhere and takes a share of the whole."""
    return lambda label, fraction: progress(label, begin + share * (fraction or 0.0))


def require_checkout(settings: Settings) -> None:
    """Raises BadInput where one of the folders of a checkout is missing."""
    for name in release.PARTS:
        folder = getattr(settings, name)
        if not folder.is_dir():
            raise BadInput(
                f"There is no {name} folder at {folder}; run it in a checkout of Tiltyard, or set TILTYARD_"
                f"{name.upper()}."
            )


def _models(settings: Settings) -> tuple[Spec, ...]:
    """The models that are played. Raises BadInput where a demo has nothing to stand on: outside a checkout."""
    require_checkout(settings)
    specs = portfolio(settings)
    if not specs:
        named = " or ".join(settings.sources)
        raise BadInput(f"No model under {settings.models} feeds on the source {named}; add one.")
    return specs


def nights_in_airflow(rails: Rails, nights: Sequence[LiveNight], progress: Progress | None = None) -> services.Started:
    """Start what does not run yet, and let these nights run as real DAG runs; those that have run are passed over."""
    say = progress or services.silent
    started = services.start(rails.settings, progress=lambda label, share: say(label, 0.3 * (share or 0.0)))
    specs = {spec.name: spec for night in nights for spec in night.specs}
    with Airflow(rails.settings) as airflow:
        airflow.wait_for_dags(dag_ids(rails.settings, tuple(specs.values())))
        for position, night in enumerate(nights):
            say(f"night of {night_closing(night.as_of)} in Airflow", 0.3 + 0.7 * position / len(nights))
            night_in_airflow(rails, airflow, night.specs, night.as_of, night.sources)
    return started


def night_in_airflow(
    rails: Rails, airflow: Airflow, specs: tuple[Spec, ...], as_of: datetime, sources: Sequence[str] | None = None
) -> None:
    """Trigger the features DAGs of one night, of `sources` or of all that are active, and wait until their assets have
    carried it through every stage of these models.

    One question to the ledger and one to Airflow a second, whatever the number of models. Raises Unavailable as soon as
    a part of Airflow ends that ran when the night began: without its scheduler nothing would go on, and nobody say so.
    """
    day = night_closing(as_of)
    left = to_come(rails, specs, day)
    if not left:
        return
    waiting = {model for model, _ in left}
    newest = rails.ledger.newest_nights("shadow", waiting)
    passed = {name: night for name, night in newest.items() if night - day > SWEEP}
    if passed:
        name, night = max(passed.items(), key=lambda pair: pair[1])
        raise BadInput(
            f"The night of {day} is not taken up any more: {name} went on to that of {night}. Play it with tiltyard "
            f"hindcast, or choose one after {night}."
        )
    url = address(rails.settings)
    begun, running = clock.now(), services.parts(rails.settings)
    through = {spec.source for spec in specs} - {spec.source for spec in specs if spec.name in waiting}
    for source in rails.settings.sources if sources is None else sources:
        if source in through:  # all of its models have had this night
            continue
        airflow.trigger_night(stages.dag_id("features", source), as_of)
    deadline = time.monotonic() + PATIENCE_S
    while left:
        if ended := [name for name in running if name not in services.parts(rails.settings)]:
            raise Unavailable(
                f"Airflow's {' and '.join(ended)} ended while the night of {day} ran; the same command starts what is "
                f"missing and goes on with the night. Look into {rails.settings.home / 'logs' / ended[0]}.log."
            )
        for run in airflow.failed_runs(since=begun):
            if is_outcome(rails, run.dag_id, day):
                continue
            raise CheckFailed(
                f"The night of {day} failed in {run.dag_id}; its log: {url}/dags/{run.dag_id}/runs/{run.dag_run_id}"
            )
        if stuck := _stuck(rails, specs, left, day, begun):
            raise CheckFailed(
                f"The night of {day} waits for tables that are not good: {stuck} Mend that, and start it again; "
                f"what was found: {url}/tiltyard/"
            )
        if time.monotonic() > deadline:
            raise Unavailable(
                f"Nothing of the night of {day} ended for {PATIENCE_S // 60} minutes, with {len(left)} stages to go; "
                f"look at {url}/dags."
            )
        time.sleep(1.0)
        before, left = left, to_come(rails, specs, day)
        if left != before:
            deadline = time.monotonic() + PATIENCE_S


def _stuck(rails: Rails, specs: Sequence[Spec], left: set[tuple[str, str]], day: date, begun: datetime) -> str | None:
    """Why nothing more comes of a night, a sentence per model: its source is through, and the spine has no rows of the
    night. None where any of the models may still go on."""
    waiting = {spec.name: spec for spec in specs if (spec.name, "shadow") in left}
    if not waiting or {model for model, _ in left} != waiting.keys():
        return None
    ends = rails.ledger.ends("features", {spec.source: day for spec in waiting.values()}, until=day)
    through = [own.get(day) for own in ends.values()]
    if any(end is None or end.recorded_at < begun or end.status not in ("done", "stopped") for end in through):
        return None
    publication = rails.ledger.publication()
    if publication is None:
        return None
    settled = rails.ledger.settled_at({spec.prediction.spine for spec in waiting.values()}, 1)
    reasons = {}
    for name, spec in waiting.items():
        newest = max(settled.get(spec.prediction.spine, {}), default=day)
        if newest - day >= SWEEP:
            reasons[name] = (
                f"its source has gone on to the night of {newest}, and none a week older is taken up; play it with "
                "tiltyard hindcast"
            )
        elif why := due.waiting_nights(publication, spec, [day]).get(day):
            reasons[name] = why
        else:
            return None
    return " ".join(f"{name}: {why.rstrip('.')}." for name, why in sorted(reasons.items()))


def is_outcome(rails: Rails, dag_id: str, night: date) -> bool:
    """Whether a red run of a DAG is how a night is meant to end: a check stopped what no later night takes up again, as
    a training, and the night goes on without it; or it is of no night: a person's answer did not count, or somebody
    could not be told, which is said at the end (`untold`)."""
    stage, of = stages.split(dag_id)
    if stage in ("explanation", "operate", "alerts"):
        return True
    if stage == "promotion" and of:
        return rails.ledger.stage_status(stage, of, night) == "done"
    return not stages.STAGES[stage].is_taken_up_again and rails.ledger.stage_status(stage, of, night) == "stopped"


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


def to_come(rails: Rails, specs: Sequence[Spec], night: date) -> set[tuple[str, str]]:
    """What is `unfinished` of a night and comes by itself: not the promotions whose form waits for a person's
    answer."""
    left = unfinished(rails, specs, night)
    waiting = {model for model, stage in left if stage == "promotion"}
    own = questions(rails, [spec for spec in specs if spec.name in waiting], night)
    asked = {question.model for question in own if question.until}
    return {pair for pair in left if pair[1] != "promotion" or pair[0] not in asked}


def questions(rails: Rails, specs: Sequence[Spec], night: date) -> tuple[Question, ...]:
    """The promotions of the week up to a night that wait for a person, by model: what the inbox asks as well."""
    newest = {spec.name: night for spec in specs}
    operations = rails.ledger.operations.of(newest)
    asked = proposals.read(rails, specs, operations, newest, Forms(rails.settings), clock.now()).open
    return tuple(
        Question(
            model=name,
            version=one.decision.challenger,
            night=one.decision.night,
            until=one.until,
            who=one.who,
            form=f"{address(rails.settings)}{one.link}",
        )
        for name, one in asked.items()
        if night - SWEEP <= one.decision.night <= night
    )


def untold(rails: Rails) -> tuple[str, ...]:
    """By which addresses somebody could not be told of what waits, and why, a sentence each."""
    waiting = {entry.to: entry.error for entry in rails.ledger.outbox.unsent(clock.now() - PATIENCE)}
    return tuple(
        f"Nobody could be told by {to}: {error} What waits stands in the inbox, and is sent once that is mended."
        for to, error in sorted(waiting.items())
    )


def dag_ids(settings: Settings, specs: tuple[Spec, ...]) -> list[str]:
    """The DAGs that a night of these models goes through."""
    features = {stages.dag_id("features", source) for source in settings.sources}
    own = {stages.dag_of(stage, spec.name, spec.source) for spec in specs for stage in stages.NIGHTLY}
    return sorted(features | own | {"governor"})


def summary(outcome: DemoOutcome) -> str:
    """What `up` prints at its end: what happened, what a person is asked, where Airflow is and how to log in."""
    lines = [describe.model(document) for document in outcome.models]
    lines += [f"  plot         {path}" for path in outcome.plots]
    lines += map(str, outcome.questions)
    lines += [f"warning: {sentence}" for sentence in outcome.untold]
    lines.append(f"{outcome.airflow}; make down stops it.")
    return "\n".join(lines)
