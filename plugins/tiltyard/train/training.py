"""From a training frame to a registered challenger: tune, fit the champion-to-be and its light twin, look, register.

The frame's rows are split by time, whole cohorts only, never at random, into five blocks. Parameters are tuned
by rolling origin (fit on blocks 1-2 and judge on 3, fit on 1-3 and judge on 4), and the newest block is held
out for the metrics. Then both models are fitted again on all of them
with the parameters found, because in a drifting world the newest rows are the ones that matter. The parts
follow each other directly, whereas a version in production predicts from `label.horizon` later on: held-out
metrics say what the model can do, shadow says what it does.

A label with bounds is a number: XGBoost then learns the median (what absolute error, which the gate decides on, is
least of), the light twin is a ridge regression, and "Brier score" below reads "mean absolute error".

The same frame, spec, seed and number of trials are the same version: training a night twice gives the
version that is already there.
"""

import hashlib
import importlib
import io
import json
import logging
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.errors import CheckFailed, Stopped
from tiltyard.rails import Rails, records_its_end
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec
from tiltyard.target import YES_OR_NO, Target, Values
from tiltyard.train import profile
from tiltyard.train.encoding import MOST, Encoding

if TYPE_CHECKING:
    from tiltyard.prepare.frame import TrainingFrame
    from tiltyard.train.scorer import Scorer

log = logging.getLogger(__name__)

SCHEME = 3
"""Part of a version's inputs: raise it when the same frame would give another model."""
MIN_ROWS = 200
MIN_OF_CLASS = 5
"""Rows of each class that every part of the split must have."""
BLOCKS = 5
FEWEST_ROUNDS, MOST_ROUNDS = 30, 120
"""Boosting rounds to choose from. Between two blocks the base rate may have moved so far that a model that has
learned nothing looks best; the lower bound keeps one such pair from talking the model out of learning."""
SAMPLE = 2000
"""Training rows kept with the version, for drift."""
EXPLAINED = 500
"""Held-out rows in the SHAP plot."""
RESAMPLES = 500
BINS = 10
CALLS = 100
"""One-row predictions per round in which a version's latency is measured."""
OPSET = 15
PARITY = 1e-6
"""How far ONNX may be from the model it was converted from, on any row of the training frame: in probability, or of the
bounds' width."""
HALF_LIVES = (7, 14, 28, 0)
"""Days after which a training row weighs half; 0: all weigh the same."""
LIGHT_C = (0.003, 0.03, 0.3, 3.0)
"""Inverse penalties of the light twin."""
MANY = 50_000
"""Rows from which XGBoost gets more than one thread. Below, a second thread saves little on an idle machine and
costs thirty times the wall time on a busy one, where its threads wait for each other by spinning."""
DEFAULTS: dict[str, Any] = {
    "max_depth": 4,
    "learning_rate": 0.1,
    "min_child_weight": 5.0,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "reg_lambda": 1.0,
    "half_life_days": 14,
}
TUNED = ("max_depth", "learning_rate", "min_child_weight", "subsample", "colsample_bytree", "reg_lambda")
"""The first trial; the others are the sampler's."""

Matrix = NDArray[np.float32]


class Untrainable(Exception):
    """The frame cannot carry a model; the message says why. Not a failure: there is nothing to do about it."""


@dataclass(frozen=True)
class Rows:
    """Encoded rows, their truth, and their prediction time in days since 1970."""

    matrix: Matrix
    label: Values
    days: NDArray[np.float64]

    def take(self, places: NDArray[np.intp]) -> "Rows":
        return Rows(self.matrix[places], self.label[places], self.days[places])

    def weights(self, half_life_days: float) -> NDArray[np.float64]:
        """Half as much for every half-life that a row is older than the newest; 1 in the mean."""
        if not half_life_days:
            return np.ones(len(self.days))
        weights = 0.5 ** ((self.days.max() - self.days) / half_life_days)
        return weights / weights.mean()


@dataclass(frozen=True)
class Split:
    """Positions of the rows of each block, oldest first."""

    blocks: tuple[NDArray[np.intp], ...]

    @property
    def folds(self) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]:
        """Rolling origin: (rows to fit on, rows to judge on)."""
        return tuple((np.concatenate(self.blocks[:end]), self.blocks[end]) for end in (BLOCKS - 3, BLOCKS - 2))

    @property
    def known(self) -> NDArray[np.intp]:
        return np.concatenate(self.blocks[:-1])

    @property
    def held_out(self) -> NDArray[np.intp]:
        return self.blocks[-1]


@dataclass(frozen=True)
class Fitted:
    """What fitting found, on the way and in the end."""

    heavy: Any
    light: Any
    params: dict[str, Any]
    trials: tuple[dict[str, float], ...]
    metrics: dict[str, Any]
    out_of_fold: NDArray[np.float64]
    importance: dict[str, float]
    """Share of each feature in the mean |SHAP value|."""
    plots: dict[str, bytes]


@records_its_end("training")
def train(
    rails: Rails,
    spec: Spec,
    as_of: datetime,
    *,
    requested_by: str,
    reasons: Sequence[str] = (),
    trials: int | None = None,
) -> dict[str, Any]:
    """Train a challenger on what had matured at `as_of`, and register it.

    A frame that cannot carry a model (too few rows, one class only) gives {"trained": False, "reason": …} and
    no version. Raises CheckFailed when the leakage gate stops the frame, or the replay finds that the past it would
    learn from was written over, and records it; Fenced when a newer attempt took over.
    """
    from tiltyard.prepare import data_incidents, frame
    from tiltyard.train import leakage_gate, replay

    night = night_closing(as_of)
    fence = rails.ledger.claim(f"training/{spec.name}/{night}")
    snapshot = rails.published_snapshot()
    if not frame.matured(rails, spec, as_of, snapshot):
        waits = clock.format_duration(spec.label.horizon + spec.label.delay)
        reason = f"no label of the last {clock.format_duration(spec.estimator.window)} has matured, labels take {waits}"
        return _untrained(rails, spec, night, reason, frame=None, rows=0)
    training_frame = frame.training(rails, spec, as_of, snapshot)
    log.info("%s: training frame %s, %d rows", spec.name, training_frame.digest[:12], training_frame.rows)
    report = leakage_gate.check_frame(rails, spec, training_frame, as_of)
    if report.critical_failures:
        failures = "; ".join(str(failure) for failure in report.critical_failures[:3])
        raise Stopped(
            f"{spec.name}: the training frame of {night} is stopped by its leakage gate ({failures}); "
            "no version was trained. Mend the feature view and train again.",
            trained=False,
            version=None,
            frame=training_frame.digest,
            rows=training_frame.rows,
        )
    replayed = replay.check(rails, spec, as_of, snapshot)
    if replayed.critical:
        worst = replayed.critical[0]
        first, last = replayed.ranges[0][0], replayed.ranges[-1][1]
        raise Stopped(
            f"{spec.name}: no version was trained, the replay of {first} to {last} does not agree. "
            f"{worst.tally.feature}: {worst.reason} ({replayed.shown(worst)}). See the rows with tiltyard leakage "
            f"replay --model {spec.name} --from {first} --to {last} --report replay.html; then take the column out of "
            "its feature view, or mend the source.",
            trained=False,
            version=None,
            frame=training_frame.digest,
            rows=training_frame.rows,
            replay=replayed.summary(),
        )
    reasons = (*reasons, *data_incidents.during(rails, spec.source, night_closing(training_frame.start), night))
    return train_on(
        rails,
        spec,
        as_of,
        training_frame,
        fence=fence,
        requested_by=requested_by,
        reasons=reasons,
        trials=trials,
        replayed=replayed.summary(),
    )


def train_on(
    rails: Rails,
    spec: Spec,
    as_of: datetime,
    training_frame: "TrainingFrame",
    *,
    fence: Any,
    requested_by: str,
    reasons: Sequence[str] = (),
    trials: int | None = None,
    replayed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`train` from a frame that has passed the leakage gate on; `fence` is the claim on this training."""
    from tiltyard.train import registry

    night = night_closing(as_of)
    asked = trials or spec.estimator.tune.trials
    inputs = inputs_digest(training_frame.digest, spec, rails.settings.seed, asked)
    row, reused = rails.ledger.version_of_inputs(spec.name, inputs), True
    if row is None:
        try:
            made = candidate(rails, spec, as_of, training_frame, inputs, asked, requested_by, reasons)
        except Untrainable as error:
            return _untrained(rails, spec, night, str(error), frame=training_frame.digest, rows=training_frame.rows)
        row, reused = registry.register(rails, spec, made, fence)
    summary = {
        "model": spec.name,
        "night": str(night),
        "frame": training_frame.digest,
        "rows": training_frame.rows,
        "trained": True,
        "version": row["version"],
        "reused": reused,
        "metrics": row["facts"]["metrics"],
        "run_id": row["run_id"],
        "reasons": list(reasons),
        "requested_by": requested_by,
        **({"replay": dict(replayed)} if replayed else {}),
    }
    log.info("%s: version %d %s", spec.name, row["version"], "was there already" if reused else "registered")
    rails.ledger.record_stage("training", spec.name, night, "done", summary)
    return summary


def _untrained(rails: Rails, spec: Spec, night: date, reason: str, **known: Any) -> dict[str, Any]:
    log.info("%s: no version, %s", spec.name, reason)
    summary = {"model": spec.name, "night": str(night), **known, "trained": False, "reused": False, "version": None}
    summary["reason"] = reason
    rails.ledger.record_stage("training", spec.name, night, "done", summary)
    return summary


def inputs_digest(frame: str, spec: Spec, seed: int, trials: int) -> str:
    """What makes a version: two trainings with the same digest would give the same model."""
    parts = {"frame": frame, "spec": spec.recipe, "seed": seed, "trials": trials, "scheme": SCHEME}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


# -- split ------------------------------------------------------------------------------------


def split(times: pd.Series, label: Values, every: timedelta, as_of: datetime, target: Target = YES_OR_NO) -> Split:
    """Five blocks of about as many rows by time, cut between cohorts (the predictions of one night).

    Raises Untrainable when there are too few rows, cohorts, or rows of a class in a block.
    """
    if len(times) < MIN_ROWS:
        raise Untrainable(f"{len(times)} matured rows are too few to train on, it takes {MIN_ROWS}")
    night = -np.ceil((pd.Timestamp(as_of) - times).to_numpy() / np.timedelta64(every))
    cohorts, counts = np.unique(night, return_counts=True)
    if len(cohorts) < BLOCKS:
        raise Untrainable(f"{len(cohorts)} cohorts are too few for a split by time, it takes {BLOCKS}")
    before = np.cumsum(counts) / len(times)
    cuts: list[int] = []  # each the place of the first cohort of a block but the first
    for number in range(1, BLOCKS):
        nearest = int(np.argmin(np.abs(before - number / BLOCKS))) + 1
        cuts.append(int(np.clip(nearest, (cuts or [0])[-1] + 1, len(cohorts) - BLOCKS + number)))
    block = np.digitize(night, cohorts[cuts])
    for number in range(BLOCKS):
        counted = np.unique(label[block == number], return_counts=True)[1]
        fewest = int(counted.sum() - counted.max())
        if fewest < MIN_OF_CLASS:
            raise Untrainable(
                f"block {number + 1} of {BLOCKS} by time holds {fewest} rows {target.too_few}, it takes {MIN_OF_CLASS}"
            )
    order = np.argsort(times.to_numpy(), kind="stable")
    return Split(tuple(order[block[order] == number] for number in range(BLOCKS)))


# -- fitting ----------------------------------------------------------------------------------


def fit(
    rows: Rows,
    parts: Split,
    encoding: Encoding,
    *,
    trials: int,
    seed: int,
    threads: int,
    draw: bool = True,
    target: Target = YES_OR_NO,
    tuned: "Tuned | None" = None,
) -> Fitted:
    """Tune both models, measure them on the held-out rows, fit them again on all rows; `draw` the plots of it.

    `tuned`: what tuning these rows gave, where somebody has done it.
    """
    fitter = _Fitter(encoding, seed, threads, target)
    params, history = tuned or _tune(fitter, rows, parts, trials)
    params = dict(params)
    params["light_C"] = _tune_light(fitter, rows, parts, params)
    log.info("tuned in %d trials: %s", len(history), params)
    known, held_out = rows.take(parts.known), rows.take(parts.held_out)
    heavy, light = fitter.heavy(known, params), fitter.light(known, params)
    scores = {"heavy": fitter.score(heavy, held_out), "light": fitter.score(light, held_out)}
    measured = intervals(held_out.label, scores["heavy"], seed, target)
    metrics = {
        **measured,
        "light": intervals(held_out.label, scores["light"], seed, target),
        "rows": len(held_out.label),
        target.base: float(held_out.label.mean()),
        "mean_score": float(scores["heavy"].mean()),
    }
    log.info("held out: %s", {name: round(found["value"], 4) for name, found in measured.items()})
    explained = held_out.matrix[:: -(-len(held_out.label) // EXPLAINED)]
    moves, plots = _contributions(heavy, explained), {}
    if draw:
        plots["calibration.png"] = _calibration_plot(held_out.label, scores, target)
        plots["shap_summary.png"] = _shap_plot(moves, explained, encoding, target.margin_unit)
    return Fitted(
        heavy=fitter.heavy(rows, params),
        light=fitter.light(rows, params),
        params=params,
        trials=history,
        metrics=metrics,
        out_of_fold=_out_of_fold(fitter, rows, params),
        importance=profile.importance(moves, encoding.features),
        plots=plots,
    )


@dataclass(frozen=True)
class _Fitter:
    """Fits either model with given parameters."""

    encoding: Encoding
    seed: int
    threads: int
    target: Target = YES_OR_NO

    def heavy(self, rows: Rows, params: Mapping[str, Any], judge: Rows | None = None) -> Any:
        """XGBoost. With `judge`, the model knows its error on those rows after every round."""
        model = _class(self.target.heavy_class)(
            **{name: params[name] for name in TUNED},
            n_estimators=params.get("n_estimators", MOST_ROUNDS),
            objective=self.target.learner.objective,
            eval_metric=self.target.learner.eval_metric,
            tree_method="hist",
            max_bin=MOST + 8,  # a bin for every code of a category
            random_state=self.seed,
            n_jobs=self.threads if len(rows.label) >= MANY else 1,
        )
        return model.fit(
            rows.matrix,
            rows.label,
            sample_weight=rows.weights(params["half_life_days"]),
            eval_set=[(judge.matrix, judge.label)] if judge else None,
            verbose=False,
        )

    def light(self, rows: Rows, params: Mapping[str, Any]) -> Any:
        """Standardised linear (logistic) regression over the same matrix, made of parts that convert to ONNX."""
        from sklearn.pipeline import make_pipeline

        linear = self.linear(params["light_C"])
        model = make_pipeline(self.light_inputs(), linear)
        weights = rows.weights(params["half_life_days"])
        return model.fit(rows.matrix, rows.label, **{f"{type(linear).__name__.lower()}__sample_weight": weights})

    def linear(self, penalty: float) -> Any:
        return _class(self.target.light_class)(**self.target.light_arguments(penalty))

    def answers(self, model: Any, matrix: Any) -> NDArray[np.float64]:
        """What a model says of rows, as it is scored."""
        return self.target.within(self.target.answers(model, matrix))

    def score(self, model: Any, rows: Rows) -> NDArray[np.float64]:
        return self.answers(model, rows.matrix)

    def errors(self, model: Any) -> NDArray[np.float64]:
        """Of a model that was fitted with a judge, after each round: the mean of the measure."""
        [found] = model.evals_result()["validation_0"].values()
        return self.target.errors(np.array(found))

    def light_inputs(self) -> Any:
        """What the light twin sees of the matrix.

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
        steps: list[Any] = []
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


Tuned = tuple[dict[str, Any], tuple[dict[str, float], ...]]
"""The parameters that tuning chose, and what every trial gave."""


def _tune(fitter: _Fitter, rows: Rows, parts: Split, trials: int) -> Tuned:
    """Parameters, rounds among them, with the lowest mean Brier score over the folds: Bayesian search (TPE)."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rounds: dict[int, int] = {}
    folds = [(rows.take(older), rows.take(newer)) for older, newer in parts.folds]

    def objective(trial: optuna.Trial) -> float:
        params = {
            "max_depth": trial.suggest_int("max_depth", 2, 6),
            "learning_rate": trial.suggest_float("learning_rate", 0.03, 0.3, log=True),
            "min_child_weight": trial.suggest_float("min_child_weight", 1.0, 50.0, log=True),
            "subsample": trial.suggest_float("subsample", 0.5, 1.0),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.3, 1.0),
            "reg_lambda": trial.suggest_float("reg_lambda", 0.1, 30.0, log=True),
            "half_life_days": trial.suggest_categorical("half_life_days", HALF_LIVES),
        }
        models = list(side_by_side.map(lambda fold: fitter.heavy(fold[0], params, judge=fold[1]), folds))
        mean = np.mean([fitter.errors(model) for model in models], axis=0)[FEWEST_ROUNDS - 1 :]
        rounds[trial.number] = FEWEST_ROUNDS + int(mean.argmin())
        return float(mean.min())

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=fitter.seed, n_startup_trials=8))
    study.enqueue_trial(DEFAULTS)
    with ThreadPoolExecutor(len(folds)) as side_by_side:  # XGBoost lets go of the interpreter while it fits
        study.optimize(objective, n_trials=trials)
    name = f"trial_{fitter.target.measure}"
    history = tuple({name: float(trial.value), "trial_rounds": float(rounds[trial.number])} for trial in study.trials)
    return {**study.best_params, "n_estimators": rounds[study.best_trial.number]}, history


def _tune_light(fitter: _Fitter, rows: Rows, parts: Split, params: Mapping[str, Any]) -> float:
    """The penalty with the lowest mean Brier score over the folds."""
    errors = dict.fromkeys(LIGHT_C, 0.0)
    for older, newer in ((rows.take(older), rows.take(newer)) for older, newer in parts.folds):
        inputs = fitter.light_inputs()
        seen, ahead = inputs.fit_transform(older.matrix), inputs.transform(newer.matrix)
        weights = older.weights(params["half_life_days"])
        for penalty in LIGHT_C:
            score = fitter.answers(fitter.linear(penalty).fit(seen, older.label, weights), ahead)
            errors[penalty] += float(np.mean(fitter.target.row_losses(score, newer.label)))
    return min(LIGHT_C, key=errors.__getitem__)


def _out_of_fold(fitter: _Fitter, rows: Rows, params: Mapping[str, Any]) -> NDArray[np.float64]:
    """Each row's score by a model that has not seen it (5 folds).

    Scores of a model on its own training rows are too sure of themselves; compared with them, every
    production score would look drifted.
    """
    fold = np.random.default_rng(fitter.seed).permutation(len(rows.label)) % 5
    scores = np.empty(len(fold), dtype=np.float64)
    for number in range(5):
        model = fitter.heavy(rows.take(np.flatnonzero(fold != number)), params)
        scores[fold == number] = fitter.score(model, rows.take(np.flatnonzero(fold == number)))
    return scores


# -- metrics ----------------------------------------------------------------------------------


def intervals(
    label: Values, score: NDArray[np.float64], seed: int, target: Target = YES_OR_NO
) -> dict[str, dict[str, float]]:
    """The figures of held-out rows (target.resampled): {"value", "low", "high"}, the latter two the 95 % bootstrap
    interval.

    Percentile bootstrap over rows: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    rows = len(label)
    weights = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES)
    weights = np.vstack([np.ones(rows, dtype=weights.dtype), weights])
    return {name: _interval(values) for name, values in target.resampled(score, label, weights).items()}


def _interval(values: NDArray[np.float64]) -> dict[str, float]:
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


# -- what the version carries -----------------------------------------------------------------


def candidate(
    rails: Rails,
    spec: Spec,
    as_of: datetime,
    training_frame: "TrainingFrame",
    inputs: str,
    trials: int,
    requested_by: str,
    reasons: Sequence[str],
    *,
    draw: bool = True,
    tuned: "Tuned | None" = None,
) -> Any:
    """Fit both models on the frame: a registry.Candidate, with the plots of it when they are to be drawn.

    Raises Untrainable when the frame cannot carry a model.
    """
    from tiltyard.train import registry
    from tiltyard.train.scorer import Scorer

    settings, target = rails.settings, spec.target
    frame, rows, counted, parts, encoding = _begin(spec, as_of, training_frame)
    label, matrix = rows.label, rows.matrix
    fitted = fit(
        rows,
        parts,
        encoding,
        trials=trials,
        seed=settings.seed,
        threads=settings.threads,
        draw=draw,
        target=target,
        tuned=tuned,
    )
    chosen = np.sort(np.random.default_rng(settings.seed).permutation(len(frame))[:SAMPLE])
    heavy = _heavy_onnx(fitted.heavy, matrix, target)
    light = _light_onnx(fitted.light, matrix, target)
    log.info("converted to ONNX, %d and %d bytes", len(heavy), len(light))
    sample = frame.loc[chosen, list(encoding.features)].assign(label=label[chosen], score=fitted.out_of_fold[chosen])
    described = {
        "night": str(night_closing(as_of)),
        "rows": len(frame),
        target.base: float(label.mean()),
        "metrics": fitted.metrics,
        **reference(frame, encoding, fitted.out_of_fold, target.bounds),
        **target.to_json(),
        "importance": fitted.importance,
        "profile": profile.describe(
            frame,
            {feature.name: feature.kind for feature in training_frame.features},
            {feature.name: feature.view for feature in training_frame.features},
            profile.nights_of(frame["prediction_time"], spec.prediction.every, as_of),
            fitted.out_of_fold,
            label.astype(np.float64),
            fitted.importance,
            target,
        ),
    }
    files = {
        "model.onnx": heavy,
        "light.onnx": light,
        "encoding.json": encoding.to_json().encode(),
        "reference.json": json.dumps(described).encode(),
        "reference.parquet": parquet(sample),
    }
    commit, dirty = _git()
    facts = {
        "latency_ms": latency_ms(Scorer.from_files(spec.name, 0, files), sample),
        "size_mb": registry.size_mb(files),
        "parity": {
            "heavy": parity(heavy, fitted.heavy, matrix, target),
            "light": parity(light, fitted.light, matrix, target),
        },
        "frame": training_frame.digest,
        "rows": training_frame.rows,
        "snapshot": training_frame.snapshot,
        "start": training_frame.start.isoformat(),
        "end": training_frame.end.isoformat(),
        "spec": spec.digest,
        "seed": settings.seed,
        "trials": trials,
        "features": list(encoding.features),
        "params": fitted.params,
        "metrics": fitted.metrics,
        **counted,
        "reasons": list(reasons),
        "git_commit": commit,
        "git_dirty": dirty,
    }
    night = str(night_closing(as_of))
    description = (
        f"Trained for the night of {night} on {training_frame.rows:,} rows with prediction times from "
        f"{training_frame.start:%Y-%m-%d} to {training_frame.end:%Y-%m-%d} (frame {training_frame.digest[:12]}, "
        f"lake snapshot {training_frame.snapshot}, spec {spec.digest[:12]}). "
        f"Requested by {requested_by}{': ' + '; '.join(reasons) if reasons else ''}."
    )
    tags = {
        "model": spec.name,
        "night": night,
        "frame": training_frame.digest,
        "lake_snapshot": str(training_frame.snapshot),
        "spec": spec.digest,
        "inputs": inputs,
        "git_commit": commit or "unknown",
        "git_dirty": str(dirty).lower(),
        "reasons": json.dumps(list(reasons)),
        "requested_by": requested_by,
        "mlflow.user": requested_by,
        "mlflow.source.name": "tiltyard train",
    }
    return registry.Candidate(
        as_of=as_of,
        inputs=inputs,
        files=files,
        features=encoding.features,
        params={**fitted.params, "trials": trials, "seed": settings.seed, "light": spec.light.class_},
        metrics=_flat(fitted.metrics),
        tags=tags,
        plots=fitted.plots,
        facts=facts,
        requested_by=requested_by,
        description=description,
        trials=fitted.trials,
        target=target,
    )


def sketch(
    settings: Settings, spec: Spec, as_of: datetime, training_frame: "TrainingFrame", trials: int
) -> tuple[bytes, Encoding, "Tuned"]:
    """Only the heavy model that `candidate` would fit (ONNX), its encoding, and what tuning gave: enough to score with.

    Raises Untrainable when the frame cannot carry a model.
    """
    _, rows, _, parts, encoding = _begin(spec, as_of, training_frame)
    fitter = _Fitter(encoding, settings.seed, settings.threads, spec.target)
    tuned = _tune(fitter, rows, parts, trials)
    heavy = _heavy_onnx(fitter.heavy(rows, tuned[0]), rows.matrix, spec.target)
    return heavy, encoding, tuned


def _begin(
    spec: Spec, as_of: datetime, training_frame: "TrainingFrame"
) -> tuple[pd.DataFrame, Rows, dict[str, int], Split, Encoding]:
    """The frame, its encoded rows, what is counted of their labels, the split by time, the encoding."""
    frame = pd.read_parquet(training_frame.path).reset_index(drop=True)
    label, counted = spec.target.of_training(frame["label"].to_numpy())
    parts = split(frame["prediction_time"], label, spec.prediction.every, as_of, spec.target)
    encoding = Encoding.fit(frame, training_frame.features)
    days = (frame["prediction_time"] - pd.Timestamp(0, tz="UTC")).to_numpy() / np.timedelta64(1, "D")
    return frame, Rows(encoding.transform(frame), label, days), counted, parts, encoding


def latency_ms(scorer: "Scorer", rows: pd.DataFrame) -> float:
    """Milliseconds of computing that one row takes, from the frame to the score: the 99th percentile of 100 calls.

    The smallest of three rounds, after a warm-up, in the thread's own time: who else wants the core is no property of
    the model, and must not decide on it.
    """
    singles = [rows.iloc[[place % len(rows)]] for place in range(CALLS)]
    for row in singles[:20]:
        scorer.score(row)
    rounds = []
    for _ in range(3):
        took = []
        for row in singles:
            began = time.thread_time()
            scorer.score(row)
            took.append(time.thread_time() - began)
        rounds.append(float(np.quantile(took, 0.99)))
    return 1000 * min(rounds)


def reference(
    frame: pd.DataFrame, encoding: Encoding, score: NDArray[np.float64], bounds: tuple[float, float] = (0.0, 1.0)
) -> dict[str, Any]:
    """What the training frame looked like. Shares are of all rows and sum to 1 with `missing`.

    {"features": {name: one of
        {"kind": "numeric", "edges": [e1 … ek], "shares": [k + 1 shares], "missing"}: bin i is [e_i, e_i+1), the
            first and the last reach to infinity; edges are the distinct deciles
        {"kind": "categorical" | "boolean", "shares": {category: share}, "other", "missing"}},
     "score": {"edges", "shares"} on ten equal bins between `bounds`, of out-of-fold scores}
    """
    described = {}
    for column in encoding.columns:
        values = frame[column.name]
        missing = float(values.isna().mean())
        if column.kind == "numeric":
            numbers = values.dropna().to_numpy(dtype=np.float64)
            numbers = numbers[np.isfinite(numbers)]
            edges = np.unique(np.quantile(numbers, np.arange(1, BINS) / BINS)) if len(numbers) else np.empty(0)
            counts = np.bincount(np.digitize(numbers, edges), minlength=len(edges) + 1)
            entry = {"edges": edges.tolist(), "shares": (counts / max(len(frame), 1)).tolist(), "missing": missing}
        else:
            names = column.categories if column.kind == "categorical" else ("False", "True")
            present = values.dropna().map(
                lambda value, kind=column.kind: str(bool(value) if kind == "boolean" else value)
            )
            found = present.value_counts()
            shares = {name: float(found.get(name, 0) / len(frame)) for name in names}
            entry = {"shares": shares, "other": max(0.0, 1 - missing - sum(shares.values())), "missing": missing}
        described[column.name] = {"kind": column.kind, **entry}
    counts, edges = np.histogram(score, bins=np.linspace(*bounds, BINS + 1))
    return {"features": described, "score": {"edges": edges.tolist(), "shares": (counts / len(score)).tolist()}}


def parquet(frame: pd.DataFrame) -> bytes:
    """A frame as the bytes of a Parquet file; the same frame gives the same bytes."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested metrics under MLflow's names: held_out.light.brier.low and the like."""
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"held_out.{prefix}{name}".removesuffix(".value")] = float(value)
    return flat


def _git() -> tuple[str | None, bool]:
    """The commit this code is at and whether files differ from it; (None, False) outside a checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))


# -- ONNX -------------------------------------------------------------------------------------


def _heavy_onnx(model: Any, rows: Matrix, target: Target = YES_OR_NO) -> bytes:
    """The trees as ONNX, the same as `model` on `rows`. Raises CheckFailed when they are not."""
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    converted = convert_xgboost(
        model, initial_types=[("input", FloatTensorType([None, rows.shape[1]]))], target_opset=OPSET
    )
    for node in converted.graph.node:
        if node.op_type.startswith("TreeEnsemble"):
            _begin_with_base(node)
    return _same(converted.SerializeToString(), model, rows, target)


def _begin_with_base(node: Any) -> None:
    """Sum in XGBoost's order: it begins with the base score and adds tree after tree, where ONNX Runtime adds the base
    last. In float32 that is a difference of several 1e-7. A first tree of one leaf, which is the base, takes it away.
    """
    of = {attribute.name: attribute for attribute in node.attribute}
    kind = "class" if "class_ids" in of else "target"
    base = of["base_values"].floats[-1] if "base_values" in of else 0.0
    for name in ("nodes_treeids", f"{kind}_treeids"):
        of[name].ints[:] = [tree + 1 for tree in of[name].ints]
    first = {
        "nodes_modes": b"LEAF",
        "nodes_hitrates": 1.0,
        f"{kind}_weights": base,
        f"{kind}_ids": of[f"{kind}_ids"].ints[0],
    }
    for name, attribute in of.items():
        if name.startswith(("nodes_", f"{kind}_")):
            values = attribute.ints or attribute.floats or attribute.strings
            values.insert(0, first.get(name, 0))
    if "base_values" in of:
        of["base_values"].floats[:] = [0.0] * len(of["base_values"].floats)


def _light_onnx(model: Any, rows: Matrix, target: Target = YES_OR_NO) -> bytes:
    """The light twin as a graph of small steps, the same as `model` on `rows`. Raises CheckFailed when it is not.

    Imputed and scaled in float32 as scikit-learn does it, then summed in float64 as it does that. skl2onnx sums in
    float32, which is off by more the more categories there are: 4e-7 on the real models.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    inputs, linear = model[0], model[-1]
    weights = np.ravel(linear.coef_).astype(np.float64)
    constants: dict[str, Any] = {"intercept": np.array(np.ravel(linear.intercept_)[:1], dtype=np.float64)}
    nodes, terms, start = [], [], 0

    def step(kind: str, inputs: str, output: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, inputs.split(), [output], **attributes))

    for name, transformer, columns in inputs.transformers_:
        places = np.array(columns, dtype=np.int64)
        if name == "number":
            imputer, scaler = transformer[0], transformer[1]
            part, start = weights[start : start + len(places)], start + len(places)
            constants |= {
                "numbers": places,
                "median": imputer.statistics_.astype(np.float32),
                "mean": scaler.mean_.astype(np.float32),
                "spread": scaler.scale_.astype(np.float32),
                "slope": part[:, None],
            }
            step("Gather", "input numbers", "number", axis=1)
            step("IsNaN", "number", "gap")
            step("Where", "gap median number", "filled")
            step("Sub", "filled mean", "centred")
            step("Div", "centred spread", "scaled")
            step("Cast", "scaled", "exact", to=TensorProto.DOUBLE)
            step("MatMul", "exact slope", "by_number")
            terms.append("by_number")
        elif name == "present":
            part, start = weights[start : start + len(places)], start + len(places)
            constants["intercept"] = constants["intercept"] + part.sum()
            constants["absence"] = -part[:, None]
            step("Cast", "gap", "is_gap", to=TensorProto.DOUBLE)
            step("MatMul", "is_gap absence", "by_gap")
            terms.append("by_gap")
        elif name == "category":
            codes = [len(found) for found in transformer[1].categories_]  # of each, the first is -1: missing
            constants |= {
                "categories": places,
                "missing": np.array(-1.0, dtype=np.float32),
                "offset": np.cumsum([1, *codes[:-1]], dtype=np.int64),
                "weight": weights[start : start + sum(codes)],
                "across": np.array([1], dtype=np.int64),
            }
            start += sum(codes)
            step("Gather", "input categories", "code", axis=1)
            step("IsNaN", "code", "no_code")
            step("Where", "no_code missing code", "known")
            step("Cast", "known", "number_of", to=TensorProto.INT64)
            step("Add", "number_of offset", "place")
            step("Gather", "weight place", "of_code", axis=0)
            step("ReduceSum", "of_code across", "by_category", keepdims=1)
            terms.append("by_category")
    step("Sum", " ".join([*terms, "intercept"]), "margin" if target.light_link else target.light_output)
    if target.light_link:
        step(target.light_link, "margin", target.light_output)
    graph = helper.make_graph(
        nodes,
        "light",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, rows.shape[1]])],
        [helper.make_tensor_value_info(target.light_output, TensorProto.DOUBLE, [None, 1])],
        [numpy_helper.from_array(np.asarray(value), known) for known, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(made)
    return _same(made.SerializeToString(), model, rows, target)


def parity(content: bytes, model: Any, rows: Matrix, target: Target = YES_OR_NO) -> float:
    """How far ONNX is from `model` at most, as a share of the bounds' width: on `rows`, and with gaps in them.

    The gaps, in every column in turn and in all, are there because a frame without any would not show them.
    """
    from tiltyard.train.scorer import answers, session

    gaps = np.repeat(rows[:1], rows.shape[1] + 1, axis=0)
    np.fill_diagonal(gaps, np.nan)
    gaps[-1] = np.nan
    rows = np.concatenate([rows, gaps])
    apart = np.abs(answers(session(content), rows) - target.answers(model, rows)) / target.width
    return float(np.where(np.isfinite(apart), apart, np.inf).max())


def _same(content: bytes, model: Any, rows: Matrix, target: Target) -> bytes:
    """`content` when it scores `rows` as `model` does. Raises CheckFailed when the conversion changed the model."""
    apart = parity(content, model, rows, target)
    if not apart <= PARITY:
        raise CheckFailed(
            f"The ONNX conversion of {type(model).__name__} is off by {apart:.2g} {target.distance}, more than "
            f"{PARITY:g}; nothing was registered. Check the versions of xgboost, scikit-learn and the converters."
        )
    return content


# -- plots ------------------------------------------------------------------------------------


def _calibration_plot(label: Values, scores: Mapping[str, NDArray[np.float64]], target: Target) -> bytes:
    """Mean label against mean score in ten bins of equal size, with a bar that says how the labels of a bin lie."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    drawn = [min(float(score.min()) for score in scores.values()), max(float(score.max()) for score in scores.values())]
    ends = target.axis or drawn
    above.plot(ends, ends, color="0.7", linewidth=1)
    for (name, score), colour in zip(scores.items(), ("#1f5fa8", "#d9822b"), strict=True):
        bins = np.array_split(np.argsort(score, kind="stable"), BINS)
        mean, observed = (np.array([values[part].mean() for part in bins]) for values in (score, label))
        low, high = np.array([target.spread(label[part]) for part in bins]).T
        spread = np.clip([observed - low, high - observed], 0, None)
        above.errorbar(mean, observed, yerr=spread, marker="o", markersize=4, capsize=2, color=colour, label=name)
        below.hist(score, bins=np.linspace(*target.axis, 41) if target.axis else 40, histtype="step", color=colour)
    above.set(ylabel=target.plot.label, title=f"{target.plot.title} on {len(label):,} held-out rows")
    above.legend(frameon=False)
    below.set(xlabel="score", ylabel="rows")
    if target.axis:
        low, high = target.axis
        above.set(ylim=(low - 0.02 * (high - low), high + 0.02 * (high - low)))
        below.set(xlim=target.axis)
    return _png(figure)


def _contributions(model: Any, matrix: Matrix) -> NDArray[np.float64]:
    """(rows, features): the SHAP value of each feature in each row.

    Exact TreeSHAP, computed by XGBoost itself: Lundberg et al. (2020), Nature Machine Intelligence 2:56-67.
    """
    import xgboost

    return model.get_booster().predict(xgboost.DMatrix(matrix), pred_contribs=True)[:, :-1].astype(np.float64)


def _shap_plot(values: NDArray[np.float64], matrix: Matrix, encoding: Encoding, unit: str) -> bytes:
    """SHAP values of the fifteen features that move the score most, one dot per held-out row."""
    from matplotlib.figure import Figure

    strongest = np.argsort(-np.abs(values).mean(axis=0), kind="stable")[:15][::-1]
    figure = Figure(figsize=(8, 0.36 * len(strongest) + 1.4), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="0.8", linewidth=1)
    dots = None
    for height, place in enumerate(strongest):
        ranks = pd.Series(matrix[:, place]).rank(pct=True).to_numpy()
        shade = np.where(np.isnan(ranks), 0.5, ranks)
        offset = _swarm(values[:, place])
        dots = axes.scatter(
            values[:, place], height + offset, c=shade, cmap="coolwarm", s=6, vmin=0, vmax=1, linewidths=0
        )
    axes.set_yticks(range(len(strongest)), [encoding.features[place] for place in strongest])
    axes.set(xlabel=f"SHAP value ({unit})", title=f"What moves the score, on {len(matrix):,} held-out rows")
    bar = figure.colorbar(dots, ax=axes, ticks=[0, 1], fraction=0.03)
    bar.set_ticklabels(["low", "high"])
    bar.set_label("feature value (categories: frequent to rare)")
    return _png(figure)


def _swarm(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Vertical offsets in (-0.4, 0.4) that spread dots apart where they are dense."""
    _, bins = np.unique(np.round(values / (np.ptp(values) / 80 or 1)), return_inverse=True)
    order = np.argsort(bins, kind="stable")
    starts = np.flatnonzero(np.diff(bins[order], prepend=-1))
    rank = np.empty(len(values))
    rank[order] = np.arange(len(values)) - np.repeat(starts, np.diff([*starts, len(values)]))
    offset = np.ceil(rank / 2) * np.where(rank % 2, 1, -1)
    return 0.4 * offset / max(1.0, np.abs(offset).max())


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
