"""Data Docs: the pages of a suite, one per validated batch, and an index."""

import html
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from tiltyard.clock import night_closing
from tiltyard.files import whole
from tiltyard.rails import Rails
from tiltyard.suites.expectations import SEVERITIES
from tiltyard.suites.gx import quiet
from tiltyard.suites.results import CheckResult
from tiltyard.suites.running import SuiteResult


def render(
    rails: Rails,
    suite: str,
    subject: str,
    as_of: datetime,
    pages: Mapping[str, SuiteResult],
    results: Sequence[CheckResult],
) -> str:
    """Data Docs of a suite: a page per validated batch, and an index. Returns its path under settings.reports.

    `pages` maps each table to what was found on it, `results` is what the index lists.
    """
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaPageView

    folder = Path("data_docs") / night_closing(as_of).isoformat() / suite / (subject or "portfolio")
    target = rails.settings.reports / folder
    target.mkdir(parents=True, exist_ok=True)
    links = []
    for table, result in sorted(pages.items()):
        if result.validation is None:
            continue
        with quiet():
            document = ValidationResultsPageRenderer(run_info_at_end=True).render(result.validation)
            _write(target / f"{table}.html", DefaultJinjaPageView().render(document))  # type: ignore[no-untyped-call]
        links.append(f'<a href="{html.escape(table)}.html">{html.escape(table)}</a>')
    rows = []
    for check in sorted(results, key=lambda check: (check.success, SEVERITIES.index(check.severity), check.table)):
        mark = "ok" if check.success else check.severity
        cells = (mark, check.table, check.column or "", check.name, check.observed, check.detail)
        rows.append(f'<tr class="{mark}">{"".join(f"<td>{html.escape(cell)}</td>" for cell in cells)}</tr>')
    title = f"{suite} {subject} {night_closing(as_of)}".replace("  ", " ")
    page = _INDEX.format(title=html.escape(title), pages=" · ".join(links), rows="\n".join(rows))
    _write(target / "index.html", page)
    return str(folder / "index.html")


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a reader may have the page open."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


_INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #ddd }}
td:first-child {{ font-weight: 600 }}
tr.critical td:first-child {{ color: #b00020 }} tr.warning td:first-child {{ color: #9a6700 }}
tr.ok td:first-child {{ color: #1a7f37 }}
</style></head>
<body><h1>{title}</h1>
<p>In full: {pages}</p>
<table><thead><tr><th></th><th>table</th><th>column</th><th>check</th><th>observed</th><th>why</th></tr></thead>
<tbody>
{rows}
</tbody></table></body></html>
"""
