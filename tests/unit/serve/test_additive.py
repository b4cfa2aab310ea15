"""A light twin read off its graph: the same scores to a millionth, or none."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import served
from tiltyard.serve import additive
from tiltyard.target import YES_OR_NO, Bounded
from tiltyard.train import scorer
from tiltyard.train.encoding import EncodedColumn, Encoding

ENCODING = served.ENCODING


def scored(content):
    graph = scorer.session(content)
    return lambda matrix: scorer.answers(graph, matrix, YES_OR_NO)


def frame(rows, seed=0):
    rng = np.random.default_rng(seed)
    made = pd.DataFrame(
        {
            "weight": rng.normal(size=rows) * 50,
            "size": rng.integers(0, 9, rows).astype(float),
            "is_open": rng.random(rows) < 0.5,
            "priority": rng.choice(["high", "low", "odd"], rows),
        }
    ).astype({"is_open": object})
    return made.mask(rng.random(made.shape) < 0.2)


def matrix(rows):
    return ENCODING.transform(rows)


@pytest.fixture(scope="module")
def light():
    """The light twin that training makes, with its parts for numbers, gaps and categories."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from tiltyard.train import export, fit

    rows = frame(3_000, 5)
    label = np.nan_to_num(rows["weight"].to_numpy(dtype=float)) + (rows["priority"] == "high") * 30 > 10
    encoded = matrix(rows)
    inputs = fit.Fitter(encoding=ENCODING, seed=1, threads=1).light_inputs()
    return export.light_onnx(
        make_pipeline(inputs, LogisticRegression(C=0.3, max_iter=500)).fit(encoded, label), encoded
    )


@pytest.fixture(scope="module")
def twin(light):
    found = additive.read(scored(light), ENCODING, matrix(frame(500, 1)), YES_OR_NO)
    assert found is not None
    return found, scored(light)


FLOATS = st.one_of(st.none(), st.floats(-1e6, 1e6, width=32))
ROWS = st.lists(
    st.tuples(FLOATS, FLOATS, st.sampled_from([None, 0, 1]), st.sampled_from([None, 0, 1, 2])), min_size=1, max_size=5
)


@settings(max_examples=300)
@given(ROWS)
def test_it_scores_as_the_graph_does_whatever_a_row_says(twin, rows):
    own, graph = twin
    encoded = np.array(rows, dtype=np.float32)
    assert own.score(encoded) == pytest.approx(graph(encoded), abs=2e-6)


def test_trees_are_no_sum_over_columns():
    from xgboost import XGBClassifier

    from tiltyard.train import export

    rows = matrix(frame(2_000, 2))
    label = (np.nan_to_num(rows[:, 0]) > 0) ^ (np.nan_to_num(rows[:, 1]) > 4)
    model = XGBClassifier(n_estimators=20, max_depth=3, n_jobs=1).fit(rows, label)
    content = export.heavy_onnx(model, rows)
    assert additive.read(scored(content), ENCODING, rows, YES_OR_NO) is None


def test_a_number_is_kept_within_its_bounds():
    encoding = Encoding((EncodedColumn("x", "numeric"),))
    own = additive.read(
        lambda rows: np.clip(1 + 2.0 * np.nan_to_num(rows[:, 0]), -9, 9), encoding, column([1, 2]), Bounded((-9, 9))
    )
    assert own is not None
    assert own.score(column([1.0, 100.0, -100.0, np.nan])) == pytest.approx([3.0, 9.0, -9.0, 1.0], abs=1e-6)


def test_a_twin_that_is_sure_of_itself_is_left_to_onnx():
    encoding = Encoding((EncodedColumn("x", "numeric"),))
    assert additive.read(lambda rows: np.ones(len(rows)), encoding, column([1, 2]), YES_OR_NO) is None


def column(values):
    return np.array(values, dtype=np.float32).reshape(-1, 1)
