"""The evidence page: what a person sees before saying that a challenger may serve. Drawing only.

One HTML file with nothing to fetch and nothing to run, drawn from the ledger's record alone: the same record gives the
same bytes, so that the page's SHA-256 can be approved, and a lost page be drawn again. Whatever comes from data or from
people is escaped. Pictures are SVG by matplotlib, in the palette of pages/plots.py.
"""

import html
import io
import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from tiltyard import target as targets
from tiltyard.records import (
    ArmFigures,
    CalibrationBin,
    CohortArrival,
    Criterion,
    EvidenceRecord,
    PromiseRecord,
    RunningPoint,
    SliceInterval,
)
from tiltyard.target import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHALLENGER, CHAMPION, LIMIT = "#0072B2", "#D55E00", "#B00020"
"""The first two of Okabe and Ito's palette (2008), told apart by the colour-blind."""
GRID, INK = "#E3E3E3", "#222222"
DASHES = (0, (4, 2))
ARRIVAL = {"labelled": "#009E73", "missing": "#B00020", "early": "#E69F00", "waiting": "#C9CFD4"}
ARRIVAL_SAID = {
    "labelled": "matured, with a label (decided on)",
    "missing": "matured, label never came",
    "early": "not matured, label known (never decided on)",
    "waiting": "not matured",
}
STATUS = {"pass": "#1A7F37", "fail": "#B00020", "not_yet": "#7A4B00"}
MOST_SLICES = 40


def draw(record: EvidenceRecord) -> str:
    """The page of a record with verdict `promote`: what promotion keeps in the ledger, `page` left aside.

    Raises ValueError for the record of another verdict, which has nothing to draw.
    """
    promise, drawn = record.promise, record.drawn
    if promise is None or drawn is None:
        raise ValueError(f"{record.model} version {record.challenger}: nothing was kept to draw a page of")
    target = targets.read(drawn.to_json())
    title = f"Promote {record.model} version {record.challenger}?"
    parts = [
        _head(title, record, promise),
        _figure(
            "Is it better, and since when could one know?",
            _running(drawn.running, drawn.level),
            f"Mean difference of the losses ({targets.METRICS[record.metric]}) of {record.against} and of the "
            "challenger on the same matured rows, by cohort, with the confidence sequence that holds however often one "
            "looks: the gate asks for its lower end above zero. Below, the evidence that takes each night as one "
            f"observation; the gate asks for {1 / drawn.level:.3g}.",
        ),
        _criteria(record.criteria),
        _figure(
            "For whom?",
            _slices(drawn.slices, -float(str(promise.policy["max_slice_loss"]))) + _table_of_slices(drawn.slices),
            "Mean difference per declared slice with its 95 % interval, clustered by night (for reading: it is not the "
            "one that decides). Left of the red line a slice loses more than the spec allows.",
        ),
        _figure(
            "Does a score mean what it says?",
            _calibration(drawn.calibration, record.against, target.label_axis),
            target.caption,
        ),
        _figure(
            "What would be served?",
            _scores(drawn.scores, record.against, target.bounds),
            "How often each score was given, on all rows that both scored, matured or not.",
        ),
        _figure(
            "Which labels have come?",
            _arrival(drawn.arrival),
            "Rows of every cohort since the challenger entered shadow. Only whole, matured cohorts count; what is "
            "known early is not a random sample and moved nothing here.",
        ),
        *([_online(record.online, target)] if record.online else []),
        _origin(record, promise),
    ]
    return _PAGE.format(title=_text(title), style=_STYLE, body="\n".join(parts))


# -- words ------------------------------------------------------------------------------------


def _head(title: str, record: EvidenceRecord, promise: PromiseRecord) -> str:
    facts = {
        "matured rows": f"{record.matured:,}",
        "nights in shadow": f"{record.nights:,}",
        "rows that wait for truth": f"{record.immature:,}",
        "judged at once": f"{record.challengers:,}",
        "loss of the challenger": _number(record.loss_challenger),
        f"loss of {record.against}": _number(record.loss_champion),
    }
    better = (
        f"The challenger's {targets.METRICS[record.metric]} is lower by {_number(record.mean)} "
        f"[{_number(record.low)}, {_number(record.high)}] than that of {record.against}, on the same "
        f"{record.matured:,} matured rows."
    )
    asked = {0: "", 1: " One person has to approve.", 2: " Two people have to approve."}[int(promise.approvals)]
    listed = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items())
    return (
        f"<header><h1>{_text(title)}</h1>"
        f"<p>Night of {_text(record.night)} &middot; owner {_text(promise.owner)} &middot; tier "
        f"{_text(promise.tier)} &middot; against {_text(record.against)}.{asked}</p>"
        f'<p class="better">{_text(better)}</p><dl>{listed}</dl></header>'
    )


def _criteria(criteria: Sequence[Criterion]) -> str:
    rows = "".join(
        f"<tr><td>{_text(row.name)}</td><td class=number>{_text(_number(row.value))}</td>"
        f"<td class=number>{_text(_number(row.limit))}</td>"
        f'<td><span class=tag style="background:{STATUS.get(row.status, INK)}">'
        f"{_text(row.status.replace('_', ' '))}</span></td><td>{_text(row.reason)}</td></tr>"
        for row in criteria
    )
    return (
        "<section><h2>What the gate asked</h2><div class=wide><table><tr><th>criterion</th><th class=number>value</th>"
        f"<th class=number>limit</th><th>status</th><th>why</th></tr>{rows}</table></div></section>"
    )


def _table_of_slices(slices: Sequence[SliceInterval]) -> str:
    rows = "".join(
        f"<tr><td>{_text(row.name)}</td><td class=number>{row.rows:,}</td>"
        f"<td class=number>{_text(_signed(row.mean))}</td><td class=number>{_text(_signed(row.low))}</td>"
        f"<td class=number>{_text(_signed(row.high))}</td></tr>"
        for row in slices
    )
    return (
        "<details><summary>The slices as numbers</summary><div class=wide><table><tr><th>slice</th>"
        "<th class=number>rows</th><th class=number>difference</th><th class=number>low</th>"
        f"<th class=number>high</th></tr>{rows}</table></div></details>"
    )


def _online(arms: Mapping[str, Sequence[ArmFigures]], target: Target) -> str:
    """Outcomes of the requests that were answered online, an arm at a time; nothing of it decided."""
    names = ("requests", "matured", *target.interval)
    rows = "".join(
        f"<tr><td>{_text(name)}</td><td>{_text(row.tier)}</td>"
        f"<td>{_text('–' if row.version is None else row.version)}</td>"
        + "".join(f"<td class=number>{_text(_number(getattr(row, column)))}</td>" for column in names)
        + "</tr>"
        for name, figures in arms.items()
        for row in figures
    )
    return (
        "<section><h2>How did the answers given online turn out?</h2><div class=wide><table><tr><th>arm</th>"
        "<th>answered by</th><th>version</th><th class=number>requests</th><th class=number>matured</th>"
        f"<th class=number>{_text(target.figure_title)}</th>"
        f"<th class=number>low</th><th class=number>high</th></tr>{rows}</table></div>"
        "<p class=quiet>For reading: the gate asks for nights on which every version scored the same rows, and the "
        "entities that ask are not all there are. Requests of the arm shadow were answered by others.</p></section>"
    )


def _origin(record: EvidenceRecord, promise: PromiseRecord) -> str:
    training = promise.training
    facts = {
        "trained as of the night of": promise.trained_on,
        "trained by (who may not approve)": promise.trained_by,
        "why it was trained": "; ".join(training.reasons) or "–",
        "training rows": "–" if training.rows is None else f"{training.rows:,}",
        "prediction times": f"{training.start or '–'} to {training.end or '–'}",
        "training frame": training.frame or "–",
        "code": training.git_commit or "–",
        "cohorts compared": f"{record.cohort_from} to {record.cohort_to}",
        "policy": ", ".join(f"{name} {_said(value)}" for name, value in sorted(promise.policy.items())),
        "differences, SHA-256": record.rows,
        "record, SHA-256": record.digest,
    }
    rows = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts.items())
    return (
        f"<section><h2>Where this comes from</h2><table class=origin>{rows}</table>"
        "<p class=quiet>An approval names the SHA-256 of this very file; its first digits end the file's name "
        "(<code>sha256sum</code> tells the rest). Before anybody is promoted the file is held against it again.</p>"
        "</section>"
    )


def _figure(heading: str, svg: str, caption: str) -> str:
    return (
        f"<section><h2>{_text(heading)}</h2><figure>{svg}<figcaption>{_text(caption)}</figcaption></figure></section>"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


def _said(value: Any) -> str:
    return (
        ", ".join(map(str, value)) or "none" if isinstance(value, list) else "default" if value is None else str(value)
    )


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


# -- pictures ---------------------------------------------------------------------------------


def _running(points: Sequence[RunningPoint], level: float) -> str:
    figure, (above, below) = _axes(5.2, panels=2)
    nights = [point.night for point in points]
    mean, low, high = ([getattr(point, name) for point in points] for name in ("mean", "low", "high"))
    above.axhline(0, color=LIMIT, linewidth=1.4, linestyle=DASHES, label="no difference")
    above.fill_between(nights, low, high, color=CHALLENGER, alpha=0.14, linewidth=0, label="confidence sequence")
    above.plot(nights, low, color=CHALLENGER, linewidth=1.2)
    above.plot(nights, mean, color=CHALLENGER, marker="o", markersize=4, label="mean so far")
    if points:  # the first intervals reach far; what they end at is to be read
        reach = 1.4 * max(*map(abs, mean), abs(low[-1]), abs(high[-1]), 1e-4)
        above.set_ylim(min(-0.2 * reach, 1.2 * low[-1]), reach)
    above.set_ylabel("loss avoided per row", color=INK)
    above.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=3, frameon=False, labelcolor=INK)
    told = [point.log_e_nights / math.log(10) for point in points]
    below.axhline(-math.log10(level), color=LIMIT, linewidth=1.4, linestyle=DASHES)
    below.plot(nights, told, color=CHALLENGER, marker="o", markersize=4)
    below.yaxis.set_major_formatter(lambda value, _: f"{10**value:.3g}")
    below.set_ylabel("nights' evidence", color=INK)
    _dated(below, nights)
    return _svg(figure, "running")


def _slices(slices: Sequence[SliceInterval], limit: float) -> str:
    shown = [row for row in slices[:MOST_SLICES] if row.mean is not None]
    figure, axes = _axes(1.1 + 0.32 * max(len(shown), 1))
    axes.axvline(0, color="#999999", linewidth=1.0)
    axes.axvline(limit, color=LIMIT, linewidth=1.4, linestyle=DASHES, label="least allowed")
    for place, row in enumerate(shown):
        if row.low is not None:
            axes.hlines(place, row.low, row.high, color=CHALLENGER, linewidth=2.2)
        axes.plot([row.mean], [place], "o", color=CHALLENGER, markersize=6 if place else 8)
    axes.set_yticks(range(len(shown)), [f"{_plain(row.name)}  ({row.rows:,})" for row in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_xlabel("loss avoided per row (right: the challenger is better)", color=INK)
    axes.legend(loc="lower right", frameon=False, labelcolor=INK)
    return _svg(figure, "slices")


def _calibration(bins: Mapping[str, Sequence[CalibrationBin]], against: str, label: str) -> str:
    figure, axes = _axes(4.2)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1)
    for who, colour, name, shape in (
        ("champion", CHAMPION, against, "s"),
        ("challenger", CHALLENGER, "challenger", "o"),
    ):
        parts = bins[who]
        most = max((part.rows for part in parts), default=1)
        score, share = [part.mean_score for part in parts], [part.positive_rate for part in parts]
        axes.plot(score, share, color=colour, linewidth=1.2, alpha=0.6)
        sizes = [18 + 130 * part.rows / most for part in parts]
        axes.scatter(score, share, s=sizes, color=colour, marker=shape, label=name, alpha=0.85, linewidths=0)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_xlabel("mean score", color=INK)
    axes.set_ylabel(label, color=INK)
    axes.legend(loc="upper left", frameon=False, labelcolor=INK, markerscale=0.7)
    return _svg(figure, "calibration")


def _scores(counts: Mapping[str, Sequence[int]], against: str, bounds: Sequence[float]) -> str:
    figure, axes = _axes(2.8)
    for who, colour, name in (("champion", CHAMPION, against), ("challenger", CHALLENGER, "challenger")):
        bars = len(counts[who])
        low, high = bounds
        edges = [low + (high - low) * place / bars for place in range(bars + 1)]
        style = {"fill": True, "alpha": 0.25} if who == "challenger" else {"fill": False}
        axes.stairs(counts[who], edges, color=colour, label=name, linewidth=1.8, **style)
        axes.stairs(counts[who], edges, color=colour, linewidth=1.8)
    axes.set_xlim(*bounds)
    axes.set_xlabel("score", color=INK)
    axes.set_ylabel("rows", color=INK)
    axes.legend(loc="upper center", frameon=False, labelcolor=INK, ncols=2)
    return _svg(figure, "scores")


def _arrival(cohorts: Sequence[CohortArrival]) -> str:
    figure, axes = _axes(2.8)
    nights = [cohort.night for cohort in cohorts]
    below = [0] * len(cohorts)
    for name, colour in ARRIVAL.items():
        counts = [getattr(cohort, name) for cohort in cohorts]
        axes.bar(nights, counts, bottom=below, width=0.85, color=colour, linewidth=0, label=ARRIVAL_SAID[name])
        below = [lower + count for lower, count in zip(below, counts, strict=True)]
    axes.set_ylabel("rows", color=INK)
    _dated(axes, nights)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False, labelcolor=INK)
    return _svg(figure, "arrival")


def _axes(height: float, panels: int = 1) -> tuple["Figure", Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, height), layout="constrained")
    FigureCanvasAgg(figure)
    drawn = figure.subplots(panels, 1, sharex=True, squeeze=False, height_ratios=[3, 2][:panels])[:, 0]
    for axes in drawn:
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
    return figure, drawn if panels > 1 else drawn[0]


def _dated(axes: Any, nights: Sequence[date]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    if not nights:
        axes.set_xticks([])
        return
    locator = AutoDateLocator(minticks=3, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _plain(name: str) -> str:
    """A name as matplotlib may draw it: `$` would begin a formula."""
    short = name if len(name) <= 40 else f"{name[:39]}…"
    return short.replace("\\", "\\\\").replace("$", r"\$")


def _svg(figure: "Figure", name: str) -> str:
    """The picture as SVG to put into a page: text stays text, nothing random and no date is in it."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    # ids are hashes of what they name, salted per picture: two pictures on one page do not share them
    with rc_context({"svg.hashsalt": f"tiltyard-{name}", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].rstrip()


_STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; margin: 0; background: #f4f5f7; color: #222 }
main { max-width: 900px; margin: 0 auto; padding: 28px 20px 60px }
header, section { background: #fff; border: 1px solid #e3e3e3; border-radius: 8px; padding: 18px 24px }
header, section { margin: 0 0 16px } header { border-left: 8px solid #1A7F37 }
h1 { font-size: 24px; margin: 0 0 4px; overflow-wrap: anywhere } h2 { font-size: 17px; margin: 0 0 10px }
p { margin: 6px 0; overflow-wrap: anywhere } .better { font-size: 17px; font-weight: 600 }
dl { display: flex; flex-wrap: wrap; gap: 28px; margin: 14px 0 0 } dt { color: #666; font-size: 12px }
dd { margin: 0; font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th, td { text-align: left; vertical-align: top; padding: 5px 10px 5px 0; border-bottom: 1px solid #eee }
th { color: #666; font-weight: 600; font-size: 12px } td { overflow-wrap: anywhere }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.origin th { width: 220px } .origin td { font: 12.5px/1.5 ui-monospace, monospace }
.tag { font-size: 12px; font-weight: 600; padding: 1px 8px; border-radius: 9px; color: #fff; white-space: nowrap }
.wide { overflow-x: auto } .quiet, figcaption { color: #555; font-size: 13px } summary { cursor: pointer }
figure { margin: 0 } svg { width: 100%; height: auto; display: block }
svg text { font-family: system-ui, sans-serif !important }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main>
{body}
</main></body></html>
"""
