"""A trained model as ONNX, held against the model that it was made of before anything is registered."""

import numpy as np

from tiltyard.errors import CheckFailed
from tiltyard.estimators import XGBOOST, Family, linear
from tiltyard.estimators.family import Model
from tiltyard.target import YES_OR_NO, Target
from tiltyard.train.blocks import Matrix
from tiltyard.train.scorer import answers, session

PARITY = 1e-6
"""How far ONNX may be from the model it was converted from, on any row of the training frame: a share of the bounds'
width, which is 1 of a probability; of classes, of any of them."""


def heavy_onnx(model: Model, rows: Matrix, target: Target = YES_OR_NO, family: Family = XGBOOST) -> bytes:
    """The heavy model as ONNX, the same as `model` on `rows`. Raises CheckFailed when it is not."""
    return checked(family.onnx(model, rows.shape[1], target), model, rows, target)


def light_onnx(model: Model, rows: Matrix, target: Target = YES_OR_NO) -> bytes:
    """The light twin as ONNX, the same as `model` on `rows`. Raises CheckFailed when it is not."""
    return checked(linear.graph(model, rows.shape[1], target), model, rows, target)


def parity(content: bytes, model: Model, rows: Matrix, target: Target = YES_OR_NO) -> float:
    """How far ONNX is from `model` at most, as a share of the bounds' width: on `rows`, and with gaps in them.

    The gaps, in every column in turn and in all, are there because a frame without any would not show them.
    """
    gaps = np.repeat(rows[:1], rows.shape[1] + 1, axis=0)
    np.fill_diagonal(gaps, np.nan)
    gaps[-1] = np.nan
    rows = np.concatenate([rows, gaps])
    apart = np.abs(answers(session(content), rows, target) - target.answers(model, rows)) / target.width
    return float(np.where(np.isfinite(apart), apart, np.inf).max())


def checked(content: bytes, model: Model, rows: Matrix, target: Target) -> bytes:
    """`content` when it scores `rows` as `model` does. Raises CheckFailed when the conversion changed the model."""
    apart = parity(content, model, rows, target)
    if not apart <= PARITY:
        raise CheckFailed(
            f"The ONNX conversion of {type(model).__name__} is off by {apart:.2g} {target.distance}, more than "
            f"{PARITY:g}; nothing was registered. Check the versions of xgboost, scikit-learn and the converters."
        )
    return content
