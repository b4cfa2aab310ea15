"""The evidence page: what a person sees before saying that a challenger may serve. Drawing only.

One HTML file with nothing to fetch and nothing to run, drawn from the ledger's record alone: the same record gives the
same bytes, so that the page's SHA-256 can be approved, and a lost page be drawn again. Whatever comes from data or from
people is escaped. Pictures are SVG by matplotlib, in the palette of pages/picture.py.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tiltyard import target as targets
from tiltyard.pages import kit, picture
from tiltyard.pages.kit import Html, PageColumn, text
from tiltyard.pages.picture import DASHES, GRID, INK, LIMIT, Panel
from tiltyard.records import (
    ArmFigures,
    CalibrationBin,
    CohortArrival,
    Criterion,
    EvidenceRecord,
    FilledFeature,
    LearnedScale,
    PromiseRecord,
    RunningPoint,
    SliceInterval,
)
from tiltyard.target import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHALLENGER, CHAMPION = picture.BLUE, picture.VERMILION
ARRIVAL = {"labelled": picture.GREEN, "missing": LIMIT, "early": picture.ORANGE, "waiting": "#C9CFD4"}
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
    least = -float(str(promise.policy["max_slice_loss"]))
    title = f"Promote {record.model} version {record.challenger}?"
    parts = [
        _head(title, record, promise, target),
        _figure(
            "Is it better, and since when could one know?",
            lambda: _running(drawn.running, drawn.level),
            f"Mean difference of the losses ({targets.METRICS[record.metric]}) of {record.against} and of the "
            "challenger on the same matured rows, by cohort, with the confidence sequence that holds however often one "
            "looks: the gate asks for its lower end above zero. Below, the evidence that takes each night as one "
            f"observation; the gate asks for {1 / drawn.level:.3g}.",
        ),
        _criteria(record.criteria),
        _figure(
            "For whom?",
            lambda: kit.joined([_slices(drawn.slices, least), _table_of_slices(drawn.slices)]),
            "Mean difference per declared slice with its 95 % interval, clustered by night (for reading: it is not the "
            "one that decides). Left of the red line a slice loses more than the spec allows.",
        ),
        _figure(
            "Does a score mean what it says?",
            lambda: _calibration(drawn.calibration, record.against, target.label_axis),
            target.caption,
        ),
        _figure(
            "What would be served?",
            lambda: _scores(drawn.scores, record.against, target.bounds),
            "How often each score was given, on all rows that both scored, matured or not.",
        ),
        _figure(
            "Which labels have come?",
            lambda: _arrival(drawn.arrival),
            "Rows of every cohort since the challenger entered shadow. Only whole, matured cohorts count; what is "
            "known early is not a random sample and moved nothing here.",
        ),
        *([_dead(record.dead)] if record.dead else []),
        *([_online(record.online, target)] if record.online else []),
        _origin(record, promise),
    ]
    return kit.framed(title, parts, _STYLE)


# -- words ------------------------------------------------------------------------------------


def _head(title: str, record: EvidenceRecord, promise: PromiseRecord, target: Target) -> Html:
    facts = {
        "matured rows": f"{record.matured:,}",
        "nights in shadow": f"{record.nights:,}",
        "rows that wait for truth": f"{record.immature:,}",
        **({} if record.outside is None else {target.outside_head: f"{record.outside:,}"}),
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
    return Html(
        f"<header><h1>{text(title)}</h1>"
        f"<p>Night of {text(record.night)} &middot; owner {text(promise.owner)} &middot; tier "
        f"{text(promise.tier)} &middot; against {text(record.against)}.{asked}</p>"
        f'<p class="better">{text(better)}</p>{kit.facts(facts)}</header>'
    )


def _criteria(criteria: Sequence[Criterion]) -> Html:
    columns = [PageColumn("criterion"), PageColumn("value", "number"), PageColumn("limit", "number")]
    columns += [PageColumn("status"), PageColumn("why")]
    rows = [(row.name, _number(row.value), _number(row.limit), _status(row.status), row.reason) for row in criteria]
    return kit.section("What the gate asked", kit.table(columns, rows))


def _status(status: str) -> Html:
    return Html(f'<span class=tag style="background:{STATUS.get(status, INK)}">{text(status.replace("_", " "))}</span>')


def _table_of_slices(slices: Sequence[SliceInterval]) -> Html:
    columns = [PageColumn("slice"), *(PageColumn(title, "number") for title in ("rows", "difference", "low", "high"))]
    rows = [(row.name, f"{row.rows:,}", _signed(row.mean), _signed(row.low), _signed(row.high)) for row in slices]
    return Html(f"<details><summary>The slices as numbers</summary>{kit.table(columns, rows)}</details>")


def _online(arms: Mapping[str, Sequence[ArmFigures]], target: Target) -> Html:
    """Outcomes of the requests that were answered online, an arm at a time; nothing of it decided."""
    titles = ("requests", "matured", target.figure_title, "low", "high")
    columns = [PageColumn("arm"), PageColumn("answered by"), PageColumn("version")]
    columns += [PageColumn(title, "number") for title in titles]
    rows = [
        (
            *(arm, row.tier, "–" if row.version is None else row.version),
            *(_number(row.requests), _number(row.matured)),
            *(_number(row.figure(name)) for name in target.interval),
        )
        for arm, figures in arms.items()
        for row in figures
    ]
    note = (
        "For reading: the gate asks for nights on which every version scored the same rows, and the "
        "entities that ask are not all there are. Requests of the arm shadow were answered by others."
    )
    heading = "How did the answers given online turn out?"
    return kit.section(heading, kit.table(columns, rows), kit.paragraph(note, "quiet"))


def _dead(features: Sequence[FilledFeature]) -> Html:
    """The features that the challenger cannot have learned from; nothing of it decided."""
    columns = [PageColumn("feature"), PageColumn("filled at training", "number"), PageColumn("in shadow", "number")]
    rows = [(row.feature, f"{row.training:.1%}", "–" if row.now is None else f"{row.now:.1%}") for row in features]
    note = (
        "For reading: of these features training saw at most one value. Nothing can be learned from what "
        "they say, only from whether they say anything."
    )
    return kit.section("Which features say nothing?", kit.table(columns, rows), kit.paragraph(note, "quiet"))


def _origin(record: EvidenceRecord, promise: PromiseRecord) -> Html:
    training = promise.training
    facts = {
        "trained as of the night of": promise.trained_on,
        "trained by (who may not approve)": promise.trained_by,
        "why it was trained": "; ".join(training.reasons) or "–",
        "training rows": "–" if training.rows is None else f"{training.rows:,}",
        **_scale(record.learned),
        "prediction times": f"{training.start or '–'} to {training.end or '–'}",
        "training frame": training.frame or "–",
        "code": training.git_commit or "–",
        "cohorts compared": f"{record.cohort_from} to {record.cohort_to}",
        "policy": ", ".join(f"{name} {_said(value)}" for name, value in sorted(promise.policy.items())),
        "differences, SHA-256": record.rows,
        "record, SHA-256": record.digest,
    }
    rows = "".join(f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in facts.items())
    return Html(
        f"<section><h2>Where this comes from</h2><table class=origin>{rows}</table>"
        "<p class=quiet>An approval names the SHA-256 of this very file; its first digits end the file's name "
        "(<code>sha256sum</code> tells the rest). Before anybody is promoted the file is held against it again.</p>"
        "</section>"
    )


def _scale(learned: LearnedScale | None) -> dict[str, str]:
    """Of a number: between which values it counts, and how many labels of the frame lay beyond."""
    if learned is None:
        return {}
    bounds = {"bounds, learned": "{:g} to {:g}".format(*learned.bounds)} if learned.bounds else {}
    return {**bounds, "training labels beyond the bounds": f"{learned.outside:,}"}


def _figure(heading: str, draw: Callable[[], Html], caption: str) -> Html:
    return kit.section(heading, kit.figure(kit.drawn(draw), caption))


def _said(value: object) -> str:
    return (
        ", ".join(map(str, value)) or "none" if isinstance(value, list) else "default" if value is None else str(value)
    )


def _number(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


# -- pictures ---------------------------------------------------------------------------------


def _running(points: Sequence[RunningPoint], level: float) -> Html:
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
    picture.dated(below, nights)
    return picture.svg(figure, "running")


def _slices(slices: Sequence[SliceInterval], limit: float) -> Html:
    shown = [row for row in slices[:MOST_SLICES] if row.mean is not None]
    figure, [axes] = _axes(1.1 + 0.32 * max(len(shown), 1))
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
    return picture.svg(figure, "slices")


def _calibration(bins: Mapping[str, Sequence[CalibrationBin]], against: str, label: str) -> Html:
    figure, [axes] = _axes(4.2)
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
    return picture.svg(figure, "calibration")


def _scores(counts: Mapping[str, Sequence[int]], against: str, bounds: Sequence[float]) -> Html:
    figure, [axes] = _axes(2.8)
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
    return picture.svg(figure, "scores")


def _arrival(cohorts: Sequence[CohortArrival]) -> Html:
    figure, [axes] = _axes(2.8)
    nights = [cohort.night for cohort in cohorts]
    below = [0] * len(cohorts)
    for name, colour in ARRIVAL.items():
        counts = [getattr(cohort, name) for cohort in cohorts]
        axes.bar(nights, counts, bottom=below, width=0.85, color=colour, linewidth=0, label=ARRIVAL_SAID[name])
        below = [lower + count for lower, count in zip(below, counts, strict=True)]
    axes.set_ylabel("rows", color=INK)
    picture.dated(axes, nights)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False, labelcolor=INK)
    return picture.svg(figure, "arrival")


def _axes(height: float, panels: int = 1) -> "tuple[Figure, list[Panel]]":
    """An empty picture of so many panels, one below the other."""
    figure = picture.blank(8.4, height)
    drawn = list(figure.subplots(panels, 1, sharex=True, squeeze=False, height_ratios=[3, 2][:panels])[:, 0])
    picture.quiet(drawn)
    return figure, drawn


def _plain(name: str) -> str:
    """A name as matplotlib may draw it: `$` would begin a formula."""
    short = name if len(name) <= 40 else f"{name[:39]}…"
    return short.replace("\\", "\\\\").replace("$", r"\$")


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
"""Of its own, and no part of the kit's: a page that was put before somebody and is lost has to be drawn again to the
same bytes, whatever the other pages look like by then."""
