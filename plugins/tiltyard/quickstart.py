"""What `make up` does: fetch → hindcast a history → start Airflow → let the last nights run as real DAG runs.

Every step is safe to repeat: what is there already is passed over.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tiltyard import clock, datasets, hindcast, services, status
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput, Unavailable
from tiltyard.ledger import night_of
from tiltyard.rails import Rails
from tiltyard.settings import Settings
from tiltyard.spec import Spec, portfolio

Progress = Callable[[str, float], None]
LIVE_NIGHTS = 3
PATIENCE_S = 600
"""Seconds that one night may take in Airflow before `up` gives up waiting and says where to look."""


@dataclass(frozen=True)
class Demo:
    """A data set with the nights that `make up` plays: hindcast from `first`, the last three in Airflow."""

    source: str
    first: str
    last: str


DEMOS = {
    "incident": Demo("incident", "2016-03-18", "2016-05-24"),
    "simulated": Demo("subscription", "2025-03-15", "2025-05-31"),
}


def up(settings: Settings, name: str, progress: Progress) -> dict[str, Any]:
    """Bring everything up. Raises BadInput for an unknown data set, Unavailable when something stays down."""
    if name not in DEMOS:
        raise BadInput(f"There is no data set '{name}'; DATA is one of: {', '.join(DEMOS)}.")
    demo = DEMOS[name]
    services.check_ports(settings)
    datasets.fetch(settings, name, progress=lambda label, fraction: progress(label, 0.1 * fraction))
    settings = settings.model_copy(update={"sources": (demo.source,), "schedule": "none"})
    specs = portfolio(settings)
    nights = list(clock.nights(clock.parse_as_of(demo.first), clock.parse_as_of(demo.last)))
    past, live = nights[:-LIVE_NIGHTS], nights[-LIVE_NIGHTS:]
    with rails_module.opened(settings) as rails:
        hindcast.run(
            rails, specs, past[0], past[-1], progress=lambda label, fraction: progress(f"hindcast: {label}", 0.1 + 0.6 * fraction)
        )
        services.start(settings, progress=lambda label, fraction: progress(label, 0.7 + 0.1 * fraction))
        airflow = services.Airflow(settings)
        for position, as_of in enumerate(live):
            progress(f"night of {night_of(as_of)} in Airflow", 0.8 + 0.2 * position / len(live))
            _live_night(rails, airflow, specs, as_of)
        documents = [status.status(rails, spec, live[-1]) for spec in specs]
        plots = [status.plot(rails, spec, live[-1]) for spec in specs]
    progress("up", 1.0)
    return {
        "models": documents,
        "plots": [str(path) for path in plots if path],
        "airflow": services.login(settings),
    }


def _live_night(rails: Rails, airflow: "services.Airflow", specs: tuple[Spec, ...], as_of: datetime) -> None:
    if all(hindcast.complete(rails, spec, as_of) for spec in specs):
        return
    airflow.trigger("features", {"as_of": as_of.isoformat()})
    deadline = time.monotonic() + PATIENCE_S
    while not all(hindcast.complete(rails, spec, as_of) for spec in specs):
        failed = airflow.failed()
        if failed:
            raise Unavailable(
                f"The night of {night_of(as_of)} failed in Airflow: {', '.join(failed)}; open {services.login(settings_of(rails))['url']}."
            )
        if time.monotonic() > deadline:
            raise Unavailable(f"The night of {night_of(as_of)} did not end within {PATIENCE_S // 60} minutes; look in Airflow.")
        time.sleep(1)


def settings_of(rails: Rails) -> Settings:
    return rails.settings
