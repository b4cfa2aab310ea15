"""A night of the portfolio: how every stage of every model ended, which tables were not good, what was granted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from tiltyard.edge.board import Board
from tiltyard.edge.board_query import PAGE as MODELS_A_PAGE
from tiltyard.rails import Rails
from tiltyard.records import GovernorSummary, Incident, Instant, Record, Retrain, Status, TableState
from tiltyard.spec import Spec
from tiltyard.stages import NIGHTLY, StageName, recorded_as

PAGE = 4 * MODELS_A_PAGE
"""Models a page: their cells are small."""
STAGES_SHOWN: Final[tuple[StageName, ...]] = ("features", *NIGHTLY, "fallback_audit")
"""The columns of the map."""
_TROUBLE: Final[Mapping[str, int]] = {"failed": 0, "stopped": 1, "checked": 2, "": 3, "done": 4}


@dataclass(frozen=True, kw_only=True)
class NightRow(Record):
    """A model on the night."""

    model: str
    """Its name."""
    owner: str
    """Who owns it."""
    tier: int
    """1 for the highest stakes."""
    source: str
    """The source that it belongs to."""
    ends: dict[StageName, Status | str]
    """Stage → how it ended; empty where it has no record of the night."""
    decision: str | None
    """What the governor decided for it; None where it did not decide."""


@dataclass(frozen=True, kw_only=True)
class NightPage(Record):
    """All that there is to see of a night."""

    night: date
    """The night."""
    before: date | None
    """The one before it that anything was done on."""
    after: date | None
    """The one after it."""
    first: Instant | None
    """When the first of it was recorded, wall clock."""
    last: Instant | None
    """When the last of it was."""
    models: tuple[NightRow, ...]
    """Every model of the portfolio that has a record of it, the worst first."""
    absent: tuple[str, ...]
    """The models that have none."""
    ends: dict[StageName, dict[str, int]]
    """Stage → how it ended → number of models, of features of sources."""
    tables: tuple[TableState, ...]
    """The tables that were not good, by name."""
    retrains: tuple[Retrain, ...]
    """The retrains that were granted."""
    incidents: tuple[Incident, ...]
    """The incidents that were open."""
    decisions: dict[str, int]
    """What the governor decided → number of models."""


def read(rails: Rails, specs: Sequence[Spec], night: date) -> NightPage | None:
    """What there is to see of a night; None where nothing was done on it."""
    ledger = rails.ledger
    span = ledger.chronicle.span(night)
    if span is None:
        return None
    ends = {stage: ledger.statuses_of_night(stage, night) for stage in STAGES_SHOWN}
    governed = ledger.stage_run(GovernorSummary, "", night)
    actions = governed.summary.actions if governed else {}
    rows, absent = [], []
    for spec in specs:
        own = {stage: ends[stage].get(recorded_as(stage, spec.name, spec.source), "") for stage in STAGES_SHOWN}
        if not any(end for stage, end in own.items() if stage != "features"):
            absent.append(spec.name)
            if not own["features"]:
                continue
        action = actions.get(spec.name)
        rows.append(
            NightRow(
                model=spec.name,
                owner=spec.owner,
                tier=spec.tier,
                source=spec.source,
                ends={**own},
                decision=action.decision if action else None,
            )
        )
    before, after = ledger.chronicle.beside(night)
    decisions = [action.decision for action in actions.values()]
    return NightPage(
        night=night,
        before=before,
        after=after,
        first=span.first,
        last=span.last,
        models=tuple(sorted(rows, key=_trouble)),
        absent=tuple(absent),
        ends={stage: _counted([*of_stage.values()]) for stage, of_stage in ends.items()},
        tables=tuple(ledger.unpublished_states(night, night)),
        retrains=tuple(ledger.retrains(until=night, since=night)),
        incidents=ledger.incidents(night),
        decisions={word: decisions.count(word) for word in sorted(set(decisions))},
    )


def _trouble(row: NightRow) -> tuple[list[int], int, str]:
    """The worst ends first."""
    return sorted(_TROUBLE.get(end, 1) for end in row.ends.values()), row.tier, row.model


def _counted(ends: Sequence[str]) -> dict[str, int]:
    return {end: ends.count(end) for end in sorted(set(ends), key=lambda end: _TROUBLE.get(end, 1))}


@dataclass(frozen=True, kw_only=True)
class NightHead(Record):
    """The newest night in numbers."""

    night: date
    """The night."""
    before: date | None
    """The one before it that anything was done on."""
    done: int
    """Models whose stages were all done."""
    stopped: int
    """Models of which a check stopped a stage."""
    failed: int
    """Models of which a stage failed."""
    retrains: int
    """Retrains that were granted."""
    incidents: int
    """Incidents that are open."""
    late: tuple[str, ...]
    """The sources with tables that are late."""
    held: tuple[str, ...]
    """The sources with tables that are not good for another reason."""


def head(rails: Rails, board: Board) -> NightHead | None:
    """The newest night of the portfolio; None before the first."""
    night = rails.ledger.chronicle.newest_night()
    if night is None:
        return None
    words: dict[str, list[str]] = {}
    for stage in ("shadow", "promotion", "drift"):
        for model, status in rails.ledger.statuses_of_night(stage, night).items():
            words.setdefault(model, []).append(status)
    worst = [min(own, key=lambda word: _TROUBLE.get(word, 1)) for own in words.values()]
    before, _ = rails.ledger.chronicle.beside(night)
    late = [row.source for row in board.sources if any(state.state == "late" for state in row.tables)]
    held = [row.source for row in board.sources if any(state.state != "late" for state in row.tables)]
    return NightHead(
        night=night,
        before=before,
        done=worst.count("done"),
        stopped=worst.count("stopped"),
        failed=worst.count("failed"),
        retrains=board.trainings,
        incidents=len(board.incidents),
        late=tuple(late),
        held=tuple(held),
    )
