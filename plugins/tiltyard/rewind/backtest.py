"""The same past nights under several policies at once: what would each gate, drift policy and budget have done?

    the nights, once (past.py)      rows, truth as it came, incidents, versions by training night
             │
             ▼ per policy, night by night, all models
    roles → rollback watch, gate → drift → governor → trainings            the same pure functions as in production
             │
             ▼ in hindsight (outcome.py)
    promotions, rollbacks, retrains and those for nothing, days behind, realized loss beside: never retrained, retrained
    weekly and always promoted, the best that there was

No policy writes anything into the lake or the ledger; what a night found is kept under home/hindcast, so that another
policy, or the same command after an interruption, goes on from there. Approvals are assumed to be given, and the
millisecond test, which needs predictions that were really made, is assumed to be clean: both are in the result.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.govern import change, governor, history
from tiltyard.govern.change import Promise, Standing, Truth
from tiltyard.govern.history import Became, Drifting, Grant, History, Mended
from tiltyard.govern.lineage import Lineage
from tiltyard.judge import gate, pairs, rollback
from tiltyard.ledger import Change, Roles, cast, succession
from tiltyard.prepare import data_incidents, features, transform
from tiltyard.prepare import truth as truths
from tiltyard.rails import Rails
from tiltyard.records import Broken, EvidenceRecord, Finding, Incident, Promotion, Watch
from tiltyard.rewind import outcome, past
from tiltyard.rewind.outcome import Lines
from tiltyard.rewind.past import Past, Version, Workers
from tiltyard.rewind.policy import Policy
from tiltyard.spec import Spec
from tiltyard.target import METRICS
from tiltyard.train import profile

Progress = Callable[[str, float], None]
BASELINES = ("never retrained", "weekly, always promoted", "best there was", "safe default")
ASSUMED = gate.Replayed("pass", "assumed in a hindcast: the predictions it would test were never made")
WEEK = timedelta(days=7)
DAY = timedelta(days=1)


@dataclass
class Trainings:
    """The versions of one model, each made once, whoever asks first."""

    spec: Spec
    workers: Workers
    rails: Rails
    snapshot: int
    rows: str
    asked: dict[date, Any] = field(default_factory=dict)
    lines: dict[date, Any] = field(default_factory=dict)
    """Night → the scores of a training that nobody but a line of losses needs; None where there is none."""
    counted: dict[date, int] = field(default_factory=dict)
    made: dict[date, Version | None] = field(default_factory=dict)
    reasons: dict[date, str] = field(default_factory=dict)

    def ask(self, night: date) -> None:
        """Begin the training of a night; nobody waits for it yet."""
        if night not in self.asked:
            self.asked[night] = self.workers.train(self.spec, clock.midnight(night), self.snapshot, self.rows)

    def get(self, night: date) -> Version | None:
        """The version of a night; None where its frame could not carry one."""
        self.ask(night)
        if night not in self.made:
            found = self.asked[night].result()
            self.reasons[night] = found.get("reason", "")
            self.made[night] = (
                past.version(self.rails.settings, found["inputs"], self.rows) if "inputs" in found else None
            )
        return self.made[night]

    def ask_line(self, night: date) -> None:
        if night not in self.lines:
            self.lines[night] = self.workers.line(self.spec, clock.midnight(night), self.snapshot, self.rows)

    def line(self, night: date) -> "NDArray[np.float64] | None":
        """The scores of the version of a night, of all rows; None where its frame could not carry one."""
        self.ask_line(night)
        if isinstance(self.lines[night], Future):
            found = self.lines[night].result()
            self.lines[night] = None if "reason" in found else past.line(self.rails.settings, found, self.rows)
        return self.lines[night]

    def matured(self, night: date) -> int:
        """How many matured labels a training frame of the night would hold."""
        if night not in self.counted:
            self.counted[night] = self.workers.matured(self.spec, clock.midnight(night), self.snapshot).result()
        return self.counted[night]

    def first_night(self, nights: Sequence[datetime]) -> date | None:
        """The first night on which a model without any version would train."""
        enough = max(self.spec.gate.min_matured, 1)
        return next((night_closing(as_of) for as_of in nights if self.matured(night_closing(as_of)) >= enough), None)


@dataclass
class Play:
    """One model under one policy: what has been decided so far. Versions are numbered as they are trained."""

    spec: Spec
    past: Past
    trainings: Trainings
    trained: dict[int, date] = field(default_factory=dict)
    promotions: list[Promotion] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    rejected: dict[int, date] = field(default_factory=dict)
    judged: dict[date, int] = field(default_factory=dict)
    retrains: list[dict[str, Any]] = field(default_factory=list)
    champions: dict[date, int | None] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Criterion → how often it stood between a challenger and its promotion."""
    actions: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """The governor's decision → nights."""
    standing: Standing | None = None
    doubtful: set[int] = field(default_factory=set)
    """Nights that drift did not trust."""

    @property
    def changes(self) -> list[Change]:
        return succession(self.promotions, self.watches)

    def roles(self, night: date) -> Roles:
        rejected = {number for number, when in self.rejected.items() if when < night}
        return cast(self.trained, self.changes, rejected, night)

    def version(self, number: int) -> Version:
        found = self.trainings.get(self.trained[number])
        assert found is not None  # a number is given when there is a version
        return found

    def add(self, night: date, reasons: Sequence[str]) -> None:
        """Train on a night. A frame that cannot carry a model gives no version, as in production."""
        found = self.trainings.get(night)
        number = max(self.trained, default=0) + 1 if found is not None else None
        if number is not None:
            self.trained[number] = night
        self.retrains.append({"night": night, "version": number, "reasons": list(reasons)})

    def side_by_side(self, as_of: datetime, versions: Sequence[int], since: date) -> pd.DataFrame:
        """What truth.side_by_side gives at `as_of`, cut from memory."""
        mine = self.past
        night = night_closing(as_of).toordinal()
        inside = slice(*np.searchsorted(mine.night, [since.toordinal(), night + 1]))
        matured, label = mine.matured_at(as_of)[inside], mine.truth_at(as_of)[inside]
        columns: dict[str, Any] = {
            "prediction_time": mine.instants[inside],
            "night": mine.night[inside],
            "is_matured": matured,
            "is_early": ~matured & np.isfinite(label),
            "label": np.where(matured, label, np.nan),
        }
        for number in versions:
            own = self.version(number).scores[inside]
            columns[f"v{number}"] = np.where(columns["night"] > self.trained[number].toordinal(), own, np.nan)
        for name in self.spec.gate.slices:
            columns[f"slice_{name}"] = mine.slices[name][inside]
        rows = pd.DataFrame(columns)
        stopped = [when.toordinal() for when in mine.stopped]
        return rows[~rows["night"].isin(stopped)] if stopped else rows

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
                self.spec, night, rows, number, roles.champion, self._what_is_known(number, at_once, night)
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
        return first < self.past.rows and bool(self.past.matured_at(as_of)[first])

    def _rolled_back(self, as_of: datetime) -> bool:
        change = rollback.watched(self.spec, self.changes, as_of)
        if change is None:
            return False
        versions = [number for number in (change.champion, change.previous) if number is not None]
        rows = self.side_by_side(as_of, versions, change.night + DAY)
        rows = rows[rows["night"] <= (change.night + self.spec.gate.rollback_window).toordinal()]
        evidence, _ = pairs.gather(self.spec, night_closing(as_of), rows, change.previous, change.champion, fills=True)
        if gate.watch(evidence, self.spec.gate).verdict != "rollback":
            return False
        night = night_closing(as_of)
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

    def _what_is_known(self, number: int, at_once: int, night: date) -> pairs.Known:
        version = self.version(number)
        shares = version.missing(version.seen(self.trained[number], night, self.past.stopped))
        return pairs.Known(
            challengers=at_once,
            missing=pairs.missing(shares, pairs.missing_at_training(version.reference)),
            latency_ms=version.facts.latency_ms,
            size_mb=version.facts.size_mb,
            replay=ASSUMED,
        )

    def look(self, as_of: datetime, threshold: float) -> Finding:
        """What the drift stage finds on a night, before anything is decided on it."""
        night = night_closing(as_of)
        spec, roles = self.spec, self.roles(night)
        broken = tuple(
            Broken(incident.table, incident.column or None, str(incident)) for incident in self.past.broken[night]
        )
        number = roles.champion if roles.champion is not None else max(roles.challengers, default=None)
        plain = {"model": spec.name, "night": night, "tier": spec.tier, "owner": spec.owner, "champion": roles.champion}
        plain |= {"challengers": roles.challengers, "min_matured": spec.gate.min_matured}
        if number is None:
            return Finding(**plain, broken=broken, matured=self.trainings.matured(night))
        version, trained = self.version(number), self.trained[number]
        window = max(round(spec.drift.window / spec.prediction.every), 1)
        reference = version.remembered
        seen = version.seen(trained, night, self.past.stopped)
        if not len(seen.nights) or seen.nights[-1] <= night.toordinal() - window:
            broken += (Broken("shadow", None, f"there was nothing to predict on in the {window} nights up to {night}"),)
        if broken:
            self.doubtful.add(night.toordinal())
        if reference is None:
            return Finding(**plain, broken=broken)
        answered = self.became(night).answered
        comparison = change.compare(
            reference,
            seen,
            self._truth(as_of, version, trained, reference),
            spec.drift,
            Promise(version.loss_high, spec.fallback.safe_default, spec.gate.min_matured, spec.target),
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
        return Finding(
            **plain,
            alarm=comparison.alarm,
            evidence=comparison.evidence,
            threshold=comparison.threshold,
            harm=comparison.harm,
            harm_said=comparison.harm_said,
            signals=comparison.signals,
            broken=(*broken, *comparison.broken),
        )

    def _truth(self, as_of: datetime, version: Version, trained: date, reference: profile.Reference) -> Truth:
        """The matured truth of one version at `as_of`, and its scores of the window that wait for theirs."""
        mine, night = self.past, night_closing(as_of).toordinal()
        cutoff = truths.cutoff(self.spec, as_of).date().toordinal()
        begin, end = np.searchsorted(mine.night, [trained.toordinal() + 1, night + 1])
        known = mine.matured_at(as_of)[begin:end] & np.isfinite(version.scores[begin:end])
        label = mine.truth_at(as_of)[begin:end]
        known &= np.isfinite(label)
        if mine.stopped:
            known &= ~np.isin(mine.night[begin:end], [when.toordinal() for when in mine.stopped])
        nights, score = mine.night[begin:end][known], version.scores[begin:end][known]
        label = label[known]
        first = max(cutoff + 1, night - round(self.spec.drift.window / DAY) + 1)
        waits = slice(*np.searchsorted(mine.night, [max(first, trained.toordinal() + 1), night + 1]))
        waiting = version.scores[waits]
        target = self.spec.target
        counted = profile.truth(reference, nights, score, label, target) if len(nights) else profile.EMPTY
        return Truth(cutoff, counted, nights, score, label, waiting[np.isfinite(waiting)])

    def became(self, night: date) -> history.Past:
        """The model's retrains before `night`, and what had become of each by then."""
        promoted = {entry.version for entry in self.promotions if entry.night < night}
        rejected = {number for number, when in self.rejected.items() if when < night}

        def outcome_of(number: int | None) -> Became:
            if number is None:
                return "none"
            return "promoted" if number in promoted else "rejected" if number in rejected else "pending"

        champion = self.roles(night).champion
        return history.Past(
            grants=tuple(Grant(row["night"], outcome_of(row["version"])) for row in self.retrains),
            best=self.trained[champion] if champion is not None else None,
        )


# -- all of it ----------------------------------------------------------------------------------------------


def run(
    rails: Rails,
    policies: Sequence[Policy],
    first: datetime,
    last: datetime,
    *,
    jobs: int = 2,
    plots: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Replay every night whose `as_of` lies in [first, last] under each policy. JSON-ready.

    {"from", "to", "policies": {policy: {model: what it did and what that was worth}}, "baselines": {model: {baseline:
    loss}}, "metric", "assumed", "plots"}. With `plots`, a picture per model is written into that folder. The same
    nights and policies give the same result, whatever `jobs`. Raises BadInput for a range without nights.
    """
    say = progress or (lambda label, fraction: None)
    specs = policies[0].specs
    nights = list(clock.nights(first, last))
    unjudged = [night for night in nights if past.judged(rails, night) is None]
    with Workers(rails.settings, jobs, judges=bool(unjudged)) as workers:
        if unjudged:
            say("landing the data", 0.0)
            features.ingest(rails, last)
            say("building the features", 0.02)
            features.transform(rails, last)
        verdicts = {night: workers.check(night) for night in unjudged}
        models, weekly = _prepare(rails, workers, specs, nights, say)

        def judged(as_of: datetime) -> None:
            if as_of in verdicts:
                verdicts[as_of].result()
            for own, _ in models.values():
                past.learn(rails, own, as_of)

        @cache
        def mended(night: date) -> tuple[Mended, ...]:
            return tuple(Mended(*one) for one in data_incidents.mended(rails, night))

        lineage = Lineage.of(transform.manifest(rails.settings), specs)
        plays = {}
        for place, policy in enumerate(policies):
            share = 0.1 + 0.8 * place / len(policies)

            def told(night: date, done: float, share: float = share, name: str = policy.name) -> None:
                say(f"policy {name}, night of {night}", share + 0.8 * done / len(policies))

            plays[policy.name] = _play(policy, models, nights, lineage, weekly, judged, mended, told)
        for spec in specs:
            for place, night in enumerate(weekly[spec.name]):
                say(f"the line of {spec.name} trained on {night}", 0.9 + 0.06 * place / len(weekly[spec.name]))
                models[spec.name][1].line(night)
        say("looking back", 0.96)
        result = _result(rails, policies, plays, models, weekly, nights)
    if plots is not None:
        result["plots"] = [str(path) for path in _draw(result, plots)]
    say("done", 1.0)
    return result


def _prepare(
    rails: Rails,
    workers: Workers,
    specs: Sequence[Spec],
    nights: Sequence[datetime],
    say: Progress,
) -> tuple[dict[str, tuple[Past, Trainings]], dict[str, list[date]]]:
    """What does not depend on a policy: the rows, and the lines of the weekly trainings."""
    first, last, snapshot = nights[0], nights[-1], rails.lake.snapshot()
    rows = {spec.name: workers.gather(spec, first, last, snapshot) for spec in specs}
    trainings = {spec.name: Trainings(spec, workers, rails, snapshot, rows[spec.name].result()) for spec in specs}
    weekly = {}
    for spec in specs:
        begin = trainings[spec.name].first_night(nights)
        days = [night_closing(as_of) for as_of in nights]
        weekly[spec.name] = [day for day in days if begin and day >= begin and (day - begin) % WEEK == timedelta()]
    models = {}
    for spec in specs:
        one = trainings[spec.name]
        models[spec.name] = (past.read(rails, spec, first, last, one.rows), one)
    return models, weekly


def _play(
    policy: Policy,
    models: Mapping[str, tuple[Past, Trainings]],
    nights: Sequence[datetime],
    lineage: Lineage,
    weekly: Mapping[str, Sequence[date]],
    judged: Callable[[datetime], None],
    mended: Callable[[date], tuple[Mended, ...]],
    told: Callable[[date, float], None],
) -> dict[str, Play]:
    """All nights under one policy, all models of a night together: the governor decides for them at once."""
    plays = {spec.name: Play(spec, *models[spec.name]) for spec in policy.specs}
    threshold = policy.portfolio.budget.nights_between(len(plays))
    drift = {spec.name: spec.drift for spec in policy.specs}
    since: Mapping[Drifting, date] = {}
    incidents: tuple[Incident, ...] = ()
    for place, as_of in enumerate(nights):
        night = night_closing(as_of)
        told(night, place / len(nights))
        judged(as_of)
        running = [play for play in plays.values() if night not in play.past.stopped]
        for play in running:
            play.decide(as_of)
        found = governor.govern(
            [play.look(as_of, threshold) for play in running],
            lineage,
            History(
                night=night,
                models={name: play.became(night) for name, play in plays.items()},
                since=since,
                incidents=incidents,
                mended=mended(night),
            ),
            drift,
            policy.portfolio,
        )
        since, incidents = found.since, found.incidents
        reasons = {action.model: action.reasons for action in found.actions}
        for action in found.actions:
            plays[action.model].actions[action.decision] += 1
        for name in found.granted:
            plays[name].trainings.ask(night)
        for name, play in plays.items():  # after what a policy waits for
            if night in weekly[name]:
                play.trainings.ask_line(night)
        for name in found.granted:
            plays[name].add(night, reasons[name])
    return plays


# -- in hindsight -------------------------------------------------------------------------------------------


def _result(
    rails: Rails,
    policies: Sequence[Policy],
    plays: Mapping[str, Mapping[str, Play]],
    models: Mapping[str, tuple[Past, Trainings]],
    weekly: Mapping[str, Sequence[date]],
    nights: Sequence[datetime],
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "from": str(night_closing(nights[0])),
        "to": str(night_closing(nights[-1])),
        "assumed": [
            "approvals are given",
            "the millisecond test is clean",
            "Evidently agrees with the effect",
            "nobody releases a shift that is held",
        ],
        "policies": {policy.name: {} for policy in policies},
        "baselines": {},
    }
    for spec in policies[0].specs:
        own, trainings = models[spec.name]
        lines = _lines(spec, own, trainings)
        days = [night_closing(as_of) for as_of in nights if night_closing(as_of) not in own.stopped]
        made = [night for night in weekly[spec.name] if trainings.line(night) is not None]
        champions = {
            "never retrained": outcome.always_newest(days, made[:1]),
            "weekly, always promoted": outcome.always_newest(days, made),
            "best there was": outcome.oracle(lines, days),
            "safe default": dict.fromkeys(days, None),
        }
        served = {name: outcome.served(lines, chosen) for name, chosen in champions.items()}
        best = served["best there was"]
        told["baselines"][spec.name] = {
            name: {
                "loss": _mean(loss),
                "days_behind": outcome.days_behind(lines, loss, best),
                "weeks": _weeks(lines, loss),
            }
            for name, loss in served.items()
        }
        told["baselines"][spec.name]["weekly, always promoted"]["retrains"] = len(made)
        for policy in policies:
            told["policies"][policy.name][spec.name] = _worth(plays[policy.name][spec.name], lines, best)
        told.setdefault("metric", {})[spec.name] = spec.gate.metric
    return told


def _lines(spec: Spec, own: Past, trainings: Trainings) -> Lines:
    truth = own.truth
    known = np.isfinite(truth)

    def loss(score: Any) -> Any:
        scored = known & np.isfinite(score)
        found = np.full(own.rows, np.nan)
        policy = spec.gate
        found[scored] = spec.target.losses(policy.metric, score[scored], truth[scored], policy.cost)
        return found

    scores = {night: trainings.line(night) for night in list(trainings.lines)}
    scores |= {night: version.scores for night, version in trainings.made.items() if version is not None}
    return Lines(
        own.night,
        {night: loss(values) for night, values in scores.items() if values is not None},
        loss(np.full(own.rows, spec.fallback.safe_default)),
    )


def _worth(play: Play, lines: Lines, best: Any) -> dict[str, Any]:
    """What one model did under one policy, and what that was worth."""
    trained = {night: play.trained[number] if number else None for night, number in play.champions.items()}
    loss = outcome.served(lines, trained)
    retrains = []
    for row in play.retrains:
        before = trained.get(row["night"])
        false = outcome.is_false(lines, row["night"], before) if row["version"] is not None else None
        retrains.append({**row, "night": str(row["night"]), "false": false})
    return {
        "promotions": [
            {"night": str(entry.night), "version": entry.version, "trained": str(play.trained[entry.version])}
            for entry in play.promotions
        ],
        "rollbacks": [{"night": str(entry.night), "version": entry.champion} for entry in play.watches],
        "rejected": [{"night": str(night), "version": number} for number, night in play.rejected.items()],
        "retrains": retrains,
        "false_retrains": sum(row["false"] is True for row in retrains[1:]),
        "days_behind": outcome.days_behind(lines, loss, best),
        "rows": int(np.isfinite(loss).sum()),
        "loss": _mean(loss),
        "weeks": _weeks(lines, loss),
        "held_by": dict(sorted(play.held.items(), key=lambda item: (-item[1], item[0]))),
        "actions": dict(sorted(play.actions.items())),
    }


def _weeks(lines: Lines, loss: Any) -> list[list[Any]]:
    return [[str(night), round(mean, 6), rows] for night, mean, rows in outcome.weekly(lines, loss)]


def _mean(loss: Any) -> float | None:
    known = loss[np.isfinite(loss)]
    return round(float(known.mean()), 6) if len(known) else None


def _draw(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """A picture per model: every policy's line beside the baselines', and what each policy did."""
    from tiltyard.pages import plots

    drawn = []
    for model, baselines in result["baselines"].items():
        mine = {name: models[model] for name, models in result["policies"].items()}
        lines = {
            name: [(date.fromisoformat(night), loss, rows) for night, loss, rows in one["weeks"]]
            for name, one in {**baselines, **mine}.items()
        }
        events = {
            name: {
                kind: [date.fromisoformat(row["night"]) for row in one[f"{kind}s"]]
                for kind in ("promotion", "rollback", "retrain")
            }
            for name, one in mine.items()
        }
        title = f"{model} under {len(mine)} polic{'y' if len(mine) == 1 else 'ies'}, {result['from']} to {result['to']}"
        metric = METRICS[result["metric"][model]]
        drawn.append(plots.policies(lines, events, folder / f"{model}.png", title=title, metric=metric))
    return drawn
