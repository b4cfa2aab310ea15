"""The kit that every HTML page is made with: one style, light and dark, and the parts a page is put together from.

A page is one file with nothing to fetch and nothing to run. Whatever comes from data or from people is escaped: the
parts escape what they are given, and only what is `Html` already goes in as it is.
"""

import html
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tiltyard.files import whole

log = logging.getLogger(__name__)


class Html(str):
    """Text that is HTML already, made by the parts below or written by hand."""

    __slots__ = ()


class PageColumn(NamedTuple):
    """The head of a column of a table."""

    title: str
    """What stands in the head; empty for none."""
    css: str = ""
    """The CSS class of all its cells, like `number`; empty for none."""


def text(value: object) -> Html:
    """The value as HTML: escaped, unless it is HTML already."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def joined(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after the other, each as `text` gives it."""
    return Html(between.join(map(text, parts)))


def table(columns: Sequence[PageColumn], rows: Iterable[Sequence[object]], css: str = "") -> Html:
    """A table that scrolls sideways where the window is too narrow. `rows`: a cell for each of `columns`."""
    head = "".join(f"<th{_class(column.css)}>{text(column.title)}</th>" for column in columns)
    body = "".join(
        "<tr>"
        + "".join(f"<td{_class(column.css)}>{text(cell)}</td>" for column, cell in zip(columns, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return Html(f"<div class=wide><table{_class(css)}><tr>{head}</tr>{body}</table></div>")


def facts(values: Mapping[str, object]) -> Html:
    """Figures with their names, side by side."""
    pairs = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in values.items())
    return Html(f"<dl>{pairs}</dl>")


def paragraph(value: object, css: str = "") -> Html:
    """A paragraph."""
    return Html(f"<p{_class(css)}>{text(value)}</p>")


def items(entries: Iterable[object], css: str = "") -> Html:
    """A list of points."""
    return Html(f"<ul{_class(css)}>{''.join(f'<li>{text(entry)}</li>' for entry in entries)}</ul>")


def figure(drawing: Html, caption: str, *, legend: str = "", css: str = "") -> Html:
    """A drawing with what it shows written below it, the legend first."""
    return Html(f"<figure{_class(css)}>{drawing}<figcaption>{text(legend)}{text(caption)}</figcaption></figure>")


def drawn(draw: Callable[[], Html]) -> Html:
    """What `draw` draws, or, where a library cannot draw these values, why not: a picture takes no page with it."""
    try:
        return draw()
    except Exception as error:  # whatever a library says of numbers that it did not foresee
        log.warning("a picture is not drawn", exc_info=error)
        return paragraph(f"This cannot be drawn: {type(error).__name__}: {error}")


def svg(body: str, width: int, height: int, label: str) -> Html:
    """A drawing of its own; `label` is what those hear who do not see it."""
    return Html(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{text(label)}">{body}</svg>')


def section(heading: str, *parts: object) -> Html:
    """A part of a page under a heading."""
    return Html(f"<section><h2>{text(heading)}</h2>{joined(parts)}</section>")


def page(title: str, parts: Iterable[object], style: str = "") -> str:
    """A whole page in the kit's style, and `style` (CSS) after it."""
    return framed(title, parts, STYLE + style)


def framed(title: str, parts: Iterable[object], style: str) -> str:
    """A whole page in `style` (CSS) alone."""
    return _PAGE.format(title=text(title), style=style, body=joined(parts, "\n"))


def save(content: str, path: Path) -> Path:
    """Put a page into its place, whole or not at all; folders are made. Raises OSError when there is no writing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_bytes(
            content.encode("utf-8", "replace")
        )  # half a surrogate pair from somebody's text is no page's end
    return path


def _class(css: str) -> str:
    if not css:
        return ""
    return f" class={css}" if " " not in css else f' class="{css}"'


COLOURS = """
:root {
  color-scheme: light dark;
  --ground: light-dark(#f4f5f7, #111418); --card: light-dark(#ffffff, #1a1f26); --line: light-dark(#dde1e7, #333b46);
  --ink: light-dark(#1c2430, #e4e8ee); --soft: light-dark(#566170, #9aa6b5); --link: light-dark(#0b5cad, #7bb7f5);
  --good: light-dark(#18794e, #53c58f); --bad: light-dark(#b42318, #f0857c); --wait: light-dark(#8a5a00, #e0b050);
}
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif }
a { color: var(--link) }
.good { color: var(--good) } .bad { color: var(--bad) } .wait { color: var(--wait) } .soft { color: var(--soft) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) } th { color: var(--soft) }
.number { text-align: right; white-space: nowrap } .wide { overflow-x: auto }
"""
"""What all pages have in common, those of the Airflow plugin too: the colours, the letters, the rules of tables."""

STYLE = (
    COLOURS
    + """
main { max-width: 900px; margin: 0 auto; padding: 28px 20px 60px }
header, section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 18px 24px }
header, section { margin: 0 0 16px } header { border-left: 8px solid var(--edge, var(--line)) }
header.good { --edge: var(--good) } header.bad { --edge: var(--bad) } header.wait { --edge: var(--wait) }
header.good, header.bad, header.wait { color: var(--ink) }
h1 { font-size: 19px; margin: 0 0 8px; overflow-wrap: anywhere } h2 { font-size: 17px; margin: 0 0 8px }
h3 { font-size: 17px; margin: 0; overflow-wrap: anywhere } h4 { font-size: 13px; margin: 14px 0 4px }
h4, .quiet, figcaption, small { color: var(--soft) } .quiet, figcaption { font-size: 13px }
p { margin: 6px 0; overflow-wrap: anywhere } ul { margin: 0; padding-left: 20px }
dl { display: flex; flex-wrap: wrap; gap: 28px; margin: 14px 0 0 } dt { color: var(--soft); font-size: 12px }
dd { margin: 0; font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums }
table { width: 100%; font-size: 14px } th, td { padding: 5px 10px 5px 0 } td { overflow-wrap: break-word }
th { font-weight: 600; font-size: 12px }
.tag { font-size: 12px; font-weight: 600; padding: 1px 8px; border-radius: 9px; white-space: nowrap }
.tag { background: var(--tag, #6b6b6b); color: #fff } .tag.bad { --tag: #b00020 } .tag.wait { --tag: #8a5a00 }
.tag.good { --tag: #18794e }
figure { margin: 12px 0; overflow-x: auto } svg { display: block; width: 100%; height: auto }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft) } svg text.small { font-size: 9.5px }
@media (max-width: 520px) { main { padding: 12px 8px 40px } header, section { padding: 14px } dl { gap: 12px 22px } }
"""
)
"""The style of a report: sections as cards, in light and in dark."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main>
{body}
</main></body></html>
"""
