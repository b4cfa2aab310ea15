"""What a person sees of a model: its state in one document, one prediction explained, the worth of retraining.

Everything is read at an `as_of` (by default the newest night that was scored), nothing from the clock.
"""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import JsonValue

from tiltyard import clock
from tiltyard.answered import arm, fallback_audit
from tiltyard.edge import recorded
from tiltyard.edge.document import (
    SAFE_DEFAULT,
    Document,
    ExplainedPrediction,
    FilledFeatures,
    NoNight,
    PredictionTruth,
    Realized,
    RealizedMeans,
    ServedBy,
)
from tiltyard.errors import BadInput, TiltyardError
from tiltyard.govern import governor, grants, look, routine
from tiltyard.govern.routine import NextRetrain
from tiltyard.judge import arrival, estimate, shadow
from tiltyard.pages import plots
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.prepare import embargo, frame, popular, source_figures, truth
from tiltyard.rails import Rails
from tiltyard.records import (
    EstimatedVersion,
    FeatureValue,
    JsonObject,
    MeasuredVersion,
    Publication,
)
from tiltyard.spec import Spec
from tiltyard.succession import Roles
from tiltyard.tables import ESTIMATE, EVALUATION, PREDICTION, Table
from tiltyard.train import profile

log = logging.getLogger(__name__)

DAY = timedelta(days=1)
LATELY = timedelta(days=7)
"""How far back the newest night of a version is looked for."""
LINES = ("promoted line", "never retrained", "safe default")
"""The lines of losses that are held against each other, as a picture names them."""


class WeeklyLoss(NamedTuple):
    """Mean loss of one line over the rows of a week; a row of the picture."""

    night: date
    """The Monday."""
    line: str
    """The line's name."""
    loss: float
    """Mean loss, in the unit of the model's measure."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of its 95 % interval."""
    n: int
    """Number of rows."""


@dataclass(frozen=True)
class RealizedLosses:
    """What retraining was worth."""

    overall: Realized | None = None
    """Means over all rows; None before anything has matured."""
    weekly: tuple[WeeklyLoss, ...] = ()
    """Means per week and line."""


def status(rails: Rails, spec: Spec, as_of: datetime | None = None) -> Document:
    """The model's document: roles, evidence, metrics, last decision, drift, freshness, checks, realized lines.

    Without `as_of` of the newest night of the model, and of its source's data as far as that is known: a model that
    waits for its tables would look well otherwise. What the pages show is the same, from the ledger alone (`recorded`).
    """
    told = recorded.status(rails, spec, as_of)
    if isinstance(told, NoNight):
        return told
    spec, as_of = rails.ledger.bounded(spec), told.as_of
    known = max(as_of.date(), told.checks.night or date.min) if told.checks else as_of.date()
    nights, counts = _shadow_nights(rails, spec, as_of), truth.counts(rails, spec, as_of)
    roles = rails.ledger.roles(spec.name, (as_of + clock.NIGHT).date())  # in force from the next night on
    return replace(
        told,
        shadow_nights={number: nights.get(number, 0) for number in told.challengers},
        served_by=_served(rails, spec, as_of),
        fallback=fallback_audit.report(rails, spec, as_of),
        popular=popular.items(rails, spec, as_of),
        matured=counts.matured,
        matured_since=None,
        immature=counts.immature,
        early=counts.early,
        outside=counts.outside,
        figures_night=None,
        metrics=_metrics(rails, spec, as_of),
        online=arm.report(rails, spec, as_of),
        freshness=source_figures.freshness(rails, spec.source, clock.midnight(known)),
        latency=embargo.report(rails, embargo.tables_of(rails, spec), as_of),
        label_arrival=arrival.report(rails, spec, as_of),
        estimated=_estimated(rails, spec, as_of),
        next_retrain=_next_retrain(rails, spec, as_of),
        features=_features(rails, spec, as_of, roles),
        realized=realized(rails, spec, as_of).overall,
    )


def status_or_reason(rails: Rails, spec: Spec, as_of: datetime | None = None) -> Document | str:
    """A model's `status`; or why there is none, as a sentence: what is wrong with one model hides no other."""
    try:
        return status(rails, spec, as_of)
    except TiltyardError as error:
        return str(error)
    except Exception as error:  # whatever it is, it is this model's; its text may hold what nobody else may read
        log.exception("The status of %s cannot be read.", spec.name)
        return f"The status of {spec.name} cannot be read: {type(error).__name__}; the log says where."


def realized(rails: Rails, spec: Spec, as_of: datetime) -> RealizedLosses:
    """The promoted line beside "never retrained" and the safe default, on the same rows with matured truth.

    The promoted line is what was served: the safe default until a challenger had earned its place. "Never retrained"
    is the first version, as if it had been put in service at once and left there.
    """
    spec, versions = rails.ledger.bounded(spec), rails.ledger.versions(spec.name)
    if not versions or not rails.lake.has(PREDICTION):
        return RealizedLosses()
    rows = truth.matured(rails, spec, as_of)
    keys = ["entity_id", "prediction_time"]
    first = rows[(rows["version"] == versions[0].version) & (rows["tier"] != "light")].set_index(keys)
    served = rows[rows["tier"] != "shadow"].set_index(keys)
    both = served[["score", "label"]].join(first[["score"]].rename(columns={"score": "first"}), how="inner")
    if both.empty:
        return RealizedLosses()
    label = both["label"].to_numpy(dtype="float64")
    target = spec.target
    default = target.constant(spec.fallback.safe_default, len(label))
    scores = (target.scores(both["score"]), target.scores(both["first"]), default)
    losses = pd.DataFrame(
        {line: target.row_losses(score, label) for line, score in zip(LINES, scores, strict=True)},
        index=both.index,
    ).reset_index()
    promotions = rails.ledger.promotions(spec.name, until=as_of.date())
    since = None
    if promotions:
        since = losses[losses["prediction_time"] >= pd.Timestamp(clock.midnight(promotions[0].night))]
    means = _means(losses)
    overall = Realized(
        rows=means.rows,
        promoted_line=means.promoted_line,
        never_retrained=means.never_retrained,
        safe_default=means.safe_default,
        metric=spec.target.measure,
        first=losses["prediction_time"].min().date(),
        last=losses["prediction_time"].max().date(),
        since_first_promotion=_means(since) if since is not None and len(since) else None,
    )
    return RealizedLosses(overall, _weekly(losses))


def estimated(rails: Rails, spec: Spec, as_of: datetime) -> tuple[WeeklyLoss, ...]:
    """The promoted line in the weeks whose truth has not come, as its scores promise: rows like those of `weekly`.

    Estimated, not measured (see `estimate`): shown, and nothing decides on it.
    """
    if spec.target.inestimable or not rails.lake.has(PREDICTION):
        return ()
    served = truth.immature(rails, spec, as_of)
    served = served[served["tier"] != "shadow"]
    if served.empty:
        return ()
    since = truth.cutoff(spec, as_of) - shadow.TEACHES * spec.drift.window
    matured = truth.matured(rails, spec, as_of, since=since.date())
    weeks = []
    for start, week in served.groupby(_week(served["prediction_time"])):
        parts = []
        for version, rows in week.groupby("version", dropna=False):
            is_own = matured["version"].isna() if pd.isna(version) else (matured["version"] == version).fillna(False)
            own = matured[is_own]
            scores = (part.to_numpy(dtype="float64") for part in (rows["score"], own["score"], own["label"]))
            parts.append(estimate.performance(*scores))
        number = sum(part.rows for part in parts)
        mean, low, high = (
            sum(getattr(part, name) * part.rows for part in parts) / number for name in ("brier", "low", "high")
        )
        weeks.append(WeeklyLoss(start.date(), plots.ESTIMATED, mean, low, high, number))
    return tuple(weeks)


def explain(rails: Rails, spec: Spec, request_id: str) -> ExplainedPrediction:
    """One prediction: what each feature said and since when, who answered from which snapshot, the truth if it came.

    Raises BadInput when no prediction of the model has this request_id.
    """
    newest = recorded.newest(rails, spec)
    predictions = (
        rails.lake.query(
            f"select * from {{{PREDICTION}}} where model = $model and request_id = $request",
            newest,
            {"model": spec.name, "request": request_id},
        )
        if newest and rails.lake.has(PREDICTION)
        else pd.DataFrame()
    )
    if newest is None or predictions.empty:
        raise BadInput(
            f"{spec.name} has no prediction '{request_id}'; request_ids are in ops.prediction, "
            f"and tiltyard status {spec.name} --json names one."
        )
    row = predictions.iloc[0]
    prediction_time = row["prediction_time"].to_pydatetime()
    publication = Publication.made_from(int(row["snapshot"]), row.get("apart") or None)
    label = truth.truth_of(rails, spec, row["entity_id"], prediction_time, newest)
    return ExplainedPrediction(
        model=spec.name,
        request_id=request_id,
        entity_id=row["entity_id"],
        prediction_time=prediction_time,
        night=date.fromisoformat(str(row["night"])[:10]),
        score=float(row["score"]),
        scores=json.loads(row["scores"]) if isinstance(row.get("scores"), str) else None,
        role=row["role"],
        version=None if pd.isna(row["version"]) else int(row["version"]),
        tier=row["tier"],
        tier_reason=row["tier_reason"] or None,
        snapshot=publication.snapshot,
        apart={table: state.snapshot for table, state in publication.tables.items()},
        features=_explained(rails, spec, row["entity_id"], prediction_time, publication),
        truth=PredictionTruth(label=label.label, event_time=label.event_time, available_at=label.available_at)
        if label
        else None,
    )


def _explained(
    rails: Rails, spec: Spec, entity_id: str, prediction_time: datetime, publication: Publication
) -> tuple[FeatureValue, ...]:
    """The inputs of a prediction, of the views that there was something of then."""
    return frame.feature_values(
        rails, frame.readable(rails, spec, publication), entity_id, prediction_time, publication
    )


def plot(rails: Rails, spec: Spec, as_of: datetime) -> Path | None:
    """Draw `realized` with `estimated`, and beside it latency and label arrival, as PNG under reports/.

    None when there is nothing to draw yet.
    """
    weekly = realized(rails, spec, as_of).weekly
    arrival.plot(rails, spec, as_of)
    if not weekly:
        return None
    weekly += estimated(rails, spec, as_of)
    path = rails.settings.reports / "realized" / f"{spec.name}.png"
    marks = [entry.night for entry in rails.ledger.promotions(spec.name, until=as_of.date())]
    embargo.plot(rails, spec.name, embargo.tables_of(rails, spec), as_of)
    plots.realized(
        pd.DataFrame(weekly, columns=list(WeeklyLoss._fields)),
        path,
        title=spec.name,
        promotions=marks,
        measure=spec.target.measure,
    )
    return path


# -- parts ----------------------------------------------------------------------------------------------------


def _shadow_nights(rails: Rails, spec: Spec, as_of: datetime) -> dict[int, int]:
    if not rails.lake.has(PREDICTION):
        return {}
    rows = rails.lake.query(
        f"select version, count(distinct night) as nights from {{{PREDICTION}}} "
        "where model = $model and version is not null group by version",
        as_of,
        {"model": spec.name},
    )
    return {int(version): int(nights) for version, nights in zip(rows["version"], rows["nights"], strict=True)}


def _served(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, ServedBy]:
    """Answers of the night per tier, and one request_id to explain."""
    if not rails.lake.has(PREDICTION):
        return {}
    rows = rails.lake.query(
        f"select tier, count(*) as answers, min(request_id) as example from {{{PREDICTION}}} "
        "where model = $model and night = $night and tier <> 'shadow' group by tier order by tier",
        as_of,
        {"model": spec.name, "night": as_of.date()},
    )
    return {
        str(tier): ServedBy(answers=int(answers), example=str(example))
        for tier, answers, example in zip(rows["tier"], rows["answers"], rows["example"], strict=True)
    }


def _of_night(rails: Rails, table: Table, spec: Spec, as_of: datetime, where: str = "true") -> pd.DataFrame:
    """The model's rows of a night, by version; none where the table is not there yet."""
    if not rails.lake.has(table):
        return pd.DataFrame()
    return rails.lake.query(
        f"select * from {{{table}}} where model = $model and night = $night and {where} order by version",
        as_of,
        {"model": spec.name, "night": as_of.date()},
    )


def _metrics(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, MeasuredVersion]:
    rows = _of_night(rails, EVALUATION, spec, as_of, "slice = 'all'")
    shown = ("role", "matured", "immature", "early", *spec.target.interval, *spec.target.status_figures)
    return {_name(row): MeasuredVersion.of(_cells(row, shown)) for _, row in rows.iterrows()}


def _next_retrain(rails: Rails, spec: Spec, as_of: datetime) -> NextRetrain | None:
    """When a retrain is due by the spec's own rules, after what this night granted."""
    if not spec.retrain.is_given:
        return None
    following = as_of.date() + DAY
    past = grants.past(rails, spec.name, following)
    cooldown = governor.cooling(past, following, spec.drift, load_portfolio(rails.settings.models).trainings)
    return routine.upcoming(spec.retrain, look.since_training(rails, spec, as_of, before=following), *(cooldown or ()))


def _features(rails: Rails, spec: Spec, as_of: datetime, roles: Roles) -> FilledFeatures | None:
    """How far the features of the champion have values, or of the newest challenger where there is none: what the
    shadow stage counted of its newest night, in the version's own cells."""
    number = roles.champion if roles.champion is not None else max(roles.challengers, default=None)
    version = None if number is None else rails.ledger.version(spec.name, number)
    if version is None or not version.facts.filled:
        return None
    lately = look.profiles(rails, spec, as_of, version.version, (as_of - LATELY).date())
    newest = {name: counts[-1] for name, counts in lately.counts.items()} if len(lately.nights) else {}
    shares = {name: float(profile.filled(counts)) for name, counts in newest.items() if counts.sum()}
    return FilledFeatures(
        version=version.version,
        night=date.fromordinal(int(lately.nights[-1])) if newest else None,
        features=tuple(replace(feature, now=shares.get(feature.feature)) for feature in version.facts.filled),
    )


def _means(losses: pd.DataFrame) -> RealizedMeans:
    promoted, never, default = (round(float(losses[line].mean()), 5) for line in LINES)
    return RealizedMeans(rows=len(losses), promoted_line=promoted, never_retrained=never, safe_default=default)


def _weekly(losses: pd.DataFrame) -> tuple[WeeklyLoss, ...]:
    """Mean per cohort week with a normal interval (1.96 standard errors)."""
    weeks = []
    for start, group in losses.groupby(_week(losses["prediction_time"])):
        for line in LINES:
            loss = group[line].to_numpy(dtype=np.float64)
            mean = float(loss.mean())
            error = 1.96 * float(loss.std(ddof=1)) / math.sqrt(len(loss)) if len(loss) > 1 else 0.0
            weeks.append(WeeklyLoss(start.date(), line, mean, mean - error, mean + error, len(loss)))
    return tuple(weeks)


def _week(times: "pd.Series[pd.Timestamp]") -> "pd.Series[pd.Timestamp]":
    """The Monday of the week of each instant."""
    return times.dt.tz_convert("UTC").dt.tz_localize(None).dt.to_period("W-SUN").dt.start_time


def _estimated(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, EstimatedVersion]:
    """Version → what its scores promise of the rows whose cohort has not matured, as the shadow stage wrote it."""
    rows = _of_night(rails, ESTIMATE, spec, as_of)
    shown = [field.name for field in fields(EstimatedVersion)]
    return {_name(row): EstimatedVersion.from_json(_cells(row, shown)) for _, row in rows.iterrows()}


def _name(row: "pd.Series[Any]") -> str:
    """The version of a row of figures, as the document names it."""
    return SAFE_DEFAULT if pd.isna(row["version"]) else str(int(row["version"]))


def _cells(row: "pd.Series[Any]", names: Sequence[str]) -> JsonObject:
    """The cells of a row under these names, as JSON has them; what is missing is None."""
    return {name: None if pd.isna(row[name]) else _plain(row[name]) for name in names}


def _plain(cell: Any) -> JsonValue:
    value: JsonValue = cell.item() if hasattr(cell, "item") else cell
    return value
