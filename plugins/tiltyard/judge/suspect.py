"""Are the newest labels what they seem? Held against what an older version had said of their rows. Pure.

A version that scored a row on its night has not seen the row's label, nor have those who write labels seen its score.
How often a label comes where the version said so much is known from the windows of matured cohorts before: rows are
put in bins by the score, and labels of a class are counted in each. Flips *into* a class show where it was least
likely, so that every bin weighs by the likelihood ratio of labels of which FLIPS were turned into it, against none: of
all tests of that the strongest (Neyman and Pearson 1933). It is taken both ways, since labels that were turned to
agree with what everybody expects are as wrong. The labels of one delivery, which may all be of one class, are asked
how many of them the version was *confident* to be another: the off-diagonal counts of the confident joint, with a
threshold per class that is the mean of what is said of rows with that label (Northcutt, Jiang and Chuang 2021,
Confident Learning, J. Artif. Intell. Res. 70). Of a number the residuals are counted that lie beyond the quantiles of
the windows before.

The chance of what was counted is that of binomials (by the saddle point: Lugannani and Rice 1980, Adv. Appl. Probab.
12), as much more spread as the windows before were, which is moderated as in Smyth 2004 (Stat. Appl. Genet. Mol. Biol.
3:3: few windows say little of their own spread), and by what they leave unknown. Half of the night's level is for all
rows, half is shared by slices and deliveries.

It cannot tell a lie from a world that has turned over night: a person can, and decides. What it cannot see at all:
labels that were wrong in all those windows alike, flips of fewer rows than chance moves, flips into each class and out
of it that leave what is likely as it was, and a first training, of which no version has said anything.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr

from tiltyard.records import LabelCount

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

BLOCKS = 8
"""Windows before the newest that are looked at."""
MIN_BLOCKS = 4
"""Fewer have no spread to speak of: the labels are untested."""
MIN_ROWS = 20
"""Below this many rows nothing is counted."""
MIN_EXCESS = 0.01
"""Share of the rows by which a count must be off: with enough rows chance explains nothing any more, and a world that
moves by less moves all the time."""
PRIOR_WINDOWS = 10.0
"""So many windows' worth of evidence it takes to believe that windows differ by more than chance lets them."""
BINS = 10
"""Bins of the scores."""
FLIPS = 0.05
"""Share of flipped labels that the weights are best at; at others they are nearly so."""
ALL = "all rows"
"""The cell of the whole window."""
DELIVERY = "labels known on "
"""How the cell of a delivery begins; its night follows."""
TAIL = 0.025
"""Of a number: share of the residuals of before beyond which a label contradicts, on either side."""
SHARE_OF_BUDGET = 0.1
"""A model's share of false alarms: so much of those of drift, since a person has to answer each."""


@dataclass(frozen=True, eq=False)
class LabelRows:
    """Matured rows that one version has scored on their night, in any order."""

    block: Ints
    """0 for the newest window, 1 for the one before it, and so on."""
    score: Floats
    """(rows, *shape) what the version said."""
    label: Floats
    """0 or 1, a number, or the place of a class."""
    known: Ints
    """The night on which the label became known, as a date ordinal."""
    newest: int
    """Labels known from this night on are new, whichever cohort they are of: a correction may come late."""
    slices: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)
    """Slice column → value of every row."""

    @property
    def is_new(self) -> Flags:
        """Whether a row's cohort or its label is of the newest window."""
        new: Flags = (self.block == 0) | (self.known >= self.newest)
        return new


class Question(NamedTuple):
    """Rows of which something is said, and those that are counted."""

    says: str
    """In words, behind `N of M rows`."""
    among: Flags
    counted: Flags
    bin: NDArray[np.int64]
    """What was said of each row, as a bin of the scores; all of one bin where it does not matter."""


def untested(rows: LabelRows | None) -> str | None:
    """Why these rows say nothing of the newest labels, as half a sentence; None where they do."""
    if rows is None or not len(rows.label):
        return "no version has scored rows whose labels are known"
    if (count := int((rows.block == 0).sum())) < MIN_ROWS:
        return f"{count} rows with a label in the newest window, {MIN_ROWS} are the least"
    sizes = np.bincount(rows.block[~rows.is_new], minlength=BLOCKS + 1)[1:]
    if (blocks := int((sizes >= MIN_ROWS).sum())) < MIN_BLOCKS:
        return f"{blocks} windows before it to compare with, {MIN_BLOCKS} are the least"
    return None


def counts(rows: LabelRows, classes: tuple[str, ...] | None, level: float) -> tuple[LabelCount, ...]:
    """Everything that was counted, the least likely first; of rows that are not `untested`.

    `classes`: the names of the labels, of a number None. `level`: the probability that any of them is suspect although
    nothing was done to the labels.
    """
    found = [count for cell in _cells(rows, classes) if (count := _count(rows, *cell)) is not None]
    overall = sum(count.cell == ALL for count in found)
    shares = {True: level / 2 / max(overall, 1), False: level / 2 / max(len(found) - overall, 1)}
    judged = (
        replace(
            count,
            is_suspect=count.chance < shares[count.cell == ALL]
            and abs(count.found - count.expected) >= MIN_EXCESS * count.rows,
        )
        for count in found
    )
    return tuple(sorted(judged, key=lambda count: (count.chance, count.cell, count.says)))


def chance(found: Ints, rows: Ints, before: Ints, rows_before: Ints) -> float:
    """Probability of counts as far off, either way: `found` of `rows` per bin, by (windows, bins) of before."""
    share = (before.sum(axis=0) + 0.5) / (rows_before.sum(axis=0) + 1.0)
    flipped = share + FLIPS * (1 - share)
    weight = np.log(flipped / share) - np.log((1 - flipped) / (1 - share))
    variance = share * (1 - share) * weight**2
    spread = ((before - rows_before * share) @ weight) ** 2 / (rows_before @ variance)
    windows = len(rows_before)
    dispersion = max((float(spread.sum()) + PRIOR_WINDOWS) / (windows - 1 + PRIOR_WINDOWS), 1.0)
    unknown = float((rows**2 / np.maximum(rows_before.sum(axis=0), 1)) @ variance) / float(rows @ variance)
    return _tails(float(found @ weight), rows, share, weight, dispersion * (1 + unknown))


def _tails(total: float, rows: Ints, share: Floats, weight: Floats, dispersion: float) -> float:
    """Twice the smaller tail of a weighted sum of binomials at `total`, spread by `dispersion`."""
    mean, deviation = float(rows * share @ weight), math.sqrt(float(rows * share * (1 - share) @ weight**2))
    largest, least = float(rows @ np.maximum(weight, 0)), float(rows @ np.minimum(weight, 0))
    off = (total - mean) / deviation
    if abs(off) < 0.1 * math.sqrt(dispersion):  # the saddle point has a hole in the middle, where nothing is at stake
        return 1.0
    total = min(max(total, least + 1e-6 * deviation), largest - 1e-6 * deviation)

    def slope(at: float) -> float:
        tilted = share * np.exp(at * weight) / (1 - share + share * np.exp(at * weight))
        return float(rows * tilted @ weight) - total

    reach = 1.0 / float(np.abs(weight).max())
    while slope(-reach) > 0 or slope(reach) < 0:
        reach *= 2
    point = float(brentq(slope, -reach, reach, xtol=1e-12))
    log_mean = float(rows @ np.log(1 - share + share * np.exp(point * weight)))
    tilted = share * np.exp(point * weight) / (1 - share + share * np.exp(point * weight))
    root = math.sqrt(max(2 * (point * total - log_mean) / dispersion, 1e-12))
    width = abs(point) * math.sqrt(float(rows * tilted * (1 - tilted) @ weight**2) / dispersion)
    # Barndorff-Nielsen's form of the same tail, which stays one where that of Lugannani and Rice does not
    return min(1.0, 2 * math.exp(float(log_ndtr(-(root + math.log(max(width, 1e-12) / root) / root)))))


def _count(rows: LabelRows, cell: str, now: Flags, then: Flags, question: Question) -> LabelCount | None:
    """None where there is too little of it, now or before."""
    now, then = now & question.among, then & question.among & ~rows.is_new
    bins = int(question.bin.max()) + 1

    def table(inside: Flags) -> Ints:
        """(BLOCKS, bins) rows of the windows before."""
        places = (rows.block[inside] - 1) * bins + question.bin[inside]
        return np.bincount(places, minlength=BLOCKS * bins)[: BLOCKS * bins].reshape(BLOCKS, bins)

    sizes, hits = table(then), table(then & question.counted)
    there = sizes.sum(axis=1) >= MIN_ROWS / 2
    if now.sum() < MIN_ROWS or there.sum() < MIN_BLOCKS:
        return None
    count = np.bincount(question.bin[now], minlength=bins)
    found = np.bincount(question.bin[now & question.counted], minlength=bins)
    share = (hits[there].sum(axis=0) + 0.5) / (sizes[there].sum(axis=0) + 1.0)
    return LabelCount(
        cell=cell,
        says=question.says,
        rows=int(count.sum()),
        found=int(found.sum()),
        expected=round(float(count @ share), 1),
        chance=chance(found, count, hits[there], sizes[there]),
    )


def _cells(rows: LabelRows, classes: tuple[str, ...] | None) -> Iterator[tuple[str, Flags, Flags, Question]]:
    """What is counted: all rows and every slice, by what the version says, and every delivery, by what the label says:
    where only one label is ever delivered, the other is known by waiting. With the rows of now, and those of before."""
    newest, everything = rows.block == 0, np.ones(len(rows.label), dtype=bool)
    by_opinion, by_label = _questions(rows, classes)
    for question in by_opinion:
        yield ALL, newest, everything, question
        for column, values in rows.slices.items():
            for value in sorted({str(value) for value in values[newest]}):
                inside = values.astype(str) == value
                yield f"{column}={value}", newest & inside, inside, question
    for night in np.unique(rows.known[rows.is_new]):
        for question in by_label:
            yield f"{DELIVERY}{date.fromordinal(int(night))}", rows.known == night, everything, question


def _questions(rows: LabelRows, classes: tuple[str, ...] | None) -> tuple[list[Question], list[Question]]:
    """By what the version says, and by what the label says."""
    before = ~rows.is_new
    everything, one_bin = np.ones(len(rows.label), dtype=bool), np.zeros(len(rows.label), dtype=np.int64)
    if not classes:
        residual = rows.label - rows.score
        low, high = np.quantile(residual[before], (TAIL, 1 - TAIL))
        both = [
            Question("have a label far below what was said", everything, residual < low, one_bin),
            Question("have a label far above what was said", everything, residual > high, one_bin),
        ]
        return both, both
    table = _table(rows.score)
    by_opinion = [
        Question(f"are labelled '{name}'", everything, rows.label == place, _bins(table[:, place], before))
        for place, name in enumerate(classes)
    ]
    said = confident(table, rows.label, before)
    by_label = [
        Question(f"labelled '{name}' were surely none", rows.label == place, (said >= 0) & (said != place), one_bin)
        for place, name in enumerate(classes)
    ]
    return by_opinion, by_label


def _table(score: Floats) -> Floats:
    """(rows, classes) the probability of each class; of a yes or no, of no and yes."""
    return np.stack([1 - score, score], axis=1) if score.ndim == 1 else score


def _bins(score: Floats, among: Flags) -> Ints:
    """The bin of every row, of about as many rows each among those that say where the bins end."""
    edges = np.unique(np.quantile(score[among], np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.searchsorted(edges, score, side="right").astype(np.int64)


def confident(table: Floats, label: Floats, among: Flags) -> Ints:
    """The class that each row surely has by the scores, or -1. `among`: the rows that say from which score on."""
    thresholds = np.full(table.shape[1], np.inf)
    for place in range(table.shape[1]):
        own = among & (label == place)
        if own.sum() >= MIN_ROWS:
            thresholds[place] = table[own, place].mean()
    sure = table >= thresholds
    best = np.where(sure, table, -np.inf).argmax(axis=1)
    return np.where(sure.any(axis=1), best, -1).astype(np.int64)
