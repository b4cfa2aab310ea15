"""Who answered, per model and night; and a person's word when it was the safe default for too long.

Each audited night counts the answers per channel, tier and reason: the nightly batch (ops.prediction) and, where the
model is served online, the request log (ops.request). A week is counted again with every night, since the log of a
process that was down is delivered late; the first audit of a model counts all there is. `explanation` decides what
follows from the counts, and the ledger stores it: a task per stretch, answered once, in Airflow or from a terminal, by
whoever comes first.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import duckdb
import pandas as pd

from tiltyard import clock, lake
from tiltyard.answered import copying
from tiltyard.answered.explanation import MOST, SAFE_DEFAULT, ExplanationTask, Night, Stretch, checked, decide, stretch
from tiltyard.answered.report import (
    AcceptedAnswer,
    AuditedFigures,
    DefaultFacts,
    FallbackReport,
    OnDefault,
    TaskReport,
    TierShare,
)
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.rails import Rails, records_its_end
from tiltyard.records import DefaultTask, Explanation, FallbackAuditSummary
from tiltyard.spec import Spec
from tiltyard.stages import StageName
from tiltyard.tables import PREDICTION, REQUEST, TIER_SHARE
from tiltyard.words import markdown

STAGE: StageName = "fallback_audit"
AGAIN = timedelta(days=7)
"""How far before a night its audit counts again."""
AT_FIRST = timedelta(days=28)
"""How far back a stretch is looked for at first."""
REFUSED = "explanation_refused"
"""Kind of the ledger's event for an answer that could not be accepted."""


@dataclass(frozen=True)
class TaskForm:
    """What a person is asked about a model."""

    opened: date
    """The night whose audit asked."""
    subject: str
    """The question in a line."""
    body: str
    """What there is to know, in Markdown."""


@records_its_end(STAGE)
def audit_night(rails: Rails, spec: Spec, as_of: datetime) -> FallbackAuditSummary:
    """Audit one night: count its answers, open and close the model's tasks. Twice is once."""
    night = night_closing(as_of)
    fence = rails.ledger.claim(f"{STAGE}/{spec.name}/{night}")
    rails.lake.ensure(PREDICTION)
    rails.lake.ensure(TIER_SHARE)
    after = _counted_until(rails, spec.name, night)
    counted = _count(rails, spec, after, night)

    def write(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(
            f"delete from {lake.identifier(TIER_SHARE)} where model = $model and night > $after and night <= $night",
            {"model": spec.name, "after": after, "night": night},
        )
        lake.put(connection, TIER_SHARE, {"model": spec.name, "night": night}, counted)

    rails.lake.commit(write, message=f"fallback audit {spec.name} {night}", fence=fence)
    decision = decide(
        spec.name,
        night,
        _as_far_as_it_goes(rails, spec, as_of),
        [_task(entry, night) for entry in rails.ledger.default_tasks(spec.name) if entry.opened < night],
        spec.fallback.audit_after,
        clock.NIGHT,
    )
    for task in decision.recovered:
        rails.ledger.recover_default_task(spec.name, task.opened, night)
    if decision.opens and decision.stretch:
        facts, opens = _facts(rails, spec, decision.stretch, as_of).to_json(), decision.opens
        rails.ledger.open_default_task(
            DefaultTask(model=spec.name, opened=night, since=opens.since, repeats=opens.repeats, facts=facts)
        )
    copying.look(rails, spec, night)
    summary = FallbackAuditSummary(
        night=night,
        answers=int(counted.loc[counted["night"] == night, "answers"].sum()),
        on_default_since=decision.stretch.since if decision.stretch else None,
        share=decision.stretch.share if decision.stretch else 0.0,
        opened=decision.opens is not None,
        recovered=tuple(task.opened for task in decision.recovered),
    )
    kept = AuditedFigures(
        audited=night,
        shares=_tier_shares(counted[counted["night"] == night]),
        on_default=_on_default(decision.stretch),
    )
    rails.ledger.chronicle.keep("model", spec.name, night, kept)
    rails.ledger.record_stage(spec.name, night, "done", summary)
    return summary


def _as_far_as_it_goes(rails: Rails, spec: Spec, as_of: datetime) -> list[Night]:
    """Who answered on the last audited nights until `as_of`, back to one that was not on the safe default: what was
    before it has no say in the stretch, and a year of it is not read to find that out."""
    if not rails.lake.has(TIER_SHARE):
        return []
    back, first = AT_FIRST, night_closing(as_of)
    while True:
        read = nights(rails, spec, as_of, first - back)
        if any(night.share is not None and night.share <= MOST for night in read):
            return read
        earlier = rails.lake.query(
            f"select 1 as earlier from {{{TIER_SHARE}}} where model = $model and night < $since limit 1",
            as_of,
            {"model": spec.name, "since": first - back},
        )
        if earlier.empty:
            return read
        back *= 4


def nights(rails: Rails, spec: Spec, as_of: datetime, since: date) -> list[Night]:
    """Who answered on every audited night from `since` until `as_of`, the oldest first."""
    rows = rails.lake.query(
        f"select night, channel, tier, sum(answers)::bigint as answers from {{{TIER_SHARE}}} "
        "where model = $model and night >= $since and night <= $night group by all order by all",
        as_of,
        {"model": spec.name, "since": since, "night": night_closing(as_of)},
    )
    by_night: dict[date, dict[str, dict[str, int]]] = {}
    days = pd.to_datetime(rows["night"]).dt.date
    for day, channel, tier, answers in zip(days, rows["channel"], rows["tier"], rows["answers"], strict=True):
        by_night.setdefault(day, {}).setdefault(str(channel), {})[str(tier)] = int(answers)
    return [Night(day, answers) for day, answers in by_night.items()]


def shares(rails: Rails, spec: Spec, as_of: datetime) -> list[TierShare]:
    """Who answered on one night, by channel, the most answers first."""
    if not rails.lake.has(TIER_SHARE):
        return []
    rows = rails.lake.query(
        f"select channel, tier, reason, answers, share from {{{TIER_SHARE}}} where model = $model and night = $night",
        as_of,
        {"model": spec.name, "night": night_closing(as_of)},
    )
    return list(_tier_shares(rows))


def _tier_shares(rows: pd.DataFrame) -> tuple[TierShare, ...]:
    """The shares of one night, by channel, the most answers first."""
    columns = ["channel", "tier", "reason", "answers", "share"]
    ordered = rows.sort_values(["channel", "answers", "tier", "reason"], ascending=[True, False, True, True])
    return tuple(
        TierShare(channel=channel, tier=tier, reason=reason, answers=int(answers), share=float(share))
        for channel, tier, reason, answers, share in ordered[columns].itertuples(index=False, name=None)
    )


def _on_default(current: Stretch | None) -> OnDefault | None:
    return OnDefault(since=current.since, nights=current.nights, share=current.share) if current else None


# -- the question and its answer ----------------------------------------------------------------------


def open_task(rails: Rails, model: str) -> DefaultTask | None:
    """The task that waits for a person; None when there is none."""
    waiting = [task for task in rails.ledger.default_tasks(model) if task.is_open]
    return waiting[-1] if waiting else None


def answer_task(
    rails: Rails,
    spec: Spec,
    *,
    cause: str | None,
    owner: str | None,
    until: str | None,
    by: str,
    source: str,
    at: datetime,
    opened: date | None = None,
) -> AcceptedAnswer:
    """A person's answer to the model's open task. The first one counts.

    `opened` names the task that was asked about; None means the one that is open. Raises BadInput, with a sentence,
    for an answer that lacks something, when nothing is asked (any more), and when somebody else was faster.
    """
    task = open_task(rails, spec.name)
    if opened is not None and (task is None or task.opened != opened):
        raise BadInput(f"{spec.name} is not asked about the night of {opened} any more; see tiltyard fallback.")
    if task is None:
        raise BadInput(f"Nobody has to explain {spec.name}: no task is open; see tiltyard fallback {spec.name}.")
    newest = _newest(rails, spec.name) or task.opened
    answer = checked(cause, owner, until, newest)
    explanation = Explanation(
        night=newest,
        cause=answer.cause,
        owner=answer.owner,
        until=answer.until,
        answered_by=by,
        source=source,
        answered_at=at,
    )
    is_first = rails.ledger.answer_default_task(spec.name, task.opened, explanation)
    if not is_first:
        raise BadInput(f"{spec.name} was explained a moment ago by somebody else; see tiltyard fallback {spec.name}.")
    return AcceptedAnswer(
        model=spec.name,
        since=task.since,
        cause=answer.cause,
        owner=answer.owner,
        until=answer.until,
        answered_by=by,
    )


def refuse(rails: Rails, model: str, opened: date, by: str | None, sentence: str) -> None:
    """Note an answer that could not be accepted, so that the next question begins with what was wrong with it."""
    rails.ledger.add_event(REFUSED, model, opened, {"by": by, "sentence": sentence})


def question(rails: Rails, spec: Spec) -> TaskForm | None:
    """What a person is asked about the model. None: no task is open."""
    task = open_task(rails, spec.name)
    if task is None:
        return None
    facts, newest = DefaultFacts.from_json(task.facts), _newest(rails, spec.name) or task.opened
    refusals = [event for event in rails.ledger.events(spec.name, REFUSED) if event.night == task.opened]
    reasons = ", ".join(f"{reason} {share:.0%}" for reason, share in facts.reasons.items())
    never = "It has **never had a champion**: no version was ever promoted. " if facts.never_promoted else ""
    wrong = [f"**Your last answer does not count.** {markdown(str(event.detail['sentence']))}" for event in refusals]
    lines = [
        *([wrong[-1], ""] if wrong else []),
        f"Of the answers of **{spec.name}** (owner {markdown(spec.owner)}, tier {spec.tier}) on the night of "
        f"{task.opened}, **{facts.share:.0%}** were its safe default, "
        f"{spec.target.default_told(spec.fallback.safe_default)}, and so since {task.since}, longer than "
        f"{clock.format_duration(spec.fallback.audit_after)}. "
        f"{never}Why its champion does not answer: {reasons or 'not known'}.",
        "",
        *([_ran_out(rails, spec.name, task.repeats), ""] if task.repeats else []),
        f"Say the cause, who sees to it, and until when it may stay there (a day after {newest}): after that day you "
        "are asked again, and at once where one of them is missing (`kept` is red then, whatever Airflow says of the "
        f"answer). From a terminal: `tiltyard fallback explain {spec.name}`.",
    ]
    return TaskForm(opened=task.opened, subject=subject(spec.name, task.since, task.opened), body="\n".join(lines))


def subject(model: str, since: date, opened: date) -> str:
    """The question in a line, which Airflow stores with the answer."""
    return f"Why is {model} on its safe default since {since}? (asked on the night of {opened})"


# -- what a person sees -------------------------------------------------------------------------------


def report(rails: Rails, spec: Spec, as_of: datetime | None = None) -> FallbackReport:
    """Who answered on the newest night audited until `as_of`, and the model's tasks. None: the newest night of all."""
    newest = _newest(rails, spec.name, night_closing(as_of) if as_of else None)
    if newest is None:
        return _report(rails, spec, AuditedFigures())
    at = clock.midnight(newest)
    on_default = _on_default(stretch(_as_far_as_it_goes(rails, spec, at)))
    audited = AuditedFigures(audited=newest, shares=tuple(shares(rails, spec, at)), on_default=on_default)
    return _report(rails, spec, audited)


def recorded(rails: Rails, spec: Spec, night: date, kept: AuditedFigures | None) -> FallbackReport:
    """The same as of a night, as the ledger alone has it. `kept`: what the audit of the newest night had in hand; of an
    older night, of which nothing is kept, who answered is not known any more."""
    run = rails.ledger.last_stage_run(FallbackAuditSummary, spec.name, night + timedelta(days=1))
    if run is None:
        return _report(rails, spec, AuditedFigures())
    if kept is not None and kept.audited == run.night:
        return _report(rails, spec, kept)
    since = run.summary.on_default_since
    current = OnDefault(since=since, nights=(run.night - since).days + 1, share=run.summary.share) if since else None
    return _report(rails, spec, AuditedFigures(audited=run.night, on_default=current))


def _report(rails: Rails, spec: Spec, audited: AuditedFigures) -> FallbackReport:
    """With the model's tasks as they stood after the audited night."""
    audit_after, newest = clock.format_duration(spec.fallback.audit_after), audited.audited
    if newest is None:
        return FallbackReport(model=spec.name, night=None, audit_after=audit_after)
    return FallbackReport(
        model=spec.name,
        night=newest,
        shares=audited.shares,
        on_default=audited.on_default,
        audit_after=audit_after,
        tasks=tuple(
            _task_report(entry, newest) for entry in rails.ledger.default_tasks(spec.name) if entry.opened <= newest
        ),
    )


def _task_report(entry: DefaultTask, newest: date) -> TaskReport:
    """A task as it stood after the night `newest`."""
    answer = entry.explanation if entry.explanation and entry.explanation.night <= newest else None
    recovery = entry.recovery if entry.recovery and entry.recovery.night <= newest else None
    return TaskReport(
        opened=entry.opened,
        since=entry.since,
        state="answered" if answer else "recovered" if recovery else "open",
        repeats=entry.repeats,
        cause=answer.cause if answer else None,
        owner=answer.owner if answer else None,
        until=answer.until if answer else None,
        answered_by=answer.answered_by if answer else None,
        source=answer.source if answer else None,
        answered_at=answer.answered_at if answer else None,
        recovered=recovery.night if recovery else None,
    )


# -- plumbing -----------------------------------------------------------------------------------------


def _counted_until(rails: Rails, model: str, night: date) -> date:
    """The last night before those that the audit of `night` counts."""
    row = rails.lake.connection.execute(
        f"select max(night) from {lake.stored(TIER_SHARE)} where model = $model and night <= $night",
        {"model": model, "night": night},
    ).fetchone()
    return min(row[0], night - AGAIN) if row and row[0] else date.min


def _count(rails: Rails, spec: Spec, after: date, night: date) -> pd.DataFrame:
    """Rows of ops.tier_share of the nights after `after`, until `night`.

    They are read as the lake stores them, not as of the night: they say what the service did on it, and what was
    delivered after midnight belongs to the night as well.
    """
    channels = [("nightly", PREDICTION, "tier_reason", "tier <> 'shadow'")]
    if rails.lake.has(REQUEST):
        channels.append(("online", REQUEST, "reason", "true"))
    parts = " union all ".join(
        f"select night, '{channel}' as channel, tier, coalesce({reason}, '') as reason, count(*) as answers "
        f"from {lake.stored(table)} where model = $model and night > $after and night <= $night and {served} "
        "group by all"
        for channel, table, reason, served in channels
    )
    counted = rails.lake.connection.execute(
        "select $model as model, *, answers / sum(answers) over (partition by night, channel) as share, "
        f"night::timestamptz as available_at from ({parts}) order by all",
        {"model": spec.name, "after": after, "night": night},
    ).df()
    counted["night"] = pd.to_datetime(counted["night"]).dt.date
    return counted[list(TIER_SHARE.columns)]


def _facts(rails: Rails, spec: Spec, current: Stretch, as_of: datetime) -> DefaultFacts:
    """What a task says of the night it is opened on. The reasons are those of the safe default's answers."""
    reasons: dict[str, int] = {}
    for row in shares(rails, spec, clock.midnight(current.last)):
        if row.tier == SAFE_DEFAULT:
            reasons[row.reason] = reasons.get(row.reason, 0) + row.answers
    total = sum(reasons.values())
    promotions = rails.ledger.promotions(spec.name)
    return DefaultFacts(
        nights=current.nights,
        share=round(current.share, 4),
        reasons={reason: round(count / total, 4) for reason, count in sorted(reasons.items())},
        never_promoted=not any(promotion.night < night_closing(as_of) for promotion in promotions),
    )


def _task(entry: DefaultTask, night: date) -> ExplanationTask:
    """A task of the ledger as it stood before `night`."""
    answer = entry.explanation if entry.explanation and entry.explanation.night < night else None
    recovery = entry.recovery if entry.recovery and entry.recovery.night < night else None
    return ExplanationTask(
        entry.model,
        entry.opened,
        entry.since,
        entry.repeats,
        until=answer.until if answer else None,
        recovered=recovery.night if recovery else None,
    )


def _newest(rails: Rails, model: str, until: date | None = None) -> date | None:
    """The newest audited night, up to `until`; None when there is none."""
    before = until + timedelta(days=1) if until else None
    newest = rails.ledger.last_stage_run(FallbackAuditSummary, model, before)
    return newest.night if newest else None


def _ran_out(rails: Rails, model: str, opened: date) -> str:
    tasks = rails.ledger.default_tasks(model)
    answer = next(task.explanation for task in tasks if task.opened == opened and task.explanation)
    return (
        f"The last answer has run out: {markdown(answer.answered_by)} said until {answer.until}, owner "
        f"{markdown(answer.owner)}: {markdown(answer.cause)}"
    )
