"""What a source's page shows of a night, kept in the ledger when the night is published, so that no page reads the
lake: what was delivered, how old the newest rows are, and how late rows really come."""

import logging
from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd

from tiltyard.clock import night_closing
from tiltyard.prepare import contracts, embargo
from tiltyard.prepare.publishing import Feeding
from tiltyard.rails import Rails
from tiltyard.records import Embargo, Freshness, LandedFile, Record
from tiltyard.spec import portfolio
from tiltyard.tables import LANDED_FILE

log = logging.getLogger(__name__)

SHOWN = 40
"""So many deliveries of a night are named; a first night may land the files of years."""


@dataclass(frozen=True, kw_only=True)
class SourceFigures(Record):
    """What was kept of a source's night."""

    freshness: dict[str, Freshness] = field(default_factory=dict)
    """Table of the source, without its schema → how old its newest row is."""
    latency: tuple[Embargo, ...] = ()
    """How late the rows of its tables, and of the feature views made of them, really were."""
    files: int = 0
    """Number of files that the night landed."""
    rows: int = 0
    """Number of rows in them."""
    deliveries: tuple[LandedFile, ...] = ()
    """The first of these files, by name."""


def keep(rails: Rails, source: str, as_of: datetime) -> None:
    """Keep what the page of a source shows of a night. Whatever goes wrong is in the log: no night waits for a page."""
    try:
        rails.ledger.chronicle.keep("source", source, night_closing(as_of), figures(rails, source, as_of))
    except Exception:  # whatever the lake says of a table that is being changed
        log.warning("What the page of %s shows of %s could not be kept.", source, as_of, exc_info=True)


def figures(rails: Rails, source: str, as_of: datetime) -> SourceFigures:
    """What there is to keep, in three queries of the lake."""
    files, rows, deliveries = _deliveries(rails, source, as_of)
    return SourceFigures(
        freshness=freshness(rails, source, as_of),
        latency=embargo.report(rails, _tables(rails, source), as_of),
        files=files,
        rows=rows,
        deliveries=deliveries,
    )


def freshness(rails: Rails, source: str, as_of: datetime) -> dict[str, Freshness]:
    """Table of a source, without its schema → how old its newest row is at `as_of`; of those that there are."""
    raw = contracts.raw_tables(rails.settings, source) if source in contracts.sources(rails.settings) else ()
    names = [table for table in sorted(raw) if rails.lake.has(table)]
    if not names:
        return {}
    parts = (f"select '{name}' as name, max(available_at) as newest from {{{name}}}" for name in names)
    newest = rails.lake.query(" union all ".join(parts), as_of).set_index("name")["newest"]
    tables: dict[str, Freshness] = {}
    for name in names:
        at, table = newest[name], name.removeprefix("raw.")
        if pd.isna(at):
            tables[table] = Freshness(newest=None, age_hours=None)
        else:
            age = (pd.Timestamp(as_of) - at).total_seconds() / 3600
            tables[table] = Freshness(newest=at.to_pydatetime(), age_hours=round(age, 1))
    return tables


def _tables(rails: Rails, source: str) -> tuple[str, ...]:
    """The raw tables of a source, and the feature views that its models read."""
    if source not in contracts.sources(rails.settings):
        return ()
    fed = Feeding.of_every_source(rails.settings).below(source)
    views = {view for spec in portfolio(rails.settings) for view in spec.prediction.features if view in fed}
    return (*contracts.raw_tables(rails.settings, source), *(f"features.{view}" for view in sorted(views)))


def _deliveries(rails: Rails, source: str, as_of: datetime) -> tuple[int, int, tuple[LandedFile, ...]]:
    """How many files of a source the night landed, how many rows, and the first of them."""
    if not rails.lake.has(LANDED_FILE):
        return 0, 0, ()
    rails.lake.ensure(LANDED_FILE)  # an older one lacks what is counted by keys
    found = rails.lake.query(
        f"select table_name || '/' || file as file, rows, ingested_at, count(*) over () as files, "
        f"coalesce(repeated, 0)::bigint as repeated, coalesce(corrections, 0)::bigint as corrections, "
        f"sum(rows) over ()::bigint as total from {{{LANDED_FILE}}} "
        "where source = $source and landed_night = $night order by 1 limit $most",
        as_of,
        {"source": source, "night": night_closing(as_of), "most": SHOWN},
    )
    if found.empty:
        return 0, 0, ()
    columns = ("file", "rows", "ingested_at", "repeated", "corrections")
    deliveries = tuple(
        LandedFile(
            file=file, rows=int(rows), landed_at=at.to_pydatetime(), repeated=int(again), corrections=int(corrected)
        )
        for file, rows, at, again, corrected in zip(*(found[name] for name in columns), strict=True)
    )
    return int(found["files"][0]), int(found["total"][0]), deliveries
