"""A champion that fails on purpose: the trained graph with nodes behind it that break when one feature says so.

A code in the column (no real value comes near) makes that row's score NaN or more than one, or makes the whole run
raise, return a row too many, or work for a long while. Every other row has the trained model's score to the bit, so
the version passes the checks that a version passes, and then fails in service, on ONNX Runtime's own terms.
"""

import time
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NAN, OUT_OF_RANGE, RAISES, WRONG_SHAPE, HANGS = 1001.0, 1002.0, 1003.0, 1004.0, 1005.0
CODES = {
    "not_finite": NAN,
    "out_of_range": OUT_OF_RANGE,
    "raised": RAISES,
    "wrong_shape": WRONG_SHAPE,
    "late": HANGS,
}
"""Reason (as `fallback` names it, after the tier) → the value of the column that brings it about."""
SIDE = 48
"""Rows of the matrix that a hanging model multiplies again and again."""


def faulty(model: bytes, column: int, *, hang_ms: float = 50.0) -> bytes:
    """`model`, an ONNX classifier with `probabilities`, failing on the codes of input `column`.

    `hang_ms` is what HANGS takes on this machine at the time; the number of rounds is measured here.
    """
    rounds = 200
    per_round = _seconds(_built(model, column, rounds), column) / rounds
    return _built(model, column, max(1, round(hang_ms / 1e3 / per_round)))


def _seconds(content: bytes, column: int) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    row = np.zeros((1, session.get_inputs()[0].shape[1]), dtype=np.float32)
    row[0, column] = HANGS
    taken = []
    for _ in range(7):
        begun = time.perf_counter()
        session.run(["probabilities"], {"input": row})
        taken.append(time.perf_counter() - begun)
    return min(taken)


def _built(content: bytes, column: int, rounds: int) -> bytes:
    model = onnx.load_model_from_string(content)
    graph = model.graph
    if not any(entry.domain == "" for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", 15))
    for layer in graph.node:
        layer.output[:] = ["_trained" if name == "probabilities" else name for name in layer.output]
        layer.input[:] = ["_trained" if name == "probabilities" else name for name in layer.input]

    def constant(name: str, value: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def where(code: float, name: str) -> str:
        """1 where a row of the batch has the code, else 0: an int64 scalar."""
        is_code = node("Equal", ["_worst", constant(f"{name}_code", np.float32(code))], f"{name}_is")
        return node("Cast", [is_code], f"{name}_flag", to=TensorProto.INT64)

    node("Gather", ["input", constant("_column", np.array([column], dtype=np.int64))], "_code", axis=1)
    node("ReduceMax", ["_code"], "_worst", keepdims=0)
    score = "_trained"
    for name, code, value in (("_nan", NAN, np.nan), ("_range", OUT_OF_RANGE, 2.0)):
        is_code = node("Equal", ["_code", constant(f"{name}_code", np.float32(code))], f"{name}_is")
        score = node("Where", [is_code, constant(f"{name}_value", np.float32(value)), score], f"{name}_score")
    # An index that is out of the table's bounds: Gather raises.
    place = node("Mul", [where(RAISES, "_raises"), constant("_far", np.int64(99))], "_place")
    nothing = node("Gather", [constant("_table", np.zeros(1, dtype=np.float32)), place], "_nothing", axis=0)
    score = node("Add", [score, nothing], "_raised")
    # A permutation, multiplied with itself so many times: every number stays what it is.
    trips = node("Mul", [where(HANGS, "_hangs"), constant("_rounds", np.int64(rounds))], "_trips")
    permutation = constant("_permutation", np.roll(np.eye(SIDE, dtype=np.float32), 1, axis=0))
    instant = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["_state", "_permutation"], ["_next"]),
            helper.make_node("Identity", ["_go"], ["_on"]),
        ],
        "_work",
        [
            instant("_round", TensorProto.INT64, []),
            instant("_go", TensorProto.BOOL, []),
            instant("_state", TensorProto.FLOAT, [SIDE, SIDE]),
        ],
        [instant("_on", TensorProto.BOOL, []), instant("_next", TensorProto.FLOAT, [SIDE, SIDE])],
    )
    done = node("Loop", [trips, constant("_true", np.array(True)), permutation], "_worked", body=body)
    still = node("Mul", [node("ReduceMin", [done], "_least", keepdims=0), constant("_zero", np.float32(0))], "_still")
    score = node("Add", [score, still], "_late")
    times = node("Add", [where(WRONG_SHAPE, "_shape"), constant("_one", np.int64(1))], "_times")
    rows = node("Reshape", [times, constant("_as_list", np.array([1], dtype=np.int64))], "_times_rows")
    repeats = node("Concat", [rows, constant("_columns", np.array([1], dtype=np.int64))], "_repeats", axis=0)
    node("Tile", [score, repeats], "probabilities")
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
