"""XGBoost's boosted trees, on the CPU or on a GPU."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, ClassVar

from tiltyard.estimators.family import (
    OPSET,
    Arguments,
    Device,
    Dimension,
    Family,
    Floats,
    Learning,
    Matrix,
    Model,
    Space,
    named,
)
from tiltyard.estimators.shapley import of_likeliest
from tiltyard.target import Target, Values

if TYPE_CHECKING:
    import onnx

FEWEST_ROUNDS, MOST_ROUNDS = 30, 120
"""Boosting rounds to choose from. Between two blocks the base rate may have moved so far that a model that has
learned nothing looks best; the lower bound keeps one such pair from talking the model out of learning."""
BINS = 72
"""A bin for every code of a category (encoding.MOST), and some."""


class XGBoost(Family):
    """Gradient boosting: Chen and Guestrin (2016), XGBoost, KDD. The kind of label says which loss is boosted."""

    classifier = "xgboost.XGBClassifier"
    regressor = "xgboost.XGBRegressor"
    devices = ("cpu", "cuda")
    space: ClassVar[Space] = {
        "max_depth": Dimension(2, 6, first=4, least=1, most=16, is_whole=True),
        "learning_rate": Dimension(0.03, 0.3, first=0.1, least=0.001, most=1, is_log=True),
        "min_child_weight": Dimension(1, 50, first=5, least=0.001, most=10_000, is_log=True),
        "subsample": Dimension(0.5, 1, first=0.8, least=0.05, most=1),
        "colsample_bytree": Dimension(0.3, 1, first=0.8, least=0.05, most=1),
        "reg_lambda": Dimension(0.1, 30, first=1, least=0.001, most=10_000, is_log=True),
        "n_estimators": Dimension(
            FEWEST_ROUNDS, MOST_ROUNDS, first=MOST_ROUNDS, least=1, most=1000, is_whole=True, is_by_round=True
        ),
    }

    def device(self, wanted: str) -> Device:
        """The GPU where the driver names one and this build of XGBoost can use it."""
        if wanted == "cuda" and not _cuda_devices():
            return Device("cpu", "there is no GPU that CUDA's driver names, so it was fitted on the CPU")
        if wanted == "cuda" and not named("xgboost.build_info")().get("USE_CUDA"):
            return Device("cpu", "this build of XGBoost has no CUDA, so it was fitted on the CPU")
        return Device(wanted)

    def fit(self, learning: Learning, params: Arguments) -> Model:
        """A model of these rows."""
        return self._fit(learning, params, None)

    def errors(self, learning: Learning, newer: Matrix, label: Values, params: Arguments) -> Floats:
        """(rounds,) the mean loss on newer rows after every round, from XGBoost's own figure where it has one."""
        import numpy as np

        # the objective's own figure comes first where another one was asked for
        *_, by_round = self._fit(learning, params, (newer, label)).evals_result()["validation_0"].values()
        return learning.target.errors(np.array(by_round))

    def _fit(self, learning: Learning, params: Arguments, newer: tuple[Matrix, Values] | None) -> Model:
        learner = learning.target.learner

        def mean_loss(label: Values, score: Floats) -> float:
            losses = learning.target.row_losses(score.astype("float64"), label.astype("float64"))
            return float(losses.mean())

        model = named(self.class_for(learning.target))(
            **self.arguments(params),
            objective=learner.objective,
            eval_metric=learner.eval_metric or mean_loss,
            tree_method="hist",
            max_bin=BINS,
            random_state=learning.seed,
            n_jobs=learning.threads,
            device=learning.device,
        )
        model.fit(
            learning.matrix,
            learning.label,
            sample_weight=learning.weights,
            eval_set=[newer] if newer else None,
            verbose=False,
        )
        # what is asked of it from now on comes from the CPU
        return model.set_params(device="cpu", eval_metric=learner.eval_metric or None)

    def contributions(self, model: Model, matrix: Matrix) -> Floats:
        """(rows, features) exact TreeSHAP, computed by XGBoost itself: Lundberg et al. (2020), Nature Machine
        Intelligence 2:56-67."""
        booster = model.get_booster()
        values: Any = booster.predict(named("xgboost.DMatrix")(matrix), pred_contribs=True)
        contributions: Floats = values[..., :-1].astype("float64")
        if contributions.ndim == 3:  # (rows, classes, features)
            return of_likeliest(contributions.swapaxes(1, 2), values[0, :, -1].astype("float64"))
        return contributions

    def onnx(self, model: Model, width: int, target: Target) -> bytes:
        """The trees, as the converter writes them, in XGBoost's order of summing."""
        from onnxmltools import convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType

        # without a name of ours the converter draws one, and no two trainings would write the same bytes
        converted = convert_xgboost(
            model, name="heavy", initial_types=[("input", FloatTensorType([None, width]))], target_opset=OPSET
        )
        for node in converted.graph.node:
            if node.op_type.startswith("TreeEnsemble"):
                _begin_with_base(node)
        content: bytes = converted.SerializeToString()
        return content


def _begin_with_base(node: onnx.NodeProto) -> None:
    """Sum in XGBoost's order: it begins with the base score and adds tree after tree, where ONNX Runtime adds the base
    last. In float32 that is a difference of several 1e-7. First trees of one leaf, which is the base, take it away:
    one, or one for each of several classes.
    """
    of = {attribute.name: attribute for attribute in node.attribute}
    kind = "class" if "class_ids" in of else "target"
    places = sorted(set(of[f"{kind}_ids"].ints))
    bases = [*of["base_values"].floats][-len(places) :] if "base_values" in of else [0.0] * len(places)
    for name in ("nodes_treeids", f"{kind}_treeids"):
        of[name].ints[:] = [tree + len(places) for tree in of[name].ints]
    for number, (place, base) in reversed([*enumerate(zip(places, bases, strict=True))]):
        first = {
            "nodes_treeids": number,
            f"{kind}_treeids": number,
            "nodes_modes": b"LEAF",
            "nodes_hitrates": 1.0,
            f"{kind}_weights": base,
            f"{kind}_ids": place,
        }
        for name, attribute in of.items():
            if name.startswith(("nodes_", f"{kind}_")):
                values = attribute.ints or attribute.floats or attribute.strings
                values.insert(0, first.get(name, 0))
    if "base_values" in of:
        of["base_values"].floats[:] = [0.0] * len(of["base_values"].floats)


def _cuda_devices() -> int:
    """Number of GPUs that CUDA's driver names; 0 without a driver."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    is_there = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if is_there else 0
