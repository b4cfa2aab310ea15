"""What people serve a model with: FastAPI alone, with ONNX Runtime, with scikit-learn's API; in one worker.

    python benchmarks/servers/plain.py PORT FOLDER

FOLDER holds model.onnx, model.ubj and names.json. All endpoints read the same body, {"rows": [{"features": {…}}]}, by a
pydantic model, the way FastAPI's own tutorial does; `/empty` reads none.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Row(BaseModel):
    features: dict[str, float]


class Body(BaseModel):
    rows: list[Row]


def create(folder: Path) -> FastAPI:
    import onnxruntime
    import xgboost

    names = json.loads((folder / "names.json").read_text())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        (folder / "model.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    model = xgboost.XGBClassifier(n_jobs=1)
    model.load_model(folder / "model.ubj")
    app = FastAPI()

    def matrix(body: Body) -> Any:
        return np.array([[row.features[name] for name in names] for row in body.rows], dtype=np.float32)

    def answer(scores: Any) -> dict[str, Any]:
        return {"predictions": [{"score": float(score)} for score in scores]}

    @app.get("/empty")
    async def empty() -> dict[str, Any]:
        return {"status": "ok"}

    @app.post("/nothing")
    async def nothing(body: Body) -> dict[str, Any]:
        return answer(0.5 for _ in body.rows)

    @app.post("/onnx")
    async def onnx(body: Body) -> dict[str, Any]:
        return answer(session.run(["probabilities"], {"input": matrix(body)})[0][:, 1])

    @app.post("/sklearn")
    async def sklearn(body: Body) -> dict[str, Any]:
        return answer(model.predict_proba(matrix(body))[:, 1])

    return app


if __name__ == "__main__":
    uvicorn.run(
        create(Path(sys.argv[2])), port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False,
        log_level="warning",
    )  # fmt: skip
