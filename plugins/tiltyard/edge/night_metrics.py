"""What Prometheus is told of the nights: the portfolio at a glance, as gauges. It is read when the page is asked for,
from the same ledger; nothing is counted between two looks."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tiltyard import clock
from tiltyard.edge import board as boards
from tiltyard.edge.board import STATES, Board
from tiltyard.rails import Rails
from tiltyard.records import ChallengerDecision, Cost, GovernorSummary, PromotionSummary, TableState
from tiltyard.spec import Spec

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What the ledger says beside the page."""

    tables: Sequence[TableState] = ()
    """How every table stands."""
    governed: Mapping[str, int] = field(default_factory=dict)
    """The governor's decision of its newest night → number of models."""
    gate: Mapping[str, ChallengerDecision] = field(default_factory=dict)
    """Model → what its newest judged night says of the challenger that is nearest to a promotion."""
    costs: Sequence[Cost] = ()
    """What the newest night has used so far."""


def beside(rails: Rails, specs: Sequence[Spec]) -> Beside:
    """What the ledger says beside the page, in as many queries for a hundred models as for one."""
    ledger = rails.ledger
    try:
        newest = ledger.last_stage_run(GovernorSummary)
    except ValueError:
        log.exception("The governor's newest record cannot be read.")
        newest = None
    actions = [action.decision for action in newest.summary.actions.values()] if newest else []
    judged = boards.runs(
        ledger, PromotionSummary, ledger.newest_attempts("promotion", [spec.name for spec in specs]), {}
    )
    night = ledger.accounts.newest()
    return Beside(
        tables=ledger.table_states(),
        governed={decision: actions.count(decision) for decision in sorted(set(actions))},
        gate={name: best for name, runs in judged.items() if runs and (best := _nearest(runs[-1].summary))},
        costs=ledger.accounts.costs(night, night) if night else (),
    )


def _nearest(summary: PromotionSummary) -> ChallengerDecision | None:
    """The challenger that the summary speaks of."""
    own = [entry for entry in summary.decisions if entry.challenger == summary.challenger]
    return own[0] if own else None


class _Night(Collector):
    """The gauges of one look."""

    def __init__(self, board: Board, beside: Beside) -> None:
        self._board, self._beside = board, beside

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Every gauge, with a sample for each of its labels."""
        yield from self._of_board()
        yield from self._of_ledger()

    def _of_ledger(self) -> Iterable[GaugeMetricFamily]:
        good = GaugeMetricFamily(
            "tiltyard_table_good_night_seconds", "End of the night on which a table was last good, UTC.",
            labels=["table", "state"],
        )  # fmt: skip
        for state in self._beside.tables:
            night = state.night if state.is_published else state.good_night
            good.add_metric([state.table, state.state], _seconds(night) if night else 0)
        governed = GaugeMetricFamily(
            "tiltyard_governor_models", "Models by the governor's decision of its newest night.", labels=["decision"]
        )
        for decision, count in self._beside.governed.items():
            governed.add_metric([decision], count)
        gate = GaugeMetricFamily(
            "tiltyard_gate_difference",
            "By how much less the challenger loses than who serves, scaled to [0, 1], with its interval.",
            labels=["model", "verdict", "end"],
        )
        for name, judged in self._beside.gate.items():
            for end in ("low", "mean", "high"):
                if (value := getattr(judged, end)) is not None:
                    gate.add_metric([name, judged.verdict, end], value)
        cpu = GaugeMetricFamily(
            "tiltyard_night_cpu_seconds", "CPU seconds that the newest night has used so far.", labels=["stage"]
        )
        for stage in sorted({cost.stage for cost in self._beside.costs}):
            cpu.add_metric([stage], sum(cost.usage.cpu_s for cost in self._beside.costs if cost.stage == stage))
        yield from (good, governed, gate, cpu)

    def _of_board(self) -> Iterable[GaugeMetricFamily]:
        board = self._board
        states = GaugeMetricFamily("tiltyard_models", "Models by their state and stakes.", labels=["state", "tier"])
        for state in STATES:
            for tier in (1, 2, 3):
                count = sum(row.state == state and row.tier == tier for row in board.models)
                states.add_metric([state, str(tier)], count)
        yield states

        nights = GaugeMetricFamily(
            "tiltyard_model_newest_night_seconds", "End of a model's newest attempted night, UTC.", labels=["model"]
        )
        service = GaugeMetricFamily(
            "tiltyard_model_champion", "Version in service; 0 for the safe default.", labels=["model"]
        )
        loss = GaugeMetricFamily(
            "tiltyard_model_loss", "Newest measured loss, in the model's measure.", labels=["model", "measure", "of"]
        )
        for row in board.models:
            service.add_metric([row.model], row.champion or 0)
            if row.night is not None:
                nights.add_metric([row.model], _seconds(row.night))
            if row.loss is not None and row.loss.champion is not None:
                loss.add_metric([row.model, row.measure, "champion"], row.loss.champion)
            if row.loss is not None and row.loss.safe_default is not None:
                loss.add_metric([row.model, row.measure, "safe_default"], row.loss.safe_default)
        yield from (nights, service, loss)

        of_source = GaugeMetricFamily(
            "tiltyard_source_newest_night_seconds", "End of a source's newest attempted night, UTC.", labels=["source"]
        )
        bad = GaugeMetricFamily(
            "tiltyard_tables_not_good", "Tables of a source that stand as of an earlier night.", labels=["source"]
        )
        for source in board.sources:
            bad.add_metric([source.source], len(source.tables))
            if source.night is not None:
                of_source.add_metric([source.source], _seconds(source.night))
        yield from (of_source, bad)

        inbox = GaugeMetricFamily("tiltyard_waiting_for_a_person", "What waits for a person.", labels=["kind"])
        for kind in sorted({item.kind for item in board.inbox}):
            inbox.add_metric([kind], sum(item.kind == kind for item in board.inbox))
        yield inbox
        yield GaugeMetricFamily("tiltyard_incidents", "Open incidents upstream.", value=len(board.incidents))
        yield GaugeMetricFamily("tiltyard_retrains", "Retrains granted on the newest night.", value=board.trainings)


def text(board: Board, beside: Beside) -> bytes:
    """The page, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Night(board, beside))
    return generate_latest(registry)


def _seconds(night: date) -> float:
    return clock.midnight(night).timestamp()
