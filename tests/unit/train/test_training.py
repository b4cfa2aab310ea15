import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import numpy_helper

from tests.homes import cursor
from tests.lakes import FEATURES, LABELS
from tests.market import AS_OF, FIRST, market, publish
from tiltyard.clock import night_closing
from tiltyard.errors import CheckFailed, Fenced, Unavailable
from tiltyard.govern import grants
from tiltyard.govern.history import Grant
from tiltyard.ledger import Ledger
from tiltyard.prepare import frame
from tiltyard.rails import Rails
from tiltyard.records import TrainingSummary, Version
from tiltyard.spec import Spec
from tiltyard.target import YES_OR_NO, Bounded, Target
from tiltyard.train import blocks, candidate, export, fit, registry, training
from tiltyard.train.encoding import EncodedColumn, Encoding

Market = tuple[Rails, Spec, dict]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Market]:
    with market(tmp_path_factory.mktemp("training"), postgres_url) as (rails, spec):
        yield rails, spec, training.train(rails, spec, AS_OF, requested_by="ada", reasons=["drift"], trials=2)


def test_a_challenger_is_registered(trained: Market) -> None:
    rails, spec, summary = trained
    assert (summary.trained, summary.reused, summary.version) == (True, False, 1)
    assert registry.aliases(rails, spec.name) == {"challenger": 1}
    row = rails.ledger.version(spec.name, 1)
    assert row is not None
    assert (row.night, row.requested_by, row.facts.reasons) == (night_closing(AS_OF), "ada", ("drift",))
    assert row.facts.frame == summary.frame
    assert rails.ledger.stage_runs(TrainingSummary, spec.name)[night_closing(AS_OF)].summary == summary
    assert rails.ledger.roles(spec.name, night_closing(AS_OF + timedelta(days=1))).challengers == (1,)


def test_both_models_learned_and_say_how_sure_they_are(trained: Market) -> None:
    metrics = trained[2].metrics
    for figures in (metrics, metrics.light):
        assert figures.auc.low < figures.auc.value < figures.auc.high
        assert figures.auc.value > 0.6
        assert figures.brier.value < 0.25


def test_mlflow_holds_everything_about_the_run(trained: Market) -> None:
    rails, spec, summary = trained
    flow = registry.client(rails.settings)
    run = flow.get_run(summary.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["frame"] == summary.frame
    assert run.data.tags["spec"] == spec.digest
    assert {"lake_snapshot", "git_commit", "git_dirty", "night", "reasons", "requested_by"} <= set(run.data.tags)
    assert {"max_depth", "n_estimators", "half_life_days", "light_C", "seed"} <= set(run.data.params)
    assert run.data.metrics["held_out.brier"] == pytest.approx(summary.metrics.brier.value)
    assert run.data.metrics["held_out.light.auc.low"] == pytest.approx(summary.metrics.light.auc.low)
    assert len(flow.get_metric_history(summary.run_id, "trial_brier")) == 2
    plots = {entry.path for entry in flow.list_artifacts(summary.run_id, "plots")}
    assert plots == {"plots/calibration.png", "plots/shap_summary.png"}
    version = flow.get_model_version(spec.name, "1")
    assert summary.frame[:12] in version.description


def test_the_same_night_twice_is_one_version(trained: Market) -> None:
    rails, spec, summary = trained
    again = training.train(rails, spec, AS_OF, requested_by="bob", trials=2)
    assert (again.version, again.reused, again.metrics) == (1, True, summary.metrics)
    assert len(rails.ledger.versions(spec.name)) == 1


def test_the_same_inputs_give_the_same_scores(trained: Market) -> None:
    rails, spec, _ = trained
    scorer = registry.load(rails, spec.name, 1)
    made = frame.training(rails, spec, AS_OF)
    rows = pd.read_parquet(made.path)
    label = rows["label"].to_numpy(dtype=bool)
    parts = blocks.split(rows["prediction_time"], label, spec.prediction.every, AS_OF)
    days = (rows["prediction_time"] - pd.Timestamp(0, tz="UTC")).to_numpy() / np.timedelta64(1, "D")
    data = blocks.Rows(scorer.encoding.transform(rows), label, days)
    seed, threads = rails.settings.seed, rails.settings.threads
    fitted = fit.fit(data, parts, scorer.encoding, trials=2, seed=seed, threads=threads)
    np.testing.assert_allclose(fitted.heavy.predict_proba(data.matrix)[:, 1], scorer.score(rows), atol=export.PARITY)
    np.testing.assert_allclose(
        fitted.light.predict_proba(data.matrix)[:, 1], scorer.score_light(rows), atol=export.PARITY
    )


def test_two_trainings_from_one_frame_write_the_same_bytes(trained: Market) -> None:
    rails, spec, _ = trained
    made = frame.training(rails, spec, AS_OF)
    order = candidate.Order(AS_OF, "inputs", 2, "ada", ())
    [version] = rails.ledger.versions(spec.name)
    for again in (candidate.make(rails.settings, spec, made, order, draw=False) for _ in range(2)):
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in again.files.items()}
        assert digests == version.digests


def test_an_attempt_that_was_overtaken_leaves_no_version(trained: Market) -> None:
    rails, spec, _ = trained
    later = AS_OF - timedelta(days=3)
    stale = rails.ledger.claim("training/overtaken")
    rails.ledger.claim("training/overtaken")
    made = frame.training(rails, spec, later)
    with pytest.raises(Fenced):
        training.train_on(rails, spec, later, made, fence=stale, requested_by="ada", trials=1)
    assert [row.version for row in rails.ledger.versions(spec.name)] == [1]
    assert registry.aliases(rails, spec.name) == {"challenger": 1}


def test_where_postgresql_restarts_between_row_and_alias_the_next_attempt_names_the_challenger(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with market(tmp_path, postgres_url) as (rails, spec):
        genuine = Ledger.add_version

        def add_version(ledger: Ledger, version: Version) -> None:
            genuine(ledger, version)
            monkeypatch.undo()
            with cursor(rails.settings, "postgres") as server:  # as a restart does: nobody stays connected
                server.execute(
                    "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s",
                    [rails.settings.database("ledger")],
                )

        monkeypatch.setattr(Ledger, "add_version", add_version)
        with pytest.raises(Unavailable, match="PostgreSQL went away"):
            training.train(rails, spec, AS_OF, requested_by="ada", trials=1)
        assert registry.aliases(rails, spec.name) == {}
        assert rails.ledger.stage_run(TrainingSummary, spec.name, night_closing(AS_OF)) is None
        again = training.train(rails, spec, AS_OF, requested_by="ada", trials=1)
        assert (again.version, again.reused) == (1, True)
        assert [version.version for version in rails.ledger.versions(spec.name)] == [1]
        assert registry.aliases(rails, spec.name) == {"challenger": 1}


@pytest.mark.parametrize(
    ("days", "reason"),
    [(1, "no label of the last 60d has matured, labels take 2d"), (6, "matured rows are too few to train on")],
)
def test_a_night_with_too_little_to_learn_from_trains_nothing(trained: Market, days: int, reason: str) -> None:
    rails, spec, _ = trained
    as_of = FIRST + timedelta(days=days)
    summary = training.train(rails, spec, as_of, requested_by="ada", trials=1)
    assert (summary.trained, summary.version) == (False, None)
    assert reason in summary.reason
    assert rails.ledger.stage_runs(TrainingSummary, spec.name)[night_closing(as_of)].status == "done"


def test_a_frame_that_leaks_is_not_trained_on(tmp_path: Path, postgres_url: str) -> None:
    with market(tmp_path, postgres_url, leaks=True) as (rails, spec):
        with pytest.raises(CheckFailed, match=r"stopped by its leakage gate .*is_open"):
            training.train(rails, spec, AS_OF, requested_by="ada", trials=1)
        assert rails.ledger.versions(spec.name) == []
        night = night_closing(AS_OF)
        record = rails.ledger.stage_runs(TrainingSummary, spec.name)[night]
        assert (record.status, record.summary.version) == ("stopped", None)
        assert "stopped by its leakage gate" in record.summary.reason
        assert record.summary.rows > 0
        rails.ledger.request_retrain(spec.name, night, ["drift"])
        assert grants.past(rails, spec.name, night + timedelta(days=1)).grants == (Grant(night, "none"),), "it is over"


# -- the conversion ---------------------------------------------------------------------------


def fitted(target: Target = YES_OR_NO) -> tuple[Any, Any, np.ndarray]:
    """Heavy and light model of rows with a year, two categories and gaps, and their matrix."""
    columns = (EncodedColumn("size", "numeric"), EncodedColumn("year", "numeric"), EncodedColumn("is_new", "boolean"))
    encoding = Encoding(
        (*columns, EncodedColumn("mood", "categorical", tuple("abc")), EncodedColumn("none", "numeric"))
    )
    rng, rows = np.random.default_rng(5), 1_000
    matrix = np.column_stack(
        [rng.normal(size=rows), 2016 + rng.random(rows), rng.integers(0, 2, rows), rng.integers(0, 4, rows)]
    ).astype(np.float32)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    matrix = np.column_stack([matrix, np.full(rows, np.nan, dtype=np.float32)])
    push = np.nan_to_num(matrix[:, 0]) + np.nan_to_num(matrix[:, 3])
    label = rng.random(rows) < 1 / (1 + np.exp(-push)) if target == YES_OR_NO else np.clip(10 * push, *target.bounds)
    fitter = fit.Fitter(encoding, 1, 1, target)
    given = blocks.Rows(matrix, label, np.arange(rows) / 50)
    params = fit.Params({"max_depth": 6, "n_estimators": 120}, light_C=3.0)
    return fitter.heavy(given, params), fitter.light(given, params), matrix


@pytest.mark.parametrize("target", [YES_OR_NO, Bounded((0.0, 40.0))])
def test_onnx_gives_what_the_trained_models_give(target: Target) -> None:
    heavy, light, matrix = fitted(target)
    assert export.parity(export.heavy_onnx(heavy, matrix, target), heavy, matrix, target) <= 3e-7
    assert export.parity(export.light_onnx(light, matrix, target), light, matrix, target) <= 1e-12


def test_one_changed_leaf_in_a_hundred_trees_is_a_model_that_is_refused(
    trained: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rarest leaf there is, moved a little: shown by few rows of the training frame, and by no sample of it."""
    import onnxmltools

    rails, spec, _ = trained
    convert = onnxmltools.convert_xgboost

    def tampered(model: Any, **given: Any) -> Any:
        converted = convert(model, **given)
        (trees,) = [node for node in converted.graph.node if node.op_type.startswith("TreeEnsemble")]
        of = {attribute.name: attribute for attribute in trees.attribute}
        leaves = model.get_booster().trees_to_dataframe().query("Tree == 0 and Feature == 'Leaf'")
        rarest = int(leaves.sort_values("Cover")["Node"].iloc[0])
        found = zip(of["class_treeids"].ints, of["class_nodeids"].ints, strict=True)
        (place,) = [place for place, where in enumerate(found) if where == (0, rarest)]
        of["class_weights"].floats[place] += 1e-4
        return converted

    monkeypatch.setattr(onnxmltools, "convert_xgboost", tampered)
    before = len(rails.ledger.versions(spec.name))
    with pytest.raises(CheckFailed, match=r"The ONNX conversion of XGBClassifier is off by .*nothing was registered"):
        training.train(rails, spec, AS_OF - timedelta(days=2), requested_by="ada", trials=1)
    assert len(rails.ledger.versions(spec.name)) == before


@pytest.mark.parametrize("place", ["slope", "absence", "weight", "median", "mean", "intercept"])
def test_a_light_twin_with_one_changed_constant_is_refused(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, light, matrix = fitted()
    made = numpy_helper.from_array

    def tampered(values: np.ndarray, name: str) -> Any:
        changed = np.array(values, copy=True)
        if name == place:
            changed.flat[0] += 1e-3
        return made(changed, name)

    monkeypatch.setattr(numpy_helper, "from_array", tampered)
    with pytest.raises(CheckFailed, match=r"The ONNX conversion of Pipeline is off by"):
        export.light_onnx(light, matrix)


@pytest.mark.parametrize("mark", [-3.4028e38, -9e29, 9e29, 1e18])
def test_a_mark_for_no_data_in_every_tenth_row_is_no_reason_to_refuse_a_model(mark: float) -> None:
    rng, rows = np.random.default_rng(6), 1_000
    size = np.where(rng.random(rows) < 0.1, mark, rng.normal(size=rows))
    frame = pd.DataFrame({"size": size, "age": rng.normal(size=rows)})
    encoding = Encoding((EncodedColumn("size", "numeric"), EncodedColumn("age", "numeric")))
    label = rng.random(rows) < 1 / (1 + np.exp(-frame["age"] - (size == mark)))
    given = blocks.Rows(encoding.transform(frame), label.to_numpy(), np.arange(rows) / 50)
    fitter = fit.Fitter(encoding, 1, 1, YES_OR_NO)
    params = fit.Params({"max_depth": 4, "n_estimators": 40}, light_C=3.0)
    export.heavy_onnx(fitter.heavy(given, params), given.matrix)
    export.light_onnx(fitter.light(given, params), given.matrix)


def test_a_conversion_without_a_score_for_gaps_is_refused() -> None:
    """A frame without a gap in it would not show it; the check makes gaps of its own."""
    heavy, _, matrix = fitted()
    whole = matrix[~np.isnan(matrix[:, :4]).any(axis=1)]
    content = export.heavy_onnx(heavy, whole)
    model = onnx.load_model_from_string(content)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "nodes_missing_value_tracks_true":
                attribute.ints[:] = [1 - way for way in attribute.ints]
    with pytest.raises(CheckFailed, match="is off by"):
        export.checked(model.SerializeToString(), heavy, whole, YES_OR_NO)


# -- the split --------------------------------------------------------------------------------


def cohorts(*positives_of: int, rows: int = 60) -> tuple[pd.Series, np.ndarray]:
    """One cohort a day, each with so many positives."""
    times = [FIRST + timedelta(days=day, minutes=row) for day in range(len(positives_of)) for row in range(rows)]
    label = [row < positives for positives in positives_of for row in range(rows)]
    return pd.Series(times).astype("datetime64[us, UTC]"), np.array(label)


def test_the_split_is_by_time_and_keeps_cohorts_whole() -> None:
    times, label = cohorts(*[20] * 10)
    parts = blocks.split(times, label, timedelta(days=1), FIRST + timedelta(days=20))
    days = [sorted({time.day for time in times.iloc[block]}) for block in parts.blocks]
    assert days == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert [len(older) for older, _ in parts.folds] == [240, 360]
    for older, newer in (*parts.folds, (parts.older, parts.held_out)):
        assert times.iloc[older].max() < times.iloc[newer].min()


def test_a_cohort_that_is_too_small_for_a_block_goes_with_its_neighbours() -> None:
    """A Saturday with one positive at the end of a week, and two such days in the middle of one."""
    times, label = cohorts(20, 20, 20, 20, 20, 1)
    parts = blocks.split(times, label, timedelta(days=1), FIRST + timedelta(days=9))
    days = [sorted({time.day for time in times.iloc[block]}) for block in parts.blocks]
    assert days == [[1], [2], [3], [4], [5, 6]]
    times, label = cohorts(20, 2, 3, 20, 20, 20)
    parts = blocks.split(times, label, timedelta(days=1), FIRST + timedelta(days=9))
    days = [sorted({time.day for time in times.iloc[block]}) for block in parts.blocks]
    assert days == [[1], [2, 3], [4], [5], [6]]


def test_one_large_cohort_does_not_swallow_its_neighbours() -> None:
    times, label = cohorts(*[20] * 6)
    heavy = pd.concat([times, pd.Series([times.iloc[-1]] * 2000).astype(times.dtype)], ignore_index=True)
    parts = blocks.split(heavy, np.r_[label, np.arange(2000) % 2 == 0], timedelta(days=1), FIRST + timedelta(days=9))
    assert [len(block) for block in parts.blocks] == [120, 60, 60, 60, 2060]


@pytest.mark.parametrize(
    ("positives", "rows", "reason"),
    [
        ([5] * 5, 30, "150 matured rows are too few"),
        ([20] * 4, 60, "4 cohorts are too few"),
        ([20, 20, 20, 20, 1], 60, "block 5 of 5 by time holds 1 rows of one class"),
        ([20, 20, 20, 20, 60], 60, "block 5 of 5 by time holds 0 rows of one class"),
        ([0] * 9, 60, "block 1 of 5 by time holds 0 rows of one class"),
    ],
)
def test_what_cannot_carry_a_model_is_said(positives: list[int], rows: int, reason: str) -> None:
    times, label = cohorts(*positives, rows=rows)
    with pytest.raises(blocks.Untrainable, match=reason):
        blocks.split(times, label, timedelta(days=1), FIRST + timedelta(days=20))


# -- metrics and reference --------------------------------------------------------------------


def test_metrics_agree_with_their_definitions() -> None:
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    rng = np.random.default_rng(0)
    score = np.round(rng.random(300), 2)  # with ties
    label = rng.random(300) < score
    found = fit.intervals(label, score, seed=1)
    expected = {"brier": brier_score_loss, "log_loss": log_loss, "auc": roc_auc_score}
    for name, metric in expected.items():
        assert found[name].value == pytest.approx(metric(label, np.clip(score, 1e-7, 1 - 1e-7)), abs=1e-6)
        assert found[name].low < found[name].value < found[name].high


def test_the_bootstrap_interval_is_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(2000)
    label = rng.random(2000) < score
    brier = fit.intervals(label, score, seed=1)["brier"]
    half = 1.96 * np.std((score - label) ** 2) / np.sqrt(2000)
    assert (brier.high - brier.low) / 2 == pytest.approx(half, rel=0.15)


def test_an_older_row_weighs_half_after_its_half_life() -> None:
    rows = blocks.Rows(np.zeros((3, 1), np.float32), np.array([True, False, True]), np.array([10.0, 3.0, 10.0]))
    weights = rows.weights(7)
    assert weights[1] / weights[0] == pytest.approx(0.5)
    assert weights.mean() == pytest.approx(1)
    assert list(rows.weights(0)) == [1, 1, 1]


def test_the_reference_describes_every_row(trained: Market) -> None:
    rails, spec, _ = trained
    scorer = registry.load(rails, spec.name, 1)
    described = scorer.reference["features"]
    assert set(described) == {"size", "mood", "is_open"}
    for entry in (*described.values(), {**scorer.reference["score"], "missing": 0}):
        shares = entry["shares"].values() if isinstance(entry["shares"], dict) else entry["shares"]
        assert sum(shares) + entry.get("other", 0) + entry["missing"] == pytest.approx(1)
    assert len(described["size"]["shares"]) == len(described["size"]["edges"]) + 1
    assert described["mood"]["missing"] > 0
    sample = scorer.reference_frame()
    assert set(sample.columns) == {"size", "mood", "is_open", "label", "_score"}
    assert sample["_score"].between(0, 1).all()


def test_a_feature_that_says_nothing_is_named(
    tmp_path: Path, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the three features one never has a value and one has the same in every row."""
    with market(tmp_path, postgres_url) as (rails, spec):
        rails.lake.connection.execute(f"update lake.{FEATURES} set size = null, is_open = true")
        publish(rails, AS_OF)
        summary = training.train(rails, spec, AS_OF, requested_by="ada", trials=1)
        version = rails.ledger.version(spec.name, 1)
    assert version is not None
    filled = {feature.feature: feature for feature in version.facts.filled}
    assert {name for name, feature in filled.items() if feature.is_dead} == {"size", "is_open"}
    assert (filled["size"].training, filled["is_open"].training) == (0, 1)
    assert 0.5 < filled["mood"].training < 1
    (warning,) = summary.warnings
    assert "2 of 3 features had at most one value at training" in warning and warning in caplog.text
    assert "size (no value, filled at training 0 %)" in warning
    assert "is_open (one value only, filled at training 100 %)" in warning


def test_features_that_say_something_are_not_warned_of(trained: Market) -> None:
    assert trained[2].warnings == ()


def test_labels_that_came_late_are_not_learned_from(trained: Market) -> None:
    rails, spec, _ = trained
    as_of = FIRST + timedelta(days=20)
    rows = pd.read_parquet(frame.training(rails, spec, as_of).path)
    assert rows["prediction_time"].max() <= as_of - timedelta(days=2)
    assert rails.lake.query(f"select max(prediction_time) as last from {{{LABELS}}}", AS_OF)["last"][0] > as_of


# -- a number ---------------------------------------------------------------------------------


def test_both_models_of_a_number_learn_it_and_are_the_same_as_onnx() -> None:
    from tiltyard.train import scorer

    rng = np.random.default_rng(3)
    rows, bounds = 1_500, (0.0, 40.0)
    target = Bounded(bounds)
    matrix = np.column_stack([rng.normal(size=rows), rng.integers(0, 3, rows)]).astype(np.float32)
    matrix[rng.random(rows) < 0.1, 0] = np.nan
    label = np.clip(rng.poisson(np.exp(1 + 0.5 * np.nan_to_num(matrix[:, 0]) + 0.4 * matrix[:, 1])), *bounds)
    days = np.arange(rows) / 50
    times = pd.Series(pd.to_datetime(days, unit="D", utc=True))
    parts = blocks.split(times, label, timedelta(days=1), times.iloc[-1].ceil("D").to_pydatetime(), target)
    encoding = Encoding((EncodedColumn("size", "numeric"), EncodedColumn("mood", "categorical", ("good", "bad"))))
    given = blocks.Rows(matrix, label.astype(np.float64), days)
    fitted = fit.fit(given, parts, encoding, trials=2, seed=1, threads=1, target=target)
    held_out = label[parts.held_out]
    constant = np.abs(held_out - np.median(held_out)).mean()
    for figures in (fitted.metrics, fitted.metrics.light):
        assert figures.absolute_error.high < constant
    assert np.abs(fitted.out_of_fold - label).mean() < constant
    assert (fitted.out_of_fold >= bounds[0]).all() and (fitted.out_of_fold <= bounds[1]).all()
    assert fitted.importance["size"] > 0.2
    for content, model in (
        (export.heavy_onnx(fitted.heavy, matrix, target), fitted.heavy),
        (export.light_onnx(fitted.light, matrix, target), fitted.light),
    ):
        assert scorer.answers(scorer.session(content), matrix, target) == pytest.approx(model.predict(matrix), abs=4e-5)


def test_a_number_that_is_always_the_same_carries_no_model() -> None:
    times, _ = cohorts(*[20] * 6)
    with pytest.raises(blocks.Untrainable, match="holds 0 rows whose label is not its commonest one"):
        blocks.split(times, np.full(len(times), 3.0), timedelta(days=1), FIRST + timedelta(days=20), Bounded((0, 9)))


def test_a_score_beyond_the_bounds_means_the_bound_and_none_stays_none() -> None:
    values = np.array([-1.0, 3.0, 99.0, np.nan, np.inf])
    np.testing.assert_array_equal(Bounded((0.0, 10.0)).within(values), [0, 3, 10, np.nan, np.nan])
    assert YES_OR_NO.within(values) is values
