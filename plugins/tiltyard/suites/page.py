"""Checks as a person reads them: what failed first, with the rows that break it, then all there are.

Rows are read when the page is drawn, of what has failed only. Of a column that identifies a person no value is shown.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import duckdb

from tiltyard.clock import night_closing
from tiltyard.lake import quoted
from tiltyard.pages import kit
from tiltyard.pages.kit import Html, PageColumn
from tiltyard.rails import Rails, drawing
from tiltyard.suites.expectations import SEVERITIES
from tiltyard.suites.results import CheckResult, RowsAt
from tiltyard.words import counted

log = logging.getLogger(__name__)

SHOWN = 20
"""Rows of one check that a page shows."""
WIDE = 9
"""Columns of them."""
PLACE, TIMES = ("source_file", "row_number"), ("prediction_time", "event_time", "available_at")
"""Columns that say which row of which delivery it is, and when it was known."""
CONSEQUENCE = {
    "critical": "It holds the table, and what is made of it, where they were last good.",
    "warning": "It tells, and holds nothing: the table is in service as it came.",
}
"""Severity → what comes of a check that fails."""
BESIDE = "By itself it would hold nothing."
"""What a warning comes to on a table that is not good for another reason."""
MARKS = {"critical": "bad", "warning": "wait"}
"""Severity → the colour of a check that failed."""
LOADER_TIMES = ("built_at", "ingested_at", "landed_night")
"""Columns of our own loaders, which say nothing of a row."""
HIDDEN = "(not shown: it identifies a person)"
STYLE = """
main { max-width: 1180px } td { overflow-wrap: anywhere } .rows td { overflow-wrap: break-word }
@media (max-width: 640px) { .rows { min-width: 600px } }
h2 .tag { vertical-align: 2px } h4 { margin: 16px 0 2px; font-size: 14px; color: var(--ink) }
details > summary { cursor: pointer; color: var(--soft) } code { overflow-wrap: anywhere }
"""

Keys = Callable[[str], Sequence[str]]
"""Table → the columns that name one of its rows, as far as they are known."""
Hides = Callable[[str, str], bool]
"""Table and column → whether its values are not shown."""
Told = dict[Html, str]
"""Rows as a page shows them → the check that they are shown of."""


def draw(rails: Rails, suite: str, subject: str, as_of: datetime, results: Sequence[CheckResult]) -> str | None:
    """The page of one suite about one subject, like a training frame. Returns its path under settings.reports; None,
    with an event in the ledger, where it could not be drawn: what was found is kept all the same."""
    night = night_closing(as_of)
    name = f"{suite}/{subject or 'portfolio'}/{night}.html"
    path = None
    with drawing(rails, name, night):
        title = f"{suite.replace('_', ' ').capitalize()} of {subject or 'the portfolio'}, night of {night}"
        parts = [header(title, results), *(_failures(rails, results)), every(results)]
        path = kit.save(kit.page(title, parts, STYLE), rails.settings.reports / name)
    return str(path.relative_to(rails.settings.reports)) if path else None


def _failures(rails: Rails, results: Sequence[CheckResult]) -> list[Html]:
    failed = [check for check in ordered(results) if not check.success]
    tables = dict.fromkeys(check.table for check in failed)
    told: Told = {}
    return [
        kit.section(table, *(failure(rails, check, told) for check in failed if check.table == table))
        for table in tables
    ]


def header(title: str, results: Sequence[CheckResult], *sentences: str, worst: str = "") -> Html:
    """What a page of checks begins with. `worst`: the colour where something else than a check is worse."""
    failed = [check for check in results if not check.success]
    colour = worst or (MARKS[min((check.severity for check in failed), key=SEVERITIES.index)] if failed else "good")
    told = f"{len(failed)} of {counted(len(results), 'check')} failed." if failed else "Every check is as it should be."
    lines = kit.joined(kit.paragraph(sentence) for sentence in (told, *sentences))
    return Html(f"<header class={colour}><h1>{kit.text(title)}</h1>{lines}</header>")


def failure(
    rails: Rails,
    check: CheckResult,
    told: Told,
    keys: Keys = lambda table: (),
    hides: Hides = lambda *_: False,
    *,
    is_good: bool = True,
) -> Html:
    """A check that failed: what was seen, what is allowed, what comes of it, why it is there, and the rows, where they
    are not `told` yet: two checks of one fault share theirs. `is_good`: whether its table is in service."""
    where = f"{check.column}: " if check.column else ""
    consequence = CONSEQUENCE[check.severity] if is_good or check.severity == "critical" else BESIDE
    name = where + worded(check.name)
    allowed = f" ({check.limit})" if check.limit else ""
    return kit.joined(
        [
            Html(f"<h4>{mark(check)} {kit.text(name)}</h4>"),
            kit.paragraph(f"Seen: {check.observed}{allowed}. {consequence}"),
            kit.paragraph(check.detail, "soft"),
            *(_once(told, rows(rails, check.table, at, keys, hides), f"{check.table} {name}") for at in check.rows),
            kit.paragraph(f"The check stands in {check.place}.", "quiet") if check.place else "",
        ]
    )


def _once(told: Told, shown: Html, name: str) -> Html:
    if "<td" not in shown:
        return shown
    if (first := told.setdefault(shown, name)) != name:
        return kit.paragraph(f"Its rows are those that are shown above: {first}.", "quiet")
    return shown


def rows(rails: Rails, table: str, at: RowsAt, keys: Keys, hides: Hides) -> Html:
    """The rows that break a check, with what names them; or why they cannot be shown."""
    try:
        relation = rails.lake.connection.sql(at.sql)
        names = _chosen(relation.columns, keys(table), at.columns)
        shown = ", ".join(f"{quoted(name)}::varchar" for name in names)
        order = ", ".join(quoted(name) for name in names)
        found = rails.lake.connection.execute(
            f"select {shown} from ({at.sql}) order by {order} limit {SHOWN + 1}"
        ).fetchall()
    except duckdb.Error as error:
        return kit.paragraph(f"Its rows cannot be shown: {str(error).strip().splitlines()[0]}", "quiet")
    if not found:
        return kit.paragraph("Its rows are not there any more: the table has been built anew since.", "quiet")
    hidden = [hides(table, name) for name in names]
    cells = [
        [HIDDEN if hide else "–" if value is None else value[:200] for value, hide in zip(row, hidden, strict=True)]
        for row in found[:SHOWN]
    ]
    more = kit.paragraph(f"The first {SHOWN} rows, by {names[0]}; there are more.", "quiet")
    marked = [PageColumn(name, "bad" if name in at.columns else "") for name in names]
    return kit.joined([kit.table(marked, cells, "rows"), more if len(found) > SHOWN else ""])


def _chosen(there: Sequence[str], keys: Sequence[str], broken: Sequence[str]) -> list[str]:
    """The columns that are shown: what names the row, what is broken, when it was known; all where they are few."""
    first = [name for name in dict.fromkeys([*PLACE, *keys, *broken]) if name in there]
    times = [name for name in TIMES if name in there and name not in first]
    others = [name for name in there if name not in (*first, *times, *LOADER_TIMES)]
    return [*first, *others[: max(WIDE - len(first) - len(times), 0)], *times]


def every(results: Sequence[CheckResult]) -> Html:
    """All checks as a table, folded away."""
    columns = [PageColumn(heading) for heading in ("", "table", "column", "check", "seen", "allowed", "why")]
    lines = [
        (mark(check), check.table, check.column or "", worded(check.name), check.observed, check.limit, check.detail)
        for check in ordered(results)
    ]
    table = kit.table(columns, lines)
    return kit.section("All checks", Html(f"<details><summary>{len(lines)} of them</summary>{table}</details>"))


def ordered(results: Iterable[CheckResult]) -> list[CheckResult]:
    """What failed first, what is critical before what warns, then by table."""
    return sorted(
        results, key=lambda check: (check.success, SEVERITIES.index(check.severity), check.table, check.column or "")
    )


def worded(name: str) -> str:
    """The name of an expectation as words."""
    return name.removeprefix("expect_").replace("column_values_to", "values to").replace("_", " ")


def mark(check: CheckResult) -> Html:
    """How a check went, in a word with its colour."""
    css, word = ("good", "ok") if check.success else (MARKS[check.severity], check.severity)
    return Html(f'<span class="tag {css}">{kit.text(word)}</span>')
