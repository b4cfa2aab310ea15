"""Airflow's side of the stages: ids, tags, assets, which nights a task works on, and a person's approval.

The only library module that imports airflow. It is imported at parse time, so whatever the stages stand on
(the lake, pandas, MLflow) is imported by the tasks, inside.

A task learns its nights from the asset events that started its run, or from the run's `as_of` parameter. Events
can be lost or doubled, so they only say *look*: the ledger says what there is. Every run also picks up the nights
of the last week that the stage before has finished and this one has not, and working on a night twice changes nothing.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLEntryOperator, HITLOperator
from airflow.sdk import (
    DAG,
    Asset,
    AssetAlias,
    AssetAny,
    BaseOperatorLink,
    CronDataIntervalTimetable,
    Param,
    get_current_context,
)
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskAwaitingInput

from tiltyard import clock
from tiltyard.errors import BadInput, Fenced, TiltyardError, Unavailable
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.stages import STAGES, StageName, dag_id, place, recorded_as

if TYPE_CHECKING:
    from tiltyard.answered.fallback_audit import TaskForm
    from tiltyard.judge.approval import Approval
    from tiltyard.rails import Rails

SWEEP = timedelta(days=7)
"""How far back of the newest finished night a stage looks for nights that no event announced."""

PORTFOLIO_OWNER = "tiltyard"
REPORT_LINK = "Report"
FIRST_NIGHT = datetime(2016, 1, 1, tzinfo=UTC)
"""start_date of every DAG; nothing is caught up from it (`catchup` is off)."""


# -- what a DAG looks like ------------------------------------------------------------------------


def tags(stage: StageName, spec: Spec | None = None) -> list[str]:
    """From a closed set: one `stage:`, and for a model its `model:` and `tier:`."""
    return [f"stage:{stage}", *([f"model:{spec.name}", f"tier:{spec.tier}"] if spec else [])]


def arguments(stage: StageName, doc: str | None, spec: Spec | None = None) -> dict[str, Any]:
    """What every DAG of ours says of itself."""
    return {
        "dag_id": dag_id(stage, spec.name if spec else None),
        "doc_md": _doc(doc, spec),
        "tags": tags(stage, spec),
        "start_date": FIRST_NIGHT,
        "catchup": False,
        "max_active_runs": 1,
        "is_paused_upon_creation": False,
        "default_args": {
            "owner": spec.owner if spec else PORTFOLIO_OWNER,
            "retries": 2,
            "retry_delay": timedelta(seconds=10),
        },
        "params": {
            "as_of": Param(
                None,
                type=["null", "string"],
                format="date",
                title="Night (as_of)",
                description="The night that closed at this day's midnight UTC. Empty: "
                + ("the run's own interval." if stage == "features" else "whatever is waiting."),
            )
        },
    }


def per_model(
    stage: StageName, *, schedule: Callable[[Spec], Sequence[Asset]], doc: str | None
) -> Callable[[Callable[[Spec], None]], Callable[[Spec], DAG]]:
    """Decorate a function that lays out the tasks of one model; calling it with a spec makes the DAG."""

    def decorate(layout: Callable[[Spec], None]) -> Callable[[Spec], DAG]:
        def build(spec: Spec) -> DAG:
            with DAG(**arguments(stage, doc, spec), schedule=list(schedule(spec))) as made:
                made.fileloc = layout.__code__.co_filename
                layout(spec)
            return made

        return build

    return decorate


def timetable(settings: Settings) -> CronDataIntervalTimetable | None:
    """When the features DAG starts by itself; None for never. A night's `as_of` is its interval's end."""
    if settings.schedule.lower() in ("none", ""):
        return None
    return CronDataIntervalTimetable(settings.schedule, timezone="UTC")


def feature_asset(view: str) -> Asset:
    return Asset(name=f"features/{view}", uri=f"x-tiltyard://features/{view}", group="tiltyard")


What = Literal["challenger", "evaluation", "champion", "finding", "drift", "unexplained"]


def model_asset(spec: Spec, what: What) -> Asset:
    """`finding`: drift has looked. `drift`: the governor granted a retrain. `unexplained`: the model has been on its
    safe default for so long that a person is asked."""
    return Asset(name=f"{spec.name}/{what}", uri=f"x-tiltyard://models/{spec.name}/{what}", group="tiltyard")


def feature_assets(specs: Iterable[Spec]) -> list[Asset]:
    """One per feature view that a model reads, sorted."""
    return [feature_asset(view) for view in sorted({view for spec in specs for view in spec.prediction.features})]


def granted_assets() -> AssetAlias:
    """The governor's outlet: through it the `drift` assets of those models that may retrain, and of no others."""
    return AssetAlias(name="granted", group="tiltyard")


def unexplained_assets() -> AssetAlias:
    """Through it the `unexplained` assets of those models that a person is asked about, and of no others."""
    return AssetAlias(name="unexplained", group="tiltyard")


def any_finding(specs: Iterable[Spec]) -> AssetAny | None:
    """Starts a run whenever drift has looked at any model; None for a portfolio without models."""
    return _any(specs, "finding")


def any_evaluation(specs: Iterable[Spec]) -> AssetAny | None:
    """Starts a run whenever a night of any model was scored; None for a portfolio without models."""
    return _any(specs, "evaluation")


def _any(specs: Iterable[Spec], what: What) -> AssetAny | None:
    assets = [model_asset(spec, what) for spec in specs]
    return AssetAny(*assets) if assets else None


class ReportLink(BaseOperatorLink):
    """The button "Report" on a task: what it left for a person to open."""

    name = REPORT_LINK

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """`ti_key` is the running task instance: Airflow asks once, when the task ends."""
        return _reports.get((ti_key.dag_id, ti_key.run_id, ti_key.task_id), report_url(""))


_reports: dict[tuple[str, str, str], str] = {}
"""What `show` was told in this process, which is one task's."""


def report_url(path: str) -> str:
    """Where the plugin serves a file of `settings.reports`."""
    return f"/tiltyard/reports/{path}"


def linked(output: Any) -> Any:
    """Put the button "Report" on the task behind this output."""
    output.operator.operator_extra_links = (ReportLink(),)
    return output


# -- what a task does -----------------------------------------------------------------------------


@contextmanager
def working() -> Iterator["Rails"]:
    """The rails, with errors in Airflow's terms.

    What a person has to mend, a stopped batch, and work that a newer attempt has taken over fail at once;
    what was only out of reach, and everything unforeseen, is retried.
    """
    from tiltyard import rails

    try:
        with rails.opened() as opened:
            yield opened
    except Unavailable:
        raise
    except Fenced as error:
        raise AirflowFailException(f"A newer attempt is at work, this one gave way: {error}") from error
    except TiltyardError as error:
        raise AirflowFailException(str(error)) from error


def night() -> datetime:
    """The one `as_of` of a run that has a data interval of its own: its parameter, else its interval's end."""
    context = get_current_context()
    if chosen := (context.get("params") or {}).get("as_of"):
        return clock.parse_as_of(chosen)
    run = context["dag_run"]
    end = run.data_interval_end or run.logical_date or run.run_after
    return clock.midnight(end.astimezone(UTC).date())


def nights(rails: "Rails", stage: StageName, spec: Spec) -> list[datetime]:
    """The nights that this run works on, oldest first.

    The parameter alone, when it is given. Else those that the events name plus those that were missed; a
    manual run that finds neither does the newest finished night again. Raises BadInput when there is none.
    """
    context = get_current_context()
    if chosen := (context.get("params") or {}).get("as_of"):
        return [clock.parse_as_of(chosen)]
    before = STAGES[stage].works_on
    assert before, f"{stage} works on no other stage's nights"
    finished = finished_nights(rails, before, spec)
    announced = announced_nights(context.get("triggering_asset_events") or {})
    chosen_nights = (announced & finished) | missed_nights(finished, closed_nights(rails, stage, spec))
    if not chosen_nights and finished and not announced:
        chosen_nights = {max(finished)}
    if not chosen_nights:
        raise BadInput(f"No night to do: {before} has finished none for {spec.name}; start that first, or give as_of.")
    return [clock.midnight(day) for day in sorted(chosen_nights)]


def finished_nights(rails: "Rails", stage: StageName, spec: Spec) -> set[date]:
    """Nights that a stage has finished; of the governor, those on which it granted the model a retrain."""
    if stage == "governor":
        return {row["night"] for row in rails.ledger.retrains(spec.name)}
    return own_nights(rails, stage, spec)


def own_nights(rails: "Rails", stage: StageName, spec: Spec) -> set[date]:
    """The nights that a stage has finished for a model."""
    return rails.ledger.finished(stage, recorded_as(stage, spec.name))


def closed_nights(rails: "Rails", stage: StageName, spec: Spec) -> set[date]:
    """The nights that a stage has done with: finished, or ended otherwise and not taken up again by itself."""
    if STAGES[stage].is_taken_up_again:
        return own_nights(rails, stage, spec)
    return set(rails.ledger.stage_statuses(stage, recorded_as(stage, spec.name)))


def governed_nights(rails: "Rails", specs: Sequence[Spec]) -> list[datetime]:
    """The nights that the governor may decide on now, oldest first.

    The parameter alone, when it is given, whoever is missing. Else every published night of the last week that has a
    finding, was not decided on for all of its models, and waits for nobody; and on a second attempt the nights of the
    events, since the first may have decided and not have announced. Skips the task when there is none.
    """
    from tiltyard.govern import grants

    context = get_current_context()
    if chosen := (context.get("params") or {}).get("as_of"):
        return [clock.parse_as_of(chosen)]
    again: set[date] = set()
    if context["ti"].try_number > 1:
        again = announced_nights(context.get("triggering_asset_events") or {})
    finished = rails.ledger.finished("features")
    ready, late = [], ""
    for day in sorted(missed_nights(finished, set()) | (again & finished)):
        there = rails.ledger.looked_at(day) & {spec.name for spec in specs}
        if not there or not (day in again or grants.undecided(rails, there, day)):
            continue
        if missing := grants.waiting(rails, specs, day):
            late = f"The night of {day} waits for {len(missing)} of {len(specs)}: {', '.join(missing[:5])}."
        else:
            ready.append(clock.midnight(day))
    if not ready:
        skip(late or "No night has a finding that was not decided on.")
    return ready


def grant(rails: "Rails", specs: Sequence[Spec], when: Sequence[datetime]) -> dict[str, dict[str, Any]]:
    """Let the governor decide on these nights, and announce to each model that may retrain which nights it is about."""
    from tiltyard.govern import grants

    decided = {f"{as_of:%Y-%m-%d}": grants.govern_night(rails, as_of, specs) for as_of in when}
    events = get_current_context()["outlet_events"][granted_assets()]
    for spec in specs:
        nights = [
            clock.parse_as_of(day).isoformat()
            for day, decision in sorted(decided.items())
            if spec.name in decision.granted
        ]
        if nights:
            events.add(model_asset(spec, "drift"), extra={"as_of": nights})
    return {day: decision.to_json() for day, decision in decided.items()}


def missed_nights(finished: set[date], own: set[date]) -> set[date]:
    """Nights of the last week before the newest finished one that are finished there and not here."""
    if not finished:
        return set()
    return {day for day in finished - own if day > max(finished) - SWEEP}


def announced_nights(events: Mapping[Any, Sequence[Any]]) -> set[date]:
    """The distinct nights in the extras of the events that started a run; several runs' events may share one."""
    extras = [event.extra or {} for group in events.values() for event in group]
    named = [value for extra in extras for value in _as_list(extra.get("as_of"))]
    return {clock.parse_as_of(value).date() for value in named}


def each_night(
    rails: "Rails", spec: Spec, when: Sequence[datetime], work: Callable[["Rails", Spec, datetime], Any]
) -> dict[str, dict[str, Any]]:
    """night → what `work` returned, as Airflow keeps it, oldest night first."""
    done = {f"{as_of:%Y-%m-%d}": work(rails, spec, as_of) for as_of in when}
    return {day: summary if isinstance(summary, dict) else summary.to_json() for day, summary in done.items()}


def same_nights(done: Mapping[str, Any]) -> list[datetime]:
    """The nights of an `each_night` result: what one task of a run did, the next one does."""
    return [clock.parse_as_of(day) for day in sorted(done)]


def announce(assets: Iterable[Asset], when: Iterable[datetime]) -> None:
    """Say on the events of this task's outlets which nights they are about."""
    days = [as_of.isoformat() for as_of in when]
    events = get_current_context()["outlet_events"]
    for asset in assets:
        events[asset].extra = {"as_of": days}


def show(path: str, settings: Settings) -> None:
    """Let the task's button "Report" open this file or folder of `settings.reports`."""
    ti = get_current_context()["ti"]
    relative = path.removeprefix(str(settings.reports)).lstrip("/")
    _reports[(ti.dag_id, ti.run_id, ti.task_id)] = report_url(relative)


def skip(reason: str) -> None:
    """End the task as skipped: what follows is skipped too, and its outlets stay silent."""
    raise AirflowSkipException(reason)


def train(rails: "Rails", spec: Spec, as_of: datetime) -> dict[str, Any]:
    """Train as of one night, with the reasons for which the governor granted it, if it did."""
    from tiltyard.train import training

    asked = {row["night"]: row["reasons"] for row in rails.ledger.retrains(spec.name)}
    reasons = asked.get(as_of.date()) or ["started by hand"]
    return training.train(rails, spec, as_of, requested_by=requester(), reasons=reasons).to_json()


def judge(rails: "Rails", spec: Spec) -> dict[str, Any]:
    """Judge the run's newest night. Nights missed before it are judged and closed first, one by one.

    Roles at a night follow from earlier promotions, so an earlier night is finished before the next is judged. No
    tier-1 challenger is promoted for a missed night: it cannot be put before a person any more.
    """
    from tiltyard.judge import evidence_file, promotion

    *missed, newest = nights(rails, "promotion", spec)
    closed = each_night(rails, spec, missed, promotion.judge_night)
    judged = promotion.judge(rails, spec, newest)
    proposal = None
    if judged.page:
        show(judged.page, rails.settings)
    if judged.needs_approval and judged.page and judged.challenger is not None:
        body = evidence_file.markdown(rails, spec, newest, judged.challenger, report_url(judged.page))
        proposal = {"subject": question(spec.name, judged.challenger, str(judged.night)), "body": body}
    return judged.to_json() | {"proposal": proposal, "missed": sorted(closed)}


def promote(rails: "Rails", spec: Spec, judged: Mapping[str, Any]) -> dict[str, Any]:
    """Promote what the ledger says of the judged night, and close the night. `changed`: whether the champion did.

    Of `judged` only the night counts; verdict and evidence are read again from the ledger.
    """
    from tiltyard.judge import promotion
    from tiltyard.records import PromotionSummary

    as_of = clock.parse_as_of(judged["night"])
    answers = [recorded_approval(rails, spec, as_of, task) for task in approval_tasks(spec)]
    outcome = promotion.promote(rails, spec, as_of, *(answer for answer in answers if answer is not None))
    summary = promotion.close(rails, spec, PromotionSummary.from_json(judged), outcome)
    return summary.to_json() | {"changed": outcome.has_changed}


def evaluate(rails: "Rails", spec: Spec, scored: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Evaluate the nights that were scored, and close them, oldest first. night → its summary."""
    from tiltyard.judge import shadow
    from tiltyard.records import ShadowSummary

    def close(rails: "Rails", spec: Spec, as_of: datetime) -> ShadowSummary:
        before = ShadowSummary.from_json(scored[f"{as_of:%Y-%m-%d}"])
        return shadow.close(rails, spec, before, shadow.evaluate(rails, spec, as_of))

    return each_night(rails, spec, same_nights(scored), close)


def requester() -> str:
    """Who started this run: a user, or `airflow` for a schedule or an asset."""
    return get_current_context()["dag_run"].triggering_user_name or "airflow"


# -- a person's approval --------------------------------------------------------------------------

APPROVALS = ("approval", "second_approval")
"""The tasks that ask, each a person of its own."""

_SUBJECT = re.compile(r"Promote (?P<model>\w+) version (?P<version>\d+) on the night of (?P<night>[\d-]+)\?")
_EVIDENCE = re.compile(r"^Evidence: `([0-9a-f]{64})`$", re.MULTILINE)


class PromotionApproval(ApprovalOperator):
    """Asks a person, with the evidence in the body. Silence until the timeout is a no.

    Skipped when the judging task proposes nothing. Whatever the answer, the promoting task runs: it reads the answer
    back from Airflow's own record (`recorded_approval`), never from this task's state or return value.
    """

    def __init__(self, *, judged_by: str, spec: Spec, **kwargs: Any) -> None:
        self.judged_by = judged_by
        proposal = f"((ti.xcom_pull(task_ids='{judged_by}') or {{}}).get('proposal') or {{}})"
        super().__init__(
            subject="{{ " + proposal + ".get('subject', 'Nothing is proposed') }}",
            body="{{ " + proposal + ".get('body', '') }}",
            defaults=self.REJECT,
            response_timeout=spec.gate.approval_timeout,
            **kwargs,
        )

    def execute(self, context: Any) -> Any:
        if not (context["ti"].xcom_pull(task_ids=self.judged_by) or {}).get("proposal"):
            skip("The gate proposes no promotion tonight, so nobody has to be asked.")
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Keep the answer; a Reject does not skip the promoting task, which has a night to close."""
        return HITLOperator.execute_complete(self, context, event)


def approval_tasks(spec: Spec) -> tuple[str, ...]:
    """Which of APPROVALS the promotion DAG of a model has: none but for tier 1, as many as its gate asks for."""
    return APPROVALS[: spec.gate.approvals] if spec.tier == 1 else ()


def approvals(spec: Spec, judged_by: str) -> list[PromotionApproval]:
    """The approving tasks of a model, asked side by side: any two people may answer, in any order."""
    return [PromotionApproval(task_id=name, judged_by=judged_by, spec=spec) for name in approval_tasks(spec)]


def question(model: str, version: int, night: str) -> str:
    """What a person is asked; `answer` reads it back."""
    return f"Promote {model} version {version} on the night of {night}?"


def recorded_approval(rails: "Rails", spec: Spec, as_of: datetime, asked_by: str) -> "Approval | None":
    """The answer to this run's approval task `asked_by`, from Airflow's metadata database.

    Any user who may edit task instances can mark a task successful or write its XCom, and a task may ask the
    execution API only about itself; the record that the answering endpoint writes (`hitl_detail`) names the
    logged-in user. None when nobody was asked and the ledger has nothing to promote. An approval without an answer,
    or answered by the timeout, names no approver, and so does one that was never asked for although it had to be:
    promotion refuses it and keeps the event.
    """
    ti = get_current_context()["ti"]
    row = _hitl_detail(rails, {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": asked_by})
    due = any(
        decision.verdict == "promote" and decision.night == as_of.date()
        for decision in rails.ledger.decisions(spec.name, until=as_of.date())
    )
    return answer(row or {}, requested_by=requester()) if row or due else None


def _hitl_detail(rails: "Rails", keys: Mapping[str, str]) -> dict[str, Any] | None:
    """What the answering endpoint wrote about a task: `keys` are dag_id, run_id and task_id."""
    import sqlalchemy as sa

    from tiltyard import postgres

    engine = sa.create_engine(postgres.url(rails.settings, "airflow"), poolclass=sa.NullPool)
    query = sa.text(
        "select h.subject, h.body, h.chosen_options, h.params_input, h.responded_at, h.responded_by"
        " from hitl_detail h join task_instance t on t.id = h.ti_id"
        " where t.dag_id = :dag_id and t.run_id = :run_id and t.task_id = :task_id and t.map_index = -1"
    )
    with engine.connect() as connection:
        row = connection.execute(query, keys).mappings().one_or_none()
    return dict(row) if row else None


def answer(row: Mapping[str, Any], requested_by: str) -> "Approval":
    """A row of `hitl_detail` in the promotion's terms. A question that we did not write is about nothing."""
    from tiltyard.judge.approval import Approval, Subject

    question = _SUBJECT.fullmatch(row.get("subject") or "")
    evidence = _EVIDENCE.findall(row.get("body") or "")
    subject = None
    if question and evidence:
        night = date.fromisoformat(question["night"])
        subject = Subject(question["model"], int(question["version"]), night, evidence[-1])
    return Approval(
        approved_by=(row.get("responded_by") or {}).get("name"),
        requested_by=requested_by,
        chosen=tuple(row.get("chosen_options") or ()),
        responded_at=row.get("responded_at"),
        subject=subject,
        source="airflow",
    )


# -- a person's explanation -----------------------------------------------------------------------

LOOK_AGAIN = timedelta(hours=6)
"""How often a question that waits is looked at: is it still asked?"""

_ASKED = re.compile(
    r"Why is (?P<model>\w+) on its safe default since [\d-]+\? \(asked on the night of (?P<night>[\d-]+)\)"
)


def audit_fallback(rails: "Rails", specs: Sequence[Spec]) -> dict[str, dict[str, Any]]:
    """Audit every scored night of the last week that was not audited, of any model, oldest first; announce the models
    that a person is asked about.

    The parameter's night alone, of all models, when it is given. A second attempt announces all of them again, since
    the first may not have come so far. Skips the task when there is nothing to audit.
    """
    from tiltyard.answered import fallback_audit

    context = get_current_context()
    chosen = (context.get("params") or {}).get("as_of")
    events, found, asked = context["outlet_events"][unexplained_assets()], {}, False
    for spec in specs:
        scored = finished_nights(rails, "shadow", spec)
        waiting = missed_nights(scored, own_nights(rails, "fallback_audit", spec))
        when = [clock.parse_as_of(chosen)] if chosen else [clock.midnight(day) for day in sorted(waiting)]
        if when:
            found[spec.name] = each_night(
                rails, spec, when, lambda rails, spec, night: fallback_audit.audit_night(rails, spec, night).to_json()
            )
        if when or context["ti"].try_number > 1:
            task = fallback_audit.open_task(rails, spec.name)
            if task:
                events.add(model_asset(spec, "unexplained"), extra=_about(task["opened"]))
                asked = True
    if not found and not asked:
        skip("Every night that was scored is audited.")
    return found


class Explanation(HITLEntryOperator):
    """Asks a person why a model is on its safe default, and keeps the answer in the ledger.

    There is no default and no timeout that answers. The task wakes up every LOOK_AGAIN only to see whether it is still
    asked: if so it waits on, and the form stays what it is; once the model has left its safe default, or somebody has
    answered from a terminal, it ends as skipped. What counts of an answer is Airflow's own record of it
    (`recorded_answer`). An answer that is none ends the run, and starts the next one, whose question begins with what
    was wrong: Airflow keeps the text of a question for as long as its task lives.
    """

    EXPLAIN = "Explain"

    def __init__(self, *, spec: Spec, **kwargs: Any) -> None:
        self.spec = spec
        super().__init__(
            subject="",
            body="",
            options=[self.EXPLAIN],
            response_timeout=LOOK_AGAIN,
            outlets=[unexplained_assets()],
            **kwargs,
        )

    def execute(self, context: Any) -> Any:
        asked = self._question()
        self.subject, self.body = asked.subject, asked.body
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        if "error" in event:
            self._question()
            raise TaskAwaitingInput(method_name="execute_complete", timeout=self.response_timeout)
        from tiltyard.answered import fallback_audit

        with working() as rails:
            record = recorded_answer(rails)
            asked = _ASKED.fullmatch(record.get("subject") or "")
            if asked is None or asked["model"] != self.spec.name:
                raise BadInput(
                    f"Airflow has no question about {self.spec.name} on record; clear the task to ask again."
                )
            opened, by = date.fromisoformat(asked["night"]), (record.get("responded_by") or {}).get("name")
            given = record.get("params_input") or {}
            try:
                if not by or not record.get("responded_at"):
                    raise BadInput("Airflow has no record of who answered; answer the form under Required Actions.")
                return fallback_audit.explain(
                    rails,
                    self.spec,
                    opened=opened,
                    **{name: given.get(name) for name in ("cause", "owner", "until")},
                    by=by,
                    source="airflow",
                    at=record["responded_at"],
                ).to_json()
            except BadInput as error:
                task = fallback_audit.open_task(rails, self.spec.name)
                if task is None:
                    skip(str(error))
                fallback_audit.refuse(rails, self.spec.name, task["opened"], by, str(error))
                events = context["outlet_events"][unexplained_assets()]
                events.add(model_asset(self.spec, "unexplained"), extra=_about(task["opened"]))
                return {"refused": str(error), "by": by}

    def _question(self) -> "TaskForm":
        """What the ledger has to ask about the model. Skips the task when it has nothing."""
        from tiltyard.answered import fallback_audit

        with working() as rails:
            asked = fallback_audit.question(rails, self.spec)
        if asked is None:
            skip(f"Nobody has to explain {self.spec.name}: no task is open.")
        return asked


def explanation(spec: Spec) -> Explanation:
    """The task that asks, with its form. Airflow validates a form before anybody has filled it in, so every field may
    be empty there; what an answer needs is checked when it comes."""
    form = {
        "cause": Param(None, type=["null", "string"], format="multiline", title="Cause"),
        "owner": Param(spec.owner, type=["null", "string"], title="Owner: who sees to it"),
        "until": Param(None, type=["null", "string"], format="date", title="Until when it may stay there"),
    }
    return Explanation(task_id="explain", spec=spec, params=form)


def recorded_answer(rails: "Rails") -> dict[str, Any]:
    """What the answering endpoint wrote about this task, from Airflow's metadata database; see recorded_approval."""
    ti = get_current_context()["ti"]
    keys = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id}
    return _hitl_detail(rails, keys) or {}


def _about(night: date) -> dict[str, Any]:
    return {"as_of": [clock.midnight(night).isoformat()]}


# -- the page about the DAGs ------------------------------------------------------------------------

_MODEL = "your_model"


def describe_dags(folder: Path) -> str:
    """docs/reference/dags.md: every DAG as it is for one model of tier 1, from the DAGs and their docstrings."""
    dags = _example_dags(folder)
    head = [
        "# The DAGs",
        "",
        "Generated by `make docs`; edit the docstrings in `dags/` instead.",
        "",
        "`features`, `governor` and `fallback_audit` for the portfolio, and five DAGs per model. They start each other "
        "by assets; an asset's event carries the nights it is about. `approval` is there for models of tier 1 only.",
        "",
        "| DAG | starts on | tasks | announces |",
        "|---|---|---|---|",
    ]
    rows = [
        f"| `{dag.dag_id}` | {_starts_on(dag)} | {_tasks(dag)} | {_announces(dag)} |"
        for dag in sorted(dags, key=lambda dag: place(dag.dag_id))
    ]
    bodies = [f"\n## `{dag.dag_id}`\n\n{dag.doc_md}" for dag in sorted(dags, key=lambda dag: place(dag.dag_id))]
    return "\n".join([*head, *rows, *bodies]).replace(_MODEL, "<model>") + "\n"


def _example_dags(folder: Path) -> list[DAG]:
    """The DAGs of a portfolio of one model of tier 1, with the first model's promise."""
    from airflow.dag_processing.dagbag import DagBag

    first = sorted(Settings().models.glob("*/spec.yaml"))[0]
    before = {name: os.environ.get(name) for name in ("TILTYARD_MODELS", "TILTYARD_SOURCES", "TILTYARD_SCHEDULE")}
    with tempfile.TemporaryDirectory() as scratch:
        text = re.sub(r"(?m)^tier:.*$", "tier: 1", first.read_text(encoding="utf-8"))
        text = re.sub(r"\bftr_\w+__\w+(, *ftr_\w+__\w+)*", "ftr_entity__topic", text)
        source = re.search(r"(?m)^source: *(\w+)", text)
        Path(scratch, _MODEL).mkdir()
        Path(scratch, _MODEL, "spec.yaml").write_text(text, encoding="utf-8")
        os.environ |= {"TILTYARD_MODELS": scratch, "TILTYARD_SOURCES": source[1] if source else ""}
        os.environ["TILTYARD_SCHEDULE"] = "@daily"
        try:
            bag = DagBag(folder)
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    if bag.import_errors:
        raise BadInput(f"A DAG file does not import: {next(iter(bag.import_errors.values())).strip().splitlines()[-1]}")
    return list(bag.dags.values())


def _starts_on(dag: DAG) -> str:
    condition = getattr(dag.timetable, "asset_condition", None)
    if condition is None:
        return "`TILTYARD_SCHEDULE`, daily unless set"
    between = " or " if isinstance(condition, AssetAny) else " and "
    return between.join(sorted(f"`{asset.name}`" for asset in condition.objects))


def _announces(dag: DAG) -> str:
    outlets = [asset for task in dag.tasks for asset in task.outlets]
    through = {
        granted_assets().name: f"`{_MODEL}/drift` of those granted",
        unexplained_assets().name: f"`{_MODEL}/unexplained` of those to be explained",
    }
    return ", ".join(sorted({through.get(one.name, f"`{one.name}`") for one in outlets})) or "–"


def _tasks(dag: DAG) -> str:
    return " → ".join(task.task_id for task in dag.topological_sort())


# -- plumbing -------------------------------------------------------------------------------------


def _doc(doc: str | None, spec: Spec | None) -> str:
    """The module docstring, and under it the model card, where there is one."""
    text = (doc or "").strip()
    card = Settings().models / spec.name / "card.md" if spec else None
    return f"{text}\n\n---\n\n{card.read_text(encoding='utf-8')}" if card and card.exists() else text


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
