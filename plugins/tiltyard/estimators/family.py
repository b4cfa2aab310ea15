"""A family of estimators: its search space, and how its models are fitted, measured, explained and written as ONNX."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

from tiltyard.target import Target, Values

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Matrix = NDArray[np.float32]
else:
    Floats = Matrix = Any

Model: TypeAlias = Any
"""A fitted estimator of XGBoost or scikit-learn, which share no type."""
Arguments = Mapping[str, float]
"""Parameter → its value."""
OPSET = 15
"""ONNX's own operators, in every graph."""
HALF_LIFE = "half_life_days"


@dataclass(frozen=True)
class Dimension:
    """One parameter: where it is searched, and what a spec may say of it."""

    low: float
    """The least value that is tried."""
    high: float
    """The largest value that is tried; the same as `low` where it is not searched."""
    first: float
    """The first trial's."""
    least: float
    """The least value that a spec may write."""
    most: float
    """The largest value that a spec may write."""
    is_log: bool = False
    """Whether it is searched by its logarithm."""
    is_whole: bool = False
    """Whether only whole numbers count."""
    is_by_round: bool = False
    """Whether a fit with the largest value tells the error of every smaller one, so that nothing has to be searched."""
    choices: tuple[float, ...] = ()
    """The values that are tried, where they are no range."""

    def fixed(self, name: str, value: float) -> Dimension:
        """With one value. Raises ValueError for one that is beyond the limits."""
        self._check(f"params.{name}", value)
        return replace(self, low=value, high=value, first=value, choices=(value,) if self.choices else ())

    def searched(self, name: str, values: Sequence[float]) -> Dimension:
        """Between two values, or among these. Raises ValueError for what is neither, or beyond the limits."""
        for value in values:
            self._check(f"search.{name}", value)
        if self.choices:
            if len(set(values)) != len(values) or not values:
                raise ValueError(f"estimator.search.{name} lists the values to choose from, each once")
            return replace(self, choices=tuple(values), first=self.first if self.first in values else values[0])
        if len(values) != 2 or values[0] >= values[1]:
            raise ValueError(f"estimator.search.{name} goes from low to high, like [{self.low:g}, {self.high:g}]")
        low, high = values
        first = high if self.is_by_round else min(max(self.first, low), high)
        return replace(self, low=low, high=high, first=first)

    def _check(self, field: str, value: float) -> None:
        if not self.least <= value <= self.most:
            raise ValueError(f"estimator.{field} is {value:g}, which is not within [{self.least:g}, {self.most:g}]")
        if self.is_whole and value != int(value):
            raise ValueError(f"estimator.{field} is {value:g}, and has to be a whole number")


Space = Mapping[str, Dimension]
"""Parameter → where it is searched."""
OF_ALL: Space = {HALF_LIFE: Dimension(0, 28, first=14, least=0, most=3650, choices=(7, 14, 28, 0))}
"""What every family has: days after which a training row weighs half; 0: all weigh the same."""


@dataclass(frozen=True, eq=False)
class Learning:
    """What a model is fitted on."""

    matrix: Matrix
    """(rows, features), encoded; NaN where a value is missing, a category as its code."""
    label: Values
    """(rows,) labels, as Target.of_training gives them."""
    weights: Floats
    """(rows,) how much each row counts."""
    target: Target
    """The kind of label."""
    codes: Mapping[int, int]
    """Column of a category → how many codes it has."""
    seed: int
    """Seed of everything random."""
    threads: int
    """Threads that a fit may have."""
    device: str = "cpu"
    """What it is fitted on: cpu or cuda."""


class Device(NamedTuple):
    """What a model is fitted on."""

    name: str
    """cpu or cuda."""
    reason: str = ""
    """Why it is not the one that the spec names, as a sentence; empty where it is."""


CPU = Device("cpu")


class Family(ABC):
    """What can be trained, of one make."""

    classifier: ClassVar[str] = ""
    """Import path of the class that learns a yes or no, or one of several classes; empty where there is none."""
    regressor: ClassVar[str] = ""
    """Import path of the class that learns a number; empty where there is none."""
    space: ClassVar[Space]
    """Its own parameters, in the order in which they are searched."""
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    """What it can be fitted on."""

    def class_for(self, target: Target) -> str:
        """Import path of the class that learns labels of this kind; empty where there is none."""
        return self.classifier if target.is_classified else self.regressor

    def searched(self, params: Arguments, search: Mapping[str, Sequence[float]]) -> dict[str, Dimension]:
        """The search space with what a spec says of it: `params` are given, `search` has bounds of its own.

        Raises ValueError for a parameter that there is not, that both name, or that is beyond its limits.
        """
        space = {**self.space, **OF_ALL}
        for field, named in (("params", params), ("search", search)):
            if strange := sorted(named.keys() - space.keys()):
                raise ValueError(f"estimator.{field} names '{strange[0]}'; the parameters are {', '.join(space)}")
        if both := sorted(params.keys() & search.keys()):
            raise ValueError(f"estimator.params and estimator.search both name {both[0]}; take one of the two out")
        space |= {name: space[name].fixed(name, value) for name, value in params.items()}
        return space | {name: space[name].searched(name, values) for name, values in search.items()}

    def arguments(self, params: Arguments) -> dict[str, float]:
        """The parameters as the class takes them, those that are not given as the first trial has them."""
        given = {name: params.get(name, dimension.first) for name, dimension in self.space.items()}
        return {name: int(value) if self.space[name].is_whole else value for name, value in given.items()}

    def device(self, wanted: str) -> Device:
        """What is there of the device that a spec names."""
        return Device(wanted)

    @abstractmethod
    def fit(self, learning: Learning, params: Arguments) -> Model:
        """A model of these rows."""

    def errors(self, learning: Learning, newer: Matrix, label: Values, params: Arguments) -> Floats:
        """The mean loss on newer rows of a model with these parameters: one, or one after every round."""
        import numpy as np

        target = learning.target
        score = target.within(target.answers(self.fit(learning, params), newer))
        return np.array([np.mean(target.row_losses(score, label))])

    @abstractmethod
    def contributions(self, model: Model, matrix: Matrix) -> Floats:
        """(rows, features) the SHAP value of each feature in each row; of classes, for the one that is likeliest in the
        row."""

    def unit(self, target: Target) -> str:
        """What the contributions sum to, for the axis of their picture."""
        return target.margin_unit

    @abstractmethod
    def onnx(self, model: Model, width: int, target: Target) -> bytes:
        """The model as ONNX: `input` (rows, width) float32 → last of all the score, of classes a column for each."""


def named(path: str) -> Any:
    """A class, or a function, by its import path, imported when it is asked for: it takes a second."""
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)
