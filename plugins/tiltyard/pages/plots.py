"""Pictures for people, drawn with matplotlib off screen. The frames they take are documented per function."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard.pages import picture
from tiltyard.pages.picture import DASHES, GREY, INK, PALE, Panel
from tiltyard.target import MEASURES

ESTIMATED = "promoted line, estimated"
LINES = {
    "promoted line": picture.BLUE,
    ESTIMATED: picture.BLUE,
    "never retrained": picture.VERMILION,
    "safe default": GREY,
}
"""Line → colour, in drawing order."""
MARKERS = {"promoted line": "o", ESTIMATED: ".", "never retrained": "s", "safe default": "^"}


def realized(
    rows: pd.DataFrame, path: Path, *, promotions: Sequence[date] = (), title: str = "", measure: str = "brier"
) -> Path:
    """The realized `measure` (target.MEASURES) of each line by cohort week, with intervals.

    A mark stands at each promotion.
    `rows`: night (the week, by any of its days), line (one of LINES), loss, low, high, n (labelled predictions);
    low and high may be missing. A week without rows is a gap in the line. The line ESTIMATED is dashed and hollow: it
    is what the scores of weeks whose truth has not come promise, and its rows are not counted as labelled. `path`
    ends in .png or .svg; it appears whole. Returns `path`. Raises ValueError for a line that is not one of LINES.
    """
    unknown = sorted(set(rows["line"]) - set(LINES))
    if unknown:
        raise ValueError(f"{unknown} are not lines; there are {list(LINES)}")
    from matplotlib.ticker import MaxNLocator

    figure = picture.blank(9, 5.4, dpi=150)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
    weeks = rows.assign(night=pd.to_datetime(rows["night"])).sort_values("night")
    for line, colour in LINES.items():
        _line(axes, weeks[weeks["line"] == line].set_index("night"), line, colour)
    _promotions(axes, [pd.Timestamp(night) for night in promotions])

    counted = weeks[weeks["line"] != ESTIMATED].groupby("night")["n"].max()
    counts.bar(counted.index, counted.to_numpy(), width=4.5, color=PALE, linewidth=0)
    counts.set_ylabel("labelled\nper week", color=INK)
    counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    counts.set_xlabel("cohort week (when the prediction was made)", color=INK)
    axes.set_ylabel(f"realized {MEASURES[measure].figure_title} (lower is better)", color=INK)
    heading = "the promoted line beside never retraining, on the same rows"
    axes.set_title(f"{title}: {heading}" if title else heading.capitalize(), loc="left", color=INK)
    axes.set_ylim(bottom=0)
    if weeks.empty:
        axes.text(0.5, 0.5, "no cohort has matured yet", transform=axes.transAxes, ha="center", color=INK)
        axes.set_xticks([])
    else:
        day = pd.Timedelta(days=1)
        counts.set_xlim(weeks["night"].min() - 6 * day, weeks["night"].max() + 6 * day)
        picture.dated(counts, weeks, fewest=4)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, frameon=False, labelcolor=INK)
    picture.quiet((axes, counts))

    return picture.save(figure, path)


def latency(rows: pd.DataFrame, path: Path, *, title: str = "") -> Path:
    """Observed latency by night, a panel per table: p50, p95, p99, the claimed p99 and the promise. Hours, logarithmic.

    `rows`: those of ops.feature_latency. A night without rows is a gap. `path` ends in .png or .svg; it appears
    whole. Returns `path`.
    """

    tables = sorted(rows["table_name"].unique())
    figure = picture.blank(9, 0.8 + 1.9 * len(tables), dpi=120)
    panels = figure.subplots(len(tables), 1, sharex=True, squeeze=False)[:, 0]
    nights = rows.assign(night=pd.to_datetime(rows["night"])).sort_values("night")
    every = pd.date_range(nights["night"].min(), nights["night"].max())
    for panel, table in zip(panels, tables, strict=True):
        own = nights[nights["table_name"] == table].set_index("night").reindex(every)
        for column, colour, style, label in LATENCIES:
            hours = (own[column].astype(float) / 3600).clip(lower=1 / 3600)
            panel.plot(own.index, hours, color=colour, linestyle=style, linewidth=1.6, marker=".", label=label)
        promised = own["promised_p99_s"].dropna()
        if len(promised):
            panel.axhline(promised.iloc[-1] / 3600, color=picture.PURPLE, linewidth=1.4, label="promised p99")
        panel.set_yscale("log")
        panel.set_title(table, loc="left", fontsize=10, color=INK)
        panel.set_ylabel("hours", color=INK)
    picture.quiet(panels)
    picture.dated(panels[-1], nights)
    figure.suptitle(f"{title}: hours from the event until the row had arrived", ha="left", x=0.01, color=INK)
    handles, labels = panels[0].get_legend_handles_labels()
    for panel in panels[1:]:  # the promise is not in every panel
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, labelcolor=INK)
    return picture.save(figure, path)


class ArrivalCurve(NamedTuple):
    """Shares by age in nights, from age 0 on; empty where no cohort is."""

    labels: Sequence[float]
    """Of all rows."""
    positives: Sequence[float]
    """Of those positives that come by the last age."""
    negatives: Sequence[float]
    """The same of the negatives."""


def arrival(
    cohorts: NDArray[np.float64], curve: ArrivalCurve, path: Path, *, matures: int, night: date, title: str = ""
) -> Path:
    """The share of a cohort's rows that have a label by its age: all cohorts as thin lines, the estimated curve over
    them, and beside it the curves of the positives and the negatives.

    `cohorts` (cohorts, ages) are shares, NaN where an age has not come; `matures` is the age at which a cohort has
    matured; `night` the last night that was seen. `path` as in `realized`. Returns `path`.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = picture.blank(9, 4.2, dpi=130)
    every, classes = figure.subplots(1, 2, sharex=True, sharey=True)
    every.plot(cohorts.T, color=PALE, linewidth=0.5, alpha=0.6)
    every.plot(curve.labels, color=picture.BLUE, linewidth=2.2, label="all rows (thin: one cohort each)")
    for shown, colour, label in (
        (curve.positives, picture.VERMILION, "positives"),
        (curve.negatives, picture.GREEN, "negatives"),
    ):
        if shown:
            classes.plot(shown, color=colour, linewidth=2.2, label=f"{label}, of those that come")
    for panel in (every, classes):
        panel.axvline(matures, color=GREY, linewidth=1.2, linestyle=DASHES, label="cohort matures")
        panel.set_xlabel("nights since the prediction", color=INK)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
        panel.set_ylim(0, 1.02)
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False, labelcolor=INK)
    picture.quiet((every, classes))
    every.set_ylabel("with a label", color=INK)
    heading = f"how the truth arrives, as of {night}"
    figure.suptitle(f"{title}: {heading}" if title else heading.capitalize(), ha="left", x=0.01, color=INK)
    return picture.save(figure, path)


LATENCIES = (
    ("observed_p50_s", picture.BLUE, "-", "p50"),
    ("observed_p95_s", picture.ORANGE, "-", "p95"),
    ("observed_p99_s", picture.VERMILION, "-", "p99"),
    ("claimed_p99_s", GREY, ":", "claimed p99"),
)


POLICIES = (picture.BLUE, picture.VERMILION, picture.GREEN, picture.PURPLE, picture.SKY, picture.ORANGE)
"""Colours of policies, in their order, of Okabe and Ito's palette."""
BASELINES = {"never retrained": "-", "weekly, always promoted": "--", "best there was": "-.", "safe default": ":"}
"""What policies are compared with, in greys, each with a dash of its own."""
EVENTS = {"promotion": "^", "rollback": "v", "retrain": "|"}


def policies(
    lines: Mapping[str, Sequence[tuple[date, float, int]]],
    events: Mapping[str, Mapping[str, Sequence[date]]],
    path: Path,
    *,
    title: str,
    metric: str,
) -> Path:
    """Realized loss by week of every policy beside the baselines, and below it what each policy did, night by night.

    `lines`: policy or baseline → (first night of the week, mean loss, rows); `events`: policy → promotion, rollback or
    retrain → nights. `path` ends in .png or .svg; it appears whole. Returns `path`.
    """

    colours = {name: POLICIES[place % len(POLICIES)] for place, name in enumerate(events)}
    figure = picture.blank(10, 5.2 + 0.34 * len(events), dpi=130)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[5, 0.6 + 0.42 * len(events)])
    for name, points in lines.items():
        if not points:
            continue
        style = (
            {"color": colours[name], "linewidth": 2.0, "marker": "o", "markersize": 3.5}
            if name in colours
            else {"color": "#7A7A7A", "linewidth": 1.2, "linestyle": BASELINES.get(name, "-")}
        )
        # the middle of the week: what is drawn is the mean over all of it
        middles = [pd.Timestamp(night) + pd.Timedelta(days=3.5) for night, _, _ in points]
        above.plot(middles, [loss for _, loss, _ in points], label=name, zorder=3 if name in colours else 2, **style)
    for place, (name, happened) in enumerate(events.items()):
        for kind, marker in EVENTS.items():
            nights = [pd.Timestamp(night) for night in happened.get(kind, ())]
            label = kind if place == 0 else None
            face = "none" if kind == "rollback" else colours[name]
            size = 40 if kind == "retrain" else 60
            below.scatter(
                nights, [place] * len(nights), marker=marker, s=size, color=colours[name], facecolor=face, label=label
            )
    below.set_yticks(range(len(events)), list(events))
    below.set_ylim(len(events) - 0.5, -0.6)
    picture.dated(below, list(events), fewest=4, most=10)
    above.set_ylabel(f"realized {metric} (lower is better)", color=INK)
    above.set_title(title, loc="left", color=INK)
    above.set_ylim(bottom=0)
    above.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, labelcolor=INK)
    below.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, labelcolor=INK)
    picture.quiet([above])
    picture.quiet([below], grid="x")
    return picture.save(figure, path)


def _line(axes: Panel, points: pd.DataFrame, line: str, colour: str) -> None:
    """One line with its band; a missing week breaks it."""
    if points.empty:
        return
    weeks = pd.DatetimeIndex(points.index)
    points = points.reindex(pd.date_range(weeks.min(), weeks.max(), freq="7D").union(weeks))
    style: dict[str, object] = {"linestyle": DASHES} if line == "safe default" else {}
    if line == ESTIMATED:
        style = {"linestyle": (0, (2, 1.5)), "markerfacecolor": "white"}
    axes.plot(
        points.index,
        points["loss"],
        label=line,
        color=colour,
        marker=MARKERS[line],
        markersize=5,
        linewidth=1.8,
        **style,
    )
    if line == "safe default":
        return
    low, high = points["low"].astype(float), points["high"].astype(float)
    if len(points) == 1:
        axes.vlines(points.index, low, high, color=colour, linewidth=1.4)
    axes.fill_between(points.index, low, high, color=colour, alpha=0.16, linewidth=0)


def _promotions(axes: Panel, nights: Sequence[pd.Timestamp]) -> None:
    for position, night in enumerate(sorted(nights)):
        label = "promotion" if position == 0 else None
        axes.axvline(night, color=picture.GREEN, linewidth=1.4, linestyle=(0, (1, 1.5)), label=label)
