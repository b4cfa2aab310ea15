"""A trained version in memory, ready to score: the heavy model and its light twin, both ONNX.

Made from bytes whose digests were checked (registry.py); imports neither MLflow nor the trainers. Run as
a program (`python -m tiltyard.train.scorer FOLDER`) it parses a version's files and scores one row: the registry
does that in a child process first, because a parser may crash on a file that should never have been written.
"""

import io
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard import target
from tiltyard.target import Target
from tiltyard.train import profile
from tiltyard.train.encoding import Encoding

FILES = ("model.onnx", "light.onnx", "encoding.json", "reference.json", "reference.parquet")
"""What a version consists of."""
Session: TypeAlias = Any
"""An ONNX Runtime session, which carries no types."""


@dataclass(frozen=True)
class Scorer:
    """Scores frames. Thread-safe: ONNX Runtime's `run` is."""

    model: str
    """The model's name."""
    version: int
    """The version's number."""
    encoding: Encoding
    """How a frame becomes the matrix that is scored."""
    reference: dict[str, Any]
    """What the training frame looked like, the body of reference.json; candidate.reference describes its shape."""
    _heavy: Session = field(repr=False, compare=False)
    _light: Session = field(repr=False, compare=False)
    _sample: bytes = field(repr=False, compare=False)

    @classmethod
    def from_files(cls, model: str, version: int, files: Mapping[str, bytes]) -> "Scorer":
        """From the content of each of FILES, whose digests were checked. Raises whatever ONNX Runtime says of them."""
        return cls(
            model=model,
            version=version,
            encoding=Encoding.from_json(files["encoding.json"].decode()),
            reference=json.loads(files["reference.json"]),
            _heavy=session(files["model.onnx"]),
            _light=session(files["light.onnx"]),
            _sample=files["reference.parquet"],
        )

    @property
    def features(self) -> tuple[str, ...]:
        """The columns a frame must have."""
        return self.encoding.features

    @cached_property
    def target(self) -> Target:
        """The kind of label that the version was trained on."""
        return target.read(self.reference)

    @cached_property
    def profile(self) -> profile.Reference | None:
        """Histograms of the training nights; None for a version from before there were any."""
        return profile.read(self.reference)

    def score(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """(rows, *shape) a score per row, within the bounds of the label's kind. Raises BadInput when a feature is not
        there."""
        return self.score_matrix(self.encoding.transform(frame))

    def score_light(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """(rows, *shape) the light twin's score of each row."""
        return self.score_light_matrix(self.encoding.transform(frame))

    def score_matrix(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """`score` of rows that are encoded already: (rows, features)."""
        return self.target.within(answers(self._heavy, matrix, self.target))

    def score_light_matrix(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """`score_light` of rows that are encoded already: (rows, features)."""
        return self.target.within(answers(self._light, matrix, self.target))

    def reference_frame(self) -> pd.DataFrame:
        """Up to 2,000 training rows: the features, `label` and `_score` (out of fold, as Target.column gives it)."""
        rows = pd.read_parquet(io.BytesIO(self._sample))
        return rows if "_score" in rows else rows.assign(_score=rows["score"])  # of a version from before its own name


def session(content: bytes) -> Session:
    """An ONNX Runtime session on one thread: rows come in small batches, and other work needs the cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # an error is raised here; to print it as well takes a millisecond
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def answers(heavy_or_light: Session, matrix: NDArray[np.float32], kind: Target) -> NDArray[np.float64]:
    """The last output as scores of a label of this kind: (rows, *shape) float64.

    As many scores as the model gives: that it has one a row is for the caller to see.
    """
    if not len(matrix):
        return kind.nothing(0)
    name = heavy_or_light.get_outputs()[-1].name
    output = heavy_or_light.run([name], {"input": matrix})[0]
    return kind.picked(output.reshape(len(output), -1).astype(np.float64))


def main(folder: Path) -> None:
    """Load the version in a folder and score one row with it. Exits with 1 when it gives no number."""
    scorer = Scorer.from_files("check", 0, {name: (folder / name).read_bytes() for name in FILES})
    row = scorer.reference_frame().head(1)
    if not (np.isfinite(scorer.score(row)).all() and np.isfinite(scorer.score_light(row)).all()):
        raise SystemExit("the scores are not numbers")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # the files were parsed; a library's threads may crash while the interpreter is taken down
