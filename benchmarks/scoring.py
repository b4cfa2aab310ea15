"""What a prediction costs: ONNX Runtime (the heavy model and its light twin) beside XGBoost's own predictors.

Trains on rows of the simulator's size (8,000 rows, 30 features, 10 of them categories), then scores one row, and
a night's 300 rows, again and again on one thread. Prints microseconds, the median of many runs; how far ONNX is from
the trained model at most; and what smaller heavy models would cost and lose.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from tiltyard.train import blocks, export, fit, scorer
from tiltyard.train.encoding import Encoding

ROWS, NIGHT = 8000, 300
END = datetime(2016, 4, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Named:
    name: str
    kind: str


def main() -> None:
    frame, label, features = made_up()
    encoding = Encoding.fit(frame, features)
    matrix = encoding.transform(frame)
    days = np.linspace(0, 40, ROWS)
    parts = blocks.split(pd.Series([END - timedelta(days=40 - day) for day in days]), label, timedelta(days=1), END)
    begun = time.perf_counter()
    fitted = fit.fit(blocks.Rows(matrix, label, days), parts, encoding, trials=5, seed=1, threads=1)
    trees = int(fitted.params.heavy["n_estimators"])
    taken = time.perf_counter() - begun
    print(f"training: {ROWS:,} rows, 5 trials, {taken:.1f} s; {trees} trees")

    files = {
        "model.onnx": export.heavy_onnx(fitted.heavy, matrix),
        "light.onnx": export.light_onnx(fitted.light, matrix),
        "encoding.json": encoding.to_json().encode(),
        "reference.json": b"{}",
        "reference.parquet": b"",
    }
    begun = time.perf_counter()
    loaded = scorer.Scorer.from_files("bench", 1, files)
    print(f"parsing a version's files: {(time.perf_counter() - begun) * 1e3:.1f} ms")
    booster = fitted.heavy.get_booster()
    booster.set_param({"nthread": 1})
    ways: dict[str, Callable[[Any], Any]] = {
        "ONNX, heavy": lambda rows: scorer.answers(loaded._heavy, rows),
        "ONNX, light": lambda rows: scorer.answers(loaded._light, rows),
        "XGBoost inplace_predict": booster.inplace_predict,
        "XGBoost predict_proba": fitted.heavy.predict_proba,
        "scikit-learn predict_proba, light": fitted.light.predict_proba,
    }
    print(f"{'':36}{'one row':>12}{f'{NIGHT} rows':>12}{'per row':>12}{'apart':>12}")
    apart = {"ONNX, heavy": (files["model.onnx"], fitted.heavy), "ONNX, light": (files["light.onnx"], fitted.light)}
    for name, way in ways.items():
        one, night = (median(lambda rows=rows, way=way: way(rows)) for rows in (matrix[:1], matrix[:NIGHT]))
        off = f"{export.parity(*apart[name], matrix):>12.1e}" if name in apart else ""
        print(f"{name:36}{one:>9.1f} µs{night:>9.0f} µs{night / NIGHT:>9.2f} µs{off}")
    one, night = (median(lambda rows=rows: loaded.score(rows)) for rows in (frame.head(1), frame.head(NIGHT)))
    print(f"{'ONNX, heavy, from a DataFrame':36}{one:>9.0f} µs{night:>9.0f} µs{night / NIGHT:>9.2f} µs")
    smaller(fitted, matrix, label, days)


def smaller(fitted: fit.Fitted, matrix: np.ndarray, label: np.ndarray, days: np.ndarray) -> None:
    """Would fewer or shallower trees buy latency? Fitted on the older four fifths of the rows, judged on the rest."""
    cut = 4 * ROWS // 5
    older = blocks.Rows(matrix[:cut], label[:cut], days[:cut])
    print(f"{'trees × depth':20}{'one row':>12}{'kB':>8}{'Brier':>10}{'apart from the largest':>26}")
    largest = None
    for trees, depth in ((100, 6), (100, 4), (50, 4), (50, 3), (25, 3)):
        params = replace(fitted.params, heavy={**fitted.params.heavy, "n_estimators": trees, "max_depth": depth})
        model = fit.Fitter(Encoding(()), 1, 1).heavy(older, params)
        content = export.heavy_onnx(model, matrix[cut:])
        graph = scorer.session(content)
        score = scorer.answers(graph, matrix[cut:])
        largest = score if largest is None else largest
        one, off = median(lambda graph=graph: scorer.answers(graph, matrix[:1])), np.abs(score - largest).max()
        brier = float(np.mean((score - label[cut:]) ** 2))
        print(f"{f'{trees} × {depth}':20}{one:>9.1f} µs{len(content) / 1e3:>8.0f}{brier:>10.4f}{off:>26.3f}")


def made_up() -> tuple[pd.DataFrame, np.ndarray, list[Named]]:
    rng = np.random.default_rng(1)
    numbers = {f"n{place}": rng.normal(size=ROWS) for place in range(20)}
    categories = {f"c{place}": [f"v{code}" for code in rng.zipf(1.5, ROWS) % 50] for place in range(10)}
    frame = pd.DataFrame({**numbers, **categories})
    frame.loc[rng.random(ROWS) < 0.1, "n1"] = np.nan
    label = rng.random(ROWS) < 1 / (1 + np.exp(-frame["n0"] - (frame["c0"] == "v1")))
    features = [Named(name, "numeric") for name in numbers] + [Named(name, "categorical") for name in categories]
    return frame, label.to_numpy(), features


def median(work: Callable[[], Any], repeats: int = 200) -> float:
    """Microseconds of one call."""
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1e6


if __name__ == "__main__":
    main()
