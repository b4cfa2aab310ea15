"""Forty nights of `sla_breach` from an empty home: seconds in all and per stage, beside the 180 s that they may take.

Needs the incident data (TILTYARD_DATA_MIRROR, or the network). Landing, the full dbt build and the first
training are in the figure; the environment and the download are not.
"""

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from tiltyard import clock, datasets, drift, features, hindcast, postgres, promotion, shadow, training
from tiltyard import rails as rails_module
from tiltyard.settings import NO_TELEMETRY, Settings
from tiltyard.spec import find

FIRST, NIGHTS, LIMIT_S = "2016-04-01", 40, 180.0
STAGES = ((features, "ingest"), (features, "transform"), (shadow, "run"), (promotion, "run"), (drift, "run"))


def main() -> None:
    os.environ |= NO_TELEMETRY
    spent: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)

    def timed(module: Any, name: str) -> None:
        work: Callable[..., Any] = getattr(module, name)
        label = module.__name__.removeprefix("tiltyard.") + ("" if name == "run" else f" ({name})")

        def measured(*arguments: Any, **more: Any) -> Any:
            begun = time.perf_counter()
            try:
                return work(*arguments, **more)
            finally:
                spent[label] += time.perf_counter() - begun
                calls[label] += 1

        setattr(module, name, measured)

    for module, name in (*STAGES, (training, "train")):
        timed(module, name)
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as folder:
        Path(folder).chmod(0o755)
        settings = Settings(home=Path(folder) / "home", sources=("incident",))
        datasets.fetch(settings, "incident")
        first = clock.parse_as_of(FIRST)
        last = first + (NIGHTS - 1) * timedelta(days=1)
        begun = time.perf_counter()
        try:
            with rails_module.opened(settings) as rails:
                hindcast.run(rails, [find(settings.models, "sla_breach")], first, last)
            total = time.perf_counter() - begun
        finally:
            postgres.stop(settings)
    for label, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{label:24} {seconds:7.1f} s in {calls[label]:3} calls, {seconds / calls[label]:6.2f} s each")
    share = total / LIMIT_S
    print(f"{NIGHTS} nights: {total:.0f} s, {total / NIGHTS:.1f} s a night; {share:.2f} of the {LIMIT_S:.0f} s allowed")


if __name__ == "__main__":
    main()
