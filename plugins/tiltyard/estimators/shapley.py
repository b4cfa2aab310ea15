"""SHAP values by the shap library."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

from tiltyard.estimators.family import Floats, Matrix, Model


def of_trees(model: Model, matrix: Matrix) -> Floats:
    """(rows, features) exact TreeSHAP of a model of scikit-learn's trees: Lundberg et al. (2020), Nature Machine
    Intelligence 2:56-67. Of a yes or no, for the yes."""
    import numpy as np

    values = np.asarray(library().TreeExplainer(model).shap_values(matrix, check_additivity=False), dtype=np.float64)
    contributions: Floats = values[..., -1] if values.ndim == 3 else values
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
