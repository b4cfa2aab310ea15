"""What each feature adds to one score: SHAP values of the ONNX model in service, computed in a child process.

Shapley values by permutation sampling with antithetic pairs (Lundberg & Lee, NeurIPS 2017; Mitchell et al., Sampling
Permutations for Shapley Value Estimation, JMLR 23, 2022), by the shap library, of the score itself against a sample of
the version's training rows: base, the mean score of those rows, and the contributions add up to the score. What the
sampling leaves open is how two features share what they do together, never the sum. The same row has the same answer.

The child is `python -m tiltyard.serve.contribution FOLDER`: JSON lines in, JSON lines out, nothing pickled. It gets no
secrets, reads the version's files from home/cache itself and holds them against the ledger's digests before it parses
them. One that crashes or hangs costs its request a sentence, and is replaced with the next one.
"""

import asyncio
import ctypes
import hashlib
import json
import logging
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tiltyard.errors import CheckFailed, TiltyardError, Unavailable

if TYPE_CHECKING:
    from tiltyard.train.scorer import Scorer

log = logging.getLogger(__name__)

METHOD = "shap_permutation"
BACKGROUND = 64
"""Training rows that a feature's absence is averaged over."""
MOST_ROWS = 120_000
"""Rows scored for one explanation, at most: 10 pairs of permutations of up to 90 features."""
SEED = 20160229
ADDITIVE = 1e-6
"""How far base and contributions may be from the score."""
ANSWER_S = 10.0
START_S = 60.0
"""What importing shap may take on a busy machine; 3 to 5 s on an idle one."""
WAITING = 8
"""Requests that may wait for the child; more are refused at once."""
KEPT = 8
"""Versions in the child's memory."""


def explain(scorer: "Scorer", values: Sequence[float], *, light: bool = False) -> dict[str, Any]:
    """Contributions to the score of one encoded row (NaN: missing), by the heavy model or its light twin.

    {"score", "base", "contributions": {feature: float}, "method", "background": rows}, in probability, or in the
    label's unit. Raises CheckFailed when the sum is not the score.
    """
    import numpy as np

    shap = _shap()
    features = scorer.features
    if len(values) != len(features):
        raise CheckFailed(f"{scorer.model} version {scorer.version} has {len(features)} features, not {len(values)}.")
    sample = scorer.reference_frame()
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(sample))[:BACKGROUND])
    background = scorer.encoding.transform(sample.iloc[chosen])
    row = np.asarray(values, dtype=np.float32)[None, :]

    def score(matrix: Any) -> Any:
        rows = np.asarray(matrix, dtype=np.float32)
        return scorer.score_light_matrix(rows) if light else scorer.score_matrix(rows)

    once = 2 * len(features) + 1  # one permutation there and back
    permutations = max(2, min(10, MOST_ROWS // (once * len(background))))
    masker = shap.maskers.Independent(background, max_samples=len(background))
    found = shap.PermutationExplainer(score, masker, seed=SEED)(row, max_evals=permutations * once, silent=True)
    contributions = found.values[0].astype(np.float64)
    base, whole = float(np.ravel(found.base_values)[0]), float(score(row)[0])
    if not abs(base + float(contributions.sum()) - whole) <= ADDITIVE * max(1.0, abs(whole)):
        raise CheckFailed(
            f"What the features add to this score of {scorer.model} version {scorer.version} does not sum up to it; "
            "no explanation is better than a wrong one. Train again, and tell us if it stays so."
        )
    return {
        "score": whole,
        "base": base,
        "contributions": {name: float(value) for name, value in zip(features, contributions, strict=True)},
        "method": METHOD,
        "background": len(background),
    }


@cache
def _shap() -> Any:
    """The shap library with its loops as plain Python: compiling them takes 10 to 20 s, running them 15 ms."""
    import numba

    config: Any = numba.config  # asked when a function is decorated: while shap is imported
    before, config.DISABLE_JIT = config.DISABLE_JIT, 1
    try:
        import shap  # type: ignore[import-untyped]
    finally:
        config.DISABLE_JIT = before
    return shap


class Explainer:
    """The child, and whoever waits for it. Thread-safe; the child starts with the first question."""

    def __init__(self, home: Path, *, answer_s: float = ANSWER_S, start_s: float = START_S) -> None:
        self._home = home
        self._answer_s = answer_s
        self._start_s = start_s
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._waiting = 0

    async def ask(self, row: Mapping[str, Any], values: Sequence[float], *, light: bool = False) -> dict[str, Any]:
        """`explain` of the version of a ledger's row, off the event loop. Raises Unavailable for whatever is wrong."""
        if self._waiting >= WAITING:
            raise Unavailable(f"{WAITING} explanations are waiting already; ask again in a few seconds.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self.wait, row, values, light)
        finally:
            self._waiting -= 1

    def wait(self, row: Mapping[str, Any], values: Sequence[float], light: bool = False) -> dict[str, Any]:
        """The same for who may block."""
        question = {
            "model": row["model"],
            "version": row["version"],
            "digests": dict(row["digests"]),
            "values": [float(value) if math.isfinite(value) else None for value in values],
            "light": light,
        }
        with self._lock:
            answer = self._exchange(json.dumps(question).encode() + b"\n")
        if "error" in answer:
            raise Unavailable(str(answer["error"]))
        return answer

    def close(self) -> None:
        self._drop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _exchange(self, question: bytes) -> dict[str, Any]:
        try:
            child = self._child if self._child is not None and self._child.poll() is None else self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(question)
            child.stdin.flush()
            answer: dict[str, Any] = json.loads(_line(child.stdout, self._answer_s))
        except TimeoutError:
            self._drop()
            raise Unavailable(
                f"The explanation took longer than {self._answer_s:g} s and was given up; predictions are not touched "
                "by it, ask again."
            ) from None
        except (OSError, EOFError, ValueError) as error:
            code = self._drop()
            log.warning("the explaining process ended with %s: %s", code, error)
            raise Unavailable(
                "The process that explains ended before it had an answer, and another one takes its place; predictions "
                "are not touched by it, ask again."
            ) from None
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        library = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(part for part in (library, os.environ.get("PYTHONPATH")) if part)
        passed = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "HOME") if name in os.environ}
        # One thread for every library; of this process's environment, where the secrets are, no more than it needs.
        passed |= {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        self._child = child = subprocess.Popen(
            [sys.executable, "-m", "tiltyard.serve.contribution", str(self._home / "cache")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=passed,
        )
        assert child.stdout is not None
        if _line(child.stdout, self._start_s) != b"ready\n":
            raise EOFError("it did not begin")
        return child

    def _drop(self) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        child.kill()
        code = child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        return code


def _line(pipe: Any, within_s: float) -> bytes:
    """Up to the next line's end. Raises TimeoutError, or EOFError when the other side has gone."""
    until, found = time.monotonic() + within_s, b""
    while not found.endswith(b"\n"):
        readable, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
        if not readable:
            raise TimeoutError
        part = os.read(pipe.fileno(), 65_536)
        if not part:
            raise EOFError("nothing more comes")
        found += part
    return found


# -- the child --------------------------------------------------------------------------------


def main(cache: Path) -> None:
    """Answer questions, one a line, until there are no more."""
    with suppress(OSError, AttributeError):  # Linux only: when the service is killed, this goes, too
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    os.nice(10)
    # the seconds that imports take are the start's, not the first question's
    from tiltyard.train import scorer  # noqa: F401

    _shap()
    _say(answers, b"ready\n")
    scorers: OrderedDict[str, Scorer] = OrderedDict()
    for line in sys.stdin.buffer:
        try:
            question = json.loads(line)
            values = [math.nan if value is None else value for value in question["values"]]
            answer = explain(_scorer(cache, question, scorers), values, light=question["light"])
        except TiltyardError as error:
            answer = {"error": str(error)}
        except Exception as error:  # the next question may go better
            print(f"explaining failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            answer = {"error": "This row could not be explained; the service's log says why."}
        _say(answers, json.dumps(answer).encode() + b"\n")


def _scorer(cache: Path, question: Mapping[str, Any], kept: "OrderedDict[str, Scorer]") -> "Scorer":
    from tiltyard.train.scorer import FILES, Scorer

    model, version, digests = question["model"], question["version"], question["digests"]
    key = json.dumps([model, version, digests], sort_keys=True)
    if key not in kept:
        folder = cache / model / str(version)
        files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
        wrong = [
            name for name in FILES if name not in files or hashlib.sha256(files[name]).hexdigest() != digests[name]
        ]
        if wrong:
            raise Unavailable(
                f"{model} version {version} is not explained: {', '.join(wrong)} in the cache is not what was "
                "registered; the service fetches it anew when it starts."
            )
        kept[key] = Scorer.from_files(model, version, files)
        while len(kept) > KEPT:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]


def _say(answers: BinaryIO, line: bytes) -> None:
    answers.write(line)
    answers.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
