"""The line above every report: where it belongs, the way back, and the night before and after.

A report is a file of its own, which knows nothing of the pages around it and is read from a disk as well. So the line
is put in where it is served, also into pages that a library has drawn.
"""

import re
from datetime import date
from pathlib import Path
from urllib.parse import quote

from tiltyard.edge import reports
from tiltyard.pages import kit
from tiltyard.pages.kit import Html

_BODY = re.compile(rb"<body\b[^>]*>", re.IGNORECASE)
_STYLE = (
    "display:flex;flex-wrap:wrap;gap:4px 14px;padding:8px 20px;font:14px/1.5 system-ui,sans-serif;max-width:1180px;"
    "margin:0 auto"
)
LIGHT = b":root { color-scheme: light }"
"""In the style of an evidence page, whose bytes are what a person has approved: they stay as they are, whatever the
other pages look like by then, and are made to fit where they are shown."""
DARK_AND_NARROW = """
@media (prefers-color-scheme: dark) {
  :root { color-scheme: dark } body { background: #111418; color: #e4e8ee }
  header, section { background: #1a1f26; border-color: #333b46 } header { border-left-color: #53c58f }
  th, dt, .quiet, figcaption { color: #9aa6b5 } th, td { border-bottom-color: #333b46 } a { color: #7bb7f5 }
  figure svg { background: #fff; border-radius: 6px; filter: invert(.89) hue-rotate(180deg) }
}
@media (max-width: 640px) {
  main { padding: 12px 8px 40px } header, section { padding: 14px } dl { gap: 12px 22px }
  .wide table { min-width: 600px } td { overflow-wrap: normal } .origin th { width: auto }
  .origin td { overflow-wrap: anywhere }
  figure { overflow-x: auto } figure svg { min-width: 560px }
  main > section:nth-of-type(2) table { min-width: 0 } main > section:nth-of-type(2) tr:first-child { display: none }
  main > section:nth-of-type(2) tr { display: grid; grid-template-columns: 1fr auto auto auto; gap: 0 12px }
  main > section:nth-of-type(2) td:last-child { grid-column: 1 / -1 }
}
td { overflow-wrap: normal } td.wide, .origin td { overflow-wrap: anywhere }
"""
"""How an evidence page looks in the dark, and in a narrow frame: tables and pictures scroll, no word is broken, and in
the table of what the gate asked, the second part, each reason stands below its figures."""


def added(page: Path, root: Path, prefix: str) -> bytes:
    """A report with the line above it. `page`: a file below `root`; `prefix`: the address of the portfolio page."""
    content = page.read_bytes()
    body = _BODY.search(content)
    if body is None:
        return content
    line = nav(page, root.resolve(), prefix)
    if LIGHT in content[: body.start()]:
        line = Html(f"<style>{DARK_AND_NARROW}</style>{line}")
    rest = content[body.end() :]
    for scrolls in (b"<figure", b"<div class=wide"):  # is reached from the keyboard; approved pages keep their bytes
        rest = rest.replace(scrolls + b">", scrolls + b" tabindex=0>")
    return content[: body.end()] + line.encode() + rest


def nav(page: Path, root: Path, prefix: str) -> Html:
    """The line itself: the portfolio, the folders above, and the nights beside it where the page is of one."""
    folders = page.relative_to(root).parent.parts
    links = [_link(f"{prefix}/", "Portfolio"), _link(f"{prefix}/reports/", "Reports")]
    links += [
        _link(f"{prefix}/reports/{'/'.join(folders[: place + 1])}/", folder) for place, folder in enumerate(folders)
    ]
    address = "/".join((f"{prefix}/reports", *folders))
    before, after = _beside(page)
    if before or after:
        links.append(_link(f"{address}/{before}", f"◀ {_stem(before)}") if before else Html("<span>◀</span>"))
        links.append(kit.joined([kit.Html("<strong>"), page.stem, kit.Html("</strong>")]))
        links.append(_link(f"{address}/{after}", f"{_stem(after)} ▶") if after else Html("<span>▶</span>"))
    return Html(f'<nav aria-label="Way back" style="{_STYLE}">{kit.joined(links)}</nav>')


def _beside(page: Path) -> tuple[str, str]:
    """The names of the pages of the night before and the night after, in the same folder; empty where there is none,
    and of a page that is of no night."""
    if not _is_night(page.stem):
        return "", ""
    names = [entry.name for entry in reports.entries(page.parent)]
    nights = sorted({name for name in names if name.endswith(".html") and _is_night(_stem(name))} | {page.name})
    place = nights.index(page.name)
    return (nights[place - 1] if place else ""), (nights[place + 1] if place + 1 < len(nights) else "")


def _is_night(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _stem(name: str) -> str:
    return name.removesuffix(".html")


def _link(address: str, label: str) -> Html:
    return Html(f'<a href="{kit.text(quote(address))}">{kit.text(label)}</a>')
