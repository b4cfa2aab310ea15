"""How long rows of `ops.*` tables are kept: for ever, unless the setting `lake_retention` says otherwise.

A row that is let go goes from every snapshot, as that of a person does who is erased (decision 46).

What landed (`raw.*`) and what dbt makes of it has no retention: an entity's rows are made anew from everything that
ever landed of it, so that a row which is gone from raw would change the past.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.lake import identifier, literal
from tiltyard.rails import Rails
from tiltyard.spec import Spec, portfolio
from tiltyard.tables import BUILT, INGEST_RUN, LANDED_FILE, REQUEST_SEGMENT, TABLES
from tiltyard.upkeep.erasing import lake_files

FOR_EVER = (INGEST_RUN.name, LANDED_FILE.name, BUILT.name, REQUEST_SEGMENT.name)
"""What says that a file or a segment was taken in already: without it, it would be taken in twice. And what says from
which text a table was built: without it, a changed one would not be noticed."""
OTHERS = "default"
"""What stands for all tables that the setting does not name."""


def durations(written: Sequence[str], specs: Sequence[Spec]) -> dict[str, timedelta]:
    """Table → how long its rows are kept, of those that do not stay for ever.

    Raises BadInput for what is no `table=duration`, a table that has no retention, one that is named twice, and a
    duration shorter than a model looks back.
    """
    eligible = [table.name for table in TABLES if table.name not in FOR_EVER]
    given: dict[str, timedelta] = {}
    for entry in written:
        name, _, text = entry.partition("=")
        name = name.strip()
        if name in given:
            raise BadInput(f"TILTYARD_LAKE_RETENTION names {name} twice; say once how long its rows are kept.")
        if name not in (OTHERS, *eligible):
            raise BadInput(
                f"TILTYARD_LAKE_RETENTION: rows of '{name}' stay for ever; a retention may have {', '.join(eligible)}, "
                f"and {OTHERS} for those that are not named."
            )
        try:
            given[name] = clock.parse_duration(text)
        except ValueError as error:
            raise BadInput(f"TILTYARD_LAKE_RETENTION: {name}: {error}.") from None
    shortest, model = max(((_looks_back(spec), spec.name) for spec in specs), default=(timedelta(), ""))
    for name, duration in given.items():
        if duration < shortest:
            raise BadInput(
                f"TILTYARD_LAKE_RETENTION keeps {name} for {clock.format_duration(duration)}, but {model} looks back "
                f"for {clock.format_duration(shortest)} (training window, label, replay, rollback); give that or more."
            )
    others = given.pop(OTHERS, None)
    return (dict.fromkeys(eligible, others) if others is not None else {}) | given


def _looks_back(spec: Spec) -> timedelta:
    """How old a row may be that a training, a replay, a matured label or a decision of the model asks for."""
    return spec.label.longest + spec.estimator.window + spec.leakage.replay_window + spec.gate.rollback_window


def let_go(rails: Rails, as_of: datetime, *, dry_run: bool) -> dict[str, int]:
    """Remove the rows that are older than their retention at `as_of`, at every snapshot: table → their number."""
    removed: dict[str, int] = {}
    for name, duration in durations(rails.settings.lake_retention, portfolio(rails.settings)).items():
        if not rails.lake.has(name):
            continue
        count = _old_rows(rails, name, as_of - duration, dry_run)
        if count:
            removed[name] = count
    return removed


def _old_rows(rails: Rails, table: str, before: datetime, dry_run: bool) -> int:
    """Remove the rows that became known before an instant, unless it is a dry run; their number."""
    old = f"from {identifier(table)} where available_at < {literal(before)}"
    row = rails.lake.connection.execute(f"select count(*) {old}").fetchone()
    count = int(row[0]) if row else 0
    if count and not dry_run:
        rails.lake.commit(lambda connection: connection.execute(f"delete {old}"), message=f"retention of {table}")
    if not dry_run:  # also what a run that was killed has deleted and not blanked
        with rails.lake.exclusive("requests"):
            lake_files.blank(rails.lake, rails.settings, table, f"available_at < {literal(before)}")
    return count
