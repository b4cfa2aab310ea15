"""What a prediction costs when it is served: FastAPI alone and with a model, `mlflow models serve`, and Tiltyard whole.

One run, one worker each, 30 features (20 numbers, 10 categories), 100 trees. Every server is up for the whole run and
is measured in turn, round after round: latency at one connection (p50, p99), then requests a second at sixteen and,
from /proc, the CPU time that the server's processes took for each. Rounds are short and many, and those that are held
against each other follow each other in them: a shared machine is half as fast again from one second to the next. The
figure is the median of the rounds, beside it the middle half of them. The load comes from a process of its own
(servers/load.py).

FastAPI's three answer the same body, read by a pydantic model. MLflow serves the same ONNX graph in its leanest form (a
tensor, one ONNX thread), and the same XGBoost model as `mlflow.xgboost` logs it; both as their own process. Tiltyard
does all it does: API key, validation, the lookup of 29 features by entity in the embedded store, tiers, request log,
metrics; and once more with all 30 given. The log's delivery to the lake, a process beside it, is off.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from servers import load, process, yard

ROUNDS, WARM = 24, 400
LATENCIES, SECONDS, CONNECTIONS = 250, 0.6, 16
CPU_LIMIT, THROUGHPUT_LIMIT = 1.5, 6.0
NOTHING, WHOLE, LEAN = "FastAPI, nothing", "Tiltyard, looked up", "mlflow, ONNX tensor"


@dataclass
class Way:
    name: str
    server: process.Server
    requests: list[str]
    rounds: list[dict[str, float]] = field(default_factory=list)

    def measure(self) -> None:
        single = load.run(self.server.port, {"all": self.requests}, count=LATENCIES)
        before = self.server.cpu_s()
        busy = load.run(self.server.port, {"all": self.requests}, connections=CONNECTIONS, seconds=SECONDS)
        cpu = self.server.cpu_s() - before
        if single.failed or busy.failed:
            raise RuntimeError(
                f"{self.name} failed {single.failed + busy.failed} times: {single.example or busy.example}"
            )
        self.rounds.append(
            {
                "p50": single.percentile("all", 50),
                "p99": single.percentile("all", 99),
                "per_s": busy.per_s,
                "cpu": cpu / busy.answered * 1e6,
                "degraded": 1 - (busy.reasons.get("ok", 0) + busy.reasons.get("in_service", 0)) / busy.answered,
            }
        )

    def figure(self, name: str) -> float:
        return statistics.median(entry[name] for entry in self.rounds)

    def spread(self, name: str) -> tuple[float, float]:
        return middle_half([entry[name] for entry in self.rounds])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--without-mlflow", action="store_true", help="its processes take seconds to start")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        print(process.machine())
        trained = yard.train()
        bare, *others = plain(stack, folder, trained)
        peers = [] if options.without_mlflow else mlflow(stack, folder, trained)
        mine = tiltyard(stack, folder, trained)
        ways = [bare, *others, *peers, *mine]
        turns = [bare, *peers, *mine, *others]
        for way in ways:
            load.run(way.server.port, {"all": way.requests}, count=WARM)
        for number in range(options.rounds):
            for way in turns if number % 2 == 0 else reversed(turns):  # nobody always follows the same one
                way.measure()
        is_reached = tell(ways)
        print(process.machine())
    sys.exit(not is_reached)


# -- the servers ----------------------------------------------------------------------------------


def plain(stack: ExitStack, folder: Path, trained: yard.Trained) -> list[Way]:
    (folder / "model.onnx").write_bytes(trained.files["model.onnx"])
    trained.booster.save_model(folder / "model.ubj")
    (folder / "names.json").write_text(json.dumps(trained.names))
    port = process.free_port()
    script = Path(__file__).parent / "servers" / "plain.py"
    server = stack.enter_context(
        process.stopping(
            process.start("FastAPI", [sys.executable, str(script), str(port), str(folder)], port, ready="/empty")
        )
    )
    bodies = [{"rows": [{"features": dict(zip(trained.names, row, strict=True))}]} for row in encoded(trained)]
    return [
        Way("FastAPI, no body at all", server, [load.get("/empty")]),
        Way(NOTHING, server, [load.post("/nothing", body) for body in bodies]),
        Way("FastAPI, ONNX Runtime", server, [load.post("/onnx", body) for body in bodies]),
        Way("FastAPI, scikit-learn API", server, [load.post("/sklearn", body) for body in bodies]),
    ]


def mlflow(stack: ExitStack, folder: Path, trained: yard.Trained) -> list[Way]:
    """Two models of MLflow, neither pickled."""
    import mlflow.onnx
    import mlflow.xgboost
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(trained.names)), "input")]))
    mlflow.onnx.save_model(
        onnx.load_model_from_string(trained.files["model.onnx"]), str(folder / "as_onnx"), signature=signature,
        pip_requirements=["onnxruntime"], onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
        onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
    )  # fmt: skip
    mlflow.xgboost.save_model(
        trained.booster, str(folder / "as_xgboost"), model_format="ubj", pip_requirements=["xgboost"]
    )
    rows = encoded(trained)
    inputs = [load.post("/invocations", {"inputs": {"input": [row]}}) for row in rows]
    listed = [load.post("/invocations", {"inputs": [row]}) for row in rows]
    frames = [load.post("/invocations", {"dataframe_split": {"columns": trained.names, "data": [row]}}) for row in rows]
    tensor, xgb = (mlflow_server(stack, folder / kind) for kind in ("as_onnx", "as_xgboost"))
    return [
        Way(LEAN, tensor, inputs),
        Way("mlflow, XGBoost list", xgb, listed),
        Way("mlflow, XGBoost dataframe", xgb, frames),
    ]


def mlflow_server(stack: ExitStack, model: Path) -> process.Server:
    port = process.free_port()
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local",
        "--workers", "1", "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # it calls `uvicorn`
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
    }
    return stack.enter_context(process.stopping(process.start("mlflow", command, port, environment, ready="/ping")))


def tiltyard(stack: ExitStack, folder: Path, trained: yard.Trained) -> list[Way]:
    mine = stack.enter_context(yard.opened(folder, trained, ["whole"]))
    for _ in range(2):  # a champion and a previous one
        mine.promote("whole", "sound")
    mine.fill()
    server = stack.enter_context(mine.serving(TILTYARD_SERVE_DELIVER_S="0"))
    by_entity = [mine.ask("whole", yard.looked_up(number)) for number in range(200)]
    given = [
        mine.ask("whole", {"entity_id": yard.customer(number), "features": mine.given(number)}) for number in range(200)
    ]
    return [Way(WHOLE, server, by_entity), Way("Tiltyard, given", server, given)]


def encoded(trained: yard.Trained) -> list[list[float]]:
    """200 rows as numbers: a category is its code. JSON knows no NaN, so what is missing is 0."""
    import numpy as np

    return [[round(float(value), 6) for value in row] for row in np.nan_to_num(trained.matrix[:200])]


# -- what is printed ------------------------------------------------------------------------------


def tell(ways: list[Way]) -> bool:
    """Print it all. Returns whether every limit is reached; of MLflow's models, by those that it logs itself."""
    columns = (("p50", "p50 ms", 3), ("p99", "p99 ms", 3), ("per_s", "requests/s", 0), ("cpu", "CPU µs", 0))
    print(f"{'':26}" + "".join(f"{title:>26}" for _, title, _ in columns))
    for way in ways:
        cells = []
        for name, _, digits in columns:
            low, high = way.spread(name)
            cells.append(f"{way.figure(name):,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})")
        print(f"{way.name:26}" + "".join(f"{cell:>26}" for cell in cells))
    for way in ways:
        if way.name.startswith("Tiltyard"):
            share = f"{way.figure('degraded'):.2%}"
            print(f"{way.name}: at sixteen connections {share} of the answers were not the champion's")
    by_name = {way.name: way for way in ways}
    whole, nothing, lean = by_name[WHOLE], by_name[NOTHING], by_name.get(LEAN)
    reached = [check("CPU per request over FastAPI doing nothing", ratios(whole, nothing, "cpu"), CPU_LIMIT, most=True)]
    for way in ways:
        if way.name.startswith("mlflow"):
            per_s = ratios(whole, way, "per_s")
            is_reached = check(f"requests/s over {way.name}", per_s, THROUGHPUT_LIMIT, most=False)
            reached.append(is_reached or way is lean)  # MLflow logs no model in this form: it shows MLflow's own cost
    if lean is not None:
        saved = ratios(lean, whole, "cpu")
        print(f"CPU per request of {lean.name} over ours: {statistics.median(saved):.2f}")
    return all(reached)


def ratios(way: Way, reference: Way, name: str) -> list[float]:
    """Round by round: the two were measured within seconds of each other."""
    return [mine[name] / its[name] for mine, its in zip(way.rounds, reference.rounds, strict=True)]


def middle_half(values: list[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return low, high


def check(what: str, values: list[float], limit: float, *, most: bool) -> bool:
    ratio = statistics.median(values)
    is_reached = ratio <= limit if most else ratio >= limit
    wanted = f"wanted at {'most' if most else 'least'} {limit:g}"
    low, high = middle_half(values)
    spread = f"({low:.2f} to {high:.2f})"
    print(f"{what}: {ratio:.2f} {spread}, {wanted}: {'reached' if is_reached else 'missed'}")
    return is_reached


if __name__ == "__main__":
    main()
