"""The page of a source's night: which checks failed, with the rows that break them, and what comes of it for whom.

Drawn when the night is judged, of what is at hand then: the results, how the tables stand, and who reads them. Rows are
read of what failed only, so that a good night costs a page of text. A night that is judged again once it is mended
keeps what had failed before: a red task of that attempt leads here.
"""

import re
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.pages import kit
from tiltyard.pages.kit import Html
from tiltyard.prepare import columns, contracts, transform
from tiltyard.prepare.columns import Columns
from tiltyard.prepare.publishing import Feeding
from tiltyard.rails import Rails, drawing
from tiltyard.records import TableState
from tiltyard.records.publication import plain
from tiltyard.spec import Spec, portfolio
from tiltyard.suites import CheckReport, CheckResult, page
from tiltyard.words import counted, listed

HOW_TO = "docs/how-to/add-a-source.md"
"""Where it is written what to do with a delivery that is wrong, below the checkout."""
ATTEMPTS = 5
"""Earlier attempts at a night that its page keeps."""
_FAILED = re.compile(r"<!--failed-->(.*?)<!--/failed-->", re.DOTALL)
_EARLIER = re.compile(r"<!--earlier-->.*?<!--/earlier-->", re.DOTALL)


def path(source: str, night: date) -> str:
    """Where the page of a source's night lies, below `settings.reports`."""
    return f"checks/{source}/{night}.html"


def draw(
    rails: Rails,
    feeding: Feeding,
    source: str,
    as_of: datetime,
    reports: Sequence[CheckReport],
    states: Sequence[TableState],
) -> str | None:
    """Draw the page of a night that was judged. `states`: how the source's tables stand after it.

    Returns its path below `settings.reports`; None, with an event in the ledger, where it could not be drawn: what was
    found is kept all the same, and nobody's night waits for a page.
    """
    night = night_closing(as_of)
    name = path(source, night)
    with drawing(rails, name, night):
        there = rails.settings.reports / name
        kit.save(_Night(rails, feeding, source, night, reports, states).content(there), there)
        return name
    return None


class _Night:
    """What a page says of one night."""

    def __init__(
        self,
        rails: Rails,
        feeding: Feeding,
        source: str,
        night: date,
        reports: Sequence[CheckReport],
        states: Sequence[TableState],
    ) -> None:
        self.rails, self.feeding, self.source, self.night = rails, feeding, source, night
        self.results = [result for report in reports for result in report.results]
        self.failed = [check for check in page.ordered(self.results) if not check.success]
        self.states = {state.table: state for state in states if not state.is_published}
        self.good = rails.ledger.newest_good(dict.fromkeys(self.states, night)) if self.states else {}
        self.specs = portfolio(rails.settings) if self.states or self.failed else ()

    def content(self, there: Path) -> str:
        """The page as HTML. `there`: that of the attempt before, where there was one."""
        title = f"Checks of {self.source}, night of {self.night}"
        at_fault = [state for state in self.states.values() if state.cause == state.table]
        behind = len(self.states) - len(at_fault)
        sentences = [f"{state.table} is {state.state}." for state in at_fault]
        if behind:
            sentences.append(
                f"With it {counted(behind, 'table')} made of it {'stays' if behind == 1 else 'stay'} as of before."
            )
        worst = "bad" if self.states else ""
        tables = dict.fromkeys([*(state.table for state in at_fault), *(plain(check.table) for check in self.failed)])
        header = page.header(title, self.results, *sentences, worst=worst)
        failed = kit.joined(self.section(table) for table in tables)
        parts = [header, Html(f"<!--failed-->{failed}<!--/failed-->"), *_earlier(there, failed)]
        return kit.page(title, [*parts, page.every(self.results)], page.STYLE)

    def section(self, table: str) -> Html:
        """A table with something wrong: how it stands, who reads it, what failed with its rows, and what to do."""
        state = self.states.get(table)
        checks = [check for check in self.failed if plain(check.table) == table]
        css, word = ("bad", state.state) if state else ("wait", "in service")
        heading = Html(f'<h2>{kit.text(table)} <span class="tag {css}">{kit.text(word)}</span></h2>')
        hides, keys = _hiding(self.rails), partial(_keys, self.rails)
        told: page.Told = {}
        failures = [page.failure(self.rails, check, told, keys, hides, is_good=state is None) for check in checks]
        said = []
        if state and not checks:
            said.append(kit.paragraph(state.reason or ""))
        return Html(
            f"<section>{heading}{kit.joined([self.standing(table, state), *said, *failures])}"
            f"<h4>What to do</h4>{kit.items(self.steps(table, state, checks))}</section>"
        )

    def standing(self, table: str, state: TableState | None) -> Html:
        """How a table stands, and what that is to the models that read it."""
        readers = self.readers(table)
        if state is None:
            told = "It is in service as of this night."
        elif last := self.good.get(table):
            told = f"It stays in service as of its last good night, {last.good_night or last.night}."
        else:
            told = "It was never good, so that nothing of it is in service."
        if not readers:
            return kit.paragraph(f"{told} No model reads it.")
        if state is None:
            return kit.paragraph(f"{told} Read by {listed(sorted(spec.name for spec in readers))}.")
        waiting = [spec for spec in readers if self.is_touched(spec.prediction.spine, table)]
        others = [spec for spec in readers if spec not in waiting]
        lines = []
        if waiting:
            lines.append(
                f"{_named(waiting)}: the rows to score come from it, so that the night waits, and is caught up on the "
                "night on which it is good again."
            )
        if others:
            lines.append(f"{_named(others)}: scored on its last good rows, and not retrained.")
        return kit.joined([kit.paragraph(told), kit.items(lines)])

    def readers(self, table: str) -> list[Spec]:
        """The models that stand on a table, at whatever distance, the highest stakes first."""
        readers = [spec for spec in self.specs if any(self.is_touched(name, table) for name in spec.tables)]
        return sorted(readers, key=lambda spec: (spec.tier, spec.name))

    def is_touched(self, name: str, table: str) -> bool:
        """Whether a table is another one, or is made of it."""
        return name == table or self.feeding.graph.stands_on(name, table)

    def steps(self, table: str, state: TableState | None, checks: Collection[CheckResult]) -> list[object]:
        """What to do, a sentence each."""
        again = f"tiltyard features --source {self.source} --as-of {self.night}"
        run = Html(
            "Then let the night run again: clear the run of "
            f'<a href="/dags/{kit.text(self.source)}__features" target="_top">{kit.text(self.source)}__features</a> '
            "from <em>ingest</em>, which does the whole of it, the features and then the models. "
            f"<code>{kit.text(again)}</code> does the features alone; the models follow when you start "
            '<a href="/dags/shadow" target="_top">shadow</a> with no night filled in. Or let the next night do it all.'
        )
        if state and state.state == "failed":
            return ["Mend its SQL, or what it reads: the sentence above is dbt's.", run]
        if state and state.state == "late":
            return ["Ask the source. Nothing is lost: what comes later is taken with the next night.", run]
        steps: list[object] = []
        if self.feeding.of_table(table):
            command = f"tiltyard replace {self.source} FILE --reason '…'"
            steps.append(
                Html(
                    f"Where the delivery is wrong, have it mended and taken in its place: <code>{kit.text(command)}"
                    f"</code> (<code>{HOW_TO}</code>)."
                )
            )
        places = listed(sorted({check.place for check in checks if check.place}))
        limits = f"{contracts.path_of(self.source)}, or {places}" if table.startswith("raw.") else places
        if limits:
            steps.append(
                Html(
                    f"Where it is right as it came, mend the limit: <code>{kit.text(limits)}</code>, and "
                    "<code>tiltyard release</code>."
                )
            )
        return [*steps, run] if state else (steps or ["Nothing has to be done tonight."])


def _earlier(there: Path, failed: Html) -> list[Html]:
    """What failed in the attempts before, the newest first, as the page of the last one has it; folded away. An attempt
    at which the same failed is none of its own."""
    if not there.is_file():
        return []
    before = there.read_text(encoding="utf-8")
    kept = _EARLIER.findall(before)
    then = _FAILED.search(before)
    if then and then[1] and then[1] != failed:
        judged = datetime.fromtimestamp(there.stat().st_mtime, UTC)
        kept.insert(0, f"<!--earlier--><details><summary>What had failed until {judged:%Y-%m-%d %H:%M} UTC</summary>"
                    f"{then[1]}</details><!--/earlier-->")  # fmt: skip
    return [kit.section("Earlier attempts", *map(Html, kept[:ATTEMPTS]))] if kept else []


def _named(specs: Sequence[Spec]) -> str:
    return listed([f"{spec.name} (tier {spec.tier})" for spec in specs])


def _keys(rails: Rails, table: str) -> tuple[str, ...]:
    """The columns that name a row of a table: of a raw one its key, else those by which dbt replaces rows."""
    try:
        if table.startswith("raw."):
            declared = (contracts.read(rails.settings, source).table(table[4:]) for source in rails.settings.sources)
            contract = next((found for found in declared if found), None)
            key = contracts.known_key(rails.settings, contract) if contract else None
            return ("source_file", "row_number", *([key] if key else []))
        nodes = transform.manifest(rails.settings)["nodes"].values()
    except (BadInput, OSError, KeyError):
        return ()
    found = [node["config"].get("unique_key") or () for node in nodes if node["name"] == plain(table)]
    return tuple(name for own in found for name in ([own] if isinstance(own, str) else own))


def _hiding(rails: Rails) -> page.Hides:
    """Which columns identify a person, as far as that is said; all of them where what is said cannot be read."""
    try:
        said: Columns | None = columns.read(rails.settings)
    except BadInput:
        said = None
    return lambda table, column: said is None or said.identifies(plain(table), column)
