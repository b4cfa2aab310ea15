"""Evidence of leakage in the data itself: for tables that carry no write times. Pure: a sample in, findings out.

Write-time rules (leakage.py) prove; this module weighs. A *critical* finding is about time: a value that lies after
the prediction, counts up to the outcome, is a part of the outcome's time. A *warning* is statistical: the column
tells the label in a way that honest features seldom do. No rule knows a column's name.

Every interval holds for all columns at once: each is taken at the level ALPHA / (columns judged), Bonferroni's
correction (Dunn 1961, "Multiple comparisons among means", JASA 56), times the number of values that a rule chose
from. Rows of one entity are not independent, so statistics count entities where they count, and widen by the mean
number of rows per entity where they average. What can be judged on no row is `untested`, with the reason.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import betaincinv, ndtri  # type: ignore[import-untyped]

from tiltyard.errors import BadInput
from tiltyard.reading import Reading, epoch_of, read

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Severity = Literal["critical", "warning"]

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

ALPHA = 0.05
"""Chance that any interval of one weighing misses its true value."""
FEWEST = 30
"""Rows of each class below which statistics are not tried: an interval at 30 rows spans a third of the scale."""
FOLDS = 5
PLOTTED = 20
"""Values shown in a finding's plot."""
EXAMPLES = 5

TOO_GOOD = 0.95
"""AUC from which on one column by itself is too good: it puts 19 of 20 pairs of rows in the right order. The best
single column that was known ahead reaches .66 to .80 on the data sets of docs/leakage.md; .95 leaves room for one
that is honest and very strong, and the interval's lower end has to lie above it."""
TOO_GOOD_AMOUNT = 0.99
"""The same where the label is an amount: there yesterday's amount honestly reaches .97."""
PURE = 0.05
"""A value is all but pure when the class that it excludes is rarer than this share of what the base rate says, at
the interval's unfavourable end."""
HUGE_ODDS = 20.0
"""Odds ratio, at its interval's lower end, from which on missing values follow the label too closely. 6.7 is a large
effect (Chen, Cohen, Chen 2010, Commun. Stat. 39); values missing by neglect stay under it."""


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


@dataclass(frozen=True)
class Weighed:
    """All that was found: critical before warning, and the largest effects first."""

    findings: tuple[Finding, ...]
    untested: tuple[Untested, ...]


def weigh(sample: Sample, progress: Callable[[str, float | None], None] | None = None) -> Weighed:
    """Judge every feature of the sample. The same sample gives the same findings, whatever its columns are called.

    Raises BadInput when a column that is named is not there; everything else that stands in the way is `untested`.
    """
    case = _Case(sample)
    untested = list(case.untested)
    findings: list[Finding] = []
    for done, (kinds, weigher) in enumerate(_WEIGHERS):
        if progress:
            progress(f"evidence: {kinds[0]}", done / len(_WEIGHERS))
        reason = case.reason(kinds[0])
        if reason:
            untested += [Untested("*", kind, reason) for kind in kinds]
            continue
        for found in weigher(case):
            (findings if isinstance(found, Finding) else untested).append(found)  # type: ignore[arg-type]
    return Weighed(_ranked(findings, case), tuple(dict.fromkeys(untested)))


def _ranked(findings: list[Finding], case: "_Case") -> tuple[Finding, ...]:
    order = {kind: place for place, kind in enumerate(KINDS)}
    columns = {name: place for place, name in enumerate(case.features)}
    key = {"critical": 0, "warning": 1}
    return tuple(
        sorted(findings, key=lambda f: (key[f.severity], order[f.kind], -abs(f.effect), columns.get(f.feature, 0)))
    )


# -- the sample, read once --------------------------------------------------------------------


class _Case:
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
        told = sample.frame[sample.label].notna().to_numpy(dtype=bool)
        if not told.all():
            self._skip("*", "*", f"{(~told).sum()} rows without a label were left out.")
        frame = sample.frame[told] if not told.all() else sample.frame
        self.frame = frame.reset_index(drop=True)
        self.rows = len(self.frame)
        self.is_amount = False
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
            self._skip(name, "*", "It has the same value in every row.")
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
                self.is_amount = True
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
        if reading.kind == "number" and reading.values is not None:
            scaled = _as_epoch(reading.values)
            if scaled is not None:
                return scaled
        if reading.kind == "empty":
            self._skip("*", "*", f"'{name}' has no value in any row, so that nothing about time could be judged.")
            return None
        if reading.kind != "instant":
            raise BadInput(f"'{name}' does not hold instants; give a column of timestamps, dates or ISO 8601 text.")
        if reading.ambiguous:
            self._skip("*", "*", f"{reading.ambiguous} rows of '{name}' cannot be told: day and month may be swapped.")
        return reading.values

    def reason(self, kind: str) -> str:
        """Why a kind cannot be judged on this sample; '' when it can."""
        exact = kind in _EXACT
        if not self.readings:
            return "There is no feature to judge."
        if kind in _OF_TIME and self.prediction is None:
            return "No prediction time was given."
        if exact:
            return ""
        least = min(int(self.label.sum()), self.rows - int(self.label.sum()))
        if least == 0:
            return "The label has one class only."
        if least < FEWEST:
            return f"{least} rows of the rarer class are too few; at least {FEWEST} are needed."
        if kind in _OF_OUTCOME and self.outcome is None:
            return "No label time was given: when the outcome happened, or was known."
        return ""

    @cached_property
    def entities(self) -> Ints:
        """n codes; every row its own entity where none is named."""
        if self.sample.entity is None:
            return np.arange(self.rows)
        codes, _ = pd.factorize(self.frame[self.sample.entity], use_na_sentinel=False)
        result: Ints = codes.astype(np.int64)
        return result

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
        positives = self.label.sum() / self.spread
        negatives = self.rows / self.spread - positives
        for name, reading in self.readings.items():
            auc, variance = out_of_fold_auc(reading.codes, self.label, self.folds, len(reading.labels))
            if not np.isnan(auc):
                interval = auc_interval(auc, variance * self.spread, self.z, positives, negatives)
                result[name] = (auc, *interval)
        return result

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


def _as_epoch(values: Floats) -> Floats | None:
    """Seconds of a role's column of epoch integers; the user said that it holds instants."""
    from tiltyard.reading import EPOCHS

    here = values[~np.isnan(values)]
    for low, high in EPOCHS.values():
        if len(here) and here.min() >= low and here.max() <= high:
            return values / (low / 5e8)
    return None


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


# -- instants ---------------------------------------------------------------------------------


def _instants(case: _Case) -> Iterator[Finding | Untested]:
    """A value that is an instant after the prediction. Exact: it counts rows, and one is enough."""
    assert case.prediction is not None
    for name, reading in case.readings.items():
        if reading.kind != "instant" or reading.values is None or name in case.sample.planned:
            continue
        offset = reading.values - case.prediction
        if reading.day_only:  # of a date only the day is known; in the prediction's zone it may begin a day earlier
            late = reading.values > np.floor(case.prediction / 86_400) * 86_400
        else:
            late = offset > 0
        judged = ~np.isnan(offset)
        if not late.any():
            continue
        share = late.sum() / judged.sum()
        told = ""
        if 0 < late.sum() < judged.sum() and 0 < case.label.sum() < case.rows:
            rates = case.label[late].mean(), case.label[judged & ~late].mean()
            told = f"; of those {rates[0]:.1%} are positive, of the others {rates[1]:.1%}"
        yield Finding(
            name,
            "critical",
            "instant_after_prediction",
            float(share),
            None,
            f"{late.sum()} of {judged.sum()} rows ({share:.1%} of rows) hold an instant later than the prediction, "
            f"by {lasting(float(np.median(offset[late])))} in the median ({reading.written}){told}.",
            case.examples(name, late),
            _offsets(case, offset[judged], case.label[judged]),
        )


def _offsets(case: _Case, seconds: Floats, label: Bools) -> Mapping[str, Any]:
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


# -- one column against the label -------------------------------------------------------------


def out_of_fold_auc(codes: Ints, label: Bools, folds: Ints, levels: int) -> tuple[float, float]:
    """(AUC, variance) of the label's smoothed rate per level, learnt on the other folds, averaged over the folds.

    Within a fold the AUC is Mann-Whitney's and its variance DeLong's (DeLong, DeLong, Clarke-Pearson 1988,
    Biometrics 44), from counts per level. A fold weighs as many pairs as it has; one without both classes is left
    out. NaN when none has.
    """
    cells = np.bincount((folds * 2 + label) * levels + codes, minlength=FOLDS * 2 * levels)
    counts = cells.reshape(FOLDS, 2, levels).astype(np.float64)
    return auc_of_counts(counts)


def auc_of_counts(counts: Floats) -> tuple[float, float]:
    """The same from counts: folds × (negative, positive) × levels."""
    total = counts.sum(axis=0)
    weights, aucs, variances = [], [], []
    for fold in counts:
        negative, positive = fold
        n, p = negative.sum(), positive.sum()
        if n < 2 or p < 2:
            continue
        others = total - fold
        rate = others[1].sum() / max(others.sum(), 1.0)
        score = (others[1] + 20 * rate) / (others.sum(axis=0) + 20)
        auc, variance = _delong(score, negative, positive)
        weights.append(n * p)
        aucs.append(auc)
        variances.append(variance)
    if not weights:
        return float("nan"), float("nan")
    share = np.array(weights) / sum(weights)
    return float(share @ aucs), float(share**2 @ variances)


def _delong(score: Floats, negative: Floats, positive: Floats) -> tuple[float, float]:
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    _, group = np.unique(ranked, return_inverse=True)
    n = np.bincount(group, weights=negative[order])
    p = np.bincount(group, weights=positive[order])
    below = np.cumsum(n) - n / 2
    above = p.sum() - np.cumsum(p) + p / 2
    of_positive, of_negative = below / n.sum(), above / p.sum()
    auc = float((p @ of_positive) / p.sum())
    variance = (p @ (of_positive - auc) ** 2) / p.sum() / max(p.sum() - 1, 1)
    variance += (n @ (of_negative - auc) ** 2) / n.sum() / max(n.sum() - 1, 1)
    return auc, float(variance)


def auc_interval(auc: float, variance: float, z: float, positives: float, negatives: float) -> tuple[float, float]:
    """Wald's on the logit scale, which keeps it in [0, 1]; at least as wide as one misplaced row of each class."""
    floor = 1 / (4 * positives * negatives) + 0.25 * (1 / positives**2 + 1 / negatives**2)
    clipped = min(max(auc, 1e-4), 1 - 1e-4)
    width = z * np.sqrt(max(variance, floor)) / (clipped * (1 - clipped)) if 0.02 < clipped < 0.98 else None
    if width is None:
        width = z * np.sqrt(max(variance, floor))
        return max(auc - width, 0.0), min(auc + width, 1.0)
    centre = np.log(clipped / (1 - clipped))
    low, high = 1 / (1 + np.exp(-(centre - width))), 1 / (1 + np.exp(-(centre + width)))
    return float(low), float(high)


def _too_good(case: _Case) -> Iterator[Finding | Untested]:
    """A column that tells the label by itself.

    The AUC is that of the rate per value or bin, learnt at other times on other entities, so that neither an id nor
    a memory of the entity helps. The level is absolute: strong is not suspicious, all but certain is.
    """
    level = TOO_GOOD_AMOUNT if case.is_amount else TOO_GOOD
    aucs = case.aucs
    best = sorted((auc for auc, _, _ in aucs.values()), reverse=True)
    for name, (auc, low, high) in aucs.items():
        if low < level:
            continue
        others = [other for other in best if other < level]
        beside = f"; the best of the {len(others)} other columns reaches {others[0]:.3f}" if others else ""
        yield Finding(
            name,
            "warning",
            "too_good",
            round(auc, 4),
            (round(low, 4), round(high, 4)),
            f"By itself it tells the label with an AUC of {auc:.3f} ({low:.3f} to {high:.3f}), learnt on other "
            f"entities and other times{beside}.",
            (),
            case.rates(case.readings[name]),
        )


# -- defaults ---------------------------------------------------------------------------------


def _defaults(case: _Case) -> Iterator[Finding | Untested]:
    """Missing or not, default or not: a subset of rows that is all but of one class, or odds that are huge."""
    for name, reading in case.readings.items():
        counts = np.bincount(reading.codes, minlength=len(reading.labels)).astype(np.float64)
        positive = np.bincount(reading.codes, weights=case.label, minlength=len(reading.labels)).astype(np.float64)
        mode = int(np.argmax(counts))
        yield from _pure(case, name, reading, counts, positive, mode)


def _pure(case: _Case, name: str, reading: Reading, counts: Floats, positive: Floats, mode: int) -> Iterator[Finding]:
    rows, hits = counts.sum(), positive.sum()
    subsets = [("the default", mode, counts[mode], positive[mode])]
    subsets.append(("anything but the default", mode, rows - counts[mode], hits - positive[mode]))
    if counts[0] and mode != 0:
        subsets.append(("missing", 0, counts[0], positive[0]))
        subsets.append(("filled in", 0, rows - counts[0], hits - positive[0]))
    base = hits / rows
    alpha = ALPHA / max(len(case.readings), 1) / 4
    best: tuple[float, Finding] | None = None
    for title, code, size, inside in subsets:
        size_entities = size / case.spread
        if min(size, rows - size) < FEWEST or size_entities < FEWEST:
            continue
        low, high = proportion_interval(inside / case.spread, size_entities, alpha)
        if high <= PURE * base:
            verdict, ratio = "positive", high / base
        elif 1 - low <= PURE * (1 - base):
            verdict, ratio = "negative", (1 - low) / (1 - base)
        else:
            continue
        wrong = inside if verdict == "positive" else size - inside
        expected = size * (base if verdict == "positive" else 1 - base)
        finding = Finding(
            name,
            "warning",
            "default_tracks_label",
            round(float(inside / size), 5),
            (round(low, 5), round(high, 5)),
            f"Of {size:.0f} rows where it is {title} ({reading.labels[code]}), {wrong:.0f} are {verdict} and "
            f"{expected:.0f} would be by the base rate; share of positives {inside / size:.2%} ({low:.2%} to "
            f"{high:.2%}), in all rows {base:.2%}.",
            case.examples(
                name, reading.codes == code if title in ("the default", "missing") else reading.codes != code
            ),
            case.rates(reading),
        )
        if best is None or ratio < best[0]:
            best = (ratio, finding)
    if best:
        yield best[1]


def proportion_interval(hits: float, rows: float, alpha: float) -> tuple[float, float]:
    """Clopper and Pearson's (1934, Biometrika 26), two-sided at `alpha`."""
    low = 0.0 if hits <= 0 else float(betaincinv(hits, rows - hits + 1, alpha / 2))
    high = 1.0 if hits >= rows else float(betaincinv(hits + 1, rows - hits, 1 - alpha / 2))
    return low, high


_OF_TIME = frozenset({"instant_after_prediction", "clock_of_outcome", "part_of_outcome_time", "grows_until_outcome",
                      "future_in_aggregate", "changes_only_after_outcome", "constant_over_life"})  # fmt: skip
_OF_OUTCOME = frozenset({"part_of_outcome_time", "grows_until_outcome", "changes_only_after_outcome"})
_EXACT = frozenset({"instant_after_prediction", "future_in_aggregate"})

_Weigher = Callable[[_Case], Iterator[Finding | Untested]]
_WEIGHERS: tuple[tuple[tuple[str, ...], _Weigher], ...] = (
    (("instant_after_prediction",), _instants),
    (("too_good",), _too_good),
    (("default_tracks_label",), _defaults),
)
