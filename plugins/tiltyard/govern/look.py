"""One version on one night, for drift: what the lake and the ledger hold of it, and how it compares with training."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from tiltyard.clock import NIGHT, midnight, night_closing
from tiltyard.govern import change, grants
from tiltyard.govern.change import DriftComparison, KnownTruth, Standing, TrainedPromise
from tiltyard.govern.raw import ColumnKind, Raw
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.prepare import frame, truth
from tiltyard.rails import Rails
from tiltyard.records import Broken, Signal, SignalKind, SinceTraining
from tiltyard.spec import Spec, portfolio
from tiltyard.tables import DRIFT_DETECTOR, PREDICTION, PROFILE
from tiltyard.train import profile, registry
from tiltyard.train.profile import Floats

if TYPE_CHECKING:
    from typing import Any

SAMPLE = 1000
"""Number of rows of the window that Evidently sees; a larger window is sampled, seeded by the night."""


class Look:
    """One version on one night."""

    def __init__(self, rails: Rails, spec: Spec, as_of: datetime, version: int) -> None:
        self.rails, self.spec, self.as_of, self.version = rails, rails.ledger.bounded(spec), as_of, version
        self.night = night_closing(as_of)
        self.window = max(round(spec.drift.window / NIGHT), 1)
        """Length of the window, in nights."""
        self.scorer = registry.load(rails, spec.name, version)
        record = rails.ledger.version(spec.name, version)
        assert record is not None  # a version that is loaded is in the ledger
        self.record = record
        """The version. It has scored nothing on the nights up to that of its training, so that nobody reads them."""
        self.production = profiles(rails, spec, as_of, version, record.night)
        """The version's nights in production."""
        rows = truth.matured(
            rails, spec, as_of, versions=[version], since=record.night, columns=("ordinal", "score", "label")
        ).dropna(subset=["score"])
        self.matured = rows.sort_values("ordinal", kind="stable")
        """Rows whose truth has matured, with the night (a date ordinal), score and label."""

    @property
    def empty(self) -> tuple[Broken, ...]:
        """What is broken where the window has no rows at all; nothing where it has some."""
        nights = self.production.nights
        last = nights[-1] if len(nights) else 0
        if last > self.night.toordinal() - self.window or self.scorer.profile is None:
            return ()
        start = self.as_of - self.spec.drift.window
        reason = f"there is nothing to predict on between {start:%Y-%m-%d} and {self.as_of:%Y-%m-%d}"
        return (Broken(self.spec.prediction.spine, None, reason),)

    def compared(self, *, trusted: bool) -> tuple[DriftComparison | None, tuple[Signal, ...]]:
        """How the night compares with training, and its signals. A version that kept no profile has no comparison.

        `trusted`: whether the night's rows are what they should be.
        """
        rails, spec = self.rails, self.spec
        promise = self._promise()
        models = len(portfolio(rails.settings)) if rails.settings.models.is_dir() else 1
        threshold = load_portfolio(rails.settings.models).budget.nights_between(max(models, 1))
        reference = self.scorer.profile
        if reference is None:
            columns: list[tuple[SignalKind, str]] = [("feature", name) for name in self.scorer.features]
            columns.append(("prediction", profile.PREDICTION))
            unknown = [Signal(kind, name, None, "", None, None, False, note=change.NOT_KEPT) for kind, name in columns]
            return None, (*unknown, *change.decay(self._truth(None), promise, threshold, self.window))
        standing, left_out = standing_before(rails, spec, self.as_of, self.record.night)
        answered = grants.past(rails, spec.name, self.night).answered
        comparison = change.compare(
            reference,
            self.production,
            self._truth(reference),
            spec.drift,
            promise,
            threshold,
            self.version,
            self.night.toordinal(),
            window=self.window,
            standing=standing,
            answered=answered.toordinal() if answered else None,
            trusted=trusted and not self.empty,
            left_out=left_out,
            agrees=lambda columns, limits: self.raw(columns, limits).evidently_drifted(columns),
        )
        return comparison, comparison.signals

    def _promise(self) -> TrainedPromise:
        metrics = self.record.facts.metrics
        held_out = metrics.figure(self.spec.target.measure) if metrics else None
        default, least = self.spec.fallback.safe_default, self.spec.gate.min_matured
        return TrainedPromise(held_out.high if held_out else None, default, least, self.spec.target)

    def _truth(self, reference: profile.Reference | None) -> KnownTruth:
        cutoff = night_closing(truth.cutoff(self.spec, self.as_of)).toordinal()
        nights = self.matured["ordinal"].to_numpy(dtype=np.int64)
        target = self.spec.target
        score = target.scores(self.matured["score"])
        label = self.matured["label"].to_numpy(dtype=np.float64)
        outcomes = profile.EMPTY
        if reference is not None and len(nights):
            outcomes = profile.truth(reference, nights, score, label, target)
        start = self.as_of - self.spec.drift.window
        waiting = scores(self.rails, self.spec, self.as_of, self.version, _ordinal(start) + 1, waiting_after=cutoff)
        return KnownTruth(cutoff, outcomes, nights, score, label, waiting)

    def raw(self, columns: Sequence[str], limits: Mapping[str, float]) -> Raw:
        """The values of the window beside those kept from training."""
        publication = self.rails.publication()
        start = self.as_of - self.spec.drift.window
        read = frame.readable(self.rails, self.spec, publication)
        rows = frame.build(self.rails, read, start, self.as_of, self.as_of, publication)
        training = self.scorer.reference_frame()
        newest = _ordinal(truth.cutoff(self.spec, self.as_of)) - self.window + 1
        matured = self.matured[self.matured["ordinal"] >= newest]
        now = {name: self._sampled(rows[name]) for name in columns if name in rows}
        now[profile.PREDICTION] = self._sampled(
            self._scores(scores(self.rails, self.spec, self.as_of, self.version, _ordinal(start) + 1))
        )
        now[profile.LABEL] = self._sampled(self._labels(matured))
        now[profile.LOSS] = self._sampled(self._losses(matured))
        past = {name: training[name] for name in columns if name in training}
        past[profile.PREDICTION] = self._scores(self.spec.target.scores(training["_score"]))
        past[profile.LABEL] = self._labels(training)
        past[profile.LOSS] = self._losses(training.assign(score=training["_score"]))
        reference = self.scorer.profile
        raw = Raw()
        for name in columns:
            column = reference.column(name) if reference else None
            if column is not None and name in past and name in now:
                kind: ColumnKind = "numeric" if column.cells.is_numeric else "categorical"
                raw.add(name, kind, past[name], now[name], limits[name])
        return raw

    def _losses(self, rows: pd.DataFrame) -> "pd.Series[float]":
        target, label = self.spec.target, rows["label"].to_numpy(dtype=np.float64)
        return pd.Series(target.row_losses(target.scores(rows["score"]), label))

    def _scores(self, scores: Floats) -> "pd.Series[Any]":
        return pd.Series(self.spec.target.named_scores(scores))

    def _labels(self, rows: pd.DataFrame) -> "pd.Series[Any]":
        return pd.Series(self.spec.target.named_labels(rows["label"].to_numpy(dtype=np.float64)))

    def _sampled(self, values: "pd.Series[Any]") -> "pd.Series[Any]":
        """At most SAMPLE rows, the same for the same night."""
        if len(values) <= SAMPLE:
            return values
        chosen = np.random.default_rng(self.night.toordinal()).choice(len(values), SAMPLE, replace=False)
        return values.iloc[np.sort(chosen)]


def since_training(rails: Rails, spec: Spec, as_of: datetime, *, before: date) -> SinceTraining:
    """What has passed at `as_of` since the newest training of a night before `before`. Matured labels are counted only
    where the spec asks for them."""
    versions = [version for version in rails.ledger.versions(spec.name) if version.night < before]
    if not versions:
        return SinceTraining()
    newest = max(versions, key=lambda version: (version.night, version.version))
    is_erased = spec.privacy.on_erasure == "retrain" and newest.version in rails.ledger.erasures.learned(spec.name)
    matured = None
    if spec.retrain.after_matured is not None:
        matured = frame.matured(rails, spec, as_of, rails.publication(), after=midnight(newest.night))
    return SinceTraining(newest.night, matured, is_erased)


def _ordinal(instant: datetime) -> int:
    return night_closing(instant).toordinal()


def profiles(rails: Rails, spec: Spec, as_of: datetime, version: int, since: date) -> profile.Nights:
    """The profiles that the shadow stage wrote of a version, from the night `since` to `as_of`. A night without a
    column counts nought."""
    if not rails.lake.has(PROFILE):
        return profile.EMPTY
    sql = f"""
        select column_name, {truth.ORDINAL}, counts from {{{PROFILE}}}
        where model = $model and version = $version and night >= $since order by column_name, night
    """
    params = {"model": spec.name, "version": version, "since": since}
    # by Arrow, where a column of lists is one array: a year has ten thousand of them
    rows = rails.lake.connection.execute(rails.lake.sql(sql, as_of), params).to_arrow_table().combine_chunks()
    if not rows.num_rows:
        return profile.EMPTY
    nights, place = np.unique(rows["ordinal"].to_numpy(), return_inverse=True)
    lists = rows["counts"].chunk(0)
    values, offsets = lists.values.to_numpy(), lists.offsets.to_numpy()
    names = rows["column_name"].to_numpy()
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    counts = {}
    for start, end in zip(starts, [*starts[1:], len(names)], strict=True):
        of_column = values[offsets[start] : offsets[end]].reshape(end - start, -1)
        nightly = np.zeros((len(nights), of_column.shape[1]), dtype=np.int64)
        nightly[place[start:end]] = of_column
        counts[str(names[start])] = nightly
    return profile.Nights(nights.astype(np.int64), counts)


def scores(
    rails: Rails, spec: Spec, as_of: datetime, version: int, since: int, waiting_after: int | None = None
) -> Floats:
    """Scores that `version` itself gave from the night `since` (a date ordinal) on, whatever its role was then; with
    `waiting_after`, those of cohorts after that night (a date ordinal)."""
    if not rails.lake.has(PREDICTION):
        return spec.target.nothing(0)
    sql = f"""
        select {spec.target.stored} as score from {{{PREDICTION}}}
        where model = $model and version = $version and tier not in ('light', 'safe_default') and night >= $since
            and ($waiting::date is null or {truth.COHORT} > $waiting::date)
        order by prediction_time, entity_id
    """
    waiting = None if waiting_after is None else date.fromordinal(waiting_after)
    params = {"model": spec.name, "version": version, "since": date.fromordinal(since), "waiting": waiting}
    return spec.target.scores(rails.lake.query(sql, as_of, params)["score"])


class Before(NamedTuple):
    """What the nights before have left."""

    standing: Standing | None
    """What the last one left that was compared; None where none was."""
    left_out: frozenset[int]
    """Date ordinals of the nights whose rows could not be trusted."""


def standing_before(rails: Rails, spec: Spec, as_of: datetime, first: date) -> Before:
    """What the nights from `first` on, before `as_of`, have left."""
    if not rails.lake.has(DRIFT_DETECTOR):
        return Before(None, frozenset())
    sql = f"""
        select night, version, start, since, trusted from {{{DRIFT_DETECTOR}}}
        where model = $model and night >= $first and night < $night order by night
    """
    rows = rails.lake.query(sql, as_of, {"model": spec.name, "night": night_closing(as_of), "first": first})
    nights = pd.to_datetime(rows["night"])
    left_out = frozenset(night.toordinal() for night in nights[~rows["trusted"].astype(bool)].dt.date)
    compared = rows[rows["start"].notna()]
    if compared.empty:
        return Before(None, left_out)
    last = compared.iloc[-1]
    since = None if pd.isna(last["since"]) else pd.Timestamp(last["since"]).date().toordinal()
    return Before(Standing(int(last["version"]), pd.Timestamp(last["start"]).date().toordinal(), since), left_out)
