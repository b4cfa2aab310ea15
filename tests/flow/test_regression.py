"""A number instead of a yes or no: log-ins after a review, from a label in SQL and a spec to a promotion."""

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import business_home
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.edge import describe, status
from tiltyard.edge.document import ModelStatus
from tiltyard.portfolio_rules import Portfolio
from tiltyard.prepare import frame, project, truth
from tiltyard.rails import Rails
from tiltyard.rewind import backtest, hindcast, policy
from tiltyard.settings import ROOT
from tiltyard.spec import Spec, find
from tiltyard.train import registry

FIRST, LAST = clock.parse_as_of("2025-01-22"), clock.parse_as_of("2025-02-10")
BOUNDS = (0.0, 6.0)
"""A few customers log in more often in three days: they count as six."""

LABEL = """
{{ config(materialized='table') }}

with

reviews as (

    select
        customer_id,
        prediction_time,
        prediction_time + interval '3 days' as deadline,
        prediction_time + interval '5 days' as matures_at
    from {{ ref('spn_customer_reviewed') }}

)

select
    reviews.customer_id,
    reviews.prediction_time,
    count(logins.login_id) as label,
    reviews.deadline as event_time,
    reviews.matures_at as available_at,
    {{ built_at() }} as built_at
from reviews
left join {{ ref('stg_subscription__login') }} as logins
    on
        reviews.customer_id = logins.customer_id
        and reviews.prediction_time < logins.event_time
        and reviews.deadline >= logins.event_time
        and reviews.matures_at >= logins.available_at
where reviews.matures_at <= {{ landed_until('subscription') }}
group by reviews.customer_id, reviews.prediction_time, reviews.deadline, reviews.matures_at
"""
TYPES = {
    "customer_id": "varchar",
    "prediction_time": "timestamp with time zone",
    "label": "bigint",
    "event_time": "timestamp with time zone",
    "available_at": "timestamp with time zone",
    "built_at": "timestamp with time zone",
}
SPEC = """
entity: customer
owner: subscriptions
tier: 3
source: subscription
prediction:
  spine: spn_customer_reviewed
  every: 1d
  features: [ftr_customer__profile, ftr_customer__activity]
label: {table: lbl_logins, bounds: [0, 6], horizon: 3d, delay: 2d}
estimator: {class: xgboost.XGBRegressor, window: 30d, tune: {trials: 2}}
light: {class: sklearn.linear_model.Ridge}
gate: {metric: absolute_error, min_matured: 300, min_shadow: 3d, slices: [plan]}
drift: {window: 7d, cooldown: 7d}
fallback: {deadline_ms: 200, safe_default: 3}
"""


LEARNED = SPEC.replace("bounds: [0, 6]", "kind: number").replace("safe_default: 3", "safe_default: 2")
"""The same model without bounds."""


@pytest.fixture(scope="module")
def loop(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, deliveries: Path
) -> Iterator[tuple[Rails, Spec, dict[str, Any]]]:
    """A copy of the dbt project with one more label, one model, and its nights."""
    copy = tmp_path_factory.mktemp("regression")
    shutil.copytree(ROOT / "dbt", copy / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    labels = copy / "dbt" / "models" / "labels"
    (labels / "lbl_logins.sql").write_text(LABEL)
    described = {
        "name": "lbl_logins",
        "description": "One row per customer and review whose log-ins of the next three days are known.",
        "config": {"meta": {"tiltyard": {"horizon": "3d", "delay": "2d"}}},
        "columns": [{"name": name, "data_type": kind, "description": name} for name, kind in TYPES.items()],
    }
    (labels / "lbl_logins.yml").write_text(yaml.safe_dump({"version": 2, "models": [described]}))
    for name, text in (("logins", SPEC), ("logins_learned", LEARNED)):
        model = copy / "models" / name
        model.mkdir(parents=True)
        (model / "spec.yaml").write_text(text)
        (model / "card.md").write_text("# Log-ins\n")
    settings = business_home(copy, postgres_url, copy / "models", deliveries, dbt=copy / "dbt", threads=1)
    spec = find(settings.models, "logins")
    project.check_spec(project.read(settings), settings, spec)
    with rails_module.opened(settings) as rails:
        # in this process: two more would take longer to begin than the nights of both
        result = hindcast.hindcast(rails, [spec, find(settings.models, "logins_learned")], FIRST, LAST, jobs=1)
        yield rails, spec, result


def test_it_is_promoted_over_the_safe_default_by_its_absolute_error(loop: tuple[Rails, Spec, dict[str, Any]]) -> None:
    rails, spec, _ = loop
    first, *_ = rails.ledger.promotions(spec.name)
    decision = rails.ledger.decision(spec.name, first.night, first.version)
    evidence = decision.evidence
    assert (decision.verdict, evidence.metric, evidence.against) == (
        "promote",
        "absolute_error",
        "the safe default",
    )
    [better] = [row for row in evidence.criteria if row.name == "better"]
    assert better.status == "pass" and better.value > 0
    # the same by hand, from what the lake holds
    as_of = clock.midnight(first.night)
    rows = truth.matured(rails, spec, as_of, versions=[first.version])
    error = np.abs(rows["score"] - rows["label"]) / (BOUNDS[1] - BOUNDS[0])
    default = np.abs(spec.fallback.safe_default - rows["label"]) / (BOUNDS[1] - BOUNDS[0])
    assert len(rows) == evidence.matured
    assert evidence.loss_challenger == pytest.approx(error.mean())
    assert evidence.loss_champion == pytest.approx(default.mean())
    [calibration] = [row for row in evidence.criteria if row.name == "calibration"]
    assert "mean label, over the width of its bounds" in calibration.reason


def test_scores_are_numbers_within_the_bounds_and_labels_beyond_them_are_counted(
    loop: tuple[Rails, Spec, dict[str, Any]],
) -> None:
    rails, spec, _ = loop
    scores = rails.lake.query("select score, tier from {ops.prediction} where model = 'logins'", LAST)
    assert scores["score"].between(*BOUNDS).all()
    assert scores["score"].max() > 1
    raw = rails.lake.query("select label from {labels.lbl_logins}", LAST)["label"]
    assert raw.max() > BOUNDS[1]
    rows = truth.matured(rails, spec, LAST)
    assert rows["label"].between(*BOUNDS).all()
    counts = truth.counts(rails, spec, LAST)
    assert counts.outside is not None
    assert 0 < counts.outside < counts.matured
    version = rails.ledger.version(spec.name, 1)
    assert version is not None
    assert version.facts.labels_outside_bounds > 0


def test_the_version_says_what_it_is(loop: tuple[Rails, Spec, dict[str, Any]]) -> None:
    rails, spec, _ = loop
    version = rails.ledger.version(spec.name, 1)
    assert version is not None
    metrics = version.facts.metrics
    assert metrics is not None
    there = {name for name, value in metrics.to_json().items() if value is not None}
    assert there == {"absolute_error", "light", "rows", "mean_label", "mean_score"}
    error = metrics.absolute_error
    assert 0 < error.low < error.value < error.high < BOUNDS[1]
    scorer = registry.load(rails, spec.name, 1)
    assert scorer.target.bounds == BOUNDS
    sample = scorer.reference_frame()
    assert sample["_score"].between(*BOUNDS).all()
    heavy, light = scorer.score(sample), scorer.score_light(sample)
    assert np.corrcoef(heavy, light)[0, 1] > 0.7


def test_evaluation_drift_and_status_speak_of_absolute_error(loop: tuple[Rails, Spec, dict[str, Any]]) -> None:
    rails, spec, _ = loop
    rows = rails.lake.query(
        "select * from {ops.evaluation} where slice = 'all' and matured > 0 and model = 'logins'", LAST
    )
    assert rows["absolute_error"].between(0, BOUNDS[1], inclusive="neither").all()
    assert rows[["brier", "log_loss", "auc", "positive_rate"]].isna().all().all()
    assert not len(rails.lake.query("select * from {ops.estimate}", LAST))
    drifts = rails.lake.query("select distinct column_name from {ops.drift} where kind = 'performance'", LAST)
    assert {"absolute_error", "safe_default"} <= set(drifts["column_name"])
    assert "brier" not in set(drifts["column_name"])
    document = status.status(rails, spec, LAST)
    assert isinstance(document, ModelStatus)
    assert ModelStatus.from_json(json.loads(json.dumps(document.to_json()))) == document
    realized = document.realized
    assert realized and realized.since_first_promotion
    assert realized.metric == "absolute_error"
    assert realized.since_first_promotion.promoted_line < realized.safe_default
    said = describe.model(document)
    assert "champion's absolute error" in said
    assert "not estimated: a number does not say how far off it is" in said
    assert "beyond the label's bounds" in said
    assert "Brier" not in said
    drawn = status.plot(rails, spec, LAST)
    assert drawn is not None and drawn.stat().st_size > 0
    example = document.served_by["champion"].example
    assert status.explain(rails, spec, example).score <= BOUNDS[1]


def test_bounds_that_no_spec_names_are_learned_from_the_first_training_and_stay(
    loop: tuple[Rails, Spec, dict[str, Any]],
) -> None:
    rails, _, _ = loop
    spec = find(rails.settings.models, "logins_learned")
    assert not spec.target.is_learned and spec.target.kind == "number"
    first, *later = rails.ledger.versions(spec.name)
    made = frame.training(rails, spec, clock.midnight(first.night)).read()["label"]
    low, high = spec.target.learned(made.to_numpy(), spec.fallback.safe_default).bounds
    assert first.facts.bounds == (low, high) and low == 0 and 2 < high < made.max()
    assert first.facts.labels_outside_bounds == (made > high).sum() > 0
    assert {version.facts.bounds for version in later} <= {(low, high)}, "the scale of the evidence stays"
    known = rails.ledger.bounded(spec)
    assert (known.target.bounds, known.digest, known.recipe) == ((low, high), spec.digest, spec.recipe)
    assert registry.load(rails, spec.name, 1).target == known.target

    # what is decided counts on that scale, and says how many labels lay beyond
    [promotion, *_] = rails.ledger.promotions(spec.name)
    evidence = rails.ledger.decision(spec.name, promotion.night, promotion.version).evidence
    rows = truth.matured(rails, spec, clock.midnight(promotion.night), versions=[promotion.version])
    error = np.abs(rows["score"] - rows["label"]) / (high - low)
    assert evidence.loss_challenger == pytest.approx(error.mean())
    raw = rails.lake.query("select customer_id as entity_id, prediction_time, label from {labels.lbl_logins}", LAST)
    joined = rows.merge(raw, on=["entity_id", "prediction_time"], suffixes=("", "_raw"))
    assert evidence.outside == (joined["label_raw"] > high).sum() > 0
    assert rows["label"].max() <= high
    page = Path(evidence.page.path) if evidence.page else None
    assert page is not None
    drawn = (page if page.is_absolute() else rails.settings.reports / page).read_text()
    assert f"0 to {high:g}" in drawn and "labels beyond the bounds" in drawn

    document = status.status(rails, spec, LAST)
    assert isinstance(document, ModelStatus) and document.bounds is not None
    assert (document.bounds.low, document.bounds.high, document.bounds.learned) == (low, high, first.night)
    assert f"bounds 0 to {high:g}, learned on {first.night}" in describe.model(document)
    scores = rails.lake.query("select score from {ops.prediction} where model = 'logins_learned'", LAST)["score"]
    assert scores.between(low, high).all()


def test_policies_can_be_compared_on_a_number(loop: tuple[Rails, Spec, dict[str, Any]]) -> None:
    rails, spec, _ = loop
    result = backtest.try_policies(rails, [policy.current([spec], Portfolio())], FIRST, LAST, jobs=1)
    assert result.metric == {"logins": "absolute_error"}
    lines = result.baselines["logins"]
    never, default = lines["never retrained"].loss, lines["safe default"].loss
    assert never is not None and default is not None
    assert 0 < never < default < 1
    [tried] = result.policies.values()
    assert tried["logins"].retrains[0].version == 1
    loss = tried["logins"].loss
    assert loss is not None and 0 < loss <= default


def test_a_training_frame_keeps_the_number_as_it_is(loop: tuple[Rails, Spec, dict[str, Any]]) -> None:
    rails, spec, _ = loop
    made = frame.training(rails, spec, LAST).read()
    assert made["label"].dtype == np.float64
    assert made["label"].max() > BOUNDS[1]
    assert made["prediction_time"].max() <= LAST - timedelta(days=5)
