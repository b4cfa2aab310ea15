"""scikit-learn's histogram-based gradient boosting."""

from __future__ import annotations

from typing import Any, ClassVar

from tiltyard.estimators import shapley, tree_graph
from tiltyard.estimators.family import Arguments, Dimension, Family, Floats, Learning, Matrix, Model, Space, named
from tiltyard.estimators.tree_graph import Tree
from tiltyard.target import Target, Values


class HistGradientBoosting(Family):
    """Boosted trees over binned features, grown leaf by leaf as LightGBM does: Ke et al. (2017), LightGBM, NIPS. A
    category's codes are taken for numbers, as XGBoost takes them here."""

    classifier = "sklearn.ensemble.HistGradientBoostingClassifier"
    regressor = "sklearn.ensemble.HistGradientBoostingRegressor"
    space: ClassVar[Space] = {
        "max_leaf_nodes": Dimension(4, 63, first=15, least=2, most=1024, is_log=True, is_whole=True),
        "learning_rate": Dimension(0.03, 0.3, first=0.1, least=0.001, most=1, is_log=True),
        "min_samples_leaf": Dimension(5, 100, first=20, least=1, most=100_000, is_log=True, is_whole=True),
        "max_features": Dimension(0.3, 1, first=0.8, least=0.05, most=1),
        "l2_regularization": Dimension(0.1, 30, first=1, least=0, most=10_000, is_log=True),
        "max_iter": Dimension(30, 120, first=120, least=1, most=1000, is_whole=True, is_by_round=True),
    }

    def fit(self, learning: Learning, params: Arguments) -> Model:
        """A model of these rows. The number of threads is OpenMP's, which has no argument."""
        from threadpoolctl import threadpool_limits

        model = named(self.class_for(learning.target))(
            **self.arguments(params),
            loss=learning.target.learner.loss,
            early_stopping=False,
            random_state=learning.seed,
        )
        with threadpool_limits(limits=learning.threads, user_api="openmp"):
            return model.fit(_without_empty(learning.matrix), learning.label, learning.weights)

    def errors(self, learning: Learning, newer: Matrix, label: Values, params: Arguments) -> Floats:
        """(rounds,) the mean loss on newer rows after every round."""
        import numpy as np

        target, model = learning.target, self.fit(learning, params)
        staged = model.staged_predict_proba(newer) if target.is_classified else model.staged_predict(newer)
        answers = (target.picked(answer) if target.is_classified else answer for answer in staged)
        return np.array([np.mean(target.row_losses(target.within(answer), label)) for answer in answers])

    def contributions(self, model: Model, matrix: Matrix) -> Floats:
        """(rows, features) exact TreeSHAP of the trees' sum."""
        return shapley.of_trees(model, matrix)

    def onnx(self, model: Model, width: int, target: Target) -> bytes:
        """The trees in float64, as scikit-learn compares and sums them; of a yes or no their sum's sigmoid, of classes
        the softmax of a sum for each."""
        trees = [
            _tree(predictor.nodes)._replace(place=place)
            for of_round in model._predictors
            for place, predictor in enumerate(of_round)
        ]
        link = target.link if target.is_classified else None
        return tree_graph.written(trees, width, base=model._baseline_prediction.ravel(), link=link)


def _without_empty(matrix: Matrix) -> Matrix:
    """Columns without any value hold a constant, on which no tree is ever split: scikit-learn fails to bin them."""
    import numpy as np

    empty = np.isnan(matrix).all(axis=0)
    return np.where(empty, np.float32(0), matrix) if empty.any() else matrix


def _tree(nodes: Any) -> Tree:
    """Of a structured array, one element per node."""
    return Tree(
        feature=nodes["feature_idx"],
        threshold=nodes["num_threshold"],
        left=nodes["left"],
        right=nodes["right"],
        is_missing_left=nodes["missing_go_to_left"],
        is_leaf=nodes["is_leaf"],
        value=nodes["value"],
    )
