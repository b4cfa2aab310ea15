"""What a person sees of a replay: lines for a terminal, and one HTML file that needs nothing else."""

from datetime import datetime
from pathlib import Path

from tiltyard.leak.page import drawn
from tiltyard.pages import kit
from tiltyard.pages.kit import Html, PageColumn, text
from tiltyard.train.comparison import KINDS
from tiltyard.train.proof import Example, Side
from tiltyard.train.replay import VERDICTS, FeatureChange, Replay

COLOURS = {
    "absent_then": "#c4622d",
    "different_then": "#7a3b9a",
    "stale_then": "#b8860b",
    "blanked_since": "#b00020",
    "gone_since": "#555555",
}
TONES = {"pass": "good", "warn": "wait", "fail": "bad", "untestable": "wait"}
"""Verdict → the kit's word for how good it is."""
SEVERITIES = {"ok": "good", "warning": "wait", "critical": "bad"}
"""The same of a severity."""


def lines(replay: Replay) -> str:
    """The verdict, what changed with a row that proves it, and what could not be tested."""
    rows = [f"{replay.verdict}: {replay.model}, {replay.reason}"]
    for change in replay.changes:
        if change.severity:
            rows.append(f"  {change.severity}  {change.tally.feature}: {change.reason}")
            if proof := replay.shown(change):
                rows.append(f"            {proof}")
    if late := _late(replay):
        rows.append(f"  no change   {late}")
    rows += [f"  not tested  {f'{gap.rows:,} ' if gap.rows else ''}{gap.what}: {gap.why}" for gap in replay.untested]
    return "\n".join(rows)


def _late(replay: Replay) -> str:
    """Honest late arrivals, in a sentence; "" when there were none."""
    views = {change.tally.view: change.tally for change in replay.changes if change.tally.late}
    rows = ", ".join(f"{tally.late:,} of {tally.rows:,} rows of {view}" for view, tally in sorted(views.items()))
    if not rows:
        return ""
    return f"{rows} have a newer one by now that says it was known later: the point-in-time join does not take it"


def write(replay: Replay, path: Path) -> Path | None:
    """Write the page, whole; one that found nothing has a page, too. Returns its path, None where it cannot be drawn.
    Raises BadInput when there is no writing."""
    return drawn(lambda: page(replay), path)


def page(replay: Replay) -> str:
    """Self-contained HTML: the verdict, a bar per feature, examples side by side with the commit between."""
    first, last = replay.ranges[0][0], replay.ranges[-1][1]
    facts = (
        f"{replay.rows:,} predictions of {replay.nights} nights from {first} to {last}, against the lake's snapshot "
        f"{replay.snapshot}. {replay.acquitting}. {replay.matured:,} have a matured label. Up to {replay.limit:.2%} of "
        "a feature's rows may change; a change that tells the label may not."
    )
    most = max((change.interval[1] for change in replay.changes if change.tally.changed), default=1.0)
    columns = [PageColumn(title) for title in ("", "feature", "share of rows changed (line: interval, mark: limit)")]
    columns += [PageColumn(title, "number") for title in ("", "rows", "of positives", "of negatives", "p")]
    tone = TONES[replay.verdict]
    parts = [
        Html(
            f"<header class={tone}><h1>{text(replay.model)}: <span class={tone}>{text(replay.verdict)}</span></h1>"
            f"<p><strong>{text(VERDICTS[replay.verdict])}</strong></p>{kit.paragraph(facts)}</header>"
        ),
        kit.section(
            "What changed",
            kit.table(columns, [_row(change, replay.limit, most) for change in replay.changes]),
            kit.items(map(_meaning, KINDS), "kinds"),
            kit.paragraph(f"No change: {_late(replay)}.") if _late(replay) else Html(),
        ),
    ]
    for change in replay.changes:
        if change.tally.changed:
            examples = replay.examples.get(change.tally.feature, ())
            parts.append(kit.section(change.tally.feature, kit.paragraph(change.reason), *map(_example, examples)))
    if replay.untested:
        gaps = [f"{gap.rows:,} {gap.what}: {gap.why}" for gap in replay.untested]
        parts.append(kit.section("Not tested", kit.items(gaps)))
    return kit.page(f"{replay.model}: {replay.verdict}", parts, _STYLE)


def _meaning(kind: str) -> Html:
    dot = f'<span class=dot style="background:{COLOURS[kind]}"></span>'
    return Html(f"{dot}{text(kind.replace('_', ' '))}: {text(KINDS[kind])}")


def _row(change: FeatureChange, limit: float, most: float) -> tuple[object, ...]:
    """One row of the table: the share of rows that changed by kind, its interval, the limit as a line."""
    tally = change.tally
    severity = change.severity or "ok"
    p_value = "" if change.p_value is None else f"{change.p_value:.2g}"
    shares = [f"{changed:,} / {rows:,}" for changed, rows in (tally.positives, tally.negatives)]
    return (
        Html(f'<span class="tag {SEVERITIES[severity]}">{severity}</span>'),
        tally.feature,
        _bar(change, limit, most),
        f"{change.rate:.2%}",
        f"{tally.changed:,} / {tally.rows:,}",
        *shares,
        p_value,
    )


def _bar(change: FeatureChange, limit: float, most: float) -> Html:
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
    return Html(f'<div class=bar>{parts}{whisker}<u style="left:{scale * limit:.3f}%" title="limit"></u></div>')


def _example(example: Example) -> Html:
    label = "" if example.label is None else f", label {'positive' if example.label else 'negative'}"
    commit = "no commit of the view itself" if example.commit is None else f"written by {text(example.commit)}"
    origins = [
        f"{origin.table}, row {origin.row} of {origin.file}: claims to have been known {_time(origin.available_at)}"
        + (f", landed with {origin.commit}" if origin.commit else "")
        for origin in example.origins
    ]
    return Html(
        f"<div class=example><p><strong>{text(example.entity)}</strong> at {_time(example.prediction_time)}"
        f"{label}: {text(example.kind.replace('_', ' '))}</p><table class=sides><tr>{_side('then', example.then)}"
        f"<td class=arrow>→<br><small>{commit}</small></td>{_side('now', example.now)}</tr></table>"
        f"{kit.items(origins) if origins else ''}</div>"
    )


def _side(name: str, side: Side) -> Html:
    value = "nothing" if side.value is None else side.value
    return Html(
        f"<td><small>{name}, snapshot {side.snapshot}</small><br><code>{text(value)}</code><br>"
        f"<small>happened {_time(side.event_time)}<br>known {_time(side.available_at)}</small></td>"
    )


def _time(moment: datetime | None) -> str:
    return "–" if moment is None else moment.isoformat(sep=" ", timespec="milliseconds")


_STYLE = """
main { max-width: 1120px }
.bar { position: relative; width: 20rem; height: 1.1rem; background: var(--ground); display: flex; margin: .15rem 0 }
.bar i { height: 100% } .bar b { position: absolute; top: .5rem; height: .1rem; background: var(--ink) }
.bar u { position: absolute; top: -.15rem; width: 1px; height: 1.4rem; background: var(--link) }
.kinds { list-style: none; padding: 0; margin: 12px 0 0 }
.dot { display: inline-block; width: .7rem; height: .7rem; margin-right: .4rem; border-radius: 50% }
.example { border-left: 3px solid var(--line); padding-left: 1rem; margin: 1rem 0; overflow-x: auto }
.sides { min-width: 34rem } .sides td { border: 0; width: 36% } .sides td.arrow { width: 28%; text-align: center }
code { font-size: 1.1rem }
"""
