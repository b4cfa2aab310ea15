"""What policies were worth, in hindsight: their plays and the baselines, measured by the last truth that came."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from tiltyard.pages import plots
from tiltyard.rewind import outcome
from tiltyard.rewind.outcome import Floats, Lines
from tiltyard.rewind.past import ModelPast
from tiltyard.rewind.play import Play, PlayedRetrain
from tiltyard.rewind.policy import Policy
from tiltyard.rewind.trainings import PastTrainings
from tiltyard.rewind.trial import (
    BaselineWorth,
    PolicyTrial,
    PolicyWorth,
    TrainedVersion,
    TriedRetrain,
    VersionNight,
    WeekLoss,
)
from tiltyard.spec import Spec
from tiltyard.target import METRICS

NEVER, WEEKLY, BEST, DEFAULT = BASELINES = (
    "never retrained", "weekly, always promoted", "best there was", "safe default",
)  # fmt: skip
ASSUMED = (
    "approvals are given",
    "the millisecond test is clean",
    "the labels are sound",
    "Evidently agrees with the effect",
    "nobody releases a shift that is held",
)


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What of one model does not depend on a policy."""

    past: ModelPast
    """Its nights."""
    trainings: PastTrainings
    """Its versions."""
    weekly: tuple[date, ...]
    """The nights on which somebody who retrains weekly trains."""


def look_back(
    policies: Sequence[Policy],
    plays: Mapping[str, Mapping[str, Play]],
    models: Mapping[str, Prepared],
    nights: Sequence[date],
) -> PolicyTrial:
    """Every play and every baseline, measured. `plays`: policy → model → its play."""
    tried: dict[str, dict[str, PolicyWorth]] = {policy.name: {} for policy in policies}
    baselines = {}
    for spec in policies[0].specs:
        prepared = models[spec.name]
        lines = lines_of(spec, prepared)
        days = [night for night in nights if night not in prepared.past.stopped]
        trained = [night for night in prepared.weekly if prepared.trainings.line(night) is not None]
        champions = {
            NEVER: outcome.always_newest(days, trained[:1]),
            WEEKLY: outcome.always_newest(days, trained),
            BEST: outcome.oracle(lines, days),
            DEFAULT: dict.fromkeys(days, None),
        }
        served = {name: outcome.served(lines, versions) for name, versions in champions.items()}
        baselines[spec.name] = {
            name: BaselineWorth(
                loss=_mean(loss),
                days_behind=outcome.days_behind(lines, loss, served[BEST]),
                weeks=_weeks(lines, loss),
                retrains=len(trained) if name == WEEKLY else None,
            )
            for name, loss in served.items()
        }
        for policy in policies:
            tried[policy.name][spec.name] = _worth(plays[policy.name][spec.name], lines, served[BEST])
    return PolicyTrial(
        first=nights[0],
        last=nights[-1],
        assumed=ASSUMED,
        policies=tried,
        baselines=baselines,
        metric={spec.name: spec.gate.metric for spec in policies[0].specs},
    )


def lines_of(spec: Spec, prepared: Prepared) -> Lines:
    """Losses per row of every version that was asked for, and of the safe default."""
    truth = prepared.past.truth
    has_truth = np.isfinite(truth)

    def losses(score: Floats) -> Floats:
        is_scored = has_truth & spec.target.is_scored(score)
        values = np.full(prepared.past.rows, np.nan)
        values[is_scored] = spec.target.losses(spec.gate.metric, score[is_scored], truth[is_scored], spec.gate.cost)
        return values

    return Lines(
        prepared.past.night,
        {night: losses(score) for night, score in prepared.trainings.scores().items()},
        losses(spec.target.constant(spec.fallback.safe_default, prepared.past.rows)),
    )


def _worth(play: Play, lines: Lines, best: Floats) -> PolicyWorth:
    """What one model did under one policy, and what that was worth. `best`: losses of the best there was."""
    champions = {night: play.trained[number] if number else None for night, number in play.champions.items()}
    loss = outcome.served(lines, champions)
    retrains = tuple(_retrain(retrain, lines, champions) for retrain in play.retrains)
    return PolicyWorth(
        promotions=tuple(
            TrainedVersion(night=entry.night, version=entry.version, trained=play.trained[entry.version])
            for entry in play.promotions
        ),
        rollbacks=tuple(VersionNight(night=entry.night, version=entry.champion) for entry in play.watches),
        rejected=tuple(VersionNight(night=night, version=number) for number, night in play.rejected.items()),
        retrains=retrains,
        false_retrains=sum(retrain.false is True for retrain in retrains[1:]),
        days_behind=outcome.days_behind(lines, loss, best),
        rows=int(np.isfinite(loss).sum()),
        loss=_mean(loss),
        weeks=_weeks(lines, loss),
        held_by=dict(sorted(play.held.items(), key=lambda item: (-item[1], item[0]))),
        actions=dict(sorted(play.actions.items())),
    )


def _retrain(retrain: PlayedRetrain, lines: Lines, champions: Mapping[date, date | None]) -> TriedRetrain:
    false = None
    if retrain.version is not None:
        false = outcome.is_false(lines, retrain.night, champions.get(retrain.night))
    return TriedRetrain(night=retrain.night, version=retrain.version, reasons=retrain.reasons, false=false)


def _weeks(lines: Lines, loss: Floats) -> tuple[WeekLoss, ...]:
    return tuple(WeekLoss(night, round(mean, 6), rows) for night, mean, rows in outcome.weekly(lines, loss))


def _mean(loss: Floats) -> float | None:
    finite = loss[np.isfinite(loss)]
    return round(float(finite.mean()), 6) if len(finite) else None


def draw(trial: PolicyTrial, folder: Path) -> tuple[Path, ...]:
    """A picture per model: every policy's line beside the baselines', and what each policy did. One that cannot be
    drawn is left out: what was found is as good without it."""
    pictures = []
    for model, baselines in trial.baselines.items():
        tried = {name: models[model] for name, models in trial.policies.items()}
        lines = {name: worth.weeks for name, worth in {**baselines, **tried}.items()}
        events = {
            name: {
                "promotion": [promotion.night for promotion in worth.promotions],
                "rollback": [rollback.night for rollback in worth.rollbacks],
                "retrain": [retrain.night for retrain in worth.retrains],
            }
            for name, worth in tried.items()
        }
        title = f"{model} under {len(tried)} polic{'y' if len(tried) == 1 else 'ies'}, {trial.first} to {trial.last}"
        metric = METRICS[trial.metric[model]]
        try:
            pictures.append(plots.policies(lines, events, folder / f"{model}.png", title=title, metric=metric))
        except OSError:  # nobody can write there, which whoever named the folder mends
            raise
        except Exception as error:  # whatever matplotlib says of numbers that it did not foresee
            log.warning("the picture of %s is not drawn", model, exc_info=error)
    return tuple(pictures)
