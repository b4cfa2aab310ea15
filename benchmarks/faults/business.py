"""Eight sources and forty models: the simulated business under eight names, each with customers of its own.

Every source has a landing folder, a contract, four staging tables, a spine, three feature views, a table of popular
plans and labels; five models read them, each another choice of the views, so that one view can fail and leave some of
its source's models alone.
"""

import re
import shutil
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import yaml

from tiltyard.prepare.simulator import Drift, Simulator
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find

SOURCES = ("atlas", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven")
TABLES = ("customer", "login", "payment", "cancellation")
VIEWS: Mapping[str, tuple[str, ...]] = {
    "full": ("profile", "activity", "payments"),
    "visits": ("profile", "activity"),
    "money": ("profile", "payments"),
    "plain": ("profile",),
    "habits": ("activity", "payments"),
}
"""Model of a source → the feature views that it reads."""
RANKS = "full"
"""The model of a source whose safe default carries popular items."""
ASKED = ("haven_full", "haven_visits")
"""Models of tier 1: a person is asked before a promotion."""
START = date(2025, 1, 1)
DAYS = 57
CUSTOMERS = 900
_WORDS = (
    (r"\bsource\('subscription', '(\w+)'\)", r"source('{source}', '{source}_\1')"),
    (r"subscription", "{source}"),
    (r"spn_customer_reviewed", "spn_{source}_reviewed"),
    (r"ftr_customer__", "ftr_customer__{source}_"),
    (r"lbl_churn", "lbl_{source}_churn"),
    (r"horizon: 14d", "horizon: 3d"),
    (r"delay: 7d", "delay: 1d"),
    (r"^(      - name: )(customer|login|payment|cancellation)$", r"\1{source}_\2"),
)
"""The texts of the simulated business → those of a source."""
PLANS = """{{{{ config(unique_key=['event_time', 'item_id']) }}}}

select
    plan as item_id,
    plan as item_name,
    cast(count(distinct customer_id) as double) as score,
    date_trunc('day', available_at) + interval '1 day' as event_time,
    date_trunc('day', available_at) + interval '1 day' as available_at,
    {{{{ built_at() }}}} as built_at
from {{{{ ref('stg_{source}__customer') }}}}
where plan is not null
group by all
"""
PLANS_PROMISE = """version: 2
models:
  - name: pop_{source}_plans
    description: One row per plan and day on which the CRM wrote a customer of it.
    columns:
      - {{name: item_id, data_type: varchar, description: The plan., constraints: [{{type: not_null}}]}}
      - {{name: item_name, data_type: varchar, description: The plan.}}
      - {{name: score, data_type: double, description: Customers of it that were written.}}
      - {{name: event_time, data_type: timestamp with time zone, description: The midnight that closes the day.}}
      - {{name: available_at, data_type: timestamp with time zone, description: The same.}}
      - {{name: built_at, data_type: timestamp with time zone, description: Start of the build that wrote the row.}}
"""


def model(source: str, kind: str) -> str:
    return f"{source}_{kind}"


def models_of(source: str) -> tuple[str, ...]:
    return tuple(model(source, kind) for kind in VIEWS)


def every_model() -> tuple[str, ...]:
    return tuple(sorted(name for source in SOURCES for name in models_of(source)))


def view(source: str, topic: str) -> str:
    return f"ftr_customer__{source}_{topic}"


def readers(source: str, *topics: str) -> frozenset[str]:
    """The models of a source that read one of these views."""
    return frozenset(model(source, kind) for kind, views in VIEWS.items() if not set(views).isdisjoint(topics))


def settings(folder: Path, **values: object) -> Settings:
    """The settings of a home with a checkout of its own, under a folder."""
    checkout = folder / "checkout"
    return Settings(
        home=folder / "home", models=checkout / "models", dbt=checkout / "dbt", expectations=checkout / "expectations",
        sources=SOURCES, schedule="@daily", database_url=None, chunk_models=14, threads=1, **values,
    )  # fmt: skip


def write(at: Settings) -> None:
    """The checkout and the deliveries of the whole business."""
    at.dbt.mkdir(parents=True)
    shutil.copytree(ROOT / "dbt" / "macros", at.dbt / "macros")
    for name in ("dbt_project.yml", "profiles.yml"):
        shutil.copy(ROOT / "dbt" / name, at.dbt)
    shutil.copytree(ROOT / "expectations", at.expectations, ignore=shutil.ignore_patterns("ftr_*"))
    project = at.dbt / "dbt_project.yml"
    text = project.read_text().replace("churn_horizon_days: 14", "churn_horizon_days: 3")
    project.write_text(text.replace("churn_delay_days: 7", "churn_delay_days: 1"))
    at.models.mkdir(parents=True)
    portfolio = yaml.safe_load((ROOT / "models" / "portfolio.yaml").read_text())
    (at.models / "portfolio.yaml").write_text(yaml.safe_dump(portfolio))
    (at.dbt / "models" / "staging").mkdir(parents=True)
    shutil.copy(ROOT / "dbt" / "models" / "staging" / "_ops__sources.yml", at.dbt / "models" / "staging")
    for number, source in enumerate(SOURCES):
        _project(at, source)
        for kind in VIEWS:
            _model(at, source, kind)
        business = Simulator(
            seed=20250101 + number,
            customers=CUSTOMERS,
            start=START,
            days=DAYS,
            label_delay=timedelta(days=1),
            drift=Drift("prevalence", start=START),  # so that a few customers have labels of both kinds
        )
        business.land(at.landing / source)
        for table in TABLES:
            (at.landing / source / table).rename(at.landing / source / f"{source}_{table}")


def delivery(at: Settings, source: str, table: str, night: date) -> Path:
    """The file of a table that a night is the first to have: that of the day before its midnight."""
    return at.landing / source / f"{source}_{table}" / f"{night - timedelta(days=1)}.parquet"


def _project(at: Settings, source: str) -> None:
    models = ROOT / "dbt" / "models"
    own = [*(models / "staging" / "subscription").iterdir()]
    for name in ("spn_customer_reviewed", "ftr_customer__*", "lbl_churn"):
        own += models.glob(f"*/{name}.*")
    for path in own:
        copy = at.dbt / "models" / _renamed(path.relative_to(models).as_posix(), source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(_renamed(path.read_text(), source))
    popular = at.dbt / "models" / "popular"
    popular.mkdir(exist_ok=True)
    (popular / f"pop_{source}_plans.sql").write_text(PLANS.format(source=source))
    (popular / f"pop_{source}_plans.yml").write_text(PLANS_PROMISE.format(source=source))


def _renamed(text: str, source: str) -> str:
    for word, other in _WORDS:
        text = re.sub(word, other.replace("{source}", source), text, flags=re.MULTILINE)
    return text


def _model(at: Settings, source: str, kind: str) -> None:
    folder = at.models / model(source, kind)
    folder.mkdir()
    shutil.copy(ROOT / "models" / "churn" / "card.md", folder)
    content = yaml.safe_load((ROOT / "models" / "churn" / "spec.yaml").read_text())
    topics = VIEWS[kind]
    content["source"] = source
    content["prediction"] |= {"spine": f"spn_{source}_reviewed", "features": [view(source, topic) for topic in topics]}
    content["label"] |= {"table": f"lbl_{source}_churn", "horizon": "3d", "delay": "1d"}
    content["estimator"]["tune"] = {"trials": 1}
    content["gate"] |= {"min_matured": 50, "min_shadow": "1d", "slices": ["plan"] if "profile" in topics else []}
    content["fallback"]["audit_after"] = "1d"
    if kind == RANKS:
        content["fallback"]["popular"] = {"table": f"pop_{source}_plans", "size": 3}
    if folder.name in ASKED:
        content["tier"] = 1
    (folder / "spec.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert find(at.models, folder.name).name == folder.name
