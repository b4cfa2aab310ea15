"""The kinds of label: each says all there is to say, a third is one more class, nobody else asks which kind it is."""

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

from tiltyard import target
from tiltyard.records import Measured, VersionFigures
from tiltyard.serve import additive
from tiltyard.settings import ROOT
from tiltyard.spec import Label
from tiltyard.target import YES_OR_NO, Bounded, CostMatrix, Floats, Learner, Target
from tiltyard.train import blocks, candidate, evaluation, export, fit
from tiltyard.train.encoding import EncodedColumn, Encoding
from tiltyard.train.scorer import Scorer

NUMBER = Bounded((0.0, 40.0))


@dataclass(frozen=True)
class Count(Bounded):
    """A count, learned by Poisson's likelihood and measured by a figure that nobody else has: a third kind."""

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


@pytest.mark.parametrize("kind", [YES_OR_NO, NUMBER])
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


def test_a_third_kind_is_one_more_class(monkeypatch: pytest.MonkeyPatch) -> None:
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
