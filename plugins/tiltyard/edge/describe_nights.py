"""What commands over whole nights came to, as text for a terminal: `features`, `hindcast`, and `hindcast --policy`."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tiltyard.edge.describe import NOTHING, SHOWN
from tiltyard.rewind.hindsight import BEST
from tiltyard.rewind.trial import PolicyTrial, Worth
from tiltyard.words import counted, listed

if TYPE_CHECKING:  # the stages bring dbt and MLflow along
    from tiltyard.online.fill import FillSummary
    from tiltyard.prepare.features import FeaturesNight, SourceNight
    from tiltyard.prepare.hourly import SourceHour
    from tiltyard.rewind.hindcast import HeldTable, Hindcast

POLICY_COLUMNS = (
    "model", "policy", "promotions", "rollbacks", "retrains", "for nothing", "days behind", "loss", "over the best",
)  # fmt: skip


def features(built: "FeaturesNight", online: "FillSummary") -> str:
    """A night of the features stage: a line per source, what a person should know of it below; --json has all of it."""
    lines = [f"night        {built.night}"]
    for name, source in built.sources.items():
        lines += [f"{name:<12} {_features_of(source)}", *_aside(source)]
    lines.append(_filled(online))
    return "\n".join([*lines, *(f"  {model} waits: {reason}" for model, reason in online.waiting.items())])


def hour(as_of: datetime, done: "Mapping[str, SourceHour]", online: "FillSummary") -> str:
    """The features stage at an hour: a line per source."""
    lines = [f"hour         {as_of:%Y-%m-%d %H:%M} UTC"]
    for name, source in done.items():
        landed = f"{counted(source.ingest.rows, 'row')} landed in {counted(source.ingest.files, 'file')}"
        unpublished = f"; {len(source.unpublished)} not" if source.unpublished else ""
        lines.append(f"{name:<12} {landed}; {counted(len(source.published), 'table')} published{unpublished}")
        lines += [f"  {file}" for file in source.ingest.quarantined]
        lines += [f"  {note}" for note in source.ingest.notes]
    return "\n".join([*lines, _filled(online)])


def _filled(online: "FillSummary") -> str:
    rows = counted(sum(online.rows.values()), "row")
    filled = online.unavailable or f"{counted(online.tables, 'table')} up to date, {rows} written"
    return f"{'online':<12} {filled}" + (f"; made anew: {online.rebuilt}" if online.rebuilt else "")


def _features_of(source: "SourceNight") -> str:
    parts = []
    if source.ingest is not None:
        landed = f"{counted(source.ingest.rows, 'row')} landed in {counted(source.ingest.files, 'file')}"
        refused = counted(len(source.ingest.quarantined), "file")
        parts.append(landed + (f", {refused} in quarantine" if source.ingest.quarantined else ""))
    if source.transform is not None:
        parts.append(f"{counted(source.transform.models, 'model')} built")
    if source.checks is not None:
        failed = f", {len(source.checks.critical)} failed" if source.checks.critical else ""
        warned = f", {counted(len(source.checks.warnings), 'warning')}" if source.checks.warnings else ""
        parts.append(f"{counted(source.checks.checks, 'check')}{failed}{warned}")
    parts.append(f"{counted(len(source.published.published), 'table')} published")
    if source.published.unpublished:
        parts.append(f"{len(source.published.unpublished)} not")
    if source.checks is not None and source.checks.kept:
        parts.append(f"{len(source.checks.kept)} settled for this night before")
    return "; ".join(parts)


def _aside(source: "SourceNight") -> list[str]:
    """What does not go by itself with a line on its source."""
    refused = [f"  {file}" for file in source.ingest.quarantined] if source.ingest else []
    refused += [f"  {note}" for note in source.ingest.notes] if source.ingest else []
    anew = [
        f"  {table} was made anew: {why}" for table, why in (source.checks.rebuilt if source.checks else {}).items()
    ]
    waiting = [
        f"  {table}, which other sources feed as well, waits for {listed(tables)}"
        for table, tables in source.published.waiting.items()
    ]
    warnings = [f"  warning: {sentence}" for sentence in (source.checks.warnings if source.checks else ())]
    return [*refused, *anew, *waiting, *warnings]


def held_back(result: "Hindcast", quarantine: Path) -> str:
    """What the nights of a hindcast had to do without: tables that were not good, and files in quarantine."""
    lines = ["tables       all good on every night"]
    if result.tables:
        many = counted(len(result.tables), "table")
        lines = [
            f"tables       {many} not good on some of these nights; tiltyard status says how they stand now, and "
            f"tiltyard features --as-of {result.tables[0].last} does the features of a night again once it is mended",
            *(f"  {_held(table)}" for table in result.tables[:SHOWN]),
            *_more(len(result.tables) - SHOWN),
        ]
    if not result.quarantined:
        return "\n".join([*lines, "quarantine   no file"])
    many = counted(len(result.quarantined), "file")
    lines.append(f"quarantine   {many} that these nights did without, each with its reason beside it in {quarantine}")
    lines += [f"  {file.source}/{file}" for file in result.quarantined[:SHOWN]]
    return "\n".join([*lines, *_more(len(result.quarantined) - SHOWN)])


def _held(table: "HeldTable") -> str:
    states = ", ".join(f"{state} on {counted(nights, 'night')}" for state, nights in table.states.items())
    when = f"{table.first} to {table.last}" if table.nights > 1 else f"{table.last}"
    return f"{table.table} {states} ({when}): {table.reason}"


def _more(number: int) -> list[str]:
    return [f"  and {number:,} more (--json has all)"] if number > 0 else []


def policies(trial: PolicyTrial) -> list[dict[str, str | int]]:
    """The cells of `tiltyard hindcast --policy`: per model the policies in the order given, then what they are held
    against."""
    rows = []
    for model, baselines in trial.baselines.items():
        best = baselines[BEST].loss
        for name, of_model in trial.policies.items():
            worth = of_model[model]
            rows.append(
                {
                    **_worth(model, name, worth, best),
                    "promotions": len(worth.promotions),
                    "rollbacks": len(worth.rollbacks),
                    "retrains": len(worth.retrains),
                    "for nothing": worth.false_retrains,
                }
            )
        for name, baseline in baselines.items():
            retrains = "" if baseline.retrains is None else baseline.retrains
            rows.append({**_worth(model, name, baseline, best), "retrains": retrains})
    return [{column: row[column] for column in POLICY_COLUMNS} for row in rows]


def _worth(model: str, name: str, worth: Worth, best: float | None) -> dict[str, str | int]:
    """The cells that a policy and a baseline both have, and nothing in the others."""
    cells: dict[str, str | int] = dict.fromkeys(POLICY_COLUMNS, "")
    return cells | {
        "model": model,
        "policy": name,
        "days behind": worth.days_behind,
        "loss": NOTHING if worth.loss is None else f"{worth.loss:.4f}",
        "over the best": NOTHING if worth.loss is None or best is None else f"{worth.loss - best:+.4f}",
    }


def policies_notes(trial: PolicyTrial) -> list[str]:
    """What to read the table with."""
    notes = [f"nights of {trial.first} to {trial.last}; assumed: {'; '.join(trial.assumed)}"]
    for name, models in trial.policies.items():
        for model, worth in models.items():
            held = listed([f"{criterion} {times}" for criterion, times in worth.held_by.items()]) or "none"
            changes = [f"{promotion.night} v{promotion.version}" for promotion in worth.promotions]
            notes.append(f"{name}, {model}: promoted {listed(changes) or 'none'}; held most often by {held}")
    return [*notes, *(f"plot {path}" for path in trial.plots)]
