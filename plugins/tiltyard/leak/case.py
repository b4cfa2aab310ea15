"""What is weighed (`Sample`), and the same with its columns read (`Case`). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import ndtri

from tiltyard.errors import BadInput
from tiltyard.leak import intervals
from tiltyard.leak.arrays import Bools, Floats, Ints
from tiltyard.leak.intervals import FOLDS
from tiltyard.leak.reading import RARE, Reading, as_instants, clock_of, epoch_of, hangs_on, read
from tiltyard.leak.suspicion import Cell, Example, Offsets, Rates, Untested

OF_TIME = frozenset({"instant_after_prediction", "clock_of_outcome", "part_of_outcome_time", "grows_until_outcome",
                      "future_in_aggregate", "changes_only_after_outcome", "constant_over_life"})  # fmt: skip
"""Kinds that need the time of the prediction."""
OF_OUTCOME = frozenset({"part_of_outcome_time", "grows_until_outcome", "changes_only_after_outcome"})
"""Kinds that need the time of the outcome, too."""
EXACT = frozenset({"instant_after_prediction", "future_in_aggregate"})
"""Kinds that count rows, and need no number of either class."""
ALPHA = 0.05
"""Chance that any interval of one weighing misses its true value."""
FEWEST = 30
"""Rows of each class below which statistics are not tried: an interval at 30 rows spans a third of the scale."""
PLOTTED = 20
"""Values shown in a suspicion's plot."""
ONE_INSTANT = 1.5e-6
"""Seconds within which two instants are one: they are kept to the microsecond, one cut and the other rounded."""
EXAMPLES = 5
"""Rows shown with a suspicion."""


@dataclass(frozen=True)
class Sample:
    """What is weighed, in memory: at most some 200,000 rows, of whole entities. Who reads files makes it."""

    frame: pd.DataFrame
    """n rows, with every column that is named below."""
    label: str
    """Column of 0/1, bool or two different values (the second in their order is positive); or amounts."""
    prediction_time: str | None
    """Column of instants with a zone (without one they count as UTC); None: nothing about time is judged."""
    entity: str | None = None
    """Column: whom a row is about. None: every row is an entity of its own."""
    label_time: str | None = None
    """Column: when the outcome happened, or was known. None: it is not known."""
    features: tuple[str, ...] = ()
    """The columns to judge; none given: all others but those named above."""
    history: pd.DataFrame | None = None
    """A log of events or versions of the same entities, with the entity's column under the same name; None: no log."""
    history_as_of: str | None = None
    """The log's column that says when a row was known; None without a log."""
    planned: frozenset[str] = frozenset()
    """Columns that are known ahead, like a due date: nothing is held against them, and they may explain others."""


class Case:
    """The sample with its roles read; everything that several rules need is computed once."""

    def __init__(self, sample: Sample) -> None:
        """Reads every column. Raises BadInput when one that is named is not there, or cannot play its part."""
        self.sample = sample
        _check_names(sample)
        self.untested: list[Untested] = []
        self.notes: list[str] = []
        self.parts: frozenset[str] = frozenset()
        """Columns that add up to the time to the outcome; known once those have been looked for."""
        self.looked_for: set[str] = set()
        """Kinds that were looked for so far; one may be looked for where another one is, since the log is read once."""
        labelled = sample.frame[sample.label].notna().to_numpy(dtype=bool)
        if not labelled.all():
            self._skip("*", "*", f"Rows that have no label were left out: {(~labelled).sum()}.")
        frame = sample.frame[labelled] if not labelled.all() else sample.frame
        self.frame = frame.reset_index(drop=True)
        self.rows = len(self.frame)
        self.ranks: Floats | None = None
        """Of a label that is an amount, its ranks from 0 to 1; None where it has two values."""
        self.label = self._read_label()
        self.prediction = self._instants(sample.prediction_time)
        self.outcome = self._instants(sample.label_time)
        roles = (sample.label, sample.prediction_time, sample.entity, sample.label_time)
        features = sample.features or tuple(frame.columns)
        self.features = tuple(name for name in features if name not in roles)
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
            why = f"It is like an id: no value of it stands in {RARE} rows, so that no rate by value can be told."
            why = why if rare else "It has the same value in every row."
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
                self.notes.append(
                    f"{self.sample.label}: it is an amount; it was judged by whether it lies above its median, and by "
                    "its rank."
                )
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
        """The share of positives in all rows, or the mean of a numeric label."""
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
        return bool((reading.values - self.prediction > ONE_INSTANT).any())

    @property
    def unsuspected(self) -> list[Reading]:
        """The columns that another may be explained by: what is known ahead; of the others no instants after the
        prediction, no parts of the wait, no clock readings, which may hold what is to be explained."""
        return [
            reading
            for name, reading in self.readings.items()
            if name in self.sample.planned
            or (name not in self.parts and name not in self.clocks and not self.is_late(name))
        ]

    @cached_property
    def clocks(self) -> Mapping[str, tuple[float, Floats]]:
        """Columns that read as a clock and hang on the prediction's: (minutes of a turn, minutes per row)."""
        clocks = {}
        if self.prediction is None:
            return {}
        for name, reading in self.readings.items():
            clock = clock_of(reading)
            if clock is not None and hangs_on(*clock, self.prediction):
                clocks[name] = clock
        return clocks

    def examples(self, name: str, where: Bools, **compared: Floats | None) -> tuple[Example, ...]:
        """The first rows of `where`, with the value of the column and what it is compared with.

        `compared`: title → n numbers, or seconds since 1970 where the title ends in `_time`.
        """
        examples = []
        reading = self.readings[name]
        for row in np.flatnonzero(where)[:EXAMPLES].tolist():
            example: dict[str, Cell] = {}
            if self.sample.entity is not None:
                example["entity"] = read("", self.frame[self.sample.entity].iloc[row : row + 1]).show(0)
            if self.prediction is not None:
                example["prediction_time"] = when(self.prediction[row])
            example["value"] = reading.show(row)
            for title, values in compared.items():
                if values is not None:
                    example[title] = when(values[row]) if title.endswith("_time") else round(float(values[row]), 4)
            example["label"] = bool(self.label[row])
            examples.append(example)
        return tuple(examples)

    def rates(self, reading: Reading, xlabel: str = "") -> Rates:
        """The plot of the label's rate by value: the values with the most rows."""
        counts = np.bincount(reading.codes, minlength=len(reading.labels))
        positive = np.bincount(reading.codes, weights=self.label, minlength=len(reading.labels))
        shown = [code for code in np.argsort(-counts, kind="stable")[:PLOTTED].tolist() if counts[code]]
        if reading.values is not None:
            shown.sort()
        return Rates(
            x=tuple(reading.labels[code] for code in shown),
            rate=tuple(round(float(positive[code] / counts[code]), 5) for code in shown),
            rows=tuple(int(counts[code]) for code in shown),
            base=round(self.base, 5),
            xlabel=xlabel or reading.name,
        )


def _check_names(sample: Sample) -> None:
    """Raises BadInput when a column that is named is not there, or is there twice."""
    names = (sample.label, sample.prediction_time, sample.entity, sample.label_time, *sample.features, *sample.planned)
    for name in names:
        if name is not None and name not in sample.frame.columns:
            raise BadInput(f"There is no column '{name}'; the columns are {', '.join(map(str, sample.frame))}.")
    twice = sample.frame.columns[sample.frame.columns.duplicated()]
    if len(twice):
        raise BadInput(f"Two columns are called '{twice[0]}'; rename one of them.")


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


def offsets(seconds: Floats, label: Bools) -> Offsets:
    """The plot of n lengths of time, by label."""
    low, high = np.quantile(seconds, [0.01, 0.99])
    size, unit = next(
        ((size, unit) for size, unit in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"))
         if high - low > 3 * size), (1.0, "seconds"),
    )  # fmt: skip
    edges = np.linspace(low / size, max(high / size, low / size + 1e-6), 19)
    clipped = np.clip(seconds / size, edges[0], edges[-1])
    positive, negative = (
        np.histogram(clipped[label == side], edges)[0] / max((label == side).sum(), 1) for side in (True, False)
    )
    return Offsets(
        unit=unit,
        edges=tuple(np.round(edges, 4).tolist()),
        positive=tuple(np.round(positive, 5).tolist()),
        negative=tuple(np.round(negative, 5).tolist()),
    )
