"""What Prometheus is told of the service."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from tiltyard.serve.servable import Servable

BUCKETS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
"""Upper ends of the latency histogram's buckets, in seconds."""
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Variable that names the folder where worker processes keep what they count, so that any of them can tell for all; set
by `web.serve`."""
SUMS = ("_records", "_dropped")
"""Endings of the gauges that add up over worker processes; of other gauges the largest counts."""


class Metrics:
    """Counters and gauges. The labelled ones are kept, so that a request looks them up in a dictionary."""

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """`gauges`: name → its description, and what gives its value when the page is read."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tiltyard_requests", "Predictions and explanations.", ["model", "status"], registry=self.registry
        )
        self.answers = Counter(
            "tiltyard_answers", "Rows answered.", ["model", "tier", "reason"], registry=self.registry
        )
        self.latency = Histogram(
            "tiltyard_latency_seconds", "From request to answer.", ["model"], buckets=BUCKETS_S, registry=self.registry
        )
        self.falls = Counter(
            "tiltyard_tier_failures", "What became of a tier.", ["model", "tier", "outcome"], registry=self.registry
        )
        self.shadow = Counter(
            "tiltyard_shadow", "Rows for shadow scoring.", ["model", "outcome"], registry=self.registry
        )
        self._gauges = [
            (
                Gauge(
                    name,
                    description,
                    multiprocess_mode="livesum" if name.endswith(SUMS) else "livemax",
                    registry=self.registry,
                ),
                read,
            )
            for name, (description, read) in gauges.items()
        ]
        self._breaker = Gauge(
            "tiltyard_breaker_open",
            "1 while a version is not asked.",
            ["model", "version"],
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        self._role = Gauge(
            "tiltyard_version",
            "Version number per role; 0: none.",
            ["model", "role"],
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        self._counters: dict[tuple[Counter | str, ...], Counter] = {}
        """(counter, labels …) → the counter with these labels."""
        self._latencies: dict[str, Histogram] = {}
        """Model → its histogram."""

    def count(self, counter: Counter, *labels: str, by: int = 1) -> None:
        """Add `by` to the counter with these labels."""
        key: tuple[Counter | str, ...] = (counter, *labels)
        labelled = self._counters.get(key)
        if labelled is None:
            labelled = self._counters[key] = counter.labels(*labels)
        labelled.inc(by)

    def observe(self, model: str, seconds: float) -> None:
        """Count a request's latency."""
        labelled = self._latencies.get(model)
        if labelled is None:
            labelled = self._latencies[model] = self.latency.labels(model)
        labelled.observe(seconds)

    def look(self, current: Mapping[str, Servable]) -> None:
        """Bring the gauges up to now."""
        for gauge, read in self._gauges:
            gauge.set(read())
        for name, servable in current.items():
            versions = (servable.champion, servable.previous, *servable.challengers)
            for version in dict.fromkeys(filter(None, versions)):
                self._breaker.labels(name, version.number).set(version.breaker.state != "closed")
            roles = {
                "champion": servable.champion,
                "previous": servable.previous,
                "challenger": servable.challenger,
            }
            for role, holder in roles.items():
                self._role.labels(name, role).set(holder.number if holder else 0)

    def page(self, current: Mapping[str, Servable]) -> bytes:
        """All of it as Prometheus reads it: of this process, or of all worker processes where there are several."""
        self.look(current)
        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        _bury()
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def fell(self, model: str, tier: str, outcome: str) -> None:
        """Count what became of a tier that did not answer."""
        self.count(self.falls, model, tier, outcome)


def _bury() -> None:
    """Remove the gauges of worker processes that have ended, which would stay for ever. Their counters stay."""
    for pid in {int(path.stem.rpartition("_")[2]) for path in Path(os.environ[FOLDER]).glob("gauge_live*_*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            with suppress(FileNotFoundError):  # another worker was first
                multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
        except PermissionError:
            pass  # the process lives and is another user's
