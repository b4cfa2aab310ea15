"""What may be trained as the heavy model: a closed set of families, one file each. `family` says what a family is.

A family names its two scikit-learn or XGBoost classes (one for a yes or no and for several classes, one for a number),
the parameters that are searched and within which limits a spec may set them, and how its model is fitted, explained and
written as ONNX. A new one is one more file and its place in `FAMILIES`: `xgboost_trees`, `hist_gradient_boosting` and
`random_forest` (both written with `tree_graph`, explained with `shapley`), and `linear`, which is the light twin of
every model as well.

The libraries are imported when something is fitted: a DAG file is parsed with this package.
"""

from tiltyard.estimators.family import Dimension, Family, Learning
from tiltyard.estimators.hist_gradient_boosting import HistGradientBoosting
from tiltyard.estimators.linear import ElasticNet, Logistic
from tiltyard.estimators.random_forest import RandomForest
from tiltyard.estimators.xgboost_trees import XGBoost
from tiltyard.target import Target

__all__ = ["CLASSES", "FAMILIES", "XGBOOST", "Dimension", "Family", "Learning", "check_class", "of_class"]

XGBOOST: Family = XGBoost()
"""The family of a model of which nothing is said."""
FAMILIES: tuple[Family, ...] = (XGBOOST, HistGradientBoosting(), RandomForest(), Logistic(), ElasticNet())
"""All there are; the first is the one that a new model begins with."""
_BY_CLASS = {name: family for family in FAMILIES for name in (family.classifier, family.regressor) if name}
CLASSES = tuple(_BY_CLASS)
"""Import paths that a spec may write as estimator.class."""


def of_class(name: str) -> Family:
    """The family of a class by its import path. Raises KeyError for one that is not in CLASSES."""
    return _BY_CLASS[name]


def check_class(name: str, target: Target) -> None:
    """Raises ValueError when a class does not learn labels of this kind."""
    fitting = [family.class_for(target) for family in FAMILIES if family.class_for(target)]
    if name not in fitting:
        raise ValueError(f"the label is {target.described}, so class is {', '.join(fitting)}, not {name}")
