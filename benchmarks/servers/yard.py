"""A small Tiltyard to serve from: a home with a lake, a ledger, some models of 30 features and 100 trees.

Versions lie in the ledger as registry.register leaves them, their files beside it, without MLflow, which serving never
asks. A model is named after what its champion does on the codes of `faulty`; each has a breaker of its own.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import SecretStr

from . import faulty, load, process

TREES = 100
CUSTOMERS, GROUPS = 1_000, 50
KEY = "a-key-of-the-benchmark"
CALLER = "bench"
FAULT = "n19"
"""The feature whose value makes a faulty champion fail; no other value of it means anything to the fault."""
UNKNOWN, STALE = "nobody", "long-ago"
INSTANT = "timestamptz"
FIRST = date(2020, 1, 1)
"""The night of the first promotion; every later one is of the night after the one before."""

SPEC = """
entity: customer
owner: nobody
tier: 3
source: bench
prediction: {{spine: spn_bench, features: [ftr_customer__numbers, ftr_group__kinds], max_feature_age: 7d}}
label: {{table: lbl_bench, horizon: 1d}}
estimator: {{class: xgboost.XGBClassifier}}
light: {{class: sklearn.linear_model.LogisticRegression}}
fallback: {{deadline_ms: {deadline}, tiers: [champion, previous, light], safe_default: 0.35}}
"""


@dataclass(frozen=True)
class Trained:
    """One model, trained once for all benchmarks of a run."""

    names: tuple[str, ...]
    kinds: Mapping[str, str]
    frame: pd.DataFrame
    matrix: Any
    """The frame encoded: (rows, features) float32."""
    booster: Any
    files: Mapping[str, bytes]


def train() -> Trained:
    """8,000 rows of the simulator's size, 20 numbers and 10 categories, 100 trees of depth 6, a light twin."""
    import xgboost
    from scoring import made_up

    from tiltyard.train import candidate, export
    from tiltyard.train.blocks import Rows
    from tiltyard.train.encoding import Encoding
    from tiltyard.train.fit import Fitter, Params

    frame, label, features = made_up()
    encoding = Encoding.fit(frame, features)
    matrix = encoding.transform(frame)
    rows = Rows(matrix, label, np.linspace(0, 40, len(label)))
    booster = xgboost.XGBClassifier(n_estimators=TREES, max_depth=6, learning_rate=0.05, n_jobs=1, random_state=1)
    booster.fit(matrix, label)
    light = Fitter(encoding, 1, 1).light(rows, Params(light_C=0.1, half_life_days=0))
    score = booster.predict_proba(matrix)[:, 1].astype(np.float64)
    described = {"rows": len(frame), **candidate.reference(frame, encoding, score)}
    files = {
        "model.onnx": export.heavy_onnx(booster, matrix[:100]),
        "light.onnx": export.light_onnx(light, matrix[:100]),
        "encoding.json": encoding.to_json().encode(),
        "reference.json": json.dumps(described).encode(),
        "reference.parquet": candidate.parquet(frame.head(200).assign(label=label[:200], score=score[:200])),
    }
    kinds = {feature.name: feature.kind for feature in features}
    return Trained(tuple(kinds), kinds, frame, matrix, booster, files)


@dataclass
class Yard:
    """A home, and what was put in it."""

    settings: Any
    rails: Any
    trained: Trained
    champions: dict[str, int] = field(default_factory=dict)
    nights: dict[str, date] = field(default_factory=dict)

    # -- models ---------------------------------------------------------------------------------

    def model(self, name: str, *, deadline_ms: int = 20) -> None:
        """A spec without a version: nobody is champion."""
        folder = self.settings.models / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.yaml").write_text(SPEC.format(deadline=deadline_ms), encoding="utf-8")

    def files(self, kind: str, files: Mapping[str, bytes]) -> Path:
        """A version's files, as MLflow's store would hold them."""
        folder = self.settings.home / "store" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder

    def promote(self, model: str, kind: str) -> int:
        """Register the files of `kind` as the model's next version and promote it, on a night of its own."""
        folder = self.settings.home / "store" / kind
        number = self.champions.get(model, 0) + 1
        night = self.nights.get(model, FIRST) + timedelta(days=1)
        digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        from tiltyard.records import Decision, EvidenceRecord, Promotion, Version, VersionFacts

        ledger = self.rails.ledger
        ledger.add_version(
            Version(
                model=model,
                version=number,
                night=night - timedelta(days=1),
                inputs=f"{model}/{number}",
                run_id="",
                digests=digests,
                facts=VersionFacts(artifacts=folder.as_uri(), latency_ms=0.1, size_mb=0.3),
                requested_by="bench",
            )
        )
        before = self.champions.get(model)
        evidence = EvidenceRecord(model=model, night=night, challenger=number, champion=before)
        ledger.add_decision(
            Decision(
                model=model,
                night=night,
                challenger=number,
                champion=before,
                verdict="promote",
                reasons=("by decree",),
                evidence=evidence.signed("promote"),
            )
        )
        assert ledger.claim_promotion(
            Promotion(
                model=model,
                version=number,
                night=night,
                replaced=before,
                requested_by="bench",
                approved_by=None,
                approval={},
            )
        )
        self.champions[model], self.nights[model] = number, night
        return number

    # -- features -------------------------------------------------------------------------------

    def fill(self, online_url: str | None = None) -> None:
        """Spine and feature views for CUSTOMERS in GROUPS, published, and in the online store: embedded, or Redis."""
        from tiltyard.online import fill
        from tiltyard.rails import Rails
        from tiltyard.records import FeaturesSummary
        from tiltyard.tables import Table

        now = datetime.now(UTC)
        fresh, old = now - timedelta(hours=2), now - timedelta(days=8)
        frame = self.trained.frame.head(CUSTOMERS).reset_index(drop=True)
        numbers = [name for name, kind in self.trained.kinds.items() if kind == "numeric"]
        categories = [name for name, kind in self.trained.kinds.items() if kind == "categorical"]
        who = pd.DataFrame({"customer_id": [customer(number) for number in range(CUSTOMERS)]})
        who.loc[CUSTOMERS - 1, "customer_id"] = STALE
        at = pd.Series([fresh] * (CUSTOMERS - 1) + [old])
        groups = pd.DataFrame({"group_id": [f"g{number}" for number in range(GROUPS)]})
        spine = who.assign(
            group_id=[f"g{number % GROUPS}" for number in range(CUSTOMERS)],
            prediction_time=fresh, event_time=fresh, available_at=fresh,
        )  # fmt: skip
        views = {
            "spines.spn_bench": spine,
            "features.ftr_customer__numbers": pd.concat([who, frame[numbers]], axis=1).assign(
                event_time=at, available_at=at
            ),
            "features.ftr_group__kinds": pd.concat([groups, frame[categories].head(GROUPS)], axis=1).assign(
                event_time=fresh, available_at=fresh
            ),
        }
        snapshot = 0
        for table, rows in views.items():
            columns = {name: _type(name, rows[name]) for name in rows}
            self.rails.lake.ensure(Table(table, columns))
            snapshot = self.rails.lake.replace(table, {}, rows, message="bench")
        self.rails.ledger.record_stage("", now.date(), "done", FeaturesSummary(snapshot=snapshot))
        settings = self.settings.model_copy(update={"online_url": SecretStr(online_url) if online_url else None})
        fill.materialise(Rails(settings, self.rails.lake, self.rails.ledger), now)

    # -- the service ----------------------------------------------------------------------------

    def environment(self, port: int, **more: str) -> dict[str, str]:
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        return {
            "TILTYARD_HOME": str(self.settings.home),
            "TILTYARD_MODELS": str(self.settings.models),
            "TILTYARD_SOURCES": "bench",
            "TILTYARD_SERVE_PORT": str(port),
            "TILTYARD_SERVE_KEYS": f"{CALLER}:{digest}",
            "TILTYARD_SERVE_BUDGET": "1000000000",  # counted like any other, and never spent
            "TILTYARD_SERVE_OPERATORS": CALLER,
            **more,
        }

    def start(self, port: int | None = None, **more: str) -> process.Server:
        port = port or process.free_port()
        command = [sys.executable, "-m", "tiltyard.cli", "serve"]
        environment = self.environment(port, **more)
        return process.start("Tiltyard", command, port, environment, ready="/readyz")

    @contextmanager
    def serving(self, **more: str) -> Iterator[process.Server]:
        with process.stopping(self.start(**more)) as server:
            yield server

    # -- requests -------------------------------------------------------------------------------

    def given(self, row: int) -> dict[str, Any]:
        """The features of a row as a caller would give them: null where they are missing."""
        values = self.trained.frame.iloc[row].to_dict()
        return {name: None if value is None or value != value else value for name, value in values.items()}

    def ask(self, model: str, *rows: Mapping[str, Any], **body: Any) -> str:
        return load.post(f"/v1/models/{model}/predict", {"rows": list(rows), **body}, KEY)


def customer(number: int) -> str:
    return f"c{number:05}"


def looked_up(number: int, fault: float | None = None, *, entity_id: str | None = None) -> dict[str, Any]:
    """A row by its entity; FAULT alone is given, a harmless value or the one that makes a faulty champion fail."""
    value = fault if fault is not None else round(0.1 + number % 7 / 10, 1)
    return {"entity_id": entity_id or customer(number % (CUSTOMERS - 1)), "features": {FAULT: value}}


@contextmanager
def opened(folder: Path, trained: Trained, models: Sequence[str]) -> Iterator[Yard]:
    """A fresh yard with the models' specs; its PostgreSQL is stopped at the end."""
    from tiltyard import postgres
    from tiltyard import rails as rails_module
    from tiltyard.settings import Settings

    folder.chmod(0o755)
    settings = Settings(home=folder / "home", models=folder / "models", sources=("bench",), threads=1)
    settings.home.mkdir(parents=True)
    try:
        with rails_module.opened(settings) as rails:
            yard = Yard(settings, rails, trained)
            for model in models:
                yard.model(model)
            yard.files("sound", trained.files)
            column = trained.names.index(FAULT)
            yard.files("faulty", {**trained.files, "model.onnx": faulty.faulty(trained.files["model.onnx"], column)})
            yield yard
    finally:
        postgres.stop(settings)
        shutil.rmtree(settings.runtime, ignore_errors=True)


def _type(name: str, values: pd.Series) -> str:
    if name.endswith(("_time", "_at")):
        return INSTANT
    return "double" if pd.api.types.is_numeric_dtype(values) else "varchar"
