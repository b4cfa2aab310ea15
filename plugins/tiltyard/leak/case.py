"""What is weighed (`Sample`), what is found (`Finding`), and the sample with its columns read (`Case`). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import ndtri  # type: ignore[import-untyped]

from tiltyard.errors import BadInput
from tiltyard.leak import intervals
from tiltyard.leak.intervals import FOLDS
from tiltyard.leak.reading import Bools, Floats, Ints, Reading, as_instants, clock_of, epoch_of, hangs_on, read

Severity = Literal["critical", "warning"]
Want = Literal[
    "prediction_time", "label_time", "entity", "history", "available_at", "rows_per_entity", "outcomes", "rows"
]
"""What a kind of leakage cannot be looked for without: a column or a log that somebody may name, or other rows."""

KINDS: Mapping[str, str] = {
    "instant_after_prediction": "It holds instants that lie after the prediction: they were not known yet.",
    "clock_of_outcome": "It is a clock reading, and how far it lies from the prediction's own clock tells the label.",
    "part_of_outcome_time": "It is a part of the time from the prediction to the outcome, and tells the label by it.",
    "grows_until_outcome": "It counts what happened until the outcome, not until the prediction.",
    "future_in_aggregate": "It is an aggregate over rows of its entity that lie after the prediction.",
    "changes_only_after_outcome": "It never changes in an entity's life, but for after the outcome.",
    "constant_over_life": "It is the same all through an entity's life, and tells how that life ends: back-filled.",
    "too_good": "By itself it tells the label better than honest features do.",
    "default_tracks_label": "Whether it is filled in, or holds one certain value, all but decides the label.",
    "revised_copy": "It is a later version of another column: where the two differ, the label is told.",
}
"""Kind → what it means, in a sentence."""

OF_TIME = frozenset({"instant_after_prediction", "clock_of_outcome", "part_of_outcome_time", "grows_until_outcome",
                      "future_in_aggregate", "changes_only_after_outcome", "constant_over_life"})  # fmt: skip
OF_OUTCOME = frozenset({"part_of_outcome_time", "grows_until_outcome", "changes_only_after_outcome"})
EXACT = frozenset({"instant_after_prediction", "future_in_aggregate"})
ALPHA = 0.05
"""Chance that any interval of one weighing misses its true value."""
FEWEST = 30
"""Rows of each class below which statistics are not tried: an interval at 30 rows spans a third of the scale."""
PLOTTED = 20
"""Values shown in a finding's plot."""
EXAMPLES = 5


@dataclass(frozen=True)
class Sample:
    """What is weighed, in memory: at most some 200,000 rows, of whole entities. Who reads files makes it."""

    frame: pd.DataFrame
    """Every column."""
    label: str
    """Column of 0/1, bool or two different values (the second in their order is positive); or amounts."""
    prediction_time: str | None
    """Column of instants with a zone (without one they count as UTC)."""
    entity: str | None = None
    label_time: str | None = None
    """Column: when the outcome happened, or was known."""
    features: tuple[str, ...] = ()
    """The columns to judge; none given: all others but those named above."""
    history: pd.DataFrame | None = None
    """A log of events or versions of the same entities, with the entity's column under the same name."""
    history_as_of: str | None = None
    """The log's column that says when a row was known."""
    planned: frozenset[str] = frozenset()
    """Columns of instants that are known ahead: a due date."""


@dataclass(frozen=True)
class Finding:
    """One kind of evidence on one feature."""

    feature: str
    severity: Severity
    """critical: the evidence is about time; warning: it is statistical."""
    kind: str
    """A key of `KINDS`."""
    effect: float
    """The effect's size, in the unit that `evidence` names."""
    interval: tuple[float, float] | None
    """Holds for all features at once; None for exact counts."""
    evidence: str
    """One sentence with the numbers."""
    examples: tuple[Mapping[str, Any], ...] = ()
    """At most five rows: the entity, the prediction time, the value, what it should be compared with."""
    plot: Mapping[str, Any] = field(default_factory=dict)
    """At most 60 numbers. {"shape": "rates", "x": [values or bins], "rate": [share of positives], "rows": [counts],
    "base": share of positives in all}, or {"shape": "offsets", "unit", "edges": [k + 1], "positive": [k shares],
    "negative": [k shares]}. Further keys: "title", "xlabel"."""


@dataclass(frozen=True)
class Untested:
    """What could not be judged, and why."""

    feature: str
    """A column, or '*' for all."""
    kind: str
    """A key of `KINDS`, or '*' for all."""
    why: str
    want: Want | None = None
    """What the kind could not be looked for without; None where some rows, columns or pairs were left out of it."""


@dataclass(frozen=True)
class Weighed:
    """All that was found: critical before warning, and the largest effects first."""

    findings: tuple[Finding, ...]
    untested: tuple[Untested, ...]
    looked_for: tuple[str, ...]
    """The keys of `KINDS` that were looked for, in their order."""


class Case:
    """The sample with its roles read; everything that several rules need is computed once."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        roles = [sample.label, sample.prediction_time, sample.entity, sample.label_time]
        for name in [*roles, *sample.features, *sample.planned]:
            if name is not None and name not in sample.frame.columns:
                raise BadInput(f"There is no column '{name}'; the columns are {', '.join(map(str, sample.frame))}.")
        twice = sample.frame.columns[sample.frame.columns.duplicated()]
        if len(twice):
            raise BadInput(f"Two columns are called '{twice[0]}'; rename one of them.")
        self.untested: list[Untested] = []
        self.parts: frozenset[str] = frozenset()
        self.looked_for: set[str] = set()
        """Kinds that were looked for where another one is: the log is read once."""
        told = sample.frame[sample.label].notna().to_numpy(dtype=bool)
        if not told.all():
            self._skip("*", "*", f"{(~told).sum()} rows without a label were left out.")
        frame = sample.frame[told] if not told.all() else sample.frame
        self.frame = frame.reset_index(drop=True)
        self.rows = len(self.frame)
        self.ranks: Floats | None = None
        """Of a label that is an amount, its ranks from 0 to 1; None where it has two values."""
        self.label = self._read_label()
        self.prediction = self._instants(sample.prediction_time)
        self.outcome = self._instants(sample.label_time)
        chosen = sample.features or tuple(name for name in frame.columns if name not in roles)
        self.features = tuple(name for name in chosen if name not in roles)
        self.readings: dict[str, Reading] = {}
        for name in self.features:
            self._add(name)

    def _skip(self, feature: str, kind: str, why: str) -> None:
        self.untested.append(Untested(feature, kind, why))

    def _add(self, name: str) -> None:
        reading = read(name, self.frame[name])
        if reading.kind == "empty":
            self._skip(name, "*", "It has no value in any row.")
            return
        if self.prediction is not None:
            reading = epoch_of(reading, self.prediction) or reading
        if reading.ambiguous:
            why = f"{reading.ambiguous} rows may be a day and a month or a month and a day; they were left out."
            self._skip(name, "instant_after_prediction", why)
        if len(reading.labels) <= 2 and not reading.missing.any():
            rare = reading.kind == "category" and reading.raw.nunique() > 1
            why = "No value of it is there in five rows." if rare else "It has the same value in every row."
            self._skip(name, "*", why)
            if reading.kind != "instant":
                return
        self.readings[name] = reading

    def _read_label(self) -> Bools:
        column = self.frame[self.sample.label]
        values = pd.unique(column)
        if len(values) == 2:
            second = max(values.tolist(), key=lambda value: (str(type(value)), value))
            result: Bools = (column == second).to_numpy(dtype=bool)
            return result
        if len(values) > 2:
            amounts = pd.to_numeric(column, errors="coerce")
            if amounts.notna().all():
                self.ranks = np.asarray(amounts.rank(pct=True), dtype=np.float64)
                self._skip("*", "*", "The label is an amount; it was judged by whether it lies above its median.")
                above: Bools = (amounts > amounts.median()).to_numpy(dtype=bool)
                return above
            raise BadInput(
                f"The label '{self.sample.label}' has {len(values)} different texts; give one of two values."
            )
        return np.zeros(self.rows, dtype=bool)

    def _instants(self, name: str | None) -> Floats | None:
        if name is None:
            return None
        reading = read(name, self.frame[name])
        if reading.kind == "empty":
            self._skip("*", "*", f"'{name}' has no value in any row, so that nothing about time could be judged.")
            return None
        seconds = as_instants(reading)
        if seconds is None:
            raise BadInput(f"'{name}' does not hold instants; give a column of timestamps, dates or ISO 8601 text.")
        if reading.ambiguous:
            self._skip("*", "*", f"{reading.ambiguous} rows of '{name}' cannot be told: day and month may be swapped.")
        if reading.kind == "number" and (lost := int((np.isnan(seconds) & ~reading.missing).sum())):
            self._skip("*", "*", f"{lost} numbers of '{name}' are no time; they count as missing.")
        return seconds

    def obstacle(self, kind: str) -> Untested | None:
        """Why a kind cannot be looked for on this sample; None when it can."""
        if not self.rows:
            return Untested("*", kind, "There is no row with a label.", "rows")
        if not self.readings:
            return Untested("*", kind, "There is no feature to judge.", "rows")
        if kind in OF_TIME and self.prediction is None:
            return Untested("*", kind, "No prediction time was given.", "prediction_time")
        if kind in EXACT:
            return None
        least = min(int(self.label.sum()), self.rows - int(self.label.sum()))
        if least == 0:
            return Untested("*", kind, "The label has one class only.", "rows")
        if least < FEWEST:
            why = f"{least} rows of the rarer class are too few; at least {FEWEST} are needed."
            return Untested("*", kind, why, "rows")
        if kind in OF_OUTCOME and self.outcome is None:
            why = "No label time was given: when the outcome happened, or was known."
            return Untested("*", kind, why, "label_time")
        return None

    @cached_property
    def entities(self) -> Ints:
        """n codes; every row its own entity where none is named."""
        if self.sample.entity is None:
            return np.arange(self.rows)
        codes, _ = pd.factorize(self.frame[self.sample.entity], use_na_sentinel=False)
        result: Ints = codes.astype(np.int64)
        return result

    def count_entities(self, rows: Bools) -> int:
        """Different entities among some of the rows."""
        if self.sample.entity is None:
            return int(rows.sum())
        return int(np.count_nonzero(np.bincount(self.entities[rows])))

    @cached_property
    def spread(self) -> float:
        """Mean rows per entity: what variances of averages are widened by, as if its rows were copies (Kish 1965)."""
        return self.rows / max(len(np.unique(self.entities)), 1)

    @cached_property
    def folds(self) -> Ints:
        """Blocks of whole entities by their first prediction: what is learnt on others is tried at another time."""
        first = self.prediction if self.prediction is not None else np.random.default_rng(0).random(self.rows)
        order = pd.Series(first).fillna(np.inf).groupby(self.entities).transform("min")
        rank = pd.factorize(self.entities)[0] / (self.rows + 1)
        place = (order.rank(method="dense") + rank).rank(method="first").to_numpy()
        result: Ints = np.minimum((place - 1) * FOLDS // max(self.rows, 1), FOLDS - 1).astype(np.int64)
        return pd.Series(result).groupby(self.entities).transform("min").to_numpy()

    @property
    def z(self) -> float:
        """Half-width of a simultaneous interval, in standard errors."""
        return float(ndtri(1 - ALPHA / (2 * max(len(self.readings), 1))))

    @cached_property
    def base(self) -> float:
        return float(self.label.mean())

    @cached_property
    def aucs(self) -> dict[str, tuple[float, float, float]]:
        """Of each column by itself: (AUC, low, high), out of fold; only those where it could be computed."""
        result = {}
        for name, reading in self.readings.items():
            auc, low, high = self.auc_of(reading.codes, len(reading.labels))
            if not np.isnan(auc):
                result[name] = (auc, low, high)
        return result

    def auc_of(self, codes: Ints, levels: int) -> tuple[float, float, float]:
        """(AUC, low, high) out of fold of any codes; NaN when it cannot be computed."""
        auc, variance = intervals.out_of_fold_auc(codes, self.label, self.folds, levels)
        positives = self.label.sum() / self.spread
        negatives = self.rows / self.spread - positives
        return auc, *intervals.auc_interval(auc, variance * self.spread, self.z, positives, negatives)

    def rank_correlation_of(self, reading: Reading) -> tuple[float, float, float]:
        """(correlation, low, high) of the label's rank with its mean per value or bin, out of fold."""
        assert self.ranks is not None
        correlation = intervals.out_of_fold_correlation(reading.codes, self.ranks, self.folds, len(reading.labels))
        return correlation, *intervals.correlation_interval(correlation, self.rows / self.spread, self.z)

    def is_late(self, name: str) -> bool:
        """It holds instants after the prediction."""
        reading = self.readings[name]
        if reading.kind != "instant" or reading.values is None or self.prediction is None:
            return False
        return bool((reading.values > self.prediction).any())

    @property
    def unsuspected(self) -> list[Reading]:
        """The columns that another may be explained by: no instants after the prediction, no parts of the wait, no
        clock readings, which may hold what is to be explained."""
        return [
            reading
            for name, reading in self.readings.items()
            if name not in self.parts and name not in self.clocks and not self.is_late(name)
        ]

    @cached_property
    def clocks(self) -> Mapping[str, tuple[float, Floats]]:
        """Columns that read as a clock and hang on the prediction's: (minutes of a turn, minutes per row)."""
        found = {}
        if self.prediction is None:
            return {}
        for name, reading in self.readings.items():
            clock = clock_of(reading)
            if clock is not None and hangs_on(*clock, self.prediction):
                found[name] = clock
        return found

    def examples(self, name: str, where: Bools, **compared: Floats | None) -> tuple[Mapping[str, Any], ...]:
        """The first rows of `where`, with the value and what it is compared with."""
        found = []
        reading = self.readings[name]
        for row in np.flatnonzero(where)[:EXAMPLES].tolist():
            example: dict[str, Any] = {}
            if self.sample.entity is not None:
                example["entity"] = read("", self.frame[self.sample.entity].iloc[row : row + 1]).show(0)
            if self.prediction is not None:
                example["prediction_time"] = when(self.prediction[row])
            example["value"] = reading.show(row)
            for title, values in compared.items():
                if values is not None:
                    example[title] = when(values[row]) if title.endswith("_time") else round(float(values[row]), 4)
            example["label"] = bool(self.label[row])
            found.append(example)
        return tuple(found)

    def rates(self, reading: Reading, xlabel: str = "") -> Mapping[str, Any]:
        """The plot of the label's rate by value: the values with the most rows."""
        counts = np.bincount(reading.codes, minlength=len(reading.labels))
        positive = np.bincount(reading.codes, weights=self.label, minlength=len(reading.labels))
        shown = [code for code in np.argsort(-counts, kind="stable")[:PLOTTED].tolist() if counts[code]]
        if reading.values is not None:
            shown.sort()
        return {
            "shape": "rates",
            "x": [reading.labels[code] for code in shown],
            "rate": [round(float(positive[code] / counts[code]), 5) for code in shown],
            "rows": [int(counts[code]) for code in shown],
            "base": round(self.base, 5),
            "xlabel": xlabel or reading.name,
        }


def when(seconds: float) -> str | None:
    """An instant for a person; None when there is none."""
    if np.isnan(seconds):
        return None
    return pd.Timestamp(round(seconds * 1e6), unit="us", tz="UTC").isoformat()


def lasting(seconds: float) -> str:
    """A length of time for a person."""
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if abs(seconds) >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} seconds"


def offsets(case: Case, seconds: Floats, label: Bools) -> Mapping[str, Any]:
    """Histogram of lengths of time, by label."""
    low, high = np.quantile(seconds, [0.01, 0.99])
    size, unit = next(
        ((size, unit) for size, unit in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"))
         if high - low > 3 * size), (1.0, "seconds"),
    )  # fmt: skip
    edges = np.linspace(low / size, max(high / size, low / size + 1e-6), 19)
    clipped = np.clip(seconds / size, edges[0], edges[-1])
    shares = [np.histogram(clipped[label == side], edges)[0] / max((label == side).sum(), 1) for side in (True, False)]
    return {
        "shape": "offsets",
        "unit": unit,
        "edges": np.round(edges, 4).tolist(),
        "positive": np.round(shares[0], 5).tolist(),
        "negative": np.round(shares[1], 5).tolist(),
    }
