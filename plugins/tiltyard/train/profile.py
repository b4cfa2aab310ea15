"""Histograms of every column, kept with the model and counted every night. Pure.

A column is cut once, at training: numbers into cells of about equal weight (and, beyond the range of the training
frame, into a few that double in width), categories into the frequent ones, the rare ones and those never seen. What
is missing has a cell of its own. With the cells the version keeps how many rows of every *training night* fell
into each. In production the shadow stage counts the night's rows into the same cells while it has them in hand, so
that nobody reads features a second time: drift, gate and hindcast read `ops.profile`.

The distance of two histograms is what Evidently computes on the values: Wasserstein over the reference's standard
deviation, from the mean value within each cell (Vallender 1974: the area between the distribution functions), or
Jensen-Shannon in nats (Endres and Schindelin 2003).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import JsonValue

from tiltyard.records import FilledFeature, JsonObject
from tiltyard.spec import REPORT_COLUMNS
from tiltyard.target import YES_OR_NO, Target
from tiltyard.train.encoding import is_number

PREDICTION, LABEL, LOSS = REPORT_COLUMNS
CELLS = 64
KEPT = 30
"""Categories with a cell of their own."""
REMEMBERED = 2000
"""Rare categories known by name; what is rarer still counts as never seen."""
TAILS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Edges beyond the range of training, in standard deviations."""
SMALLEST = 0.001
"""Evidently's least standard deviation."""

ProfiledKind = Literal["feature", "prediction", "label", "performance"]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cells:
    """How a column is cut. The last cell is what is missing; of categories the two before it are rare and new."""

    is_numeric: bool
    """Whether it holds numbers; else categories."""
    edges: Floats = field(default_factory=lambda: np.empty(0))
    """(k,) the inner edges of k + 1 cells [e_i, e_i+1) of numbers; empty of categories."""
    places: Floats = field(default_factory=lambda: np.empty(0))
    """(k + 1,) the mean value in each cell of numbers; empty of categories."""
    deviation: float = 1.0
    """Standard deviation of the numbers in training."""
    low: float = 0.0
    """Least number of training."""
    high: float = 0.0
    """Largest number of training."""
    names: tuple[str, ...] = ()
    """Categories with a cell of their own, the most frequent first; empty of numbers."""
    rare: frozenset[str] = frozenset()
    """Categories of the cell of rare ones; empty of numbers."""

    @property
    def count(self) -> int:
        """Number of cells, that of what is missing included."""
        return len(self.places) + 1 if self.is_numeric else len(self.names) + 3

    @property
    def outside(self) -> NDArray[np.bool_]:
        """Which cells hold what training never saw: beyond its range, or a new category."""
        beyond = np.zeros(self.count, dtype=bool)
        if self.is_numeric:
            beyond[:-1] = (self.places < self.low) | (self.places > self.high)
        else:
            beyond[-2] = True
        return beyond


@dataclass(frozen=True, eq=False)
class ProfiledColumn:
    """A column of a version: what it is, what it weighs in the model's detector, and its training nights."""

    name: str
    """The feature's name, or one of PREDICTION, LABEL and LOSS."""
    kind: ProfiledKind
    """What it is a column of."""
    view: str | None
    """The feature view that it comes from; None of what is no feature."""
    weight: float
    """Its share of the model's detector."""
    cells: Cells
    """How its values are cut."""
    counts: Counts
    """(training nights, cells) number of rows."""

    @property
    def filled(self) -> float:
        """Share of the training rows that have a value; NaN without rows."""
        return float(filled(self.counts.sum(axis=0)))

    @property
    def is_dead(self) -> bool:
        """Whether training saw no two different values: what is missing is none."""
        if self.cells.is_numeric:
            return self.cells.low == self.cells.high
        return len(self.cells.names) + len(self.cells.rare) < 2


@dataclass(frozen=True, eq=False)
class Reference:
    """What a version remembers of its training frame."""

    nights: Counts
    """Date ordinals of the training nights, increasing; a night is named by the date on which it closes."""
    columns: tuple[ProfiledColumn, ...]
    """Every column that is counted."""

    def column(self, name: str) -> ProfiledColumn | None:
        """A column by its name; None where the version has none."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True, eq=False)
class Nights:
    """Counts of some columns over nights, in the cells of one version. Nights without rows are left out."""

    nights: Counts
    """Date ordinals of the nights, increasing."""
    counts: Mapping[str, Counts]
    """Column → (nights, cells) number of rows."""

    def until(self, night: int) -> "Nights":
        """The nights up to `night`, a date ordinal, included."""
        inside = int(np.searchsorted(self.nights, night, side="right"))
        return Nights(self.nights[:inside], {name: counts[:inside] for name, counts in self.counts.items()})


EMPTY = Nights(np.empty(0, dtype=np.int64), {})


# -- cutting and counting ---------------------------------------------------------------------


def cut(values: "pd.Series[Any]", *, numeric: bool) -> Cells:
    """Cells for a column, from its values in the training frame."""
    if not numeric:
        rows = _texts(values).value_counts()
        ordered = sorted(rows.index, key=lambda name: (-int(rows[name]), name))
        return Cells(False, names=tuple(ordered[:KEPT]), rare=frozenset(ordered[KEPT : KEPT + REMEMBERED]))
    numbers = _numbers(values)
    numbers = numbers[is_number(numbers)]
    if not len(numbers):
        return Cells(True, places=np.zeros(1))
    low, high = float(numbers.min()), float(numbers.max())
    deviation = max(float(numbers.std()), SMALLEST)
    quantiles = np.quantile(numbers, np.linspace(0, 1, CELLS + 1)[:-1])
    over = np.nextafter(high, np.inf)
    tails = deviation * np.asarray(TAILS)
    edges = np.unique(np.concatenate([low - tails, quantiles, [over], over + tails]))
    where = np.searchsorted(edges, numbers, side="right")
    counts = np.bincount(where, minlength=len(edges) + 1)
    sums = np.bincount(where, weights=numbers, minlength=len(edges) + 1)
    middles = np.concatenate([[edges[0] - tails[-1] / 2], (edges[:-1] + edges[1:]) / 2, [edges[-1] + tails[-1] / 2]])
    places = np.where(counts > 0, sums / np.maximum(counts, 1), middles)
    return Cells(True, edges, places, deviation, low, high)


def place(cells: Cells, values: "pd.Series[Any] | Floats") -> NDArray[np.intp]:
    """The cell of every value. A number that no model reads as one counts as missing, too (encoding.LARGEST)."""
    if cells.is_numeric:
        numbers = _numbers(values)
        places = np.searchsorted(cells.edges, numbers, side="right")
        places[~is_number(numbers)] = cells.count - 1
        return places
    series = pd.Series(values)
    codes, kinds = pd.factorize(series)
    own = {name: number for number, name in enumerate(cells.names)}
    rare, new = len(cells.names), len(cells.names) + 1
    table = [own.get(name, rare if name in cells.rare else new) for name in map(str, kinds)]
    return np.asarray([*table, cells.count - 1], dtype=np.intp)[codes]  # factorize gives -1, the last, for missing


def count(cells: Cells, values: "pd.Series[Any] | Floats") -> Counts:
    """Rows per cell."""
    return np.bincount(place(cells, values), minlength=cells.count).astype(np.int64)


def count_nights(cells: Cells, values: "pd.Series[Any] | Floats", index: NDArray[np.intp], nights: int) -> Counts:
    """(nights, cells): rows per cell and night; `index` is the night's place of every row."""
    flat = index * cells.count + place(cells, values)
    return np.bincount(flat, minlength=nights * cells.count).reshape(nights, cells.count).astype(np.int64)


def nights_of(times: "pd.Series[Any]", every: timedelta, as_of: datetime) -> Counts:
    """The night (date ordinal) of every prediction time: of the interval [end - every, end) that it lies in, the end.

    Ends are counted back from `as_of` in steps of `every`.
    """
    steps = np.ceil((pd.Timestamp(as_of) - times).to_numpy() / np.timedelta64(every)) - 1
    ends = pd.Timestamp(as_of) - pd.to_timedelta(steps * every.total_seconds(), unit="s")
    midnight = ends.tz_convert(as_of.tzinfo).tz_localize(None).normalize()
    return ((midnight - pd.Timestamp(1970, 1, 1)).days + date(1970, 1, 1).toordinal()).to_numpy().astype(np.int64)


def night(reference: Reference, rows: pd.DataFrame, score: Floats, target: Target = YES_OR_NO) -> dict[str, Counts]:
    """The night's counts of every feature that the rows have, and of the prediction."""
    counts = {
        column.name: count(column.cells, rows[column.name])
        for column in reference.columns
        if column.kind == "feature" and column.name in rows
    }
    prediction = reference.column(PREDICTION)
    if prediction is not None:
        counts[PREDICTION] = count(prediction.cells, target.named_scores(score))
    return counts


def truth(
    reference: Reference,
    nights: Counts,
    score: Floats,
    label: Floats,
    target: Target = YES_OR_NO,
) -> Nights:
    """Counts of label and loss per night, of matured rows; `nights` is the night (date ordinal) of every row."""
    distinct, index = np.unique(nights, return_inverse=True)
    values = {LABEL: target.named_labels(label), LOSS: target.row_losses(score, label)}
    counts = {
        name: count_nights(column.cells, values[name], index.astype(np.intp), len(distinct))
        for name in (LABEL, LOSS)
        if (column := reference.column(name)) is not None
    }
    return Nights(distinct.astype(np.int64), counts)


# -- what a version keeps ---------------------------------------------------------------------


def describe(
    frame: pd.DataFrame,
    kinds: Mapping[str, str],
    views: Mapping[str, str],
    nights: Counts,
    score: Floats,
    label: Floats,
    importance: Mapping[str, float],
    target: Target = YES_OR_NO,
) -> JsonObject:
    """JSON of a `Reference`, for reference.json. `kinds`: feature → numeric, boolean or categorical; `importance`
    of the features sums to 1; `score` is out of fold."""
    distinct, index = np.unique(nights, return_inverse=True)
    index = index.astype(np.intp)
    columns: list[JsonValue] = []

    def add(name: str, kind: ProfiledKind, values: Any, numeric: bool, weight: float, view: str | None = None) -> None:
        cells = cut(values, numeric=numeric)
        entry: JsonObject = {"name": name, "kind": kind, "view": view, "weight": weight}
        if numeric:
            entry |= {"edges": cells.edges.tolist(), "places": cells.places.tolist(), "deviation": cells.deviation}
            entry |= {"low": cells.low, "high": cells.high}
        else:
            entry |= {"names": [*cells.names], "rare": [*sorted(cells.rare)]}
        columns.append(entry | {"counts": count_nights(cells, values, index, len(distinct)).tolist()})

    for name, weight in weights(importance).items():
        add(name, "feature", frame[name], kinds[name] == "numeric", weight, views.get(name))
    said, came = target.named_scores(score), target.named_labels(label)
    add(PREDICTION, "prediction", pd.Series(said), said.dtype != object, OTHERS[PREDICTION])
    add(LABEL, "label", pd.Series(came), came.dtype != object, OTHERS[LABEL])
    add(LOSS, "performance", pd.Series(target.row_losses(score, label)), True, OTHERS[LOSS])
    return {"nights": distinct.tolist(), "columns": columns}


OTHERS = {PREDICTION: 0.1, LABEL: 0.1, LOSS: 0.1}
"""What the columns beside the features weigh in the model's detector."""


def weights(importance: Mapping[str, float]) -> dict[str, float]:
    """What each feature weighs in the model's detector: half of what is left is shared equally, so that a feature
    that training found useless is still seen when it moves; half by importance."""
    left = 1.0 - sum(OTHERS.values())
    equal = 1.0 / max(len(importance), 1)
    return {name: left * (equal + share) / 2 for name, share in importance.items()}


def read(reference: Mapping[str, Any]) -> Reference | None:
    """What `describe` wrote into a version's reference.json; None for a version from before there were profiles."""
    body = reference.get("profile")
    if body is None:
        return None
    columns = []
    for entry in body["columns"]:
        if "edges" in entry:
            cells = Cells(
                True,
                np.asarray(entry["edges"], dtype=np.float64),
                np.asarray(entry["places"], dtype=np.float64),
                entry["deviation"],
                entry["low"],
                entry["high"],
            )
        else:
            cells = Cells(False, names=tuple(entry["names"]), rare=frozenset(entry["rare"]))
        counts = np.asarray(entry["counts"], dtype=np.int64)
        columns.append(ProfiledColumn(entry["name"], entry["kind"], entry["view"], entry["weight"], cells, counts))
    return Reference(np.asarray(body["nights"], dtype=np.int64), tuple(columns))


def importance(values: Floats, names: Sequence[str]) -> dict[str, float]:
    """Mean |SHAP value| of each feature over their sum; equal shares where nothing moves the score.

    `values` is (rows, features): exact TreeSHAP, Lundberg et al. (2020), Nature Machine Intelligence 2:56-67.
    """
    mean = np.abs(values).mean(axis=0) if len(values) else np.zeros(len(names))
    total = float(mean.sum())
    shares = mean / total if total > 0 else np.full(len(names), 1 / max(len(names), 1))
    return dict(zip(names, shares.astype(float).tolist(), strict=True))


def features(reference: Reference) -> tuple[FilledFeature, ...]:
    """How far each feature was filled at training, in the reference's order."""
    return tuple(
        FilledFeature(column.name, column.filled, column.is_dead)
        for column in reference.columns
        if column.kind == "feature"
    )


# -- distances --------------------------------------------------------------------------------


def distance(cells: Cells, before: NDArray[Any], now: NDArray[Any]) -> Floats:
    """Of two histograms (…, cells), without what is missing: Wasserstein over the deviation, or Jensen-Shannon.

    NaN where either side is empty.
    """
    p, q = _shares(before), _shares(now)
    if cells.is_numeric:
        gaps = np.abs(np.cumsum(p - q, axis=-1))[..., :-1]
        area: Floats = gaps @ np.diff(cells.places) / cells.deviation
        return area
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log(p / middle), 0.0).sum(axis=-1)
        right = np.where(q > 0, q * np.log(q / middle), 0.0).sum(axis=-1)
    divergence = np.sqrt(np.maximum(left + right, 0.0) / 2)
    empty = np.isnan(p).any(axis=-1) | np.isnan(q).any(axis=-1)
    return np.where(empty, np.nan, divergence)


def quantile(cells: Cells, counts: Counts, at: float) -> float:
    """The place of the cell in which the `at` quantile of a numeric column lies; NaN without values."""
    rows = np.cumsum(counts[:-1])
    return float(cells.places[np.searchsorted(rows, at * rows[-1])]) if len(rows) and rows[-1] else float("nan")


def missing(counts: NDArray[Any]) -> Floats:
    """The share of rows that are missing, of (…, cells); NaN without rows."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share: Floats = counts[..., -1] / counts.sum(axis=-1)
    return share


def filled(counts: NDArray[Any]) -> Floats:
    """The share of rows that have a value, of (…, cells); NaN without rows."""
    return 1 - missing(counts)


def _shares(counts: NDArray[Any]) -> Floats:
    present = np.asarray(counts, dtype=np.float64)[..., :-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: Floats = present / present.sum(axis=-1, keepdims=True)
    return shares


def _numbers(values: Any) -> Floats:
    if isinstance(values, np.ndarray) and values.dtype == np.float64:
        return values
    try:
        numbers: Floats = pd.Series(values).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):  # text where numbers were: what is no number is missing
        numbers = pd.to_numeric(pd.Series(values), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers


def _texts(values: "pd.Series[Any]") -> "pd.Series[Any]":
    return values.dropna().map(str).astype(object)
