"""What the tasks of the DAGs do, stage by stage, where it takes more than one call of the library."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tiltyard import clock
from tiltyard.edge import answers, due, explanations, hours, limits, log_lines, metering, task_run
from tiltyard.edge.approvals import approval_tasks, recorded_approval
from tiltyard.edge.assets import (
    announced_through,
    feature_asset,
    granted_assets,
    model_asset,
    portfolio_asset,
    settled_assets,
)
from tiltyard.edge.due import Lot
from tiltyard.edge.nights import SWEEP, chosen_night, each_night, kept, nights, same_nights, unplayed
from tiltyard.errors import CheckFailed, Fenced, Unavailable
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.records import (
    FallbackAuditSummary,
    JsonObject,
    PortfolioNight,
    PromotionSummary,
    Record,
    RefusedText,
    TrainingSummary,
)
from tiltyard.settings import Settings
from tiltyard.spec import Spec, find, portfolio
from tiltyard.stages import dag_id

# What a stage stands on (the lake, pandas, MLflow) is imported inside: DAG files are parsed again and again.

if TYPE_CHECKING:
    from tiltyard.rails import Rails

log = logging.getLogger(__name__)


def train(rails: "Rails", spec: Spec, as_of: datetime) -> TrainingSummary:
    """Train as of one night, with the reasons for which the governor granted it, if it did. Raises OutOfTime where it
    takes longer than the model's tier allows: other trainings wait for its place."""
    from tiltyard.train import training

    granted = {retrain.night: retrain.reasons for retrain in rails.ledger.retrains(spec.name)}
    reasons = granted.get(as_of.date()) or ("started by hand",)
    with limits.within(rails, "training", spec):
        return training.train(rails, spec, as_of, requested_by=task_run.trainers(rails.settings), reasons=reasons)


def land(rails: "Rails", source: str, as_of: datetime) -> JsonObject | None:
    """Fetch and land what a source has for a night; None while it is waited for: it has delivered nothing for it, or a
    place of it is away, it may come until its `due_by`, and nobody asked for this night by hand."""
    from tiltyard.prepare import contracts, features, ingest

    withdraw_questions(rails)
    landed = features.ingest(rails, as_of, [source], lookup=task_run.connection)[source]
    log.log(logging.WARNING if landed.quarantined or landed.away else logging.INFO, "%s", log_lines.landed(landed))
    deadline = contracts.deadline(rails.settings, source, as_of)
    if deadline is None or deadline <= clock.now() or task_run.chosen_night() or task_run.is_by_hand():
        return landed.to_json()
    every = features.every(rails.settings, source) or clock.NIGHT
    is_here = not landed.away and ingest.has_delivered(ingest.delivered_until(rails, source), as_of, every)
    return landed.to_json() if is_here else None


def withdraw_questions(rails: "Rails") -> None:
    """End the questions of models that are no longer in force, or retired, as every run does that puts a release in
    force."""
    specs = portfolio(rails.settings)
    retired = rails.ledger.operations.retired([spec.name for spec in specs])
    specs = tuple(spec for spec in specs if spec.name not in retired)
    asked = {(dag_id("explanation", spec.name), explanations.EXPLAIN) for spec in specs}
    asked |= {(dag_id("promotion", spec.name), task) for spec in specs for task in approval_tasks(spec)}
    for task in answers.withdraw(rails, asked):
        log.warning("%s of %s has ended: nobody has to answer it any more.", task.task_id, task.dag_id)


def transform(rails: "Rails", source: str, as_of: datetime) -> JsonObject:
    """Build what is made of a source's files."""
    from tiltyard.prepare import features

    build = features.transform(rails, as_of, [source])
    log.log(logging.WARNING if build.failed else logging.INFO, "%s", log_lines.built(build))
    return build.to_json()


def show_checks(source: str, as_of: datetime, settings: Settings) -> None:
    """Let the button "Report" open the page of the checks of a source's night; of an hour, those of its nights."""
    name = f"checks/{source}/"
    task_run.show(name if clock.is_hour(as_of) else f"{name}{as_of:%Y-%m-%d}.html", settings)


def check(rails: "Rails", source: str, as_of: datetime, build: JsonObject) -> Record:
    """Judge a source's batch; of an hour what is good of it is in service by that. Raises CheckFailed, with all of it
    recorded, where a table of it is not good, and where a text that it may stand on is refused."""
    from tiltyard.prepare import features, hourly
    from tiltyard.prepare.transform import BuildSummary

    if clock.is_hour(as_of):
        hour = hourly.publish(rails, source, as_of, BuildSummary.from_json(build))
        if hour.unpublished:
            raise CheckFailed(hour.complaint)
        return hour
    summary = features.check(rails, source, as_of, BuildSummary.from_json(build))
    log.log(logging.WARNING if summary.warnings else logging.INFO, "%s", log_lines.checked(summary))
    accepted = rails.ledger.release()
    sentences = [str(text) for text in (accepted.refused if accepted else ()) if _is_about(text, rails, source)]
    if summary.unpublished:
        sentences.insert(0, features.complaint(summary.unpublished, as_of.date()))
    if sentences:
        raise CheckFailed(" ".join(sentences))
    return summary


def _is_about(text: RefusedText, rails: "Rails", source: str) -> bool:
    """Whether a refused text may be one of a source: all but the models, the staging and the tables of others."""
    from tiltyard.prepare.publishing import Feeding

    kind, *below = text.path.split("/")
    if fed_by := Feeding.of_every_source(rails.settings).of_table(PurePosixPath(text.path).stem):
        return source in fed_by
    if kind == "models" and below and text.stands and below != ["portfolio.yaml"]:
        return find(rails.settings.models, below[0]).source == source
    return kind != "dbt" or below[:2] != ["models", "staging"] or below[2] == source


def publish(rails: "Rails", source: str, as_of: datetime) -> JsonObject:
    """Put what is good of a source's night in service, and the store of online features up to it; announce the feature
    views that are settled by that, and all views of the models that may start now. An hour is in service already."""
    from tiltyard.online import fill
    from tiltyard.prepare import features, source_figures

    if clock.is_hour(as_of):
        return _announce_hour(rails, source, as_of)
    published = features.end(rails, source, as_of)
    source_figures.keep(rails, source, as_of)
    log.info("%s", log_lines.published(published))
    online = fill.fill_night(rails, as_of, published.settled).to_json() if published.published else None
    night, specs = clock.night_closing(as_of), portfolio(rails.settings)
    touched = [spec for spec in specs if not published.settled.isdisjoint(spec.tables)]
    ready = due.ready_nights(rails, touched, on=night)
    views = {view for spec in touched for view in spec.prediction.features if view in published.settled}
    views |= {view for spec in touched if night in ready[spec.name] for view in spec.prediction.features}
    for view in sorted(views):
        task_run.announce_through(settled_assets(), feature_asset(view), [as_of])
    return {**published.to_json(), "online": online}


def _announce_hour(rails: "Rails", source: str, as_of: datetime) -> JsonObject:
    """Bring the store of online features up to an hour of a source, and announce the feature views of its hourly
    models."""
    from tiltyard.online import fill
    from tiltyard.prepare.publishing import Feeding

    specs = [spec for spec in portfolio(rails.settings) if spec.source == source and spec.prediction.is_hourly]
    tables = {*Feeding.of(rails.settings).below(source), *(table for spec in specs for table in spec.tables)}
    published = frozenset(name for name, end in rails.ledger.hours("table", tables).items() if end.as_of == as_of)
    online = fill.fill_night(rails, as_of, published).to_json() if published else None
    for view in sorted({view for spec in specs for view in spec.prediction.features}):
        task_run.announce_through(settled_assets(), feature_asset(view), [as_of])
    return {"hour": as_of.isoformat(), "published": [*sorted(published)], "online": online}


def answer_hours(rails: "Rails", specs: Sequence[Spec]) -> JsonObject:
    """Answer the hours that wait, of every hourly model. Model → hour → number of rows that were answered. What is
    wrong with one model keeps no other from its answers; raises RuntimeError that names those that failed. Skips the
    task where nothing waits, and in a run that somebody started for a night or for some models."""
    is_chosen = task_run.chosen_night() or task_run.chosen_models()
    waiting = {} if is_chosen else hours.waiting(rails, unplayed(rails, specs))
    if not waiting:
        task_run.skip("No hour waits to be answered.")
    done: dict[str, JsonObject] = {}
    failed: dict[str, str] = {}
    for spec in specs:
        try:
            if open_hours := waiting.get(spec.name):
                days = {clock.night_of(as_of) for as_of in open_hours}
                with metering.meter.span(spec.name, days), limits.within(rails, "shadow", spec):
                    answered = hours.answer(rails, spec, open_hours, task_run.connection)
                done[spec.name] = {hour.as_of.isoformat(): hour.answered for hour in answered}
        except Unavailable:
            raise
        except Fenced as error:
            log.info("%s", error)  # the night is being closed, and answers what is left
        except Exception as error:  # whatever it is, it is this model's
            log.exception("An hour of %s failed; the others go on.", spec.name)
            failed[spec.name] = f"{type(error).__name__}: {error}"[:500]
    if failed:
        raise RuntimeError("; ".join(f"{name}: {reason}" for name, reason in sorted(failed.items())))
    return {**done}


def shadow_model(rails: "Rails", spec: Spec, when: Sequence[datetime]) -> None:
    """Score and evaluate these nights of a model, and bring its answers to where its spec says."""
    from tiltyard.answered import delivery
    from tiltyard.judge import shadow

    days = [clock.night_closing(as_of) for as_of in when]
    delivery.owe(rails, spec, days)
    try:
        each_night(rails, spec, when, shadow.shadow_night)
    except CheckFailed:  # a night that was stopped keeps no other one back
        delivery.deliver(rails, spec, task_run.connection, days)
        raise
    delivery.deliver(rails, spec, task_run.connection, days)


def judge_model(rails: "Rails", spec: Spec, when: Sequence[datetime]) -> None:
    """Judge these nights of a model and promote what may be promoted, the oldest first.

    Where a person is asked, the model's own DAG does that, and closes the night: nothing but the newest night is put
    before anybody, and while a question is open, no later night is judged here.
    """
    from tiltyard.judge import promotion

    *missed, newest = when
    if _is_asked(rails, spec, when):
        return
    each_night(rails, spec, missed, promotion.judge_night)
    judged = promotion.judge(rails, spec, newest)
    if judged.page:
        task_run.show(judged.page, rails.settings)
    if judged.needs_approval and not rails.ledger.changed({spec.name: [newest.date()]}):
        return
    promotion.close(rails, spec, judged, promotion.promote(rails, spec, newest))


def _is_asked(rails: "Rails", spec: Spec, when: Sequence[datetime]) -> bool:
    """Whether the gate said promote on one of these nights, and the model's own DAG has not closed it."""
    if not approval_tasks(spec):
        return False
    days = [clock.night_closing(as_of) for as_of in when]
    ends = rails.ledger.ends("promotion", {spec.name: min(days)})[spec.name]
    open_days = [day for day in days if day not in ends or ends[day].status != "done"]
    proposed = rails.ledger.proposed({spec.name: open_days}).get(spec.name, set())
    return bool(proposed - rails.ledger.changed({spec.name: open_days}).get(spec.name, set()))


def look_at_model(rails: "Rails", spec: Spec, when: Sequence[datetime]) -> None:
    """Compare these nights of a model with what it was trained on."""
    from tiltyard.govern import drift

    summaries = each_night(rails, spec, when, drift.measure_night)
    task_run.show(summaries[max(summaries)].report or f"drift/{spec.name}/", rails.settings)


def announce_evaluations(rails: "Rails", specs: Sequence[Spec], done: Lot) -> None:
    """Start promotion, drift and the audit."""
    task_run.announce_through(announced_through("shadow"), portfolio_asset("evaluation"), done.nights)


def announce_findings(rails: "Rails", specs: Sequence[Spec], done: Lot) -> None:
    """Start the governor."""
    task_run.announce_through(announced_through("drift"), portfolio_asset("finding"), done.nights)


def announce_promotions(rails: "Rails", specs: Sequence[Spec], done: Lot) -> None:
    """Start the DAGs in which people are asked, and say which champions are others from the next night on."""
    alias = announced_through("promotion")
    asked, changed = due.proposals(rails, specs, done).models, rails.ledger.changed(done.models)
    for spec in specs:
        if spec.name in asked:
            task_run.announce_through(alias, model_asset(spec, "proposal"), same_nights(asked[spec.name]))
        elif spec.name in changed:
            task_run.announce_through(alias, model_asset(spec, "champion"), same_nights(changed[spec.name]))


@dataclass(frozen=True)
class Proposal(Record):
    """What a person of tier 1 is asked."""

    subject: str
    """The question."""
    body: str
    """The evidence, in Markdown."""
    who: str = ""
    """Who may answer, in sentences."""
    others: tuple[str, ...] = ()
    """The other challengers, and what the gate says of each."""


@dataclass(frozen=True, kw_only=True)
class JudgedNight(PromotionSummary):
    """What the task that judges hands on."""

    proposal: Proposal | None = None
    """What a person is asked; None where nobody is."""
    missed: tuple[date, ...] = ()
    """Nights missed before it that were judged and closed on the way."""


@dataclass(frozen=True, kw_only=True)
class PromotedNight(PromotionSummary):
    """What the task that promotes returns."""

    changed: bool = False
    """Whether there is another champion from the next night on."""
    refused: str | None = None
    """How to go on where somebody has approved and that does not count; None otherwise."""


def judge(rails: "Rails", spec: Spec) -> JudgedNight:
    """Judge the run's newest night. Nights missed before it are judged and closed first, one by one.

    Roles at a night follow from earlier promotions, so an earlier night is finished before the next is judged. No
    tier-1 challenger is promoted for a missed night: it cannot be put before a person any more.
    """
    from tiltyard.edge import proposals
    from tiltyard.judge import evidence_file, promotion

    *missed, newest = nights(rails, "promotion", spec)
    closed = each_night(rails, spec, missed, promotion.judge_night)
    judged = promotion.judge(rails, spec, newest)
    proposal = None
    task_run.show_model(spec.name)
    if judged.page:
        task_run.show(judged.page, rails.settings)
    if judged.needs_approval and judged.page and judged.challenger is not None:
        body = evidence_file.markdown(rails, spec, newest, judged.challenger, task_run.report_url(judged.page))
        others = tuple(f"v{other.challenger} ({other.verdict})" for other in judged.decisions
                       if other.challenger != judged.challenger)  # fmt: skip
        subject = proposals.question(spec.name, judged.challenger, clock.night_closing(newest))
        who = _who_may(rails, spec, newest, judged.challenger)
        proposal = Proposal(subject, body, who, others)
    return JudgedNight(**vars(judged), proposal=proposal, missed=tuple(sorted(closed)))


def _who_may(rails: "Rails", spec: Spec, as_of: datetime, challenger: int) -> str:
    """Who may approve a challenger now that was judged on a night, in sentences."""
    from tiltyard.edge import proposals

    champion = rails.ledger.roles(spec.name, clock.night_closing(as_of)).champion
    return proposals.who_may(rails, spec, challenger, champion, task_run.requesters())


def promote(rails: "Rails", spec: Spec, judged: JudgedNight) -> PromotedNight:
    """Promote what the ledger says of the judged night, and close the night.

    Of `judged` only the night counts; verdict and evidence are read again from the ledger.
    """
    from tiltyard.judge import promotion

    assert judged.night is not None  # `judge` names it
    as_of = clock.midnight(judged.night)
    approvals = [recorded_approval(rails, spec, as_of, task) for task in approval_tasks(spec)]
    outcome = promotion.promote(rails, spec, as_of, *(approval for approval in approvals if approval is not None))
    summary = promotion.close(rails, spec, PromotionSummary.from_json(judged.to_json()), outcome)
    refused = None
    if outcome.is_refused and judged.challenger is not None:
        refused = f"Clear judge to ask again. {_who_may(rails, spec, as_of, judged.challenger)}"
    return PromotedNight(**vars(summary), changed=outcome.has_changed, refused=refused)


def grant(rails: "Rails", specs: Sequence[Spec], when: Sequence[datetime]) -> dict[date, PortfolioNight]:
    """Let the governor decide on these nights, for the models that take part in each, and announce to each model that
    may retrain which nights it is about."""
    from tiltyard.govern import grants

    decided = {}
    for as_of in when:
        night = clock.night_closing(as_of)
        decided[night] = grants.govern_night(rails, as_of, grants.taking_part(rails, specs, night))
        log.info("%s: %s", night, log_lines.of_night(decided[night]))
    for spec in specs:
        days = same_nights(day for day, night in decided.items() if spec.name in night.granted)
        if days:
            task_run.announce_through(granted_assets(), model_asset(spec, "drift"), days)
    return decided


def in_short(decided: Mapping[date, PortfolioNight]) -> dict[str, JsonObject]:
    """What the governor's task returns: of many models only how many, who may retrain, and what is wrong upstream."""
    shown = {"decisions", "granted", "incidents"}
    bodies = {day.isoformat(): night.to_json() for day, night in decided.items()}
    return {day: {name: value for name, value in body.items() if name in shown} for day, body in bodies.items()}


@dataclass(frozen=True)
class PortfolioAudit:
    """What an audit of many models came to."""

    nights: Mapping[str, Mapping[date, FallbackAuditSummary]]
    """Model → night → what it says."""
    failed: Mapping[str, str]
    """Model → why it could not be audited."""

    def handed_on(self) -> list[JsonObject]:
        """Leave what was audited for whoever looks, under `nights`; the models that failed, each to be done alone."""
        task_run.hand_on("nights", {name: dict(kept(of_model)) for name, of_model in self.nights.items()})
        return [{"label": name, "reason": reason} for name, reason in sorted(self.failed.items())]


def audit_fallback(rails: "Rails", specs: Sequence[Spec]) -> PortfolioAudit:
    """Audit every scored night of the last week that was not audited, of any model, oldest first; announce the models
    that a person is asked about. What is wrong with one model's audit keeps no other from its own.

    The parameter's night alone, of all models, when it is given. A second attempt announces all of them again, since
    the first may not have come so far. Skips the task when there is nothing to audit.
    """
    from tiltyard.answered import fallback_audit

    chosen = chosen_night(rails, rails.settings.sources)
    retired = rails.ledger.operations.retired([spec.name for spec in specs])
    specs = [spec for spec in specs if spec.name not in retired]
    first = rails.ledger.first_nights([spec.name for spec in specs])
    audits: dict[str, Mapping[date, FallbackAuditSummary]] = {}
    failed: dict[str, str] = {}
    has_asked = False
    unaudited = _unaudited(rails, specs)
    for spec in specs:
        when = [chosen] if chosen else same_nights(unaudited[spec.name])
        when = [as_of for as_of in when if clock.night_closing(as_of) >= first.get(spec.name, date.min)]
        try:
            if when:
                with metering.meter.span(spec.name, [clock.night_closing(as_of) for as_of in when]):
                    audits[spec.name] = each_night(rails, spec, when, fallback_audit.audit_night)
            if when or not task_run.is_first_attempt():
                task = fallback_audit.open_task(rails, spec.name)
                if task:
                    explanations.ask(spec, task.opened)
                    has_asked = True
        except Unavailable:
            raise
        except Exception as error:  # whatever it is, it is this model's
            log.exception("The audit of %s failed; the others go on.", spec.name)
            failed[spec.name] = f"{type(error).__name__}: {error}"[:2000]
    if not audits and not failed and not has_asked:
        task_run.skip("Every night that was scored is audited.")
    return PortfolioAudit(audits, failed)


def audit_alone(rails: "Rails", specs: Sequence[Spec], name: str) -> JsonObject:
    """Audit a model whose audit failed beside the others'. Night → what it says. Raises RuntimeError where it fails
    again."""
    audit = audit_fallback(rails, [spec for spec in specs if spec.name == name])
    if audit.failed:
        raise RuntimeError(audit.failed[name])
    return dict(kept(audit.nights.get(name, {})))


def _unaudited(rails: "Rails", specs: Sequence[Spec]) -> dict[str, set[date]]:
    """Model → the nights of its last week that were scored and not audited since."""
    newest = rails.ledger.newest_nights("shadow", [spec.name for spec in specs])
    since = {name: day - SWEEP + timedelta(days=1) for name, day in newest.items()}
    scored, audited = rails.ledger.ends("shadow", since), rails.ledger.ends("fallback_audit", since)
    return {
        spec.name: {
            day
            for day, end in scored.get(spec.name, {}).items()
            if end.status == "done" and due.is_due(audited.get(spec.name, {}).get(day), end.recorded_at)
        }
        for spec in specs
    }


def tell(rails: "Rails", now: datetime) -> JsonObject:
    """Tell people what there is to tell. Skips the task where no route is named; raises RuntimeError, which has it
    tried again, where a service took nothing."""
    from tiltyard.edge.told import telling

    if not load_portfolio(rails.settings.models).routes:
        task_run.skip("No route is named in models/portfolio.yaml: nobody is told, and what waits stands on the page.")
    told = telling.tell(rails, now, task_run.connection)
    for title in told.unrouted:
        log.warning("No route takes: %s", title)
    if told.unsent:
        raise RuntimeError("; ".join(f"{name}: {why}" for name, why in sorted(told.unsent.items())))
    return told.to_json()


def tidy(rails: "Rails", as_of: datetime, now: datetime) -> JsonObject:
    """Put the lake in order; `now` is when that was asked for. Then the accounts: what lies there, and what models are
    worth."""
    from tiltyard.govern import retiring
    from tiltyard.upkeep import maintenance

    done = maintenance.maintain(rails, as_of, now=now).to_json()
    specs = portfolio(rails.settings)
    retiring.measure_stored(rails, specs)
    rails.ledger.accounts.set_worths(retiring.look(rails, specs))
    return done
