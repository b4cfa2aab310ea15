"""The kinds of label: each says all there is to say, another is one more class, nobody else asks which kind it is."""

import ast
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, get_type_hints

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from tiltyard import target
from tiltyard.records import Measured, VersionFigures
from tiltyard.serve import additive
from tiltyard.settings import ROOT
from tiltyard.spec import Label, Spec
from tiltyard.target import YES_OR_NO, Bounded, Classes, CostMatrix, Floats, Learner, Target
from tiltyard.train import blocks, candidate, evaluation, export, fit
from tiltyard.train.encoding import EncodedColumn, Encoding
from tiltyard.train.scorer import Scorer

NUMBER = Bounded((0.0, 40.0))
THREE = Classes(classes=("early", "on time", "late"))
DEFAULT = {"early": 0.2, "on time": 0.5, "late": 0.3}


@dataclass(frozen=True)
class Count(Bounded):
    """A count, learned by Poisson's likelihood and measured by a figure that nobody else has: a kind of its own."""

    kind = "count"
    described = "a count (label.kind)"
    light_class = "sklearn.linear_model.PoissonRegressor"
    metrics: ClassVar[Mapping[str, str]] = {"poisson": "Poisson deviance, over its largest"}
    measure = "squared_error"
    figure = figure_title = "squared error"
    learner = Learner("count:poisson", "rmse")
    link = "Exp"
    margin_unit = "log of the count"

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **super().to_json()}

    def losses(self, metric: str, score: Floats, label: Floats, cost: CostMatrix | None = None) -> Floats:
        rate = np.clip(score, 1e-3, self.bounds[1])
        deviance = rate - label + label * np.log(np.maximum(label, 1e-300) / rate)
        return np.clip(deviance / (self.bounds[1] * math.log(self.bounds[1] / 1e-3)), 0, 1)

    def row_losses(self, score: Floats, label: Floats) -> Floats:
        return (score - label) ** 2

    def errors(self, by_round: Floats) -> Floats:
        return by_round**2

    def margins(self, scores: Floats) -> Floats:
        return np.log(scores)

    def score(self, margin: float) -> float:
        return super().score(math.exp(margin))

    def light_arguments(self, penalty: float) -> dict[str, float]:
        return {"alpha": 0.1 / penalty, "max_iter": 300}


@pytest.mark.parametrize("kind", target.KINDS.values())
def test_a_kind_says_all_there_is_to_say(kind: type[Target]) -> None:
    hints = get_type_hints(Target, include_extras=True)
    told = [name for name, hint in hints.items() if str(hint).startswith("typing.ClassVar")]
    assert len(told) > 25
    assert [name for name in told if not hasattr(kind, name)] == []
    assert not kind.__abstractmethods__


@pytest.mark.parametrize("kind", [YES_OR_NO, NUMBER, THREE])
def test_what_a_version_keeps_of_its_kind_is_read_again(kind: Target) -> None:
    assert target.read(json.loads(json.dumps({"rows": 3, **kind.to_json()}))) == kind


def test_bounds_are_learned_from_labels_and_hold_the_safe_default() -> None:
    opened = target.KINDS["number"].of(Label.model_validate({"table": "lbl_x", "kind": "number", "horizon": "1d"}))
    assert not opened.is_learned and NUMBER.is_learned and YES_OR_NO.is_learned
    counts = np.random.default_rng(1).poisson(4, 5_000)
    high = np.percentile(counts, 99) + 0.1 * (np.percentile(counts, 99) - np.percentile(counts, 1))
    learned = opened.learned(counts, 3.0)
    assert learned.bounds == (0.0, pytest.approx(high, rel=0.01))
    assert learned.of_training(counts)[1] == (counts > learned.bounds[1]).sum()
    assert opened.learned(counts, 99.0).bounds == (0.0, 99.0)
    assert opened.learned(counts - 4.0, 0.0).bounds[0] < -4
    assert opened.learned(np.array([0.0] * 999 + [7.0]), 0.0).bounds == (0.0, 7.7), "percentiles that are one"
    assert opened.learned(np.zeros(9), 0.0).width > 0
    assert NUMBER.learned(counts, 3.0) is NUMBER
    assert opened.of_training(counts)[1] == 0
    assert np.isfinite(opened.scaled(counts.astype(float))).all(), "before they are known nothing breaks"


def test_a_margin_is_a_score_and_back() -> None:
    scores = np.array([0.01, 0.3, 0.5, 0.999])
    for kind in (YES_OR_NO, NUMBER, Count((0.0, 40.0))):
        assert [kind.score(float(margin)) for margin in kind.margins(scores)] == pytest.approx(scores)
    assert (NUMBER.score(-3.0), NUMBER.score(99.0), YES_OR_NO.score(-800.0)) == (0, 40, 0)


def test_sql_takes_what_is_beyond_the_bounds_for_the_nearer_one_and_nothing_for_no_number() -> None:
    import duckdb

    rows = "(values (-1.0), (7.5), (99.0), ('nan'::double), (null)) as labels (label)"
    sql = (
        f"select {NUMBER.sql('label')}, {NUMBER.sql('label', clipped=False)}, {NUMBER.sql_outside('label')} from {rows}"
    )
    assert duckdb.sql(sql).fetchall() == [
        (0, -1, True),
        (7.5, 7.5, False),
        (40, 99, True),
        (None, None, True),
        (None, None, False),
    ]


def test_another_kind_is_one_more_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Split, tuned, fitted, measured, converted, kept, read and served as the others are."""
    monkeypatch.setitem(target.KINDS, Count.kind, Count)
    kind = Count((0.0, 40.0))
    rng = np.random.default_rng(3)
    matrix = np.column_stack([rng.normal(size=1_500), rng.integers(0, 3, 1_500)]).astype(np.float32)
    matrix[rng.random(1_500) < 0.1, 0] = np.nan
    label, outside = kind.of_training(rng.poisson(np.exp(1 + 0.5 * np.nan_to_num(matrix[:, 0]) + 0.4 * matrix[:, 1])))
    assert outside == 0
    days = np.arange(1_500) / 50
    times = pd.Series(pd.to_datetime(days, unit="D", utc=True))
    parts = blocks.split(times, label, timedelta(days=1), times.iloc[-1].ceil("D").to_pydatetime(), kind)
    encoding = Encoding((EncodedColumn("size", "numeric"), EncodedColumn("mood", "categorical", ("good", "bad"))))
    rows = blocks.Rows(matrix, label, days)
    fitted = fit.fit(rows, parts, encoding, trials=2, seed=1, threads=1, target=kind)
    constant = np.var(label[parts.held_out])
    for figures in (fitted.metrics, fitted.metrics.light):
        read = Measured.from_json(figures.to_json())  # as the ledger gives it back
        assert read.absolute_error is None
        assert 0 < read.figure("squared_error").value < constant

    sample = pd.DataFrame({"size": matrix[:, 0], "mood": "good", "label": label, "score": fitted.out_of_fold})
    files = {
        "model.onnx": export.heavy_onnx(fitted.heavy, matrix, kind),  # each held against its model
        "light.onnx": export.light_onnx(fitted.light, matrix, kind),
        "encoding.json": encoding.to_json().encode(),
        "reference.json": json.dumps(kind.to_json()).encode(),
        "reference.parquet": candidate.parquet(sample),
    }
    scorer = Scorer.from_files("counted", 1, files)
    assert scorer.target == kind
    twin = additive.read(scorer.score_light_matrix, encoding, matrix[:200], scorer.target)
    assert twin is not None
    assert twin.score(matrix[:9]) == pytest.approx(scorer.score_light_matrix(matrix[:9]), rel=1e-5)
    scored = sample.assign(prediction_time=times)
    evaluated = VersionFigures.of(evaluation.evaluate(scored, target=kind)[0].figures)
    assert 0 < VersionFigures.from_json(evaluated.to_json()).figure("squared_error") < constant
    losses = [kind.losses("poisson", score, label).mean() for score in (fitted.out_of_fold, np.full(1_500, 3.0))]
    assert losses[0] < losses[1]


def test_nobody_else_asks_which_kind_it_is() -> None:
    asks = re.compile(
        r"is_regression|(bounds|classes) is (not )?None|isinstance\([^)]*(Binary|Bounded|Classes)|"
        r"[!=]= ?\"(absolute_error|class_brier)\""
    )
    library = ROOT / "plugins"
    files = [path for path in (*library.rglob("*.py"), *library.rglob("*.html")) if path.name != "target.py"]
    assert len(files) > 100
    assert [path.name for path in files if asks.search(path.read_text(encoding="utf-8"))] == []


def test_it_imports_no_trainer() -> None:
    tree = ast.parse((ROOT / "plugins" / "tiltyard" / "target.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {
        "__future__",
        "json",
        "math",
        "abc",
        "collections.abc",
        "dataclasses",
        "typing",
        "numpy",
        "numpy.typing",
        "pydantic",
    }


# -- classes ----------------------------------------------------------------------------------


def drawn_classes(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """(rows, 3) distributions and the classes that came."""
    rng = np.random.default_rng(9)
    scores = rng.dirichlet((1.0, 2.0, 0.5), rows)
    return scores, np.array([rng.choice(3, p=row) for row in scores]).astype(float)


def test_a_distribution_loses_what_scikit_learn_and_a_hand_say() -> None:
    scores, label = drawn_classes()
    by_hand = [((row - np.eye(3)[int(came)]) ** 2).sum() for row, came in zip(scores, label, strict=True)]
    assert THREE.row_losses(scores, label) == pytest.approx(np.array(by_hand) / 2)
    assert metrics.brier_score_loss(label, scores, labels=[0, 1, 2], scale_by_half=True) == pytest.approx(
        THREE.row_losses(scores, label).mean()
    )
    figures = THREE.figures(scores, label)
    assert figures["log_loss"] == pytest.approx(
        metrics.log_loss(label, np.clip(scores, 1e-6, 1), labels=[0, 1, 2]), rel=1e-4
    )
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(label, scores.argmax(axis=1)))
    weights = np.vstack([np.ones(400, dtype=np.int64), np.arange(400) % 2 * 2])
    again = THREE.resampled(scores, label, weights)
    assert again["class_brier"][0] == pytest.approx(np.mean(by_hand) / 2)
    assert again["log_loss"][1] == pytest.approx(THREE.figures(scores[1::2], label[1::2])["log_loss"])


def test_the_gates_losses_of_classes_lie_within_0_and_1_and_reach_both_ends() -> None:
    scores = np.array([[1.0, 0, 0], [0, 1, 0], [0.2, 0.5, 0.3], [1 / 3, 1 / 3, 1 / 3]])
    label = np.array([0.0, 0, 2, np.nan])
    assert THREE.losses("brier", scores, label)[:3] == pytest.approx([0, 1, (0.04 + 0.25 + 0.49) / 2])
    assert THREE.losses("log_loss", scores, label)[:3] == pytest.approx(
        [0, 1, math.log(0.3) / math.log(target.LOSS_CLIP)]
    )
    for metric in THREE.metrics:
        assert np.isnan(THREE.losses(metric, scores, label)[3])
    with pytest.raises(ValueError, match=r"absolute_error needs label\.bounds"):
        THREE.losses("absolute_error", scores, label)


def test_a_text_that_is_no_class_has_not_come_and_is_outside() -> None:
    import duckdb

    kind = Classes(classes=("it's", "on time", "late"))
    rows = "(values ('late'), ('it''s'), ('Late'), (null)) as labels (label)"
    sql = f"select {kind.sql('label')}, {kind.sql_outside('label')}, {kind.sql_told('label')} from {rows}"
    assert duckdb.sql(sql).fetchall() == [
        (2, False, "late"), (0, False, "it's"), (None, True, "Late"), (None, False, None),
    ]  # fmt: skip
    halves = duckdb.sql(f"select {kind.sql_half('x')} from (values (1), (2), (2)) as rows (x) order by x").fetchall()
    assert halves == [(False,), (True,), (True,)]


def test_distributions_are_written_down_by_name_and_read_again() -> None:
    scores, _ = drawn_classes(20)
    scores[3] = np.nan
    told = THREE.told(scores)
    assert told[3] is None and json.loads(told[0] or "") == dict(zip(THREE.classes, scores[0], strict=True))
    for column in (pd.Series(told, dtype=object), pd.Series(THREE.column(scores))):
        np.testing.assert_array_equal(THREE.scores(column), scores)
    turned = Classes(classes=THREE.classes[::-1])
    np.testing.assert_array_equal(turned.scores(told), scores[:, ::-1])
    assert np.isnan(Classes(classes=("early", "late", "lost")).scores(told)).all()
    assert THREE.scores(pd.Series([], dtype=object)).shape == (0, 3)
    said = THREE.said(scores[0])
    assert said.score == scores[0].max() and said.likeliest == THREE.classes[scores[0].argmax()]
    assert (YES_OR_NO.said(0.3).score, YES_OR_NO.said(0.3).likeliest) == (0.3, None)
    assert THREE.unlike(THREE) is None and "not of late, on time, early" in (turned.unlike(THREE) or "")
    assert YES_OR_NO.unlike(NUMBER) is None and "another kind" in (YES_OR_NO.unlike(THREE) or "")


def test_what_is_no_distribution_is_no_score() -> None:
    values = np.array([[0.2, 0.5, 0.3], [0.2, 0.5, 0.4], [np.nan, 0.5, 0.5], [1.2, -0.2, 0]])
    assert THREE.usable(values).tolist() == [True, False, False, False]
    assert THREE.within(values)[1] == pytest.approx([0.2 / 1.1, 0.5 / 1.1, 0.4 / 1.1])
    assert THREE.is_scored(THREE.within(values)).tolist() == [True, True, False, True]
    chosen = THREE.where(np.array([True, False, False, True]), values, THREE.constant(DEFAULT, 4))
    np.testing.assert_array_equal(chosen[1], list(DEFAULT.values()))
    assert THREE.nothing(0).shape == (0, 3) and THREE.single(THREE.nothing(0)).shape == (0,)


def test_the_likeliest_class_is_what_calibration_compares() -> None:
    scores, label = drawn_classes(20_000)
    score, came = THREE.paired(scores, label)
    np.testing.assert_array_equal(score, scores.max(axis=1))
    assert abs(came.mean() - score.mean()) < 0.01, "classes that come as often as they should are calibrated"
    error = evaluation.calibration_error(score, came)
    assert error is not None and error < 0.02
    sharper = THREE.within(scores**3)
    off = evaluation.calibration_error(*THREE.paired(sharper, label))
    assert off is not None and off > 0.1


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (["a", "b"], "names 2, and it takes 3 to 20; of two, make the label a boolean"),
        ([f"c{number}" for number in range(21)], "names 21, and it takes 3 to 20; put the rare ones together"),
        (["a", "b", "a"], "names 'a' twice"),
        (["a", "b", " c"], "no space at its ends"),
        (["a", "b", "{c}"], "no braces"),
    ],
)
def test_classes_are_a_closed_set_of_texts(classes: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Label.model_validate({"table": "lbl_x", "classes": classes, "horizon": "1d"})


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"kind": "classes"}, "kind: classes needs label.classes"),
        ({"classes": ["a", "b", "c"], "bounds": [0, 1]}, "label.classes is not for a label that is a number"),
        ({"classes": ["a", "b", "c"], "kind": "yes_or_no"}, "label.classes is not for a label that is a yes or no"),
        ({"classes": ["a", "b", "c"], "positive": False}, "label.positive is not for a label that is one of several"),
    ],
)
def test_a_label_has_the_fields_of_one_kind(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Label.model_validate({"table": "lbl_x", "horizon": "1d", **more})


def test_said_or_implied_classes_are_the_same_promise() -> None:
    plain = {"table": "lbl_x", "horizon": "1d", "classes": ["a", "b", "c"]}
    implied, said = (Label.model_validate({**plain, **more}) for more in ({}, {"kind": "classes"}))
    assert implied.digest == said.digest and target.of(implied) == target.of(said) == Classes(classes=("a", "b", "c"))
    assert "classes" not in Label.model_validate({"table": "lbl_x", "horizon": "1d"}).model_dump(mode="json")


@pytest.mark.parametrize(
    ("default", "says"),
    [
        (0.3, "write a probability for each, like {early: 0.33, on time: 0.33, late: 0.34}"),
        ({"early": 0.5, "late": 0.5}, "no probability for the class 'on time'"),
        ({**DEFAULT, "lost": 0.0}, "names 'lost', which is not in label.classes"),
        ({"early": 0.5, "on time": 0.5, "late": 0.5}, "adds up to 1.5"),
        ({"early": -0.5, "on time": 1.0, "late": 0.5}, "says -0.5 of 'early'"),
    ],
)
def test_a_safe_default_of_classes_is_a_distribution(default: Any, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        THREE.check_default(default)
    THREE.check_default(DEFAULT)
    for kind in (YES_OR_NO, NUMBER):
        with pytest.raises(ValueError, match="has a number for each class"):
            kind.check_default(DEFAULT)


def test_a_block_needs_rows_of_every_class() -> None:
    label = np.tile([0, 1, 0, 1, 2], 60)
    label[:240][label[:240] == 2] = 0
    times = pd.Series(pd.date_range("2024-03-01", periods=300, freq="2h", tz="UTC"))
    with pytest.raises(blocks.Untrainable, match="block 1 of 5 by time holds 0 rows of its rarest class"):
        blocks.split(times, label, timedelta(days=1), times.iloc[-1].ceil("D").to_pydatetime(), THREE)


OF_CLASSES: dict[str, Any] = {
    "name": "m",
    "entity": "ticket",
    "owner": "desk",
    "tier": 2,
    "source": "incident",
    "prediction": {"spine": "spn_m", "features": ["ftr_ticket__m"]},
    "label": {"table": "lbl_m", "horizon": "2d", "classes": list(THREE.classes)},
    "estimator": {"class": "xgboost.XGBClassifier"},
    "light": {"class": "sklearn.linear_model.LogisticRegression"},
    "fallback": {"safe_default": DEFAULT},
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"estimator": {"class": "xgboost.XGBRegressor"}}, "is one of several classes (label.classes), so class is"),
        ({"estimator": {"class": "sklearn.linear_model.ElasticNet"}}, "so class is xgboost.XGBClassifier"),
        ({"light": {"class": "sklearn.linear_model.Ridge"}}, "so class is sklearn.linear_model.LogisticRegression"),
        ({"gate": {"metric": "absolute_error"}}, "so write metric: brier or log_loss and no cost"),
        ({"gate": {"metric": "cost", "cost": {"false_positive": 1, "false_negative": 1}}}, "brier or log_loss and no"),
        ({"fallback": {"safe_default": 0.5}}, "write a probability for each"),
    ],
)
def test_a_spec_of_classes_is_refused_what_classes_cannot_have(changes: dict[str, Any], says: str) -> None:
    assert Spec(**OF_CLASSES).target == THREE
    assert Spec(**OF_CLASSES, gate={"metric": "log_loss"}).digest != Spec(**OF_CLASSES).digest
    with pytest.raises(ValueError, match=re.escape(says)):
        Spec(**OF_CLASSES | changes)
