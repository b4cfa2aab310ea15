"""The documents of `status` and `explain` as text for a terminal."""

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from tiltyard.answered.report import FallbackReport, RequestNight, RequestsReport, TaskReport
from tiltyard.records import Embargo, Incident, PortfolioNight
from tiltyard.target import MEASURES, at_start

NOTHING = "–"


def model(document: dict[str, Any]) -> str:
    """A model's status, a line for each fact."""
    name = document["model"]
    if "state" in document:
        return f"{name}: {document['state']}"
    facts = {
        "champion": _roles(document),
        "truth": _truth(document),
        "measured": _metrics(document["metrics"].get(str(document["champion"])), document["measure"]),
        "estimated": _estimated(document["estimated"].get(str(document["champion"])), document["measure"]),
        "labels": _labels(document["label_arrival"]),
        "online": online(document["online"], document["measure"]),
        "gate": _gate(document["gate"]),
        "promotions": _list(f"v{row['version']} on {row['night']}" for row in document["promotions"]),
        "watch": _watch(document["watch"], document["rollbacks"]),
        "drift": _drift(document["drift"]),
        "governor": _governor(document["governor"]),
        "retrains": _list(row["night"] for row in document["retrains"]),
        "realized": _realized(document["realized"]),
        "checks": _checks(document["checks"]),
        "latency": _list(_late(row) for row in document["latency"] if row["verdict"] in ("late", "over")),
        "incidents": _list(_incident(one) for one in document["incidents"]),
        "training": _training(document["training"]),
        "replay": _replay(document["replay"]),
    }
    fallback = FallbackReport.from_json(document["fallback"])
    if fallback.on_default or fallback.tasks:
        facts["fallback"] = "; ".join(line.strip() for line in _lasting(fallback))
    if document["popular"]:
        facts["popular"] = _list(f"{one['item_name']} ({one['score']:.0%})" for one in document["popular"])
    head = f"{name} as of {document['as_of'][:10]} (owner {document['owner']}, tier {document['tier']})"
    return "\n".join([head, *(f"  {label:<12} {text}" for label, text in facts.items())])


def prediction(document: dict[str, Any]) -> str:
    """One explained prediction as a small table."""
    width = max((len(row["feature"]) for row in document["features"]), default=0)
    truth = json.dumps(document["truth"]) if document["truth"] else "not matured yet"
    return "\n".join(
        [
            f"{document['model']} on {document['entity_id']} at {document['prediction_time']}: {document['score']:.4f}",
            f"  served by {document['tier']}, {_version(document['version'])} as {document['role']}, "
            f"from lake snapshot {document['snapshot']}",
            f"  truth: {truth}",
            *(
                f"  {row['feature']:<{width}}  {row['value']!s:<24} happened {row['event_time']}, "
                f"known {row['available_at']} ({row['view']})"
                for row in document["features"]
            ),
        ]
    )


def latencies(embargoes: Iterable[Embargo]) -> list[dict[str, Any]]:
    """The cells of `tiltyard leakage latency`, a row per table."""
    return [
        {
            "table": embargo.table,
            "nights": embargo.nights,
            "rows": embargo.rows,
            "observed": embargo.observed_rows,
            "promised p99": _took(embargo.promised_p99_s),
            "claimed p99": _took(embargo.claimed_p99_s),
            "observed p99": _took(embargo.observed_p99_s),
            "max": _took(embargo.observed_max_s),
            "late rows": embargo.late_rows,
            "embargo": f"{embargo.missed_nights} nights",
            "verdict": embargo.verdict,
        }
        for embargo in embargoes
    ]


def governed(night: PortfolioNight) -> str:
    """The governor's word on a night: how many of each, the incidents, and every model that is not steady."""
    counts = ", ".join(f"{number} {decision}" for decision, number in night.decisions.items())
    lines = [f"night of {night.night}: {counts or 'no model'}"]
    lines += [f"  {_shared(incident)}" for incident in night.incidents]
    lines += [
        f"  {action.decision:<9} {name}: {'; '.join(action.reasons)}"
        for name, action in night.actions.items()
        if action.decision not in ("steady", "incident")
    ]
    return "\n".join(lines)


def answered(reports: Sequence[FallbackReport]) -> str:
    """What `tiltyard fallback` shows: per model who answered, and what a person is asked or has said."""
    return "\n".join(line for report in reports for line in _answered(report)) or "there is no model"


def _answered(report: FallbackReport) -> list[str]:
    model = report.model
    if report.night is None:
        return [f"{model}: no night is audited yet; run tiltyard fallback audit {model} --as-of DATE"]
    state, *tasks = _lasting(report)
    return [
        f"{model} on the night of {report.night}: {state}",
        *(
            f"  {row.channel:<8} {row.share:>6.1%}  {row.answers:>9,}  {row.tier}, {row.reason}"
            for row in report.shares
        ),
        *tasks,
    ]


def _lasting(report: FallbackReport) -> list[str]:
    """Whether the model is on its safe default, and every task that there was."""
    current = report.on_default
    return [
        f"on its safe default since {current.since}, {current.nights} nights" if current else "in service",
        *(f"  task of {task.opened}: {_task(report.model, task)}" for task in report.tasks),
    ]


def _task(model: str, task: TaskReport) -> str:
    if task.state == "open":
        return f"open; tiltyard fallback explain {model} --cause … --owner … --until …"
    recovery = f"left its safe default on {task.recovered}" if task.recovered else ""
    if task.state == "recovered":
        return f"recovered without an answer, it {recovery}"
    answer = f"{task.answered_by} says: {task.cause} (owner {task.owner}, until {task.until})"
    return f"{answer}; it {recovery}" if recovery else answer


def incidents(open_now: Sequence[Incident]) -> str:
    """The portfolio's incidents, a line for each."""
    return "\n".join(map(_shared, open_now)) or "no incident is open"


def _shared(incident: Incident) -> str:
    node, models = incident.node, incident.models
    named = f"{', '.join(models[:3])}{' …' if len(models) > 3 else ''}"
    columns = f", columns {', '.join(incident.columns)}" if incident.columns else ""
    end = {
        "broken": "closes when it is mended",
        "missing": f"closes when it is back, or: tiltyard incidents release {node} --reason …",
        "shared_shift": f"held until it is over, or: tiltyard incidents release {node} --reason …",
    }[incident.kind]
    kind = incident.kind.replace("_", " ")
    return f"{node} {kind} since {incident.since}, {len(models)} models ({named}){columns}: {incident.said}; {end}"


def _late(row: dict[str, Any]) -> str:
    if row["verdict"] == "over":
        return f"{row['table']} p99 {_took(row['observed_p99_s'])}, promised {_took(row['promised_p99_s'])}"
    return f"{row['table']} misses {row['missed_nights']} night(s), {row['late_rows']} of {row['rows']} rows late"


def _incident(one: dict[str, Any]) -> str:
    where = ".".join(filter(None, (one["table"], one["column"])))
    return f"{where} {one['what'].replace('_', ' ')} since {one['since']}"


def _took(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    took = timedelta(seconds=round(seconds))
    return f"{took.days} d {took.seconds // 3600} h" if took.days else str(took)


def _roles(document: dict[str, Any]) -> str:
    nights = document["shadow_nights"]
    waiting = _list(f"v{number} ({nights[str(number)]} nights)" for number in document["challengers"])
    return f"{_version(document['champion'])}; previous {_version(document['previous'])}; challengers: {waiting}"


def _truth(document: dict[str, Any]) -> str:
    said = "{matured} matured, {immature} immature, {early} known early and not counted".format(**document)
    if document.get("outside"):
        said += f"; {document['outside']} beyond the label's bounds, counted as the nearer one"
    return said


def _metrics(metrics: dict[str, Any] | None, measure: str) -> str:
    if not metrics or metrics.get(measure) is None:
        return NOTHING
    target = MEASURES[measure]
    loss, low, high = (_round(metrics[f"{measure}{end}"]) for end in ("", "_low", "_high"))
    more = "".join(f", {words} {_round(metrics[name])}" for name, words in target.headline.items())
    return f"champion's {target.figure} {loss} ({low} to {high}){more} on {metrics['matured']} matured"


def _estimated(found: dict[str, Any] | None, measure: str) -> str:
    """Never without the word: nothing of this was measured."""
    if reason := MEASURES[measure].inestimable:
        return f"not estimated: {reason}"
    if not found or found["brier"] is None:
        return NOTHING
    low, high = _round(found["brier_low"]), _round(found["brier_high"])
    by = (
        f"by {found['calibration_rows']} matured rows"
        if found["is_calibrated"]
        else "raw scores, too few matured rows to calibrate them"
    )
    return (
        f"champion's Brier {_round(found['brier'])} ({low} to {high}) on {found['rows']} rows without truth, "
        f"estimated {by}; decides nothing"
    )


def _labels(found: dict[str, Any] | None) -> str:
    if not found:
        return NOTHING
    half, most = (
        f"after {found[name]} nights" if found[name] is not None else "never yet"
        for name in ("half_after", "most_after")
    )
    last = f"the last came in the night of {found['last_arrived']}" if found["last_arrived"] else "none has come yet"
    broken = "; ".join(f"{one['what'].replace('_', ' ')} since {one['since']}" for one in found["incidents"])
    return (
        f"half are known {half}, 95 % {most}; {found['waiting_rows']} rows of {found['waiting_cohorts']} cohorts wait, "
        f"{last}" + (f"; {broken}" if broken else "")
    )


def _gate(gate: dict[str, Any] | None) -> str:
    if not gate:
        return NOTHING
    against = f"champion v{gate['champion']}" if gate["champion"] is not None else "the safe default"
    reasons = "; ".join(gate["reasons"][:2])
    return f"{gate['verdict']} v{gate['challenger']} against {against} on {gate['night']}: {reasons}"


def _watch(watch: dict[str, Any] | None, rollbacks: list[dict[str, Any]]) -> str:
    """The rollback watch, and what it has sent back."""
    sent = "".join(f"v{row['version']} went back to {_served_by(row['back'])} on {row['night']}; " for row in rollbacks)
    if watch is None:
        return sent.rstrip("; ") or "nobody is under watch"
    verdict = (
        f"{watch['verdict']} on {watch['night']}: {watch['reasons'][0]}" if watch["verdict"] else watch["reasons"][0]
    )
    return f"{sent}v{watch['champion']} against {_served_by(watch['previous'])}, {verdict}"


def _served_by(version: int | None) -> str:
    return "the safe default" if version is None else f"v{version}"


def online(arms: dict[str, Any], measure: str) -> str:
    """How the answers given online turned out, per arm; of a challenger's unseen scores per version."""
    name = MEASURES[measure].figure
    said = []
    for arm, rows in arms.items():
        for row in rows if arm == "shadow" else rows[:1]:
            who = f"shadow v{row['version']}" if arm == "shadow" else arm
            defaults = sum(one["requests"] for one in rows if one["tier"] == "safe_default")
            fell = f", {defaults} of them by the safe default" if defaults else ""
            low, high = _round(row[f"{measure}_low"]), _round(row[f"{measure}_high"])
            figure = f"{name} {_round(row[measure])} ({low} to {high}) on {row['matured']} matured"
            unmatched = f", {row['unmatched']} of no spine row" if row["unmatched"] else ""
            said.append(f"{who} {row['requests']} requests{fell}, {figure}{unmatched}")
    return "; ".join(said) or NOTHING


def asked(nights: Sequence[RequestNight]) -> list[dict[str, Any]]:
    """The cells of `tiltyard requests show`, a row per night."""
    return [
        {
            "night": str(night.night),
            "requests": night.requests,
            "answered by": _list(f"{tier} {count}" for tier, count in night.tiers.items()),
            "p50": f"{night.p50_us / 1000:.2f} ms",
            "p99": f"{night.p99_us / 1000:.2f} ms",
        }
        for night in nights
    ]


def turned_out(report: RequestsReport, measure: str) -> list[str]:
    """How the answers turned out, and what the log of all models has lost."""
    if not report.nights:
        return ["no request was delivered yet; run tiltyard serve, ask it, then tiltyard requests deliver"]
    log = report.log
    aside = f"; {log.damaged} segments are kept in spool/damaged" if log.damaged else ""
    return [
        f"outcome: {online(report.arms, measure)}",
        f"log of all models: {log.requests} requests and {log.shadow} shadow scores in {log.segments} segments, "
        f"{log.lost} lost, {log.unreadable} unreadable{aside}",
    ]


def _drift(drift: dict[str, Any] | None) -> str:
    if not drift:
        return NOTHING
    skewed = drift.get("skew", {}).get("skewed", [])
    said = f"; online not as at night: {_list(skewed[:3])}" if skewed else ""
    return f"{drift['verdict']} on {drift['night']}: {_list(drift['reasons'][:2])}{said}"


def _governor(said: dict[str, Any] | None) -> str:
    return f"{said['decision']} on {said['night']}: {_list(said['reasons'][:2])}" if said else NOTHING


def _realized(realized: dict[str, Any] | None) -> str:
    if not realized:
        return "nothing has matured yet"
    after = realized["since_first_promotion"]
    figure = at_start(MEASURES[realized["metric"]].figure)
    return f"{figure} over all {_lines(realized)}" + (f"; since the first promotion {_lines(after)}" if after else "")


def _lines(lines: dict[str, Any]) -> str:
    return (
        f"{lines['rows']} rows: promoted line {lines['promoted_line']:.4f}, "
        f"never retrained {lines['never_retrained']:.4f}, safe default {lines['safe_default']:.4f}"
    )


def _checks(checks: dict[str, Any] | None) -> str:
    if not checks:
        return NOTHING
    critical, warnings = len(checks.get("critical", [])), len(checks.get("warnings", []))
    return f"{checks['status']} on {checks['night']}: {critical} critical, {warnings} warnings"


def _training(training: dict[str, Any] | None) -> str:
    if not training:
        return NOTHING
    outcome = f"v{training['version']}" if training["version"] is not None else "no version"
    state = "" if training["status"] == "done" else f"{training['status']}, "
    return f"{state}{outcome} on {training['night']}" + (f": {training['reason']}" if training["reason"] else "")


def _replay(replay: dict[str, Any] | None) -> str:
    """The millisecond test of the last training."""
    if not replay:
        return NOTHING
    said = replay["critical"] or replay["untested"]
    return f"{replay['verdict']} on {replay['rows']} predictions before the last training" + (
        f": {_list(said[:2])}" if said else ""
    )


def _list(parts: Any) -> str:
    return ", ".join(parts) or "none"


def _version(number: int | None) -> str:
    return "none" if number is None else f"v{number}"


def _round(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def policies(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells of `tiltyard hindcast --policy`: per model the policies in the order given, then what they are held
    against."""
    rows = []
    for model, baselines in result["baselines"].items():
        best = baselines["best there was"]["loss"]
        tried = {name: models[model] for name, models in result["policies"].items()}
        for name, one in {**tried, **baselines}.items():
            retrains = one.get("retrains", "")
            rows.append(
                {
                    "model": model,
                    "policy": name,
                    "promotions": len(one["promotions"]) if "promotions" in one else "",
                    "rollbacks": len(one["rollbacks"]) if "rollbacks" in one else "",
                    "retrains": len(retrains) if isinstance(retrains, list) else retrains,
                    "for nothing": one.get("false_retrains", ""),
                    "days behind": one["days_behind"],
                    "loss": NOTHING if one["loss"] is None else f"{one['loss']:.4f}",
                    "over the best": NOTHING if one["loss"] is None or best is None else f"{one['loss'] - best:+.4f}",
                }
            )
    return rows


def policies_notes(result: dict[str, Any]) -> list[str]:
    """What to read the table with."""
    notes = [f"nights of {result['from']} to {result['to']}; assumed: {'; '.join(result['assumed'])}"]
    for name, models in result["policies"].items():
        for model, one in models.items():
            held = _list(f"{criterion} {times}" for criterion, times in list(one["held_by"].items())[:4])
            changes = [f"{row['night']} v{row['version']}" for row in one["promotions"]]
            notes.append(f"{name}, {model}: promoted {_list(changes)}; held most often by {held}")
    return [*notes, *(f"plot {path}" for path in result.get("plots", ()))]
