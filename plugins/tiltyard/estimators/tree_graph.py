"""scikit-learn's trees as an ONNX graph in float64.

skl2onnx 1.20 writes them in float32, and sends the missing values of a forest to the wrong side: rows with gaps are off
by 0.58 in probability. scikit-learn compares and sums in float64, and so does this graph, so that a value at a
threshold takes the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tiltyard.estimators.family import OPSET

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
else:
    Array = Any

ML_OPSET = 3
"""ONNX's operators for trees: from the third on with float64."""
IR_VERSION = 8


class Tree(NamedTuple):
    """One tree, an element of each array per node, the root first."""

    feature: Array
    """Column that the node asks for."""
    threshold: Array
    """A value up to it goes left."""
    left: Array
    """Place of the left child."""
    right: Array
    """Place of the right child."""
    is_missing_left: Array
    """Whether a missing value goes left."""
    is_leaf: Array
    """Whether the node has no children."""
    value: Array
    """What a leaf adds: (nodes,) to one of the sums, or (nodes, sums) to each."""
    place: int = 0
    """The sum that it adds to, where it is one."""


def written(trees: Sequence[Tree], width: int, *, base: Array, link: str | None = None) -> bytes:
    """The graph of `input` (rows, width) float32 → `score` (rows, sums) float32: the sums of `base` (sums,) and of the
    leaves, and of them the operator `link`."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    sizes = [len(tree.feature) for tree in trees]
    nodes = {name: np.concatenate([getattr(tree, name) for tree in trees]) for name in Tree._fields[:-1]}
    is_leaf = nodes["is_leaf"].astype(bool)
    tree_of, place_of = np.repeat(np.arange(len(trees)), sizes), np.concatenate([np.arange(size) for size in sizes])

    values = nodes["value"].reshape(len(is_leaf), -1)[is_leaf].astype(np.float64)
    each = values.shape[1]  # how many sums a leaf adds to
    first = np.repeat([tree.place for tree in trees], sizes)[is_leaf]

    def of_splits(values: Array) -> list[int]:
        return [int(value) for value in np.where(is_leaf, 0, values)]

    ensemble = helper.make_node(
        "TreeEnsembleRegressor",
        ["exact"],
        ["sum"],
        domain="ai.onnx.ml",
        n_targets=len(base),
        nodes_treeids=tree_of.tolist(),
        nodes_nodeids=place_of.tolist(),
        nodes_featureids=of_splits(nodes["feature"]),
        nodes_modes=["LEAF" if leaf else "BRANCH_LEQ" for leaf in is_leaf],
        nodes_values_as_tensor=numpy_helper.from_array(np.where(is_leaf, 0.0, nodes["threshold"]), "thresholds"),
        nodes_truenodeids=of_splits(nodes["left"]),
        nodes_falsenodeids=of_splits(nodes["right"]),
        nodes_missing_value_tracks_true=of_splits(nodes["is_missing_left"]),
        target_treeids=np.repeat(tree_of[is_leaf], each).tolist(),
        target_nodeids=np.repeat(place_of[is_leaf], each).tolist(),
        target_ids=(first[:, None] + np.arange(each)).ravel().tolist(),
        target_weights_as_tensor=numpy_helper.from_array(values.ravel(), "leaves"),
        base_values_as_tensor=numpy_helper.from_array(base.astype(np.float64), "base"),
    )
    steps = [helper.make_node("Cast", ["input"], ["exact"], to=TensorProto.DOUBLE), ensemble]
    steps.append(helper.make_node(link or "Identity", ["sum"], ["score"]))
    graph = helper.make_graph(
        steps,
        "trees",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, len(base)])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(made)
    content: bytes = made.SerializeToString()
    return content
