"""The same past nights under several policies at once: what would each gate, drift policy and budget have done?

    the nights, once (past.py)      rows, truth as it came, incidents, versions by training night
             │
             ▼ per policy, night by night, all models
    roles → rollback watch, gate → drift → governor → trainings            the same pure functions as in production
             │
             ▼ in hindsight (outcome.py)
    promotions, rollbacks, retrains and those for nothing, days behind, realized loss beside: never retrained, retrained
    weekly and always promoted, the best that there was

No policy writes anything into the lake or the ledger; what a night found is kept under home/hindcast, so that another
policy, or the same command after an interruption, goes on from there. Approvals are assumed to be given, and the
millisecond test, which needs predictions that were really made, is assumed to be clean: both are in the result.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.govern import governor
from tiltyard.govern.history import Drifting, Mended, NightHistory
from tiltyard.govern.lineage import Lineage
from tiltyard.prepare import data_incidents, features, transform
from tiltyard.rails import Rails
from tiltyard.records import Incident
from tiltyard.rewind import hindsight, past
from tiltyard.rewind.hindsight import Prepared
from tiltyard.rewind.past import ModelPast, Workers
from tiltyard.rewind.play import Play
from tiltyard.rewind.policy import Policy
from tiltyard.rewind.trainings import PastTrainings
from tiltyard.rewind.trial import PolicyTrial
from tiltyard.spec import Spec

Progress = Callable[[str, float], None]
WEEK = timedelta(days=7)


def try_policies(
    rails: Rails,
    policies: Sequence[Policy],
    first: datetime,
    last: datetime,
    *,
    jobs: int = 2,
    plots: Path | None = None,
    progress: Progress | None = None,
) -> PolicyTrial:
    """Replay every night whose `as_of` lies in [first, last] under each policy.

    With `plots`, a picture per model is written into that folder. The same
    nights and policies give the same result, whatever `jobs`. Raises BadInput for a range without nights, and for a
    label whose bounds nobody knows.
    """
    say = progress or (lambda label, fraction: None)
    policies = [replace(policy, specs=tuple(map(rails.ledger.bounded, policy.specs))) for policy in policies]
    specs = policies[0].specs
    if unknown := [spec.name for spec in specs if not spec.target.is_learned]:
        raise BadInput(
            f"The bounds of {unknown[0]}'s label are not known: its spec names none, and no version has learned them. "
            "Replay its nights without --policy first, or write label.bounds."
        )
    nights = list(clock.nights(first, last))
    unjudged = [night for night in nights if not past.is_judged(rails, night)]
    verdicts: dict[datetime, Future[None]] = {}
    with Workers(rails.settings, jobs, judges=bool(unjudged)) as workers:
        if unjudged:
            say("landing the data", 0.0)
            features.ingest(rails, last)
            say("building the features", 0.02)
            build = features.transform(rails, last)
            verdicts = {night: workers.check(night, build) for night in unjudged}
        models = _prepare(rails, workers, specs, nights)
        records = _Records(rails, [prepared.past for prepared in models.values()], verdicts)
        lineage = Lineage.of(transform.manifest(rails.settings), specs)
        plays = {}
        width = 0.8 / len(policies)
        for place, policy in enumerate(policies):
            begin = 0.1 + width * place

            def tell(night: date, done: float, begin: float = begin, name: str = policy.name) -> None:
                say(f"policy {name}, night of {night}", begin + width * done)

            plays[policy.name] = _play(policy, models, nights, lineage, records, tell)
        for spec in specs:
            weekly = models[spec.name].weekly
            for place, night in enumerate(weekly):
                say(f"the line of {spec.name} trained on {night}", 0.9 + 0.06 * place / len(weekly))
                models[spec.name].trainings.line(night)
        say("looking back", 0.96)
        trial = hindsight.look_back(policies, plays, models, [night_closing(as_of) for as_of in nights])
    if plots is not None:
        trial = replace(trial, plots=tuple(str(path) for path in hindsight.draw(trial, plots)))
    say("done", 1.0)
    return trial


class _Records:
    """What the ledger says of the nights, whatever the policy; a night's batch is waited for until it is judged."""

    def __init__(self, rails: Rails, pasts: Sequence[ModelPast], verdicts: Mapping[datetime, "Future[None]"]) -> None:
        self._rails = rails
        self._pasts = pasts
        self._verdicts = verdicts
        self._mended: dict[date, tuple[Mended, ...]] = {}

    def learn(self, as_of: datetime) -> None:
        """Wait for the verdict on a night's batch, and let every model know of it."""
        if as_of in self._verdicts:
            self._verdicts[as_of].result()
        for own in self._pasts:
            past.learn(self._rails, own, as_of)

    def mended(self, night: date) -> tuple[Mended, ...]:
        """The data incidents that were over by a night."""
        if night not in self._mended:
            self._mended[night] = tuple(Mended(*incident) for incident in data_incidents.mended(self._rails, night))
        return self._mended[night]


def _prepare(rails: Rails, workers: Workers, specs: Sequence[Spec], nights: Sequence[datetime]) -> dict[str, Prepared]:
    """What does not depend on a policy: model → its rows, its trainings, and the nights of the weekly ones."""
    first, last, snapshot = nights[0], nights[-1], rails.lake.snapshot()
    rows = {spec.name: workers.gather(spec, first, last, snapshot) for spec in specs}
    trainings = {spec.name: PastTrainings(spec, workers, rails, snapshot, rows[spec.name].result()) for spec in specs}
    days = [night_closing(as_of) for as_of in nights]
    models = {}
    for spec in specs:
        of_model = trainings[spec.name]
        begin = of_model.first_night(nights)
        weekly = [day for day in days if begin and day >= begin and (day - begin) % WEEK == timedelta()]
        models[spec.name] = Prepared(past.read(rails, spec, first, last, of_model.rows), of_model, tuple(weekly))
    return models


def _play(
    policy: Policy,
    models: Mapping[str, Prepared],
    nights: Sequence[datetime],
    lineage: Lineage,
    records: _Records,
    tell: Callable[[date, float], None],
) -> dict[str, Play]:
    """All nights under one policy, all models of a night together: the governor decides for them at once."""
    plays = {spec.name: Play(spec, models[spec.name].past, models[spec.name].trainings) for spec in policy.specs}
    threshold = policy.portfolio.budget.nights_between(len(plays))
    drift = {spec.name: spec.drift for spec in policy.specs}
    since: Mapping[Drifting, date] = {}
    incidents: tuple[Incident, ...] = ()
    for place, as_of in enumerate(nights):
        night = night_closing(as_of)
        tell(night, place / len(nights))
        records.learn(as_of)
        running = [play for play in plays.values() if night not in play.past.stopped]
        for play in running:
            play.decide(as_of)
        governed = governor.govern(
            [play.look(as_of, threshold) for play in running],
            lineage,
            NightHistory(
                night=night,
                models={name: play.became(night) for name, play in plays.items()},
                since=since,
                incidents=incidents,
                mended=records.mended(night),
            ),
            drift,
            policy.portfolio,
            {spec.name: spec.retrain for spec in policy.specs},
        )
        since, incidents = governed.since, governed.incidents
        reasons = {action.model: action.reasons for action in governed.actions}
        for action in governed.actions:
            plays[action.model].actions[action.decision] += 1
        for name in governed.granted:
            plays[name].trainings.ask(night)
        for name, play in plays.items():  # after what a policy waits for
            if night in models[name].weekly:
                play.trainings.ask_line(night)
        for name in governed.granted:
            plays[name].add(night, reasons[name])
    return plays
