"""A model's output becomes one score a row, and one that has another number of rows is not made to fit."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tiltyard.target import YES_OR_NO
from tiltyard.train import scorer


class Session:
    """An ONNX session that answers with `output`, whatever it is asked."""

    def __init__(self, output: Any) -> None:
        self.output = np.array(output, dtype=np.float32)

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="label"), SimpleNamespace(name="probabilities")]

    def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
        assert names == ["probabilities"]
        return [self.output]


@pytest.mark.parametrize(
    ("output", "scores"),
    [
        ([[0.75, 0.25], [0.5, 0.5]], [0.25, 0.5]),
        ([[3.0], [4.0]], [3.0, 4.0]),
        ([3.0, 4.0], [3.0, 4.0]),
        ([[0.75, 0.25]], [0.25]),
        ([[0.75, 0.25]] * 4, [0.25] * 4),
    ],
)
def test_a_score_for_every_row_that_the_model_gives(output: list[Any], scores: list[float]) -> None:
    matrix = np.zeros((2, 3), dtype=np.float32)
    assert scorer.answers(Session(output), matrix, YES_OR_NO).tolist() == scores


def test_no_row_has_no_score() -> None:
    assert scorer.answers(Session([[0.5, 0.5]]), np.zeros((0, 3), dtype=np.float32), YES_OR_NO).shape == (0,)
