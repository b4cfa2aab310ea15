"""Tune and fit the heavy model and its light twin, and measure both on held-out rows.

Parameters are the ones that do best over the folds of `blocks`. Then both models are fitted again on all rows, because
in a drifting world the newest rows are the ones that matter. What is learned, and what "error" means below, the label's
kind says: of a yes or no and of classes the Brier score, of a number the mean absolute error.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiltyard import estimators
from tiltyard.estimators import XGBOOST, Dimension, Family, Learning, linear
from tiltyard.estimators.family import CPU, HALF_LIFE, Device, Model, named
from tiltyard.records import Interval, Measured, Record
from tiltyard.spec import Estimator
from tiltyard.target import YES_OR_NO, Target, Values
from tiltyard.train import profile
from tiltyard.train.blocks import Matrix, Rows, Split
from tiltyard.train.encoding import Encoding

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

FOLDS = 5
"""Of the scores that each row gets from a model that has not seen it."""
EXPLAINED = 500
"""Most held-out rows whose scores are explained."""
RESAMPLES = 500
"""Bootstrap samples behind an interval."""
PENALTIES = (0.003, 0.03, 0.3, 3.0)
"""Inverse penalties of the light twin to choose from."""
MANY = 50_000
"""Rows from which a fit gets more than one thread. Below, a second thread saves little on an idle machine and
costs thirty times the wall time on a busy one, where its threads wait for each other by spinning."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Params(Record):
    """Parameters of both models."""

    heavy: dict[str, float] = field(default_factory=dict)
    """Parameter of the heavy model's family → its value; what is not named is as in its first trial."""
    half_life_days: float = 14
    """Days after which a training row weighs half; 0 where all weigh the same."""
    light_C: float = PENALTIES[2]
    """Inverse penalty of the light twin, which is chosen after the others."""

    @property
    def flat(self) -> dict[str, float]:
        """All of them by name."""
        return {**self.heavy, HALF_LIFE: self.half_life_days, "light_C": self.light_C}


@dataclass(frozen=True)
class Plan:
    """What is trained as the heavy model."""

    family: Family
    """Its family."""
    searched: Mapping[str, Dimension]
    """Where its parameters are searched."""
    device: Device = CPU
    """What it is fitted on."""

    @classmethod
    def of(cls, estimator: Estimator) -> "Plan":
        """As a spec has it, on what there is here."""
        family = estimators.of_class(estimator.class_)
        return cls(family, family.searched(estimator.params, estimator.search), family.device(estimator.device))


PLAIN = Plan(XGBOOST, XGBOOST.searched({}, {}))
"""Of a model of which nothing is said."""


@dataclass(frozen=True)
class Trial(Record):
    """What one trial of tuning came to."""

    error: float
    """Mean error over the folds, at the best number of rounds."""
    rounds: int
    """That number of boosting rounds; 1 of a family without rounds."""


@dataclass(frozen=True)
class Tuned(Record):
    """What tuning the heavy model chose, and how it got there."""

    params: Params
    """The best trial's parameters; those of the light twin are not among them yet."""
    trials: tuple[Trial, ...]
    """Every trial, in order."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What is drawn of the held-out rows."""

    label: Values
    """(rows,) their labels."""
    scores: Mapping[str, Floats]
    """heavy and light → (rows, *shape) their scores."""
    explained: Matrix
    """(explained, features) some of the rows, encoded."""
    contributions: Floats
    """(explained, features) SHAP values of the heavy model on them."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """Both models, and what was seen on the way to them."""

    heavy: Model
    """The champion-to-be, fitted on all rows."""
    light: Model
    """The light twin, fitted on all rows."""
    params: Params
    """What tuning chose for both."""
    trials: tuple[Trial, ...]
    """Every trial of tuning the heavy model."""
    metrics: Measured
    """Figures of both models on held-out rows."""
    out_of_fold: Floats
    """(rows, *shape) each row's score by a model that has not seen it."""
    importance: dict[str, float]
    """Share of each feature in the mean |SHAP value|."""
    held_out: HeldOut
    """What is drawn of the held-out rows."""
    cpu_s: dict[str, float]
    """`heavy`, `light` → CPU seconds of this process that tuning and fitting it took."""


def fit(
    rows: Rows,
    parts: Split,
    encoding: Encoding,
    *,
    trials: int,
    seed: int,
    threads: int,
    target: Target = YES_OR_NO,
    plan: Plan = PLAIN,
    tuned: Tuned | None = None,
) -> Fitted:
    """Tune both models, measure them on the held-out rows, fit them again on all rows.

    `plan`: what is trained as the heavy model; `tuned`: what tuning these rows gave, where somebody has done it.
    """
    fitter, cpu_s = Fitter(encoding, seed, threads, target, plan), {"heavy": 0.0, "light": 0.0}
    older, newest = rows.take(parts.older), rows.take(parts.held_out)
    with _timed(cpu_s, "heavy"):
        tuned = tuned or tune(fitter, rows, parts, trials)
    with _timed(cpu_s, "light"):
        params = replace(tuned.params, light_C=_tune_light(fitter, rows, parts, tuned.params))
        light, whole_light = fitter.light(older, params), fitter.light(rows, params)
    chosen = ", ".join(f"{key} {value}" for key, value in params.heavy.items())
    log.info("tuned in %d trials: %s", len(tuned.trials), chosen)
    with _timed(cpu_s, "heavy"):
        heavy, whole_heavy = fitter.heavy(older, params), fitter.heavy(rows, params)
    scores = {"heavy": fitter.score(heavy, newest.matrix), "light": fitter.score(light, newest.matrix)}
    explained = newest.matrix[:: -(-len(newest.label) // EXPLAINED)]
    moves = plan.family.contributions(heavy, explained)
    return Fitted(
        heavy=whole_heavy,
        light=whole_light,
        params=params,
        trials=tuned.trials,
        metrics=_measured(newest.label, scores, seed, target),
        out_of_fold=_out_of_fold(fitter, rows, params),
        importance=profile.importance(moves, encoding.features),
        held_out=HeldOut(newest.label, scores, explained, moves),
        cpu_s={name: round(spent, 3) for name, spent in cpu_s.items()},
    )


@contextmanager
def _timed(cpu_s: dict[str, float], name: str) -> Iterator[None]:
    """Adds what is done inside to the CPU seconds of one of both models."""
    before = time.process_time()
    yield
    cpu_s[name] += time.process_time() - before


@dataclass(frozen=True)
class Fitter:
    """Fits either model with given parameters."""

    encoding: Encoding
    """How the rows are encoded: which columns are categories."""
    seed: int
    """Seed of everything random."""
    threads: int
    """Threads that a fit may have for many rows."""
    target: Target = YES_OR_NO
    """The kind of label."""
    plan: Plan = PLAIN
    """What is trained as the heavy model."""

    def heavy(self, rows: Rows, params: Params) -> Model:
        """The heavy model, of the plan's family."""
        return self.plan.family.fit(self.learning(rows, params), params.heavy)

    def errors(self, rows: Rows, params: Params, newer: Rows) -> Floats:
        """(rounds,) the mean loss of the heavy model on newer rows after each round; one where there are no rounds."""
        return self.plan.family.errors(self.learning(rows, params), newer.matrix, newer.label, params.heavy)

    def light(self, rows: Rows, params: Params) -> Model:
        """A linear model over the same matrix, standardised, made of parts that convert to ONNX."""
        return linear.fitted(self.linear(params.light_C), self.learning(rows, params))

    def learning(self, rows: Rows, params: Params) -> Learning:
        """The rows as families take them."""
        return Learning(
            matrix=rows.matrix,
            label=rows.label,
            weights=rows.weights(params.half_life_days),
            target=self.target,
            codes=self.encoding.codes,
            seed=self.seed,
            threads=self.threads if len(rows.label) >= MANY else 1,
            device=self.plan.device.name,
        )

    def linear(self, penalty: float) -> Model:
        """The light twin's last step, not fitted; `penalty` is the inverse one."""
        return named(self.target.light_class)(**self.target.light_arguments(penalty))

    def score(self, model: Model, matrix: Any) -> Floats:
        """(rows, *shape) what a model says of encoded rows, as it is scored. `matrix` may be sparse."""
        return self.target.within(self.target.answers(model, matrix))

    def light_inputs(self) -> Model:
        """What the light twin sees of the matrix, not fitted."""
        return linear.inputs(len(self.encoding.columns), self.encoding.codes)


# -- tuning -----------------------------------------------------------------------------------


def tune(fitter: Fitter, rows: Rows, parts: Split, trials: int) -> Tuned:
    """Parameters, rounds among them, with the lowest mean error over the folds: Bayesian search (TPE)."""
    import optuna  # by weight: half a second

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = fitter.plan.searched
    by_round = next((name for name, dimension in space.items() if dimension.is_by_round), None)
    fewest = int(space[by_round].low) if by_round else 1
    rounds: dict[int, int] = {}
    tried: dict[int, Params] = {}
    folds = [(rows.take(older), rows.take(newer)) for older, newer in parts.folds]

    def error(trial: "optuna.Trial") -> float:
        params = _params({name: _suggested(trial, name, dimension) for name, dimension in space.items()})
        errors = list(side_by_side.map(lambda fold: fitter.errors(fold[0], params, fold[1]), folds))
        mean = np.mean(errors, axis=0)[fewest - 1 :]
        rounds[trial.number] = fewest + int(mean.argmin())
        of_rounds = {by_round: rounds[trial.number]} if by_round else {}
        tried[trial.number] = replace(params, heavy={**params.heavy, **of_rounds})
        return float(mean.min())

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=fitter.seed, n_startup_trials=8))
    study.enqueue_trial({name: dimension.first for name, dimension in space.items() if _is_searched(dimension)})
    with ThreadPoolExecutor(len(folds)) as side_by_side:  # the libraries let go of the interpreter while they fit
        study.optimize(error, n_trials=trials if any(map(_is_searched, space.values())) else 1)
    return Tuned(
        params=tried[study.best_trial.number],
        trials=tuple(Trial(float(trial.value or 0.0), rounds[trial.number]) for trial in study.trials),
    )


def _is_searched(dimension: Dimension) -> bool:
    wide = len(dimension.choices) > 1 if dimension.choices else dimension.low < dimension.high
    return wide and not dimension.is_by_round


def _suggested(trial: "optuna.Trial", name: str, dimension: Dimension) -> float:
    """What the sampler asks to be tried; of what is not searched, or found by rounds, the largest."""
    if not _is_searched(dimension):
        return dimension.first if dimension.choices else dimension.high
    if dimension.choices:
        chosen: float = trial.suggest_categorical(name, dimension.choices)
        return chosen
    if dimension.is_whole:
        return trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.is_log)
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.is_log)


def _params(chosen: Mapping[str, float]) -> Params:
    """From a value for every dimension."""
    return Params({name: value for name, value in chosen.items() if name != HALF_LIFE}, chosen[HALF_LIFE])


def _tune_light(fitter: Fitter, rows: Rows, parts: Split, params: Params) -> float:
    """The inverse penalty with the lowest mean error over the folds."""
    errors = dict.fromkeys(PENALTIES, 0.0)
    for older, newer in ((rows.take(older), rows.take(newer)) for older, newer in parts.folds):
        inputs = fitter.light_inputs()
        seen, ahead = inputs.fit_transform(older.matrix), inputs.transform(newer.matrix)
        weights = older.weights(params.half_life_days)
        for penalty in PENALTIES:
            score = fitter.score(fitter.linear(penalty).fit(seen, older.label, weights), ahead)
            errors[penalty] += float(np.mean(fitter.target.row_losses(score, newer.label)))
    return min(PENALTIES, key=errors.__getitem__)


def _out_of_fold(fitter: Fitter, rows: Rows, params: Params) -> Floats:
    """(rows, *shape) each row's score by a model that has not seen it.

    Scores of a model on its own training rows are too sure of themselves; compared with them, every
    production score would look drifted.
    """
    fold = np.random.default_rng(fitter.seed).permutation(len(rows.label)) % FOLDS
    scores = fitter.target.nothing(len(fold))
    for number in range(FOLDS):
        model = fitter.heavy(rows.take(np.flatnonzero(fold != number)), params)
        scores[fold == number] = fitter.score(model, rows.matrix[fold == number])
    return scores


# -- measuring --------------------------------------------------------------------------------


def intervals(label: Values, score: Floats, seed: int, target: Target = YES_OR_NO) -> dict[str, Interval]:
    """The figures of held-out rows (Target.resampled), by name, each with its 95 % bootstrap interval.

    Percentile bootstrap over rows: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    rows = len(label)
    weights = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES)
    weights = np.vstack([np.ones(rows, dtype=weights.dtype), weights])
    return {name: _interval(values) for name, values in target.resampled(score, label, weights).items()}


def _measured(label: Values, scores: Mapping[str, Floats], seed: int, target: Target) -> Measured:
    """How good both models are on held-out rows. Which figures there are, the label's kind says."""
    heavy, light = (intervals(label, scores[part], seed, target) for part in ("heavy", "light"))
    log.info("held out: %s", ", ".join(f"{name} {figure.value:.4f}" for name, figure in heavy.items()))
    return Measured.of(
        heavy,
        **{target.base: target.base_figure(label)},
        rows=len(label),
        mean_score=float(target.single(scores["heavy"]).mean()),
        light=Measured.of(light, rows=len(label)),
    )


def _interval(values: Floats) -> Interval:
    """Of a figure of the rows as they are, followed by those of the resamples."""
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return Interval(value=float(values[0]), low=float(low), high=float(high))
