"""A small dbt project of two sources, `shop` and `web`, drawn for tests of what one of them does to the other.

Sales are what is predicted on (the spine); `ftr_shop__sales` stands on the shop alone, `ftr_shop__traffic` on the web
alone, `ftr_shop__both` on either. Staging and views are plain tables, so that a build takes a second.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from tests.conftest import make_settings
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings

CONTRACT = """version: 2
sources:
  - name: {source}
    database: lake
    schema: raw
    config: {{meta: {{tiltyard: {{{rhythm}}}}}}}
    tables:
      - name: {table}
        config:
          meta:
            tiltyard:
              event_time: {{column: at}}
              available_at: {{column: at}}
        columns:
          - {{name: {key}, data_type: varchar}}
          - {{name: shop_id, data_type: varchar}}
          - {{name: size, data_type: double}}
          - {{name: at, data_type: timestamptz}}
"""
TABLES = {"shop": ("sale", "sale_id"), "web": ("click", "click_id")}
"""Source → its table, and that one's key."""
TIMES = "event_time, available_at, {{ built_at() }} as built_at"
MODELS = {
    "staging/shop/stg_shop__sale": f"select sale_id, shop_id, size, {TIMES} from {{{{ source('shop', 'sale') }}}}",
    "staging/web/stg_web__click": f"select click_id, shop_id, size, {TIMES} from {{{{ source('web', 'click') }}}}",
    "spines/spn_sale": f"select sale_id, shop_id, event_time as prediction_time, {TIMES} "
    "from {{ ref('stg_shop__sale') }}",
    "features/ftr_shop__sales": f"select shop_id, size as amount, {TIMES} from {{{{ ref('stg_shop__sale') }}}}",
    "features/ftr_shop__traffic": f"select shop_id, size as clicks, {TIMES} from {{{{ ref('stg_web__click') }}}}",
    "features/ftr_shop__both": f"select shop_id, size as moved, {TIMES} from {{{{ ref('stg_shop__sale') }}}} "
    f"union all select shop_id, size as moved, {TIMES} from {{{{ ref('stg_web__click') }}}}",
    "labels/lbl_sale": "select sale_id, event_time as prediction_time, size > 1 as label, "
    f"{TIMES} from {{{{ ref('stg_shop__sale') }}}}",
}
"""Model → its SQL."""
SPEC = """
entity: sale
owner: nobody
tier: 3
source: shop
prediction: {{spine: spn_sale, features: [{views}], max_feature_age: 30d}}
label: {{table: lbl_sale, horizon: 2d}}
estimator: {{class: xgboost.XGBClassifier, window: 60d}}
light: {{class: sklearn.linear_model.LogisticRegression}}
fallback: {{safe_default: 0.5}}
"""
READS = {"till": "ftr_shop__sales", "flow": "ftr_shop__sales, ftr_shop__traffic", "blend": "ftr_shop__both"}
"""Model of the portfolio → the feature views that it reads."""


def settings_of(folder: Path, postgres_url: str, **values: object) -> Settings:
    """A fresh home with the project, the suites that come with Tiltyard and three models; nothing was delivered yet."""
    dbt = folder / "dbt"
    shutil.copytree(ROOT / "dbt" / "macros", dbt / "macros", ignore=shutil.ignore_patterns("tests"))
    for name in ("dbt_project.yml", "profiles.yml"):
        shutil.copy(ROOT / "dbt" / name, dbt / name)
    shutil.copytree(ROOT / "expectations", folder / "expectations")
    shutil.rmtree(folder / "expectations" / "features")
    settings = make_settings(
        folder, postgres_url, dbt=dbt, models=folder / "models", expectations=folder / "expectations",
        sources=("shop", "web"), **values,
    )  # fmt: skip
    for source in TABLES:
        contract(settings, source)
    for name, sql in MODELS.items():
        model(settings, name, sql)
    suite = settings.expectations / "features" / "default.yaml"
    suite.parent.mkdir()
    suite.write_text("expectations: []\nmeta: {may_be_empty: true}\n", encoding="utf-8")
    for name, views in READS.items():
        spec = settings.models / name / "spec.yaml"
        spec.parent.mkdir(parents=True)
        spec.write_text(SPEC.format(views=views), encoding="utf-8")
    return settings


def contract(settings: Settings, source: str, rhythm: str = "") -> None:
    """Write the contract with a source; `rhythm`: what it says of when it delivers, as YAML."""
    table, key = TABLES[source]
    path = settings.dbt / "models" / "staging" / source / f"_{source}__sources.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CONTRACT.format(source=source, rhythm=rhythm, table=table, key=key), encoding="utf-8")


def model(settings: Settings, name: str, sql: str) -> None:
    """Write one of dbt's models."""
    path = settings.dbt / "models" / f"{name}.sql"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "{{ config(materialized='table', contract={'enforced': false}) }}\n" + sql + "\n"
    path.write_text(text, encoding="utf-8")


def deliver(settings: Settings, source: str, day: date, rows: Sequence[Mapping[str, Any]] = (), of: str = "") -> None:
    """Land a source's file of a day: one row per shop at noon, unless `rows` are given. `of`: what the name goes on."""
    table, key = TABLES[source]
    rows = rows or [
        {key: f"{day}-{shop}", "shop_id": shop, "size": size, "at": f"{day}T12:00:00+00:00"}
        for shop, size in (("a", 1.0), ("b", 2.0))
    ]
    path = settings.landing / source / table / f"{day}{of}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(rails: Rails, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The command line over a home."""
    settings = rails.settings
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TILTYARD_")}
    ours = {
        "PYTHONPATH": str(ROOT / "plugins"),
        "TILTYARD_HOME": str(settings.home),
        "TILTYARD_MODELS": str(settings.models),
        "TILTYARD_DBT": str(settings.dbt),
        "TILTYARD_EXPECTATIONS": str(settings.expectations),
        "TILTYARD_SOURCES": "shop,web",
        "TILTYARD_SCHEDULE": "none",
        "TILTYARD_DATABASE_URL": settings.database_url or "",
        "TILTYARD_DATABASE_PREFIX": settings.database_prefix,
    }
    command = [sys.executable, "-m", "tiltyard.cli", *words]
    done = subprocess.run(command, env=kept | ours, capture_output=True, text=True, timeout=500)
    assert done.returncode == code, done.stdout + done.stderr
    return done
