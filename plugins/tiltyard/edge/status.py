"""What a person sees of a model: its state in one document, one prediction explained, the worth of retraining.

Everything is read at an `as_of` (by default the newest night that was scored), nothing from the clock.
"""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiltyard import clock
from tiltyard.answered import arm, fallback_audit
from tiltyard.errors import BadInput
from tiltyard.govern import grants
from tiltyard.judge import arrival, estimate, rollback, shadow
from tiltyard.pages import plots
from tiltyard.prepare import contracts, data_incidents, embargo, features, frame, popular, truth
from tiltyard.rails import Rails
from tiltyard.records import GovernorSummary
from tiltyard.spec import Spec
from tiltyard.tables import ESTIMATE, EVALUATION, PREDICTION


def status(rails: Rails, spec: Spec, as_of: datetime | None = None) -> dict[str, Any]:
    """One JSON-ready document: roles, evidence, metrics, last decision, drift, freshness, checks, realized lines."""
    as_of = as_of or _newest(rails, spec)
    document: dict[str, Any] = {
        "model": spec.name,
        "owner": spec.owner,
        "tier": spec.tier,
        "measure": spec.target.measure,
        "as_of": as_of.isoformat() if as_of else None,
    }
    if as_of is None:
        return document | {"state": f"no night yet; run tiltyard hindcast --model {spec.name} --from DATE --to DATE"}
    night = as_of.date()
    roles = rails.ledger.roles(spec.name, (as_of + spec.prediction.every).date())  # in force from the next night on
    nights = _shadow_nights(rails, spec, as_of)
    decisions = rails.ledger.decisions(spec.name, until=night)
    promotions = rails.ledger.promotions(spec.name, until=night)
    return document | {
        "champion": roles.champion,
        "previous": roles.previous,
        "challengers": list(roles.challengers),
        "first": roles.first,
        "shadow_nights": {str(number): nights.get(number, 0) for number in roles.challengers},
        "served_by": _served(rails, spec, as_of),
        "fallback": fallback_audit.report(rails, spec, as_of).to_json(),
        "popular": [item.to_json() for item in popular.items(rails, spec, as_of)],
        **_counts(rails, spec, as_of),
        "metrics": _metrics(rails, spec, as_of),
        "gate": _decision(_telling(decisions)) if decisions else None,
        "promotions": [
            {
                "night": str(row["night"]),
                "version": row["version"],
                "replaced": row["replaced"],
                "by": row["approved_by"],
            }
            for row in promotions
        ],
        "watch": _watch(rails, spec, as_of),
        "rollbacks": [
            {"night": str(row["night"]), "version": row["champion"], "back": row["previous"], "reasons": row["reasons"]}
            for row in rails.ledger.watches(spec.name, until=night, verdict="rollback")
        ],
        "retrains": [
            {"night": str(row["night"]), "reasons": row["reasons"]}
            for row in rails.ledger.retrains(spec.name, until=night)
        ],
        "online": arm.as_json(arm.report(rails, spec, as_of)),
        "drift": _drift(rails, spec, night),
        "governor": _governor(rails, spec, night),
        "freshness": _freshness(rails, spec, as_of),
        "latency": [table.to_json() for table in embargo.report(rails, embargo.tables_of(rails, spec), as_of)],
        "incidents": [one.to_json() for one in data_incidents.of_source(rails, spec.source, night)],
        "label_arrival": arrival.report(rails, spec, as_of),
        "estimated": _estimated(rails, spec, as_of),
        "checks": _stage(rails, features.STAGE, "", night),
        "training": _training(rails, spec, night),
        "replay": (_stage(rails, "training", spec.name, night) or {}).get("replay"),
        "realized": realized(rails, spec, as_of)["overall"],
        "events": len(rails.ledger.events(spec.name)),
    }


def realized(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    """The promoted line beside "never retrained" and the safe default, on the same rows with matured truth.

    The promoted line is what was served: the safe default until a challenger had earned its place. "Never retrained"
    is the first version, as if it had been put in service at once and left there. `overall` has the measure of
    each line over all rows, and over those since the first promotion; `weekly` is a
    list of (night, line, loss, low, high, n).
    """
    empty: dict[str, Any] = {"overall": None, "weekly": []}
    versions = rails.ledger.versions(spec.name)
    if not versions or not rails.lake.has(PREDICTION):
        return empty
    rows = truth.matured(rails, spec, as_of)
    keys = ["entity_id", "prediction_time"]
    first = rows[(rows["version"] == versions[0]["version"]) & (rows["tier"] != "light")].set_index(keys)
    served = rows[rows["tier"] != "shadow"].set_index(keys)
    both = served[["score", "label"]].join(first[["score"]].rename(columns={"score": "first"}), how="inner")
    if both.empty:
        return empty
    label = both["label"].to_numpy(dtype="float64")
    default = np.full(len(label), spec.fallback.safe_default)
    losses = pd.DataFrame(
        {
            name: spec.target.row_losses(np.asarray(score, dtype=np.float64), label)
            for name, score in (
                ("promoted line", both["score"]),
                ("never retrained", both["first"]),
                ("safe default", default),
            )
        },
        index=both.index,
    ).reset_index()
    lines = ["promoted line", "never retrained", "safe default"]
    promotions = rails.ledger.promotions(spec.name, until=as_of.date())
    since = losses
    if promotions:
        since = losses[losses["prediction_time"] >= pd.Timestamp(clock.midnight(promotions[0]["night"]))]
    return {
        "overall": {
            "metric": spec.target.measure,
            "from": str(losses["prediction_time"].min().date()),
            "to": str(losses["prediction_time"].max().date()),
            **_means(losses, lines),
            "since_first_promotion": _means(since, lines) if promotions and len(since) else None,
        },
        "weekly": _weekly(losses, lines),
    }


def estimated(rails: Rails, spec: Spec, as_of: datetime) -> list[dict[str, Any]]:
    """The promoted line in the weeks whose truth has not come, as its scores promise: rows like those of `weekly`.

    Estimated, not measured (see `estimate`): shown, and nothing decides on it.
    """
    if spec.target.inestimable or not rails.lake.has(PREDICTION):
        return []
    served = truth.immature(rails, spec, as_of)
    served = served[served["tier"] != "shadow"]
    if served.empty:
        return []
    since = truth.cutoff(spec, as_of) - shadow.TEACHES * spec.drift.window
    known = truth.matured(rails, spec, as_of, since=since.date())
    result = []
    for start, week in served.groupby(_week(served["prediction_time"])):
        parts = []
        for version, rows in week.groupby("version", dropna=False):
            own = known[known["version"].isna() if pd.isna(version) else (known["version"] == version).fillna(False)]
            scores = (part.to_numpy(dtype="float64") for part in (rows["score"], own["score"], own["label"]))
            parts.append(estimate.performance(*scores))
        rows_in_all = sum(part.rows for part in parts)
        mean, low, high = (
            sum(getattr(part, name) * part.rows for part in parts) / rows_in_all for name in ("brier", "low", "high")
        )
        result.append(
            {"night": start.date(), "line": plots.ESTIMATED, "loss": mean, "low": low, "high": high, "n": rows_in_all}
        )
    return result


def explain(rails: Rails, spec: Spec, request_id: str) -> dict[str, Any]:
    """One prediction: what each feature said and since when, who answered from which snapshot, the truth if it came.

    Raises BadInput when no prediction of the model has this request_id.
    """
    newest = _newest(rails, spec)
    found = (
        rails.lake.query(
            f"select * from {{{PREDICTION}}} where model = $model and request_id = $request",
            newest,
            {"model": spec.name, "request": request_id},
        )
        if newest and rails.lake.has(PREDICTION)
        else pd.DataFrame()
    )
    if found.empty:
        raise BadInput(
            f"{spec.name} has no prediction '{request_id}'; request_ids are in ops.prediction, "
            f"and tiltyard status {spec.name} --json names one."
        )
    row = found.iloc[0]
    prediction_time = row["prediction_time"].to_pydatetime()
    snapshot = int(row["snapshot"])
    label = truth.truth_of(rails, spec, row["entity_id"], prediction_time, newest)
    return {
        "model": spec.name,
        "request_id": request_id,
        "entity_id": row["entity_id"],
        "prediction_time": prediction_time.isoformat(),
        "night": str(row["night"])[:10],
        "score": float(row["score"]),
        "role": row["role"],
        "version": None if pd.isna(row["version"]) else int(row["version"]),
        "tier": row["tier"],
        "tier_reason": row["tier_reason"] or None,
        "snapshot": snapshot,
        "features": [
            feature.to_json() for feature in frame.explain(rails, spec, row["entity_id"], prediction_time, snapshot)
        ],
        "truth": label
        and {
            "label": label.label,
            "event_time": label.event_time.isoformat(),
            "available_at": label.available_at.isoformat(),
        },
    }


def plot(rails: Rails, spec: Spec, as_of: datetime) -> Path | None:
    """Draw `realized` with `estimated`, and beside it latency and label arrival, as PNG under reports/.

    None when there is nothing to draw yet.
    """
    weekly = realized(rails, spec, as_of)["weekly"]
    arrival.plot(rails, spec, as_of)
    if not weekly:
        return None
    weekly = [*weekly, *estimated(rails, spec, as_of)]
    path = rails.settings.reports / "realized" / f"{spec.name}.png"
    marks = [row["night"] for row in rails.ledger.promotions(spec.name, until=as_of.date())]
    embargo.plot(rails, spec.name, embargo.tables_of(rails, spec), as_of)
    plots.realized(pd.DataFrame(weekly), path, title=spec.name, promotions=marks, measure=spec.target.measure)
    return path


# -- parts ----------------------------------------------------------------------------------------------------


def _newest(rails: Rails, spec: Spec) -> datetime | None:
    nights = rails.ledger.stage_statuses("shadow", spec.name)
    return clock.midnight(max(nights)) if nights else None


def _shadow_nights(rails: Rails, spec: Spec, as_of: datetime) -> dict[int, int]:
    if not rails.lake.has(PREDICTION):
        return {}
    rows = rails.lake.query(
        f"select version, count(distinct night) as nights from {{{PREDICTION}}} "
        "where model = $model and version is not null group by version",
        as_of,
        {"model": spec.name},
    )
    return {int(row.version): int(row.nights) for row in rows.itertuples()}


def _served(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    """Answers of the night per tier, and one request_id to explain."""
    if not rails.lake.has(PREDICTION):
        return {}
    rows = rails.lake.query(
        f"select tier, count(*) as answers, min(request_id) as example from {{{PREDICTION}}} "
        "where model = $model and night = $night and tier <> 'shadow' group by tier order by tier",
        as_of,
        {"model": spec.name, "night": as_of.date()},
    )
    return {row.tier: {"answers": int(row.answers), "example": row.example} for row in rows.itertuples()}


def _counts(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    counts = truth.counts(rails, spec, as_of).to_json()
    return {name: number for name, number in counts.items() if name != "missing" and number is not None}


def _metrics(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    if not rails.lake.has(EVALUATION):
        return {}
    rows = rails.lake.query(
        f"select * from {{{EVALUATION}}} where model = $model and night = $night and slice = 'all' order by version",
        as_of,
        {"model": spec.name, "night": as_of.date()},
    )
    keep = ("role", "matured", "immature", "early", *spec.target.interval, *spec.target.status_figures)
    return {
        "safe_default" if pd.isna(row["version"]) else str(int(row["version"])): {
            name: _number(row[name]) for name in keep
        }
        for _, row in rows.iterrows()
    }


def _telling(decisions: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the newest night's decisions: a promotion, else the one with the most matured evidence."""
    newest = [row for row in decisions if row["night"] == decisions[-1]["night"]]
    return max(newest, key=lambda row: (row["verdict"] == "promote", row["evidence"].get("matured") or 0))


def _decision(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "night": str(row["night"]),
        "challenger": row["challenger"],
        "champion": row["champion"],
        "verdict": row["verdict"],
        "reasons": row["reasons"],
    }


def _watch(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any] | None:
    """What the rollback watch says of the champion that is under it: its newest verdict, None before the first."""
    watched = rollback.watched(spec, rails.ledger.changes(spec.name), as_of)
    if watched is None:
        return None
    until = watched.night + spec.gate.rollback_window
    found = {"champion": watched.champion, "previous": watched.previous, "predictions_until": str(until)}
    said = [row for row in rails.ledger.watches(spec.name, until=as_of.date()) if row["night"] > watched.night]
    if not said:
        return found | {"night": None, "verdict": None, "reasons": ["Nothing has matured since the promotion."]}
    newest = said[-1]
    return found | {"night": str(newest["night"]), "verdict": newest["verdict"], "reasons": newest["reasons"]}


def _governor(rails: Rails, spec: Spec, night: date) -> dict[str, Any] | None:
    """What the governor said of the model on the newest night that it decided on, until `night`."""
    newest = rails.ledger.last_stage_run(GovernorSummary, before=night + timedelta(days=1))
    said = grants.decided(rails, spec.name, newest["night"]) if newest else None
    return {"night": str(newest["night"]), **said} if newest and said else None


def _stage(rails: Rails, stage: str, model: str, night: date) -> dict[str, Any] | None:
    row = rails.ledger.last_stage_run(stage, model, before=night + timedelta(days=1))
    if row is None:
        return None
    return {**row.summary.to_json(), "night": str(row.night), "status": row.status}


def _drift(rails: Rails, spec: Spec, night: date) -> dict[str, Any] | None:
    """The newest night's finding; of a night that ended without one, how it ended, and why."""
    newest = _stage(rails, "drift", spec.name, night)
    if newest is None or newest["status"] == "done":
        return newest
    return newest | {"verdict": newest["status"], "reasons": [newest["reason"]]}


def _training(rails: Rails, spec: Spec, night: date) -> dict[str, Any] | None:
    """How the newest training ended: {"night", "status", "version", "reason"}; None before the first."""
    newest = _stage(rails, "training", spec.name, night)
    return {name: newest.get(name) for name in ("night", "status", "version", "reason")} if newest else None


def _freshness(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for table in sorted(contracts.raw_tables(rails.settings, spec.source)):
        if not rails.lake.has(table):
            continue
        newest = rails.lake.query(f"select max(available_at) as newest from {{{table}}}", as_of)["newest"][0]
        name = table.removeprefix("raw.")
        if pd.isna(newest):
            found[name] = {"newest": None, "age_hours": None}
        else:
            age = (pd.Timestamp(as_of) - newest).total_seconds() / 3600
            found[name] = {"newest": newest.isoformat(), "age_hours": round(age, 1)}
    return found


def _means(losses: pd.DataFrame, lines: list[str]) -> dict[str, Any]:
    return {"rows": len(losses), **{_key(line): round(float(losses[line].mean()), 5) for line in lines}}


def _weekly(losses: pd.DataFrame, lines: list[str]) -> list[dict[str, Any]]:
    """Mean per cohort week with a normal interval (1.96 standard errors)."""
    result = []
    for start, group in losses.groupby(_week(losses["prediction_time"])):
        for line in lines:
            mean, error = group[line].mean(), group[line].sem() if len(group) > 1 else float("nan")
            low, high = (mean - 1.96 * error, mean + 1.96 * error) if error == error else (mean, mean)
            result.append(
                {"night": start.date(), "line": line, "loss": mean, "low": low, "high": high, "n": len(group)}
            )
    return result


def _week(times: "pd.Series[pd.Timestamp]") -> "pd.Series[pd.Timestamp]":
    """The Monday of the week of each instant."""
    return times.dt.tz_convert("UTC").dt.tz_localize(None).dt.to_period("W-SUN").dt.start_time


def _estimated(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    """Version → what its scores promise of the rows whose cohort has not matured, as the shadow stage wrote it."""
    if not rails.lake.has(ESTIMATE):
        return {}
    rows = rails.lake.query(
        f"select * from {{{ESTIMATE}}} where model = $model and night = $night order by version",
        as_of,
        {"model": spec.name, "night": as_of.date()},
    )
    keep = ("role", "rows", "is_calibrated", "calibration_rows", "brier", "brier_low", "brier_high", "log_loss", "auc",
            "positive_rate")  # fmt: skip
    return {
        "safe_default" if pd.isna(row["version"]) else str(int(row["version"])): {
            name: _number(row[name]) for name in keep
        }
        for _, row in rows.iterrows()
    }


def _key(line: str) -> str:
    return line.replace(" ", "_")


def _number(value: Any) -> Any:
    if value is None or (isinstance(value, float) and value != value) or value is pd.NA:
        return None
    return value.item() if hasattr(value, "item") else value
