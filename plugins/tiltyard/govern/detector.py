"""Evidence that the nights have changed, valid however often one looks, with a budget of false alarms. Pure.

**Nights are the observations.** Rows of one night share a release, a holiday, a queue; ten thousand of them are not
ten thousand observations. The null is that a column's nights of one weekday, those of training and those since, are
exchangeable: any order of them was as likely. Overdispersion within a night is then harmless, and so is a weekly
pattern, because a Monday is only ever ranked among Mondays.

**A night's rank.** Every night is ranked among the nights of its bag (its weekday's, up to itself) by three scores,
each symmetric in the bag: how far its histogram lies from the bag's (chi-square, scaled for the night's size and for
the overdispersion of the bag), and its mean place upwards and downwards (Wilcoxon's mean rank in the training rows).
The rank over the bag's size is a conformal p-value, independent of the earlier ones and uniform; ties count
against the night, which only makes it larger (Vovk, Petej, Nouretdinov, Ahlberg, Carlsson, Gammerman 2021, "Retrain
or not retrain: conformal test martingales for change-point detection", COPA, PMLR 152:191-210; Vovk, Gammerman,
Shafer 2022, Algorithmic Learning in a Random World, ch. 8). A new level and a slow trend both show: the night of
a trend is the furthest of its bag, again and again.

**From ranks to evidence.** A bet k * p^(k - 1), averaged over the p-values of each possible rank so that its mean is
exactly one, gives an e-value e. The Shiryaev-Roberts e-detector R_t = (1 + R_t-1) e_t adds up every possible night of
change (Shin, Ramdas, Rinaldo 2024, "E-detectors: a nonparametric framework for sequential change detection", NEJSDS
2(2), section 2): R_t - t is a supermartingale, so that the mean time to R >= threshold is at least `threshold` nights.
When the detector starts again from nought at each alarm, the sum of R at the alarms is part of a supermartingale,
too, hence E[false alarms in T nights] <= T / threshold, for every T.

**A model's detector** is the average of its columns' detectors, by weight, and a column's is the average over scores
and bets. For any dependence between columns E[R_t] <= t holds for the average, by linearity. For the mean time to an
alarm the average has to be a detector in the filtration of all columns together; a conformal p-value is independent
of the past of *its own* column, and what the ranks of other columns add to that past is of second order (Choe and
Ramdas 2024, "Combining evidence across filtrations using adjusters", show that it is not nothing in general).
benchmarks/alarms.py counts the alarms with correlated columns.

**The portfolio.** With threshold = Budget.nights_between(models), M models have at most M * T / threshold false
alarms in T nights in expectation: the budget, whatever M and whatever the dependence between models.

What is not exact: cells are drawn from the training rows, so that training nights took part in them and later ones did
not (of the order of one row among thousands), and real nights have memory. The first is below what simulation can
see. The second is why an alarm also asks for an effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard import arguments
from tiltyard.errors import BadInput
from tiltyard.train.profile import Cells, Counts, Floats, ProfiledColumn, count_nights, cut

__all__ = ["DriftEvidence", "detect", "monitor"]

GROUPS = 8
"""Cells are merged into so many groups before nights are compared: a night has few rows."""
WIDTH = GROUPS + 3
"""Groups of any column: its own, beyond (or rare, new), and what is missing."""
BETS = (0.05, 0.25, 0.6)
"""Exponents: the lowest stakes nearly all on the first rank, the highest little on any."""
WEEKS = 4
"""Nights of every weekday that training must have for nights to be ranked by weekday; with fewer, all are one bag."""
MOST = 1e12
"""Evidence is cut off here, far above any threshold: less evidence is still valid."""
SCORES = ("distance", "up", "down")


@dataclass(frozen=True, eq=False)
class DriftEvidence:
    """The e-detectors of some columns, by night."""

    nights: Counts
    """(nights,): date ordinals, increasing, from the night on which the detectors started."""
    value: Floats
    """(nights, columns): the detectors after each night."""

    def at(self, night: int) -> Floats:
        """(columns,): after the last night up to `night`; nought before the first."""
        place = int(np.searchsorted(self.nights, night, side="right"))
        return self.value[place - 1] if place else np.zeros(self.value.shape[1])


def groups(column: ProfiledColumn) -> Floats:
    """(cells, WIDTH + 1): to which group a cell belongs, and in the last column its mean rank in training, in [0, 1].

    What is missing has its group and the middle rank.
    """
    cells = column.cells
    rows = column.counts.sum(axis=0).astype(np.float64)
    matrix = np.zeros((cells.count, WIDTH + 1))
    present = rows[:-1]
    total = max(float(present.sum()), 1.0)
    rank = (np.cumsum(present) - present / 2) / total
    matrix[np.arange(cells.count), _group(cells, present, rank)] = 1.0
    matrix[:-1, WIDTH] = rank
    matrix[-1, WIDTH] = 0.5
    return matrix


def _group(cells: Cells, present: Floats, rank: Floats) -> NDArray[np.intp]:
    group = np.empty(cells.count, dtype=np.intp)
    if cells.is_numeric:
        group[:-1] = np.minimum((rank * GROUPS).astype(np.intp), GROUPS - 1)
        group[:-1][cells.places < cells.low] = GROUPS
        group[:-1][cells.places > cells.high] = GROUPS + 1
    else:
        group[:-1] = np.minimum(np.arange(cells.count - 1), GROUPS - 1)
        group[-3:-1] = GROUPS, GROUPS + 1
    group[-1] = WIDTH - 1
    return group


def bags(training: Counts, nights: Counts) -> Counts:
    """The bag of every night: its weekday, where training has enough of each."""
    weekdays = np.bincount(training % 7, minlength=7)
    fewest = weekdays[np.unique(nights % 7)].min() if len(nights) else 0
    return nights % 7 if fewest >= WEEKS else np.zeros_like(nights)


def ranks(histograms: Floats, places: Floats, first: int) -> Counts:
    """Ranks (nights, columns, scores) of the nights from `first` on in a bag, each among those up to itself.

    `histograms` (all nights of the bag, columns, WIDTH) are counts, `places` (nights, columns) mean ranks. Rank 1 is
    the furthest; ties count against the night. The size of the bag of the n-th night (from 0) is n + 1.
    """
    size = histograms.sum(axis=2)
    share = histograms / np.maximum(size, 1.0)[:, :, None]
    bag_rows = np.cumsum(histograms, axis=0)[first:]
    total = bag_rows.sum(axis=2)
    mean = bag_rows / np.maximum(total, 1.0)[:, :, None]
    weight = np.where(mean > 0, 1.0 / np.where(mean > 0, mean, 1.0), 0.0)
    # (columns, later nights, all nights): sum over groups of (share - mean)² / mean
    apart = np.matmul(weight.transpose(1, 0, 2), np.square(share).transpose(1, 2, 0)) - 1.0
    within = np.tri(len(histograms), dtype=bool)[first:]
    # against the rest of the bag: the night itself is part of the mean
    rest = 1.0 - size.T[:, None, :] / np.maximum(total.T[:, :, None], 1.0)
    apart /= np.square(np.maximum(rest, 1e-9))
    inverse = 1.0 / np.maximum(size.T[:, None, :], 1.0)
    count = within.sum(axis=1)
    freedom = np.maximum((mean > 0).sum(axis=2).T - 1, 1)
    excess = (apart * within).sum(axis=2) / count / freedom - (inverse * within).sum(axis=2) / count
    apart /= inverse + np.maximum(excess, 0.0)[:, :, None]
    own = apart[:, np.arange(len(count)), np.arange(first, len(histograms))]
    place = places.T[:, None, :]
    own_place = places.T[:, first:, None]
    rank = np.stack(
        [
            ((apart >= own[:, :, None] * (1 - 1e-9) - 1e-12) & within).sum(axis=2),
            ((place >= own_place - 1e-12) & within).sum(axis=2),
            ((place <= own_place + 1e-12) & within).sum(axis=2),
        ],
        axis=2,
    )
    return rank.transpose(1, 0, 2).astype(np.int64)


def bets(rank: Counts, size: Counts) -> Floats:
    """e-values (…, bets): the bet averaged over the p-values of the rank. Over the ranks 1 … size their mean is 1."""
    exponent = np.asarray(BETS)
    n = size[..., None].astype(np.float64)
    r = rank[..., None].astype(np.float64)
    value: Floats = n * ((r / n) ** exponent - ((r - 1) / n) ** exponent)
    return value


def detect(
    columns: Sequence[ProfiledColumn], training: Counts, nights: Counts, counts: Sequence[Counts], start: int
) -> DriftEvidence:
    """The columns' detectors over `nights` (date ordinals, increasing, after those of training) from `start` on.

    `counts` has per column (nights, cells). Nights without rows, in training or since, must have been left out.
    """
    every = np.concatenate([training, nights])
    stacked = (
        np.stack(
            [
                np.concatenate([column.counts, now]).astype(np.float64) @ groups(column)
                for column, now in zip(columns, counts, strict=True)
            ],
            axis=1,
        )
        if columns
        else np.zeros((len(every), 0, WIDTH + 1))
    )
    histograms = stacked[:, :, :WIDTH]
    places = stacked[:, :, WIDTH] / np.maximum(histograms.sum(axis=2), 1.0)
    begin = len(training) + int(np.searchsorted(nights, start, side="left"))
    bag = bags(training, every)
    value = np.ones((len(every), len(columns), len(SCORES), len(BETS)))
    for name in np.unique(bag[begin:]):
        members = np.flatnonzero(bag == name)
        first = int(np.searchsorted(members, begin))
        rank = ranks(histograms[members], places[members], first)
        size = np.broadcast_to(np.arange(first + 1, len(members) + 1)[:, None, None], rank.shape)
        value[members[first:]] = bets(rank, size)
    return DriftEvidence(every[begin:], _detector(value[begin:]))


NUMBERS = "numbers"


def monitor(reference: "pd.Series[Any]", stream: "pd.Series[Any]") -> "pd.Series[float]":
    """Evidence, night by night, that a column has changed, for a stream from anywhere.

    Both are values under the date of their night: those that are known to be sound, and those that came later. A night
    has as many rows as it has values; numbers are compared as numbers, everything else as categories. What comes back
    has a value for each night of `stream`. An alarm at 365 comes once in 365 nights at most, in expectation, when
    nothing changes; after an alarm, begin anew with a later stream.

    Raises BadInput for what is no Series under dates, for an empty reference, for a stream of another kind of values,
    and when a night of `stream` is not after those of `reference`.
    """
    for values, argument in ((reference, "reference"), (stream, "stream")):
        if not isinstance(values, pd.Series):
            raise BadInput(
                f"{argument} is a pandas Series with the date of its night over every value, not "
                f"{arguments.kind(values)}; make it pandas.Series(values, index=nights)."
            )
        if values.dtype == object and any(isinstance(value, list | dict | set | np.ndarray) for value in values):
            raise BadInput(f"{argument} holds lists, or the like; give a number or a text for each row.")
    if reference.empty:
        raise BadInput("reference has no values; give it those of the nights that are known to be sound.")
    reference, stream = _plain(reference, "reference"), _plain(stream, "stream")
    holds, comes = _kind(reference), _kind(stream)
    if stream.notna().any() and holds != comes:
        raise BadInput(f"reference holds {holds} and stream {comes}; give both the same kind of values.")
    numeric = holds == NUMBERS
    # their weekdays tell nights apart as those of date ordinals do
    training, index = np.unique(arguments.days(reference.index, "The index of reference"), return_inverse=True)
    nights, place = np.unique(arguments.days(stream.index, "The index of stream"), return_inverse=True)
    cells = cut(reference, numeric=numeric)
    if len(nights) and len(training) and nights[0] <= training[-1]:
        raise BadInput("The stream begins before the reference ends; give it the nights after those of the reference.")
    column = ProfiledColumn("value", "feature", None, 1.0, cells, count_nights(cells, reference, index, len(training)))
    counts = count_nights(cells, stream, place, len(nights))
    evidence = detect([column], training, nights, [counts], int(nights[0]) if len(nights) else 0)
    dates = pd.DatetimeIndex(nights.astype("datetime64[D]"), name="night")
    return pd.Series(evidence.value[:, 0], index=dates, name="evidence")


def _plain(values: "pd.Series[Any]", argument: str) -> "pd.Series[Any]":
    """The values, as numbers where every one is a number, whatever its type. Raises BadInput for times."""
    if values.dtype.kind in "mM" or isinstance(values.dtype, pd.DatetimeTZDtype | pd.PeriodDtype):
        raise BadInput(f"{argument} holds {values.dtype}; give numbers, like the seconds between two instants.")
    own = values.dropna() if values.dtype == object else ()
    if len(own) and all(isinstance(value, Real | Decimal) and not isinstance(value, bool) for value in own):
        return pd.Series([float("nan") if pd.isna(value) else float(value) for value in values], index=values.index)
    return values


def _kind(values: "pd.Series[Any]") -> str:
    """What a column holds, in words."""
    if pd.api.types.is_bool_dtype(values) or (
        values.dtype == object and values.notna().any() and all(isinstance(value, bool) for value in values.dropna())
    ):
        return "yes or no"
    return NUMBERS if pd.api.types.is_numeric_dtype(values) else "categories"


def _detector(e: Floats) -> Floats:
    """Shiryaev-Roberts over nights, then the average over scores and bets: (nights, columns)."""
    evidence = np.empty(e.shape[:2])
    running = np.zeros(e.shape[1:])
    for place in range(len(e)):
        running = np.minimum((1.0 + running) * e[place], MOST)
        evidence[place] = running.mean(axis=(1, 2))
    return evidence
