"""What Prometheus is told of the service."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from tiltyard.serve.servable import Servable

BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where worker processes keep what they count, so that any of them can tell for all; set by `web.run`."""
SUMS = ("_records", "_dropped")
"""Gauges that add up over worker processes; of the others the largest counts."""


class Metrics:
    """What Prometheus is told; children of the hot path are kept, so that a request looks up a dict."""

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """`gauges`: name → what it says, and who is asked for it when the page is read."""
        self.registry = CollectorRegistry()
        keep: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("tiltyard_requests", "Predictions and explanations.", ["model", "status"], **keep)
        self.answers = Counter("tiltyard_answers", "Rows answered.", ["model", "tier", "reason"], **keep)
        self.latency = Histogram(
            "tiltyard_latency_seconds", "From request to answer.", ["model"], buckets=BUCKETS, **keep
        )
        self.falls = Counter("tiltyard_tier_failures", "What became of a tier.", ["model", "tier", "outcome"], **keep)
        self.shadow = Counter("tiltyard_shadow", "Rows for shadow scoring.", ["model", "outcome"], **keep)
        self._gauges = [
            (Gauge(name, said, multiprocess_mode="livesum" if name.endswith(SUMS) else "livemax", **keep), read)
            for name, (said, read) in gauges.items()
        ]
        self._breaker = Gauge(
            "tiltyard_breaker_open",
            "1 while a version is not asked.",
            ["model", "version"],
            multiprocess_mode="livemax",
            **keep,
        )
        self._role = Gauge(
            "tiltyard_version",
            "Version number per role; 0: none.",
            ["model", "role"],
            multiprocess_mode="livemax",
            **keep,
        )
        self._children: dict[tuple[Any, ...], Any] = {}

    def count(self, counter: Counter, *labels: str, by: int = 1) -> None:
        key = (counter, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = counter.labels(*labels)
        child.inc(by)

    def observe(self, model: str, seconds: float) -> None:
        child = self._children.get(model)
        if child is None:
            child = self._children[model] = self.latency.labels(model)
        child.observe(seconds)

    def look(self, current: Mapping[str, Servable]) -> None:
        """Bring the gauges up to now."""
        for gauge, read in self._gauges:
            gauge.set(read())
        for name, one in current.items():
            for version in dict.fromkeys(filter(None, (one.champion, one.previous, *one.challengers))):
                self._breaker.labels(name, version.number).set(version.breaker.state != "closed")
            seats = {"champion": one.champion, "previous": one.previous, "challenger": one.challenger}
            for role, seated in seats.items():
                self._role.labels(name, role).set(seated.number if seated else 0)

    def page(self, current: Mapping[str, Servable]) -> bytes:
        """All of it as Prometheus reads it: of this process, or of all worker processes where there are several."""
        self.look(current)
        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        _bury()
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)
        return generate_latest(together)

    def fell(self, model: str, tier: str, outcome: str) -> None:
        self.count(self.falls, model, tier, outcome)


def _bury() -> None:
    """Take away the gauges of worker processes that are gone, which would stand for ever; what they counted stays."""
    for pid in {int(path.stem.rpartition("_")[2]) for path in Path(os.environ[FOLDER]).glob("gauge_live*_*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            with suppress(FileNotFoundError):  # another worker was first
                multiprocess.mark_process_dead(pid)
        except PermissionError:
            pass  # it lives, as another user's
