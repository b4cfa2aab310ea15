"""A home with versions to serve: small models that are trained here, registered and promoted as any other."""

import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tests import decree
from tiltyard import spec as specs
from tiltyard.clock import night_closing
from tiltyard.rails import Rails
from tiltyard.records import Promotion, VersionFacts
from tiltyard.serve.servable import Servables
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.target import YES_OR_NO, Target
from tiltyard.train import registry
from tiltyard.train.encoding import EncodedColumn, Encoding

FIRST = datetime(2016, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
ENCODING = Encoding(
    (
        EncodedColumn("weight", "numeric"),
        EncodedColumn("size", "numeric"),
        EncodedColumn("is_open", "boolean"),
        EncodedColumn("priority", "categorical", ("high", "low")),
    )
)
WIDER = Encoding((*ENCODING.columns, EncodedColumn("extra", "numeric")))
"""With a feature that the others do not know."""
TURNED = Encoding((*ENCODING.columns[:3], EncodedColumn("priority", "numeric")))
"""With a feature of another kind."""
SPEC: dict[str, Any] = {
    "entity": "ticket",
    "owner": "service-desk",
    "tier": 2,
    "source": "incident",
    "prediction": {
        "spine": "spn_ticket",
        "features": ["ftr_ticket__intake", "ftr_group__load"],
        "max_feature_age": "2d",
    },
    "label": {"table": "lbl_ticket", "horizon": "2d"},
    "estimator": {"class": "xgboost.XGBClassifier"},
    "light": {"class": "sklearn.linear_model.LogisticRegression"},
    "fallback": {"safe_default": 0.25, "deadline_ms": 5_000},
}
"""Its deadline is far above what any answer takes, also on a machine with other work: a version that is sound is never
late. A test in which one is late gives its model `SOON`."""
SOON: dict[str, Any] = {"deadline_ms": 200}
"""The fallback of a model in which a version that hangs is late soon."""
ROW: dict[str, Any] = {"weight": 0.3, "size": 4, "is_open": True, "priority": "high"}


def written(models: Path, name: str, **changes: Any) -> Spec:
    """models/<name>/spec.yaml as SPEC says, with `changes` to its sections."""
    content = {
        **SPEC,
        **{key: {**SPEC.get(key, {}), **value} if isinstance(value, dict) else value for key, value in changes.items()},
    }
    folder = models / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(yaml.safe_dump(content))
    return specs.load(folder)


def home(folder: Path, database_url: str, prefix: str, **values: Any) -> Settings:
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    return Settings(
        home=folder / "home",
        models=models,
        sources=("incident",),
        database_url=database_url,
        database_prefix=prefix,
        **values,
    )


def model(seed: int, encoding: Encoding = ENCODING, classes: int = 2) -> bytes:
    """A logistic regression on the encoded features, as ONNX with the names that every version has."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rng = np.random.default_rng(seed)
    matrix = rng.random((400, len(encoding.columns))).astype(np.float32)
    label = rng.random(400) < matrix[:, 0]
    if classes > 2:
        label = np.floor(classes * np.clip(matrix[:, 0] + rng.normal(0, 0.1, 400), 0, 0.99)).astype(int)
    made = make_pipeline(SimpleImputer(), LogisticRegression()).fit(matrix, label)
    names = [("input", FloatTensorType([None, matrix.shape[1]]))]
    options = {id(made): {"zipmap": False}}
    return bytes(to_onnx(made, initial_types=names, options=options, target_opset=15).SerializeToString())


def register(
    rails: Rails,
    spec: Spec,
    as_of: datetime,
    heavy: bytes,
    light: bytes,
    encoding: Encoding = ENCODING,
    kind: Target = YES_OR_NO,
) -> int:
    """A version, trained as of a night on a label of this kind, as training would register it. Returns its number."""
    score = kind.column(np.full((2, *kind.shape), 1 / (kind.shape or (2,))[0]))
    rows = pd.DataFrame([ROW, {**ROW, "weight": 0.8, "priority": "low"}]).assign(label=[True, False], score=score)
    for column in encoding.columns:
        if column not in ENCODING.columns:
            rows[column.name] = [0.1, 0.9]
    sample = io.BytesIO()
    rows.to_parquet(sample)
    files: Mapping[str, bytes] = {
        "model.onnx": heavy,
        "light.onnx": light,
        "encoding.json": encoding.to_json().encode(),
        "reference.json": json.dumps(kind.to_json()).encode(),
        "reference.parquet": sample.getvalue(),
    }
    candidate = registry.Candidate(
        as_of=as_of, inputs=f"{spec.name}/{as_of}", files=files, features=encoding.features, params={}, metrics={},
        tags={}, plots={}, facts=VersionFacts(), requested_by="drift", description="",
    )  # fmt: skip
    row, _ = registry.register(rails, spec, candidate, rails.ledger.claim(f"training/{spec.name}/{as_of}"))
    return int(row.version)


def cached(settings: Settings) -> None:
    """Fill the cache with the files of all that is in service, as a service does that has run here for a while."""
    servables = Servables(settings)
    servables.refresh()
    servables.fetch()
    servables.close()


def promote(rails: Rails, spec: Spec, version: int, as_of: datetime, replaced: int | None = None) -> None:
    assert decree.promote(rails.ledger, Promotion(
        model=spec.name, version=version, night=night_closing(as_of), replaced=replaced, requested_by="gate",
        approved_by=None, approval={},
    ))  # fmt: skip
