"""An arena: one lake, ledger and MLflow for many tests; each has a model of its own in it."""

import hashlib
import json
import sys
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.judge import scoring
from tiltyard.prepare import transform
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary, ReplaySummary, TrainingSummary, Version, VersionFacts
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.tables import PREDICTION, Table

LABEL = {
    "ticket_id": "varchar",
    "prediction_time": "timestamptz",
    "label": "boolean",
    "event_time": "timestamptz",
    "available_at": "timestamptz",
}
SPINE = {
    "ticket_id": "varchar",
    "prediction_time": "timestamptz",
    "event_time": "timestamptz",
    "available_at": "timestamptz",
}
FEATURES = {"ticket_id": "varchar", "weight": "double", "event_time": "timestamptz", "available_at": "timestamptz"}
FACTS = {"latency_ms": 2.0, "size_mb": 0.1, "rows": 4000, "frame": "0" * 64, "reasons": ["the first one"]}
FIRST = datetime(2016, 3, 1, tzinfo=UTC)
"""The first day of predictions; its night closes a day later."""


@dataclass(frozen=True)
class Arena:
    rails: Rails
    owners: dict[str, str] = field(default_factory=dict)
    """Model → the test module that has it: the lake is shared, so a name that two use would mix their rows."""

    def spec(self, name: str, **changes: object) -> Spec:
        """A model whose labels take two days, and a gate that asks for three nights and 200 rows."""
        asking = str(sys._getframe(1).f_globals["__name__"])
        owner = self.owners.setdefault(name, asking)
        assert owner == asking, f"{owner} has a model '{name}' already; call this one something else"
        values: dict = {
            "name": name,
            "entity": "ticket",
            "owner": "service-desk",
            "tier": 2,
            "source": "incident",
            "prediction": {"spine": f"spn_{name}", "features": [f"ftr_ticket__{name}"]},
            "label": {"table": f"lbl_{name}", "horizon": "2d"},
            "estimator": {"class": "xgboost.XGBClassifier"},
            "light": {"class": "sklearn.linear_model.LogisticRegression"},
            "gate": {"min_matured": 200, "min_shadow": "3d", "slices": ["priority"]},
            "fallback": {"safe_default": 0.5},
        }
        return Spec(**(values | changes))

    def label(self, spec: Spec, rows: pd.DataFrame) -> None:
        """Add label rows: ticket_id, prediction_time, label, available_at."""
        table = f"labels.{spec.label.table}"
        self.rails.lake.ensure(Table(table, LABEL))
        rows = rows.assign(event_time=rows["available_at"])[list(LABEL)]
        self.publish(self.rails.lake.replace(table, {"ticket_id": ""}, rows, message="drawn"))

    def publish(self, snapshot: int) -> None:
        self.rails.ledger.record_stage("", FIRST.date(), "done", FeaturesSummary(snapshot=snapshot))

    def predict(self, spec: Spec, rows: pd.DataFrame) -> None:
        """Add predictions: version (or missing), role, entity_id, prediction_time, score, and what differs."""
        ends = pd.to_datetime(rows["prediction_time"], utc=True).dt.floor("D") + pd.Timedelta(days=1)
        defaults = {
            "tier": "shadow",
            "tier_reason": None,
            "slices": '{"priority": "high"}',
            "snapshot": self.rails.lake.snapshot(),
            "apart": None,
            "cohort": pd.Series(pd.NaT, index=rows.index, dtype="datetime64[us]"),
        }
        rows = rows.assign(
            model=spec.name,
            version=rows["version"].astype("Int32"),
            night=ends.dt.date,
            available_at=ends,
            scored_at=clock.now(),
            **{name: value for name, value in defaults.items() if name not in rows},
        )
        rows["request_id"] = [
            scoring.request_id(spec.name, str(row.version), row.entity_id, row.prediction_time)
            for row in rows.itertuples()
        ]
        self.rails.lake.ensure(PREDICTION)
        self.rails.lake.replace(PREDICTION, {"request_id": ""}, rows[list(PREDICTION.columns)], message="drawn")

    def version(
        self,
        spec: Spec,
        number: int,
        trained: datetime,
        requested_by: str = "drift",
        *,
        facts: dict[str, object] | None = None,
        replay: str | None = "pass",
        missing: float = 0.0,
    ) -> None:
        """A version in MLflow's registry and in the ledger, with the training that made it; its models are no models.

        `missing` is the share of training rows without a `weight`; `replay` what the millisecond test said then.
        """
        from mlflow.exceptions import MlflowException

        from tiltyard.train import registry, scorer

        client = registry.client(self.rails.settings)
        try:
            client.create_registered_model(spec.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        folder = self.rails.settings.home / "arena" / spec.name / str(number)
        folder.mkdir(parents=True)
        described = {"features": {"weight": {"kind": "numeric", "missing": missing}}}
        for name in scorer.FILES:
            (folder / name).write_text(json.dumps(described if name == "reference.json" else {"version": number}))
        created = client.create_model_version(spec.name, source=folder.as_uri())
        assert int(created.version) == number
        self.rails.ledger.add_version(
            Version(
                model=spec.name,
                version=number,
                night=night_closing(trained),
                inputs=f"{spec.name}/{number}",
                run_id="",
                digests={name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in scorer.FILES},
                facts=VersionFacts.from_json({**FACTS, **(facts or {}), "artifacts": folder.as_uri()}),
                requested_by=requested_by,
            )
        )
        verdict = ReplaySummary(verdict=replay, rows=900, tested=900) if replay else None
        summary = TrainingSummary(version=number, replay=verdict)
        self.rails.ledger.record_stage(spec.name, night_closing(trained), "done", summary)

    def rows(self, spec: Spec, names: list[str], at: list[datetime], weight: list[float | None]) -> None:
        """Spine rows and the one feature that the model reads of them."""
        base = pd.DataFrame({"ticket_id": names, "event_time": at, "available_at": at})
        spine, view = f"spines.{spec.prediction.spine}", f"features.{spec.prediction.features[0]}"
        self.rails.lake.ensure(Table(spine, SPINE))
        self.rails.lake.ensure(Table(view, FEATURES))
        self.rails.lake.replace(spine, {}, base.assign(prediction_time=at)[list(SPINE)], message="drawn")
        weights = base.assign(weight=pd.array(weight, dtype="Float64"))[list(FEATURES)]
        self.publish(self.rails.lake.replace(view, {}, weights, message="drawn"))

    def duel(
        self,
        spec: Spec,
        versions: dict[int, float],
        *,
        nights: int = 8,
        per_night: int = 60,
        seed: int = 1,
        blank: float = 0.0,
        **made: Any,
    ) -> datetime:
        """Versions trained before FIRST, version → noise of its scores, `nights` of predictions on the same rows.

        `blank` is the share of rows without a `weight`; `made` goes to `version`.

        Labels arrive after two days. Returns the `as_of` at which all but the last two nights are matured.
        """
        rng = np.random.default_rng(seed)
        count = nights * per_night
        at = [FIRST + timedelta(days=place // per_night, minutes=place % per_night) for place in range(count)]
        chance = rng.random(count)
        names = [f"t{place:05d}" for place in range(count)]
        labels = pd.DataFrame({"ticket_id": names, "prediction_time": at, "label": rng.random(count) < chance})
        self.rows(spec, names, at, [value if value >= blank else None for value in np.linspace(0, 1, count)])
        self.label(spec, labels.assign(available_at=[time + timedelta(days=2) for time in at]))
        for place, (number, noise) in enumerate(versions.items()):
            self.version(spec, number, FIRST - timedelta(days=len(versions) - place), **made)
            score = np.clip(chance + rng.normal(0, noise, count), 0, 1)
            rows = {"version": number, "role": "challenger", "entity_id": names, "prediction_time": at, "score": score}
            self.predict(spec, pd.DataFrame(rows))
        return FIRST + timedelta(days=nights)


@pytest.fixture(scope="session")
def arena(tmp_path_factory: pytest.TempPathFactory, postgres_url: str):
    home = tmp_path_factory.mktemp("arena")
    settings = Settings(home=home / "home", database_url=postgres_url, database_prefix=f"arena{uuid.uuid4().hex[:8]}_")
    with rails_module.opened(settings) as opened:
        yield Arena(opened)


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Path:
    """dbt's manifest of the project as it is, parsed once."""
    settings = Settings(home=tmp_path_factory.mktemp("manifest") / "home", database_url=postgres_url)
    transform.manifest(settings)
    return settings.home / "dbt" / "manifest.json"
