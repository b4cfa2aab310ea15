"""From scores and matured truth to the gate's evidence: two versions on the same rows. Pure.

`rows` are those of truth.side_by_side at a night, or the same columns from anywhere: a hindcast of policies cuts
them from memory, thousands of times, so that nothing here goes row by row. A version of None is the safe default,
which scores every row alike.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard.clock import NIGHT
from tiltyard.judge import gate, sequential
from tiltyard.records import (
    CalibrationBin,
    CohortArrival,
    Drawing,
    EvidenceRecord,
    RunningPoint,
    SliceInterval,
    SliceMean,
)
from tiltyard.spec import TRUSTED, Spec
from tiltyard.train import evaluation

Floats = NDArray[np.float64]
SAFE_DEFAULT = 0
"""Stands for the safe default where the gate wants a number: versions begin with 1."""
BINS = 20
"""Of a score histogram over [0, 1], or the bounds of a number."""


@dataclass(frozen=True)
class ChallengerFacts:
    """What is known of a challenger besides its scores. None is not known, and what is not known holds."""

    challengers: int = 1
    """The largest number judged at once on any night since it entered shadow."""
    missing: gate.Missing | None = None
    latency_ms: float | None = None
    size_mb: float | None = None
    replay: gate.Replayed | None = None
    labels: gate.Labelled | None = None


NO_FACTS = ChallengerFacts()


@dataclass(frozen=True, eq=False)
class Pairs:
    """One version's scores beside another's, from the first night on that the challenger scored, cohort by cohort."""

    night: NDArray[np.int64]
    """The night that names the row's cohort."""
    scored_on: NDArray[np.int64]
    """The night that scored it."""
    label: Floats
    challenger: Floats
    """(rows, *shape) its scores, as are the champion's."""
    champion: Floats
    scored: NDArray[np.bool_]
    """By the challenger."""
    champion_scored: NDArray[np.bool_]
    is_matured: NDArray[np.bool_]
    is_early: NDArray[np.bool_]
    rows: pd.DataFrame
    """The same rows, for slices and times."""
    is_alone: bool
    """Whether there is no champion, and the other scores are the safe default's."""

    @classmethod
    def of(
        cls, spec: Spec, rows: pd.DataFrame, challenger: int | None, champion: int | None, *, fills: bool = False
    ) -> "Pairs":
        """`fills`: a row that the champion did not score has the safe default."""
        target = spec.target
        if not rows["night"].is_monotonic_increasing:  # statistics go cohort by cohort
            rows = rows.sort_values("night", kind="stable", ignore_index=True)
        scores = _scores(spec, rows, challenger)
        scored_on = rows["scored_on"].to_numpy(dtype=np.int64)
        scored = target.is_scored(scores)
        if scored.any() and scored_on.min() < (first := scored_on[scored].min()):
            keep = scored_on >= first
            rows, scores, scored_on = rows[keep], scores[keep], scored_on[keep]
        elif not scored.any():
            rows, scores, scored_on = rows[:0], scores[:0], scored_on[:0]
        others = _scores(spec, rows, champion)
        if fills:
            default = target.constant(spec.fallback.safe_default, len(rows))
            others = target.where(target.is_scored(others), others, default)
        return cls(
            night=rows["night"].to_numpy(dtype=np.int64),
            scored_on=scored_on,
            label=rows["label"].to_numpy(dtype=np.float64),
            challenger=scores,
            champion=others,
            scored=target.is_scored(scores),
            champion_scored=target.is_scored(others),
            is_matured=rows["is_matured"].to_numpy(dtype=bool),
            is_early=rows["is_early"].to_numpy(dtype=bool),
            rows=rows,
            is_alone=champion is None,
        )

    @property
    def both(self) -> NDArray[np.bool_]:
        """Matured, labelled, and scored by both."""
        return self.is_matured & np.isfinite(self.label) & self.scored & self.champion_scored


def gather(
    spec: Spec,
    night: date,
    rows: pd.DataFrame,
    challenger: int | None,
    champion: int | None,
    facts: ChallengerFacts = NO_FACTS,
    *,
    fills: bool = False,
) -> tuple[gate.Evidence, EvidenceRecord]:
    """The evidence on one challenger at `night`, and what the ledger keeps of it, without the rows.

    Differences are of matured rows, since the challenger's first night in shadow, that both versions scored,
    whatever role the champion had then. The shift of scores needs no truth, so it is taken on all rows. `fills`, for
    the watch: what the champion did not score counts as the safe default's, or a promoted version that fails would
    escape by failing.
    """
    pairs = Pairs.of(spec, rows, challenger, champion, fills=fills)
    both, scored = pairs.both, pairs.scored
    label = pairs.label[both]
    losses = {
        name: spec.target.losses(spec.gate.metric, scores[both], label, spec.gate.cost)
        for name, scores in (("challenger", pairs.challenger), ("champion", pairs.champion))
    }
    differences = losses["champion"] - losses["challenger"]
    times = pairs.rows["prediction_time"].to_numpy()[both]
    nights = pairs.night[both]
    shadowed = np.unique(pairs.scored_on[scored])
    evidence = gate.Evidence(
        challenger=SAFE_DEFAULT if challenger is None else challenger,
        champion=champion,
        safe_default=_share_of_default(spec) if champion is None else None,
        shadow=len(shadowed) * NIGHT,
        differences=differences,
        nights=nights,
        expected=int(pairs.is_matured.sum()),
        challengers=facts.challengers,
        slices=_slices(spec, pairs, differences),
        immature=int((scored & ~pairs.is_matured).sum()),
        early=int((scored & ~pairs.is_matured & pairs.is_early).sum()),
        calibration=_compared(
            evaluation.calibration_error(*_paired(spec, pairs.challenger[both], label)),
            evaluation.calibration_error(*_paired(spec, pairs.champion[both], label)),
        ),
        score_shift=_shift(spec, pairs, shadowed),
        missing=facts.missing,
        latency_ms=facts.latency_ms,
        size_mb=facts.size_mb,
        replay=facts.replay,
        labels=facts.labels,
    )
    record = EvidenceRecord(
        model=spec.name,
        night=night,
        challenger=challenger,
        champion=champion,
        against="the safe default" if champion is None else f"version {champion}",
        nights=len(shadowed),
        matured=len(differences),
        expected=evidence.expected,
        outside=_outside(spec, pairs),
        immature=evidence.immature,
        early=evidence.early,
        challengers=evidence.challengers,
        metric=spec.gate.metric,
        loss_challenger=_mean(losses["challenger"]),
        loss_champion=_mean(losses["champion"]),
        cohort_from=str(times.min())[:19] if len(times) else None,
        cohort_to=str(times.max())[:19] if len(times) else None,
        slices=tuple(SliceMean(part.name, part.rows, part.expected, part.mean) for part in evidence.slices),
        calibration=evidence.calibration,
        score_shift=evidence.score_shift,
        missing=facts.missing,
        latency_ms=facts.latency_ms,
        size_mb=facts.size_mb,
        replay=facts.replay,
        rows=hashlib.sha256(differences.astype("<f8").tobytes() + nights.astype("<i8").tobytes()).hexdigest(),
    )
    return evidence, record


def judged(record: EvidenceRecord, verdict: gate.Verdict) -> EvidenceRecord:
    """The record with what the gate, or the watch, made of the evidence."""
    return replace(
        record,
        criteria=verdict.criteria,
        mean=verdict.mean,
        low=verdict.low,
        high=verdict.high,
        reasons=tuple(verdict.reasons),
    )


def missing(shares: Mapping[str, float], at_training: Mapping[str, float]) -> gate.Missing | None:
    """The feature whose share of missing values rose most over the training frame's.

    `shares`: feature → share in shadow, empty when no row was seen; `at_training`: the same of the training frame. One
    that the views do not have any more is missing in every row. None when there is nothing to hold against each other.
    """
    if not shares or not at_training:
        return None
    rises = {name: shares.get(name, 1.0) - share for name, share in at_training.items()}
    worst = max(sorted(rises), key=lambda name: rises[name])
    return gate.Missing(worst, at_training[worst], shares.get(worst, 1.0))


def missing_at_training(reference: Mapping[str, Any]) -> dict[str, float]:
    """Feature → share of missing values in the training frame, from a version's reference.json."""
    features = reference.get("features") or {}
    return {str(name): float(entry["missing"]) for name, entry in features.items()}


def _outside(spec: Spec, pairs: Pairs) -> int | None:
    """How many labels of matured rows that both scored count as outside; None where labels have no outside, or it is
    not known: policies that are tried in memory do not ask."""
    if "outside" not in spec.target.more_counts or "is_outside" not in pairs.rows:
        return None
    inside = pairs.is_matured & pairs.scored & pairs.champion_scored
    return int(pairs.rows["is_outside"].to_numpy()[inside].sum())


def picture(spec: Spec, evidence: gate.Evidence, rows: pd.DataFrame, challenger: int, champion: int | None) -> Drawing:
    """What the evidence page draws."""
    pairs = Pairs.of(spec, rows, challenger, champion)
    both = pairs.both
    label, single = pairs.label[both], spec.target.single
    clusters = evidence.nights
    seen = pairs.scored & pairs.champion_scored
    edges = np.linspace(*spec.target.bounds, BINS + 1)
    kind = spec.target.to_json()
    return Drawing(
        level=spec.gate.alpha / evidence.challengers,
        running=_running(spec, evidence),
        slices=tuple(
            _slice_interval(name, values, own) for name, values, own in _per_slice(spec, pairs, evidence, clusters)
        ),
        calibration={
            who: tuple(
                CalibrationBin(part.low, part.high, part.rows, part.mean_score, part.positive_rate)
                for part in evaluation.calibration(*_paired(spec, scores[both], label))
            )
            for who, scores in (("challenger", pairs.challenger), ("champion", pairs.champion))
        },
        scores={
            who: tuple(int(count) for count in np.histogram(single(scores[seen]), bins=edges)[0])
            for who, scores in (("challenger", pairs.challenger), ("champion", pairs.champion))
        },
        arrival=_arrival(pairs),
        kind=str(kind["kind"]) if "kind" in kind else None,
        bounds=spec.target.bounds if "bounds" in kind else None,
    )


def _running(spec: Spec, evidence: gate.Evidence) -> tuple[RunningPoint, ...]:
    """Both statistics as they stood at the end of every cohort: what could have been believed when it matured."""
    if not len(evidence.differences):
        return ()
    level = spec.gate.alpha / evidence.challengers
    sums = sequential.nightly(evidence.differences, evidence.nights)
    nights = np.arange(1, len(sums) + 1)
    e_nights = sequential.log_e_nights(np.cumsum(sums), np.cumsum(sums**2), nights)
    ends = np.flatnonzero(np.diff(evidence.nights, append=evidence.nights[-1] + 1)) + 1
    return tuple(
        RunningPoint(
            night=date.fromordinal(int(evidence.nights[end - 1])),
            rows=int(end),
            mean=float(evidence.differences[:end].mean()),
            low=sequential.lower(evidence.differences[:end], level),
            high=sequential.upper(evidence.differences[:end], level),
            log_e_nights=float(e_nights[place]),
        )
        for place, end in enumerate(ends)
    )


def _per_slice(
    spec: Spec, pairs: Pairs, evidence: gate.Evidence, clusters: NDArray[np.int64]
) -> list[tuple[str, Floats, NDArray[np.int64]]]:
    """(name, differences, nights) of all rows, then of every slice."""
    slices = [("all", evidence.differences, clusters)]
    for column, value, inside in _inside(spec, pairs, pairs.both):
        slices.append((f"{column}={value}", evidence.differences[inside], clusters[inside]))
    return slices


def _slice_interval(name: str, values: Floats, nights: NDArray[np.int64]) -> SliceInterval:
    own = np.unique(nights, return_inverse=True)[1].astype(np.int64)
    interval = evaluation.clustered_interval(values, own) if len(values) else None
    low, high = interval or (None, None)
    return SliceInterval(name, len(values), _mean(values), low, high)


def _arrival(pairs: Pairs) -> tuple[CohortArrival, ...]:
    """Per cohort: rows with a label that counts, without one although matured, known early, and waiting."""
    nights, places = np.unique(pairs.night, return_inverse=True)
    labelled = pairs.is_matured & np.isfinite(pairs.label)
    parts = (
        labelled,
        pairs.is_matured & ~labelled,
        ~pairs.is_matured & pairs.is_early,
        ~pairs.is_matured & ~pairs.is_early,
    )
    counts = np.stack([np.bincount(places[inside], minlength=len(nights)) for inside in parts], axis=1)
    return tuple(
        CohortArrival(date.fromordinal(int(night)), *map(int, row)) for night, row in zip(nights, counts, strict=True)
    )


def _scores(spec: Spec, rows: pd.DataFrame, version: int | None) -> Floats:
    if version is None:
        return spec.target.constant(spec.fallback.safe_default, len(rows))
    return spec.target.scores(rows[f"v{version}"])


def _paired(spec: Spec, scores: Floats, label: Floats) -> tuple[Floats, Floats]:
    """What calibration compares, on [0, 1]."""
    score, outcome = spec.target.paired(scores, label)
    return spec.target.scaled(score), spec.target.scaled(outcome)


def _share_of_default(spec: Spec) -> float:
    """The safe default as one number on [0, 1]."""
    return float(spec.target.scaled(spec.target.single(spec.target.constant(spec.fallback.safe_default, 1)))[0])


def _inside(spec: Spec, pairs: Pairs, among: NDArray[np.bool_]) -> list[tuple[str, str, NDArray[np.intp]]]:
    """(column, value, places) of every slice that has rows `among` all, in the order of columns and values; last, where
    there is a champion, the groups of labels on which the gate looks by itself. A constant is no measure of those: the
    more it gives a class, the better it is on that one's rows, however wrong it is elsewhere."""
    rows, slices = pairs.rows[among], []
    for column in spec.gate.slices:
        codes, values = pd.factorize(rows[f"slice_{column}"], sort=True)
        order = np.argsort(codes, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(codes, minlength=len(values)))[:-1]) if len(values) else []
        slices += [(column, str(value), part) for value, part in zip(values, parts, strict=True)]
    if spec.label.trusted is not None and TRUSTED in rows:
        slices.append(("trusted", "yes", np.flatnonzero(rows[TRUSTED].fillna(False).to_numpy(dtype=bool))))
    groups = () if pairs.is_alone else spec.target.groups(pairs.label[among])
    for name, inside in groups:
        column, _, value = name.partition("=")
        if inside.any():
            slices.append((column, value, np.flatnonzero(inside)))
    return slices


def _slices(spec: Spec, pairs: Pairs, differences: Floats) -> tuple[gate.SliceEvidence, ...]:
    """Every slice of the matured rows, those without a single pair included: what is missing is told by its name."""
    matured = np.flatnonzero(pairs.is_matured)
    both = pairs.both
    place = np.cumsum(both) - 1
    slices = []
    for column, value, inside in _inside(spec, pairs, pairs.is_matured):
        rows = matured[inside]
        slices.append(gate.SliceEvidence(f"{column}={value}", differences[place[rows[both[rows]]]], len(rows)))
    return tuple(slices)


def _shift(spec: Spec, pairs: Pairs, shadowed: NDArray[np.int64]) -> gate.Compared | None:
    """How far the scores moved from the first half of the nights in shadow to the second; of a distribution, the number
    that moved most."""
    if len(shadowed) < 2:
        return None
    rows = pairs.scored & pairs.champion_scored
    is_late = pairs.scored_on[rows] >= shadowed[len(shadowed) // 2]
    moved = []
    for scores in (pairs.challenger,) if pairs.is_alone else (pairs.challenger, pairs.champion):
        parts = (
            evaluation.population_stability(part[~is_late], part[is_late]) for part in spec.target.parts(scores[rows])
        )
        moved.append(max((shift for shift in parts if shift is not None), default=None))
    return _compared(moved[0], None if pairs.is_alone else moved[1])


def _compared(challenger: float | None, champion: float | None) -> gate.Compared | None:
    return None if challenger is None else gate.Compared(challenger, champion)


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None
