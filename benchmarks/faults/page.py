"""docs/reference/faults.md, from the results."""

import re
from collections import Counter
from collections.abc import Sequence
from textwrap import shorten

from faults import business
from faults.kinds import KINDS
from faults.trial import Result
from tiltyard.settings import ROOT

PAGE = ROOT / "docs" / "reference" / "faults.md"
HOME = re.compile(r"/[^\s']*/place/(checkout/|home/)?")
"""Where the kinds were tried, which says nothing."""
SEEN = 400
"""Characters of what a person sees."""
GROUPS = {
    "nothing": "No fault",
    "delivery": "What a source delivers",
    "check": "Checks",
    "dbt": "The dbt project",
    "suite": "Suites",
    "spec": "Specs",
    "process": "Processes",
    "version": "Versions of models",
    "disk": "Disks",
    "online": "Online features",
    "ledger": "The ledger",
}
HEAD = """# What a fault does, and to whom

Written by `python benchmarks/blast.py --docs`; do not edit. {models} models read {sources} sources: every source has
its own deliveries, staging, spine, three feature views, labels and popular items, and five models, each of which reads
another choice of the views. Every kind of fault below was put into a copy of the same home, the night was played
through the tasks of the DAG files, each a process of its own, and held against the night without a fault. What no
features read or write (stages of models, files of versions) was broken when the night's features were in service.

- **Downstream** are the models that stand on what was broken, by lineage, and how their rows were answered. A table
  that is not good is read as of its last good night; a row that the night does not have is answered by the service.
- **Collateral** are all other models of which anything is not what it was on the undisturbed night, byte for byte:
  predictions with tier, version and reason, evaluations, estimates, histograms, drift, decisions, findings, what the
  governor decided, how every stage ended and what it said. Left out are snapshots, instants of the wall clock, and ids
  (`benchmarks/faults/rows.py`).
- **Mended**: the fault is taken away and the source's night is done again by hand, or the next run takes up what is
  due. *same* says that every model's night is then the undisturbed one; only what was decided, asked or put down
  meanwhile stands.

{kinds} kinds, collateral {collateral}, rows without an answer {unanswered}.
"""


def write(results: Sequence[Result]) -> None:
    """Write the page. Kinds without a result keep the row that it has of them."""
    rows = _rows_there() | {result.kind: _row(result) for result in results}
    lines = [
        HEAD.format(
            models=len(business.every_model()),
            sources=len(business.SOURCES),
            kinds=sum(name in rows and kind.group != "nothing" for name, kind in KINDS.items()),
            collateral=sum(int(row.split(" | ")[-2]) for row in rows.values()),
            unanswered=sum(len(result.unanswered) for result in results),
        )
    ]
    for group, title in GROUPS.items():
        own = [rows[name] for name, kind in KINDS.items() if kind.group == group and name in rows]
        if not own:
            continue
        lines += [
            f"\n## {title}\n",
            "| kind | what is broken | tables not published | downstream, and how it was answered "
            "| where a person sees it | collateral | mended |",
            "|---|---|---|---|---|--:|---|",
        ]
        lines += own
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows_there() -> dict[str, str]:
    """Kind → its row on the page as it stands."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    return {found[1]: found[0] for found in re.finditer(r"^\| `(\w+)` \| .*$", text, re.MULTILINE)}


def _row(result: Result) -> str:
    states = Counter(result.tables.values())
    tables = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"
    answers = ", ".join(f"{count} × {how}" for how, count in result.answers.items())
    downstream = f"{result.downstream}, {result.touched} noticed: {answers}" if result.downstream else "nobody"
    shown = [HOME.sub("", text) for text in result.seen[:2]]
    seen = "; ".join(shown) + (f"; and {len(result.seen) - 2} more" if len(result.seen) > 2 else "")
    seen = seen or result.unseen
    collateral = len(result.collateral) + len(result.collateral_tables)
    mended = (
        result.lasting
        if result.lasting and not result.left
        else f"{len(result.left)} differ"
        if result.left
        else "same"
    )
    seen = shorten(seen, SEEN, placeholder=" …")
    cells = (f"`{result.kind}`", result.what, tables, downstream, seen, str(collateral), mended)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
