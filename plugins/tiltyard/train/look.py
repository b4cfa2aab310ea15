"""Pictures of a training: labels against scores on held-out rows, and what moves the score."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard.target import Target, Values
from tiltyard.train.blocks import Matrix
from tiltyard.train.encoding import Encoding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 10
"""Groups of equal size in which labels are held against scores."""
STRONGEST = 15
"""Features in the picture of what moves the score."""
COLOURS = ("#1f5fa8", "#d9822b")
"""Of the heavy model and its light twin."""


def calibration(label: Values, scores: Mapping[str, NDArray[np.float64]], target: Target) -> bytes:
    """Mean label against mean score in ten bins of equal size, with a bar that says how the labels of a bin lie."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    pairs = {name: target.paired(of_model, label) for name, of_model in scores.items()}
    ends = target.axis or (
        min(score.min() for score, _ in pairs.values()),
        max(score.max() for score, _ in pairs.values()),
    )
    above.plot(ends, ends, color="0.7", linewidth=1)
    for (name, (score, outcome)), colour in zip(pairs.items(), COLOURS, strict=True):
        bins = np.array_split(np.argsort(score, kind="stable"), BINS)
        mean, observed = (np.array([values[part].mean() for part in bins]) for values in (score, outcome))
        low, high = np.array([target.spread(outcome[part]) for part in bins]).T
        spread = np.clip([observed - low, high - observed], 0, None)
        above.errorbar(mean, observed, yerr=spread, marker="o", markersize=4, capsize=2, color=colour, label=name)
        below.hist(score, bins=np.linspace(*target.axis, 41) if target.axis else 40, histtype="step", color=colour)
    above.set(ylabel=target.plot.label, title=f"{target.plot.title} on {len(label):,} held-out rows")
    above.legend(frameon=False)
    below.set(xlabel="score", ylabel="rows")
    if target.axis:
        low, high = target.axis
        above.set(ylim=(low - 0.02 * (high - low), high + 0.02 * (high - low)))
        below.set(xlim=target.axis)
    return _png(figure)


def contributions(values: NDArray[np.float64], matrix: Matrix, encoding: Encoding, unit: str) -> bytes:
    """SHAP values of the fifteen features that move the score most, one dot per held-out row."""
    from matplotlib.figure import Figure

    strongest = np.argsort(-np.abs(values).mean(axis=0), kind="stable")[:STRONGEST][::-1]
    figure = Figure(figsize=(8, 0.36 * len(strongest) + 1.4), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="0.8", linewidth=1)
    for height, place in enumerate(strongest):
        ranks = pd.Series(matrix[:, place]).rank(pct=True).to_numpy()
        shade = np.where(np.isnan(ranks), 0.5, ranks)
        offset = _swarm(values[:, place])
        axes.scatter(values[:, place], height + offset, c=shade, cmap="coolwarm", s=6, vmin=0, vmax=1, linewidths=0)
    axes.set_yticks(range(len(strongest)), [encoding.features[place] for place in strongest])
    axes.set(xlabel=f"SHAP value ({unit})", title=f"What moves the score, on {len(matrix):,} held-out rows")
    bar = figure.colorbar(axes.collections[-1], ax=axes, ticks=[0, 1], fraction=0.03)
    bar.set_ticklabels(["low", "high"])
    bar.set_label("feature value (categories: frequent to rare)")
    return _png(figure)


def _swarm(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vertical offsets in (-0.4, 0.4) that spread dots apart where they are dense."""
    _, bins = np.unique(np.round(values / (np.ptp(values) / 80 or 1)), return_inverse=True)
    order = np.argsort(bins, kind="stable")
    starts = np.flatnonzero(np.diff(bins[order], prepend=-1))
    rank = np.empty(len(values))
    rank[order] = np.arange(len(values)) - np.repeat(starts, np.diff([*starts, len(values)]))
    offset = np.ceil(rank / 2) * np.where(rank % 2, 1, -1)
    return np.asarray(0.4 * offset / max(1.0, np.abs(offset).max()), dtype=np.float64)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
