"""A light twin as a sum over its columns: what a linear model is, read off its ONNX graph by asking it.

A linear model's margin is an intercept and one term per column, and a term is a line for a number and a table for a
category. Both are read off by scoring rows in which one column is known and all others are missing. The sum is then
compared with the graph on the version's reference sample; where it is off by more than TOLERANCE, or the graph is no
sum at all, there is no such twin, and ONNX Runtime goes on scoring. It is worth it because a request computes this
before anything else: a few microseconds instead of tens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltyard.target import Target
from tiltyard.train.encoding import Encoding

TOLERANCE = 1e-6
"""Largest difference from the graph, as a share of the range of scores."""

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]
Term = tuple[float, float, Sequence[float] | None]
"""(value at zero, slope, None) of a number; (0, 0, value per code) of a category. What is missing adds nothing."""


@dataclass(frozen=True, slots=True)
class Additive:
    """A sum over columns, and what turns it into a score."""

    intercept: float
    """Margin of a row of which nothing is known."""
    terms: Sequence[Term]
    """What each column adds, in the encoding's order."""
    target: Target
    """The kind of label: it makes a score of a margin."""

    def score(self, rows: Matrix) -> list[float]:
        """The score of each encoded row. `rows`: (rows, features) float32."""
        score = self.target.score
        return [score(self._margin(row)) for row in rows.tolist()]

    def _margin(self, row: Sequence[float]) -> float:
        margin = self.intercept
        for value, (zero, slope, table) in zip(row, self.terms, strict=True):
            if value == value:  # only NaN, which stands for missing, is not equal to itself
                margin += zero + slope * value if table is None else table[int(value)]
        return margin


def read(score: Callable[[Matrix], Floats], encoding: Encoding, sample: Matrix, target: Target) -> Additive | None:
    """The sum that `score` is; None where it is none, or several. `sample`: encoded rows, (rows, features), to compare
    both on."""
    if target.shape:
        return None
    nothing = np.full(len(encoding.columns), np.nan, dtype=np.float32)
    points: list[Sequence[float]] = []
    for place, column in enumerate(encoding.columns):
        values = sample[:, place][np.isfinite(sample[:, place])]
        if column.kind == "categorical":
            points.append(range(column.codes))
        elif len(values):
            low, high = (float(value) for value in np.quantile(values, [0.1, 0.9]).astype(np.float32))
            points.append((low, high if high > low else float(np.float32(low + max(1.0, abs(low) / 2)))))
        else:
            points.append((0.0, 1.0))
    probes = [nothing]
    for place, column_points in enumerate(points):
        for point in column_points:
            probes.append(nothing.copy())
            probes[-1][place] = point
    rows = np.array(probes, dtype=np.float32)
    with np.errstate(all="ignore"):
        margins = target.margins(score(rows))
    if not np.isfinite(margins).all():
        return None
    intercept, rest = float(margins[0]), iter((margins[1:] - margins[0]).tolist())
    terms: list[Term] = []
    for column, column_points in zip(encoding.columns, points, strict=True):
        added = [next(rest) for _ in column_points]
        if column.kind == "categorical":
            terms.append((0.0, 0.0, added))
        else:
            slope = (added[1] - added[0]) / (column_points[1] - column_points[0])
            terms.append((added[0] - slope * column_points[0], slope, None))
    twin = Additive(intercept, tuple(terms), target)
    rows = np.vstack([sample, rows])
    difference = np.abs(np.array(twin.score(rows)) - score(rows)) / target.width
    return twin if bool((difference <= TOLERANCE).all()) else None
