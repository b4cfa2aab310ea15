"""How the answers given online turned out: per arm of the traffic, per version and per tier.

A request speaks for the spine row of its entity with the latest prediction time that is not after the request's own,
if that is less than `prediction.every` ago: it shares that row's truth, under the same rule, whole matured cohorts
only. A request that speaks for no spine row (an entity that is unknown, or none given) is counted as unmatched, and
has no outcome. A request that was sent again under its id, for the same entity and instant, counts once.

Shown, never decided on: the gate stays with the scores of whole nights, where every version scored the same rows. The
entities that ask are not all there are; between the arms, which a stable hash of the entity splits, they compare.
"""

from dataclasses import asdict
from datetime import date, datetime
from typing import Any

import pandas as pd

from tiltyard import lake
from tiltyard.answered import request_log
from tiltyard.clock import night_closing
from tiltyard.prepare import truth
from tiltyard.rails import Rails
from tiltyard.spec import Spec
from tiltyard.tables import ONLINE_EVALUATION, REQUEST, REQUEST_SHADOW
from tiltyard.train import evaluation

ALL, SHADOW = "all", "shadow"


def record(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    """Write the night's online evaluation; twice is once. What `status` shows; empty without a request."""
    if not rails.lake.has(REQUEST):
        return {}
    rows = outcomes(rails, spec, as_of)
    if rows.empty:
        return {}
    night = night_closing(as_of)
    fence = rails.ledger.claim(f"online_evaluation/{spec.name}/{night}")
    rails.lake.ensure(ONLINE_EVALUATION)
    records = evaluate(spec, as_of, rows)
    table = request_log.typed(
        [tuple(row.get(name) for name in ONLINE_EVALUATION.columns) for row in records], ONLINE_EVALUATION
    )
    partition = {"model": spec.name, "night": night}
    message = f"online evaluation {spec.name} {night}"
    rails.lake.replace(ONLINE_EVALUATION, partition, table, message=message, fence=fence)
    return report(rails, spec, as_of)


def outcomes(rails: Rails, spec: Spec, as_of: datetime) -> pd.DataFrame:
    """Every answer known at `as_of` with its truth: arm, version (Int64), tier, score, prediction_time (of the spine
    row that it speaks for, NaT without one), night (date, of that row), is_matured, label (NaN where it has not come).
    """

    for table in (REQUEST, REQUEST_SHADOW):
        rails.lake.ensure(table)
    spine = rails.lake.relation(spec.prediction.spine, as_of, rails.published_snapshot())
    every = int(spec.prediction.every.total_seconds() * 1e6)
    sql = f"""
        with asked as (
            select request_id, "row", arm, version, tier, score, entity_id, prediction_time as asked_at
            from {{{REQUEST}}}
            where model = $model
            qualify row_number() over (partition by request_id, "row", entity_id, asked_at order by scored_at) = 1
        ),
        spine as (
            select distinct cast({spec.key} as varchar) as entity_id, prediction_time from {spine}
            where cast({spec.key} as varchar) in (select entity_id from asked)
        ),
        placed as (
            select asked.*,
                case when asked_at < spine.prediction_time + to_microseconds({every}) then spine.prediction_time end
                    as prediction_time
            from asked
            asof left join spine on asked.entity_id = spine.entity_id and asked.asked_at >= spine.prediction_time
        ),
        labels as (
            select cast({spec.key} as varchar) as entity_id, prediction_time, arg_max(label, available_at) as label
            from {truth.labels(rails, spec, as_of)}
            where cast({spec.key} as varchar) in (select entity_id from asked)
            group by all
        ),
        joined as (
            select placed.*, {spec.target.sql("labels.label")}::double as label,
                coalesce(placed.prediction_time < $cutoff, false) as is_matured
            from placed
            left join labels using (entity_id, prediction_time)
        ),
        shadow as (
            select request_id, "row", version, score from {lake.stored(REQUEST_SHADOW)}
            where model = $model and score is not null and isfinite(score)
            qualify row_number() over (partition by request_id, "row", version order by scored_at) = 1
        )
        select arm, version, tier, score, prediction_time, is_matured, label, asked_at from joined
        union all
        select '{SHADOW}', shadow.version, '{SHADOW}', shadow.score, prediction_time, is_matured, label, asked_at
        from joined join shadow using (request_id, "row")
        order by arm, version, tier, prediction_time, asked_at, score
    """
    frame = rails.lake.query(sql, as_of, {"model": spec.name, "cutoff": truth.cutoff(spec, as_of)})
    frame["version"] = frame["version"].astype("Int64")
    frame["prediction_time"] = pd.to_datetime(frame["prediction_time"], utc=True)
    frame["night"] = (frame["prediction_time"] + pd.Timedelta(days=1)).dt.date
    return frame.astype({"label": "float64", "score": "float64", "is_matured": "bool"})


def evaluate(spec: Spec, as_of: datetime, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of ops.online_evaluation from `outcomes`: every arm as a whole, then its versions and tiers."""
    since = night_closing(truth.cutoff(spec, as_of) - spec.drift.window + spec.prediction.every)
    found = []
    for arm, of_arm in rows.groupby("arm", sort=True):
        if arm != SHADOW:
            found.append(_figures(spec, of_arm, since) | {"arm": arm, "version": None, "tier": ALL})
        for (version, tier), part in of_arm.groupby(["version", "tier"], sort=True, dropna=False):
            number = None if pd.isna(version) else int(version)
            found.append(_figures(spec, part, since) | {"arm": arm, "version": number, "tier": tier})
    return [{"model": spec.name, "night": night_closing(as_of), "available_at": as_of, **one} for one in found]


def _figures(spec: Spec, rows: pd.DataFrame, since: date) -> dict[str, Any]:
    known = rows["label"].notna()
    matched = rows["prediction_time"].notna()
    inside = rows["is_matured"] & known & rows["score"].abs().lt(float("inf"))
    judged = rows[inside & (rows["night"].where(inside, date.min) >= since)]
    (measured,) = evaluation.evaluate(judged, target=spec.target)
    whole = asdict(measured)
    return {
        name: value for name, value in {**whole, **measured.figures}.items() if name in ONLINE_EVALUATION.columns
    } | {
        "requests": len(rows),
        "missing": int((rows["is_matured"] & ~known).sum()),
        "immature": int((matched & ~rows["is_matured"]).sum()),
        "early": int((matched & ~rows["is_matured"] & known).sum()),
        "unmatched": int((~matched).sum()),
    }


def report(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    """What the newest online evaluation up to a night says: arm → its rows, the whole of it first; empty without."""
    if not rails.lake.has(ONLINE_EVALUATION):
        return {}
    rows = rails.lake.query(
        f"""
        select * from {{{ONLINE_EVALUATION}}} where model = $model and night <= $night
        qualify night = max(night) over () order by arm, tier <> '{ALL}', version, tier
        """,
        as_of,
        {"model": spec.name, "night": night_closing(as_of)},
    )
    names = ("version", "tier", "requests", "matured", "missing", "immature", "early", "unmatched")
    names += (*spec.target.interval, "mean_score")
    arms: dict[str, Any] = {}
    for row in rows[["arm", *names]].to_dict("records"):
        known = {name: None if pd.isna(row[name]) else row[name] for name in names}
        version = None if known["version"] is None else int(known["version"])
        arms.setdefault(row["arm"], []).append(known | {"version": version})
    return arms
