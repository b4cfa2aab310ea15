"""How the answers given online turned out: per arm of the traffic, per version and per tier.

A request speaks for the spine row of its entity with the latest prediction time that is not after the request's own,
if that is less than a day ago: it shares that row's truth, under the same rule, whole matured cohorts
only. A request that speaks for no spine row (of an unknown entity, or of none) is counted as unmatched, and has no
outcome. A request that was sent again under its id, for the same entity and instant, counts once.

These figures are shown, never decided on: the gate decides by the scores of whole nights, where every version scored
the same rows. The entities that ask are not all there are; but the arms, which a stable hash of the entity splits, can
be compared with each other.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pandas as pd

from tiltyard import lake
from tiltyard.answered import request_log
from tiltyard.clock import NIGHT, night_closing
from tiltyard.prepare import frame as frames
from tiltyard.prepare import truth
from tiltyard.rails import Rails
from tiltyard.records import ArmFigures, JsonObject
from tiltyard.spec import Spec
from tiltyard.tables import ONLINE_EVALUATION, REQUEST, REQUEST_SHADOW
from tiltyard.target import MEASURES
from tiltyard.train import evaluation

ALL = "all"
"""Tier of the figures of a whole arm."""
SHADOW = "shadow"
"""Arm and tier of the scores that challengers gave to requests that other versions answered."""

_SHOWN = (
    *("version", "tier", "requests", "matured", "missing", "immature", "early", "unmatched", "mean_score"),
    *(name for kind in MEASURES.values() for name in (kind.measure, f"{kind.measure}_low", f"{kind.measure}_high")),
)
"""The columns that are shown."""

Arms = dict[str, tuple[ArmFigures, ...]]
"""Arm → its figures, those of the whole arm first."""


@dataclass(frozen=True)
class ArmOutcome:
    """How the answers of one arm, version and tier turned out up to a night."""

    arm: str
    """The arm of the traffic, or SHADOW."""
    version: int | None
    """The version that answered; None for the whole arm, and for the safe default."""
    tier: str
    """The tier that answered, or ALL."""
    requests: int
    """Number of requests."""
    missing: int
    """Number of matured rows without a label."""
    immature: int
    """Number of rows whose cohort has not matured."""
    early: int
    """Number of those whose label is known early."""
    unmatched: int
    """Number of requests that speak for no row of the spine."""
    evaluation: evaluation.Evaluation
    """Figures of the matured rows of the window."""

    def row(self, model: str, as_of: datetime) -> tuple[object, ...]:
        """The row of ops.online_evaluation, in the order of its columns."""
        figures = self.evaluation
        values: dict[str, object] = {
            **figures.figures,
            "model": model,
            "night": night_closing(as_of),
            "arm": self.arm,
            "version": self.version,
            "tier": self.tier,
            "requests": self.requests,
            "matured": figures.matured,
            "missing": self.missing,
            "immature": self.immature,
            "early": self.early,
            "unmatched": self.unmatched,
            "nights": figures.nights,
            "mean_score": figures.mean_score,
            "cohort_from": figures.cohort_from,
            "cohort_to": figures.cohort_to,
            "available_at": as_of,
        }
        return tuple(values.get(name) for name in ONLINE_EVALUATION.columns)


def record(rails: Rails, spec: Spec, as_of: datetime) -> Arms:
    """Write the night's online evaluation; twice is once. Returns what `report` gives; empty without a request."""
    if not rails.lake.has(REQUEST):
        return {}
    spec = rails.ledger.bounded(spec)
    rows = outcomes(rails, spec, as_of)
    if rows.empty:
        return {}
    night = night_closing(as_of)
    fence = rails.ledger.claim(f"online_evaluation/{spec.name}/{night}")
    rails.lake.ensure(ONLINE_EVALUATION)
    table = request_log.typed(
        [outcome.row(spec.name, as_of) for outcome in evaluate(spec, as_of, rows)], ONLINE_EVALUATION
    )
    partition = {"model": spec.name, "night": night}
    message = f"online evaluation {spec.name} {night}"
    rails.lake.replace(ONLINE_EVALUATION, partition, table, message=message, fence=fence)
    return report(rails, spec, as_of)


def outcomes(rails: Rails, spec: Spec, as_of: datetime) -> pd.DataFrame:
    """Every answer known at `as_of` with its truth, one row each.

    Columns: arm, version (Int64), tier, score, prediction_time and night (of the spine row that it speaks for, NaT and
    NaN without one), is_matured, label (NaN where it has not come).
    """
    for table in (REQUEST, REQUEST_SHADOW):
        rails.lake.ensure(table)
    spine = rails.lake.relation(spec.prediction.spine, as_of, rails.publication())
    cohort = frames.cohort(rails, spec, rails.publication())
    day = NIGHT // timedelta(microseconds=1)
    sql = f"""
        with asked as (
            select request_id, "row", arm, version, tier, score, entity_id, prediction_time as asked_at
            from {{{REQUEST}}}
            where model = $model
            qualify row_number() over (partition by request_id, "row", entity_id, asked_at order by scored_at) = 1
        ),
        spine as (
            select distinct cast({spec.key} as varchar) as entity_id, prediction_time, {cohort} as cohort from {spine}
            where cast({spec.key} as varchar) in (select entity_id from asked)
        ),
        placed as (
            select asked.*,
                case when asked_at < spine.prediction_time + to_microseconds({day}) then spine.prediction_time end
                    as prediction_time,
                spine.cohort
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
                coalesce(placed.prediction_time < $cutoff and placed.cohort <= $cutoff::date, false) as is_matured
            from placed
            left join labels using (entity_id, prediction_time)
        ),
        shadow as (
            select request_id, "row", version, score from {lake.stored(REQUEST_SHADOW)}
            where model = $model and score is not null and isfinite(score)
            qualify row_number() over (partition by request_id, "row", version order by scored_at) = 1
        )
        select arm, version, tier, score, prediction_time, is_matured, label, asked_at, cohort from joined
        union all
        select '{SHADOW}', shadow.version, '{SHADOW}', shadow.score, prediction_time, is_matured, label, asked_at,
            cohort
        from joined join shadow using (request_id, "row")
        order by arm, version, tier, prediction_time, asked_at, score
    """
    frame = rails.lake.query(sql, as_of, {"model": spec.name, "cutoff": truth.cutoff(spec, as_of)})
    frame["version"] = frame["version"].astype("Int64")
    frame["prediction_time"] = pd.to_datetime(frame["prediction_time"], utc=True)
    frame["night"] = pd.to_datetime(frame["cohort"]).where(frame["prediction_time"].notna()).dt.date
    return frame.astype({"label": "float64", "score": "float64", "is_matured": "bool"})


def evaluate(spec: Spec, as_of: datetime, rows: pd.DataFrame) -> list[ArmOutcome]:
    """The night's figures from `outcomes`: every arm as a whole, then its versions and tiers."""
    since = night_closing(truth.cutoff(spec, as_of) - spec.drift.window + NIGHT)
    result = []
    for arm, of_arm in rows.groupby("arm", sort=True):
        if arm != SHADOW:
            result.append(_outcome(spec, of_arm, since, str(arm), None, ALL))
        for _, part in of_arm.groupby(["version", "tier"], sort=True, dropna=False):
            version, tier = part["version"].iloc[0], str(part["tier"].iloc[0])
            number = None if pd.isna(version) else int(version)
            result.append(_outcome(spec, part, since, str(arm), number, tier))
    return result


def _outcome(spec: Spec, rows: pd.DataFrame, since: date, arm: str, version: int | None, tier: str) -> ArmOutcome:
    """Figures of `rows`; those that compare scores with labels are of nights from `since` on."""
    has_label = rows["label"].notna()
    is_matched = rows["prediction_time"].notna()
    counts = rows["is_matured"] & has_label & rows["score"].abs().lt(float("inf"))
    window = rows[counts & (rows["night"].where(counts, date.min) >= since)]
    (figures,) = evaluation.evaluate(window, target=spec.target)
    return ArmOutcome(
        arm=arm,
        version=version,
        tier=tier,
        requests=len(rows),
        missing=int((rows["is_matured"] & ~has_label).sum()),
        immature=int((is_matched & ~rows["is_matured"]).sum()),
        early=int((is_matched & ~rows["is_matured"] & has_label).sum()),
        unmatched=int((~is_matched).sum()),
        evaluation=figures,
    )


def report(rails: Rails, spec: Spec, as_of: datetime) -> Arms:
    """What the newest online evaluation up to a night says; empty without one."""
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
    arms: Arms = {}
    for row in rows.to_dict("records"):
        values = {name: None if pd.isna(row[name]) else row[name] for name in _SHOWN}
        figures = ArmFigures.of(values)
        arms[str(row["arm"])] = (*arms.get(str(row["arm"]), ()), figures)
    return arms


def as_json(arms: Arms) -> JsonObject:
    """The same as JSON has it."""
    return {arm: [figures.to_json() for figures in of_arm] for arm, of_arm in arms.items()}
