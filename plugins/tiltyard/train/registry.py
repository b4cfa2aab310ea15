"""Versions of models: MLflow's registry and tracking, and the files a version consists of.

The only module that talks to MLflow. MLflow keeps what people look at (runs, metrics, plots, aliases); the
ledger's row is what makes a version count. A version that MLflow has and the ledger does not is the trace of
an attempt that died in between: harmless, never loaded. Files are ONNX, JSON and Parquet, which cannot execute
code; each is checked against the ledger's SHA-256 before anything parses it, and the first parse on a machine
happens in a child process.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import sqlalchemy as sa

from tiltyard import child, postgres
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput, CheckFailed, Unavailable
from tiltyard.fence import Fence
from tiltyard.rails import Rails
from tiltyard.records import JsonObject, Version, VersionFacts
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.target import YES_OR_NO, Target
from tiltyard.train.scorer import FILES, Scorer

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

ALIASES = ("champion", "challenger", "previous")
Tell = Callable[[JsonObject], None]
"""Hears which files were refused, and why."""
KEPT = 32
"""Scorers kept in memory by one process."""
CONNECT_S, READ_S, TRIES = 3.0, 10.0, 3
"""How long S3 may take to be reached, and to go on with an answer, and how often it is asked: whoever waits for a file
has somebody who asks again, a task's retries or the service's next look."""

_clients: dict[str, "MlflowClient"] = {}
_scorers: OrderedDict[tuple[str, str, int, str], Scorer] = OrderedDict()
NOTE = (
    "Which version serves is decided by Tiltyard's gate and kept in its ledger: `tiltyard status` shows it. Aliases "
    "here follow the ledger. *Promote model*, an alias or a stage that is set here by hand has no effect."
)
"""What MLflow shows of every registered model."""
_lock = threading.RLock()


@dataclass(frozen=True)
class Candidate:
    """What training hands over: the files of a version, and all that is to be known about it."""

    as_of: datetime
    """The end of the night as of which it was trained."""
    inputs: str
    """Digest of frame, spec, seed and trials: the same inputs are the same version."""
    files: Mapping[str, bytes]
    """Content of each of scorer.FILES."""
    features: tuple[str, ...]
    """The features' names, in the order of the matrix."""
    params: Mapping[str, float | str]
    """Parameter → value, as MLflow shows it."""
    metrics: Mapping[str, float]
    """Figure → value, as MLflow shows it."""
    tags: Mapping[str, str]
    """MLflow's tags of the run."""
    plots: Mapping[str, bytes]
    """File name → PNG."""
    facts: VersionFacts
    """What the ledger keeps of how it was made, but for the place of its files."""
    requested_by: str
    """Who asked for it."""
    description: str
    """What MLflow shows of the version, in words."""
    trials: tuple[Mapping[str, float], ...] = field(default=())
    """Figure → value of every trial of tuning, in order."""
    target: Target = YES_OR_NO
    """The kind of label: it says what the models give."""
    began: datetime | None = None
    """When its training began, wall clock; None where nobody knows."""


# -- MLflow -----------------------------------------------------------------------------------


def client(settings: Settings) -> "MlflowClient":
    """MLflow's client on its own database. The first call of a process prepares the database."""
    uri = tracking_uri(settings)
    with _lock:
        if uri not in _clients:
            _quiet(settings)
            from mlflow import MlflowClient

            engine = sa.create_engine(uri, poolclass=sa.NullPool)
            with engine.connect() as connection, connection.begin():
                # Processes that meet an empty database must not all migrate it.
                connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('tiltyard/mlflow'))"))
                opened = MlflowClient(tracking_uri=uri, registry_uri=uri)
                opened.search_experiments(max_results=1)
                opened.search_registered_models(max_results=1)
            _clients[uri] = opened
        return _clients[uri]


def tracking_uri(settings: Settings) -> str:
    """The URL of MLflow's database, password and all: for MLflow, and for no text."""
    return postgres.url(settings, "mlflow").render_as_string(hide_password=False)


def experiment(settings: Settings, model: str) -> str:
    """The id of the model's experiment; its artefacts lie under settings.mlflow_path/<model>."""
    from mlflow.exceptions import MlflowException

    flow = client(settings)
    there = flow.get_experiment_by_name(model)
    if there is None:
        try:
            return flow.create_experiment(model, artifact_location=f"{_store(settings)}/{model}")
        except MlflowException:  # another process was first
            there = flow.get_experiment_by_name(model)
            if there is None:
                raise
    return str(there.experiment_id)


def aliases(rails: Rails, model: str) -> dict[str, int]:
    """alias → version, as MLflow has it now: what a person may have moved by hand."""
    from mlflow.exceptions import MlflowException

    try:
        moved = client(rails.settings).get_registered_model(model).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {alias: int(version) for alias, version in sorted(moved.items())}


def name_challenger(rails: Rails, model: str) -> None:
    """Let MLflow's alias `challenger` be at the model's newest version in the ledger: also where the attempt that
    registered it has died before it came to that."""
    newest = max((version.version for version in rails.ledger.versions(model)), default=None)
    if aliases(rails, model).get("challenger") != newest:
        set_alias(rails, model, "challenger", newest)


def set_alias(rails: Rails, model: str, alias: str, version: int | None) -> None:
    """Let MLflow's alias follow the ledger. `version=None` takes the alias away. Last writer wins."""
    flow = client(rails.settings)
    if version is None:
        if alias in aliases(rails, model):
            flow.delete_registered_model_alias(model, alias)
        return
    flow.set_registered_model_alias(model, alias, str(version))


# -- registering ------------------------------------------------------------------------------


def register(rails: Rails, spec: Spec, candidate: Candidate, fence: Fence) -> tuple[Version, bool]:
    """Make `candidate` a version: MLflow first, then, under the fence, the ledger's row that makes it count.

    Returns the ledger's entry and whether it is another attempt's with the same inputs.
    Raises Fenced when a newer attempt at the same training has begun.
    """
    settings = rails.settings
    flow = client(settings)
    run = _run(flow, experiment(settings, spec.name), candidate)
    with tempfile.TemporaryDirectory(prefix="tiltyard-version-") as name:
        folder = Path(name) / "model"
        logged = _log_files(flow, run, folder, candidate)
        digests = {file: _sha256((folder / file).read_bytes()) for file in FILES}
    number = _version(flow, spec.name, run.info.run_id, logged, candidate.description)
    flow.set_terminated(run.info.run_id, "FINISHED")
    with fence.held():
        earlier = rails.ledger.version_of_inputs(spec.name, candidate.inputs)
        if earlier is not None:
            return earlier, True
        rails.ledger.add_version(
            Version(
                model=spec.name,
                version=number,
                night=night_closing(candidate.as_of),
                inputs=candidate.inputs,
                run_id=run.info.run_id,
                digests=digests,
                facts=replace(candidate.facts, artifacts=_relative(settings, logged.artifact_location)),
                requested_by=candidate.requested_by,
            )
        )
    version = rails.ledger.version(spec.name, number)
    assert version is not None
    return version, False


def _run(flow: "MlflowClient", experiment_id: str, candidate: Candidate) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    run = flow.create_run(
        experiment_id,
        start_time=int(candidate.began.timestamp() * 1000) if candidate.began else None,
        run_name=f"{night_closing(candidate.as_of)}",
        tags=dict(candidate.tags),
    )
    at = int(run.info.start_time)
    if candidate.facts.frame:
        digest = candidate.facts.frame[:36]
        rows = json.dumps({"num_rows": candidate.facts.rows})
        source = json.dumps({"uri": f"frames/{candidate.facts.frame}.parquet"})
        frame = Dataset(name="training frame", digest=digest, source_type="local", source=source, profile=rows)
        flow.log_inputs(run.info.run_id, [DatasetInput(frame, [InputTag("mlflow.data.context", "training")])])
    metrics = [Metric(name, float(value), at, 0) for name, value in sorted(candidate.metrics.items())]
    metrics += [
        Metric(name, float(value), at, step)
        for step, trial in enumerate(candidate.trials)
        for name, value in trial.items()
    ]
    flow.log_batch(
        run.info.run_id,
        metrics=metrics,
        params=[Param(name, str(value)) for name, value in sorted(candidate.params.items())],
        tags=[RunTag("mlflow.note.content", candidate.description)],
    )
    with tempfile.TemporaryDirectory(prefix="tiltyard-plots-") as folder:
        for name, content in candidate.plots.items():
            Path(folder, name).write_bytes(content)
        flow.log_artifacts(run.info.run_id, folder, "plots")
    return run


def _log_files(flow: "MlflowClient", run: Any, folder: Path, candidate: Candidate) -> Any:
    import mlflow.onnx
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    width = len(candidate.features)
    heavy = onnx.load_model_from_string(candidate.files["model.onnx"])
    output = heavy.graph.output[-1]
    columns = output.type.tensor_type.shape.dim[-1].dim_value
    kind = onnx.helper.tensor_dtype_to_np_dtype(output.type.tensor_type.elem_type)
    mlflow.onnx.save_model(
        heavy,
        str(folder),
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, width), "input")]),
            outputs=Schema([TensorSpec(kind, (-1, columns), output.name)]),
        ),
        pip_requirements=["onnxruntime", "numpy", "pandas"],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
        metadata={"features": list(candidate.features)},
    )
    for name, content in candidate.files.items():
        (folder / name).write_bytes(content)
    logged = flow.create_logged_model(
        run.info.experiment_id,
        name="model",
        source_run_id=run.info.run_id,
        model_type=candidate.target.mlflow_type,
    )
    flow.log_model_artifacts(logged.model_id, str(folder))
    return flow.finalize_logged_model(logged.model_id, "READY")


def _version(flow: "MlflowClient", model: str, run_id: str, logged: Any, description: str) -> int:
    from mlflow.exceptions import MlflowException

    try:
        flow.create_registered_model(model, description=NOTE)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        if flow.get_registered_model(model).description != NOTE:  # registered before there was one
            flow.update_registered_model(model, description=NOTE)
    created = flow.create_model_version(
        model, logged.artifact_location, run_id=run_id, model_id=logged.model_id, description=description
    )
    return int(created.version)


# -- loading ----------------------------------------------------------------------------------


def load(rails: Rails, model: str, version: int) -> Scorer:
    """The version, ready to score; its files are copied to home/cache once and kept in memory.

    Raises BadInput when the ledger has no such version, Unavailable when its files cannot be had, and
    CheckFailed, with an event in the ledger, when a file is not what was registered.
    """
    row = rails.ledger.version(model, version)
    if row is None:
        numbers = ", ".join(str(entry.version) for entry in rails.ledger.versions(model)) or "none"
        raise BadInput(f"{model} has no version {version}; the ledger knows: {numbers}.")
    key = (str(rails.settings.home), model, version, digest_of_all(row))
    with _lock:
        if key in _scorers:
            _scorers.move_to_end(key)
            return _scorers[key]
    tell = _teller(rails, row)
    scorer = _parsed(rails.settings, row, _checked(rails.settings, row, tell), tell)
    with _lock:
        _scorers[key] = scorer
        while len(_scorers) > KEPT:
            _scorers.popitem(last=False)
    return scorer


def local(settings: Settings, row: Version, tell: Tell) -> Scorer | None:
    """The version of a ledger's row that is known already, ready to score, from the cache alone; None where that does
    not hold its files whole, and `fetch` has to bring them.

    `tell` hears what is refused. Raises as `load` does.
    """
    files = _read(_cache(settings, row))
    return None if _wrong(files, row.digests) else _parsed(settings, row, files, tell)


def fetch(settings: Settings, row: Version, tell: Tell) -> None:
    """Bring the version's files from MLflow's store into the cache, where that lacks them. Raises as `load` does."""
    _checked(settings, row, tell)


def digest_of_all(row: Version) -> str:
    """One digest of all files of a version."""
    return _sha256(json.dumps(row.digests, sort_keys=True).encode())


def described(rails: Rails, model: str, version: int) -> tuple[JsonObject, float]:
    """What the version's training frame looked like (candidate.reference), and how many megabytes its files have.

    Its models are not parsed. Raises as `load` does.
    """
    row = rails.ledger.version(model, version)
    if row is None:
        raise BadInput(f"{model} has no version {version}.")
    files = checked_files(rails, row)
    body: JsonObject = json.loads(files["reference.json"])
    return body, size_mb(files)


def size_mb(files: Mapping[str, bytes]) -> float:
    """Megabytes (10^6 bytes) of a version's files."""
    return sum(map(len, files.values())) / 1e6


def _cache(settings: Settings, row: Version) -> Path:
    return settings.home / "cache" / row.model / str(row.version)


def checked_files(rails: Rails, row: Version) -> dict[str, bytes]:
    """The version's files, from the cache, else from MLflow's store, each with the digest of the ledger."""
    return _checked(rails.settings, row, _teller(rails, row))


def _checked(settings: Settings, row: Version, tell: Tell) -> dict[str, bytes]:
    folder = _cache(settings, row)
    files = _read(folder)
    wrong = _wrong(files, row.digests)
    if wrong:
        if files:
            damaged = f"{row.model} version {row.version}: {', '.join(wrong)} in {folder} is not what the ledger holds"
            log.warning("%s; all of its files are fetched again from MLflow's store.", damaged)
        _fetch(settings, row, folder)
        files = _read(folder)
        wrong = _wrong(files, row.digests)
    if wrong:
        shutil.rmtree(folder, ignore_errors=True)
        _refuse(row, wrong, "its SHA-256 is not the one the ledger holds", tell)
    return files


def _teller(rails: Rails, row: Version) -> Tell:
    def tell(detail: JsonObject) -> None:
        rails.ledger.add_event("corrupt_artifact", row.model, row.night, detail)

    return tell


def _read(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}


def _wrong(files: Mapping[str, bytes], digests: Mapping[str, str]) -> list[str]:
    return [name for name in FILES if name not in files or _sha256(files[name]) != digests.get(name)]


def _refuse(row: Version, files: Sequence[str], why: str, tell: Tell) -> None:
    tell({"version": row.version, "files": list(files), "reason": why})
    raise CheckFailed(
        f"{row.model} version {row.version} is refused: {', '.join(files)} cannot be trusted ({why}); "
        "restore the file in MLflow's store from a backup, or train again."
    )


def _fetch(settings: Settings, row: Version, folder: Path) -> None:
    """Copy the files from MLflow's store into the cache; they appear there all at once."""
    try:
        _fill(settings, _absolute(settings, row.facts.artifacts), folder)
    except OSError as error:
        raise Unavailable(
            f"{folder} cannot be written ({error.strerror or error}); make room, or mend the folder."
        ) from None


def _fill(settings: Settings, source: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        fresh = Path(name) / "files"
        fresh.mkdir()
        for file in FILES:
            _copy(settings, source, file, fresh)
        if folder.exists():
            folder.rename(Path(name) / "outdated")
        try:
            fresh.rename(folder)
        except OSError:  # another process has put the same files there
            if not folder.is_dir():
                raise


def _copy(settings: Settings, source: str, file: str, target: Path) -> None:
    try:
        if source.startswith("file:"):
            content = (Path(unquote(urlparse(source).path)) / file).read_bytes()
        else:
            content = _from_s3(settings, f"{source}/{file}")
    except OSError as error:
        raise Unavailable(
            f"MLflow's store does not give {source}/{file} ({error.strerror or error}); restore it or train again."
        ) from None
    (target / file).write_bytes(content)


def _from_s3(settings: Settings, source: str) -> bytes:
    """Raises OSError for whatever S3 says. By itself and not by MLflow, which waits for minutes, in threads that a
    process that ends waits for as well."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    place = urlparse(source)
    config = Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"total_max_attempts": TRIES})
    try:
        with closing(boto3.client("s3", endpoint_url=_endpoint(settings), config=config)) as client:
            return bytes(client.get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"].read())
    except (BotoCoreError, ClientError, ValueError) as error:  # ValueError: an address or a bucket that is none
        raise OSError(str(error)) from None


def _parsed(settings: Settings, row: Version, files: Mapping[str, bytes], tell: Tell) -> Scorer:
    _parse_in_child(settings, row, tell)
    return Scorer.from_files(row.model, row.version, files)


def _parse_in_child(settings: Settings, row: Version, tell: Tell) -> None:
    """Parse these files once in another process; a mark remembers the digest that went well."""
    mark = settings.home / "cache" / "parsed" / digest_of_all(row)
    if mark.exists():
        return
    command = [sys.executable, "-m", "tiltyard.train.scorer", str(_cache(settings, row))]
    ended = subprocess.run(command, env=child.environment(), capture_output=True, text=True, timeout=120)
    if ended.returncode != 0:
        reason = (ended.stderr.strip().splitlines() or [f"exit {ended.returncode}"])[-1]
        _refuse(row, ["model.onnx"], f"a trial parse of its files failed: {reason}", tell)
    with suppress(OSError):  # a disk that takes no mark: the next start parses them once more
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


# -- plumbing ---------------------------------------------------------------------------------


def _quiet(settings: Settings) -> None:
    """MLflow reads its switches from the environment: no pickle, no telemetry, no chatter."""
    switches = {
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if (endpoint := _endpoint(settings)) is not None:
        switches["MLFLOW_S3_ENDPOINT_URL"] = endpoint
    os.environ.update(switches)
    for name in ("mlflow", "alembic", "git"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _endpoint(settings: Settings) -> str | None:
    """The S3 of MLflow's store; None: Amazon's."""
    if settings.s3_endpoint:
        return f"http{'' if settings.s3_insecure else 's'}://{settings.s3_endpoint}"
    address = os.environ.get("MLFLOW_S3_ENDPOINT_URL")
    if address and not re.fullmatch(r"https?://[^\s/?#@]+/?", address):
        raise BadInput("MLFLOW_S3_ENDPOINT_URL is written like http://minio.example.org:9000, or unset.")
    return address


def _store(settings: Settings) -> str:
    """Where artefacts lie, as a URI without a slash at its end."""
    path = settings.mlflow_path
    return path.rstrip("/") if "://" in path else Path(path).resolve().as_uri()


def _relative(settings: Settings, location: str) -> str:
    """`location` without the store's own address, so that the store can move as a whole."""
    return location.removeprefix(f"{_store(settings)}/")


def _absolute(settings: Settings, location: str) -> str:
    return location if "://" in location else f"{_store(settings)}/{location}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
