"""One of several classes instead of a yes or no: how often a customer logs in after a review, from a label in SQL and a
spec to a promotion and its answers."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import metrics as sklearn_metrics

from tests.conftest import business_home
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.answered import predictions
from tiltyard.edge import describe, status
from tiltyard.edge.document import ModelStatus
from tiltyard.errors import BadInput
from tiltyard.judge import scoring
from tiltyard.portfolio_rules import Portfolio
from tiltyard.prepare import frame, project, truth
from tiltyard.rails import Rails
from tiltyard.rewind import backtest, hindcast, policy
from tiltyard.settings import ROOT
from tiltyard.spec import Spec, find
from tiltyard.target import Classes
from tiltyard.train import registry

FIRST, LAST = clock.parse_as_of("2025-01-22"), clock.parse_as_of("2025-02-10")
CLASSES = ("never", "now and then", "often")
"""A few customers log in more than five times: they are `beyond`, which is no class."""

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
    case
        when count(logins.login_id) = 0 then 'never'
        when count(logins.login_id) <= 2 then 'now and then'
        when count(logins.login_id) <= 6 then 'often'
        else 'beyond'
    end as label,
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
    "label": "varchar",
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
label: {table: lbl_logins, classes: [never, now and then, often], horizon: 3d, delay: 2d}
estimator: {class: xgboost.XGBClassifier, window: 30d, tune: {trials: 2}}
light: {class: sklearn.linear_model.LogisticRegression}
gate: {min_matured: 300, min_shadow: 3d, slices: [plan]}
drift: {window: 7d, cooldown: 7d}
fallback: {deadline_ms: 200, safe_default: {never: 0.3, now and then: 0.4, often: 0.3}}
"""
DEFAULT = np.array([0.3, 0.4, 0.3])


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, deliveries: Path) -> Iterator[tuple[Rails, Spec]]:
    """A copy of the dbt project with one more label, one model, and its nights."""
    copy = tmp_path_factory.mktemp("classes")
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
    model = copy / "models" / "logins"
    model.mkdir(parents=True)
    (model / "spec.yaml").write_text(SPEC)
    (model / "card.md").write_text("# Log-ins\n")
    settings = business_home(copy, postgres_url, copy / "models", deliveries, dbt=copy / "dbt", threads=1)
    spec = find(settings.models, "logins")
    project.check_spec(project.read(settings), settings, spec)
    with rails_module.opened(settings) as rails:
        hindcast.hindcast(rails, [spec], FIRST, LAST)
        yield rails, spec


def with_classes(spec: Spec, *classes: str) -> Spec:
    """The same model, whose spec names other classes."""
    content = spec.model_dump(mode="json", by_alias=True)
    content["label"]["classes"] = classes
    content["fallback"]["safe_default"] = dict.fromkeys(classes, 1 / len(classes))
    return Spec(**content)


def brier(scores: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Half the squared distance from the class that came, by hand."""
    return ((scores - np.eye(3)[label]) ** 2).sum(axis=1) / 2


def test_it_is_promoted_over_the_safe_default_by_its_brier_score(loop: tuple[Rails, Spec]) -> None:
    rails, spec = loop
    first, *_ = rails.ledger.promotions(spec.name)
    decision = rails.ledger.decision(spec.name, first.night, first.version)
    evidence = decision.evidence
    assert (decision.verdict, evidence.metric, evidence.against) == ("promote", "brier", "the safe default")
    # the same by hand, from what the lake holds
    rows = truth.matured(rails, spec, clock.midnight(first.night), versions=[first.version])
    label = rows["label"].to_numpy()
    losses = brier(spec.target.scores(rows["score"]), label)
    default = brier(np.tile(DEFAULT, (len(rows), 1)), label)
    assert len(rows) == evidence.matured
    assert evidence.loss_challenger == pytest.approx(losses.mean())
    assert evidence.loss_champion == pytest.approx(default.mean())
    # rows whose label is no class have no truth, and are counted
    assert evidence.outside is not None and 0 < evidence.outside == evidence.expected - evidence.matured
    judged = {row.name: row for row in evidence.criteria}
    assert not any("label=" in name for name in judged), "a constant is no measure of one class"
    assert "Scores are off the observed share by" in judged["calibration"].reason
    page = Path(evidence.page.path) if evidence.page else None
    assert page is not None
    drawn = (page if page.is_absolute() else rails.settings.reports / page).read_text()
    assert "the likeliest class" in drawn and "labels of no class" in drawn


def test_every_prediction_holds_the_probability_of_each_class(loop: tuple[Rails, Spec], tmp_path: Path) -> None:
    rails, spec = loop
    rows = rails.lake.query("select score, scores, tier from {ops.prediction}", LAST)
    told = [json.loads(text) for text in rows["scores"]]
    assert all(tuple(said) == CLASSES for said in told)
    scores = spec.target.scores(rows["scores"])
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    np.testing.assert_allclose(rows["score"], [max(said.values()) for said in told])
    default = scores[rows["tier"] == "safe_default"]
    np.testing.assert_allclose(default, np.tile(DEFAULT, (len(default), 1)))
    served = predictions.of_night(rails, spec.name, LAST.date(), spec.target).to_pandas()
    assert list(served["class"]) == [max(said, key=said.get) for said in map(json.loads, served["scores"])]
    assert served["class"].nunique() > 1
    rows = predictions.of_night(rails, spec.name, LAST.date(), spec.target)
    predictions.save(rows, tmp_path / "answers.csv", "csv")
    written = pd.read_csv(tmp_path / "answers.csv")
    assert list(written.columns) == [*predictions.COLUMNS, "class", "scores"] == list(predictions.types(rows))
    np.testing.assert_array_equal(spec.target.scores(written["scores"]), spec.target.scores(served["scores"]))


def test_a_text_that_is_no_class_is_no_truth_and_is_counted(loop: tuple[Rails, Spec]) -> None:
    rails, spec = loop
    raw = rails.lake.query("select * from {labels.lbl_logins}", LAST)
    beyond = raw[raw["label"] == "beyond"]
    assert len(beyond)
    counts = truth.counts(rails, spec, LAST)
    assert counts.outside is not None and 0 < counts.outside <= counts.missing
    assert set(truth.matured(rails, spec, LAST)["label"]) == {0, 1, 2}
    one = beyond.iloc[0]
    told = truth.truth_of(rails, spec, one["customer_id"], one["prediction_time"].to_pydatetime(), LAST)
    assert told is not None and told.label == "beyond"
    made = frame.training(rails, spec, LAST)
    assert set(made.read()["label"]) == {0, 1, 2} and made.unlabelled > 0
    with pytest.raises(BadInput, match=r"lbl_logins holds no label that is one of the classes, but '[a-z ]+'; mend"):
        frame.training(rails, with_classes(spec, "Never", "Now and then", "Often"), LAST)


def test_the_version_says_what_it_is(loop: tuple[Rails, Spec]) -> None:
    rails, spec = loop
    version = rails.ledger.version(spec.name, 1)
    assert version is not None and version.facts.metrics is not None
    figures = version.facts.metrics
    for name in ("class_brier", "log_loss", "accuracy"):
        figure, light = figures.figure(name), figures.light.figure(name)
        assert figure is not None and light is not None
        assert figure.low < figure.value < figure.high
    assert 1 / 3 < figures.figure("accuracy").value < 1
    scorer = registry.load(rails, spec.name, 1)
    assert scorer.target == spec.target == Classes(classes=CLASSES)
    sample = scorer.reference_frame()
    heavy, light = scorer.score(sample), scorer.score_light(sample)
    assert heavy.shape == light.shape == (len(sample), 3)
    assert (heavy.argmax(axis=1) == light.argmax(axis=1)).mean() > 0.7
    assert scorer.target.scores(sample["_score"]).shape == heavy.shape
    assert version.facts.parity.heavy < 1e-6 and version.facts.parity.light < 1e-6


def test_evaluation_drift_and_status_speak_of_classes(loop: tuple[Rails, Spec]) -> None:
    rails, spec = loop
    rows = rails.lake.query("select * from {ops.evaluation} where slice = 'all' and matured > 0", LAST)
    assert rows["class_brier"].between(0, 1, inclusive="neither").all()
    assert rows[["brier", "auc", "positive_rate", "absolute_error"]].isna().all().all()
    newest = rows[(rows["version"] == 1) & (rows["night"] == rows["night"].max())].iloc[0]
    matured = truth.matured(rails, spec, LAST, versions=[1])
    window = matured[matured["prediction_time"] >= newest["cohort_from"]]
    scores, label = spec.target.scores(window["score"]), window["label"].to_numpy()
    assert newest["matured"] == len(window)
    assert newest["log_loss"] == pytest.approx(sklearn_metrics.log_loss(label, scores, labels=[0, 1, 2]))
    assert newest["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(label, scores.argmax(axis=1)))
    assert newest["class_brier"] == pytest.approx(brier(scores, label).mean())
    assert not len(rails.lake.query("select * from {ops.estimate}", LAST))
    drifts = rails.lake.query("select distinct kind, column_name from {ops.drift}", LAST)
    assert {"class_brier", "safe_default"} <= set(drifts.loc[drifts["kind"] == "performance", "column_name"])
    assert {"prediction", "label"} <= set(drifts["kind"])
    document = status.status(rails, spec, LAST)
    assert isinstance(document, ModelStatus)
    assert ModelStatus.from_json(json.loads(json.dumps(document.to_json()))) == document
    realized = document.realized
    assert realized and realized.since_first_promotion and realized.metric == "class_brier"
    assert realized.since_first_promotion.promoted_line < realized.safe_default
    said = describe.model(document)
    assert "champion's Brier over classes" in said and "accuracy" in said
    assert "not estimated: an estimate takes one number per row" in said
    assert "of none of the label's classes" in said
    drawn = status.plot(rails, spec, LAST)
    assert drawn is not None and drawn.stat().st_size > 0
    explained = status.explain(rails, spec, document.served_by["champion"].example)
    assert explained.scores is not None and explained.score == max(explained.scores.values())
    assert f"{max(explained.scores, key=explained.scores.get)} 0." in describe.prediction(explained)


def test_policies_can_be_compared_on_classes(loop: tuple[Rails, Spec]) -> None:
    rails, spec = loop
    result = backtest.try_policies(rails, [policy.current([spec], Portfolio())], FIRST, LAST, jobs=1)
    assert result.metric == {"logins": "brier"}
    lines = result.baselines["logins"]
    never, default = lines["never retrained"].loss, lines["safe default"].loss
    assert never is not None and default is not None and 0 < never < default < 1
    [tried] = result.policies.values()
    assert tried["logins"].retrains[0].version == 1
    assert [entry.night for entry in tried["logins"].promotions] == [
        entry.night for entry in rails.ledger.promotions(spec.name)
    ], "what was played in memory is what happened"


def test_a_version_that_was_trained_on_other_classes_scores_nothing(loop: tuple[Rails, Spec]) -> None:
    rails, spec = loop
    other = with_classes(spec, "often", "now and then", "never")
    scorer = registry.load(rails, spec.name, 1)
    sample = scorer.reference_frame()
    scores = scoring._score(scorer, sample, 1, other.target)
    assert np.isnan(scores.values).all() and scores.error is not None
    assert "not of often, now and then, never" in scores.error
    assert np.isfinite(scoring._score(scorer, sample, 1, spec.target).values).all()
    kept = pd.Series(spec.target.told(scorer.score(sample)))
    mended = other.target.scores(kept)
    np.testing.assert_array_equal(mended[:, ::-1], spec.target.scores(kept))
    more = with_classes(spec, *CLASSES, "beyond")
    assert not more.target.is_scored(more.target.scores(kept)).any(), "a distribution over other classes is none"
    assert truth.matured(rails, more, LAST).empty and len(truth.matured(rails, other, LAST))
