"""A trained model as ONNX, held against the model that it was made of before anything is registered."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiltyard.errors import CheckFailed
from tiltyard.target import YES_OR_NO, Target
from tiltyard.train.blocks import Matrix
from tiltyard.train.fit import Floats, Model
from tiltyard.train.scorer import answers, session

if TYPE_CHECKING:
    import onnx

OPSET = 15
PARITY = 1e-6
"""How far ONNX may be from the model it was converted from, on any row of the training frame: a share of the bounds'
width, which is 1 of a probability."""
DOUBLE, INT64 = 11, 7
"""onnx.TensorProto's numbers of the types."""


def heavy_onnx(model: Model, rows: Matrix, target: Target = YES_OR_NO) -> bytes:
    """The trees as ONNX, the same as `model` on `rows`. Raises CheckFailed when they are not."""
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    converted = convert_xgboost(
        model, initial_types=[("input", FloatTensorType([None, rows.shape[1]]))], target_opset=OPSET
    )
    for node in converted.graph.node:
        if node.op_type.startswith("TreeEnsemble"):
            _begin_with_base(node)
    return checked(converted.SerializeToString(), model, rows, target)


def _begin_with_base(node: "onnx.NodeProto") -> None:
    """Sum in XGBoost's order: it begins with the base score and adds tree after tree, where ONNX Runtime adds the base
    last. In float32 that is a difference of several 1e-7. A first tree of one leaf, which is the base, takes it away.
    """
    of = {attribute.name: attribute for attribute in node.attribute}
    kind = "class" if "class_ids" in of else "target"
    base = of["base_values"].floats[-1] if "base_values" in of else 0.0
    for name in ("nodes_treeids", f"{kind}_treeids"):
        of[name].ints[:] = [tree + 1 for tree in of[name].ints]
    first = {
        "nodes_modes": b"LEAF",
        "nodes_hitrates": 1.0,
        f"{kind}_weights": base,
        f"{kind}_ids": of[f"{kind}_ids"].ints[0],
    }
    for name, attribute in of.items():
        if name.startswith(("nodes_", f"{kind}_")):
            values = attribute.ints or attribute.floats or attribute.strings
            values.insert(0, first.get(name, 0))
    if "base_values" in of:
        of["base_values"].floats[:] = [0.0] * len(of["base_values"].floats)


def light_onnx(model: Model, rows: Matrix, target: Target = YES_OR_NO) -> bytes:
    """The light twin as a graph of small steps, the same as `model` on `rows`. Raises CheckFailed when it is not.

    Imputed and scaled in float32 as scikit-learn does it, then summed in float64 as it does that. skl2onnx sums in
    float32, which is off by more the more categories there are: 4e-7 on the real models.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    inputs, linear = model[0], model[-1]
    graph = _Sum(np.ravel(linear.coef_).astype(np.float64), np.ravel(linear.intercept_)[:1].astype(np.float64))
    for name, transformer, columns in inputs.transformers_:
        places = np.array(columns, dtype=np.int64)
        if name == "number":
            graph.add_numbers(places, transformer[0], transformer[1])
        elif name == "present":
            graph.add_presence(len(places))
        elif name == "category":
            graph.add_categories(places, [len(codes) for codes in transformer[1].categories_])
    graph.finish(target)
    twin = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "light",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, rows.shape[1]])],
            [helper.make_tensor_value_info(target.light_output, TensorProto.DOUBLE, [None, 1])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    onnx.checker.check_model(twin)
    return checked(twin.SerializeToString(), model, rows, target)


class _Sum:
    """A linear model's ONNX graph in the making: a term for every kind of input, and their sum."""

    def __init__(self, weights: Floats, intercept: Floats) -> None:
        """`weights`: (inputs,) of the model's inputs, in the order in which they are added; `intercept`: (1,)."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {"intercept": intercept}
        self._weights = weights
        self._terms: list[str] = []
        self._start = 0

    def add_numbers(self, places: NDArray[np.int64], imputer: Model, scaler: Model) -> None:
        """Numbers, imputed by their medians and scaled. `places`: their columns of the matrix."""
        self.constants |= {
            "numbers": places,
            "median": imputer.statistics_.astype(np.float32),
            "mean": scaler.mean_.astype(np.float32),
            "spread": scaler.scale_.astype(np.float32),
            "slope": self._next(len(places))[:, None],
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
        self.constants["intercept"] = self.constants["intercept"] + part.sum()
        self.constants["absence"] = -part[:, None]
        self._step("Cast", "gap", "is_gap", to=DOUBLE)
        self._step("MatMul", "is_gap absence", "by_gap")
        self._terms.append("by_gap")

    def add_categories(self, places: NDArray[np.int64], codes: list[int]) -> None:
        """Categories, by a table of weights. `codes`: how many each has; the first of each is -1, missing."""
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
        self._step("ReduceSum", "of_code across", "by_category", keepdims=1)
        self._terms.append("by_category")

    def finish(self, target: Target) -> None:
        """Add the terms up, and make a score of the sum."""
        self._step("Sum", " ".join([*self._terms, "intercept"]), "margin" if target.light_link else target.light_output)
        if target.light_link:
            self._step(target.light_link, "margin", target.light_output)

    def _next(self, count: int) -> Floats:
        """The weights of the inputs that are next in order."""
        begin, self._start = self._start, self._start + count
        return self._weights[begin : self._start]

    def _step(self, kind: str, inputs: str, output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs.split(), [output], **attributes))


def parity(content: bytes, model: Model, rows: Matrix, target: Target = YES_OR_NO) -> float:
    """How far ONNX is from `model` at most, as a share of the bounds' width: on `rows`, and with gaps in them.

    The gaps, in every column in turn and in all, are there because a frame without any would not show them.
    """
    gaps = np.repeat(rows[:1], rows.shape[1] + 1, axis=0)
    np.fill_diagonal(gaps, np.nan)
    gaps[-1] = np.nan
    rows = np.concatenate([rows, gaps])
    apart = np.abs(answers(session(content), rows) - target.answers(model, rows)) / target.width
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
