"""Tune and fit the heavy model and its light twin, and measure both on held-out rows.

Parameters are the ones that do best over the folds of `blocks`. Then both models are fitted again on all rows, because
in a drifting world the newest rows are the ones that matter. What is learned, and what "error" means below, the label's
kind says: of a yes or no the Brier score, of a number the mean absolute error.
"""

import importlib
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tiltyard.records import Interval, Measured, Record
from tiltyard.target import YES_OR_NO, Target, Values
from tiltyard.train import profile
from tiltyard.train.blocks import Matrix, Rows, Split
from tiltyard.train.encoding import MOST, Encoding

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

FEWEST_ROUNDS, MOST_ROUNDS = 30, 120
"""Boosting rounds to choose from. Between two blocks the base rate may have moved so far that a model that has
learned nothing looks best; the lower bound keeps one such pair from talking the model out of learning."""
FOLDS = 5
"""Of the scores that each row gets from a model that has not seen it."""
EXPLAINED = 500
"""Most held-out rows whose scores are explained."""
RESAMPLES = 500
"""Bootstrap samples behind an interval."""
HALF_LIVES = (7, 14, 28, 0)
"""Days after which a training row weighs half; 0: all weigh the same."""
PENALTIES = (0.003, 0.03, 0.3, 3.0)
"""Inverse penalties of the light twin to choose from."""
MANY = 50_000
"""Rows from which XGBoost gets more than one thread. Below, a second thread saves little on an idle machine and
costs thirty times the wall time on a busy one, where its threads wait for each other by spinning."""

Floats = NDArray[np.float64]
Model: TypeAlias = Any
"""A fitted estimator of XGBoost or scikit-learn, which share no type."""


@dataclass(frozen=True)
class Params(Record):
    """Parameters of both models. The defaults are the first trial; the others are the sampler's."""

    max_depth: int = 4
    """Depth of a tree."""
    learning_rate: float = 0.1
    """Share of a tree that counts."""
    min_child_weight: float = 5.0
    """Least weight of the rows in a leaf."""
    subsample: float = 0.8
    """Share of the rows that a tree sees."""
    colsample_bytree: float = 0.8
    """Share of the features that a tree sees."""
    reg_lambda: float = 1.0
    """Penalty on the leaves' squares."""
    half_life_days: float = 14
    """Days after which a training row weighs half; 0 where all weigh the same."""
    n_estimators: int = MOST_ROUNDS
    """Number of trees."""
    light_C: float = PENALTIES[2]
    """Inverse penalty of the light twin, which is chosen after the others."""

    @property
    def of_trees(self) -> dict[str, float]:
        """XGBoost's part of them, without the number of trees."""
        return {name: value for name, value in asdict(self).items() if name not in NOT_OF_TREES}


NOT_OF_TREES = frozenset({"half_life_days", "n_estimators", "light_C"})


@dataclass(frozen=True)
class Trial(Record):
    """What one trial of tuning came to."""

    error: float
    """Mean error over the folds, at the best number of rounds."""
    rounds: int
    """That number of boosting rounds."""


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
    """heavy and light → (rows,) their scores."""
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
    """(rows,) each row's score by a model that has not seen it."""
    importance: dict[str, float]
    """Share of each feature in the mean |SHAP value|."""
    held_out: HeldOut
    """What is drawn of the held-out rows."""


def fit(
    rows: Rows,
    parts: Split,
    encoding: Encoding,
    *,
    trials: int,
    seed: int,
    threads: int,
    target: Target = YES_OR_NO,
    tuned: Tuned | None = None,
) -> Fitted:
    """Tune both models, measure them on the held-out rows, fit them again on all rows.

    `tuned`: what tuning these rows gave, where somebody has done it.
    """
    fitter = Fitter(encoding, seed, threads, target)
    tuned = tuned or tune(fitter, rows, parts, trials)
    params = replace(tuned.params, light_C=_tune_light(fitter, rows, parts, tuned.params))
    log.info("tuned in %d trials: %s", len(tuned.trials), params)
    older, newest = rows.take(parts.older), rows.take(parts.held_out)
    heavy, light = fitter.heavy(older, params), fitter.light(older, params)
    scores = {"heavy": fitter.score(heavy, newest.matrix), "light": fitter.score(light, newest.matrix)}
    explained = newest.matrix[:: -(-len(newest.label) // EXPLAINED)]
    moves = contributions(heavy, explained)
    return Fitted(
        heavy=fitter.heavy(rows, params),
        light=fitter.light(rows, params),
        params=params,
        trials=tuned.trials,
        metrics=_measured(newest.label, scores, seed, target),
        out_of_fold=_out_of_fold(fitter, rows, params),
        importance=profile.importance(moves, encoding.features),
        held_out=HeldOut(newest.label, scores, explained, moves),
    )


@dataclass(frozen=True)
class Fitter:
    """Fits either model with given parameters."""

    encoding: Encoding
    """How the rows are encoded: which columns are categories."""
    seed: int
    """Seed of everything random."""
    threads: int
    """Threads that XGBoost may have for many rows."""
    target: Target = YES_OR_NO
    """The kind of label."""

    def heavy(self, rows: Rows, params: Params, newer: Rows | None = None) -> Model:
        """XGBoost. With `newer`, the model knows its error on those rows after every round (`errors`)."""
        learner = self.target.learner
        model = _class(self.target.heavy_class)(
            **params.of_trees,
            n_estimators=params.n_estimators,
            objective=learner.objective,
            eval_metric=learner.eval_metric,
            tree_method="hist",
            max_bin=MOST + 8,  # a bin for every code of a category
            random_state=self.seed,
            n_jobs=self.threads if len(rows.label) >= MANY else 1,
        )
        return model.fit(
            rows.matrix,
            rows.label,
            sample_weight=rows.weights(params.half_life_days),
            eval_set=[(newer.matrix, newer.label)] if newer else None,
            verbose=False,
        )

    def light(self, rows: Rows, params: Params) -> Model:
        """A linear model over the same matrix, standardised, made of parts that convert to ONNX."""
        from sklearn.pipeline import make_pipeline  # by weight, here and below: a second of imports

        linear = self.linear(params.light_C)
        model = make_pipeline(self.light_inputs(), linear)
        weights = rows.weights(params.half_life_days)
        return model.fit(rows.matrix, rows.label, **{f"{type(linear).__name__.lower()}__sample_weight": weights})

    def linear(self, penalty: float) -> Model:
        """The light twin's last step, not fitted; `penalty` is the inverse one."""
        return _class(self.target.light_class)(**self.target.light_arguments(penalty))

    def score(self, model: Model, matrix: Any) -> Floats:
        """(rows,) what a model says of encoded rows, as it is scored. `matrix` may be sparse."""
        return self.target.within(self.target.answers(model, matrix))

    def errors(self, model: Model) -> Floats:
        """(rounds,) of a model that was fitted with newer rows its error on them after each round."""
        [by_round] = model.evals_result()["validation_0"].values()
        return self.target.errors(np.array(by_round))

    def light_inputs(self) -> Model:
        """What the light twin sees of the matrix, not fitted.

        A number is imputed by its median, and beside it stands whether it was there at all (written as a
        constant no number reaches and a threshold, because the converter knows no indicator); categories are
        one-hot.
        """
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import Binarizer, OneHotEncoder, StandardScaler

        columns = self.encoding.columns
        numbers = [place for place, column in enumerate(columns) if column.kind != "categorical"]
        categories = [place for place, column in enumerate(columns) if column.kind == "categorical"]
        steps: list[tuple[str, Model, list[int]]] = []
        if numbers:
            imputed = SimpleImputer(strategy="median", keep_empty_features=True)
            present = SimpleImputer(strategy="constant", fill_value=-1e30, keep_empty_features=True)
            steps.append(("number", make_pipeline(imputed, StandardScaler()), numbers))
            steps.append(("present", make_pipeline(present, Binarizer(threshold=-1e29)), numbers))
        if categories:
            missing = SimpleImputer(strategy="constant", fill_value=-1.0, keep_empty_features=True)
            codes = [[float(code) for code in range(-1, columns[place].codes)] for place in categories]
            one_hot = OneHotEncoder(categories=codes, handle_unknown="ignore", sparse_output=True)
            steps.append(("category", make_pipeline(missing, one_hot), categories))
        return ColumnTransformer(steps, sparse_threshold=1.0)


def _class(path: str) -> Any:
    """An estimator's class by its import path, one of target.HEAVY_CLASSES or target.LIGHT_CLASSES."""
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


# -- tuning -----------------------------------------------------------------------------------


def tune(fitter: Fitter, rows: Rows, parts: Split, trials: int) -> Tuned:
    """Parameters, rounds among them, with the lowest mean error over the folds: Bayesian search (TPE)."""
    import optuna  # by weight: half a second

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rounds: dict[int, int] = {}
    folds = [(rows.take(older), rows.take(newer)) for older, newer in parts.folds]

    def error(trial: "optuna.Trial") -> float:
        params = _suggested(trial)
        models = list(side_by_side.map(lambda fold: fitter.heavy(fold[0], params, newer=fold[1]), folds))
        mean = np.mean([fitter.errors(model) for model in models], axis=0)[FEWEST_ROUNDS - 1 :]
        rounds[trial.number] = FEWEST_ROUNDS + int(mean.argmin())
        return float(mean.min())

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=fitter.seed, n_startup_trials=8))
    first = Params()
    study.enqueue_trial({**first.of_trees, "half_life_days": first.half_life_days})
    with ThreadPoolExecutor(len(folds)) as side_by_side:  # XGBoost lets go of the interpreter while it fits
        study.optimize(error, n_trials=trials)
    return Tuned(
        params=Params(**study.best_params, n_estimators=rounds[study.best_trial.number]),
        trials=tuple(Trial(float(trial.value or 0.0), rounds[trial.number]) for trial in study.trials),
    )


def _suggested(trial: "optuna.Trial") -> Params:
    """What the sampler asks to be tried."""
    return Params(
        max_depth=trial.suggest_int("max_depth", 2, 6),
        learning_rate=trial.suggest_float("learning_rate", 0.03, 0.3, log=True),
        min_child_weight=trial.suggest_float("min_child_weight", 1.0, 50.0, log=True),
        subsample=trial.suggest_float("subsample", 0.5, 1.0),
        colsample_bytree=trial.suggest_float("colsample_bytree", 0.3, 1.0),
        reg_lambda=trial.suggest_float("reg_lambda", 0.1, 30.0, log=True),
        half_life_days=trial.suggest_categorical("half_life_days", HALF_LIVES),
    )


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
    """(rows,) each row's score by a model that has not seen it.

    Scores of a model on its own training rows are too sure of themselves; compared with them, every
    production score would look drifted.
    """
    fold = np.random.default_rng(fitter.seed).permutation(len(rows.label)) % FOLDS
    scores = np.empty(len(fold), dtype=np.float64)
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
    log.info("held out: %s", {name: figure.value for name, figure in heavy.items()})
    return Measured.of(
        heavy,
        **{target.base: float(label.mean())},
        rows=len(label),
        mean_score=float(scores["heavy"].mean()),
        light=Measured.of(light, rows=len(label)),
    )


def _interval(values: Floats) -> Interval:
    """Of a figure of the rows as they are, followed by those of the resamples."""
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return Interval(value=float(values[0]), low=float(low), high=float(high))


def contributions(model: Model, matrix: Matrix) -> Floats:
    """(rows, features) the SHAP value of each feature in each row.

    Exact TreeSHAP, computed by XGBoost itself: Lundberg et al. (2020), Nature Machine Intelligence 2:56-67.
    """
    import xgboost  # by weight: a second

    values: Floats = model.get_booster().predict(xgboost.DMatrix(matrix), pred_contribs=True)[:, :-1].astype(np.float64)
    return values
