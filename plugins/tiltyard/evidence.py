"""Evidence of leakage in the data itself: for tables that carry no write times. Pure: a sample in, findings out.

Write-time rules (leakage.py) prove; this module weighs. A *critical* finding is about time: a value that lies after
the prediction, counts up to the outcome, is a part of the outcome's time. A *warning* is statistical: the column
tells the label in a way that honest features seldom do. No rule knows a column's name.

Every interval holds for all columns at once: each is taken at the level ALPHA / (columns judged), Bonferroni's
correction (Dunn 1961, "Multiple comparisons among means", JASA 56), times the number of values that a rule chose
from. Rows of one entity are not independent, so statistics count entities where they count, and widen by the mean
number of rows per entity where they average. What can be judged on no row is `untested`, with the reason.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
PURE = 0.1
"""A subset of rows is all but pure when less than a tenth of it is of the rarer class, at the interval's
unfavourable end ..."""
PURE_ODDS = 20.0
"""... and its odds are twenty times the base's, either way: three times what counts as a large effect (6.7; Chen,
Cohen, Chen 2010, Commun. Stat. 39). A risk factor that is honest makes a class likely, seldom certain."""
SUBSETS = 8
"""Subsets of a column's rows that are tried; its intervals are that much wider."""
UNEXPECTED = 0.05
"""Rows of which the other columns say with a chance of 19 in 20 that the value would be there."""
EXPLAINED = 50
"""Subsets at most that are tried to be explained by other columns: each asks all of them."""
FEW_LEVELS = 4
"""Flags and the like: that one of them is set may need explaining, too."""
SOON = 0.1
"""The share of outcomes that came soonest, with their ties, in which a growing column is looked for."""
SOON_LIMIT = 0.5
"""Less than half of what is expected, at the interval's upper end: what the other columns don't explain of an honest
column (a channel, a deposit) makes it rarer by a third at the most."""
ALIKE = 0.5
"""Kappa of two versions of one thing: moderate agreement and better (Landis, Koch 1977, Biometrics 33)."""
TOLD_ODDS = 5.0
"""Odds ratio, at the nearer end of its interval, of the label where two versions differ: an address of delivery that
is not that of the bill doubles or triples a risk."""
SKETCHED, DRAWN, PAIRS = 400, 6, 200
"""Rows and random signs with which pairs are looked for, and how many pairs are judged at most."""
CENSORED = 0.05
"""A wait that so many rows share to the second is where looking ended, not where something came."""
UNITS = {"seconds": 1.0, "minutes": 60.0, "hours": 3_600.0, "days": 86_400.0}
UNIT_SLACK = 0.1
"""How far from one a coefficient may lie: parts are rounded, and what is left out (taxiing) goes along with them."""
REPRODUCED = 0.9
"""Share of the waiting time's variance that its parts have to reproduce, in each class: a sum, not a correlation."""
TELLS = 0.55
"""AUC, at its interval's lower end, from which on what is left of a part tells the label: a plan's rest is at .5."""
ASKED = 30
"""Other columns that may explain one: those that explain the most of it by themselves."""
FITTED = 20_000
"""Rows that regressions are fitted on: coefficients are known to a percent by then."""
HANGS = 0.3
"""How much closer than by chance a reading has to keep to the prediction's clock, as a mean resultant length; hours
spread evenly over half a day around it reach .6."""
MOVES = 0.1
"""Rank correlation with the wait, within the classes, from which on a reading moves along with the outcome."""
CLOCK_GAIN = 0.05
"""By how much the distance has to tell the label better, in AUC, at the interval's lower end."""


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
        self.parts: frozenset[str] = frozenset()
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
        for name, reading in self.readings.items():
            auc, low, high = self.auc_of(reading.codes, len(reading.labels))
            if not np.isnan(auc):
                result[name] = (auc, low, high)
        return result

    def auc_of(self, codes: Ints, levels: int) -> tuple[float, float, float]:
        """(AUC, low, high) out of fold of any codes; NaN when it cannot be computed."""
        auc, variance = out_of_fold_auc(codes, self.label, self.folds, levels)
        positives = self.label.sum() / self.spread
        negatives = self.rows / self.spread - positives
        return auc, *auc_interval(auc, variance * self.spread, self.z, positives, negatives)

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
            clock = _clock(reading)
            if clock is not None and _hangs_on(*clock, self.prediction):
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
    """Filled in or not, default or not: a subset of rows that is all but of one class.

    Values are missing for honest reasons, too (a new customer has no history), and those may go with the label. So
    it is also tried on the rows where the other columns don't make one expect it, as learnt on the class in which it
    is rarer: a value that was blanked by the outcome itself is missing where nothing else explains it.
    """
    doubtful: list[tuple[float, Reading, str, Bools]] = []
    for reading in case.readings.values():
        subsets = _subsets(reading)
        found = [pure for title, rows in subsets if (pure := _pure(case, reading, title, rows))]
        if found:
            yield min(found, key=lambda pure: pure[0])[1]
        elif reading.missing.any() or len(reading.labels) <= FEW_LEVELS:
            rare = [(title, rows) for title, rows in subsets if FEWEST <= rows.sum() < case.rows / 2]
            for title, rows in rare:
                low, high, odds = odds_interval(
                    case.label[rows], case.label[~rows], ALPHA / len(case.readings), case.spread
                )
                if not low <= 1 <= high:
                    doubtful.append((abs(np.log(odds)), reading, title, rows))
    doubtful.sort(key=lambda doubt: -doubt[0])
    named = set()
    for _, reading, title, rows in doubtful[:EXPLAINED]:
        left = _unexpected(case, reading, rows)
        pure = _pure(case, reading, f"{title} and the other columns don't make one expect that", left)
        if pure and reading.name not in named:
            named.add(reading.name)
            yield pure[1]
    for name in dict.fromkeys(reading.name for _, reading, _, _ in doubtful[EXPLAINED:]):
        if name not in named:
            why = f"It was not tried to explain it by the other columns: only the {EXPLAINED} strongest were."
            yield Untested(name, "default_tracks_label", why)


def _subsets(reading: Reading) -> list[tuple[str, Bools]]:
    """The rows that hold the commonest value, or that are missing, and those that don't."""
    counts = np.bincount(reading.codes, minlength=len(reading.labels))
    mode = int(np.argmax(counts))
    subsets = [
        (f"it holds {reading.labels[mode]}, its commonest value", reading.codes == mode),
        (f"it holds anything but {reading.labels[mode]}", reading.codes != mode),
    ]
    if mode == 0:
        subsets = [("it is missing", reading.codes == 0), ("it is filled in", reading.codes != 0)]
    elif counts[0]:
        subsets += [("it is missing", reading.codes == 0), ("it is filled in", reading.codes != 0)]
    return subsets


def _unexpected(case: _Case, reading: Reading, rows: Bools) -> Bools:
    """Those of `rows` of which the other columns say that they are not among `rows`. Columns that say the same thing
    in other words are not asked."""
    others = [other for other in case.readings.values() if other.name != reading.name and not _says(other, rows)]
    more_positive = rows[case.label].mean() > rows[~case.label].mean()
    chance = expected(rows.astype(np.float64), others, ~case.label if more_positive else case.label)
    left: Bools = rows & (chance <= UNEXPECTED)
    return left


def _says(other: Reading, rows: Bools) -> bool:
    """A level of the other column is there in the same rows."""
    inside = np.bincount(other.codes[rows], minlength=len(other.labels))
    size = np.bincount(other.codes, minlength=len(other.labels))
    return bool((inside >= 0.9 * (rows.sum() + size - inside)).any())


def _pure(case: _Case, reading: Reading, title: str, rows: Bools) -> tuple[float, Finding] | None:
    """(how much rarer the excluded class is, the finding) when a subset is all but pure."""
    size, inside, base = int(rows.sum()), int(case.label[rows].sum()), case.base
    entities = len(np.unique(case.entities[rows]))
    if min(entities, len(np.unique(case.entities[~rows]))) < FEWEST:
        return None
    low, high = proportion_interval(inside / size * entities, entities, ALPHA / len(case.readings) / SUBSETS)
    odds = base / (1 - base)
    if high <= PURE and high / (1 - high) <= odds / PURE_ODDS:
        excluded, ratio, wrong, usual = "positive", high / (1 - high) / odds, inside, base
    elif 1 - low <= PURE and low / (1 - low) >= odds * PURE_ODDS:
        excluded, ratio, wrong, usual = "negative", (1 - low) / low * odds, size - inside, 1 - base
    else:
        return None
    finding = Finding(
        reading.name,
        "warning",
        "default_tracks_label",
        round(inside / size, 5),
        (round(low, 5), round(high, 5)),
        f"Of {size} rows where {title}, {wrong} are {excluded}; {size * usual:.0f} would be by the base rate. The "
        f"share of positives there is {inside / size:.2%} ({low:.2%} to {high:.2%}), in all rows {base:.2%}.",
        case.examples(reading.name, rows),
        case.rates(reading),
    )
    return ratio, finding


def proportion_interval(hits: float, rows: float, alpha: float) -> tuple[float, float]:
    """Clopper and Pearson's (1934, Biometrika 26), two-sided at `alpha`."""
    low = 0.0 if hits <= 0 else float(betaincinv(hits, rows - hits + 1, alpha / 2))
    high = 1.0 if hits >= rows else float(betaincinv(hits + 1, rows - hits, 1 - alpha / 2))
    return low, high


# -- what others tell of a column ----------------------------------------------------------------


def expected(target: Floats, others: Sequence[Reading], learn: Bools, rounds: int = 60) -> Floats:
    """What the other columns make one expect of `target`, per row; learnt on the rows `learn`.

    Stagewise additive least squares over the levels of one column at a time, a third of each step, shrunk by twenty
    rows (Bühlmann, Yu 2003, "Boosting with the L2 loss", JASA 98: componentwise boosting).
    """
    learnt = np.flatnonzero(learn)
    if len(learnt) > FITTED:
        learnt = np.sort(np.random.default_rng(0).permutation(learnt)[:FITTED])
    told = target[learnt]
    mean = float(told.mean()) if len(told) else 0.0
    result: Floats = np.full(len(target), mean)
    left = told - mean
    gains = []
    for reading in others:
        codes = reading.codes[learnt]
        sums = np.bincount(codes, weights=left, minlength=len(reading.labels))
        gains.append(float(sums @ (sums / (np.bincount(codes, minlength=len(reading.labels)) + 20.0))))
    others = [others[place] for place in np.argsort(gains, kind="stable")[::-1][:ASKED]]
    inside = [reading.codes[learnt] for reading in others]
    counts = [
        np.bincount(codes, minlength=len(reading.labels)) + 20.0 for codes, reading in zip(inside, others, strict=True)
    ]
    enough = 1e-4 * float(left @ left)
    for _ in range(rounds):
        best, gain = None, enough
        for place, codes in enumerate(inside):
            sums = np.bincount(codes, weights=left, minlength=len(counts[place]))
            step = sums / counts[place]
            if sums @ step > gain:
                best, gain = (place, step), float(sums @ step)
        if best is None:
            break
        place, step = best
        left = left - step[inside[place]] / 3
        result += step[others[place].codes] / 3
    return result


def number_codes(values: Floats) -> tuple[Ints, int]:
    """(code per row, how many codes) of numbers made on the way."""
    made = Reading("", "number", pd.Series(dtype=float), values)
    return made.codes, len(made.labels)


# -- the outcome's time -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Event:
    """The rows whose outcome came at a time of its own, not at the end of a horizon."""

    rows: Bools
    wait: Floats
    """n seconds from the prediction to the outcome."""


def _event(case: _Case, side: bool | None) -> _Event:
    """`side`: the class; None for both. A wait that one row in twenty shares to the second, and that is longer than
    the median, is the horizon's end: such rows tell only that nothing had come."""
    assert case.outcome is not None and case.prediction is not None
    wait: Floats = case.outcome - case.prediction
    rows: Bools = ~np.isnan(wait) & (wait >= 0)
    if side is not None:
        rows = rows & (case.label == side)
    if rows.any():
        waits, counts = np.unique(np.round(wait[rows]), return_counts=True)
        ends = waits[(counts > CENSORED * rows.sum()) & (waits > np.median(wait[rows]) - 1)]
        rows = rows & ~np.isin(np.round(wait), ends)
    return _Event(rows, wait)


def _parts(case: _Case) -> Iterator[Finding | Untested]:
    """Columns that, added up, are the time to the outcome: a delay, a duration that was measured afterwards.

    The time is regressed on the numeric columns, one after the other (orthogonal matching pursuit; Pati, Rezaiifar,
    Krishnaprasad 1993). A column is a part of it when its coefficient is one, in seconds, minutes, hours or days,
    among positives and among negatives alike, and the regression reproduces the time in both. A planned duration is
    such a part, too; so a part is named only if what the other columns don't tell of it tells the label.
    """
    numbers = {n: r for n, r in case.readings.items() if r.kind == "number" and r.values is not None}
    both = _event(case, None)
    sides = [both.rows & case.label, both.rows & ~case.label]
    if min(int(side.sum()) for side in sides) < 10 * FEWEST:
        yield Untested("*", "part_of_outcome_time", "Too few outcomes have a time of their own, in one of the classes.")
        return
    named = _unit_parts(case, numbers, both, sides)
    case.parts = frozenset(named)
    known = case.unsuspected
    for name, (unit, size, shares) in named.items():
        reading = numbers[name]
        assert reading.values is not None
        here = ~reading.missing
        surprise = np.where(here, reading.values - expected(np.nan_to_num(reading.values), known, here), np.nan)
        auc, low, high = case.auc_of(*number_codes(surprise))
        if not low >= TELLS:
            continue
        wait = both.wait / size
        beside = ", ".join(other for other in named if other != name) or "what else is there"
        yield Finding(
            name,
            "critical",
            "part_of_outcome_time",
            round(auc, 4),
            (round(low, 4), round(high, 4)),
            f"In {unit} it is a part of the time from the prediction to the outcome: with {beside} "
            f"it reproduces {shares[0]:.1%} of that time's variance among positives and {shares[1]:.1%} among "
            f"negatives, one {unit[:-1]} for one; what the other columns don't tell of it tells the label with an AUC "
            f"of {auc:.3f} ({low:.3f} to {high:.3f}).",
            case.examples(name, both.rows & here, **{f"{unit} to the outcome": wait}),
            _offsets(case, reading.values[here] * size, case.label[here]),
        )


def _unit_parts(
    case: _Case, numbers: Mapping[str, Reading], both: _Event, sides: Sequence[Bools]
) -> dict[str, tuple[str, float, tuple[float, float]]]:
    """Column → (unit, its seconds, variance reproduced among positives and negatives)."""
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(np.flatnonzero(side))[: FITTED // 2] for side in sides]
    rows = np.concatenate(chosen)
    side = np.repeat([0, 1], [len(part) for part in chosen])
    wait = both.wait[rows]
    names = [name for name in numbers if name not in case.clocks]
    columns = []
    for name in names:
        values = numbers[name].values
        assert values is not None
        picked = values[rows]
        here = ~np.isnan(picked)
        columns.append(np.where(here, picked, picked[here].mean() if here.any() else 0.0))
    if not columns:
        return {}
    table = np.stack(columns, axis=1)
    kept = np.ones(len(rows), dtype=bool)
    selected: list[int] = []
    for _ in range(3):  # each time without the rows that fit worst: a diversion, a typing error
        selected = _pursuit(table[kept], wait[kept])
        if not selected:
            return {}
        design = np.column_stack([np.ones(len(rows)), table[:, selected]])
        weights = np.linalg.lstsq(design[kept], wait[kept], rcond=None)[0]
        off = np.abs(wait - design @ weights)
        kept = off <= np.quantile(off, 0.95)
    fits, shares = [], []
    for place in (0, 1):
        mine = kept & (side == place)
        if mine.sum() < FEWEST or wait[mine].std() == 0:
            return {}
        weights = np.linalg.lstsq(design[mine], wait[mine], rcond=None)[0]
        fits.append(weights[1:])
        shares.append(float(1 - (wait[mine] - design[mine] @ weights).var() / wait[mine].var()))
    if min(shares) < REPRODUCED:
        return {}
    found = {}
    for place, column in enumerate(selected):
        for unit, size in UNITS.items():
            if all(abs(fit[place] / size - 1) <= UNIT_SLACK for fit in fits):
                found[names[column]] = (unit, size, (shares[0], shares[1]))
    return found


def _pursuit(table: Floats, wait: Floats) -> list[int]:
    """Columns in the order in which they explain the most of what is left, while each explains a thousandth."""
    centred = table - table.mean(axis=0)
    scale = centred.std(axis=0)
    usable = scale > 0
    centred = centred / np.where(usable, scale, 1.0)
    left = wait - wait.mean()
    total = float(left @ left)
    selected: list[int] = []
    for _ in range(10):
        strength = np.where(usable, np.abs(centred.T @ left), 0.0)
        strength[selected] = 0.0
        best = int(np.argmax(strength))
        if strength[best] ** 2 / len(wait) < 1e-3 * total:
            break
        selected.append(best)
        design = centred[:, selected]
        left = (wait - wait.mean()) - design @ np.linalg.lstsq(design, wait - wait.mean(), rcond=None)[0]
    return selected


def _clocks(case: _Case) -> Iterator[Finding | Untested]:
    """A clock reading (HHMM, hour, minute ...) of something that came after the prediction.

    Modulo its turn, its distance from the prediction's own clock is taken. A reading of the prediction's clock, or of
    a plan that hangs on it, has a distance that tells nothing; one of what came later tells the label by it. It is
    named when the distance, or what the other columns don't tell of it, tells the label better than the reading
    itself and the prediction's clock do. That holds for readings of a recent past, too, so it is critical only if
    the outcome is the later the later the reading is, label for label: a past one does not move the outcome along.
    """
    assert case.prediction is not None
    known = case.unsuspected
    for name, (turn, minutes) in case.clocks.items():
        clock = case.prediction / 60 % turn
        distance, middle = _distance(minutes, clock, turn, case.prediction)
        here = ~np.isnan(distance)
        surprise = np.where(here, distance - expected(np.nan_to_num(distance), known, here), np.nan)
        auc, low, high = max(case.auc_of(*number_codes(np.round(values, 3))) for values in (distance, surprise))
        beside = max(case.aucs.get(name, (0.5,))[0], case.auc_of(*number_codes(clock))[0], 0.5)
        if not low >= beside + CLOCK_GAIN:
            continue
        moved = _moves_outcome(case, surprise, known)
        along = (
            f"; the later it reads, the later the outcome comes (correlation {moved:.2f} within the classes)"
            if moved >= MOVES
            else ""
        )
        yield Finding(
            name,
            "critical" if along else "warning",
            "clock_of_outcome",
            round(auc, 4),
            (round(low, 4), round(high, 4)),
            f"It reads as a clock that turns in {lasting(turn * 60)}; its distance from the prediction's own clock "
            f"({middle:+.0f} minutes in the mean) tells the label with an AUC of {auc:.3f} ({low:.3f} to {high:.3f}), "
            f"where the reading and the prediction's clock by themselves reach {beside:.3f}{along}.",
            case.examples(name, here, **{"minutes from the prediction's clock": distance + middle}),
            _offsets(case, distance[here] * 60, case.label[here]),
        )


def _distance(minutes: Floats, clock: Floats, turn: float, prediction: Floats) -> tuple[Floats, float]:
    """(distance from what is usual, the usual distance), both in minutes, the first within half a turn.

    What is usual is taken of some 200 predictions in a row: the reading may be in a local time that has a summer.
    """
    offset = (minutes - clock) / turn * 2 * np.pi
    middle = float(np.angle(np.nanmean(np.exp(1j * offset))))
    order = np.argsort(prediction, kind="stable")
    block = np.empty(len(order), dtype=np.int64)
    block[order] = np.arange(len(order)) * max(len(order) // 200, 1) // max(len(order), 1)
    turned = np.angle(np.exp(1j * (offset - middle)))
    usual = pd.Series(turned).groupby(block).transform("median").to_numpy()
    distance: Floats = np.angle(np.exp(1j * (turned - usual))) / (2 * np.pi) * turn
    return distance, middle / (2 * np.pi) * turn


def _moves_outcome(case: _Case, surprise: Floats, known: Sequence[Reading]) -> float:
    """Rank correlation of what is not expected of a column with what is not expected of the wait, within the classes;
    0 when the outcome's time is not known."""
    if case.outcome is None:
        return 0.0
    event = _event(case, None)
    here = event.rows & ~np.isnan(surprise)
    if here.sum() < 10 * FEWEST:
        return 0.0
    late = np.clip(event.wait, None, np.quantile(event.wait[here], 0.99))
    late = late - expected(np.nan_to_num(late), known, here)
    ranks = []
    for values in (surprise, late):
        rank = pd.Series(values[here]).groupby(case.label[here]).rank(pct=True)
        ranks.append(rank.to_numpy() - 0.5)
    spread = ranks[0].std() * ranks[1].std()
    return float((ranks[0] * ranks[1]).mean() / spread) if spread else 0.0


def _clock(reading: Reading) -> tuple[float, Floats] | None:
    """(minutes of a turn, minutes per row) when all numbers of the column can be read as a clock's."""
    values = reading.values
    if reading.kind != "number" or values is None:
        return None
    here = values[~np.isnan(values)]
    if (here % 1 != 0).any() or here.min() < 0:
        return None
    high, different = here.max(), len(np.unique(here))
    if high <= 24 and different > 4:
        return 1440.0, values % 24 * 60
    if high <= 59 and different > 24:
        return 60.0, values
    if 1000 < high <= 2400 and (here % 100 < 60).all():
        return 1440.0, values // 100 % 24 * 60 + values % 100
    if 720 < high <= 1440 and different > 60:
        return 1440.0, values % 1440
    if 43_200 < high <= 86_400 and different > 1440:
        return 1440.0, values / 60 % 1440
    return None


def _hangs_on(turn: float, minutes: Floats, prediction: Floats) -> bool:
    """Reading and prediction move together: the distance between them has a direction, and not only because each has
    its own favourite times (the product of their lengths; Mardia, Jupp 2000, Directional Statistics, 2.3)."""
    mine = np.exp(2j * np.pi * minutes / turn)
    its = np.exp(2j * np.pi * (prediction / 60 % turn) / turn)
    here = ~np.isnan(mine) & ~np.isnan(its)
    if here.sum() < FEWEST or np.ptp((prediction[here] / 60) % turn) == 0:
        return False
    together = np.abs(np.mean(mine[here] * np.conj(its[here])))
    return bool(together - np.abs(np.mean(mine[here])) * np.abs(np.mean(its[here])) >= HANGS)


def _growing(case: _Case) -> Iterator[Finding | Untested]:
    """What was counted or written until the outcome, not until the prediction, is rare where the outcome came soon.

    Immortal time (Suissa 2008, "Immortal time bias in pharmacoepidemiology", Am. J. Epidemiol. 167): a request that is
    made, a change that is noted in the time between cannot be there before that time has passed. Among the rows of
    one class, those with the shortest wait are compared with what their other columns make one expect, as learnt on
    the rows with a longer one (indirect standardisation). A column that was known at the prediction holds what is
    expected of it, however soon the outcome came.
    """
    event = next((event for side in (True, False) if (event := _event(case, side)).rows.sum() >= 10 * FEWEST), None)
    if event is None:
        why = f"Fewer than {10 * FEWEST} outcomes of either class have a time of their own."
        yield Untested("*", "grows_until_outcome", why)
        return
    rows = event.rows
    wait = event.wait[rows]
    soon_until = float(np.quantile(wait, SOON))
    soon = wait <= soon_until
    if soon.mean() > 0.5:
        yield Untested("*", "grows_until_outcome", "More than half of the outcomes come at once.")
        return
    late_from = float(np.quantile(wait[~soon], 0.5))
    late = wait > late_from
    judged = {name: reading.only(rows) for name, reading in case.readings.items()}
    alpha = ALPHA / max(len(case.readings), 1)
    for name, reading in judged.items():
        if reading.kind == "instant":
            continue
        counts = np.bincount(reading.codes, minlength=len(reading.labels))
        default = int(np.argmax(counts))
        filled = (reading.codes != default).astype(np.float64)
        entities = soon.sum() / case.spread
        if min(filled.sum(), len(filled) - filled.sum()) < FEWEST or entities < FEWEST:
            continue
        if filled[soon].mean() > SOON_LIMIT * filled[~soon].mean():
            continue
        usual = np.clip(expected(filled, [r for n, r in judged.items() if n != name], ~soon), 0.0, 1.0)
        awaited = float(usual[soon].mean())
        if awaited * entities < 10:
            continue
        low, high = proportion_interval(filled[soon].sum() / case.spread, entities, alpha)
        ratio = filled[soon].mean() / awaited
        between = ~soon & ~late
        steps = [
            ratio,
            *(filled[part].mean() / max(usual[part].mean(), 1e-9) for part in (between, late) if part.any()),
        ]
        if high / awaited > SOON_LIMIT or steps != sorted(steps):
            continue
        where = np.zeros(case.rows, dtype=bool)
        where[np.flatnonzero(rows)[soon & (filled > 0)]] = True
        yield Finding(
            name,
            "critical",
            "grows_until_outcome",
            round(float(ratio), 4),
            (round(low / awaited, 4), round(high / awaited, 4)),
            f"Where the outcome came within {lasting(max(soon_until, 1.0))}, {filled[soon].mean():.1%} of {soon.sum()} "
            f"rows hold something but {reading.labels[default]}; {awaited:.1%} would by their other columns, as learnt "
            f"where it took longer: {ratio:.2f} times as many ({low / awaited:.2f} to {high / awaited:.2f}), and "
            f"{steps[-1]:.2f} where it took more than {lasting(late_from)}.",
            case.examples(name, where, **{"days to the outcome": event.wait / 86_400}),
            _by_wait(wait, filled, usual),
        )


def _by_wait(wait: Floats, filled: Floats, usual: Floats) -> Mapping[str, Any]:
    """Plot: how many are filled in by how long the outcome took, and how many would be by their other columns."""
    edges = np.unique(np.quantile(wait, np.linspace(0, 1, 11)))
    place = np.clip(np.searchsorted(edges, wait, side="left") - 1, 0, max(len(edges) - 2, 0))
    shown = [number for number in range(max(len(edges) - 1, 1)) if (place == number).any()]
    return {
        "shape": "rates",
        "title": "share of rows that hold something, by how long the outcome took",
        "x": [lasting(float(wait[place == number].max())) for number in shown],
        "rate": [round(float(filled[place == number].mean()), 5) for number in shown],
        "expected": [round(float(usual[place == number].mean()), 5) for number in shown],
        "rows": [int((place == number).sum()) for number in shown],
        "base": round(float(filled.mean()), 5),
        "xlabel": "time from the prediction to the outcome, up to",
    }


# -- copies -----------------------------------------------------------------------------------


def _copies(case: _Case) -> Iterator[Finding | Untested]:
    """Two columns that hold the same in most rows, more than by chance (Cohen's kappa; Cohen 1960), where the rows in
    which they differ tell the label: one of them was changed afterwards. Named is the one that tells the label
    better by itself."""
    pairs, skipped = _likely_pairs(case)
    if skipped:
        yield Untested("*", "revised_copy", skipped)
    alpha = ALPHA / max(len(case.readings), 1)
    for one, other in pairs:
        a, b = (case.readings[name] for name in (one, other))
        both = ~a.missing & ~b.missing
        differ = both & ~_same(a, b)
        same = both & ~differ
        chance = _chance(a, b, both)
        kappa = 1 - (differ.sum() / max(both.sum(), 1)) / max(1 - chance, 1e-9)
        if kappa < ALIKE or min(differ.sum(), same.sum()) / case.spread < FEWEST:
            continue
        low, high, odds = odds_interval(case.label[differ], case.label[same], alpha, case.spread)
        if not (low >= TOLD_ODDS or high <= 1 / TOLD_ODDS):
            continue
        later = max((one, other), key=lambda name: case.aucs.get(name, (0.0,))[0])
        earlier = other if later == one else one
        first, second = case.readings[later], case.readings[earlier]
        shown = second.values if second.kind == "number" else None
        yield Finding(
            later,
            "warning",
            "revised_copy",
            round(odds, 4),
            (round(low, 4), round(high, 4)),
            f"It equals {earlier} in {same.sum()} of {both.sum()} rows (kappa {kappa:.2f}); of the {differ.sum()} "
            f"where it differs {case.label[differ].mean():.1%} are positive, of the others "
            f"{case.label[same].mean():.1%}: odds ratio {odds:.3g} ({low:.3g} to {high:.3g}).",
            tuple(
                {**example, earlier: second.show(int(row))}
                for example, row in zip(case.examples(later, differ), np.flatnonzero(differ), strict=False)
            )
            if shown is None
            else case.examples(later, differ, **{earlier: shown}),
            {
                "shape": "rates",
                "x": ["equal", "different"],
                "rate": [round(float(case.label[part].mean()), 5) for part in (same, differ)],
                "rows": [int(part.sum()) for part in (same, differ)],
                "base": round(case.base, 5),
                "xlabel": f"{first.name} and {earlier}",
            },
        )


def _likely_pairs(case: _Case) -> tuple[list[tuple[str, str]], str]:
    """Pairs that agree on a sample of rows; (pairs, what was left out).

    Every value is drawn a random sign, the same in all columns; the correlation of two columns' signs estimates how
    much more often than by chance they hold the same value.
    """
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(case.rows)[:SKETCHED])
    names, hashes = [], []
    for name, reading in case.readings.items():
        if reading.kind == "instant" or len(reading.labels) < 4:
            continue
        picked = reading.raw.iloc[rows]
        values = reading.values[rows] if reading.values is not None else picked.astype(str).to_numpy(dtype=object)
        names.append(name)
        hashes.append(pd.util.hash_array(np.asarray(values)))
    if len(names) < 2:
        return [], ""
    table = np.stack(hashes)
    alike = np.zeros((len(names), len(names)), dtype=np.float32)
    for _ in range(DRAWN):
        factor = np.uint64(rng.integers(1, 2**62) * 2 + 1)
        signs = ((table * factor) >> np.uint64(63)).astype(np.float32) * 2 - 1
        signs -= signs.mean(axis=1, keepdims=True)
        spread = signs.std(axis=1, keepdims=True)
        signs /= np.where(spread > 0, spread, 1)
        alike += signs @ signs.T / (table.shape[1] * DRAWN)
    left, right = np.nonzero(np.triu(alike > 0.6 * ALIKE, 1))
    order = np.argsort(-alike[left, right], kind="stable")
    pairs = [(names[left[place]], names[right[place]]) for place in order[:PAIRS].tolist()]
    skipped = (
        f"{len(order) - PAIRS} of {len(order)} pairs of alike columns were left out." if len(order) > PAIRS else ""
    )
    return pairs, skipped


def _same(a: Reading, b: Reading) -> Bools:
    if a.values is not None and b.values is not None:
        equal: Bools = a.values == b.values
        return equal
    texts = [reading.raw.astype(str).to_numpy(dtype=object) for reading in (a, b)]
    return np.asarray(texts[0] == texts[1], dtype=bool)


def _chance(a: Reading, b: Reading, both: Bools) -> float:
    """Share of rows in which two columns of these distributions agree by chance."""
    shares = []
    for reading in (a, b):
        values = reading.values if reading.values is not None else reading.raw.astype(str)
        shares.append(pd.Series(values)[both].value_counts(normalize=True))
    return float((shares[0] * shares[1]).sum())


def odds_interval(first: Bools, second: Bools, alpha: float, spread: float = 1.0) -> tuple[float, float, float]:
    """(low, high, ratio) of the odds in `first` over those in `second`: Woolf's logit interval with Haldane and
    Anscombe's half (Agresti 2013, Categorical Data Analysis, 3.1.2), rows counted as entities."""
    cells = np.array([first.sum(), (~first).sum(), second.sum(), (~second).sum()]) / spread + 0.5
    centre = np.log(cells[0] * cells[3] / (cells[1] * cells[2]))
    width = float(ndtri(1 - alpha / 2)) * np.sqrt((1 / cells).sum())
    return float(np.exp(centre - width)), float(np.exp(centre + width)), float(np.exp(centre))


_OF_TIME = frozenset({"instant_after_prediction", "clock_of_outcome", "part_of_outcome_time", "grows_until_outcome",
                      "future_in_aggregate", "changes_only_after_outcome", "constant_over_life"})  # fmt: skip
_OF_OUTCOME = frozenset({"part_of_outcome_time", "grows_until_outcome", "changes_only_after_outcome"})
_EXACT = frozenset({"instant_after_prediction", "future_in_aggregate"})

_Weigher = Callable[[_Case], Iterator[Finding | Untested]]
_WEIGHERS: tuple[tuple[tuple[str, ...], _Weigher], ...] = (
    (("instant_after_prediction",), _instants),
    (("part_of_outcome_time",), _parts),
    (("clock_of_outcome",), _clocks),
    (("grows_until_outcome",), _growing),
    (("too_good",), _too_good),
    (("default_tracks_label",), _defaults),
    (("revised_copy",), _copies),
)
