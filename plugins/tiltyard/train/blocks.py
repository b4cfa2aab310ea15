"""The rows of a training frame as trainers take them, and their blocks by time.

Whole cohorts only, never at random, into five blocks of about as many rows. Parameters are tuned by rolling origin (fit
on blocks 1 and 2 and measure on 3, fit on 1 to 3 and measure on 4), and the newest block is held out for the metrics.
The blocks follow each other directly, whereas a version in production predicts from `label.horizon` later on: held-out
metrics say what the model can do, shadow says what it does.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard.target import YES_OR_NO, Target, Values

MIN_ROWS = 200
"""Fewest rows that a frame is split with."""
MIN_OF_CLASS = 5
"""Fewest rows of each class that every block must have."""
BLOCKS = 5

Matrix = NDArray[np.float32]
"""(rows, features), encoded; NaN where a value is missing."""
Places = NDArray[np.intp]
"""Positions of rows."""


class Untrainable(Exception):
    """The frame cannot carry a model; the message says why. Not a failure: there is nothing to do about it."""


@dataclass(frozen=True)
class Rows:
    """Encoded rows with their truth."""

    matrix: Matrix
    label: Values
    """(rows,) labels, as Target.of_training gives them."""
    days: NDArray[np.float64]
    """(rows,) prediction times, in days since 1970."""

    def take(self, places: Places) -> "Rows":
        """The rows at these positions, in this order."""
        return Rows(self.matrix[places], self.label[places], self.days[places])

    def weights(self, half_life_days: float) -> NDArray[np.float64]:
        """(rows,) half as much for every half-life that a row is older than the newest; 1 in the mean."""
        if not half_life_days:
            return np.ones(len(self.days))
        weights = 0.5 ** ((self.days.max() - self.days) / half_life_days)
        return np.asarray(weights / weights.mean(), dtype=np.float64)


@dataclass(frozen=True)
class Split:
    """A frame's rows, cut by time."""

    blocks: tuple[Places, ...]
    """Positions of the rows of each block, oldest first."""

    @property
    def folds(self) -> tuple[tuple[Places, Places], ...]:
        """Rolling origin: positions of the rows to fit on, and of the newer ones to measure on."""
        return tuple((np.concatenate(self.blocks[:end]), self.blocks[end]) for end in (BLOCKS - 3, BLOCKS - 2))

    @property
    def older(self) -> Places:
        """Positions of all rows but the held-out ones."""
        return np.concatenate(self.blocks[:-1])

    @property
    def held_out(self) -> Places:
        """Positions of the newest block's rows."""
        return self.blocks[-1]


def split(times: pd.Series, label: Values, every: timedelta, as_of: datetime, target: Target = YES_OR_NO) -> Split:
    """Five blocks of about as many rows by time, cut between cohorts (the predictions of one night).

    Where a block would hold too few rows of a class, as a closed day among large ones does, small cohorts are taken
    together with those before them. Raises Untrainable when there are too few rows, cohorts, or rows of a class in a
    block all the same.
    """
    if len(times) < MIN_ROWS:
        raise Untrainable(f"{len(times)} matured rows are too few to train on, it takes {MIN_ROWS}")
    night = -np.ceil((pd.Timestamp(as_of) - times).to_numpy() / np.timedelta64(every))
    try:
        block = _blocks(night, label, target)
    except Untrainable as reason:
        try:
            block = _blocks(_merged(night, label, target), label, target)
        except Untrainable:
            raise reason from None
    order = np.argsort(times.to_numpy(), kind="stable")
    return Split(tuple(order[block[order] == number] for number in range(BLOCKS)))


def _blocks(night: NDArray[np.float64], label: Values, target: Target) -> Places:
    """(rows,) the block of each row, from (rows,) the night or group of nights that it is of."""
    cohorts, counts = np.unique(night, return_counts=True)
    if len(cohorts) < BLOCKS:
        raise Untrainable(f"{len(cohorts)} cohorts are too few for a split by time, it takes {BLOCKS}")
    before = np.cumsum(counts) / len(night)
    cuts: list[int] = []  # each the place of the first cohort of a block but the first
    for number in range(1, BLOCKS):
        nearest = int(np.argmin(np.abs(before - number / BLOCKS))) + 1
        cuts.append(int(np.clip(nearest, (cuts or [0])[-1] + 1, len(cohorts) - BLOCKS + number)))
    block = np.digitize(night, cohorts[cuts])
    for number in range(BLOCKS):
        fewest = target.fewest(label[block == number])
        if fewest < MIN_OF_CLASS:
            raise Untrainable(
                f"block {number + 1} of {BLOCKS} by time holds {fewest} rows {target.too_few}, it takes {MIN_OF_CLASS}"
            )
    return block


def _merged(night: NDArray[np.float64], label: Values, target: Target) -> NDArray[np.float64]:
    """(rows,) the newest night of the group that each row is of: nights that follow each other, the fewest that hold
    enough of every class together; what is left over joins the newest group."""
    groups: list[list[float]] = []
    waiting: list[float] = []
    for cohort in np.unique(night):
        waiting.append(float(cohort))
        if target.fewest(label[np.isin(night, waiting)]) >= MIN_OF_CLASS:
            groups.append(waiting)
            waiting = []
    if waiting and groups:
        groups[-1] += waiting
    newest = {cohort: group[-1] for group in groups or [waiting] for cohort in group}
    return np.array([newest[float(cohort)] for cohort in night])
