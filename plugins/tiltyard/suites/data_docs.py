"""Data Docs: the pages of a suite, an index of its checks and one per batch that failed any."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tiltyard.clock import night_closing
from tiltyard.pages import kit
from tiltyard.pages.kit import Html, PageColumn
from tiltyard.rails import Rails, drawing
from tiltyard.suites.expectations import SEVERITIES
from tiltyard.suites.gx import quiet
from tiltyard.suites.results import CheckResult
from tiltyard.suites.running import SuiteResult

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult

log = logging.getLogger(__name__)


def render(
    rails: Rails,
    suite: str,
    subject: str,
    as_of: datetime,
    pages: Mapping[str, SuiteResult],
    results: Sequence[CheckResult],
) -> str | None:
    """Data Docs of a suite: an index of every check, and a page per batch that failed one. Returns the index's path
    under settings.reports; None, with an event in the ledger, where they could not be drawn: what was found is kept
    all the same, and nobody's night waits for a page.

    `pages` maps each table to what was found on it, `results` is what the index lists. Great Expectations takes a third
    of a second a page, and of a batch that is as it should be the index says all there is.
    """
    night = night_closing(as_of)
    folder = Path("data_docs") / night.isoformat() / suite / (subject or "portfolio")
    title = f"{suite} {subject} {night}".replace("  ", " ")
    index = None
    with drawing(rails, str(folder), night):
        index = _draw(rails.settings.reports / folder, title, pages, results)
    return str(index.relative_to(rails.settings.reports)) if index else None


def _draw(target: Path, title: str, pages: Mapping[str, SuiteResult], results: Sequence[CheckResult]) -> Path:
    """The index."""
    links = []
    for table, result in sorted(pages.items()):
        if result.validation is None or all(check.success for check in result.results):
            continue
        try:
            page = _page(result.validation)
        except Exception as error:  # a value that Great Expectations cannot draw: the index says what was found of it
            log.warning("%s: %s is not drawn", title, table, exc_info=error)
            links.append(Html(f"{kit.text(table)} (cannot be drawn: {kit.text(error)})"))
            continue
        kit.save(page, target / f"{table}.html")
        links.append(Html(f'<a href="{kit.text(table)}.html">{kit.text(table)}</a>'))
    return kit.save(kit.page(title, _index(title, links, results), STYLE), target / "index.html")


def _page(validation: "ExpectationSuiteValidationResult") -> str:
    """Great Expectations' own page of a batch, as HTML."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaPageView

    with quiet():
        document = ValidationResultsPageRenderer(run_info_at_end=True).render(validation)
        page: str = DefaultJinjaPageView().render(document)  # type: ignore[no-untyped-call]
    return page


STYLE = "main { max-width: none } table { min-width: 920px } td { overflow-wrap: normal }"
"""Names stay whole, and the table scrolls where the window is too narrow for them."""
MARKS = {"critical": "bad", "warning": "wait"}
"""Severity → the colour of a check that failed."""


def _index(title: str, links: Sequence[Html], results: Sequence[CheckResult]) -> list[Html]:
    """Every check of the suite, those that failed first, and the pages that say more."""
    checks = sorted(results, key=lambda check: (check.success, SEVERITIES.index(check.severity), check.table))
    columns = [PageColumn(heading) for heading in ("", "table", "column", "check", "observed", "why")]
    rows = [
        (_mark(check), check.table, check.column or "", check.name, check.observed, check.detail) for check in checks
    ]
    failed = sum(not check.success for check in checks)
    worst = next((MARKS.get(check.severity, "wait") for check in checks if not check.success), "good")
    in_full = kit.section("In full, as Great Expectations has it", kit.paragraph(kit.joined(links, " · ")))
    heading = f"<h1>{kit.text(title)}</h1>"
    return [
        Html(f"<header class={worst}>{heading}{kit.paragraph(f'{failed} of {len(checks)} checks failed.')}</header>"),
        kit.section("Checks", kit.table(columns, rows)),
        *([in_full] if links else []),
    ]


def _mark(check: CheckResult) -> Html:
    css, words = ("good", "ok") if check.success else (MARKS.get(check.severity, "wait"), check.severity)
    return Html(f'<span class="tag {css}">{kit.text(words)}</span>')
