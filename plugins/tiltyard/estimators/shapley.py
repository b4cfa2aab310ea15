"""SHAP values by the shap library."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

from tiltyard.estimators.family import Floats, Matrix, Model


def of_trees(model: Model, matrix: Matrix) -> Floats:
    """(rows, features) exact TreeSHAP of a model of scikit-learn's trees: Lundberg et al. (2020), Nature Machine
    Intelligence 2:56-67. Of a yes or no, for the yes; of more classes, for the likeliest."""
    import numpy as np

    explainer = library().TreeExplainer(model)
    values = np.asarray(explainer.shap_values(matrix, check_additivity=False), dtype=np.float64)
    return of_likeliest(values, np.ravel(explainer.expected_value)) if values.ndim == 3 else values


def of_likeliest(values: Floats, base: Floats) -> Floats:
    """(rows, features) of (rows, features, classes): the contributions to the class whose sum, with its `base`
    (classes,), is the largest; of two classes, to the second, which is the yes."""
    if len(base) == 2:
        yes: Floats = values[..., -1]
        return yes
    likeliest = (values.sum(axis=1) + base).argmax(axis=1)
    contributions: Floats = values[range(len(values)), :, likeliest]
    return contributions


@cache
def library() -> ModuleType:
    """The shap library with its loops as plain Python: compiling them takes 10 to 20 s, running them 15 ms.

    It is imported here, since only what explains needs it and it takes seconds.
    """
    import numba

    config: Any = numba.config  # read when a function is decorated, which is while shap is imported
    before, config.DISABLE_JIT = config.DISABLE_JIT, 1
    try:
        import shap  # type: ignore[import-untyped]
    finally:
        config.DISABLE_JIT = before
    module: ModuleType = shap
    return module
