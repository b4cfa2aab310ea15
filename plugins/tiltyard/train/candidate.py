"""What a training registers: the files of a version, and all that is to be known about it."""

import io
import json
import logging
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import JsonValue

from tiltyard import release
from tiltyard import target as targets
from tiltyard.clock import NIGHT, night_closing
from tiltyard.prepare.frame import TrainingFrame
from tiltyard.records import JsonObject, Parity, VersionFacts
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import DECIDED, Spec
from tiltyard.target import Target
from tiltyard.train import export, fit, look, profile, registry
from tiltyard.train.blocks import Rows, Split, split
from tiltyard.train.encoding import EncodedColumn, Encoding, is_number
from tiltyard.train.fit import Fitted, Fitter, Plan, Tuned
from tiltyard.train.scorer import Scorer

log = logging.getLogger(__name__)

SAMPLE = 2000
"""Training rows kept with the version, for drift."""
CELLS = 10
"""Cells of a histogram in a version's reference."""
CALLS = 100
"""One-row predictions per round in which a version's latency is measured."""


@dataclass(frozen=True)
class Order:
    """Which training a candidate is made for."""

    as_of: datetime
    """The end of the night."""
    inputs: str
    """SHA-256 of frame, recipe, seed and trials."""
    trials: int
    """Number of trials of tuning."""
    requested_by: str
    """Who asks for it."""
    reasons: tuple[str, ...] = ()
    """Why, a sentence each."""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A training frame, ready to fit on."""

    frame: pd.DataFrame
    """One row per prediction: its time, features and label."""
    rows: Rows
    """The same rows, encoded."""
    outside: int | None
    """Number of labels beyond the bounds; None of a label without any."""
    parts: Split
    """Their blocks by time."""
    encoding: Encoding
    """How they are encoded."""


def make(
    settings: Settings,
    spec: Spec,
    training_frame: TrainingFrame,
    order: Order,
    *,
    draw: bool = True,
    tuned: Tuned | None = None,
) -> registry.Candidate:
    """Fit both models on the frame and make a version's files of them, with plots where they are to be drawn.

    `tuned`: what tuning this frame gave, where somebody has done it. Raises Untrainable when the frame cannot carry a
    model, and CheckFailed when ONNX does not score as the models do.
    """
    spec = _bounded(spec, training_frame)
    target, prepared, plan = spec.target, _prepare(spec, order.as_of, training_frame), Plan.of(spec.estimator)
    fitted = fit.fit(
        prepared.rows,
        prepared.parts,
        prepared.encoding,
        trials=order.trials,
        seed=settings.seed,
        threads=settings.threads,
        target=target,
        plan=plan,
        tuned=tuned,
    )
    sample = _sample(prepared, fitted, settings.seed, target)
    remembered = _reference(spec, order.as_of, training_frame, prepared, fitted)
    kept = profile.read(remembered)
    files = {
        **_models(fitted, prepared, target, plan),
        "encoding.json": prepared.encoding.to_json().encode(),
        "reference.json": json.dumps(remembered).encode(),
        "reference.parquet": parquet(sample),
    }
    facts = replace(
        _facts(spec, settings, training_frame, order, prepared, fitted, plan),
        filled=profile.features(kept) if kept else (),
        latency_ms=latency_ms(Scorer.from_files(spec.name, 0, files), sample),
        size_mb=registry.size_mb(files),
        parity=Parity(
            heavy=export.parity(files["model.onnx"], fitted.heavy, prepared.rows.matrix, target),
            light=export.parity(files["light.onnx"], fitted.light, prepared.rows.matrix, target),
        ),
    )
    return registry.Candidate(
        as_of=order.as_of,
        inputs=order.inputs,
        files=files,
        features=prepared.encoding.features,
        params={
            **fitted.params.flat,
            "trials": order.trials,
            "seed": settings.seed,
            "heavy": spec.estimator.class_,
            "light": spec.light.class_,
            "device": plan.device.name,
        },
        metrics=_flat(fitted.metrics.to_json()),
        tags=_tags(spec, training_frame, order, facts),
        plots=_plots(fitted, prepared.encoding, target, plan) if draw else {},
        facts=facts,
        requested_by=order.requested_by,
        description=_description(spec, training_frame, order),
        trials=tuple(
            {f"trial_{target.measure}": trial.error, "trial_rounds": float(trial.rounds)} for trial in fitted.trials
        ),
        target=target,
    )


def sketch(
    settings: Settings, spec: Spec, as_of: datetime, training_frame: TrainingFrame, trials: int
) -> tuple[bytes, Encoding, Tuned]:
    """Only the heavy model that `make` would fit (ONNX), its encoding, and what tuning gave: enough to score with.

    Raises as `make` does.
    """
    spec = _bounded(spec, training_frame)
    prepared = _prepare(spec, as_of, training_frame)
    plan = Plan.of(spec.estimator)
    fitter = Fitter(prepared.encoding, settings.seed, settings.threads, spec.target, plan)
    tuned = fit.tune(fitter, prepared.rows, prepared.parts, trials)
    model = fitter.heavy(prepared.rows, tuned.params)
    heavy = export.heavy_onnx(model, prepared.rows.matrix, spec.target, plan.family)
    return heavy, prepared.encoding, tuned


def _bounded(spec: Spec, training_frame: TrainingFrame) -> Spec:
    """With bounds of the frame's labels, where none are known."""
    if spec.target.is_learned:
        return spec
    labels = training_frame.table(["label"])["label"].to_numpy()
    return spec.bounded(spec.target.learned(labels, spec.fallback.safe_default).bounds)


def _prepare(spec: Spec, as_of: datetime, training_frame: TrainingFrame) -> _Prepared:
    frame = training_frame.read().reset_index(drop=True)
    label, outside = spec.target.of_training(frame["label"].to_numpy())
    parts = split(_cohort_times(spec, frame), label, NIGHT, as_of, spec.target)
    encoding = Encoding.fit(frame, training_frame.features)
    days = (frame["prediction_time"] - pd.Timestamp(0, tz="UTC")).to_numpy() / np.timedelta64(1, "D")
    return _Prepared(frame, Rows(encoding.transform(frame), label, days), outside, parts, encoding)


def _cohort_times(spec: Spec, frame: pd.DataFrame) -> pd.Series:
    """The instants by which rows are taken together as cohorts. By the prediction times of rows that are decided at
    times of their own, the first nights of a frame would hold those alone that were made far ahead, and the last ones
    those that were not."""
    return frame[DECIDED if spec.label.until else "prediction_time"]


# -- files ------------------------------------------------------------------------------------


def _models(fitted: Fitted, prepared: _Prepared, target: Target, plan: Plan) -> dict[str, bytes]:
    matrix = prepared.rows.matrix
    heavy = export.heavy_onnx(fitted.heavy, matrix, target, plan.family)
    light = export.light_onnx(fitted.light, matrix, target)
    log.info("converted to ONNX, %d and %d bytes", len(heavy), len(light))
    return {"model.onnx": heavy, "light.onnx": light}


def _sample(prepared: _Prepared, fitted: Fitted, seed: int, target: Target) -> pd.DataFrame:
    """Up to SAMPLE training rows: the features, `label` and `_score`, which is out of fold."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(prepared.frame))[:SAMPLE])
    rows = prepared.frame.loc[chosen, list(prepared.encoding.features)]
    return rows.assign(label=prepared.rows.label[chosen], _score=target.column(fitted.out_of_fold[chosen]))


def _reference(
    spec: Spec, as_of: datetime, training_frame: TrainingFrame, prepared: _Prepared, fitted: Fitted
) -> JsonObject:
    """The body of reference.json."""
    frame, label = prepared.frame, prepared.rows.label
    return {
        "night": str(night_closing(as_of)),
        "rows": len(frame),
        spec.target.base: spec.target.base_figure(label),
        "metrics": fitted.metrics.to_json(),
        **reference(frame, prepared.encoding, spec.target.single(fitted.out_of_fold), spec.target.bounds),
        **spec.target.to_json(),
        "importance": {**fitted.importance},
        "profile": profile.describe(
            frame,
            {feature.name: feature.kind for feature in training_frame.features},
            {feature.name: feature.view for feature in training_frame.features},
            profile.nights_of(_cohort_times(spec, frame), NIGHT, as_of),
            fitted.out_of_fold,
            label.astype(np.float64),
            fitted.importance,
            spec.target,
        ),
    }


def reference(
    frame: pd.DataFrame, encoding: Encoding, score: NDArray[np.float64], bounds: tuple[float, float] = (0.0, 1.0)
) -> JsonObject:
    """What the training frame looked like. Shares are of all rows and sum to 1 with `missing`.

    {"features": {name: one of
        {"kind": "numeric", "edges": [e1 … ek], "shares": [k + 1 shares], "missing"}: bin i is [e_i, e_i+1), the
            first and the last reach to infinity; edges are the distinct deciles
        {"kind": "categorical" | "boolean", "shares": {category: share}, "other", "missing"}},
     "score": {"edges", "shares"} on ten equal bins between `bounds`, of out-of-fold scores; of classes, of the
        likeliest's probability}
    """
    counts, edges = np.histogram(score, bins=np.linspace(*bounds, CELLS + 1))
    return {
        "features": {
            column.name: {"kind": column.kind, **_shares(column, frame[column.name])} for column in encoding.columns
        },
        "score": {"edges": edges.tolist(), "shares": (counts / len(score)).tolist()},
    }


def _shares(column: EncodedColumn, values: "pd.Series[Any]") -> JsonObject:
    """A feature's histogram in the training frame, as `reference` has it."""
    missing = float(values.isna().mean())
    if column.kind == "numeric":
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        missing = float(1 - is_number(numbers).mean())
        numbers = numbers[is_number(numbers)]
        edges = np.unique(np.quantile(numbers, np.arange(1, CELLS) / CELLS)) if len(numbers) else np.empty(0)
        counts = np.bincount(np.digitize(numbers, edges), minlength=len(edges) + 1)
        return {"edges": edges.tolist(), "shares": (counts / max(len(values), 1)).tolist(), "missing": missing}
    is_boolean = column.kind == "boolean"
    present = values.dropna().map(lambda value: str(bool(value) if is_boolean else value)).value_counts()
    names = ("False", "True") if is_boolean else column.categories
    shares = {name: float(present.get(name, 0) / len(values)) for name in names}
    return {"shares": {**shares}, "other": max(0.0, 1 - missing - sum(shares.values())), "missing": missing}


def parquet(frame: pd.DataFrame) -> bytes:
    """A frame as the bytes of a Parquet file; the same frame gives the same bytes."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _plots(fitted: Fitted, encoding: Encoding, target: Target, plan: Plan) -> dict[str, bytes]:
    """File name → PNG, of those that can be drawn: no picture ends a training."""
    rows = fitted.held_out
    draw: dict[str, Callable[[], bytes]] = {
        "calibration.png": lambda: look.calibration(rows.label, rows.scores, target),
        "shap_summary.png": lambda: look.contributions(
            rows.contributions, rows.explained, encoding, plan.family.unit(target)
        ),
    }
    drawn = {}
    for name, picture in draw.items():
        try:
            drawn[name] = picture()
        except Exception as error:  # whatever matplotlib says of numbers that it did not foresee
            log.warning("%s is not drawn", name, exc_info=error)
    return drawn


# -- facts ------------------------------------------------------------------------------------


def latency_ms(scorer: Scorer, rows: pd.DataFrame) -> float:
    """Milliseconds of computing that one row takes, from the frame to the score: the 99th percentile of 100 calls.

    The smallest of three rounds, after a warm-up, in the thread's own time: who else wants the core is no property of
    the model, and must not decide on it.
    """
    singles = [rows.iloc[[place % len(rows)]] for place in range(CALLS)]
    for row in singles[:20]:
        scorer.score(row)
    rounds = []
    for _ in range(3):
        seconds = []
        for row in singles:
            began = time.thread_time()
            scorer.score(row)
            seconds.append(time.thread_time() - began)
        rounds.append(float(np.quantile(seconds, 0.99)))
    return 1000 * min(rounds)


def _facts(
    spec: Spec,
    settings: Settings,
    training_frame: TrainingFrame,
    order: Order,
    prepared: _Prepared,
    fitted: Fitted,
    plan: Plan,
) -> VersionFacts:
    """What the ledger keeps of how the version was made, without what is measured on its files."""
    commit, dirty = _git()
    return VersionFacts(
        frame=training_frame.digest,
        rows=training_frame.rows,
        snapshot=training_frame.snapshot,
        release=release.name(settings),
        start=training_frame.start.isoformat(),
        end=training_frame.end.isoformat(),
        spec=spec.digest,
        seed=settings.seed,
        trials=order.trials,
        features=prepared.encoding.features,
        params=fitted.params.flat,
        device=plan.device.name,
        device_reason=plan.device.reason,
        metrics=fitted.metrics,
        fit_cpu_s=fitted.cpu_s,
        bounds=None if targets.of(spec.label).is_learned else spec.target.bounds,
        label=None if targets.of(spec.label).is_learned else spec.label.digest,
        labels_outside_bounds=prepared.outside,
        reasons=order.reasons,
        git_commit=commit,
        git_dirty=dirty,
    )


def _git() -> tuple[str | None, bool]:
    """The commit this code is at and whether files differ from it; (None, False) outside a checkout."""

    def git(*arguments: str) -> str | None:
        try:
            ended = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return ended.stdout.strip() if ended.returncode == 0 else None

    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))


# -- what MLflow shows ------------------------------------------------------------------------


def _description(spec: Spec, training_frame: TrainingFrame, order: Order) -> str:
    reasons = f": {'; '.join(order.reasons)}" if order.reasons else ""
    return (
        f"Trained for the night of {night_closing(order.as_of)} on {training_frame.rows:,} rows with prediction times "
        f"from {training_frame.start:%Y-%m-%d} to {training_frame.end:%Y-%m-%d} (frame {training_frame.digest[:12]}, "
        f"lake snapshot {training_frame.snapshot}, spec {spec.digest[:12]}). "
        f"Requested by {order.requested_by}{reasons}."
    )


def _tags(spec: Spec, training_frame: TrainingFrame, order: Order, facts: VersionFacts) -> dict[str, str]:
    return {
        "model": spec.name,
        "night": str(night_closing(order.as_of)),
        "frame": training_frame.digest,
        "lake_snapshot": str(training_frame.snapshot),
        "spec": spec.digest,
        "inputs": order.inputs,
        "git_commit": facts.git_commit or "unknown",
        "git_dirty": str(facts.git_dirty).lower(),
        "reasons": json.dumps(list(order.reasons)),
        "requested_by": order.requested_by,
        "mlflow.user": order.requested_by,
        "mlflow.source.name": "tiltyard train",
    }


def _flat(metrics: Mapping[str, JsonValue], prefix: str = "") -> dict[str, float]:
    """Nested metrics under MLflow's names: held_out.light.brier.low and the like. What there is none of is left out."""
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            flat[f"held_out.{prefix}{name}".removesuffix(".value")] = float(value)
    return flat
