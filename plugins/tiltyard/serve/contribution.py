"""What each feature adds to one score: SHAP values of the ONNX model in service, computed in a child process.

Shapley values by permutation sampling with antithetic pairs (Lundberg & Lee, NeurIPS 2017; Mitchell et al., Sampling
Permutations for Shapley Value Estimation, JMLR 23, 2022), by the shap library, of the score itself against a sample of
the version's training rows: the contributions and the base, which is the mean score of those rows, add up to the score.
Sampling leaves open how two features share what they do together, never the sum. The same row has the same answer.

The child is `python -m tiltyard.serve.contribution FOLDER`: JSON lines in, JSON lines out, nothing pickled. It gets no
secrets, reads the version's files from home/cache itself and compares them with the ledger's digests before it parses
them. When it crashes or hangs, its request is answered with a sentence, and the next request starts another child.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tiltyard import child as children
from tiltyard.errors import CheckFailed, TiltyardError, Unavailable
from tiltyard.estimators.shapley import library
from tiltyard.records import Version
from tiltyard.train.scorer import FILES, Scorer

log = logging.getLogger(__name__)

METHOD = "shap_permutation"
"""Name of the method, as answers give it."""
BACKGROUND = 64
"""Number of training rows that a feature's absence is averaged over."""
MOST_ROWS = 120_000
"""Number of rows scored for one explanation, at most: 10 pairs of permutations of up to 90 features."""
SEED = 20160229
"""Seed of the background rows and of the permutations."""
ADDITIVE = 1e-6
"""Largest difference of base and contributions from the score, as a share of it where it is larger than 1."""
ANSWER_S = 10.0
"""Seconds after which an explanation is given up."""
START_S = 60.0
"""Seconds that importing shap may take on a busy machine; it takes 3 to 5 on an idle one."""
WAITING = 8
"""Number of requests that may wait for the child; more are refused at once."""
MOST_VERSIONS = 8
"""Number of versions in the child's memory, at most."""


@dataclass(frozen=True, slots=True)
class Question:
    """What the child is asked: one encoded row of one version."""

    model: str
    """The model's name."""
    version: int
    """The version's number."""
    digests: Mapping[str, str]
    """File of the version → its SHA-256."""
    values: Sequence[float | None]
    """The encoded row, a value per feature; None where it is missing."""
    light: bool
    """Whether the light twin is meant."""


@dataclass(frozen=True, slots=True)
class Explained:
    """What moved a score, in probability, or in the label's unit."""

    score: float
    """The score."""
    base: float
    """Mean score of the background rows."""
    contributions: Mapping[str, float]
    """Feature → what it adds; together with `base` they are the score."""
    method: str
    """METHOD."""
    background: int
    """Number of background rows."""
    of: str | None = None
    """The class whose probability it is, the likeliest; None where a score is one number."""


def explain(scorer: Scorer, values: Sequence[float], *, light: bool = False) -> Explained:
    """Contributions to the score of one encoded row (NaN: missing), by the heavy model or its light twin.

    Raises CheckFailed when they do not add up to the score, or for a row of another width.
    """
    shap = library()
    features = scorer.features
    if len(values) != len(features):
        raise CheckFailed(f"{scorer.model} version {scorer.version} has {len(features)} features, not {len(values)}.")
    sample = scorer.reference_frame()
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(sample))[:BACKGROUND])
    background = scorer.encoding.transform(sample.iloc[chosen])
    row = np.asarray(values, dtype=np.float32)[None, :]

    target, scored = scorer.target, scorer.score_light_matrix if light else scorer.score_matrix
    place = int(np.argmax([part[0] for part in target.parts(scored(row))]))

    def score(matrix: NDArray[Any]) -> NDArray[np.float64]:
        return target.parts(scored(np.asarray(matrix, dtype=np.float32)))[place]

    once = 2 * len(features) + 1  # one permutation there and back
    permutations = max(2, min(10, MOST_ROWS // (once * len(background))))
    masker = shap.maskers.Independent(background, max_samples=len(background))
    shapley = shap.PermutationExplainer(score, masker, seed=SEED)(row, max_evals=permutations * once, silent=True)
    contributions = shapley.values[0].astype(np.float64)
    base, whole = float(np.ravel(shapley.base_values)[0]), float(score(row)[0])
    if not abs(base + float(contributions.sum()) - whole) <= ADDITIVE * max(1.0, abs(whole)):
        raise CheckFailed(
            f"What the features add to this score of {scorer.model} version {scorer.version} does not sum up to it; "
            "no explanation is better than a wrong one. Train again, and tell us if it stays so."
        )
    return Explained(
        score=whole,
        base=base,
        contributions={name: float(value) for name, value in zip(features, contributions, strict=True)},
        method=METHOD,
        background=len(background),
        of=target.said(scored(row)[0]).likeliest,
    )


class Explainer:
    """The child, and the requests that wait for it. Thread-safe; the child starts with the first question."""

    def __init__(self, home: Path, *, answer_s: float = ANSWER_S, start_s: float = START_S) -> None:
        self._home = home
        self._answer_s = answer_s
        self._start_s = start_s
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._waiting = 0

    async def ask(self, entry: Version, values: Sequence[float], *, light: bool = False) -> Explained:
        """`explain` of the version of a ledger's entry, off the event loop. Raises Unavailable whatever is wrong."""
        if self._waiting >= WAITING:
            raise Unavailable(f"{WAITING} explanations are waiting already; ask again in a few seconds.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self.wait, entry, values, light)
        finally:
            self._waiting -= 1

    def wait(self, entry: Version, values: Sequence[float], light: bool = False) -> Explained:
        """The same for a caller that may block."""
        question = Question(
            model=entry.model,
            version=entry.version,
            digests=entry.digests,
            values=[float(value) if math.isfinite(value) else None for value in values],
            light=light,
        )
        with self._lock:
            answer = self._exchange(question)
        if "error" in answer:
            raise Unavailable(str(answer["error"]))
        return Explained(**answer)

    def close(self) -> None:
        """End the child; who waits for it is told that it has ended."""
        self._drop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _exchange(self, question: Question) -> dict[str, Any]:
        """The child's answer as JSON: the fields of Explained, or `error` with a sentence."""
        try:
            child = self._child if self._child is not None and self._child.poll() is None else self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(json.dumps(asdict(question)).encode() + b"\n")
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
        self._child = child = subprocess.Popen(
            [sys.executable, "-m", "tiltyard.serve.contribution", str(self._home / "cache")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=children.environment(),
        )
        assert child.stdout is not None
        if _line(child.stdout, self._start_s) != b"ready\n":
            raise EOFError("it did not begin")
        return child

    def _drop(self) -> int | None:
        """Kill the child, if there is one. Returns its exit code."""
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


def _line(pipe: IO[bytes], within_s: float) -> bytes:
    """Up to the next line's end. Raises TimeoutError, or EOFError when the child has ended."""
    until, line = time.monotonic() + within_s, b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
        if not readable:
            raise TimeoutError
        part = os.read(pipe.fileno(), 65_536)
        if not part:
            raise EOFError("nothing more comes")
        line += part
    return line


# -- the child --------------------------------------------------------------------------------


def main(cache: Path) -> None:
    """Answer questions, one a line, until there are no more."""
    with suppress(OSError, AttributeError):  # Linux ends the child, too, when the service is killed
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    os.nice(10)
    library()  # here, so that the seconds that its import takes are the start's and not the first question's
    _say(answers, b"ready\n")
    scorers: OrderedDict[str, Scorer] = OrderedDict()
    for line in sys.stdin.buffer:
        try:
            question = Question(**json.loads(line))
            values = [math.nan if value is None else value for value in question.values]
            explained = explain(_scorer(cache, question, scorers), values, light=question.light)
            answer = json.dumps(asdict(explained))
        except TiltyardError as error:
            answer = json.dumps({"error": str(error)})
        except Exception as error:  # the next question may go better
            print(f"explaining failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            answer = json.dumps({"error": "This row could not be explained; the service's log says why."})
        _say(answers, answer.encode() + b"\n")


def _scorer(cache: Path, question: Question, scorers: "OrderedDict[str, Scorer]") -> Scorer:
    """The version from `scorers`, else from its files. Raises Unavailable where their digests are not the ledger's."""
    model, version, digests = question.model, question.version, question.digests
    key = json.dumps([model, version, dict(digests)], sort_keys=True)
    if key not in scorers:
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
        scorers[key] = Scorer.from_files(model, version, files)
        while len(scorers) > MOST_VERSIONS:
            scorers.popitem(last=False)
    scorers.move_to_end(key)
    return scorers[key]


def _say(answers: BinaryIO, line: bytes) -> None:
    answers.write(line)
    answers.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
