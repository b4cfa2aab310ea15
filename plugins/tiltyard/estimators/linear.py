"""Linear models over standardised inputs: the light twin of every model, and two heavy ones.

Written to ONNX as a graph of small steps. Imputed and scaled in float32 as scikit-learn does it, then summed in float64
as it does that. skl2onnx sums in float32, which is off by more the more categories there are: 4e-7 on the real models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tiltyard.estimators.family import (
    OPSET,
    Arguments,
    Dimension,
    Family,
    Floats,
    Learning,
    Matrix,
    Model,
    Space,
    named,
)
from tiltyard.target import Target

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

DOUBLE, INT64 = 11, 7
"""onnx.TensorProto's numbers of the types."""


def inputs(width: int, codes: Mapping[int, int]) -> Model:
    """What a linear model sees of a matrix of `width` columns, not fitted. `codes`: column of a category → how many
    codes it has.

    A number is imputed by its median, and beside it stands whether it was there at all; categories are one-hot.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    numbers, categories = [place for place in range(width) if place not in codes], sorted(codes)
    steps: list[tuple[str, Model, list[int]]] = []
    if numbers:
        imputed = SimpleImputer(strategy="median", keep_empty_features=True)
        steps.append(("number", make_pipeline(imputed, StandardScaler()), numbers))
        steps.append(("present", FunctionTransformer(_is_there), numbers))
    if categories:
        missing = SimpleImputer(strategy="constant", fill_value=-1.0, keep_empty_features=True)
        known = [[float(code) for code in range(-1, codes[place])] for place in categories]
        one_hot = OneHotEncoder(categories=known, handle_unknown="ignore", sparse_output=True)
        steps.append(("category", make_pipeline(missing, one_hot), categories))
    return ColumnTransformer(steps, sparse_threshold=1.0)


def _is_there(numbers: Matrix) -> Matrix:
    """(rows, numbers) 1 where there is a number, 0 where it is missing."""
    import numpy as np

    return (~np.isnan(numbers)).astype(numbers.dtype)


def fitted(linear: Model, learning: Learning, label: Any = None) -> Model:
    """A pipeline of `inputs` and a linear model, made of parts that convert to ONNX. `label`: another scale's."""
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(inputs(learning.matrix.shape[1], learning.codes), linear)
    weights = {f"{type(linear).__name__.lower()}__sample_weight": learning.weights}
    return model.fit(learning.matrix, learning.label if label is None else label, **weights)


class _Linear(Family):
    """A pipeline whose last step is linear."""

    def contributions(self, model: Model, matrix: Matrix) -> Floats:
        """(rows, features) exact SHAP values of a sum: each term less its mean over these rows (Lundberg and Lee 2017,
        NIPS, corollary 1); of several classes, of the sum of the likeliest."""
        import numpy as np

        seen = model[0].transform(matrix)
        terms = np.asarray(seen.toarray() if hasattr(seen, "toarray") else seen, dtype=np.float64)
        weights, intercept = np.atleast_2d(model[-1].coef_), np.ravel(model[-1].intercept_)
        likeliest = (terms @ weights.T + intercept).argmax(axis=1)  # of one sum, that one
        terms = (terms - terms.mean(axis=0)) * weights[likeliest]
        moves, start = np.zeros(matrix.shape), 0
        for name, step, places in model[0].transformers_:
            for number, place in enumerate(places):
                count = len(step[-1].categories_[number]) if name == "category" else 1
                moves[:, place] += terms[:, start : start + count].sum(axis=1)
                start += count
        return moves

    def onnx(self, model: Model, width: int, target: Target) -> bytes:
        """The model as a graph of small steps."""
        return graph(model, width, target)


class Logistic(_Linear):
    """Logistic regression with a squared penalty."""

    classifier = "sklearn.linear_model.LogisticRegression"
    space: ClassVar[Space] = {"C": Dimension(0.001, 10, first=0.3, least=1e-6, most=1e6, is_log=True)}

    def fit(self, learning: Learning, params: Arguments) -> Model:
        """A model of these rows."""
        return fitted(named(self.class_for(learning.target))(**self.arguments(params), max_iter=300), learning)


class ElasticNet(_Linear):
    """Least squares with an absolute and a squared penalty: Zou and Hastie (2005), JRSS B 67:301-320. It learns the
    mean and not the median. Labels are penalised on the scale of their bounds, so that another unit is the same
    model."""

    regressor = "sklearn.linear_model.ElasticNet"
    space: ClassVar[Space] = {
        "alpha": Dimension(1e-5, 0.1, first=0.001, least=1e-9, most=1e3, is_log=True),
        "l1_ratio": Dimension(0, 1, first=0.5, least=0, most=1),
    }

    def fit(self, learning: Learning, params: Arguments) -> Model:
        """A model of these rows."""
        target = learning.target
        linear = named(self.class_for(target))(**self.arguments(params), max_iter=5000, random_state=learning.seed)
        model = fitted(linear, learning, target.scaled(learning.label))
        last = model[-1]
        last.coef_, last.intercept_ = last.coef_ * target.width, last.intercept_ * target.width + target.bounds[0]
        return model


def graph(model: Model, width: int, target: Target) -> bytes:
    """A pipeline of `inputs` and a linear model as ONNX: `input` (rows, width) float32 → score (rows, 1) float64; of
    classes (rows, classes), a sum for each."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    first, last = model[0], model[-1]
    weights = np.atleast_2d(last.coef_).astype(np.float64).T
    made = _Sum(weights, np.ravel(last.intercept_)[: weights.shape[1]].astype(np.float64))
    for name, transformer, columns in first.transformers_:
        places = np.array(columns, dtype=np.int64)
        if name == "number":
            made.add_numbers(places, transformer[0], transformer[1])
        elif name == "present":
            made.add_presence(len(places))
        elif name == "category":
            made.add_categories(places, [len(codes) for codes in transformer[1].categories_])
    made.finish(target)
    twin = helper.make_model(
        helper.make_graph(
            made.nodes,
            "light",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, width])],
            [helper.make_tensor_value_info(target.light_output, TensorProto.DOUBLE, [None, weights.shape[1]])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in made.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    onnx.checker.check_model(twin)
    content: bytes = twin.SerializeToString()
    return content


class _Sum:
    """A linear model's ONNX graph in the making: a term for every kind of input, and their sum."""

    def __init__(self, weights: Floats, intercept: Floats) -> None:
        """`weights`: (inputs, sums) of the model's inputs, in the order in which they are added; `intercept`:
        (sums,)."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {"intercept": intercept}
        self._weights = weights
        self._terms: list[str] = []
        self._start = 0

    def add_numbers(self, places: NDArray[np.int64], imputer: Model, scaler: Model) -> None:
        """Numbers, imputed by their medians and scaled. `places`: their columns of the matrix."""
        import numpy as np

        self.constants |= {
            "numbers": places,
            "median": imputer.statistics_.astype(np.float32),
            "mean": scaler.mean_.astype(np.float32),
            "spread": scaler.scale_.astype(np.float32),
            "slope": self._next(len(places)),
        }
        self._step("Gather", "input numbers", "number", axis=1)
        self._step("IsNaN", "number", "gap")
        self._step("Where", "gap median number", "filled")
        self._step("Sub", "filled mean", "centred")
        self._step("Div", "centred spread", "scaled")
        self._step("Cast", "scaled", "exact", to=DOUBLE)
        self._step("MatMul", "exact slope", "by_number")
        self._terms.append("by_number")

    def add_presence(self, count: int) -> None:
        """Whether each of the numbers was there: counted as there, less what it weighs where it was not."""
        part = self._next(count)
        self.constants["intercept"] = self.constants["intercept"] + part.sum(axis=0)
        self.constants["absence"] = -part
        self._step("Cast", "gap", "is_gap", to=DOUBLE)
        self._step("MatMul", "is_gap absence", "by_gap")
        self._terms.append("by_gap")

    def add_categories(self, places: NDArray[np.int64], codes: list[int]) -> None:
        """Categories, by a table of weights. `codes`: how many each has; the first of each is -1, missing."""
        import numpy as np

        self.constants |= {
            "categories": places,
            "missing": np.array(-1.0, dtype=np.float32),
            "offset": np.cumsum([1, *codes[:-1]], dtype=np.int64),
            "weight": self._next(sum(codes)),
            "across": np.array([1], dtype=np.int64),
        }
        self._step("Gather", "input categories", "code", axis=1)
        self._step("IsNaN", "code", "no_code")
        self._step("Where", "no_code missing code", "known")
        self._step("Cast", "known", "number_of", to=INT64)
        self._step("Add", "number_of offset", "place")
        self._step("Gather", "weight place", "of_code", axis=0)
        self._step("ReduceSum", "of_code across", "by_category", keepdims=0)
        self._terms.append("by_category")

    def finish(self, target: Target) -> None:
        """Add the terms up, and make a score of the sum."""
        self._step("Sum", " ".join([*self._terms, "intercept"]), "margin" if target.link else target.light_output)
        if target.link:
            self._step(target.link, "margin", target.light_output)

    def _next(self, count: int) -> Floats:
        """The weights of the inputs that are next in order."""
        begin, self._start = self._start, self._start + count
        return self._weights[begin : self._start]

    def _step(self, kind: str, inputs: str, output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs.split(), [output], **attributes))
