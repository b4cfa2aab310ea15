"""The truth, when it has come: predictions joined with labels, by whole cohorts only.

A cohort is a night. It is matured at `as_of` when even its last prediction has had `horizon + delay` to be judged.
Where the horizon goes until a column of the spine, a cohort is the rows that are decided on one day, whenever they were
predicted, named by the night that covers that day: `night` below. It is matured when that night is over and the delay
has passed. When a row is decided is known at its prediction, so that no outcome chooses who is in a cohort.

Labels that are known earlier are not a random sample (cancellations arrive before stays), so they are counted as early
and never decided on; a label that has not come although its cohort is matured is counted as missing, never taken for a
negative.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pandas as pd

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.rails import Rails
from tiltyard.records import LabelCounts
from tiltyard.spec import TRUSTED, Spec
from tiltyard.tables import LIGHT_SCORE, PREDICTION

MATURED = (
    "request_id", "version", "role", "entity_id", "prediction_time", "score", "tier", "slices", "night", "label",
)  # fmt: skip
"""The columns of `matured`."""
ORDINAL = "night - date '0001-01-01' + 1 as ordinal"
"""SQL of a row's night as a date ordinal: a year of dates as Python's takes longer than the query."""
KNOWN = "cast(known_at - interval 1 microsecond as date) + 1 - date '0001-01-01' + 1 as known"
"""SQL of the night that could first read a row's label, as a date ordinal."""
COHORT = "coalesce(cohort, night)"
"""SQL of the night that names the cohort of a prediction."""
MISSING = "missing"
"""The slice of a row whose slice column has no value."""


@dataclass(frozen=True)
class SliceCount:
    """How far the truth of one version's predictions is known, in one slice."""

    version: int | None
    """The version; None for the safe default."""
    slice: str
    """`all`, or `column=value`."""
    matured: int
    """Number of rows of matured cohorts that have a label."""
    missing: int
    """Number of rows of matured cohorts whose label never came."""
    immature: int
    """Number of rows whose cohort has not matured."""
    early: int
    """Number of the immature rows whose label is known already."""


@dataclass(frozen=True)
class Truth:
    """What became of one prediction."""

    label: float | bool | str
    """The label: a yes or no, a number as it is, within its bounds or not, or a text, one of the classes or not."""
    event_time: datetime
    """When it happened."""
    available_at: datetime
    """When it became known."""


def cutoff(spec: Spec, as_of: datetime) -> datetime:
    """Cohorts of days before this instant, a midnight, are matured at `as_of`: of days of predictions, or, where a
    column tells when each row is decided, of days on which rows are decided."""
    return clock.midnight((as_of - spec.label.lag).date())


def all_matured(spec: Spec, as_of: datetime) -> datetime:
    """Predictions before this instant, a midnight, have all matured at `as_of`, whichever cohorts they are of."""
    return clock.midnight((as_of - spec.label.longest).date())


def matured(
    rails: Rails,
    spec: Spec,
    as_of: datetime,
    versions: Collection[int | None] | None = None,
    since: date | None = None,
    columns: Sequence[str] = MATURED,
) -> pd.DataFrame:
    """Predictions of matured cohorts with their label as known at `as_of`, by cohort and prediction time.

    One row per version and spine row that has a label: request_id, version (Int64, missing for the safe default), role,
    entity_id, prediction_time, score (a number, or a distribution as Target.scores reads it), tier, slices, night,
    label (0 or 1; a number within its bounds; the place of a class); and, where they are asked for, as date
    ordinals `ordinal`, the night, and `known`, the night that could first read the label. `versions` may hold None
    for the safe default; `since` is the first cohort. Scores of the light twin are not its version's own and are
    left out, unless they were served and `versions` is None. `columns` names those that are wanted, where it is not
    all: of a year of rows, texts and dates take most of the time.
    """
    rails.lake.ensure(PREDICTION)
    score = f"{spec.target.stored} as score"
    sql = f"""
        with {_joined(rails, spec, as_of)}
        select {", ".join({"ordinal": ORDINAL, "known": KNOWN, "score": score}.get(name, name) for name in columns)}
        from joined
        where is_matured and label is not null and {_is_of(versions)}
        order by {"night, " if spec.label.until else ""}prediction_time, entity_id, version nulls first, tier
    """
    frame = rails.lake.query(sql, as_of, _params(spec, as_of, since))
    if "night" in columns:
        frame["night"] = pd.to_datetime(frame["night"]).dt.date
    kinds = {"version": "Int64", "label": spec.target.dtype, "score": spec.target.score_dtype}
    frame = frame.astype({name: kind for name, kind in kinds.items() if name in columns})
    if "score" in columns and spec.target.shape:  # a distribution over classes that the spec names no more is no score
        frame = frame[spec.target.is_scored(spec.target.scores(frame["score"]))].reset_index(drop=True)
    return frame


def counts(rails: Rails, spec: Spec, as_of: datetime, since: date | None = None) -> LabelCounts:
    """How far the truth of the spine rows that were scored is known, whoever scored them."""
    rails.lake.ensure(PREDICTION)
    sql = f"""
        with {_joined(rails, spec, as_of)},
        answered as (select distinct entity_id, prediction_time, label, is_matured, is_outside from joined)
        select
            count(*) filter (where is_matured and label is not null) as matured,
            count(*) filter (where is_matured and label is null) as missing,
            count(*) filter (where not is_matured) as immature,
            count(*) filter (where not is_matured and label is not null) as early,
            count(*) filter (where is_matured and is_outside) as outside
        from answered
    """
    row = rails.lake.query(sql, as_of, _params(spec, as_of, since)).iloc[0]
    names = ("matured", "missing", "immature", "early", *spec.target.more_counts)
    return LabelCounts(**{name: int(row[name]) for name in names})


def truth_of(rails: Rails, spec: Spec, entity_id: str, prediction_time: datetime, as_of: datetime) -> Truth | None:
    """The truth of one prediction as known at `as_of`; None before there is any."""
    sql = f"""
        select {spec.target.sql_told("label")} as label, event_time, available_at
        from {labels(rails, spec, as_of)}
        where cast({spec.key} as varchar) = $entity and prediction_time = $at and label is not null
        order by available_at desc limit 1
    """
    rows = rails.lake.query(sql, as_of, {"entity": str(entity_id), "at": prediction_time})
    if rows.empty:
        return None
    row = rows.iloc[0]
    return Truth(
        spec.target.plain(row["label"]), row["event_time"].to_pydatetime(), row["available_at"].to_pydatetime()
    )


def by_version(rails: Rails, spec: Spec, as_of: datetime, since: date | None = None) -> tuple[SliceCount, ...]:
    """Matured, missing, immature and early rows per version and declared slice, `all` first."""
    rails.lake.ensure(PREDICTION)
    columns = "".join(
        f", coalesce(json_extract_string(slices, '$.{name}'), 'missing') as slice_{name}" for name in spec.gate.slices
    )
    parts = [
        f"""
        select version, {name} as slice,
            count(*) filter (where is_matured and label is not null) as matured,
            count(*) filter (where is_matured and label is null) as missing,
            count(*) filter (where not is_matured) as immature,
            count(*) filter (where not is_matured and label is not null) as early
        from labelled group by all
        """
        for name in ("'all'", *(f"concat('{column}=', slice_{column})" for column in spec.gate.slices))
    ]
    sql = f"""
        with {_joined(rails, spec, as_of)},
        labelled as (select *{columns} from joined where tier != 'light')
        select * from ({" union all ".join(parts)})
        order by version nulls first, slice != 'all', slice
    """
    frame = rails.lake.query(sql, as_of, _params(spec, as_of, since))
    return tuple(
        SliceCount(
            version=None if pd.isna(row["version"]) else int(row["version"]),
            slice=row["slice"],
            matured=int(row["matured"]),
            missing=int(row["missing"]),
            immature=int(row["immature"]),
            early=int(row["early"]),
        )
        for row in frame.to_dict("records")
    )


def nights(rails: Rails, spec: Spec, as_of: datetime, since: date | None = None) -> dict[int, list[date]]:
    """Version → the nights on which it has scored, in order; with `since`, those from that night on."""
    rails.lake.ensure(PREDICTION)
    sql = f"""
        select distinct version, night from {{{PREDICTION}}}
        where model = $model and version is not null and tier != 'light'
            and ($since::date is null or night >= $since::date)
        order by night
    """
    nights_of: dict[int, list[date]] = {}
    for row in rails.lake.query(sql, as_of, {"model": spec.name, "since": since}).to_dict("records"):
        nights_of.setdefault(int(row["version"]), []).append(row["night"].date())
    return nights_of


def immature(rails: Rails, spec: Spec, as_of: datetime, versions: Collection[int | None] | None = None) -> pd.DataFrame:
    """Predictions whose cohort has not matured, without a label even where one is known: request_id, version (Int64),
    role, prediction_time, score, tier, night, in the order of prediction times. `versions` as in `matured`."""
    rails.lake.ensure(PREDICTION)
    sql = f"""
        select request_id, version, role, prediction_time, {spec.target.stored} as score, tier, {COHORT} as night
        from {{{PREDICTION}}}
        where model = $model and not (prediction_time < $cutoff and {COHORT} <= $cutoff::date) and {_is_of(versions)}
            and night >= $first::date -- no earlier night has such a row; said so that its files are not opened
        order by prediction_time, entity_id, version nulls first, tier
    """
    params = {"model": spec.name, "cutoff": cutoff(spec, as_of), "first": all_matured(spec, as_of)}
    frame = rails.lake.query(sql, as_of, params)
    frame["version"] = frame["version"].astype("Int64")
    frame["night"] = pd.to_datetime(frame["night"]).dt.date
    return frame.astype({"score": spec.target.score_dtype})


def with_slices(rows: pd.DataFrame, spec: Spec) -> pd.DataFrame:
    """`rows` with a column `slice_<name>` per declared slice, read from their JSON."""
    parsed = {text: json.loads(text) for text in rows["slices"].unique()}
    values = {
        f"slice_{name}": rows["slices"].map({text: row.get(name, MISSING) for text, row in parsed.items()})
        for name in spec.gate.slices
    }
    return rows.assign(**values)


def side_by_side(
    rails: Rails, spec: Spec, as_of: datetime, versions: Collection[int], since: date | None = None
) -> pd.DataFrame:
    """Every spine row that was scored, whoever scored it, with the scores of `versions` beside each other.

    In the order of prediction times: prediction_time, night (date ordinal), scored_on (date ordinal of the night that
    scored it: another one than the cohort's where a column tells when each row is decided), is_matured, is_early (the
    label is known and its cohort not matured), label (0 or 1, a number, or the place of a class; NaN unless matured: an
    early one is not to be had here), is_outside (the label lay beyond the bounds, or is no class), a column
    `v<version>` per version (for Target.scores; NaN where it gave no score), a column `slice_<name>` per declared
    slice, and TRUSTED where the spec says which labels are.
    """
    rails.lake.ensure(PREDICTION)
    scores = "".join(
        f", max({spec.target.stored}) filter (where version = {int(number)} and tier != 'light') as v{int(number)}"
        for number in versions
    )
    slices = "".join(
        f", coalesce(min(json_extract_string(slices, '$.{name}')), 'missing') as slice_{name}"
        for name in spec.gate.slices
    )
    held_out = f", bool_or(is_trusted) as {TRUSTED}" if spec.label.trusted else ""
    sql = f"""
        with {_joined(rails, spec, as_of)}
        select prediction_time, datediff('day', date '0001-01-01', min(night)) + 1 as night,
            datediff('day', date '0001-01-01', min(scored_on)) + 1 as scored_on,
            bool_or(is_matured) as is_matured,
            bool_or(not is_matured and label is not null) as is_early,
            max(label::double) filter (where is_matured) as label,
            bool_or(is_matured and is_outside) as is_outside{scores}{slices}{held_out}
        from joined
        group by entity_id, prediction_time
        order by prediction_time, entity_id
    """
    frame = rails.lake.query(sql, as_of, _params(spec, as_of, since))
    numbers = {"label": "float64", **{f"v{int(number)}": spec.target.score_dtype for number in versions}}
    flags = dict.fromkeys(("is_matured", "is_early", "is_outside"), "bool")
    return frame.astype({"night": "int64", "scored_on": "int64", **flags, **numbers})


def answered(rails: Rails, spec: Spec, as_of: datetime, since: date) -> pd.DataFrame:
    """What was answered on matured cohorts from `since` on, whoever answered, and what the champion's light twin would
    have said: night (date ordinal of the cohort), score, light (missing where it was not asked), label; by cohort and
    prediction time. Scores and labels are as in `matured`."""
    rails.lake.ensure(PREDICTION)
    rails.lake.ensure(LIGHT_SCORE)
    sql = f"""
        with {_joined(rails, spec, as_of)},
        twins as (
            select entity_id, prediction_time, {spec.target.stored} as light from {{{LIGHT_SCORE}}}
            where model = $model and night >= $scored_since::date
        )
        select {ORDINAL.removesuffix("as ordinal")} as night, {spec.target.stored} as score, light, label
        from joined left join twins using (entity_id, prediction_time)
        where is_matured and label is not null and tier != 'shadow'
        order by joined.night, prediction_time, entity_id
    """
    frame = rails.lake.query(sql, as_of, _params(spec, as_of, since))
    kinds = {"night": "int64", "score": spec.target.score_dtype, "light": spec.target.score_dtype}
    return frame.astype({**kinds, "label": "float64"})


def labels(rails: Rails, spec: Spec, as_of: datetime) -> str:
    """SQL of the label table as known at `as_of`, as it is in service: a table that is held brings no truth."""
    return rails.lake.relation(spec.label.table, as_of, rails.publication())


def trusted(rails: Rails, spec: Spec, relation: str) -> str:
    """SQL of whether a label is trusted, of a relation of the label table; false where the spec names none. Raises
    BadInput where the table does not have its column."""
    said = spec.label.trusted
    if said is None:
        return "false"
    if said.column not in rails.lake.columns(spec.label.table):
        raise BadInput(
            f"{spec.label.table} has no column {said.column}, by which label.trusted of {spec.name} tells its labels; "
            "add it in dbt, or mend the spec."
        )
    return said.sql(relation)


def _joined(rails: Rails, spec: Spec, as_of: datetime) -> str:
    """CTEs up to `joined`: the model's predictions with the newest known label, and whether the cohort is matured.

    `spec` names are checked identifiers (spec.py), the only ones that are pasted into SQL.
    """
    target = rails.ledger.bounded(spec).target
    return f"""
        predictions as (
            select * replace ({COHORT} as night), night as scored_on from {{{PREDICTION}}}
            where model = $model
                and ($since::date is null or night >= $scored_since::date and {COHORT} >= $since::date)
        ),
        labels as (
            select cast({spec.key} as varchar) as entity_id, prediction_time, arg_max(label, available_at) as label,
                max(available_at) as known_at, arg_max({trusted(rails, spec, "known")}, available_at) as is_trusted
            from {labels(rails, spec, as_of)} as known
            where $from::timestamptz is null or prediction_time >= $from::timestamptz
            group by all
        ),
        joined as (
            select
                predictions.*,
                {target.sql("labels.label")} as label,
                {target.sql_outside("labels.label")} as is_outside,
                labels.known_at, labels.is_trusted,
                predictions.prediction_time < $cutoff and predictions.night <= $cutoff::date as is_matured
            from predictions
            left join labels using (entity_id, prediction_time)
        )"""


def _params(spec: Spec, as_of: datetime, since: date | None) -> dict[str, object]:
    ahead = spec.label.horizon if spec.label.until else timedelta()  # that a row may be predicted before its cohort
    scored_since = (clock.midnight(since) - ahead).date() if since else None
    first = clock.midnight(scored_since) - clock.NIGHT if scored_since else None  # it predicts nothing earlier
    return {
        "model": spec.name,
        "since": since,
        "scored_since": scored_since,
        "from": first,
        "cutoff": cutoff(spec, as_of),
    }


def _is_of(versions: Collection[int | None] | None) -> str:
    """SQL of the condition that a prediction is one of these versions' own; without any, every row meets it."""
    if versions is None:
        return "true"
    numbers = ", ".join(str(int(number)) for number in versions if number is not None)
    parts = [f"version in ({numbers})"] if numbers else []
    if None in versions:
        parts.append("version is null")
    return f"tier != 'light' and ({' or '.join(parts) or 'false'})"
