"""The auditor's page: one HTML file that convinces a person, with nothing to fetch and nothing to run.

Every finding has its sentence, its effect with the interval, the picture that a person needs to believe it, and rows
to look up. Whatever comes from the file is escaped. Pictures are SVG, in the palette of pages/plots.py.
"""

import html
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from tiltyard.errors import BadInput
from tiltyard.files import whole
from tiltyard.leak.audit import Audit
from tiltyard.leak.suspicion import KINDS, Cell, Example, Lateness, Offsets, Rates, Suspicion

BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6B6B6B"
"""Of Okabe and Ito's palette (2008), which the colour-blind tell apart."""
COLOURS = {"fail": "#B00020", "untestable": "#7A4B00", "warn": "#9A6700", "pass": "#1A7F37"}
MEANT = {
    "fail": "Something critical: evidence about time.",
    "warn": "Nothing about time; something statistical to look at.",
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


def write(audit: Audit, target: Path) -> Path:
    return save(render(audit), target)


def save(content: str, target: Path) -> Path:
    """Put a page into its place: whole, or not at all."""
    try:
        with whole(target) as part:
            part.write_text(content, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--report: {target} cannot be written: {error.strerror}.") from None
    return target


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
    parts = [
        f'<header style="border-color:{COLOURS[audit.verdict]}">',
        f'<p class="verdict" style="color:{COLOURS[audit.verdict]}">{_text(audit.verdict)}</p>',
        f"<h1>{_text(audit.path.name)}</h1><p class=reason>{_text(audit.reason)}</p>",
        f"<p class=reason>{_text(audit.coverage.sentence)}</p>",
        f"<p class=quiet>{_text(MEANT[audit.verdict])} The outcome is {_text(label)}.</p>",
        "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items()) + "</dl>",
        "</header>",
    ]
    if audit.suspicions:
        parts.append(_overview(audit.suspicions))
        parts += [_section(place, suspicion) for place, suspicion in enumerate(audit.suspicions)]
    parts.append(_tested(audit))
    if audit.notes:
        parts.append("<section><h2>How the file was read</h2><ul>")
        parts += [f"<li>{_text(note)}</li>" for note in audit.notes]
        parts.append("</ul></section>")
    return _PAGE.format(title=_text(f"{audit.verdict}: {audit.path.name}"), style=_STYLE, body="\n".join(parts))


# -- parts of the page ------------------------------------------------------------------------


def _overview(suspicions: Sequence[Suspicion]) -> str:
    rows = "".join(
        f'<tr><td><span class="tag {suspicion.severity}">{suspicion.severity}</span></td>'
        f'<td class=column><a href="#f{place}">{_text(suspicion.feature)}</a></td>'
        f"<td class=kind>{_text(_named(suspicion.kind))}</td>"
        f"<td class=number>{_short(suspicion.effect)}</td><td class=number>{_between(suspicion)}</td></tr>"
        for place, suspicion in enumerate(suspicions)
    )
    head = "<th></th><th>column</th><th>what</th><th class=number>effect</th><th class=number>interval</th>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<section><h2>What was found</h2><div class=wide>{table}</div></section>"


def _section(place: int, suspicion: Suspicion) -> str:
    picture = _picture(suspicion)
    return (
        f'<section id="f{place}" class="finding {suspicion.severity}">'
        f'<h3>{_text(suspicion.feature)} <span class="tag {suspicion.severity}">{suspicion.severity}</span></h3>'
        f"<p class=meaning>{_text(KINDS[suspicion.kind])}</p><p>{_text(suspicion.evidence)}</p>"
        f"{_effect(suspicion)}{picture}{_examples(suspicion.examples)}</section>"
    )


def _examples(examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    names = list(dict.fromkeys(name for row in examples for name in row))
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(_value(row.get(name)))}</td>" for name in names) + "</tr>" for row in examples
    )
    rows = "A row" if len(examples) == 1 else "Rows"
    return (
        f"<h4>{rows} to look up</h4><div class=wide><table class=rows><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _tested(audit: Audit) -> str:
    """What was looked for, and what could not be."""
    parts = ["<section><h2>What was tested</h2><ul class=tested>"]
    parts.append(f"<li>{_text(audit.exact)}</li>")
    parts += [f"<li><b>{_text(_named(kind))}</b> {_text(KINDS[kind])}</li>" for kind in audit.coverage.looked_for]
    parts.append("</ul></section>")
    if audit.untested:
        kinds: dict[tuple[str, str], list[str]] = {}
        for gap in audit.untested:
            kinds.setdefault((gap.feature, gap.why), []).append(gap.kind)
        rows = [
            f"<tr><td>{_text('every column' if feature == '*' else feature)}</td>"
            f"<td>{_text(', '.join('everything' if kind == '*' else _named(kind) for kind in names))}</td>"
            f"<td>{_text(why)}</td></tr>"
            for (feature, why), names in kinds.items()
        ]
        more = len(rows) - UNTESTED_SHOWN
        parts.append("<section><h2>What could not be tested</h2><table><thead><tr><th>column</th><th>for</th>")
        parts.append(f"<th>why</th></tr></thead><tbody>{''.join(rows[:UNTESTED_SHOWN])}</tbody></table>")
        parts.append(f"<p class=quiet>and {more:,} more</p></section>" if more > 0 else "</section>")
    return "".join(parts)


# -- pictures ---------------------------------------------------------------------------------


def _effect(suspicion: Suspicion) -> str:
    """The effect on its scale, with its interval; a share or an AUC on 0 to 1."""
    low, high = suspicion.interval or (suspicion.effect, suspicion.effect)
    ends = [value for value in (low, high, suspicion.effect) if math.isfinite(value)]
    if not ends:
        return ""
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
    return (
        f'<figure class=scale><svg viewBox="0 0 {width} 44" role="img" aria-label="{_text(caption)}">'
        f'<line x1="{margin}" x2="{width - margin}" y1="20" y2="20" stroke="#999"/>{marks}{span}'
        f'<circle cx="{at(suspicion.effect):.1f}" cy="12" r="5" fill="{colour}"/></svg>'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _anchor(step: int) -> str:
    return "start" if step == 0 else "end" if step == 4 else "middle"


def _picture(suspicion: Suspicion) -> str:
    match suspicion.plot:
        case Lateness() as plot:
            return _lateness(plot)
        case Rates() as plot:
            return _rates(plot)
        case Offsets() as plot:
            return _offsets(plot)
        case None:
            return ""


def _lateness(plot: Lateness) -> str:
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


def _rates(plot: Rates) -> str:
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


def _offsets(plot: Offsets) -> str:
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
    legend = (
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
        body += f'<text x="{middle:.1f}" y="{floor + 13}"{turn}>{_text(name)}</text>'
    return body + _floor()


def _slanted(names: Sequence[str]) -> bool:
    """Too many or too long to stand side by side."""
    return len(names) > 8 or any(len(name) > 9 for name in names)


def _floor() -> str:
    floor = HEIGHT - _BOTTOM
    return f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{floor}" y2="{floor}" stroke="#999"/>'


def _y(value: float, most: float) -> float:
    return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - min(max(value / most, 0.0), 1.0))


def _figure(body: str, caption: str, legend: str = "", *, slanted: bool = False) -> str:
    height = HEIGHT if slanted else HEIGHT - _BOTTOM + 24
    drawing = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{_text(caption)}">{body}</svg>'
    return f"<figure>{drawing}<figcaption>{legend}{_text(caption)}</figcaption></figure>"


# -- words ------------------------------------------------------------------------------------


def _text(value: str) -> str:
    return html.escape(value)


def _value(value: Cell) -> str:
    return "–" if value is None else str(value)[:120]


def _named(kind: str) -> str:
    return kind.replace("_", " ")


def _short(value: float) -> str:
    return f"{value:.3g}"


def _between(suspicion: Suspicion) -> str:
    return f"{_short(suspicion.interval[0])} – {_short(suspicion.interval[1])}" if suspicion.interval else "exact"


_STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; margin: 0; background: #f4f5f7; color: #222 }
main { max-width: 860px; margin: 0 auto; padding: 28px 20px 60px }
header, section { background: #fff; border: 1px solid #e3e3e3; border-radius: 8px; padding: 18px 24px }
header, section { margin: 0 0 16px } header { border-left: 8px solid }
.verdict { font-size: 30px; font-weight: 700; margin: 0; text-transform: uppercase; letter-spacing: .04em }
h1 { font-size: 19px; margin: 0 0 8px; overflow-wrap: anywhere } h2 { font-size: 17px; margin: 0 0 8px }
h3 { font-size: 17px; margin: 0; overflow-wrap: anywhere } h4 { font-size: 13px; margin: 14px 0 4px; color: #555 }
p { margin: 6px 0; overflow-wrap: anywhere } .reason { font-size: 16px }
.quiet, figcaption { color: #555; font-size: 13px }
.meaning { font-weight: 600 }
dl { display: flex; flex-wrap: wrap; gap: 28px; margin: 14px 0 0 } dt { color: #666; font-size: 12px }
dd { margin: 0; font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th, td { text-align: left; vertical-align: top; padding: 5px 10px 5px 0; border-bottom: 1px solid #eee }
td { overflow-wrap: anywhere } td.kind { overflow-wrap: normal } td.column { min-width: 110px }
th { color: #666; font-weight: 600; font-size: 12px }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.wide { overflow-x: auto } .rows td { font: 12.5px/1.5 ui-monospace, monospace; white-space: nowrap }
.tag { font-size: 12px; font-weight: 600; padding: 1px 8px; border-radius: 9px; color: #fff; white-space: nowrap }
.tag.critical { background: #B00020 } .tag.warning { background: #9A6700 }
.finding.critical { border-left: 4px solid #B00020 } .finding.warning { border-left: 4px solid #C79200 }
figure { margin: 12px 0; overflow-x: auto } svg { width: 100%; min-width: 520px; max-width: 660px; height: auto }
svg { display: block } .scale svg { min-width: 0 }
svg text { font: 11px system-ui, sans-serif; fill: #444 } svg text.small { font-size: 9.5px; fill: #666 }
@media (max-width: 520px) { main { padding: 12px 8px 40px } header, section { padding: 14px } dl { gap: 12px 22px } }
a { color: #0072B2 } ul { margin: 0; padding-left: 20px } .tested li { margin: 2px 0 }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main>
{body}
</main></body></html>
"""
