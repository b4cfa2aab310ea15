"""The hindcast: seconds for the nights of a home's history, and for trying policies on them.

`sla_breach`, sixty nights under one policy, beside the 60 s that this may take: in a home that has these nights, as any
home has its own past (its batches are landed, built and checked), with everything that a hindcast keeps thrown away,
so that every version is trained. And from an empty home, where landing, dbt and the suites of sixty nights come on
top. Then under three policies, beside the 15 s that each further one may take. With `--history`, forty nights as
`make up` writes them, per stage. With `--year`, four models on a simulated business for a year, from an empty home,
beside the 15 minutes that this may take.

Needs the incident data (TILTYARD_DATA_MIRROR, or the network). The environment and the download are not in the figures.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from tiltyard import clock, postgres, spec
from tiltyard import rails as rails_module
from tiltyard.edge import describe
from tiltyard.govern import drift, grants
from tiltyard.judge import promotion, shadow
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.prepare import datasets, features
from tiltyard.rewind import backtest, hindcast, past, policy
from tiltyard.settings import NO_TELEMETRY, ROOT, Settings
from tiltyard.train import training

FIRST, NIGHTS = "2016-04-01", 60
ONE_S, FURTHER_S, YEAR_S = 60.0, 15.0, 900.0
STAGES = (
    (features, "ingest"), (features, "transform"), (shadow, "run"), (promotion, "run"), (drift, "measure_night"),
    (grants, "govern_night"), (training, "train"),
)  # fmt: skip
TRIED = {
    "cautious": {"gate": {"alpha": 0.01, "min_shadow": "14d"}, "drift": {"cooldown": "14d"}},
    "eager": {"gate": {"alpha": 0.2, "max_slice_loss": 0.1}, "drift": {"on_drift": "retrain_always"}},
}


@contextmanager
def empty_home(**values: Any) -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as folder:
        Path(folder).chmod(0o755)
        settings = Settings(home=Path(folder) / "home", **values)
        try:
            yield settings
        finally:
            postgres.stop(settings)


def policies(settings: Settings, names: list[str], tried: dict[str, Any], folder: Path) -> list[policy.Policy]:
    specs = tuple(spec.find(settings.models, name) for name in names)
    whole = load_portfolio(settings.models)
    found = [policy.current(specs, whole)]
    for name, content in tried.items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        found.append(policy.load(path, specs, whole))
    return found


def timed(settings: Settings, tried: list[policy.Policy], first: datetime, last: datetime) -> tuple[float, Any]:
    began = time.perf_counter()
    with rails_module.opened(settings) as rails:
        result = backtest.try_policies(rails, tried, first, last, jobs=2, plots=settings.home / "plots")
    return time.perf_counter() - began, result


def trying() -> bool:
    first = clock.parse_as_of(FIRST)
    last = first + (NIGHTS - 1) * timedelta(days=1)
    with empty_home(sources=("incident",)) as settings:
        datasets.fetch(settings, "incident")
        tried = policies(settings, ["sla_breach"], TRIED, settings.home)
        empty, _ = timed(settings, tried[:1], first, last)
        print(
            f"{NIGHTS} nights of sla_breach, one policy, from an empty home: {empty:.0f} s, {empty / ONE_S:.2f} of 60 s"
        )
        shutil.rmtree(past.home(settings))
        one, _ = timed(settings, tried[:1], first, last)
        print(f"in a home that has these nights, every version trained again: {one:.0f} s, {one / ONE_S:.2f} of 60 s")
        again, _ = timed(settings, tried[:1], first, last)
        print(f"with the versions that are kept: {again:.0f} s")
        three, result = timed(settings, tried, first, last)
        further = (three - again) / 2
        print(f"three policies: {three:.0f} s, {further:.1f} s for each further one, {further / FURTHER_S:.2f} of 15 s")
    for row in describe.policies(result):
        print("  ".join(f"{value!s:>10}" for value in row.values()))
    return one <= ONE_S and further <= FURTHER_S


def a_year() -> bool:
    from tiltyard.prepare.simulator import Simulator

    with tempfile.TemporaryDirectory(prefix="tiltyard-models-") as models:
        names = []
        for window in (45, 60, 75, 90):
            names.append(f"churn_{window}")
            shutil.copytree(ROOT / "models" / "churn", Path(models, names[-1]))
            content = yaml.safe_load((ROOT / "models" / "churn" / "spec.yaml").read_text())
            content["estimator"]["window"] = f"{window}d"
            Path(models, names[-1], "spec.yaml").write_text(yaml.safe_dump(content))
        with empty_home(sources=("subscription",), models=Path(models)) as settings:
            Simulator(days=425).land(settings.landing / "subscription")
            first = clock.midnight(date(2025, 3, 1))
            took, result = timed(settings, policies(settings, names, {}, settings.home), first, first + timedelta(364))
    print(f"four models, 365 nights, one policy, from an empty home: {took:.0f} s, {took / YEAR_S:.2f} of 900 s")
    for row in describe.policies(result):
        print("  ".join(f"{value!s:>10}" for value in row.values()))
    return took <= YEAR_S


def history() -> bool:
    spent: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)

    def measure(module: Any, name: str) -> None:
        work: Callable[..., Any] = getattr(module, name)
        label = module.__name__.rpartition(".")[2] + ("" if name == "run" else f" ({name})")

        def measured(*arguments: Any, **more: Any) -> Any:
            begun = time.perf_counter()
            try:
                return work(*arguments, **more)
            finally:
                spent[label] += time.perf_counter() - begun
                calls[label] += 1

        setattr(module, name, measured)

    for module, name in STAGES:
        measure(module, name)
    first = clock.parse_as_of(FIRST)
    with empty_home(sources=("incident",)) as settings:
        datasets.fetch(settings, "incident")
        begun = time.perf_counter()
        with rails_module.opened(settings) as rails:
            hindcast.hindcast(rails, [spec.find(settings.models, "sla_breach")], first, first + 39 * timedelta(days=1))
        total = time.perf_counter() - begun
    for label, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{label:24} {seconds:7.1f} s in {calls[label]:3} calls, {seconds / calls[label]:6.2f} s each")
    print(f"40 nights as history: {total:.0f} s, {total / 40:.1f} s a night; {total / 180:.2f} of the 180 s allowed")
    return total <= 180.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", action="store_true", help="forty nights as make up writes them, per stage")
    parser.add_argument("--year", action="store_true", help="four simulated models over a year")
    asked = parser.parse_args()
    os.environ |= NO_TELEMETRY
    return 0 if (history() if asked.history else a_year() if asked.year else trying()) else 1


if __name__ == "__main__":
    sys.exit(main())
