"""Training frames over the honest staging and over the naive one, as samples to weigh."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from tiltyard import rails as rails_module
from tiltyard.leak.evidence import Sample
from tiltyard.prepare import datasets, frame, ingest, transform
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find
from tiltyard.suites import CheckReport
from tiltyard.train import leakage_gate


@dataclass(frozen=True)
class Source:
    """Where a model's frame comes from, and the log of its entities, if there is one."""

    overlay: str
    """Folder under tests/naive."""
    as_of: datetime
    window: timedelta
    history: str | None = None


SOURCES: Mapping[str, Source] = {
    "hotels": Source("hotels", datetime(2017, 3, 31, tzinfo=UTC), timedelta(days=515)),
    "flights": Source("flights", datetime(2014, 4, 1, tzinfo=UTC), timedelta(days=85)),
    "retail": Source("retail", datetime(2011, 12, 10, tzinfo=UTC), timedelta(days=300), "stg_retail__order"),
    "subscription": Source("subscription", datetime(2025, 6, 30, tzinfo=UTC), timedelta(days=140)),
}
"""The whole of what each data set can teach: the first quarter of flights, all cohorts of the others."""


def lies(source: str) -> dict[str, set[str]]:
    """{"lies": feature columns that were not known yet, "doubtful": those of which it cannot be said}."""
    content = yaml.safe_load((ROOT / "tests" / "naive" / SOURCES[source].overlay / "lies.yaml").read_text("utf-8"))
    return {kind: set(content.get(kind, {}).values()) for kind in ("lies", "doubtful")}


def naive_project(source: str, folder: Path) -> Path:
    """A copy of the dbt project with the source's naive staging laid over it."""
    target = folder / "dbt"
    shutil.copytree(ROOT / "dbt", target, ignore=shutil.ignore_patterns("target", "logs"), dirs_exist_ok=True)
    overlay = ROOT / "tests" / "naive" / SOURCES[source].overlay
    shutil.copytree(overlay, target, ignore=shutil.ignore_patterns("lies.yaml"), dirs_exist_ok=True)
    return target


def sample(
    settings: Settings,
    source: str,
    *,
    naive: bool,
    as_of: datetime | None = None,
    window: timedelta | None = None,
) -> tuple[Sample, CheckReport]:
    """Build the source, take its model's training frame and let the gate judge it. `settings` is a home of its own for
    one of the two.

    What is not landed yet is fetched; the simulated business blanks the last log-in of whoever cancels.
    """
    chosen = SOURCES[source]
    night = as_of or chosen.as_of
    if naive:
        settings = settings.model_copy(update={"dbt": naive_project(source, settings.home)})
    if not (settings.landing / source).exists():
        simulated = source == "subscription"
        datasets.fetch(settings, "simulated" if simulated else source, cancel_trigger=simulated)
    content = yaml.safe_load((ROOT / "tests" / "naive" / chosen.overlay / "lies.yaml").read_text("utf-8"))
    promise = find(ROOT / "models", content["model"])
    longer = promise.estimator.model_copy(update={"window": window or chosen.window})
    promise = promise.model_copy(update={"estimator": longer})
    with rails_module.opened(settings) as rails:
        ingest.land_night(rails, source, night)
        transform.build(rails, (source,), night)
        learned = frame.training(rails, promise, night)
        rows = learned.read()
        labels = rails.lake.query(
            f"select {promise.key}, prediction_time, max(event_time) as label_time "
            f"from {{labels.{promise.label.table}}} group by all",
            night,
        )
        history = rails.lake.query(f"select * from {{staging.{chosen.history}}}", night) if chosen.history else None
        report = leakage_gate.check_frame(rails, promise, learned, night, render=False)
    weighed = Sample(
        frame=rows.merge(labels, on=[promise.key, "prediction_time"], how="left"),
        label="label",
        prediction_time="prediction_time",
        entity=promise.key,
        label_time="label_time",
        features=tuple(feature.name for feature in learned.features),
        history=history,
        history_as_of="available_at" if history is not None else None,
    )
    return weighed, report
