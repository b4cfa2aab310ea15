"""Every family is fitted, measured, explained, and written as ONNX that is the model on gaps, thresholds, extremes."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.market import AS_OF, market
from tiltyard import estimators
from tiltyard.estimators import FAMILIES, XGBOOST, Family, xgboost_trees
from tiltyard.estimators.family import Dimension
from tiltyard.spec import Estimator
from tiltyard.target import YES_OR_NO, Bounded, Classes, Target
from tiltyard.train import blocks, export, fit, registry, training
from tiltyard.train.encoding import EncodedColumn, Encoding
from tiltyard.train.scorer import answers, session

NUMBER = Bounded((-20.0, 40.0))
CLASSES = Classes(classes=("early", "on time", "late"))
LEARNED = [
    pytest.param(family, target, id=f"{family.class_for(target).rpartition('.')[2]}-{target.kind}")
    for family in FAMILIES
    for target in (YES_OR_NO, NUMBER, CLASSES)
    if family.class_for(target)
]
ENCODING = Encoding(
    (
        EncodedColumn("size", "numeric"),
        EncodedColumn("epoch", "numeric"),
        EncodedColumn("is_new", "boolean"),
        EncodedColumn("mood", "categorical", tuple("abcdefgh")),
        EncodedColumn("never", "numeric"),
    )
)


def rows(target: Target, count: int = 1_200) -> tuple[blocks.Rows, blocks.Split]:
    """Numbers, a huge one, a boolean, codes, a column without any value; a tenth of each missing."""
    rng = np.random.default_rng(5)
    matrix = np.column_stack(
        [
            rng.normal(size=count),
            1.7e9 + 1e7 * rng.random(count),
            rng.integers(0, 2, count),
            rng.integers(0, 9, count),
            np.zeros(count),
        ]
    ).astype(np.float32)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    matrix[:, 4] = np.nan
    push = np.nan_to_num(matrix[:, 0]) + (matrix[:, 3] == 4) * 2 - np.isnan(matrix[:, 0])
    if target.shape:
        label = np.digitize(push + rng.normal(size=count) / 2, (-0.5, 0.8))
    else:
        chance = 1 / (1 + np.exp(-push))
        label = rng.random(count) < chance if target.is_classified else np.clip(10 * push, *target.bounds)
    days = np.arange(count) / 40
    times = pd.Series(pd.to_datetime(days, unit="D", utc=True))
    parts = blocks.split(times, label, timedelta(days=1), times.iloc[-1].ceil("D").to_pydatetime(), target)
    return blocks.Rows(matrix, label, days), parts


@pytest.mark.parametrize(("family", "target"), LEARNED)
def test_a_family_is_tuned_fitted_measured_and_explained(family: Family, target: Target) -> None:
    given, parts = rows(target)
    plan = fit.Plan(family, family.searched({}, {}))
    fitted = fit.fit(given, parts, ENCODING, trials=3, seed=1, threads=1, target=target, plan=plan)
    again = fit.fit(given, parts, ENCODING, trials=3, seed=1, threads=1, target=target, plan=plan)
    assert (fitted.params, fitted.trials) == (again.params, again.trials)
    np.testing.assert_array_equal(fitted.out_of_fold, again.out_of_fold)
    newest = given.label[parts.held_out]
    default = given.label.mean()
    if target.shape:
        default = dict(zip(CLASSES.classes, np.bincount(given.label) / len(given.label), strict=True))
    constant = target.row_losses(target.constant(default, len(newest)), newest).mean()
    assert fitted.metrics.figure(target.measure).value < 0.9 * constant
    assert fitted.params.heavy.keys() == family.space.keys()
    for name, dimension in family.space.items():
        assert dimension.low <= fitted.params.heavy[name] <= dimension.high
    assert max(fitted.importance, key=fitted.importance.__getitem__) in ("size", "mood")
    assert fitted.importance["never"] == 0


@pytest.mark.parametrize(("family", "target"), LEARNED)
def test_contributions_sum_to_what_the_model_says(family: Family, target: Target) -> None:
    given, _ = rows(target, 600)
    model = fit.Fitter(ENCODING, 1, 1, target, fit.Plan(family, family.searched({}, {}))).heavy(given, fit.Params())
    moves = family.contributions(model, given.matrix)
    answer = target.answers(model, given.matrix)
    if target.shape:  # of the likeliest class, whose base is its own
        sums = sums_of_classes(family, model, given.matrix)
        for place in range(3):
            likeliest = answer.argmax(axis=1) == place
            assert likeliest.sum() > 50
            assert np.ptp(sums[likeliest, place] - moves[likeliest].sum(axis=1)) < 1e-5
        return
    sums = target.margins(answer) if family.unit(target) == "log-odds" else answer
    base = sums - moves.sum(axis=1)
    assert np.ptp(base) < 1e-5 * max(1.0, np.ptp(sums)), "one base for every row"


@pytest.mark.parametrize(("family", "target"), LEARNED)
def test_onnx_is_the_model_on_gaps_thresholds_and_extremes(family: Family, target: Target) -> None:
    given, _ = rows(target)
    model = fit.Fitter(ENCODING, 1, 1, target, fit.Plan(family, family.searched({}, {}))).heavy(given, fit.Params())
    content = export.heavy_onnx(model, given.matrix, target, family)
    assert export.parity(content, model, given.matrix, target) <= 3e-7
    edges = extremes(given.matrix) if "linear" in family.class_for(target) else at_thresholds(model, given.matrix)
    apart = np.abs(answers(session(content), edges, target) - target.answers(model, edges)) / target.width
    assert len(edges) > 100 and apart.max() <= export.PARITY


def sums_of_classes(family: Family, model: Any, matrix: np.ndarray) -> np.ndarray:
    """(rows, classes) what a model sums in: probabilities, or log-odds."""
    if family.unit(CLASSES) == "in probability":
        return model.predict_proba(matrix)
    return model.predict(matrix, output_margin=True) if family is XGBOOST else model.decision_function(matrix)


def at_thresholds(model: object, matrix: np.ndarray) -> np.ndarray:
    """Rows whose values are a split's threshold, the next float32 below and above it, and almost the largest float32.
    A split at infinity tells missing values from all others."""
    splits = {(feature, value) for feature, value in thresholds(model) if np.isfinite(value)}
    edges = [matrix[0]]
    for feature, value in sorted(splits):
        near = np.float32(value)
        for edge in (near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))):
            edges.append(np.where(np.arange(matrix.shape[1]) == feature, edge, matrix[len(edges) % 97]))
    edges += list(extremes(matrix, 3e38))
    return np.array(edges, dtype=np.float32)


def extremes(matrix: np.ndarray, largest: float = 1e12) -> np.ndarray:
    """Rows with one value far out, and codes that nobody has seen."""
    far = np.repeat(matrix[:30], 4, axis=0)
    for place, value in enumerate((largest, -largest, np.nan, 0.0)):
        far[place::4, 0] = far[place::4, 1] = value
    return far


def thresholds(model: object) -> list[tuple[int, float]]:
    if hasattr(model, "_predictors"):
        nodes = np.concatenate([predictor.nodes for of_round in model._predictors for predictor in of_round])
        nodes = nodes[nodes["is_leaf"] == 0]
        return list(zip(nodes["feature_idx"].tolist(), nodes["num_threshold"].tolist(), strict=True))
    if hasattr(model, "estimators_"):
        trees = [one.tree_ for one in model.estimators_]
        split = [(tree.feature[tree.feature >= 0], tree.threshold[tree.feature >= 0]) for tree in trees]
        return [pair for feature, value in split for pair in zip(feature.tolist(), value.tolist(), strict=True)]
    table = model.get_booster().trees_to_dataframe().query("Feature != 'Leaf'")
    return list(zip(table["Feature"].str[1:].astype(int), table["Split"], strict=True))


def test_a_version_of_another_family_is_registered_and_scores_as_it_was_fitted(
    tmp_path: Path, postgres_url: str
) -> None:
    asked = {"class": "sklearn.ensemble.RandomForestClassifier", "params": {"n_estimators": 20}, "tune": {"trials": 2}}
    with market(tmp_path, postgres_url) as (rails, spec):
        forest = spec.model_copy(update={"estimator": Estimator.model_validate(asked)})
        summary = training.train(rails, forest, AS_OF, requested_by="ada")
        assert summary.trained and summary.metrics.auc.value > 0.6
        version = rails.ledger.version(spec.name, 1)
        assert version is not None and version.facts.params["n_estimators"] == 20
        assert version.facts.parity is not None and version.facts.parity.heavy <= export.PARITY
        assert version.facts.device == "cpu" and version.facts.device_reason == ""
        run = registry.client(rails.settings).get_run(summary.run_id)
        assert run.data.params["heavy"] == "sklearn.ensemble.RandomForestClassifier"
        scorer = registry.load(rails, spec.name, 1)
        scores = scorer.score(scorer.reference_frame())
        assert np.ptp(scores) > 0.2 and np.all((scores >= 0) & (scores <= 1))


def test_where_there_is_no_gpu_a_model_is_fitted_on_the_cpu_and_its_record_says_so(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xgboost_trees, "_cuda_devices", lambda: 0)
    with market(tmp_path, postgres_url) as (rails, spec):
        estimator = Estimator.model_validate({"class": XGBOOST.classifier, "device": "cuda", "tune": {"trials": 1}})
        asked = spec.model_copy(update={"estimator": estimator})
        (warning,) = training.train(rails, asked, AS_OF, requested_by="ada").warnings
        assert "there is no GPU" in warning
        version = rails.ledger.version(spec.name, 1)
    assert version is not None
    assert (version.facts.device, version.facts.device_reason) == (
        "cpu",
        "there is no GPU that CUDA's driver names, so it was fitted on the CPU",
    )


# -- what a spec may say ------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)
def test_a_search_space_holds_by_itself(family: Family) -> None:
    for name, dimension in family.searched({}, {}).items():
        within = [dimension.low, dimension.high, dimension.first, *dimension.choices]
        assert all(dimension.least <= value <= dimension.most for value in within), name
        assert dimension.low <= dimension.first <= dimension.high, name
        assert not dimension.is_log or dimension.low > 0, name
    assert {family.class_for(YES_OR_NO), family.class_for(NUMBER)} & set(estimators.CLASSES)
    assert sum(dimension.is_by_round for dimension in family.space.values()) <= 1


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"params": {"depth": 3}}, r"estimator.params names 'depth'; the parameters are max_depth, learning_rate"),
        ({"search": {"max_dept": [2, 3]}}, r"estimator.search names 'max_dept'"),
        ({"params": {"max_depth": 99}}, r"estimator.params.max_depth is 99, which is not within \[1, 16\]"),
        ({"params": {"max_depth": 2.5}}, r"params.max_depth is 2.5, and has to be a whole number"),
        ({"search": {"subsample": [0.9, 0.5]}}, r"estimator.search.subsample goes from low to high, like \[0.5, 1\]"),
        ({"search": {"subsample": [0.9]}}, r"estimator.search.subsample goes from low to high"),
        ({"search": {"subsample": [0.5, 2]}}, r"estimator.search.subsample is 2, which is not within"),
        ({"search": {"half_life_days": [7, 7]}}, r"half_life_days lists the values to choose from, each once"),
        ({"params": {"gamma": 1}}, r"estimator.params names 'gamma'"),
        (
            {"params": {"max_depth": 3}, "search": {"max_depth": [2, 3]}},
            r"estimator.params and estimator.search both name max_depth",
        ),
        ({"class": "sklearn.linear_model.LogisticRegression", "device": "cuda"}, r"is fitted on cpu; take device out"),
    ],
)
def test_what_a_spec_may_not_say_of_its_estimator_is_told(said: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Estimator.model_validate({"class": XGBOOST.classifier, **said})


def test_what_a_spec_says_of_its_estimator_is_what_is_searched() -> None:
    given, parts = rows(YES_OR_NO, 600)
    said = {
        "params": {"max_depth": 3, "half_life_days": 0},
        "search": {"learning_rate": [0.2, 0.25], "n_estimators": [5, 9]},
    }
    plan = fit.Plan.of(Estimator.model_validate({"class": XGBOOST.classifier, **said}))
    fitter = fit.Fitter(ENCODING, 1, 1, YES_OR_NO, plan)
    tuned = fit.tune(fitter, given, parts, trials=4)
    assert tuned.params.heavy["max_depth"] == 3 and tuned.params.half_life_days == 0
    assert 0.2 <= tuned.params.heavy["learning_rate"] <= 0.25
    assert all(5 <= trial.rounds <= 9 for trial in tuned.trials) and len(tuned.trials) == 4
    assert fitter.heavy(given, tuned.params).get_booster().num_boosted_rounds() == tuned.params.heavy["n_estimators"]
    every = {name: dimension.first for name, dimension in XGBOOST.space.items()} | {"half_life_days": 14}
    nothing = fit.Plan.of(Estimator.model_validate({"class": XGBOOST.classifier, "params": every}))
    assert len(fit.tune(fit.Fitter(ENCODING, 1, 1, YES_OR_NO, nothing), given, parts, trials=9).trials) == 1


def test_a_promise_is_the_same_said_or_not() -> None:
    plain = Estimator.model_validate({"class": XGBOOST.classifier})
    said = Estimator.model_validate({"class": XGBOOST.classifier, "params": {}, "search": {}, "device": "cpu"})
    assert plain.model_dump(mode="json", by_alias=True) == said.model_dump(mode="json", by_alias=True)
    assert set(plain.model_dump(mode="json", by_alias=True)) == {"class", "window", "tune"}
    other = Estimator.model_validate({"class": XGBOOST.classifier, "params": {"max_depth": 3}})
    assert Estimator.model_validate(other.model_dump(mode="json", by_alias=True)) == other


@given(st.floats(0.05, 1), st.floats(0.05, 1))
def test_a_narrower_range_begins_within_itself(one: float, other: float) -> None:
    low, high = sorted((one, other))
    dimension = Dimension(0.5, 1, first=0.8, least=0.05, most=1)
    if low < high:
        narrowed = dimension.searched("x", (low, high))
        assert low <= narrowed.first <= high
