"""The drift stage: has the world moved away from what the model was trained on, and does the model still hold?

Three kinds, kept apart. *Feature* and *prediction* drift compare the last `drift.window` with the sample of
training rows kept with the model; *performance* compares the realized Brier score of the newest matured cohorts
with the model's own held-out score and with the safe default on the same rows. The governor turns what was found
into at most one request to retrain.

A column's statistic is the normalised Wasserstein distance (numbers) or the Jensen-Shannon distance (categories).
A pre-screen computes it for every column, without figures; the columns that come near their threshold go to
Evidently, whose verdict counts. While a retrain may not be asked for again (the cooldown), the pre-screen's verdict
stands. The threshold is 0.1 or, where that is larger, what two samples of these sizes
from the same distribution show by chance: with 30 categories and 300 rows, 0.1 is noise.
The HTML page never changes the verdict: it is drawn always (`render`), or only with a retrain.
"""

import dataclasses
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tiltyard import clock, evaluation, features, frame, governor, outage, registry, truth
from tiltyard.governor import Broken, Finding, Signal
from tiltyard.ledger import Roles, night_of
from tiltyard.rails import Rails
from tiltyard.spec import Spec

if TYPE_CHECKING:
    from evidently import Dataset

STAGE = "drift"
TABLE = "ops.drift"
COLUMNS = {
    "model": "varchar",
    "night": "date",
    "version": "integer",
    "column_name": "varchar",
    "kind": "varchar",
    "statistic": "varchar",
    "value": "double",
    "threshold": "double",
    "drifted": "boolean",
    "note": "varchar",
    "available_at": "timestamptz",
}

PREDICTION = "prediction"
"""The prediction's column in reports; spec names cannot collide, features come from views."""
SAMPLE = 1000
"""Rows of the window that are compared; a larger window is sampled, seeded by the night."""
MIN_VALUES = 30
"""Fewer values than this, on either side, and a column is not tested."""
THRESHOLD = 0.1
"""Evidently's default for both distances."""
NEAR = 0.9
"""From this share of its threshold on, a column goes to Evidently."""
KEPT = 30
"""Categories looked at one by one; the reference's rarer ones count as one, unseen ones as another."""
DRAWS = 100
DEVIATIONS = 4.0
"""The noise floor is the mean and so many deviations of what `DRAWS` pairs of samples of one distribution show."""
STATISTIC = {"numeric": "wasserstein", "categorical": "jensenshannon"}


def run(rails: Rails, spec: Spec, as_of: datetime, *, render: bool = True) -> dict[str, Any]:
    """Look at one model on one night, after its shadow stage, and tell the governor what was found.

    `render` draws the HTML page whatever was found. Raises BadInput when no features were ever published.
    """
    night = night_of(as_of)
    claim = rails.ledger.claim(f"{STAGE}/{spec.name}/{night}")
    roles = rails.ledger.roles(spec.name, night)
    version = roles.champion if roles.champion is not None else max(roles.challengers, default=None)
    columns: Compared | None = None
    if version is None:
        finding = _bootstrap(rails, spec, as_of)
    else:
        finding, columns = _look(rails, spec, as_of, roles, version)
    drifted = sorted(signal.column for signal in finding.signals if signal.drifted)

    page: Path | None = None
    if columns is not None and columns.tested and (render or finding.alarm):
        page = rails.settings.reports / STAGE / spec.name / f"{night}.html"
        _write(page, draw(columns, f"Drift of {spec.name} {version}, night of {night}", spec.drift.share))
    outcome = {
        "model": spec.name,
        "night": str(night),
        "version": version,
        "verdict": _verdict(version, finding),
        "reasons": [one.said for one in finding.broken] or [f"drifted: {', '.join(drifted) or 'nothing'}"],
        "report": str(page) if page else None,
        "columns": {signal.column: _plain(signal) for signal in finding.signals},
    }
    _write(rails.settings.reports / STAGE / spec.name / f"{night}.json", json.dumps(outcome, indent=1, sort_keys=True))
    _store(rails, spec, as_of, version, finding.signals, claim)
    with claim.held():
        rails.ledger.add_finding(dataclasses.replace(finding, report=outcome["report"]))
    summary = {key: value for key, value in outcome.items() if key != "columns"}
    summary["drifted"] = drifted
    summary["untested"] = {signal.column: signal.note for signal in finding.signals if signal.value is None}
    rails.ledger.record_stage(STAGE, spec.name, night, "done", summary)
    return outcome


def _verdict(version: int | None, finding: Finding) -> str:
    if version is None:
        return "no_reference"
    return "broken" if finding.broken else "alarm" if finding.alarm else "steady"


# -- what is looked at --------------------------------------------------------------------------


def _bootstrap(rails: Rails, spec: Spec, as_of: datetime) -> Finding:
    """Without any model: how many matured labels a first training frame would hold."""
    snapshot = features.published(rails)
    end = clock.last_matured(as_of, spec.label.horizon, spec.label.delay)
    counted = rails.lake.query(
        f"""
        select count(distinct (spine."{spec.key}", spine.prediction_time)) as matured
        from {{spines.{spec.prediction.spine}}} as spine
        inner join {{labels.{spec.label.table}}} as label
            on label."{spec.key}" = spine."{spec.key}" and label.prediction_time = spine.prediction_time
        where spine.prediction_time > $start and spine.prediction_time <= $end and label.label is not null
        """,
        as_of,
        {"start": end - spec.estimator.window, "end": end},
        snapshot,
    )
    return Finding(
        model=spec.name,
        night=night_of(as_of),
        tier=spec.tier,
        owner=spec.owner,
        champion=None,
        challengers=(),
        broken=_broken(rails, spec, as_of, stages=("features",)),
        matured=int(counted["matured"].iloc[0]),
        min_matured=spec.gate.min_matured,
    )


def _look(rails: Rails, spec: Spec, as_of: datetime, roles: Roles, version: int) -> tuple[Finding, "Compared | None"]:
    broken = _broken(rails, spec, as_of, stages=("features", "shadow"))
    snapshot = features.published(rails)
    start = as_of - spec.drift.window
    rows = frame.build(rails, spec, start, as_of, as_of, snapshot)
    if rows.empty:
        nothing = f"there is nothing to predict on between {start:%Y-%m-%d} and {as_of:%Y-%m-%d}"
        broken = (*broken, Broken(spec.prediction.spine, None, nothing))
    reference = registry.load(rails, spec.name, version).reference_frame()
    known = frame.features(rails, spec, snapshot)
    compared = compare(
        {feature.name: feature.kind for feature in known},
        reference,
        _sampled(rows, as_of),
        reference_scores=reference["score"],
        current_scores=_sampled(_scores(rails, spec, as_of, version, start), as_of),
    )
    views = {feature.name: feature.view for feature in known}
    signals = tuple(dataclasses.replace(one, view=views.get(one.column)) for one in judged(compared))
    if roles.champion is not None:
        signals = (*signals, *_performance(rails, spec, as_of, roles.champion))
    alarm, harm = _alarm(signals, spec)
    finding = Finding(
        model=spec.name,
        night=night_of(as_of),
        tier=spec.tier,
        owner=spec.owner,
        champion=roles.champion,
        challengers=roles.challengers,
        alarm=alarm,
        harm=harm,
        signals=signals,
        broken=broken,
        min_matured=spec.gate.min_matured,
    )
    return finding, compared


def _alarm(signals: Sequence[Signal], spec: Spec) -> tuple[bool, governor.Harm]:
    """Enough columns, the predictions, or the performance; and whether the performance feels it."""
    tested = [one for one in signals if one.kind == "feature" and one.value is not None]
    moved = sum(one.drifted for one in tested)
    felt = [one for one in signals if one.kind == "performance"]
    many = moved > 0 and moved >= spec.drift.share * len(tested)
    alarm = many or any(one.drifted for one in signals if one.kind in ("prediction", "performance"))
    if any(one.drifted for one in felt):
        return alarm, "felt"
    return alarm, "not_felt" if any(one.value is not None for one in felt) else "unknown"


def _broken(rails: Rails, spec: Spec, as_of: datetime, stages: Sequence[str]) -> tuple[Broken, ...]:
    """Why the night's rows are not what they should be: a stage that has not ended well, an open data incident."""
    night = night_of(as_of)
    found = []
    for stage in stages:
        record = rails.ledger.stage_runs(stage, "" if stage == "features" else spec.name).get(night)
        if record is None or record["status"] != "done":
            said = f"the {stage} stage of {night} is {record['status'] if record else 'not done'}"
            found.append(Broken(stage, None, said))
    for one in outage.incidents(rails, spec.source, night):
        if outage.touches(rails, spec.source, one):
            found.append(Broken(one["table"], one["column"] or None, outage.in_words(one)))
    return tuple(found)


def _scores(rails: Rails, spec: Spec, as_of: datetime, version: int, start: datetime) -> pd.Series:
    """Scores that `version` itself gave in the window, whatever its role was then."""
    if not rails.lake.has("ops.prediction"):
        return pd.Series([], dtype="float64")
    rows = rails.lake.query(
        """
        select score
        from {ops.prediction}
        where model = $model and version = $version and tier not in ('light', 'safe_default')
            and prediction_time >= $start and prediction_time < $end
        order by prediction_time, entity_id
        """,
        as_of,
        {"model": spec.name, "version": version, "start": start, "end": as_of},
    )
    return rows["score"]


def _sampled(rows: Any, as_of: datetime) -> Any:
    """At most SAMPLE rows, the same for the same night."""
    if len(rows) <= SAMPLE:
        return rows
    chosen = np.random.default_rng(as_of.date().toordinal()).choice(len(rows), SAMPLE, replace=False)
    return rows.iloc[np.sort(chosen)]


# -- the statistics -----------------------------------------------------------------------------


class Compared:
    """Columns side by side, cleaned, with the pre-screen's figure and threshold for each.

    `reference` and `current` map a column to its values without missing ones; `kinds` says numeric or
    categorical; `untested` says why a column is not among them.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.reference: dict[str, pd.Series] = {}
        self.current: dict[str, pd.Series] = {}
        self.value: dict[str, float] = {}
        self.threshold: dict[str, float] = {}
        self.note: dict[str, str] = {}
        self.untested: dict[str, tuple[str, str]] = {}

    @property
    def tested(self) -> tuple[str, ...]:
        return tuple(self.value)

    def add(self, column: str, kind: str, reference: pd.Series, current: pd.Series) -> None:
        before, now, note = _clean(kind, reference, current)
        if min(len(before), len(now)) < MIN_VALUES:
            self.skip(column, kind, _too_few(before, now))
            return
        self.kinds[column], self.reference[column], self.current[column] = kind, before, now
        self.value[column] = distance(kind, before, now)
        self.threshold[column] = THRESHOLD
        if self.value[column] >= NEAR * THRESHOLD:  # below it, the noise floor cannot change anything
            floor = noise_floor(kind, before, len(now), seed=zlib.crc32(column.encode()))
            self.threshold[column] = max(THRESHOLD, floor)
        self.note[column] = note

    def skip(self, column: str, kind: str, why: str) -> None:
        self.untested[column] = (STATISTIC[kind], why)


def compare(
    kinds: Mapping[str, str],
    reference: pd.DataFrame,
    current: pd.DataFrame,
    *,
    reference_scores: pd.Series,
    current_scores: pd.Series,
) -> Compared:
    """The pre-screen. `kinds`: today's features → numeric, boolean or categorical."""
    compared = Compared()
    for column, declared in kinds.items():
        kind = "numeric" if declared == "numeric" else "categorical"
        if column in reference.columns:
            compared.add(column, kind, reference[column], current[column])
        else:
            compared.skip(column, kind, "not in the training reference")
    for column in reference.columns.difference([*kinds, "label", "score"]):
        kind = "numeric" if pd.api.types.is_float_dtype(reference[column]) else "categorical"
        compared.skip(column, kind, "not in the feature views any more")
    compared.add(PREDICTION, "numeric", reference_scores, current_scores)
    return compared


def judged(compared: Compared, *, confirm: bool = True) -> tuple[Signal, ...]:
    """Every column's signal. With `confirm`, columns near their threshold or over it are decided by Evidently."""
    if confirm:
        near = [column for column in compared.tested if compared.value[column] >= NEAR * compared.threshold[column]]
        drifted = evidently_drifted(compared, near) if near else frozenset()
    else:
        drifted = frozenset(name for name in compared.tested if compared.value[name] >= compared.threshold[name])
    signals = [
        Signal(
            kind=_kind(column),
            column=column,
            view=None,
            statistic=STATISTIC[compared.kinds[column]],
            value=compared.value[column],
            threshold=compared.threshold[column],
            drifted=column in drifted,
            note=compared.note[column],
        )
        for column in compared.tested
    ]
    signals += [
        Signal(_kind(column), column, None, statistic, None, None, False, note=why)
        for column, (statistic, why) in compared.untested.items()
    ]
    return tuple(signals)


def distance(kind: str, reference: pd.Series, current: pd.Series) -> float:
    """The statistic Evidently computes: Wasserstein over the reference's deviation, or Jensen-Shannon (nats)."""
    if kind == "numeric":
        from scipy.stats import wasserstein_distance

        deviation = max(float(np.std(reference)), 0.001)
        return float(wasserstein_distance(reference, current)) / deviation
    before, now = reference.value_counts(normalize=True), current.value_counts(normalize=True)
    keys = before.index.union(now.index)
    return float(_jensen_shannon(before.reindex(keys, fill_value=0.0), now.reindex(keys, fill_value=0.0)))


def noise_floor(kind: str, reference: pd.Series, size: int, seed: int) -> float:
    """What the statistic shows by chance between two samples of the reference, of its size and of `size`.

    Numbers are drawn from 64 cells of the reference: parametric bootstrap on a histogram (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, ch. 6).
    """
    random = np.random.default_rng(seed)
    if kind == "numeric":
        values = np.asarray(reference, dtype="float64")
        edges = np.unique(np.quantile(values, np.linspace(0, 1, 65)))
        if len(edges) < 2:
            return 0.0
        cell = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 1)
        counts = np.bincount(cell, minlength=len(edges))
        sums = np.bincount(cell, weights=values, minlength=len(edges))
        places = (sums / np.maximum(counts, 1))[counts > 0]
        counts = counts[counts > 0]
    else:
        counts = reference.value_counts().sort_index().to_numpy()
    chances = counts / counts.sum()
    first = random.multinomial(len(reference), chances, size=DRAWS) / len(reference)
    second = random.multinomial(size, chances, size=DRAWS) / size
    if kind == "numeric":
        gaps = np.abs(np.cumsum(first - second, axis=1))[:, :-1]
        drawn = gaps @ np.diff(places) / max(float(np.std(values)), 0.001)
    else:
        drawn = _jensen_shannon(first, second)
    return float(drawn.mean() + DEVIATIONS * drawn.std())


def _jensen_shannon(first: Any, second: Any) -> Any:
    """Jensen-Shannon distance in nats along the last axis (Endres and Schindelin, 2003)."""
    p, q = np.asarray(first, dtype="float64"), np.asarray(second, dtype="float64")
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log(p / middle), 0.0).sum(axis=-1)
        right = np.where(q > 0, q * np.log(q / middle), 0.0).sum(axis=-1)
    return np.sqrt(np.maximum(left + right, 0.0) / 2)


def _clean(kind: str, reference: pd.Series, current: pd.Series) -> tuple[pd.Series, pd.Series, str]:
    """Both sides without missing values, rare and unseen categories folded; and what is worth saying."""
    missing = (_missing(reference), _missing(current))
    note = f"missing {missing[0]:.0%} → {missing[1]:.0%}" if abs(missing[1] - missing[0]) >= 0.2 else ""
    if kind == "numeric":
        return _numbers(reference), _numbers(current), note
    before, now = _categories(reference), _categories(current)
    counts = before.value_counts()
    ordered = sorted(counts.index, key=lambda name: (-counts[name], name))
    kept, known = set(ordered[:KEPT]), set(ordered)
    unseen = now[~now.isin(known)]
    if len(unseen):
        said = f"{len(unseen) / len(now):.0%} in categories training never saw, like {unseen.value_counts().index[0]!r}"
        note = f"{note}; {said}" if note else said
    before = before.where(before.isin(kept), "(other)")
    now = now.where(now.isin(kept), np.where(now.isin(known), "(other)", "(new)"))
    return before.astype(object), now.astype(object), note


def _missing(values: pd.Series) -> float:
    return float(values.isna().mean()) if len(values) else 1.0


def _numbers(values: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce").astype("float64").replace([np.inf, -np.inf], np.nan)
    return numbers.dropna().reset_index(drop=True)


def _categories(values: pd.Series) -> pd.Series:
    present = values.dropna().reset_index(drop=True)
    return present.map(str).astype(object)


def _too_few(before: pd.Series, now: pd.Series) -> str:
    side, values = ("reference", before) if len(before) < MIN_VALUES else ("window", now)
    return f"no values in the {side}" if values.empty else f"{len(values)} values in the {side}, {MIN_VALUES} needed"


def _kind(column: str) -> governor.Kind:
    return "prediction" if column == PREDICTION else "feature"


# -- Evidently ----------------------------------------------------------------------------------


def evidently_drifted(compared: Compared, columns: Sequence[str]) -> frozenset[str]:
    """Of `columns`, those that Evidently calls drifted. No figure is drawn: 20 ms a column."""
    from evidently import Report
    from evidently.metrics import DriftedColumnsCount

    metrics = [DriftedColumnsCount(columns=[column], **_methods(compared, [column])) for column in columns]
    with np.errstate(invalid="ignore"):  # densities of a constant column
        results = Report(metrics, include_tests=False).run(*datasets(compared, columns)).dict()["metrics"]
    return frozenset(column for column, result in zip(columns, results, strict=True) if result["value"]["count"] > 0)


def draw(compared: Compared, title: str, share: float) -> str:
    """Evidently's data drift page over every tested column, as one self-contained HTML text.

    The preset draws every column twice, for its table and for a metric of its own that it does not show; only
    the count and the table are asked for here, which halves the time.
    """
    from evidently import Report
    from evidently.core.container import MetricOrContainer
    from evidently.core.report import Context
    from evidently.presets import DataDriftPreset

    class DriftTable(DataDriftPreset):
        def generate_metrics(self, context: Context) -> Sequence[MetricOrContainer]:
            return super().generate_metrics(context)[:1]

    preset = DriftTable(drift_share=share, **_methods(compared, compared.tested))
    with np.errstate(invalid="ignore"):
        snapshot = Report([preset], include_tests=False).run(*datasets(compared, compared.tested))
    return snapshot.get_html_str(as_iframe=False).replace("<head>", f"<head><title>{title}</title>", 1)


def _methods(compared: Compared, columns: Sequence[str]) -> dict[str, Any]:
    return {
        "num_method": STATISTIC["numeric"],
        "cat_method": STATISTIC["categorical"],
        "per_column_threshold": {column: compared.threshold[column] for column in columns},
    }


def datasets(compared: Compared, columns: Sequence[str]) -> tuple["Dataset", "Dataset"]:
    """Window and reference, as Evidently takes them; shorter columns are padded with missing values."""
    from evidently import DataDefinition, Dataset

    definition = DataDefinition(
        numerical_columns=[column for column in columns if compared.kinds[column] == "numeric"],
        categorical_columns=[column for column in columns if compared.kinds[column] == "categorical"],
    )
    current = pd.DataFrame({column: compared.current[column] for column in columns})
    reference = pd.DataFrame({column: compared.reference[column] for column in columns})
    return Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)


# -- performance --------------------------------------------------------------------------------


def _performance(rails: Rails, spec: Spec, as_of: datetime, version: int) -> tuple[Signal, ...]:
    """Realized Brier score of the newest matured cohorts, against training and against the safe default."""
    since = night_of(truth.cutoff(spec, as_of) - spec.drift.window + spec.prediction.every)
    rows = truth.matured(rails, spec, as_of, versions=[version], since=since).dropna(subset=["score"])
    record = rails.ledger.version(spec.name, version)
    assert record is not None  # a champion has a row
    return decay(
        rows,
        training_high=record["facts"]["metrics"]["brier"]["high"],
        safe_default=spec.fallback.safe_default,
        min_matured=spec.gate.min_matured,
    )


def decay(rows: pd.DataFrame, *, training_high: float, safe_default: float, min_matured: int) -> tuple[Signal, ...]:
    """Two signals from matured rows (score, label, night), each by the lower end of a 95 % interval.

    `brier`: the realized score is above the upper end of its held-out interval at training. `safe_default`:
    the score is above that of the constant safe default on the same rows (paired). Either one is decay. The
    intervals are clustered by night, as the gate's are. Fewer than `min_matured` rows, too thin for the gate,
    are not tested.
    """
    if len(rows) < min_matured or rows["night"].nunique() < 2:
        why = f"{len(rows)} of {min_matured} matured predictions in the window"
        return _untested("brier", why), _untested("safe_default", why)
    score, label = rows["score"].to_numpy(dtype="float64"), rows["label"].to_numpy(dtype="float64")
    nights = pd.factorize(rows["night"])[0].astype("int64")
    losses = evaluation.brier_losses(score, label)
    excess = losses - evaluation.brier_losses(np.full_like(score, safe_default), label)
    brier_low, excess_low = (evaluation.clustered_interval(values, nights)[0] for values in (losses, excess))
    brier = losses.mean()
    said = f"realized Brier {brier:.3f} (at least {brier_low:.3f})"
    against_training = Signal(
        "performance",
        "brier",
        None,
        "lower_bound",
        brier_low,
        training_high,
        drifted=brier_low > training_high,
        note=f"{said}, held out at training at most {training_high:.3f}",
    )
    note = f"realized Brier {brier:.3f}, the safe default's on the same rows {brier - excess.mean():.3f}"
    worse = excess_low > 0.0
    against_default = Signal("performance", "safe_default", None, "lower_bound", excess_low, 0.0, worse, note=note)
    return against_training, against_default


def _untested(column: str, why: str) -> Signal:
    return Signal("performance", column, None, "lower_bound", None, None, False, note=why)


# -- what is kept -------------------------------------------------------------------------------


def _store(
    rails: Rails, spec: Spec, as_of: datetime, version: int | None, signals: Sequence[Signal], claim: Any
) -> None:
    night = night_of(as_of)
    rails.lake.ensure(TABLE, COLUMNS)
    rows = pd.DataFrame(
        [
            {
                "model": spec.name,
                "night": night,
                "version": version,
                "column_name": signal.column,
                "kind": signal.kind,
                "statistic": signal.statistic,
                "value": signal.value,
                "threshold": signal.threshold,
                "drifted": signal.drifted,
                "note": signal.note,
                "available_at": as_of,
            }
            for signal in signals
        ],
        columns=list(COLUMNS),
    )
    partition = {"model": spec.name, "night": night}
    rails.lake.replace(TABLE, partition, rows, message=f"drift of {spec.name}, {night}", fence=claim)


def _plain(signal: Signal) -> dict[str, Any]:
    values = asdict(signal)
    values.pop("column")
    return values


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a reader never sees half a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
