"""One model under one policy, night by night: the same pure functions as in production, on nights kept in memory."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard.clock import NIGHT, midnight, night_closing
from tiltyard.govern import change, history
from tiltyard.govern.change import KnownTruth, Standing, TrainedPromise
from tiltyard.govern.history import Became, Grant
from tiltyard.judge import gate, pairs, rollback
from tiltyard.prepare import truth as truths
from tiltyard.records import Broken, EvidenceRecord, Finding, Promotion, SinceTraining, Watch
from tiltyard.rewind.past import ModelPast, PastVersion
from tiltyard.rewind.trainings import PastTrainings
from tiltyard.spec import Spec
from tiltyard.succession import ChampionChange, ChampionStep, Roles, cast, succession
from tiltyard.train import profile

ASSUMED = gate.Replayed("pass", "assumed in a hindcast: the predictions it would test were never made")
"""The millisecond test, which needs predictions that were really made."""
SOUND = gate.Labelled("sound", "The labels are assumed to be sound in a trial of policies.")
"""The check of labels, which needs what was said of their rows on each night."""
DAY = timedelta(days=1)


class PlayedRetrain(NamedTuple):
    """A retrain that was granted."""

    night: date
    """The night."""
    version: int | None
    """The version that it made; None for none."""
    reasons: tuple[str, ...]
    """Why, a sentence each."""


@dataclass
class Play:
    """One model under one policy: what has been decided so far. Versions are numbered as they are trained."""

    spec: Spec
    """The model, with what the policy says of it."""
    past: ModelPast
    """Its nights."""
    trainings: PastTrainings
    """Its versions."""
    trained: dict[int, date] = field(default_factory=dict)
    """Version → the night that it was trained on."""
    promotions: list[Promotion] = field(default_factory=list)
    """Promotions so far, by night."""
    watches: list[Watch] = field(default_factory=list)
    """Rollbacks so far, by night."""
    rejected: dict[int, date] = field(default_factory=dict)
    """Version → the night on which the gate rejected it."""
    judged: dict[date, int] = field(default_factory=dict)
    """Night → number of challengers."""
    retrains: list[PlayedRetrain] = field(default_factory=list)
    """Retrains so far, by night."""
    champions: dict[date, int | None] = field(default_factory=dict)
    """Night → the version in service; None for the safe default."""
    held: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Criterion → how often it stood between a challenger and its promotion."""
    actions: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """The governor's decision → nights."""
    standing: Standing | None = None
    """Where the detector of the model stands; None before it has looked."""
    doubtful: set[int] = field(default_factory=set)
    """Nights that drift did not trust."""

    @property
    def changes(self) -> list[ChampionChange]:
        """The changes of champion so far, oldest first."""
        steps = [ChampionStep(entry.night, False, entry.version, entry.replaced) for entry in self.promotions]
        steps += [ChampionStep(entry.night, True, entry.champion, entry.previous) for entry in self.watches]
        return succession(steps)

    def roles(self, night: date) -> Roles:
        """Who does what at a night."""
        rejected = {number for number, when in self.rejected.items() if when < night}
        return cast(self.trained, self.changes, rejected, night)

    def version(self, number: int) -> PastVersion:
        """The version of this number."""
        version = self.trainings.get(self.trained[number])
        assert version is not None  # a number is given when there is a version
        return version

    def add(self, night: date, reasons: Sequence[str]) -> None:
        """Train on a night. A frame that cannot carry a model gives no version, as in production."""
        version = self.trainings.get(night)
        number = max(self.trained, default=0) + 1 if version is not None else None
        if number is not None:
            self.trained[number] = night
        self.retrains.append(PlayedRetrain(night, number, tuple(reasons)))

    def side_by_side(self, as_of: datetime, versions: Sequence[int], since: date) -> pd.DataFrame:
        """What truth.side_by_side gives at `as_of`, cut from memory."""
        own, target = self.past, self.spec.target
        night = night_closing(as_of).toordinal()
        inside = slice(*np.searchsorted(own.night, [since.toordinal(), night + 1]))
        matured, label = own.matured_at(as_of)[inside], own.truth_at(as_of)[inside]
        nights = own.night[inside]
        columns: dict[str, NDArray[Any]] = {
            "prediction_time": own.instants[inside],
            "night": own.cohort[inside],
            "scored_on": nights,
            "is_matured": matured,
            "is_early": ~matured & np.isfinite(label),
            "label": np.where(matured, label, np.nan),
        }
        for number in versions:
            scores = target.where(nights > self.trained[number].toordinal(), self.version(number).scores[inside])
            columns[f"v{number}"] = target.column(scores)
        for name in self.spec.gate.slices:
            columns[f"slice_{name}"] = own.slices[name][inside]
        rows = pd.DataFrame(columns)
        stopped = [night_stopped.toordinal() for night_stopped in own.stopped]
        return rows[~rows["scored_on"].isin(stopped)] if stopped else rows

    # -- a night ------------------------------------------------------------------------------

    def decide(self, as_of: datetime) -> None:
        """What the promotion stage does on a night: watch, judge, promote."""
        night = night_closing(as_of)
        roles = self.roles(night)
        self.champions[night] = roles.champion
        if self._rolled_back(as_of):
            return
        ready = [number for number in roles.challengers if self._has_matured(as_of, self.trained[number])]
        self.judged[night] = len(roles.challengers)
        if not ready:
            return
        since = min(self.trained[number] for number in ready) + DAY
        wanted = [number for number in (roles.champion, *ready) if number is not None]
        rows = self.side_by_side(as_of, wanted, since)
        best: tuple[float, int] | None = None
        for number in ready:
            at_once = max(count for when, count in self.judged.items() if when > self.trained[number])
            evidence, _ = pairs.gather(
                self.spec, night, rows, number, roles.champion, self._facts(number, at_once, night)
            )
            verdict = gate.decide(evidence, self.spec.gate, self.spec.fallback.deadline_ms)
            for criterion in verdict.criteria:
                if criterion.status != "pass":
                    self.held[criterion.name.partition("=")[0]] += 1
            if verdict.verdict == "reject":
                self.rejected[number] = night
            elif verdict.verdict == "promote" and verdict.low is not None:
                best = max(best or (verdict.low, number), (verdict.low, number))
        if best is not None:
            self.promotions.append(
                Promotion(
                    model=self.spec.name,
                    version=best[1],
                    night=night,
                    replaced=roles.champion,
                    requested_by="backtest",
                    approved_by=None,
                    approval={},
                )
            )

    def _has_matured(self, as_of: datetime, trained: date) -> bool:
        """Has any row that the version scored matured? Before that no evidence can promote or reject it."""
        first = int(np.searchsorted(self.past.night, trained.toordinal() + 1))
        return bool(self.past.matured_at(as_of)[first:].any())

    def _rolled_back(self, as_of: datetime) -> bool:
        change = rollback.watched(self.spec, self.changes, as_of)
        if change is None:
            return False
        versions = [number for number in (change.champion, change.previous) if number is not None]
        rows = self.side_by_side(as_of, versions, change.night + DAY)
        rows = rows[rows["scored_on"] <= (change.night + self.spec.gate.rollback_window).toordinal()]
        evidence, _ = pairs.gather(self.spec, night_closing(as_of), rows, change.previous, change.champion, fills=True)
        if gate.watch(evidence, self.spec.gate).verdict != "rollback":
            return False
        night = night_closing(as_of)
        assert change.version is not None  # it was promoted
        self.watches.append(
            Watch(
                model=self.spec.name,
                night=night,
                champion=change.version,
                previous=change.previous,
                verdict="rollback",
                reasons=(),
                evidence=EvidenceRecord(model=self.spec.name, night=night),
            )
        )
        return True

    def _facts(self, number: int, at_once: int, night: date) -> pairs.ChallengerFacts:
        version = self.version(number)
        shares = version.missing(version.seen(self.trained[number], night, self.past.stopped))
        return pairs.ChallengerFacts(
            challengers=at_once,
            missing=pairs.missing(shares, pairs.missing_at_training(version.reference)),
            latency_ms=version.facts.latency_ms,
            size_mb=version.facts.size_mb,
            replay=ASSUMED,
            labels=SOUND,
        )

    def look(self, as_of: datetime, threshold: float) -> Finding:
        """What the drift stage finds on a night, before anything is decided on it."""
        night = night_closing(as_of)
        spec, roles = self.spec, self.roles(night)
        broken = tuple(
            Broken(incident.table, incident.column or None, str(incident)) for incident in self.past.broken[night]
        )
        number = roles.champion if roles.champion is not None else max(roles.challengers, default=None)
        plain = Finding(
            spec.name,
            night,
            spec.tier,
            spec.owner,
            champion=roles.champion,
            challengers=tuple(roles.challengers),
            min_matured=spec.gate.min_matured,
            since_training=self._since_training(as_of),
        )
        if number is None:
            return replace(plain, broken=broken, matured=self.trainings.matured(night))
        version, trained = self.version(number), self.trained[number]
        window = max(round(spec.drift.window / NIGHT), 1)
        reference = version.remembered
        seen = version.seen(trained, night, self.past.stopped)
        if not len(seen.nights) or seen.nights[-1] <= night.toordinal() - window:
            broken += (Broken("shadow", None, f"there was nothing to predict on in the {window} nights up to {night}"),)
        if broken:
            self.doubtful.add(night.toordinal())
        if reference is None:
            return replace(plain, broken=broken)
        answered = self.became(night).answered
        comparison = change.compare(
            reference,
            seen,
            self._truth(as_of, version, trained, reference),
            spec.drift,
            TrainedPromise(version.loss_high, spec.fallback.safe_default, spec.gate.min_matured, spec.target),
            threshold,
            number,
            night.toordinal(),
            window=window,
            standing=self.standing,
            answered=answered.toordinal() if answered else None,
            trusted=not broken,
            left_out=frozenset(self.doubtful),
        )
        self.standing = comparison.standing
        return replace(
            plain,
            alarm=comparison.alarm,
            evidence=comparison.evidence,
            threshold=comparison.threshold,
            harm=comparison.harm,
            harm_reason=comparison.harm_reason,
            signals=comparison.signals,
            broken=(*broken, *comparison.broken),
        )

    def _since_training(self, as_of: datetime) -> SinceTraining:
        """What has passed since the newest training before the night."""
        night = night_closing(as_of)
        trained = max((when for when in self.trained.values() if when < night), default=None)
        if trained is None or self.spec.retrain.after_matured is None:
            return SinceTraining(trained)
        since = self.past.matured_at(as_of) & ~self.past.matured_at(midnight(trained))
        return SinceTraining(trained, int(np.isfinite(self.past.truth_at(as_of)[since]).sum()))

    def _truth(self, as_of: datetime, version: PastVersion, trained: date, reference: profile.Reference) -> KnownTruth:
        """The matured truth of one version at `as_of`, and its scores of the window that wait for theirs."""
        own, night, target = self.past, night_closing(as_of).toordinal(), self.spec.target
        cutoff = truths.cutoff(self.spec, as_of).date().toordinal()
        begin, end = np.searchsorted(own.night, [trained.toordinal() + 1, night + 1])
        counts = own.matured_at(as_of)[begin:end] & target.is_scored(version.scores[begin:end])
        label = own.truth_at(as_of)[begin:end]
        counts &= np.isfinite(label)
        if own.stopped:
            counts &= ~np.isin(own.night[begin:end], [night_stopped.toordinal() for night_stopped in own.stopped])
        nights, score = own.cohort[begin:end][counts], version.scores[begin:end][counts]
        label = label[counts]
        order = np.argsort(nights, kind="stable")
        nights, score, label = nights[order], score[order], label[order]
        first = night - round(self.spec.drift.window / DAY) + 1
        window = slice(*np.searchsorted(own.night, [max(first, trained.toordinal() + 1), night + 1]))
        waiting = version.scores[window][own.cohort[window] > cutoff]
        counted = profile.truth(reference, nights, score, label, target) if len(nights) else profile.EMPTY
        return KnownTruth(cutoff, counted, nights, score, label, waiting[target.is_scored(waiting)])

    def became(self, night: date) -> history.ModelHistory:
        """The model's retrains before `night`, and what had become of each by then."""
        promoted = {entry.version for entry in self.promotions if entry.night < night}
        rejected = {number for number, when in self.rejected.items() if when < night}

        def outcome_of(number: int | None) -> Became:
            if number is None:
                return "none"
            return "promoted" if number in promoted else "rejected" if number in rejected else "pending"

        champion = self.roles(night).champion
        return history.ModelHistory(
            grants=tuple(Grant(retrain.night, outcome_of(retrain.version)) for retrain in self.retrains),
            best=self.trained[champion] if champion is not None else None,
        )
