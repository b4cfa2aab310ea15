"""What a night wrote of every model, as text: two nights are the same when every line of it is.

Left out is what is an id of a snapshot of the lake, the name of a release, or an instant of the wall clock; everything
else counts, byte for byte: scores, tiers and reasons, evaluations, estimates, drift, decisions, findings, how every
stage ended and what it said.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from tiltyard import clock, ledger_tables, tables
from tiltyard.judge import scoring
from tiltyard.prepare import frame
from tiltyard.rails import Rails
from tiltyard.spec import Spec

LAKE = (
    tables.PREDICTION, tables.PROFILE, tables.EVALUATION, tables.ESTIMATE, tables.DRIFT, tables.DRIFT_DETECTOR,
    tables.TIER_SHARE, tables.ONLINE_EVALUATION,
)  # fmt: skip
"""The tables of the lake in which a night has rows of a model."""
LEDGER = (
    "stage_run", "version", "decision", "promotion", "watch", "retrain", "finding", "event", "default_task",
    "default_task_end",
)  # fmt: skip
"""The tables of the ledger in which a night has rows of a model."""
STANDS = (
    "decision", "watch", "promotion", "retrain", "event", "default_task", "default_task_end", "stage_run/promotion",
)  # fmt: skip
"""What was decided, asked or put down once and stands, whatever the night is done again for."""
SNAPSHOTS = {"snapshot", "release"}
WALL_CLOCK = {"scored_at", "recorded_at", "seconds", "answered_at"}
IDS = {"id", "run_id", "token"}
LEFT_OUT = SNAPSHOTS | WALL_CLOCK | IDS

Lines = dict[str, dict[str, list[str]]]
"""Model → table → its rows, sorted."""


@dataclass
class Written:
    """What a night left in a home."""

    models: Lines = field(default_factory=dict)
    sources: Lines = field(default_factory=dict)
    """Source → what its features say of themselves."""
    states: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Table → how it stands, and the sentence why."""
    answers: dict[str, "Answered"] = field(default_factory=dict)
    """Model → how its rows were answered."""
    stages: dict[str, dict[str, str]] = field(default_factory=dict)
    """Model → stage → how it ended."""

    def differs(self, other: "Written", model: str) -> list[str]:
        """In which tables a model's rows are not the other one's, with the first line that is not."""
        return _differing(self.models.get(model, {}), other.models.get(model, {}))

    def source_differs(self, other: "Written", source: str) -> list[str]:
        return _differing(self.sources.get(source, {}), other.sources.get(source, {}))


@dataclass(frozen=True)
class Answered:
    """How a night's rows of a model were answered."""

    rows: int
    """Rows of the spine."""
    unanswered: int
    """Those that no tier answered."""
    twice: int
    """Those that were answered more than once."""
    tiers: Mapping[str, int]
    """`tier (reason)` → rows."""
    apart: tuple[str, ...]
    """Tables that were read as of an earlier night."""
    waits: str | None
    """Why the night has no rows yet."""
    entities: frozenset[str]
    """Whom it was answered for."""


def written(rails: Rails, specs: Iterable[Spec], as_of: datetime) -> Written:
    """Everything that a night left."""
    night, specs = as_of.date(), list(specs)
    lines: Lines = defaultdict(dict)
    for table in LAKE:
        if not rails.lake.has(table.name):
            continue
        rows = rails.lake.connection.execute(f"select * from lake.{table.name} where night = ?", [night])
        columns = [column[0] for column in rows.description]
        for row in rows.fetchall():
            values = dict(zip(columns, row, strict=True))
            _add(lines, str(values["model"]), table.name, values)
    with rails.ledger.engine.begin() as connection:
        for name in LEDGER:
            table = ledger_tables.metadata.tables[name]
            when = table.c.night if "night" in table.c else table.c.opened
            for row in connection.execute(sa.select(table).where(when == night)).mappings():
                values = {column.name: row[column] for column in table.c}
                if name == "stage_run" and values["stage"] == "governor":
                    for model, action in values["summary"].get("actions", {}).items():
                        _add(lines, model, "governor", {"action": action})
                else:
                    key = str(values["model"])
                    _add(lines, key, f"{name}/{values['stage']}" if name == "stage_run" else name, values)
        states = ledger_tables.metadata.tables["publication"]
        of_tables = {
            str(row["table"]): (str(row["state"]), str(row["reason"] or ""))
            for row in connection.execute(sa.select(states).where(states.c.night == night)).mappings()
        }
    models = {spec.name for spec in specs}
    stages: dict[str, dict[str, str]] = defaultdict(dict)
    for model in models:
        for name in lines.get(model, {}):
            if name.startswith("stage_run/"):
                stages[model][name.partition("/")[2]] = json.loads(lines[model][name][0])["status"]
    for table_lines in lines.values():
        for table_rows in table_lines.values():
            table_rows.sort()
    return Written(
        models={model: lines[model] for model in [*sorted(models), ""] if model in lines},
        sources={name: of for name, of in lines.items() if name in rails.settings.sources},
        states=of_tables,
        answers={spec.name: answered(rails, spec, as_of) for spec in specs},
        stages=dict(stages),
    )


def answered(rails: Rails, spec: Spec, as_of: datetime) -> Answered:
    """Hold what was served against the rows of the spine as it is published."""
    publication = rails.publication()
    start, end = clock.interval(as_of, spec.prediction.every)
    waits = scoring.waits_for(publication, spec, as_of)
    bare = spec.model_copy(update={"prediction": spec.prediction.model_copy(update={"features": ()})})
    spine = frame.build(rails, bare, start, end, as_of, publication)
    expected = {(str(row[0]), row[1]) for row in spine[[spec.key, "prediction_time"]].itertuples(index=False)}
    rows = rails.lake.connection.execute(
        f"select entity_id, prediction_time, tier, tier_reason, apart from lake.{tables.PREDICTION} "
        "where model = ? and night = ? and tier != 'shadow'",
        [spec.name, as_of.date()],
    ).fetchall()
    tiers: dict[str, int] = defaultdict(int)
    apart: set[str] = set()
    for _, _, tier, reason, elsewhere in rows:
        tiers[f"{tier} ({reason})" if reason else str(tier)] += 1
        apart |= set(json.loads(elsewhere or "{}"))
    served = [(str(entity), time) for entity, time, *_ in rows]
    return Answered(
        rows=len(expected),
        unanswered=len(expected - set(served)) if waits is None else 0,
        twice=len(served) - len(set(served)),
        tiers=dict(sorted(tiers.items())),
        apart=tuple(sorted(apart)),
        waits=waits,
        entities=frozenset(entity for entity, _ in served),
    )


def _add(lines: Lines, key: str, table: str, values: Mapping[str, Any]) -> None:
    lines.setdefault(key, {}).setdefault(table, []).append(_line(values))


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(_plain(values), sort_keys=True)


def _plain(value: Any) -> Any:
    """As JSON, without what is left out. Floats keep every bit."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items() if name not in LEFT_OUT}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _differing(own: Mapping[str, list[str]], other: Mapping[str, list[str]]) -> list[str]:
    told = []
    for table in sorted(own.keys() | other.keys()):
        mine, theirs = own.get(table, []), other.get(table, [])
        if mine != theirs:
            extra, gone = sorted(set(mine) - set(theirs)), sorted(set(theirs) - set(mine))
            told.append(
                f"{table}: {len(mine)} rows against {len(theirs)}; "
                f"only here {(extra or ['nothing'])[0][:600]}; only there {(gone or ['nothing'])[0][:600]}"
            )
    return told
