"""The drift stage: has the world moved away from what the model was trained on, and does the model feel it?

Nothing is read twice: the shadow stage counts every night's rows into the version's own histograms (profile.py), and
this stage reads those counts, the truth that has matured, and what it said the night before. change.py decides from
them, without touching anything: an alarm is evidence within the portfolio's budget of false alarms (detector.py), an
effect that shows in k of n windows, and Evidently's own verdict on the raw rows of the window. Kinds are kept apart:
feature, prediction, label, performance, missing.

Raw rows are read, and Evidently is imported, only where they are asked: when an alarm is about to be raised, and for
the page, which is drawn where something moved, and once a week for every model. What is broken (a stage that did not
end, an open data incident, a column that went missing or came in another unit) is named with its place and raises
nothing.

What follows from it is the governor's.
"""

import html
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tiltyard import lake
from tiltyard.answered import skew
from tiltyard.clock import night_closing
from tiltyard.files import whole
from tiltyard.govern import change, grants
from tiltyard.govern.change import Judged, Promise, Standing, Truth, judge
from tiltyard.prepare import data_incidents, frame, truth
from tiltyard.rails import Rails, records_its_end
from tiltyard.records import Broken, Finding, Signal, Skew
from tiltyard.spec import Spec, load_portfolio, portfolio
from tiltyard.stages import StageName, recorded_as
from tiltyard.tables import DRIFT, DRIFT_DETECTOR, PREDICTION, PROFILE
from tiltyard.train import profile, registry

if TYPE_CHECKING:
    from evidently import Dataset

__all__ = ["judge", "run"]

STAGE: StageName = "drift"
SAMPLE = 1000
"""Rows of the window that Evidently sees; a larger window is sampled, seeded by the night."""
EVERY = 7
"""Nights between two pages of a model that nothing moved; models take turns."""


@records_its_end(STAGE)
def run(rails: Rails, spec: Spec, as_of: datetime, *, render: bool | None = None) -> dict[str, Any]:
    """Look at one model on one night, after its shadow stage, and tell the governor what was found.

    The page is drawn where something moved and once a week; `render=True` draws it whatever was found, `render=False`
    only for an alarm that was raised. Raises BadInput when no features were ever published.
    """
    night = night_closing(as_of)
    claim = rails.ledger.claim(f"{STAGE}/{spec.name}/{night}")
    roles = rails.ledger.roles(spec.name, night)
    version = roles.champion if roles.champion is not None else max(roles.challengers, default=None)
    broken = _broken(rails, spec, as_of, ("features",) if version is None else ("features", "shadow"))
    judged, page, matured = None, None, 0
    skewness: Skew | None = None
    signals: tuple[Signal, ...] = ()
    if version is None:
        matured = frame.matured(rails, spec, as_of, rails.published_snapshot())
    else:
        looked = _Look(rails, spec, as_of, version)
        judged, signals = looked.judged(trusted=not broken)
        skewness = skew.look(rails, spec, as_of, version, looked.seen)
        broken += looked.empty
        if judged is not None:
            broken += judged.broken
            if _draws(spec.name, night, judged, render):
                page = rails.settings.reports / STAGE / spec.name / f"{night}.html"
                _write(page, looked.page(judged))
    finding = Finding(
        model=spec.name,
        night=night,
        tier=spec.tier,
        owner=spec.owner,
        champion=roles.champion,
        challengers=roles.challengers,
        alarm=judged.alarm if judged else False,
        evidence=judged.evidence if judged else None,
        threshold=judged.threshold if judged else None,
        harm=judged.harm if judged else "unknown",
        harm_said=judged.harm_said if judged else "",
        signals=ordered(signals),
        broken=broken,
        matured=matured,
        min_matured=spec.gate.min_matured,
        report=str(page) if page else None,
    )
    outcome = {
        "model": spec.name,
        "night": str(night),
        "version": version,
        "verdict": _verdict(version, finding),
        "reasons": [one.said for one in finding.broken] or list(said(finding)),
        "report": finding.report,
        "alarm": finding.alarm,
        "raised": judged.raised if judged else False,
        "evidence": finding.evidence,
        "threshold": finding.threshold,
        "harm": finding.harm,
        "harm_said": finding.harm_said,
        "broken": [asdict(one) for one in finding.broken],
        "columns": {f"missing/{s.column}" if s.kind == "missing" else s.column: _plain(s) for s in finding.signals},
        **({"skew": skewness.to_json()} if skewness else {}),
    }
    _write(rails.settings.reports / STAGE / spec.name / f"{night}.json", json.dumps(outcome, indent=1))
    _store(rails, spec, as_of, version, finding, judged, claim)
    with claim.held():
        rails.ledger.add_finding(finding)
    summary = {key: value for key, value in outcome.items() if key != "columns"}
    summary["drifted"] = [signal.column for signal in finding.signals if signal.drifted]
    summary["untested"] = {signal.column: signal.note for signal in finding.signals if signal.value is None}
    rails.ledger.record_stage(STAGE, spec.name, night, "done", summary)
    return outcome


def ordered(signals: Sequence[Signal]) -> tuple[Signal, ...]:
    """What moved first, by effect over its threshold times importance; what was not tested last."""

    def rank(signal: Signal) -> tuple[bool, bool, float, str]:
        excess = signal.value / signal.threshold if signal.value is not None and signal.threshold else 0.0
        return (not signal.drifted, signal.value is None, -excess * signal.weight, signal.column)

    return tuple(sorted(signals, key=rank))


def _verdict(version: int | None, finding: Finding) -> str:
    if version is None:
        return "no_reference"
    return "broken" if finding.broken else "alarm" if finding.alarm else "steady"


def said(finding: Finding) -> tuple[str, ...]:
    """The finding in sentences: what moved, of which kind, how strong the evidence is, and whether it is felt."""
    moved = [signal for signal in finding.signals if signal.drifted]
    found = []
    for kind in ("performance", "label", "prediction", "feature"):
        those = [signal for signal in moved if signal.kind == kind]
        if those:
            what = "; ".join(map(_measure, those[:3]))
            more = f" and {len(those) - 3} more" if len(those) > 3 else ""
            found.append(f"{kind} drift: {what}{more}" if kind != "performance" else f"performance: {what}{more}")
    if finding.evidence is not None and finding.threshold is not None:
        found.append(f"evidence {finding.evidence:,.0f} of {finding.threshold:,.0f}{', an alarm' * finding.alarm}")
    if finding.alarm or finding.harm == "felt":
        found.append(f"{finding.harm.replace('_', ' ')}: {finding.harm_said}")
    untested = {f"{s.kind} not tested: {s.note}" for s in finding.signals if s.value is None and s.kind != "feature"}
    return (*found, *sorted(untested)) or ("nothing could be tested",)


def _measure(signal: Signal) -> str:
    if signal.kind == "performance" and signal.note and signal.column != profile.LOSS:
        return signal.note
    return f"{signal.statistic} of {signal.column} {signal.value:.3f} (limit {signal.threshold:.3f})"


def _draws(model: str, night: date, judged: Judged, render: bool | None) -> bool:
    if render is not None:
        return render or judged.raised
    turn = (night.toordinal() + zlib.crc32(model.encode())) % EVERY == 0
    return turn or judged.raised or bool(judged.moved)


# -- what is looked at --------------------------------------------------------------------------


def _broken(rails: Rails, spec: Spec, as_of: datetime, stages: Sequence[StageName]) -> tuple[Broken, ...]:
    """Why the night's rows are not what they should be: a stage that has not ended well, an open data incident."""
    night = night_closing(as_of)
    found = []
    for stage in stages:
        status = rails.ledger.stage_status(stage, recorded_as(stage, spec.name), night)
        if status != "done":
            state = status or "not done"
            found.append(Broken(stage, None, f"the {stage} stage of {night} is {state}"))
    found += [
        Broken(incident.table, incident.column or None, str(incident))
        for incident in data_incidents.of_model(rails, spec, night)
    ]
    return tuple(found)


class _Look:
    """One version on one night: what the lake and the ledger hold of it, and the judgement on it."""

    def __init__(self, rails: Rails, spec: Spec, as_of: datetime, version: int) -> None:
        self.rails, self.spec, self.as_of, self.version = rails, spec, as_of, version
        self.night = night_closing(as_of)
        self.window = max(round(spec.drift.window / spec.prediction.every), 1)
        self.scorer = registry.load(rails, spec.name, version)
        self.seen = seen(rails, spec, as_of, version)
        rows = truth.matured(rails, spec, as_of, versions=[version]).dropna(subset=["score"])
        self.matured = rows.sort_values("night", kind="stable")

    @property
    def empty(self) -> tuple[Broken, ...]:
        last = self.seen.nights[-1] if len(self.seen.nights) else 0
        if last > self.night.toordinal() - self.window or self.scorer.profile is None:
            return ()
        start = self.as_of - self.spec.drift.window
        words = f"there is nothing to predict on between {start:%Y-%m-%d} and {self.as_of:%Y-%m-%d}"
        return (Broken(self.spec.prediction.spine, None, words),)

    def judged(self, *, trusted: bool) -> tuple[Judged | None, tuple[Signal, ...]]:
        rails, spec = self.rails, self.spec
        record = rails.ledger.version(spec.name, self.version)
        assert record is not None  # a version that is looked at has a row
        metrics = record.facts.metrics
        held_out = metrics.figure(spec.target.measure) if metrics else None
        default, least = spec.fallback.safe_default, spec.gate.min_matured
        promise = Promise(held_out.high if held_out else None, default, least, spec.target)
        models = len(portfolio(rails.settings)) if rails.settings.models.is_dir() else 1
        threshold = load_portfolio(rails.settings.models).budget.nights_between(max(models, 1))
        reference = self.scorer.profile
        if reference is None:
            named = [("feature", name) for name in self.scorer.features] + [("prediction", profile.PREDICTION)]
            unknown = [Signal(kind, name, None, "", None, None, False, note=change.NOT_KEPT) for kind, name in named]
            return None, (*unknown, *change.decay(self.truth(None), promise, threshold, self.window))
        standing, left_out = before(rails, spec, self.as_of)
        answered = grants.past(rails, spec.name, self.night).answered
        found = judge(
            reference,
            self.seen,
            self.truth(reference),
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
        return found, found.signals

    def truth(self, reference: profile.Reference | None) -> Truth:
        cutoff = night_closing(truth.cutoff(self.spec, self.as_of)).toordinal()
        nights = np.array([night.toordinal() for night in self.matured["night"]], dtype=np.int64)
        score = self.matured["score"].to_numpy(dtype=np.float64)
        label = self.matured["label"].to_numpy(dtype=np.float64)
        target = self.spec.target
        known = profile.truth(reference, nights, score, label, target) if reference and len(nights) else profile.EMPTY
        start = self.as_of - self.spec.drift.window
        waiting = scores(self.rails, self.spec, self.as_of, self.version, max(cutoff + 1, _ordinal(start) + 1))
        return Truth(cutoff, known, nights, score, label, waiting)

    def raw(self, columns: Sequence[str], limits: Mapping[str, float]) -> "Raw":
        """The values of the window beside those kept from training."""
        snapshot = self.rails.published_snapshot()
        start = self.as_of - self.spec.drift.window
        rows = frame.build(self.rails, self.spec, start, self.as_of, self.as_of, snapshot)
        kept = self.scorer.reference_frame()
        newest = truth.cutoff(self.spec, self.as_of).date() - timedelta(days=self.window - 1)
        matured = self.matured[self.matured["night"] >= newest]
        now = {name: self._sampled(rows[name]) for name in columns if name in rows}
        now[profile.PREDICTION] = self._sampled(
            pd.Series(scores(self.rails, self.spec, self.as_of, self.version, _ordinal(start) + 1))
        )
        now[profile.LABEL] = self._sampled(matured["label"].astype("float64"))
        losses = self.spec.target.row_losses
        now[profile.LOSS] = self._sampled(losses(matured["score"], matured["label"]))
        past = {name: kept[name] for name in columns if name in kept}
        past |= {profile.PREDICTION: kept["score"], profile.LABEL: kept["label"].astype("float64")}
        past[profile.LOSS] = losses(kept["score"], kept["label"].astype("float64"))
        reference = self.scorer.profile
        found = Raw()
        for name in columns:
            column = reference.column(name) if reference else None
            if column is not None and name in past and name in now:
                kind = "numeric" if column.cells.is_numeric else "categorical"
                found.add(name, kind, past[name], now[name], limits[name])
        return found

    def page(self, judged: Judged) -> str:
        tested = [s for s in ordered(judged.signals) if s.value is not None and s.kind != "missing" and s.weight]
        raw = self.raw([signal.column for signal in tested], {s.column: s.threshold or 0.0 for s in tested})
        title = f"Drift of {self.spec.name} {self.version}, night of {self.night}"
        return raw.draw(title, table(title, judged))

    def _sampled(self, values: pd.Series) -> pd.Series:
        """At most SAMPLE rows, the same for the same night."""
        if len(values) <= SAMPLE:
            return values
        chosen = np.random.default_rng(self.night.toordinal()).choice(len(values), SAMPLE, replace=False)
        return values.iloc[np.sort(chosen)]


def _ordinal(instant: datetime) -> int:
    return night_closing(instant).toordinal()


def seen(rails: Rails, spec: Spec, as_of: datetime, version: int) -> profile.Nights:
    """The profiles that the shadow stage wrote of a version, up to `as_of`. A night without a column counts nought."""
    if not rails.lake.has(PROFILE):
        return profile.EMPTY
    sql = f"""
        select night, column_name, counts from {{{PROFILE}}}
        where model = $model and version = $version order by night, column_name
    """
    rows = rails.lake.query(sql, as_of, {"model": spec.name, "version": version})
    nights = np.array([night.toordinal() for night in pd.to_datetime(rows["night"]).dt.date], dtype=np.int64)
    known, place = np.unique(nights, return_inverse=True)
    counts = {}
    for name, those in rows.assign(place=place).groupby("column_name"):
        table = np.zeros((len(known), len(those["counts"].iloc[0])), dtype=np.int64)
        table[those["place"].to_numpy()] = np.stack(those["counts"].to_numpy())
        counts[str(name)] = table
    return profile.Nights(known, counts)


def scores(rails: Rails, spec: Spec, as_of: datetime, version: int, since: int) -> np.ndarray:
    """Scores that `version` itself gave from the night `since` (a date ordinal) on, whatever its role was then."""
    if not rails.lake.has(PREDICTION):
        return np.empty(0)
    sql = f"""
        select score from {{{PREDICTION}}}
        where model = $model and version = $version and tier not in ('light', 'safe_default') and night >= $since
        order by prediction_time, entity_id
    """
    params = {"model": spec.name, "version": version, "since": date.fromordinal(since)}
    return rails.lake.query(sql, as_of, params)["score"].to_numpy(dtype=np.float64)


def before(rails: Rails, spec: Spec, as_of: datetime) -> tuple[Standing | None, frozenset[int]]:
    """What the last earlier night left standing, and the nights that could not be trusted."""
    if not rails.lake.has(DRIFT_DETECTOR):
        return None, frozenset()
    sql = f"""
        select night, version, start, since, trusted from {{{DRIFT_DETECTOR}}}
        where model = $model and night < $night order by night
    """
    rows = rails.lake.query(sql, as_of, {"model": spec.name, "night": night_closing(as_of)})
    ordinals = pd.to_datetime(rows["night"])
    left_out = frozenset(night.toordinal() for night in ordinals[~rows["trusted"].astype(bool)].dt.date)
    judged = rows[rows["start"].notna()]
    if judged.empty:
        return None, left_out
    last = judged.iloc[-1]
    since = None if pd.isna(last["since"]) else pd.Timestamp(last["since"]).date().toordinal()
    return Standing(int(last["version"]), pd.Timestamp(last["start"]).date().toordinal(), since), left_out


# -- Evidently ----------------------------------------------------------------------------------


class Raw:
    """Columns of the window and of training side by side, cleaned, as Evidently takes them."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.reference: dict[str, pd.Series] = {}
        self.current: dict[str, pd.Series] = {}
        self.threshold: dict[str, float] = {}

    def add(self, column: str, kind: str, reference: pd.Series, current: pd.Series, threshold: float) -> None:
        """Left out where either side has too few values to compare."""
        before, now = (_clean(kind, values) for values in (reference, current))
        if min(len(before), len(now)) < change.MIN_VALUES:
            return
        if kind == "categorical":
            before, now = _folded(before, now)
        self.kinds[column], self.threshold[column] = kind, threshold
        self.reference[column], self.current[column] = before, now

    def evidently_drifted(self, columns: Sequence[str]) -> frozenset[str]:
        """Of `columns`, those that Evidently calls drifted. No figure is drawn: 20 ms a column."""
        from evidently import Report
        from evidently.metrics import DriftedColumnsCount

        asked = [column for column in columns if column in self.kinds]
        if not asked:
            return frozenset()
        metrics = [DriftedColumnsCount(columns=[column], **self._methods([column])) for column in asked]
        with np.errstate(invalid="ignore"):  # densities of a constant column
            results = Report(metrics, include_tests=False).run(*self.datasets(asked)).dict()["metrics"]
        return frozenset(column for column, result in zip(asked, results, strict=True) if result["value"]["count"] > 0)

    def draw(self, title: str, above: str) -> str:
        """Evidently's data drift page over every column, `above` (HTML) before it, as one self-contained HTML text.

        The preset draws every column twice, for its table and for a metric of its own that it does not show; only
        the count and the table are asked for here, which halves the time.
        """
        from evidently import Report
        from evidently.core.container import MetricOrContainer
        from evidently.core.report import Context
        from evidently.presets import DataDriftPreset

        if not self.kinds:
            return f"<!doctype html><head><title>{html.escape(title)}</title></head><body>{above}</body>"

        class DriftTable(DataDriftPreset):
            def generate_metrics(self, context: Context) -> Sequence[MetricOrContainer]:
                return super().generate_metrics(context)[:1]

        columns = list(self.kinds)
        preset = DriftTable(**self._methods(columns))
        with np.errstate(invalid="ignore"):
            snapshot = Report([preset], include_tests=False).run(*self.datasets(columns))
        page = snapshot.get_html_str(as_iframe=False).replace("<head>", f"<head><title>{html.escape(title)}</title>", 1)
        return page.replace("<body>", f"<body>{above}", 1)

    def _methods(self, columns: Sequence[str]) -> dict[str, Any]:
        return {
            "num_method": change.STATISTIC[True],
            "cat_method": change.STATISTIC[False],
            "per_column_threshold": {column: self.threshold[column] for column in columns},
        }

    def datasets(self, columns: Sequence[str]) -> tuple["Dataset", "Dataset"]:
        """Window and reference, as Evidently takes them; shorter columns are padded with missing values."""
        from evidently import DataDefinition, Dataset

        definition = DataDefinition(
            numerical_columns=[column for column in columns if self.kinds[column] == "numeric"],
            categorical_columns=[column for column in columns if self.kinds[column] == "categorical"],
        )
        current = pd.DataFrame({column: self.current[column] for column in columns})
        reference = pd.DataFrame({column: self.reference[column] for column in columns})
        return Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)


def _clean(kind: str, values: pd.Series) -> pd.Series:
    if kind == "numeric":
        numbers = pd.to_numeric(values, errors="coerce").astype("float64").replace([np.inf, -np.inf], np.nan)
        return numbers.dropna().reset_index(drop=True)
    return values.dropna().reset_index(drop=True).map(str).astype(object)


def _folded(before: pd.Series, now: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Rare categories as one, those that training never saw as another."""
    counts = before.value_counts()
    names = sorted(counts.index, key=lambda name: (-counts[name], name))
    kept, known = set(names[: profile.KEPT]), set(names)
    folded = now.where(now.isin(kept), np.where(now.isin(known), "(other)", "(new)"))
    return before.where(before.isin(kept), "(other)").astype(object), folded.astype(object)


def table(title: str, judged: Judged) -> str:
    """What the page begins with: the verdict, and every column's effect, by effect times importance."""
    state = "An alarm stands" if judged.alarm else "No alarm"
    lines = [f"{state}: evidence {judged.evidence:,.1f}, threshold {judged.threshold:,.0f}. ", judged.harm_said]
    lines += [one.said for one in judged.broken]
    head = "<tr><th>kind<th>column<th>weight<th>effect<th>limit<th>moved<th>evidence<th></tr>"
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{html.escape(text)}"
            for text in (
                signal.kind,
                signal.column,
                f"{signal.weight:.1%}",
                "" if signal.value is None else f"{signal.statistic} {signal.value:.3f}",
                "" if signal.threshold is None else f"{signal.threshold:.3f}",
                "yes" if signal.drifted else "",
                "" if signal.evidence is None else f"{signal.evidence:,.1f}",
                signal.note,
            )
        )
        + "</tr>"
        for signal in ordered(judged.signals)
    )
    said = "".join(f"<p>{html.escape(line)}</p>" for line in lines if line)
    style = "font: 14px sans-serif; margin: 1em; border-spacing: 1em 0.2em; text-align: left"
    return f'<div style="{style}"><h1>{html.escape(title)}</h1>{said}<table style="{style}">{head}{rows}</table></div>'


# -- what is kept -------------------------------------------------------------------------------


def _store(
    rails: Rails,
    spec: Spec,
    as_of: datetime,
    version: int | None,
    finding: Finding,
    judged: Judged | None,
    claim: Any,
) -> None:
    night = night_closing(as_of)
    rails.lake.ensure(DRIFT)
    rails.lake.ensure(DRIFT_DETECTOR)
    shared = {"model": spec.name, "night": night, "version": version, "available_at": as_of}
    rows = pd.DataFrame(
        [
            {
                **shared,
                "column_name": signal.column,
                "kind": signal.kind,
                "statistic": signal.statistic,
                "value": signal.value,
                "threshold": signal.threshold,
                "drifted": signal.drifted,
                "note": signal.note,
            }
            for signal in finding.signals
        ],
        columns=list(DRIFT.columns),
    )
    standing = judged.standing if judged else None
    columns = {s.column: {"evidence": s.evidence, "weight": s.weight} for s in finding.signals if s.weight}
    state = pd.DataFrame(
        [
            {
                **shared,
                "start": date.fromordinal(standing.start) if standing else None,
                "since": date.fromordinal(standing.since) if standing and standing.since is not None else None,
                "evidence": finding.evidence,
                "threshold": finding.threshold,
                "trusted": not any(one.column is None or one.node.startswith("raw.") for one in finding.broken),
                "harm": finding.harm,
                "harm_said": finding.harm_said,
                "columns": json.dumps(columns, sort_keys=True),
            }
        ],
        columns=list(DRIFT_DETECTOR.columns),
    ).astype({"version": "Int32", "evidence": "float64", "threshold": "float64"})
    partition = {"model": spec.name, "night": night}

    def write(connection: Any) -> None:
        lake.put(connection, DRIFT, partition, rows)
        lake.put(connection, DRIFT_DETECTOR, partition, state)

    rails.lake.commit(write, message=f"drift of {spec.name}, {night}", fence=claim)


def _plain(signal: Signal) -> dict[str, Any]:
    values = asdict(signal)
    values.pop("column")
    return values


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a reader never sees half a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
