"""Small lakes drawn in a test: a spine of visits, one feature view of shops, a label table."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from tiltyard import spec as specs
from tiltyard.rails import Rails
from tiltyard.tables import Table

INSTANT = "timestamp with time zone"
SPINES = "spines.spn_visit"
FEATURES = "features.ftr_shop__state"
LABELS = "labels.lbl_sale"
COLUMNS = {
    SPINES: {
        "visit_id": "varchar", "shop_id": "varchar", "prediction_time": INSTANT,
        "event_time": INSTANT, "available_at": INSTANT, "built_at": INSTANT,
    },
    FEATURES: {
        "shop_id": "varchar", "size": "bigint", "mood": "varchar", "is_open": "boolean",
        "event_time": INSTANT, "available_at": INSTANT, "built_at": INSTANT,
    },
    LABELS: {
        "visit_id": "varchar", "prediction_time": INSTANT, "label": "boolean",
        "event_time": INSTANT, "available_at": INSTANT, "built_at": INSTANT,
    },
}  # fmt: skip

SPEC = """
entity: visit
owner: nobody
tier: 3
source: shops
prediction: {{spine: spn_visit, features: [ftr_shop__state], max_feature_age: {max_feature_age}}}
label: {{table: lbl_sale, horizon: {horizon}, delay: {delay}}}
estimator: {{class: xgboost.XGBClassifier, window: 60d}}
light: {{class: sklearn.linear_model.LogisticRegression}}
fallback: {{safe_default: 0.5}}
"""


def instant(text: str) -> datetime:
    """`2024-02-01`, or `2024-02-01 10:00`, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def small_spec(folder: Path, *, max_feature_age: str = "null", horizon: str = "2d", delay: str = "0d") -> specs.Spec:
    """The promise of a model over this lake."""
    home = folder / "models" / "small"
    home.mkdir(parents=True, exist_ok=True)
    text = SPEC.format(max_feature_age=max_feature_age, horizon=horizon, delay=delay)
    (home / "spec.yaml").write_text(text, encoding="utf-8")
    return specs.load(home)


def fill(rails: Rails, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows to one of the lake's tables. Times that are not given are those of the row's other time."""
    rails.lake.ensure(Table(table, COLUMNS[table]))
    full = []
    for row in rows:
        happened = row.get("event_time", row.get("prediction_time"))
        full.append({"event_time": happened, "available_at": happened, **row})
    if full:
        data = pd.DataFrame(full, columns=[name for name in COLUMNS[table] if name != "built_at"]).astype(
            {name: "datetime64[us, UTC]" for name in full[0] if name.endswith(("_time", "_at"))}
        )
        names = ", ".join(data.columns)
        rails.lake.connection.register("_drawn", data)
        rails.lake.connection.execute(f"insert into lake.{table} ({names}) select {names} from _drawn")
        rails.lake.connection.unregister("_drawn")
