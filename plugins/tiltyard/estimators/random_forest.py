"""scikit-learn's random forests."""

from __future__ import annotations

from typing import Any, ClassVar

from tiltyard.estimators import shapley, tree_graph
from tiltyard.estimators.family import Arguments, Dimension, Family, Floats, Learning, Matrix, Model, Space, named
from tiltyard.estimators.tree_graph import Tree
from tiltyard.target import Target


class RandomForest(Family):
    """The mean of trees, each of a sample of the rows: Breiman (2001), Random Forests, Machine Learning 45:5-32. Of a
    number it learns the mean and not the median. Depth and leaves are bounded, so that a version stays small."""

    classifier = "sklearn.ensemble.RandomForestClassifier"
    regressor = "sklearn.ensemble.RandomForestRegressor"
    space: ClassVar[Space] = {
        "max_depth": Dimension(4, 12, first=8, least=1, most=16, is_whole=True),
        "min_samples_leaf": Dimension(3, 100, first=10, least=1, most=100_000, is_log=True, is_whole=True),
        "max_features": Dimension(0.2, 1, first=0.5, least=0.05, most=1),
        "n_estimators": Dimension(100, 100, first=100, least=1, most=500, is_whole=True),
    }

    def fit(self, learning: Learning, params: Arguments) -> Model:
        """A model of these rows."""
        model = named(self.class_for(learning.target))(
            **self.arguments(params), random_state=learning.seed, n_jobs=learning.threads
        )
        return model.fit(learning.matrix, learning.label, learning.weights)

    def contributions(self, model: Model, matrix: Matrix) -> Floats:
        """(rows, features) exact TreeSHAP of the trees' mean."""
        return shapley.of_trees(model, matrix)

    def unit(self, target: Target) -> str:
        """A forest's trees are averaged as probabilities, or as numbers."""
        return "in probability" if target.is_classified else target.margin_unit

    def onnx(self, model: Model, width: int, target: Target) -> bytes:
        """The trees in float64, as scikit-learn compares and sums them."""
        import numpy as np

        trees = [
            _tree(estimator.tree_, target.picked(estimator.tree_.value[:, 0]) / len(model.estimators_))
            for estimator in model.estimators_
        ]
        return tree_graph.written(trees, width, base=np.zeros(target.shape or 1))


def _tree(tree: Any, value: Floats) -> Tree:
    """Of scikit-learn's arrays; a leaf is worth its share in the mean of the trees."""
    return Tree(
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        is_missing_left=tree.missing_go_to_left,
        is_leaf=tree.children_left < 0,
        value=value,
    )
