"""Scores one night: champion, previous, first and every challenger on the same rows, written at once.

Every version gives one row per spine row. The one that was served says in `tier` who answered; the others
say `shadow`. When the champion's files are refused, or it has no number for a row, the next declared tier answers
and `tier_reason` says why (fallback.py); without a champion it is the safe default. A night never goes dark.

Of a model that is answered by the hour the hours score what they can, and the night what they have left; a row that an
hour has answered stays as it was answered.

A feature view that is not good on the night is read as it was on its last good one, and `apart` says so. A row for
which that has nothing within `max_feature_age` gets no score of a version that reads the view, and a view that there is
nothing of yet (it was never good, or no night was built since the spec names it) keeps none of those from answering
that were trained without it. A spine that is not good has no rows of the night: it is scored when it has.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard import clock, lake
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput, Stopped
from tiltyard.fence import Fence
from tiltyard.judge.night_figures import ScoredFigures
from tiltyard.prepare import frame
from tiltyard.prepare.truth import MISSING
from tiltyard.rails import Rails
from tiltyard.records import AnsweredHour, Publication, ShadowSummary, TableState
from tiltyard.serve import fallback
from tiltyard.spec import DECIDED, Role, Spec
from tiltyard.succession import Roles
from tiltyard.tables import LIGHT_SCORE, PREDICTION, PROFILE
from tiltyard.target import YES_OR_NO, Target
from tiltyard.train import profile, registry
from tiltyard.train.scorer import Scorer

log = logging.getLogger(__name__)

SHADOW = "shadow"

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """What one version gave: `values`, (rows, *shape) with NaN where it has no score, and the outcome of such a row."""

    version: int
    values: Floats
    outcome: fallback.TierOutcome
    error: str | None = None


@dataclass(frozen=True)
class Gaps:
    """What a night's rows lack of the feature views that are not good."""

    rows: Mapping[str, Bools]
    """View that is not good, and can be read → whether it has nothing for a row, (rows,)."""
    view_of: Mapping[str, str]
    """Column → its view, of those that can be read."""
    unread: bool
    """Whether there is a view that cannot be read at all."""

    def of(self, version: Scorer, count: int) -> Bools:
        """Whether a version lacks a view that it reads, for each of `count` rows."""
        columns = version.features
        if self.unread and not self.view_of.keys() >= set(columns):
            return np.ones(count, dtype=bool)
        views = {self.view_of[name] for name in columns if name in self.view_of}
        lacks = [self.rows[view] for view in sorted(views & self.rows.keys())]
        return np.logical_or.reduce(lacks) if lacks else np.zeros(count, dtype=bool)


NO_GAPS = Gaps({}, {}, unread=False)


@dataclass(frozen=True)
class _Scored:
    """What a night or an hour has scored."""

    rows: pd.DataFrame
    """The rows of the spine in its interval, with their features."""
    answered: Bools
    """Whether a row was answered before, (rows,)."""
    kept: pd.DataFrame
    """The predictions before, of the whole night."""
    predictions: pd.DataFrame
    """Predictions of the rows that were not answered."""
    stale: Mapping[int, Bools]
    """Version → whether it lacks a view that it reads, of each of these."""
    roles: Roles
    """Who scores."""
    failed: Mapping[str, str]
    """Version → why it did not score."""
    publication: Publication
    """What they were made from."""
    unpublished: tuple[TableState, ...]
    """The tables that were not good."""
    fence: Fence
    """The claim on the night."""


def score_night(rails: Rails, spec: Spec, as_of: datetime) -> ShadowSummary:
    """Score the spine rows of the night that closes at `as_of` and replace the night's predictions. What hours of it
    have answered stays.

    Raises Fenced when a newer attempt at the same night has begun, BadInput when no features are published, Stopped
    when the spine's rows of the night are not.
    """
    night = night_closing(as_of)
    scored = _scored(rails, spec, as_of, clock.interval(as_of), before=as_of)
    of_night = pd.concat([part for part in (scored.kept, scored.predictions) if len(part)] or [scored.predictions])
    profiles = _profiles(rails, spec, scored, of_night).assign(night=night, available_at=as_of)
    light = _light_scores(rails, spec, scored)

    def write(connection: Any) -> None:
        own = {"model": spec.name, "night": night}
        if light is not None:
            rows = light.assign(night=night, available_at=as_of)
            lake.put(connection, LIGHT_SCORE, own, rows[list(LIGHT_SCORE.columns)])
        lake.put(connection, PREDICTION, {**own, "available_at": as_of}, scored.predictions[list(PREDICTION.columns)])
        lake.put(connection, PROFILE, own, profiles[list(PROFILE.columns)])

    rails.lake.commit(write, message=f"shadow {spec.name} {night}", fence=scored.fence)
    served = of_night[of_night["tier"] != SHADOW]
    rails.ledger.chronicle.keep("model", spec.name, night, _kept(served, profiles))
    return ShadowSummary(
        night=night,
        rows=len(scored.rows),
        snapshot=scored.publication.snapshot,
        unpublished=scored.unpublished,
        roles=scored.roles.scored,
        tiers=_counted(served["tier"]),
        reasons=_counted(served["tier_reason"]),
        failed=dict(scored.failed),
        note=None if len(scored.rows) else "The spine has no rows in this night; there was nothing to score.",
    )


def score_hour(rails: Rails, spec: Spec, as_of: datetime) -> AnsweredHour:
    """Score the spine rows of the hour that ends at `as_of` which nobody has answered, into the night that covers them.
    Twice is once.

    Raises Fenced when a newer attempt at the same night has begun, BadInput when no features are published, Stopped
    when the spine's rows of the hour are not.
    """
    night = clock.night_of(as_of)
    scored = _scored(rails, spec, as_of, clock.interval(as_of, spec.prediction.every))
    if len(scored.predictions):
        rows = scored.predictions[list(PREDICTION.columns)]
        rails.lake.commit(
            lambda connection: lake.put(connection, PREDICTION, {}, rows),
            message=f"shadow {spec.name} {as_of:%Y-%m-%dT%H:%MZ}",
            fence=scored.fence,
        )
    served = scored.predictions[scored.predictions["tier"] != SHADOW]
    return AnsweredHour(
        as_of=as_of,
        night=night,
        rows=len(scored.rows),
        answered=len(served),
        snapshot=scored.publication.snapshot,
        unpublished=scored.unpublished,
        tiers=_counted(served["tier"]),
        failed=dict(scored.failed),
    )


def predictions_of(rails: Rails, model: str, night: date, before: datetime | None = None) -> pd.DataFrame:
    """The predictions of a night, the shadows among them; those that its hours made before an instant."""
    until = "" if before is None else "and available_at < $before"
    return rails.lake.connection.execute(
        f"select * from {lake.identifier(PREDICTION)} where model = $model and night = $night {until}",
        {"model": model, "night": night, **({} if before is None else {"before": before})},
    ).df()


def _scored(
    rails: Rails, spec: Spec, as_of: datetime, interval: tuple[datetime, datetime], before: datetime | None = None
) -> _Scored:
    """Score the spine rows of an interval of a night that were not answered; with `before`, not by an hour before it.
    The claim comes first: what an attempt before this one has answered is in sight."""
    night = clock.night_of(as_of)
    whole, tables = rails.publication(), (spec.prediction.spine, *spec.prediction.features)
    publication = whole.part(tables)
    if waits := waits_for(publication, spec, as_of):
        raise Stopped(
            f"{spec.name} has no rows of {night}: {waits}. They are scored on the next night on which it is published.",
            unpublished=[state.to_json() for state in publication.unpublished(publication.tables)],
        )
    read = frame.readable(rails, spec, whole)
    publication = whole.without(set(tables[1:]) - set(read.prediction.features), night).part(tables)
    fence = rails.ledger.claim(f"shadow/{spec.name}/{night}")
    rails.lake.ensure(PREDICTION)
    rails.lake.ensure(PROFILE)
    unpublished = publication.unpublished(publication.tables)
    roles = rails.ledger.roles(spec.name, night)
    rows = frame.build(rails, read, *interval, as_of, publication)
    if read is not spec:  # a slice may be a column of a view that cannot be read
        rows = rows.assign(**{name: None for name in spec.gate.slices if name not in rows})
    lacking = {
        state.table: rows[f"{state.table}__event_time"].isna().to_numpy()
        for state in unpublished
        if state.table in read.prediction.features
    }
    view_of = {feature.name: feature.view for feature in frame.features(rails, read, publication)}
    kept = predictions_of(rails, spec.name, night, before)
    answered = _is_answered(spec, rows, kept)
    lacking = {view: mask[~answered] for view, mask in lacking.items()}
    gaps = Gaps(lacking, view_of, unread=read is not spec)
    predictions, failed, stale = predict(rails, spec, roles, rows[~answered].reset_index(drop=True), gaps)
    for name, reason in failed.items():
        rails.ledger.add_event("version_did_not_score", spec.name, night, {"version": name, "reason": reason})
    predictions = predictions.assign(
        snapshot=publication.snapshot,
        apart=publication.apart,
        night=night,
        available_at=as_of,
        scored_at=clock.now(),
    )
    return _Scored(rows, answered, kept, predictions, stale, roles, failed, publication, unpublished, fence)


def _is_answered(spec: Spec, rows: pd.DataFrame, predictions: pd.DataFrame) -> Bools:
    """Whether each row has an answer among the predictions."""
    if predictions.empty:
        return np.zeros(len(rows), dtype=bool)
    served = predictions[predictions["tier"] != SHADOW]
    return _keys(rows[spec.key], rows["prediction_time"]).isin(_keys(served["entity_id"], served["prediction_time"]))


def _keys(entity: "pd.Series[Any]", prediction_time: "pd.Series[Any]") -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([entity.astype(str), pd.to_datetime(prediction_time, utc=True)])


def waits_for(publication: Publication, spec: Spec, as_of: datetime) -> str | None:
    """Why the spine has no rows of the night that closes at `as_of` yet, as a sentence; None where it has them."""
    state = publication.state(spec.prediction.spine)
    if state is None or state.is_published or (state.until is not None and state.until >= as_of):
        return None
    return str(state)


def predict(
    rails: Rails, spec: Spec, roles: Roles, rows: pd.DataFrame, gaps: Gaps = NO_GAPS
) -> tuple[pd.DataFrame, dict[str, str], dict[int, Bools]]:
    """Predictions of every version on `rows`; version → reason for those that failed; and version → whether it lacks a
    view that it reads, for each row: it has no score there.

    Raises BadInput when a declared slice is no column of the rows.
    """
    absent = [name for name in spec.gate.slices if name not in rows]
    if absent:
        raise BadInput(
            f"{spec.name}: gate.slices names '{absent[0]}', which no feature view has; "
            f"mend models/{spec.name}/spec.yaml."
        )
    scorers, failed = _load(rails, spec, roles)
    stale = {number: gaps.of(scorer, len(rows)) for number, scorer in scorers.items()}
    scores = {
        number: _fresh(scorers.get(number), rows, stale.get(number), number, spec.target) for number in roles.scored
    }
    failed |= {str(number): score.error for number, score in scores.items() if score.error}
    tier, reason, light = _serve(spec, roles, rows, stale, scores, scorers)
    base = pd.DataFrame(
        {
            "entity_id": rows[spec.key].astype(str),
            "prediction_time": rows["prediction_time"],
            "slices": _slices(rows, spec.gate.slices),
            "cohort": _cohorts(rows),
        }
    ).reset_index(drop=True)
    parts = []
    for number, role in roles.scored.items():
        served = np.isin(tier, _seats(number, roles)) & (tier != "light")
        by = np.where(served, tier, SHADOW)
        parts.append(_part(spec.target, base, scores[number].values, number, role, by, reason))
    default = spec.target.constant(spec.fallback.safe_default, len(base))
    for seat, values, version, role in (
        ("light", light, roles.champion, "champion"),
        ("safe_default", default, None, "safe_default"),
    ):
        answers = tier == seat
        of_seat = (base[answers], values[answers], version, role, tier[answers], reason[answers])
        parts.append(_part(spec.target, *of_seat))
    predictions = pd.concat([part for part in parts if len(part)] or parts[-1:], ignore_index=True)
    predictions["model"] = spec.name
    predictions["request_id"] = _request_ids(predictions)
    return predictions, failed, stale


def request_id(model: str, who: str, entity_id: str, prediction_time: datetime) -> str:
    """The same prediction always has the same id: 32 hexadecimal digits of SHA-256.

    `who` is the version's number, `<number>/light` for its light twin, or `safe_default`.
    """
    text = "|".join((model, who, entity_id, prediction_time.astimezone(UTC).isoformat()))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _profiles(rails: Rails, spec: Spec, scored: _Scored, predictions: pd.DataFrame) -> pd.DataFrame:
    """The night's rows in the cells of every version that scored them: drift need not read features again.

    `predictions`: those of the whole night. What an hour has scored is counted by what its features are known to have
    been by now.
    """
    rows, own = scored.rows, predictions[predictions["tier"] != "light"]
    records = []
    for number in scored.roles.scored:
        mine = own[own["version"] == number]
        seen = np.zeros(len(rows), dtype=bool)
        if number in scored.stale:
            seen[~scored.answered] = ~scored.stale[number]
        if scored.answered.any():
            scores = _keys(mine["entity_id"], mine["prediction_time"])
            seen |= scored.answered & _keys(rows[spec.key], rows["prediction_time"]).isin(scores)
        if number not in scored.stale or not seen.any():  # it was not loaded, or there is nothing that it could score
            continue
        reference = registry.load(rails, spec.name, number).profile
        if reference is None:  # a version from before there were profiles
            continue
        score = spec.target.scores(mine[spec.target.stored])
        for name, counts in profile.night(reference, rows[seen], score, spec.target).items():
            found = {"column_name": name, "counts": counts.tolist(), "rows": int(counts.sum())}
            records.append({"model": spec.name, "version": number, **found})
    return pd.DataFrame(records, columns=[name for name in PROFILE.columns if name not in ("night", "available_at")])


def _light_scores(rails: Rails, spec: Spec, scored: _Scored) -> pd.DataFrame | None:
    """What the champion's light twin says of the night's rows, unseen, where errors have a price: whether the heavy
    model is worth more than its twin is asked of both on the same rows. None where it is not asked, or nobody is
    champion. A twin that does not score keeps nobody's answers back."""
    champion = scored.roles.champion
    if not spec.gate.is_priced or champion is None or not len(scored.rows):
        return None
    rails.lake.ensure(LIGHT_SCORE)
    try:
        scores = _score(registry.load(rails, spec.name, champion), scored.rows, champion, spec.target, light=True)
    except Exception as error:  # whatever is wrong with its files was told when the champion was loaded
        log.warning("the light twin of %s v%d does not score: %s", spec.name, champion, error)
        return None
    base = pd.DataFrame(
        {"entity_id": scored.rows[spec.key].astype(str), "prediction_time": scored.rows["prediction_time"]}
    ).reset_index(drop=True)
    found = base.assign(
        model=spec.name,
        version=pd.array([champion] * len(base), dtype="Int32"),
        score=spec.target.single(scores.values),
        scores=pd.Series(spec.target.told(scores.values), dtype=object, index=base.index),
    )
    return found[found["score"].notna()]


def _kept(served: pd.DataFrame, profiles: pd.DataFrame) -> ScoredFigures:
    """What the pages show of the night's scoring; `profiles` from `_profiles`."""
    filled: dict[int, dict[str, float]] = {}
    for version, column, counts in zip(profiles["version"], profiles["column_name"], profiles["counts"], strict=True):
        if any(counts):
            share = float(profile.filled(np.asarray(counts, dtype=np.int64)))
            filled.setdefault(int(version), {})[str(column)] = round(share, 4)
    examples = {str(tier): str(own["request_id"].min()) for tier, own in served.groupby("tier")}
    return ScoredFigures(examples=examples, filled=filled)


def _cohorts(rows: pd.DataFrame) -> "pd.Series[Any]":
    """The night that names the cohort of each row, where that is another one than the night that scores it."""
    if DECIDED not in rows:
        return pd.Series(pd.NaT, index=rows.index, dtype="datetime64[us]")
    days: pd.Series[Any] = rows[DECIDED].dt.tz_localize(None).dt.floor("D")
    return days + pd.Timedelta(days=1)


def _load(rails: Rails, spec: Spec, roles: Roles) -> tuple[dict[int, "Scorer"], dict[str, str]]:

    scorers, failed = {}, {}
    for number in roles.scored:
        try:
            scorers[number] = registry.load(rails, spec.name, number)
        except Exception as error:  # whatever is wrong with a version's files, another tier answers for the night
            failed[str(number)] = f"not loaded: {error}"
    return scorers, failed


def _fresh(
    scorer: "Scorer | None",
    rows: pd.DataFrame,
    stale: Bools | None,
    version: int,
    target: Target,
    *,
    light: bool = False,
) -> Scores:
    """`_score` of the rows that are not stale; the others have no score."""
    if stale is None or not stale.any():
        return _score(scorer, rows, version, target, light=light)
    score = _score(scorer, rows[~stale], version, target, light=light)
    values = target.nothing(len(rows))
    values[~stale] = score.values
    return replace(score, values=values)


def _score(
    scorer: "Scorer | None",
    rows: pd.DataFrame,
    version: int,
    target: Target = YES_OR_NO,
    *,
    light: bool = False,
) -> Scores:
    nothing = target.nothing(len(rows))
    if scorer is None:
        return Scores(version, nothing, "not_loaded")
    try:
        if unlike := target.unlike(scorer.target):
            return Scores(version, nothing, "no_score", f"did not score: it {unlike}")
        values = np.asarray(scorer.score_light(rows) if light else scorer.score(rows), dtype=np.float64)
    except Exception as error:  # a version that cannot score these rows must not darken the night
        return Scores(version, nothing, "no_score", f"did not score: {error}")
    if values.shape != nothing.shape:
        return Scores(version, nothing, "no_score", f"gave {values.size} scores for {len(rows)} rows")
    low, high = target.bounds
    is_usable = target.usable(values)
    unusable = int((~is_usable).sum())
    problem = f"{unusable} of {len(rows)} rows have no score between {low:g} and {high:g}" if unusable else None
    return Scores(version, target.where(is_usable, values), "no_score", problem)


def _serve(
    spec: Spec,
    roles: Roles,
    rows: pd.DataFrame,
    stale: Mapping[int, Bools],
    scores: Mapping[int, Scores],
    scorers: Mapping[int, "Scorer"],
) -> tuple[NDArray[Any], NDArray[Any], Floats]:
    """Per row: the tier that answers, its reason, and the light twin's score where it was asked."""
    tiers = np.full(len(rows), "", dtype=object)
    reasons = np.full(len(rows), "", dtype=object)
    champion = scores.get(roles.champion) if roles.champion is not None else None
    previous = scores.get(roles.previous) if roles.previous is not None else None
    light = None
    is_scored = spec.target.is_scored
    alone = spec.fallback.tiers[0] == "champion" and champion is not None and is_scored(champion.values).all()
    if champion is not None and "light" in spec.fallback.tiers and not alone:
        light = _fresh(
            scorers.get(champion.version),
            rows,
            stale.get(champion.version),
            champion.version,
            spec.target,
            light=True,
        )
    answers: dict[Role, Scores] = {}
    if champion is not None:
        answers["champion"] = champion
    if previous is not None:
        answers["previous"] = previous
    if light is not None:
        answers["light"] = light
    fresh = np.zeros(len(rows), dtype=bool)
    ends = np.column_stack(
        [fresh, *(np.where(stale.get(each.version, fresh), 2, is_scored(each.values)) for each in answers.values())]
    )
    for pattern in np.unique(ends, axis=0):
        inside = (ends == pattern).all(axis=1)
        outcomes: dict[fallback.Seat, fallback.TierOutcome] = {
            seat: "features_stale" if end == 2 else "scored" if end else each.outcome
            for end, (seat, each) in zip(pattern[1:], answers.items(), strict=True)
        }
        choice = fallback.choose(spec.fallback.tiers, outcomes)
        tiers[inside] = choice.tier
        reasons[inside] = choice.reason
    return tiers, reasons, light.values if light else spec.target.nothing(len(rows))


def _seats(number: int, roles: Roles) -> list[str]:
    return [name for name, seated in (("champion", roles.champion), ("previous", roles.previous)) if seated == number]


def _part(
    target: Target,
    base: pd.DataFrame,
    values: Floats,
    version: int | None,
    role: str,
    tier: NDArray[Any],
    reason: NDArray[Any],
) -> pd.DataFrame:
    """Rows of one version; a row without a score is left out."""
    part = base.assign(
        version=pd.array([version] * len(base), dtype="Int32"),
        role=role,
        score=target.single(values),
        scores=pd.Series(target.told(values), dtype=object, index=base.index),
        tier=tier,
        tier_reason=pd.Series(reason, dtype=object).mask(tier == SHADOW, None).to_numpy(),
    )
    return part[part["score"].notna()]


def _slices(rows: pd.DataFrame, names: tuple[str, ...]) -> list[str]:
    """One JSON object per row, slice → value as text, keys sorted."""
    columns = {name: rows[name].astype(object).where(rows[name].notna(), MISSING).map(str) for name in sorted(names)}
    return [
        json.dumps({name: values.iloc[place] for name, values in columns.items()}, ensure_ascii=False)
        for place in range(len(rows))
    ]


def _request_ids(predictions: pd.DataFrame) -> list[str]:
    times = pd.to_datetime(predictions["prediction_time"], utc=True).dt.to_pydatetime()
    columns = (predictions[name] for name in ("model", "version", "tier", "entity_id"))
    return [
        request_id(model, _who(version, tier), entity_id, time)
        for model, version, tier, entity_id, time in zip(*columns, times, strict=True)
    ]


def _who(version: int | None, tier: str) -> str:
    """Who gave a prediction, for its id."""
    if pd.isna(version):
        return "safe_default"
    return f"{version}/light" if tier == "light" else f"{version}"


def _counted(column: "pd.Series[str]") -> dict[str, int]:
    """Value → number of rows, by value."""
    return {str(value): int(count) for value, count in column.value_counts().sort_index().items()}
