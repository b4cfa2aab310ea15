"""What Prometheus is told of the nights: the portfolio at a glance, as gauges. It is read when the page is asked for,
from the same ledger; nothing is counted between two looks."""

from collections.abc import Iterable
from datetime import date

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tiltyard import clock
from tiltyard.edge.board import STATES, Board


class _Night(Collector):
    """The gauges of one look."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Every gauge, with a sample for each of its labels."""
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


def text(board: Board) -> bytes:
    """The page, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Night(board))
    return generate_latest(registry)


def _seconds(night: date) -> float:
    return clock.midnight(night).timestamp()
