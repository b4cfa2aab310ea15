"""The shadow stage: score the night, attach the truth that has matured, evaluate every version on it.

Challengers score the same rows as the champion, unseen. What the night's evaluation stands on is the last
`drift.window` of matured cohorts; how many rows wait for their cohort is written beside it, and how good their scores
are *estimated* to be, which nothing decides on. Whether the truth still comes is judged here as well.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard import clock, lake, operating
from tiltyard.answered import arm, request_log
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.judge import arrival, estimate, label_check, scoring
from tiltyard.judge.night_figures import EvaluatedFigures
from tiltyard.online import check
from tiltyard.prepare import truth
from tiltyard.rails import Rails, recording_its_end, records_its_end
from tiltyard.records import AnsweredHour, EstimatedVersion, MeasuredVersion, ShadowSummary, VersionFigures
from tiltyard.spec import Spec
from tiltyard.stages import StageName
from tiltyard.tables import ESTIMATE, EVALUATION, PREDICTION, Table
from tiltyard.train import evaluation

STAGE: StageName = "shadow"
SAFE_DEFAULT = "safe_default"
ASKED_AGAIN = timedelta(days=7)
"""How far back rows of the spine without an answer are counted."""
TEACHES = 4
"""The map is learned from so many drift.windows of matured cohorts, the newest."""

Row = dict[str, object]
"""A row of a table of the lake: column → value."""


def shadow_night(rails: Rails, spec: Spec, as_of: datetime) -> ShadowSummary:
    """Score and evaluate one night; twice is once."""
    return close(rails, spec, score(rails, spec, as_of), evaluate(rails, spec, as_of))


def require_hour(spec: Spec, as_of: datetime) -> None:
    """Raises BadInput where `as_of` is no hour at which rows of a model are answered."""
    every = spec.prediction.every
    if not spec.prediction.is_hourly:
        raise BadInput(
            f"{spec.name} is answered as its night closes (prediction.every is {clock.format_duration(every)}) and has "
            f"no hours; name a night, like {clock.night_of(as_of)}."
        )
    if clock.floor(as_of, every) != as_of:
        raise BadInput(
            f"{spec.name} is answered every {clock.format_duration(every)}, and not at {as_of:%H:%M} UTC; name an hour "
            f"like {clock.floor(as_of, every):%Y-%m-%dT%H:%MZ}."
        )


def answer_hour(rails: Rails, spec: Spec, as_of: datetime) -> AnsweredHour:
    """Answer the rows of one hour that have no answer; twice is once. See scoring.score_hour.

    Nothing is evaluated: that is the night's. What ends it is an event. Raises BadInput where it is no hour of the
    model.
    """
    require_hour(spec, as_of)
    with recording_its_end(rails, STAGE, as_of, spec.name):
        hour = scoring.score_hour(rails, rails.ledger.bounded(spec), as_of)
    rails.ledger.record_hour("model", [spec.name], as_of, hour.snapshot)
    return hour


def close(rails: Rails, spec: Spec, scored: ShadowSummary, evaluated: ShadowSummary) -> ShadowSummary:
    """Record the night as done, with what `score` and `evaluate` say of it."""
    summary = replace(
        scored,
        counts=evaluated.counts,
        metrics=evaluated.metrics,
        default_loss=evaluated.default_loss,
        arrival=evaluated.arrival,
        unanswered=evaluated.unanswered,
        online=evaluated.online,
        lookups=evaluated.lookups,
        labels=evaluated.labels,
    )
    assert summary.night is not None  # `score` names it
    rails.ledger.record_stage(spec.name, summary.night, "done", summary)
    return summary


@records_its_end(STAGE)
def score(rails: Rails, spec: Spec, as_of: datetime) -> ShadowSummary:
    """Score the night with every version that has a role. See scoring.score_night."""
    return scoring.score_night(rails, spec, as_of)


@records_its_end(STAGE)
def evaluate(rails: Rails, spec: Spec, as_of: datetime) -> ShadowSummary:
    """Write the night's evaluation of every version that has a role in it, and of the safe default.

    The summary says nothing of who scored.
    """
    night = night_closing(as_of)
    fence = rails.ledger.claim(f"evaluation/{spec.name}/{night}")
    rails.lake.ensure(EVALUATION)
    scored = rails.ledger.roles(spec.name, night).scored
    roles: dict[int | None, str] = {None: SAFE_DEFAULT} | {number: scored[number] for number in scored}
    since = window_since(spec, as_of)
    versions = tuple(roles)
    taught = truth.matured(rails, spec, as_of, versions=versions, since=since - (TEACHES - 1) * spec.drift.window)
    rows = evaluations(rails, spec, as_of, roles, taught[taught["night"] >= since], since)
    estimated = estimates(spec, as_of, roles, taught, truth.immature(rails, spec, as_of, versions=versions))
    rails.lake.ensure(ESTIMATE)

    def write(connection: duckdb.DuckDBPyConnection) -> None:
        for table, written in ((EVALUATION, rows), (ESTIMATE, estimated)):
            lake.put(connection, table, {"model": spec.name, "night": night}, _typed(written, table))

    rails.lake.commit(write, message=f"evaluation {spec.name} {night}", fence=fence)
    request_log.deliver(rails)
    online, lookups = arm.record(rails, spec, as_of), check.check_lookups(rails, spec, as_of)
    arrived, labels = arrival.record(rails, spec, as_of), label_check.record(rails, spec, as_of)
    rails.ledger.chronicle.keep("model", spec.name, night, _kept(spec, rows, estimated, arrived.report))
    return ShadowSummary(
        night=night,
        counts=truth.counts(rails, spec, as_of, since),
        metrics={_name(row["version"]): _figures(spec, row) for row in rows if row["slice"] == evaluation.ALL},
        default_loss=_default_loss(spec, taught[taught["night"] >= since], roles),
        arrival=arrived.streams,
        unanswered=unanswered(rails, spec, as_of),
        online=online,
        lookups=lookups,
        labels=labels,
    )


def window_since(spec: Spec, as_of: datetime) -> date:
    """The first night of the cohorts that an evaluation stands on."""
    return night_closing(truth.cutoff(spec, as_of) - spec.drift.window + clock.NIGHT)


def _default_loss(spec: Spec, matured: pd.DataFrame, roles: Mapping[int | None, str]) -> float | None:
    """What the safe default loses on the champion's rows among `matured`, from truth.matured."""
    champion = next((number for number, role in roles.items() if role == "champion"), None)
    labels = matured.loc[matured["version"] == (champion or 0), "label"].to_numpy(dtype="float64")
    if not len(labels):
        return None
    return float(spec.target.row_losses(spec.target.constant(spec.fallback.safe_default, len(labels)), labels).mean())


def evaluations(
    rails: Rails, spec: Spec, as_of: datetime, roles: Mapping[int | None, str], matured: pd.DataFrame, since: date
) -> list[Row]:
    """Rows of ops.evaluation: version → role, `matured` from truth.matured, of the last drift.window of cohorts, whose
    first night is `since`."""
    counts = {(count.version, count.slice): count for count in truth.by_version(rails, spec, as_of, since)}
    written: list[Row] = []
    for version, role in roles.items():
        if version is None and (None, evaluation.ALL) not in counts:
            continue
        own = matured[matured["version"].isna() if version is None else matured["version"] == version]
        for measured in evaluation.evaluate(truth.with_slices(own, spec), spec.gate.slices, target=spec.target):
            count = counts.get((version, measured.slice))
            figures = {**asdict(measured), **measured.figures}
            row: Row = {name: value for name, value in figures.items() if name in EVALUATION.columns}
            row |= {"model": spec.name, "night": night_closing(as_of), "version": version, "role": role}
            row |= {
                "missing": count.missing if count else 0,
                "immature": count.immature if count else 0,
                "early": count.early if count else 0,
                "available_at": as_of,
            }
            written.append(row)
    return written


def unanswered(rails: Rails, spec: Spec, as_of: datetime) -> dict[date, int]:
    """Night of the last week → rows of the spine, as known at `as_of`, that nobody has answered; none of those before
    the first night of the week that was scored or on which the model was there, or on which it was retired, and without
    the nights on which all were.

    They became known after their night had been scored, or their night never was.
    """
    night = night_closing(as_of)
    scored = [
        day
        for day, end in rails.ledger.ends(STAGE, {spec.name: night_closing(as_of - ASKED_AGAIN)})[spec.name].items()
        if end.status == "done" and day <= night
    ]
    first = max(min(scored, default=night), rails.ledger.first_nights([spec.name]).get(spec.name, date.min))
    spine = rails.lake.relation(spec.prediction.spine, as_of, rails.publication())
    sql = f"""
        select cast((asked.prediction_time + interval 1 day) at time zone 'UTC' as date) as night, count(*) as rows
        from (
            select distinct cast("{spec.key}" as varchar) as entity_id, prediction_time from {spine}
            where prediction_time >= $since and prediction_time < $until
        ) as asked
        anti join (
            select entity_id, prediction_time from {{{PREDICTION.name}}}
            where model = $model and night >= $first and tier <> '{scoring.SHADOW}'
        ) as answered using (entity_id, prediction_time)
        group by all order by all
    """
    since, _ = clock.interval(clock.midnight(first))
    params = {"model": spec.name, "first": first, "since": since, "until": as_of}
    rows = rails.lake.query(sql, as_of, params)
    operations = rails.ledger.operations.of([spec.name])[spec.name]
    counts = {pd.Timestamp(day).date(): int(count) for day, count in zip(rows["night"], rows["rows"], strict=True)}
    return {day: count for day, count in counts.items() if operating.standing(operations, day).retired is None}


def estimates(
    spec: Spec,
    as_of: datetime,
    roles: Mapping[int | None, str],
    taught: pd.DataFrame,
    immature: pd.DataFrame,
) -> list[Row]:
    """Rows of ops.estimate: version → role, `taught` from truth.matured, `immature` from truth.immature.

    None of a label whose performance no score can tell (target.inestimable).
    """
    written: list[Row] = []
    if spec.target.inestimable:
        return written
    for version, role in roles.items():
        rows, teaching = (
            frame[frame["version"].isna() if version is None else frame["version"] == version]
            for frame in (immature, taught)
        )
        if rows.empty:
            continue
        performance = estimate.performance(
            _numbers(rows["score"]), _numbers(teaching["score"]), _numbers(teaching["label"])
        )
        figures = asdict(performance)
        written.append(
            {
                "model": spec.name,
                "night": night_closing(as_of),
                "version": version,
                "role": role,
                "is_calibrated": figures.pop("calibrated"),
                "brier_low": figures.pop("low"),
                "brier_high": figures.pop("high"),
                **figures,
                "cohort_from": rows["prediction_time"].min(),
                "cohort_to": rows["prediction_time"].max(),
                "available_at": as_of,
            }
        )
    return written


def _figures(spec: Spec, row: Row) -> VersionFigures:
    """What the summary keeps of a version's row."""
    shown = ("role", "matured", "immature", "early", *spec.target.interval, *spec.target.headline)
    return VersionFigures.of({name: row[name] for name in shown})


def _kept(spec: Spec, rows: list[Row], estimated: list[Row], arrived: arrival.ArrivalReport | None) -> EvaluatedFigures:
    """What the pages show of the evaluation; `rows` and `estimated` are those of the tables."""
    metrics: dict[str, MeasuredVersion] = {}
    slices: dict[str, dict[str, MeasuredVersion]] = {}
    shown = ("role", "matured", "immature", "early", *spec.target.interval, *spec.target.status_figures)
    for row in rows:
        figures, version = MeasuredVersion.of({name: row.get(name) for name in shown}), _name(row["version"])
        if row["slice"] == evaluation.ALL:
            metrics[version] = figures
        else:
            slices.setdefault(version, {})[str(row["slice"])] = figures
    promised = {_name(row["version"]): EstimatedVersion.from_json(row) for row in estimated}
    return EvaluatedFigures(metrics=metrics, slices=slices, estimated=promised, label_arrival=arrived)


def _name(version: object) -> str:
    return SAFE_DEFAULT if version is None else str(version)


def _numbers(column: "pd.Series[float]") -> NDArray[np.float64]:
    return np.asarray(column, dtype=np.float64)


def _typed(rows: list[Row], table: Table) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(table.columns)).astype({"version": "Int32"})
    for column, kind in table.columns.items():
        if kind == "double":
            frame[column] = frame[column].astype("float64")
        elif kind == "timestamptz":
            frame[column] = pd.to_datetime(frame[column], utc=True)
    return frame
