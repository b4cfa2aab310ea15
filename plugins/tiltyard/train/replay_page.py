"""What a person sees of a replay: lines for a terminal, and one HTML file that needs nothing else."""

import html
from datetime import datetime
from pathlib import Path
from typing import Any

from tiltyard.leak.page import save
from tiltyard.train.comparison import KINDS
from tiltyard.train.proof import Example, Side
from tiltyard.train.replay import Change, Replay

COLOURS = {
    "absent_then": "#c4622d",
    "different_then": "#7a3b9a",
    "stale_then": "#b8860b",
    "blanked_since": "#b00020",
    "gone_since": "#555555",
}
VERDICTS = {
    "pass": "Every value that was compared is the one that was there.",
    "warn": "Some of the past was written over, within the limit and not tied to the label.",
    "fail": "The past was written over. A model that learns from it learns what was not known.",
    "untestable": "What can be compared does not show that the past is as it was.",
}


def lines(replay: Replay) -> str:
    """The verdict, what changed with a row that proves it, and what could not be tested."""
    first, last = replay.ranges[0][0], replay.ranges[-1][1]
    told = [
        f"{replay.verdict}: {replay.model}, {replay.rows:,} predictions of {replay.nights} nights "
        f"({first} to {last}) against snapshot {replay.snapshot}. {VERDICTS[replay.verdict]}"
    ]
    for change in replay.changes:
        if change.severity:
            told.append(f"  {change.severity}  {change.tally.feature}: {change.reason}")
            if proof := replay.shown(change):
                told.append(f"            {proof}")
    if late := _late(replay):
        told.append(f"  no change   {late}")
    told += [f"  not tested  {f'{one.rows:,} ' if one.rows else ''}{one.what}: {one.why}" for one in replay.untested]
    return "\n".join(told)


def _late(replay: Replay) -> str:
    """Honest late arrivals, in a sentence; "" when there were none."""
    views = {change.tally.view: change.tally for change in replay.changes if change.tally.late}
    rows = ", ".join(f"{tally.late:,} of {tally.rows:,} rows of {view}" for view, tally in sorted(views.items()))
    if not rows:
        return ""
    return f"{rows} have a newer one by now that says it was known later: the point-in-time join does not take it"


def write(replay: Replay, path: Path) -> None:
    """Write the page, whole. Raises nothing for a replay that found nothing: that is a page, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save(page(replay), path)


def page(replay: Replay) -> str:
    """Self-contained HTML: the verdict, a bar per feature, examples side by side with the commit between."""
    first, last = replay.ranges[0][0], replay.ranges[-1][1]
    facts = (
        f"{replay.rows:,} predictions of {replay.nights} nights from {first} to {last}, against the lake's snapshot "
        f"{replay.snapshot}; {replay.matured:,} of them have a matured label. Up to {replay.limit:.2%} of a feature's "
        "rows may change; a change that tells the label may not."
    )
    most = max((change.interval[1] for change in replay.changes if change.tally.changed), default=1.0)
    bars = "\n".join(_bar(change, replay.limit, most) for change in replay.changes)
    shown = "\n".join(
        f"<h2>{_text(change.tally.feature)}</h2><p>{_text(change.reason)}</p>"
        + "\n".join(_example(example) for example in replay.examples.get(change.tally.feature, ()))
        for change in replay.changes
        if change.tally.changed
    )
    kinds = "".join(
        f'<li><span class="dot" style="background:{COLOURS[kind]}"></span>{_text(kind.replace("_", " "))}: '
        f"{_text(meaning)}</li>"
        for kind, meaning in KINDS.items()
    )
    late = f"<p>No change: {_text(_late(replay))}.</p>" if _late(replay) else ""
    untested = "".join(f"<li>{one.rows:,} {_text(one.what)}: {_text(one.why)}</li>" for one in replay.untested)
    return _PAGE.format(
        title=_text(f"{replay.model}: {replay.verdict}"),
        verdict=_text(replay.verdict),
        sentence=_text(VERDICTS[replay.verdict]),
        facts=_text(facts),
        bars=bars,
        kinds=kinds,
        late=late,
        shown=shown,
        untested=f"<h2>Not tested</h2><ul>{untested}</ul>" if untested else "",
    )


def _bar(change: Change, limit: float, most: float) -> str:
    """One row of the table: the share of rows that changed by kind, its interval, the limit as a line."""
    tally = change.tally
    scale = 100 / max(most, limit, 1e-9)
    parts = "".join(
        f'<i style="width:{scale * count / tally.rows:.3f}%;background:{COLOURS[kind]}"></i>'
        for kind, count in tally.kinds.items()
        if count
    )
    whisker = ""
    if tally.changed:
        low, high = (scale * end for end in change.interval)
        whisker = f'<b style="left:{low:.3f}%;width:{high - low:.3f}%"></b>'
    mark = f'<u style="left:{scale * limit:.3f}%" title="limit"></u>'
    p_value = "" if change.p_value is None else f"{change.p_value:.2g}"
    shares = [f"{hit:,} / {rows:,}" for hit, rows in (tally.positives, tally.negatives)]
    return (
        f'<tr class="{change.severity or "ok"}"><td>{change.severity or "ok"}</td><td>{_text(tally.feature)}</td>'
        f'<td><div class="bar">{parts}{whisker}{mark}</div></td><td>{change.rate:.2%}</td>'
        f"<td>{tally.changed:,} / {tally.rows:,}</td><td>{shares[0]}</td><td>{shares[1]}</td><td>{p_value}</td></tr>"
    )


def _example(example: Example) -> str:
    label = "" if example.label is None else f", label {'positive' if example.label else 'negative'}"
    commit = "no commit of the view itself" if example.commit is None else f"written by {_text(str(example.commit))}"
    origins = "".join(
        f"<li>{_text(origin.table)}, row {origin.row} of {_text(origin.file)}: claims to have been known "
        f"{_time(origin.available_at)}"
        + (f", landed with {_text(str(origin.commit))}" if origin.commit else "")
        + "</li>"
        for origin in example.origins
    )
    return (
        f'<div class="example"><p><strong>{_text(example.entity)}</strong> at {_time(example.prediction_time)}'
        f'{label}: {_text(example.kind.replace("_", " "))}</p><table class="sides"><tr>{_side("then", example.then)}'
        f'<td class="arrow">→<br><small>{commit}</small></td>{_side("now", example.now)}</tr></table>'
        + (f"<ul>{origins}</ul>" if origins else "")
        + "</div>"
    )


def _side(name: str, side: Side) -> str:
    value = "nothing" if side.value is None else str(side.value)
    return (
        f"<td><small>{name}, snapshot {side.snapshot}</small><br><code>{_text(value)}</code><br>"
        f"<small>happened {_time(side.event_time)}<br>known {_time(side.available_at)}</small></td>"
    )


def _time(moment: datetime | None) -> str:
    return "–" if moment is None else _text(moment.isoformat(sep=" ", timespec="milliseconds"))


def _text(value: Any) -> str:
    return html.escape(str(value))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd }}
tr.critical td:first-child {{ color: #b00020; font-weight: 600 }}
tr.warning td:first-child {{ color: #9a6700; font-weight: 600 }}
tr.ok td:first-child {{ color: #1a7f37 }}
.bar {{ position: relative; width: 20rem; height: 1.1rem; background: #f2f2f2; display: flex }}
.bar i {{ height: 100% }}
.bar b {{ position: absolute; top: .5rem; height: .1rem; background: #222 }}
.bar u {{ position: absolute; top: -.15rem; width: 1px; height: 1.4rem; background: #1a5fb4 }}
.dot {{ display: inline-block; width: .7rem; height: .7rem; margin-right: .4rem; border-radius: 50% }}
.example {{ border-left: 3px solid #ddd; padding-left: 1rem; margin: 1rem 0 }}
.sides td {{ border: 0; width: 36% }} .sides td.arrow {{ width: 28%; text-align: center }}
code {{ font-size: 1.1rem }} small {{ color: #555 }} ul {{ padding-left: 1.2rem }}
</style></head>
<body><h1>{title}</h1>
<p><strong>{sentence}</strong></p><p>{facts}</p>
<table><thead><tr><th></th><th>feature</th><th>share of rows changed (line: interval, mark: limit)</th><th></th>
<th>rows</th><th>of positives</th><th>of negatives</th><th>p</th></tr></thead>
<tbody>
{bars}
</tbody></table>
<ul style="list-style:none;padding:0">{kinds}</ul>
{late}
{shown}
{untested}
</body></html>
"""
