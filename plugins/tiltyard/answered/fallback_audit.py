"""Who answered, per model and night; and a person's word when it was the safe default for too long.

Each audited night counts the answers per channel, tier and reason: the nightly batch (ops.prediction) and, where
something is served online, the request log (ops.request). A week is counted again with every night, since the log of
a process that was down is delivered late; the first audit of a model counts all there is. What follows from the
counts is decided in `explanation` and kept in the ledger: a task per stretch, answered once, in Airflow or from a
terminal, by whoever comes first.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pandas as pd

from tiltyard import clock, lake
from tiltyard.answered.explanation import Night, Stretch, Task, checked, decide, stretch
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.rails import Rails
from tiltyard.records import DefaultTask, Explanation, FallbackAuditSummary
from tiltyard.spec import Spec
from tiltyard.stages import StageName
from tiltyard.tables import PREDICTION, REQUEST, TIER_SHARE

STAGE: StageName = "fallback_audit"
AGAIN = timedelta(days=7)
"""How far back of a night the nights before it are counted again."""
REFUSED = "explanation_refused"


def run(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    """Audit one night: count its answers, open and close the model's tasks. Twice is once."""
    night = night_closing(as_of)
    fence = rails.ledger.claim(f"{STAGE}/{spec.name}/{night}")
    rails.lake.ensure(PREDICTION)
    rails.lake.ensure(TIER_SHARE)
    after = _counted_until(rails, spec.name, night)
    counted = _count(rails, spec, after, night)

    def write(connection: Any) -> None:
        connection.execute(
            f"delete from {lake.identifier(TIER_SHARE)} where model = $model and night > $after and night <= $night",
            {"model": spec.name, "after": after, "night": night},
        )
        lake.put(connection, TIER_SHARE, {"model": spec.name, "night": night}, counted)

    rails.lake.commit(write, message=f"fallback audit {spec.name} {night}", fence=fence)
    decision = decide(
        spec.name,
        night,
        nights(rails, spec, as_of),
        [_task(row, night) for row in rails.ledger.default_tasks(spec.name) if row["opened"] < night],
        spec.fallback.audit_after,
        spec.prediction.every,
    )
    for task in decision.recovered:
        rails.ledger.recover_default_task(spec.name, task.opened, night)
    if decision.opens and decision.stretch:
        said = _said(rails, spec, decision.stretch, as_of)
        opens = decision.opens
        rails.ledger.open_default_task(
            DefaultTask(model=spec.name, opened=night, since=opens.since, repeats=opens.repeats, said=said)
        )
    tonight = counted[counted["night"] == night]
    summary = {
        "night": str(night),
        "answers": int(tonight["answers"].sum()),
        "on_default_since": str(decision.stretch.since) if decision.stretch else None,
        "share": decision.stretch.share if decision.stretch else 0.0,
        "opened": bool(decision.opens),
        "recovered": [str(task.opened) for task in decision.recovered],
    }
    rails.ledger.record_stage(STAGE, spec.name, night, "done", summary)
    return summary


def nights(rails: Rails, spec: Spec, as_of: datetime) -> list[Night]:
    """Who answered on every audited night until `as_of`, oldest first."""
    if not rails.lake.has(TIER_SHARE):
        return []
    rows = rails.lake.query(
        f"select night, channel, tier, sum(answers)::bigint as answers from {{{TIER_SHARE}}} "
        "where model = $model and night <= $night group by all order by all",
        as_of,
        {"model": spec.name, "night": night_closing(as_of)},
    )
    found: dict[date, dict[str, dict[str, int]]] = {}
    for row in rows.itertuples():
        found.setdefault(row.night.date(), {}).setdefault(row.channel, {})[row.tier] = int(row.answers)
    return [Night(day, answers) for day, answers in found.items()]


def shares(rails: Rails, spec: Spec, as_of: datetime) -> list[dict[str, Any]]:
    """The rows of ops.tier_share of one night, as plain values."""
    if not rails.lake.has(TIER_SHARE):
        return []
    rows = rails.lake.query(
        f"select channel, tier, reason, answers, share from {{{TIER_SHARE}}} "
        "where model = $model and night = $night order by channel, answers desc, tier, reason",
        as_of,
        {"model": spec.name, "night": night_closing(as_of)},
    )
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


# -- the question and its answer ----------------------------------------------------------------------


def open_task(rails: Rails, model: str) -> DefaultTask | None:
    """The question that waits for a person, as the ledger has it."""
    rows = [row for row in rails.ledger.default_tasks(model) if not (row.answered or row.recovered)]
    return rows[-1] if rows else None


def explain(
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
) -> dict[str, Any]:
    """A person's answer to the model's open task. The first one counts.

    `opened` names the task that was asked about; without it, it is the one that is open. Raises BadInput, with a
    sentence, for an answer that is none, when nothing is asked (any more), and when somebody was faster.
    """
    task = open_task(rails, spec.name)
    if opened is not None and (task is None or task["opened"] != opened):
        raise BadInput(f"{spec.name} is not asked about the night of {opened} any more; see tiltyard fallback.")
    if task is None:
        raise BadInput(f"Nobody has to explain {spec.name}: no task is open; see tiltyard fallback {spec.name}.")
    newest = _newest(rails, spec.name) or task["opened"]
    answer = checked(cause, owner, until, newest)
    values = {"cause": answer.cause, "owner": answer.owner, "until": answer.until, "answered_by": by}
    is_first = rails.ledger.answer_default_task(
        spec.name, task.opened, Explanation(night=newest, source=source, answered_at=at, **values)
    )
    if not is_first:
        raise BadInput(f"{spec.name} was explained a moment ago by somebody else; see tiltyard fallback {spec.name}.")
    return {"model": spec.name, "since": str(task["since"]), **values, "until": str(answer.until)}


def refuse(rails: Rails, model: str, opened: date, by: str | None, sentence: str) -> None:
    """Keep an answer that was none, so that the next question begins with what was wrong with it."""
    rails.ledger.add_event(REFUSED, model, opened, {"by": by, "sentence": sentence})


def question(rails: Rails, spec: Spec) -> dict[str, Any] | None:
    """What a person is asked about the model: {"opened", "subject", "body"} in Markdown. None: nothing is open."""
    task = open_task(rails, spec.name)
    if task is None:
        return None
    said, newest = task["said"], _newest(rails, spec.name) or task["opened"]
    refused = [row for row in rails.ledger.events(spec.name, REFUSED) if row["night"] == task["opened"]]
    reasons = "\n".join(f"- {reason}: {share:.0%}" for reason, share in said["reasons"].items())
    lines = [
        *([f"**Your last answer does not count.** {refused[-1]['detail']['sentence']}", ""] if refused else []),
        f"Of the answers of **{spec.name}** (owner {spec.owner}, tier {spec.tier}) on the night of {task['opened']}, "
        f"**{said['share']:.0%}** were its safe default, {spec.fallback.safe_default:g}, and so on every night with "
        f"answers since that of {task['since']}. It may be there for "
        f"{clock.format_duration(spec.fallback.audit_after)} before somebody says why.",
        "",
        *(["It has **never had a champion**: no version was ever promoted.", ""] if said["never_promoted"] else []),
        *([_ran_out(rails, spec.name, task["repeats"]), ""] if task["repeats"] else []),
        "Why its champion does not answer:",
        "",
        reasons,
        "",
        f"Say the cause, who sees to it, and until when it may stay there (a day after {newest}): on the first night "
        "after that day you are asked again. This question goes away only when it is answered, or when the model has "
        "left its safe default. From a terminal: "
        f"`tiltyard fallback explain {spec.name} --cause … --owner … --until …`",
    ]
    return {
        "opened": task["opened"],
        "subject": subject(spec.name, task["since"], task["opened"]),
        "body": "\n".join(lines),
    }


def subject(model: str, since: date, opened: date) -> str:
    """The question in a line; Airflow's record of an answer carries it."""
    return f"Why is {model} on its safe default since {since}? (asked on the night of {opened})"


# -- what a person sees -------------------------------------------------------------------------------


def document(rails: Rails, specs: Sequence[Spec], as_of: datetime | None = None) -> list[dict[str, Any]]:
    """Per model, JSON-ready: the shares of its newest audited night, its stretch on the default, and its tasks."""
    return [_document(rails, spec, as_of) for spec in specs]


def _document(rails: Rails, spec: Spec, as_of: datetime | None) -> dict[str, Any]:
    newest = _newest(rails, spec.name, night_closing(as_of) if as_of else None)
    at = clock.midnight(newest) if newest else None
    known = nights(rails, spec, at) if at else []
    found = stretch(known)
    return {
        "model": spec.name,
        "night": str(newest) if newest else None,
        "shares": shares(rails, spec, at) if at else [],
        "on_default": {"since": str(found.since), "nights": found.nights, "share": found.share} if found else None,
        "audit_after": clock.format_duration(spec.fallback.audit_after),
        "tasks": [
            _told(row, newest)
            for row in rails.ledger.default_tasks(spec.name)
            if newest is not None and row["opened"] <= newest
        ],
    }


def _told(row: DefaultTask, newest: date) -> dict[str, Any]:
    answered = row.answered if row.answered and row.answered.night <= newest else None
    recovered = row.recovered if row.recovered and row.recovered.night <= newest else None
    told = {"opened": str(row["opened"]), "since": str(row["since"])}
    told |= {"state": "answered" if answered else "recovered" if recovered else "open"}
    if row["repeats"]:
        told["repeats"] = str(row["repeats"])
    if answered:
        told |= {name: str(answered[name]) for name in ("cause", "owner", "until", "answered_by", "source")}
        told["answered_at"] = answered["answered_at"].isoformat()
    if recovered:
        told["recovered"] = str(recovered["night"])
    return told


# -- plumbing -----------------------------------------------------------------------------------------


def _counted_until(rails: Rails, model: str, night: date) -> date:
    """The nights after this one are counted by the audit of `night`."""
    row = rails.lake.connection.execute(
        f"select max(night) from {lake.stored(TIER_SHARE)} where model = $model and night <= $night",
        {"model": model, "night": night},
    ).fetchone()
    return min(row[0], night - AGAIN) if row and row[0] else date.min


def _count(rails: Rails, spec: Spec, after: date, night: date) -> pd.DataFrame:
    """Rows of ops.tier_share of the nights after `after`, until `night`.

    Read as the lake holds them, not as of the night: they tell what our own service did on it, and what was
    delivered after midnight belongs to it as well.
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


def _said(rails: Rails, spec: Spec, found: Stretch, as_of: datetime) -> dict[str, Any]:
    """What a task says of the night it is opened on. Reasons are those of the safe default's answers."""
    last = clock.midnight(found.last)
    given = [row for row in shares(rails, spec, last) if row["tier"] == "safe_default"]
    reasons: dict[str, int] = {}
    for row in given:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + row["answers"]
    total = sum(reasons.values())
    return {
        "nights": found.nights,
        "share": round(found.share, 4),
        "reasons": {reason: round(count / total, 4) for reason, count in sorted(reasons.items())},
        "never_promoted": not [
            one for one in rails.ledger.promotions(spec.name) if one["night"] < night_closing(as_of)
        ],
    }


def _task(row: DefaultTask, night: date) -> Task:
    """A row of the ledger as it stood before `night`."""
    answered = row.answered if row.answered and row.answered.night < night else None
    recovered = row.recovered if row.recovered and row.recovered.night < night else None
    return Task(
        row["model"],
        row["opened"],
        row["since"],
        row["repeats"],
        until=answered["until"] if answered else None,
        recovered=recovered["night"] if recovered else None,
    )


def _newest(rails: Rails, model: str, until: date | None = None) -> date | None:
    before = until + timedelta(days=1) if until else None
    record = rails.ledger.last_stage_run(FallbackAuditSummary, model, before)
    return record["night"] if record else None


def _ran_out(rails: Rails, model: str, opened: date) -> str:
    answered = next(row.answered for row in rails.ledger.default_tasks(model) if row.opened == opened and row.answered)
    return (
        f"The last answer has run out: {answered['answered_by']} said until {answered['until']}, "
        f"owner {answered['owner']}: {answered['cause']}"
    )
