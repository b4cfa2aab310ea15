"""Scores one night: champion, previous, first and every challenger on the same rows, written at once.

Every version gives one row per spine row. The one that was served says in `tier` who answered; the others
say `shadow`. When the champion's files are refused, or it has no number for a row, the next declared tier answers
and `tier_reason` says why (fallback.py); without a champion it is the safe default. A night never goes dark.

A feature view that is not good on the night is read as it was on its last good one, and `apart` says so. A row for
which that has nothing within `max_feature_age` gets the safe default, since every tier reads the same views. A spine
that is not good has no rows of the night: it is scored when it has.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard import clock, lake
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput, Stopped
from tiltyard.prepare import frame
from tiltyard.prepare.truth import MISSING
from tiltyard.rails import Rails
from tiltyard.records import Publication, ShadowSummary
from tiltyard.serve import fallback
from tiltyard.spec import Role, Spec
from tiltyard.succession import Roles
from tiltyard.tables import PREDICTION, PROFILE
from tiltyard.train import profile, registry
from tiltyard.train.scorer import Scorer

SHADOW = "shadow"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """What one version gave: `values` with NaN where it has no score, and the outcome of such a row."""

    version: int
    values: Floats
    outcome: fallback.TierOutcome
    error: str | None = None


def score_night(rails: Rails, spec: Spec, as_of: datetime) -> ShadowSummary:
    """Score the spine rows of the night that closes at `as_of` and replace the night's predictions.

    Raises Fenced when a newer attempt at the same night has begun, BadInput when no features are published, Stopped
    when the spine's rows of the night are not.
    """
    night = night_closing(as_of)
    publication = rails.publication().part((spec.prediction.spine, *spec.prediction.features))
    if waits := waits_for(publication, spec, as_of):
        raise Stopped(
            f"{spec.name} has no rows of {night}: {waits}. They are scored on the next night on which it is published.",
            unpublished=[state.to_json() for state in publication.unpublished(publication.tables)],
        )
    fence = rails.ledger.claim(f"shadow/{spec.name}/{night}")
    rails.lake.ensure(PREDICTION)
    rails.lake.ensure(PROFILE)
    unpublished = publication.unpublished(publication.tables)
    start, end = clock.interval(as_of, spec.prediction.every)
    roles = rails.ledger.roles(spec.name, night)
    if any(state.snapshot is None for state in unpublished):
        rows = frame.spine(rails, spec, start, end, as_of, publication).assign(**dict.fromkeys(spec.gate.slices))
        stale = np.ones(len(rows), dtype=bool)
    else:
        rows = frame.build(rails, spec, start, end, as_of, publication)
        stale = rows[[f"{state.table}__event_time" for state in unpublished]].isna().any(axis=1).to_numpy()
    predictions, failed = predict(rails, spec, roles, rows, stale)
    for name, reason in failed.items():
        rails.ledger.add_event("version_did_not_score", spec.name, night, {"version": name, "reason": reason})
    predictions = predictions.assign(
        snapshot=publication.snapshot,
        apart=publication.apart,
        night=night,
        available_at=as_of,
        scored_at=clock.now(),
    )
    profiles = _profiles(rails, spec, roles, rows[~stale], predictions, failed).assign(night=night, available_at=as_of)

    def write(connection: Any) -> None:
        partition = {"model": spec.name, "night": night}
        lake.put(connection, PREDICTION, partition, predictions[list(PREDICTION.columns)])
        lake.put(connection, PROFILE, partition, profiles[list(PROFILE.columns)])

    rails.lake.commit(write, message=f"shadow {spec.name} {night}", fence=fence)
    served = predictions[predictions["tier"] != SHADOW]
    return ShadowSummary(
        night=night,
        rows=len(rows),
        snapshot=publication.snapshot,
        unpublished=unpublished,
        roles=roles.scored,
        tiers=_counted(served["tier"]),
        reasons=_counted(served["tier_reason"]),
        failed=failed,
        note=None if len(rows) else "The spine has no rows in this night; there was nothing to score.",
    )


def waits_for(publication: Publication, spec: Spec, as_of: datetime) -> str | None:
    """Why the spine has no rows of the night that closes at `as_of` yet, as a sentence; None where it has them."""
    state = publication.state(spec.prediction.spine)
    if state is None or state.is_published or (state.until is not None and state.until >= as_of):
        return None
    return str(state)


def predict(
    rails: Rails, spec: Spec, roles: Roles, rows: pd.DataFrame, stale: NDArray[np.bool_] | None = None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Predictions of every version on `rows`, and version → reason for those that failed. A row that is `stale` lacks a
    feature view that it should have, and gets no score of any version.

    Raises BadInput when a declared slice is no column of the rows.
    """
    absent = [name for name in spec.gate.slices if name not in rows]
    if absent:
        raise BadInput(
            f"{spec.name}: gate.slices names '{absent[0]}', which no feature view has; "
            f"mend models/{spec.name}/spec.yaml."
        )
    scorers, failed = _load(rails, spec, roles)
    stale = np.zeros(len(rows), dtype=bool) if stale is None else stale
    scores = {number: _fresh(scorers.get(number), rows, stale, number, spec.target.bounds) for number in roles.scored}
    failed |= {str(number): score.error for number, score in scores.items() if score.error}
    tier, reason, light = _serve(spec, roles, rows, stale, scores, scorers)
    base = pd.DataFrame(
        {
            "entity_id": rows[spec.key].astype(str),
            "prediction_time": rows["prediction_time"],
            "slices": _slices(rows, spec.gate.slices),
        }
    ).reset_index(drop=True)
    parts = []
    for number, role in roles.scored.items():
        served = np.isin(tier, _seats(number, roles)) & (tier != "light")
        parts.append(_part(base, scores[number].values, number, role, np.where(served, tier, SHADOW), reason))
    answers = tier == "light"
    parts.append(_part(base[answers], light[answers], roles.champion, "champion", tier[answers], reason[answers]))
    default = np.full(len(base), spec.fallback.safe_default)
    answers = tier == "safe_default"
    parts.append(_part(base[answers], default[answers], None, "safe_default", tier[answers], reason[answers]))
    predictions = pd.concat([part for part in parts if len(part)] or parts[-1:], ignore_index=True)
    predictions["model"] = spec.name
    predictions["request_id"] = _request_ids(predictions)
    return predictions, failed


def request_id(model: str, who: str, entity_id: str, prediction_time: datetime) -> str:
    """The same prediction always has the same id: 32 hexadecimal digits of SHA-256.

    `who` is the version's number, `<number>/light` for its light twin, or `safe_default`.
    """
    text = "|".join((model, who, entity_id, prediction_time.astimezone(UTC).isoformat()))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _profiles(
    rails: Rails,
    spec: Spec,
    roles: Roles,
    rows: pd.DataFrame,
    predictions: pd.DataFrame,
    failed: Mapping[str, str],
) -> pd.DataFrame:
    """The night's rows in the cells of every version that scored them: drift need not read features again."""

    own = predictions["tier"] != "light"
    records = []
    for number in roles.scored:
        if rows.empty or failed.get(str(number), "").startswith("not loaded"):
            continue
        reference = registry.load(rails, spec.name, number).profile
        if reference is None:  # a version from before there were profiles
            continue
        score = predictions.loc[own & (predictions["version"] == number), "score"].to_numpy(dtype=np.float64)
        for name, counts in profile.night(reference, rows, score).items():
            found = {"column_name": name, "counts": counts.tolist(), "rows": int(counts.sum())}
            records.append({"model": spec.name, "version": number, **found})
    return pd.DataFrame(records, columns=[name for name in PROFILE.columns if name not in ("night", "available_at")])


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
    stale: NDArray[np.bool_],
    version: int,
    bounds: tuple[float, float],
    *,
    light: bool = False,
) -> Scores:
    """`_score` of the rows that are not stale; the others have no score."""
    if not stale.any():
        return _score(scorer, rows, version, bounds, light=light)
    score = _score(scorer, rows[~stale], version, bounds, light=light)
    values = np.full(len(rows), np.nan)
    values[~stale] = score.values
    return replace(score, values=values)


def _score(
    scorer: "Scorer | None",
    rows: pd.DataFrame,
    version: int,
    bounds: tuple[float, float] = (0.0, 1.0),
    *,
    light: bool = False,
) -> Scores:
    nothing = np.full(len(rows), np.nan)
    if scorer is None:
        return Scores(version, nothing, "not_loaded")
    try:
        values = np.asarray(scorer.score_light(rows) if light else scorer.score(rows), dtype=np.float64)
    except Exception as error:  # a version that cannot score these rows must not darken the night
        return Scores(version, nothing, "no_score", f"did not score: {error}")
    if values.shape != (len(rows),):
        return Scores(version, nothing, "no_score", f"gave {values.size} scores for {len(rows)} rows")
    low, high = bounds
    is_usable = (values >= low) & (values <= high)
    unusable = int((~is_usable).sum())
    problem = f"{unusable} of {len(rows)} rows have no score between {low:g} and {high:g}" if unusable else None
    return Scores(version, np.where(is_usable, values, np.nan), "no_score", problem)


def _serve(
    spec: Spec,
    roles: Roles,
    rows: pd.DataFrame,
    stale: NDArray[np.bool_],
    scores: Mapping[int, Scores],
    scorers: Mapping[int, "Scorer"],
) -> tuple[NDArray[Any], NDArray[Any], Floats]:
    """Per row: the tier that answers, its reason, and the light twin's score where it was asked."""
    tiers = np.full(len(rows), "", dtype=object)
    reasons = np.full(len(rows), "", dtype=object)
    champion = scores.get(roles.champion) if roles.champion is not None else None
    previous = scores.get(roles.previous) if roles.previous is not None else None
    light = None
    alone = spec.fallback.tiers[0] == "champion" and champion is not None and not np.isnan(champion.values).any()
    if champion is not None and "light" in spec.fallback.tiers and not alone:
        light = _fresh(scorers.get(champion.version), rows, stale, champion.version, spec.target.bounds, light=True)
    answers: dict[Role, Scores] = {}
    if champion is not None:
        answers["champion"] = champion
    if previous is not None:
        answers["previous"] = previous
    if light is not None:
        answers["light"] = light
    has = np.column_stack([~stale, *(~np.isnan(score.values) for score in answers.values())])
    for pattern in np.unique(has, axis=0):
        inside = (has == pattern).all(axis=1)
        outcomes: dict[fallback.Seat, fallback.TierOutcome] = {
            name: "scored" if scored else score.outcome if pattern[0] else "features_stale"
            for scored, (name, score) in zip(pattern[1:], answers.items(), strict=True)
        }
        choice = fallback.choose(spec.fallback.tiers, outcomes)
        tiers[inside] = choice.tier
        reasons[inside] = choice.reason
    return tiers, reasons, light.values if light else np.full(len(rows), np.nan)


def _seats(number: int, roles: Roles) -> list[str]:
    return [name for name, seated in (("champion", roles.champion), ("previous", roles.previous)) if seated == number]


def _part(
    base: pd.DataFrame, values: Floats, version: int | None, role: str, tier: NDArray[Any], reason: NDArray[Any]
) -> pd.DataFrame:
    """Rows of one version; a row without a score is left out."""
    part = base.assign(
        version=pd.array([version] * len(base), dtype="Int32"),
        role=role,
        score=values,
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
