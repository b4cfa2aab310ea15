"""The auditor's page: one HTML file that convinces a person, with nothing to fetch and nothing to run.

Every suspicion has its sentence, its effect with the interval, the picture that a person needs to believe it, and rows
to look up. Whatever comes from the file is escaped. Pictures are SVG, in the palette of pages/picture.py.
"""

import logging
import math
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from tiltyard.errors import BadInput
from tiltyard.leak.audit import Audit
from tiltyard.leak.suspicion import KINDS, Cell, Example, Lateness, Offsets, Rates, Severity, Suspicion
from tiltyard.pages import kit, picture
from tiltyard.pages.kit import Html, PageColumn, text
from tiltyard.pages.picture import BLUE, GREY

log = logging.getLogger(__name__)

RED = picture.VERMILION
TONES = {"fail": "bad", "untestable": "wait", "warn": "wait", "pass": "good"}
"""Verdict → the kit's word for how good it is."""
SEVERITIES = {"critical": "bad", "warning": "wait"}
"""The same of a severity."""
MEANT = {
    "fail": "Something critical: evidence about time.",
    "warn": "Nothing certain; something to look at.",
    "pass": "Nothing was found, in what could be tested.",
    "untestable": "Not a pass: too little could be tested.",
}
WIDTH, HEIGHT = 660, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 12, 14, 72
UNTESTED_SHOWN = 60


def check(target: Path, read: Sequence[Path] = ()) -> None:
    """Raises BadInput when the page cannot be written there; said before the work, not after it.

    `read`: the files that are audited. The page takes its target's place, so it must be neither one of them nor
    anything but a plain file: a device would be gone.
    """
    folder = target.parent
    try:
        kind = target.stat().st_mode
        if stat.S_ISDIR(kind):
            raise BadInput(f"--report: {target} is a folder; name a file, like {target / 'leakage.html'}.")
        if not stat.S_ISREG(kind):
            raise BadInput(f"--report: {target} is a device or a pipe; name a file.")
        if any(source.exists() and target.samefile(source) for source in read):
            raise BadInput(f"--report: {target} is the table itself; name another file.")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BadInput(f"--report: {target} cannot be written: {error.strerror}.") from None
    if not folder.is_dir():
        raise BadInput(f"--report: there is no folder {folder}.")
    if not os.access(folder, os.W_OK):
        raise BadInput(f"--report: {folder.resolve()} cannot be written to; name a file elsewhere with --report.")


def write(audit: Audit, target: Path) -> Path | None:
    """Draw the page of an audit and save it. Returns as `drawn` does, and raises so."""
    return drawn(lambda: render(audit), target)


def drawn(draw: Callable[[], str], target: Path) -> Path | None:
    """Save what is drawn. Returns its path, None where it cannot be drawn: what was found is as good without a page.
    Raises BadInput when there is no writing."""
    try:
        content = draw()
    except Exception as error:  # numbers that no drawing foresaw
        log.warning("%s is not drawn", target.name, exc_info=error)
        return None
    return save(content, target)


def save(content: str, target: Path) -> Path:
    """Put a page where a person wants it. Raises BadInput when there is no writing."""
    try:
        return kit.save(content, target)
    except OSError as error:
        raise BadInput(f"--report: {target} cannot be written: {error.strerror}.") from None


def render(audit: Audit) -> str:
    """The page as HTML."""
    looked_for = audit.coverage.looked_for
    critical = sum(suspicion.severity == "critical" for suspicion in audit.suspicions)
    facts = {
        "rows": f"{audit.rows:,}",
        "kinds looked for": f"{len(looked_for)} of {len(looked_for) + len(audit.coverage.not_looked_for)}",
        "columns judged": f"{len(audit.features):,}",
        "critical": f"{critical:,}",
        "warnings": f"{len(audit.suspicions) - critical:,}",
        "rows weighed": f"{audit.sampled:,}",
    }
    label = audit.label.column + (f" (1 is {audit.label.positive})" if audit.label.kind == "binary" else " (a number)")
    tone = TONES[audit.verdict]
    header = kit.joined(
        [
            kit.paragraph(audit.verdict, f"verdict {tone}"),
            Html(f"<h1>{text(audit.path.name)}</h1>"),
            kit.paragraph(audit.reason, "reason"),
            kit.paragraph(f"{MEANT[audit.verdict]} The outcome is {label}.", "quiet"),
            kit.facts(facts),
        ]
    )
    parts = [Html(f"<header class={tone}>{header}</header>")]
    if audit.suspicions:
        parts.append(_overview(audit.suspicions))
        parts += [_section(place, suspicion) for place, suspicion in enumerate(audit.suspicions)]
    parts += _tested(audit)
    if audit.notes:
        parts.append(kit.section("How the file was read", kit.items(audit.notes)))
    return kit.page(f"{audit.verdict}: {audit.path.name}", parts, _STYLE)


# -- parts of the page ------------------------------------------------------------------------


def _overview(suspicions: Sequence[Suspicion]) -> Html:
    columns = [PageColumn(""), PageColumn("column", "column"), PageColumn("what", "kind")]
    columns += [PageColumn("effect", "number"), PageColumn("interval", "number")]
    rows = [
        (
            _tag(suspicion.severity),
            Html(f'<a href="#f{place}">{text(suspicion.feature)}</a>'),
            _named(suspicion.kind),
            _short(suspicion.effect),
            _between(suspicion),
        )
        for place, suspicion in enumerate(suspicions)
    ]
    return kit.section("What was found", kit.table(columns, rows))


def _section(place: int, suspicion: Suspicion) -> Html:
    parts = kit.joined(
        [
            Html(f"<h3>{text(suspicion.feature)} {_tag(suspicion.severity)}</h3>"),
            kit.paragraph(KINDS[suspicion.kind], "meaning"),
            kit.paragraph(suspicion.evidence),
            _effect(suspicion),
            _picture(suspicion),
            _examples(suspicion.examples),
        ]
    )
    return Html(f'<section id="f{place}" class="suspicion {SEVERITIES[suspicion.severity]}">{parts}</section>')


def _tag(severity: Severity) -> Html:
    return Html(f'<span class="tag {SEVERITIES[severity]}">{severity}</span>')


def _examples(examples: Sequence[Example]) -> Html:
    if not examples:
        return Html()
    names = list(dict.fromkeys(name for row in examples for name in row))
    rows = [[_value(row.get(name)) for name in names] for row in examples]
    heading = "A row to look up" if len(examples) == 1 else "Rows to look up"
    return Html(f"<h4>{heading}</h4>{kit.table([PageColumn(name) for name in names], rows, 'rows')}")


def _tested(audit: Audit) -> list[Html]:
    """What was looked for, and what could not be."""
    looked_for = [Html(f"<b>{text(_named(kind))}</b> {text(KINDS[kind])}") for kind in audit.coverage.looked_for]
    parts = [kit.section("What was tested", kit.items([audit.exact, *looked_for], "tested"))]
    if audit.untested:
        kinds: dict[tuple[str, str], list[str]] = {}
        for gap in audit.untested:
            kinds.setdefault((gap.feature, gap.why), []).append(gap.kind)
        rows = [
            (
                "every column" if feature == "*" else feature,
                ", ".join("everything" if kind == "*" else _named(kind) for kind in names),
                why,
            )
            for (feature, why), names in kinds.items()
        ]
        more = len(rows) - UNTESTED_SHOWN
        rest = kit.paragraph(f"and {more:,} more", "quiet") if more > 0 else Html()
        columns = [PageColumn("column"), PageColumn("for"), PageColumn("why")]
        parts.append(kit.section("What could not be tested", kit.table(columns, rows[:UNTESTED_SHOWN]), rest))
    return parts


# -- pictures ---------------------------------------------------------------------------------


def _effect(suspicion: Suspicion) -> Html:
    """The effect on its scale, with its interval; a share or an AUC on 0 to 1."""
    low, high = suspicion.interval or (suspicion.effect, suspicion.effect)
    ends = [value for value in (low, high, suspicion.effect) if math.isfinite(value)]
    if not ends:
        return Html()
    least, most = (0.0, 1.0) if min(ends) >= 0 and max(ends) <= 1 else (min(0.0, *ends), max(0.0, *ends) * 1.08)
    width, margin = WIDTH, 10

    def at(value: float) -> float:
        value = min(max(value, least), most) if not math.isnan(value) else least
        return margin + (value - least) / ((most - least) or 1) * (width - 2 * margin)

    colour = RED if suspicion.severity == "critical" else BLUE
    ticks = [least + (most - least) * step / 4 for step in range(5)]
    marks = "".join(
        f'<line x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="20" y2="26" stroke="#999"/>'
        f'<text x="{at(tick):.1f}" y="39" text-anchor="{_anchor(step)}">{_short(tick)}</text>'
        for step, tick in enumerate(ticks)
    )
    span = ""
    if suspicion.interval:
        span = (
            f'<line x1="{at(low):.1f}" x2="{at(high):.1f}" y1="12" y2="12" stroke="{colour}" stroke-width="5" '
            'stroke-linecap="round" opacity=".35"/>'
        )
    counted = ", counted, not estimated"
    holding = f", interval {_between(suspicion)}, holding for all columns at once"
    caption = f"effect {_short(suspicion.effect)}{holding if suspicion.interval else counted}"
    axis = f'<line x1="{margin}" x2="{width - margin}" y1="20" y2="20" stroke="#999"/>'
    dot = f'<circle cx="{at(suspicion.effect):.1f}" cy="12" r="5" fill="{colour}"/>'
    return kit.figure(kit.svg(axis + marks + span + dot, width, 44, caption), caption, css="scale")


def _anchor(step: int) -> str:
    return "start" if step == 0 else "end" if step == 4 else "middle"


def _picture(suspicion: Suspicion) -> Html:
    match suspicion.plot:
        case Lateness() as plot:
            return _lateness(plot)
        case Rates() as plot:
            return _rates(plot)
        case Offsets() as plot:
            return _offsets(plot)
        case None:
            return Html()


def _lateness(plot: Lateness) -> Html:
    """Rows by how far before or after; what breaks the rule in the warning colour."""
    rows, late, names = plot.rows, plot.late, plot.names
    bars = [math.log10(1 + count) for count in rows]
    colours = [RED if place >= late else GREY for place in range(len(rows))]
    body = _bars(bars, colours, [f"{count:,}" if count else "" for count in rows], names)
    line = _LEFT + (WIDTH - _LEFT - _RIGHT) * late / len(rows)
    body += (
        f'<line x1="{line:.1f}" x2="{line:.1f}" y1="{_TOP - 6}" y2="{HEIGHT - _BOTTOM}" stroke="{RED}" '
        'stroke-dasharray="4 3"/>'
    )
    caption = (
        f"Rows by how far they lie before or after {plot.than} (bars grow with the logarithm). "
        "Everything right of the dashed line was not known yet."
    )
    return _figure(body, caption, slanted=_slanted(names))


def _rates(plot: Rates) -> Html:
    """Share of positives per value, with the number of rows; the dashed line is the share in all rows."""
    rates, rows, base = plot.rate, plot.rows, plot.base
    colours = [BLUE if rate <= base else RED for rate in rates]
    names = plot.x
    body = _bars(rates, colours, [f"{count:,}" for count in rows], names, top=1.0)
    height = _y(base, 1.0)
    body += (
        f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}" stroke="{GREY}" '
        'stroke-dasharray="4 3"/>'
    )
    for share in (0, 0.5, 1):
        body += f'<text x="{_LEFT - 6}" y="{_y(share, 1.0) + 4:.1f}" text-anchor="end">{share:.0%}</text>'
    title = plot.title or "Share of positives by value"
    axis = f" of {plot.xlabel}" if plot.xlabel else ""
    caption = f"{title}{axis}; above each bar its rows; dashed: the share in all rows, {base:.1%}."
    return _figure(body, caption, slanted=_slanted(names))


def _offsets(plot: Offsets) -> Html:
    """Where the values lie, of the positive and of the negative rows apart."""
    edges, positive, negative = plot.edges, plot.positive, plot.negative
    most = max([*positive, *negative, 1e-9])
    step = (WIDTH - _LEFT - _RIGHT) / len(positive)
    body = ""
    for place, pair in enumerate(zip(positive, negative, strict=True)):
        for side, (share, colour) in enumerate(zip(pair, (RED, BLUE), strict=True)):
            start, high = _LEFT + step * (place + 0.06 + 0.44 * side), _y(share, most)
            body += (
                f'<rect x="{start:.1f}" y="{high:.1f}" width="{step * 0.42:.1f}" '
                f'height="{HEIGHT - _BOTTOM - high:.1f}" fill="{colour}"/>'
            )
    every = max(1, len(edges) // 8)
    for place in range(0, len(edges), every):
        body += f'<text x="{_LEFT + step * place:.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
        body += f"{_short(edges[place])}</text>"
    body += _floor() + f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{most:.0%}</text>'
    legend = Html(
        f'<b style="color:{RED}">■</b> rows where the label is 1 &nbsp; <b style="color:{BLUE}">■</b> where it is 0. '
    )
    return _figure(body, f"How far the values lie from the prediction, in {plot.unit}.", legend)


def _bars(
    values: Sequence[float],
    colours: Sequence[str],
    above: Sequence[str],
    names: Sequence[str],
    top: float | None = None,
) -> str:
    most = top or max([*values, 1e-9])
    step = (WIDTH - _LEFT - _RIGHT) / max(len(values), 1)
    slanted = _slanted(names)
    body = ""
    for place, (value, colour) in enumerate(zip(values, colours, strict=True)):
        start, high = _LEFT + step * (place + 0.12), _y(value, most)
        middle, floor = start + step * 0.38, HEIGHT - _BOTTOM
        body += (
            f'<rect x="{start:.1f}" y="{high:.1f}" width="{step * 0.76:.1f}" height="{max(floor - high, 0.6):.1f}" '
            f'fill="{colour}"/>'
        )
        if above[place] and step > 22:
            body += f'<text class=small x="{middle:.1f}" y="{high - 3:.1f}" text-anchor="middle">{above[place]}</text>'
        name = names[place] if len(names[place]) <= 14 else names[place][:13] + "…"
        turn = (
            f' transform="rotate(-38 {middle:.1f} {floor + 13})" text-anchor="end"'
            if slanted
            else ' text-anchor="middle"'
        )
        body += f'<text x="{middle:.1f}" y="{floor + 13}"{turn}>{text(name)}</text>'
    return body + _floor()


def _slanted(names: Sequence[str]) -> bool:
    """Too many or too long to stand side by side."""
    return len(names) > 8 or any(len(name) > 9 for name in names)


def _floor() -> str:
    floor = HEIGHT - _BOTTOM
    return f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{floor}" y2="{floor}" stroke="#999"/>'


def _y(value: float, most: float) -> float:
    return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - min(max(value / most, 0.0), 1.0))


def _figure(body: str, caption: str, legend: str = "", *, slanted: bool = False) -> Html:
    height = HEIGHT if slanted else HEIGHT - _BOTTOM + 24
    return kit.figure(kit.svg(body, WIDTH, height, caption), caption, legend=legend)


# -- words ------------------------------------------------------------------------------------


def _value(value: Cell) -> str:
    return "–" if value is None else str(value)[:120]


def _named(kind: str) -> str:
    return kind.replace("_", " ")


def _short(value: float) -> str:
    return f"{value:.3g}"


def _between(suspicion: Suspicion) -> str:
    return f"{_short(suspicion.interval[0])} – {_short(suspicion.interval[1])}" if suspicion.interval else "exact"


_STYLE = """
main { max-width: 860px }
.verdict { font-size: 30px; font-weight: 700; margin: 0; text-transform: uppercase; letter-spacing: .04em }
.reason { font-size: 16px } .meaning { font-weight: 600 }
td.kind { overflow-wrap: normal } td.column { min-width: 110px }
.rows td { font: 12.5px/1.5 ui-monospace, monospace; white-space: nowrap }
.suspicion { color: var(--ink); border-left: 4px solid var(--bad) } .suspicion.wait { border-left-color: var(--wait) }
svg { min-width: 520px; max-width: 660px } .scale svg { min-width: 0 } .tested li { margin: 2px 0 }
"""
