import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlparse

import boto3
import httpx
import numpy as np
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer

from tests.market import AS_OF, market
from tiltyard.edge import airflow_settings, opening, processes
from tiltyard.errors import BadInput, CheckFailed, Unavailable
from tiltyard.prepare import frame
from tiltyard.rails import Rails
from tiltyard.records import Version, VersionFacts
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec
from tiltyard.train import candidate, registry, scorer, training

Market = tuple[Rails, Spec, pd.DataFrame]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Market]:
    with market(tmp_path_factory.mktemp("registry"), postgres_url) as (rails, spec):
        made = frame.training(rails, spec, AS_OF)
        fence = rails.ledger.claim("training/registry")
        training.train_on(rails, spec, AS_OF, made, fence=fence, requested_by="ada", trials=1)
        yield rails, spec, pd.read_parquet(made.path)


@pytest.fixture
def fresh(trained: Market) -> Iterator[Market]:
    """As on a machine that has loaded nothing yet; what a test breaks in the store is mended afterwards."""
    rails, spec, _ = trained
    registry._scorers.clear()
    shutil.rmtree(rails.settings.home / "cache", ignore_errors=True)
    folder = store(rails, spec)
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    yield trained
    for path, content in kept.items():
        path.write_bytes(content)


def store(rails: Rails, spec: Spec, version: int = 1) -> Path:
    """Where MLflow keeps the version's files."""
    flow = registry.client(rails.settings)
    source = flow.get_model_version(spec.name, str(version)).source
    location = (
        flow.get_logged_model(source.removeprefix("models:/")).artifact_location if "models:/" in source else source
    )
    return Path(unquote(urlparse(location).path))


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(bytes(content))


def test_a_loaded_version_scores(fresh: Market) -> None:
    rails, spec, rows = fresh
    loaded = registry.load(rails, spec.name, 1)
    assert loaded.features == ("size", "mood", "is_open")
    for scores in (loaded.score(rows), loaded.score_light(rows)):
        assert scores.dtype == np.float64
        assert scores.shape == (len(rows),)
        assert ((scores > 0) & (scores < 1)).all()
    assert loaded.score(rows.head(0)).shape == (0,)
    assert registry.load(rails, spec.name, 1) is loaded


def test_the_files_cannot_execute(fresh: Market) -> None:
    rails, spec, _ = fresh
    names = {path.name for path in store(rails, spec).iterdir()}
    assert set(scorer.FILES) <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".joblib", ".bin"))]


@pytest.mark.parametrize("file", scorer.FILES)
def test_a_flipped_bit_is_refused_and_recorded(fresh: Market, file: str) -> None:
    rails, spec, _ = fresh
    before = len(rails.ledger.events(spec.name, "corrupt_artifact"))
    flip(store(rails, spec) / file)
    with pytest.raises(CheckFailed, match=f"version 1 is refused: {file}"):
        registry.load(rails, spec.name, 1)
    events = rails.ledger.events(spec.name, "corrupt_artifact")
    assert len(events) == before + 1
    assert events[-1].detail["files"] == [file]


def test_a_broken_cache_is_filled_again_and_the_log_says_so(fresh: Market, caplog: pytest.LogCaptureFixture) -> None:
    rails, spec, rows = fresh
    expected = registry.load(rails, spec.name, 1).score(rows)
    registry._scorers.clear()
    flip(rails.settings.home / "cache" / spec.name / "1" / "model.onnx")
    np.testing.assert_array_equal(registry.load(rails, spec.name, 1).score(rows), expected)
    assert "model.onnx in" in caplog.text
    assert "is not what the ledger holds; all of its files are fetched again" in caplog.text


def test_a_cache_that_holds_does_not_need_the_store(fresh: Market) -> None:
    rails, spec, _ = fresh
    registry.load(rails, spec.name, 1)
    registry._scorers.clear()
    for path in store(rails, spec).iterdir():
        path.unlink()
    registry.load(rails, spec.name, 1)
    registry._scorers.clear()
    shutil.rmtree(rails.settings.home / "cache")
    with pytest.raises(Unavailable, match="does not give"):
        registry.load(rails, spec.name, 1)


def test_files_come_from_s3_or_not_at_all_and_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        there = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
        there.create_bucket(Bucket="store")
        for name in scorer.FILES:
            there.put_object(Bucket="store", Key=f"a model/{name}", Body=name.encode())
        made = Settings(home=tmp_path, mlflow_artifacts="s3://store", s3_endpoint=f"{host}:{port}", s3_insecure=True)
        digests = {name: registry._sha256(name.encode()) for name in scorer.FILES}
        far = Version(
            model="far",
            version=1,
            night=AS_OF.date(),
            inputs="",
            run_id="",
            digests=digests,
            facts=VersionFacts(artifacts="a model"),
            requested_by="ada",
        )
        registry.fetch(made, far, print)
        assert {path.name for path in (tmp_path / "cache" / "far" / "1").iterdir()} == set(scorer.FILES)
        with pytest.raises(Unavailable, match="does not give s3://store/nothing"):
            registry.fetch(made, replace(far, version=2, facts=VersionFacts(artifacts="nothing")), print)
    finally:
        server.stop()
    monkeypatch.setattr(registry, "READ_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        made = made.model_copy(update={"s3_endpoint": f"127.0.0.1:{silent.getsockname()[1]}"})
        began = time.monotonic()
        with pytest.raises(Unavailable, match="does not give"):
            registry.fetch(made, replace(far, version=3), print)
        assert time.monotonic() - began < 10


def test_what_was_registered_but_cannot_be_parsed_is_refused_without_harm(fresh: Market) -> None:
    rails, spec, _ = fresh
    row = rails.ledger.version(spec.name, 1)
    assert row is not None
    path = store(rails, spec) / "model.onnx"
    path.write_bytes(b"\x08" * 100)
    digests = {**row.digests, "model.onnx": registry._sha256(path.read_bytes())}
    facts = replace(row.facts, artifacts=registry._relative(rails.settings, store(rails, spec).as_uri()))
    rails.ledger.add_version(
        replace(row, version=77, digests=digests, facts=facts, inputs="unparsable", run_id="", requested_by="ada")
    )
    with pytest.raises(CheckFailed, match="a trial parse of its files failed"):
        registry.load(rails, spec.name, 77)


def test_an_unknown_version_names_those_there_are(fresh: Market) -> None:
    rails, spec, _ = fresh
    with pytest.raises(BadInput, match=r"has no version 9; the ledger knows: 1"):
        registry.load(rails, spec.name, 9)


def test_a_version_that_only_mlflow_knows_is_never_loaded(fresh: Market) -> None:
    rails, spec, _ = fresh
    created = registry.client(rails.settings).create_model_version(spec.name, store(rails, spec).as_uri())
    with pytest.raises(BadInput, match="has no version"):
        registry.load(rails, spec.name, int(created.version))


def test_an_alias_moved_by_hand_is_seen(fresh: Market) -> None:
    rails, spec, _ = fresh
    registry.set_alias(rails, spec.name, "champion", 1)
    other = registry.client(rails.settings).create_model_version(spec.name, "file:///elsewhere").version
    registry.client(rails.settings).set_registered_model_alias(spec.name, "champion", other)
    assert registry.aliases(rails, spec.name) == {"challenger": 1, "champion": int(other)}
    registry.set_alias(rails, spec.name, "champion", None)
    registry.set_alias(rails, spec.name, "champion", None)
    assert registry.aliases(rails, spec.name) == {"challenger": 1}


def test_a_model_without_versions_has_no_aliases(fresh: Market) -> None:
    assert registry.aliases(fresh[0], "nobody") == {}


def test_the_same_candidate_from_two_attempts_is_one_version(fresh: Market) -> None:
    rails, spec, _ = fresh
    as_of = AS_OF - timedelta(days=4)
    training_frame = frame.training(rails, spec, as_of)
    asked = training.inputs_digest(training_frame.digest, spec, rails.settings.seed, 1)
    fence = rails.ledger.claim("training/twice")
    made = candidate.make(rails.settings, spec, training_frame, candidate.Order(as_of, asked, 1, "ada"))
    first, was_there = registry.register(rails, spec, made, fence)
    second, is_there = registry.register(rails, spec, made, fence)
    assert (was_there, is_there, first) == (False, True, second)
    assert len([row for row in rails.ledger.versions(spec.name) if row.inputs == asked]) == 1


def test_processes_that_meet_an_empty_database_do_not_both_migrate_it(settings: Settings) -> None:
    code = (
        "from tiltyard import settings; from tiltyard.train import registry; "
        "print(registry.experiment(settings.Settings(), 'someone'))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")]),
        "TILTYARD_HOME": str(settings.home),
        "TILTYARD_DATABASE_URL": str(settings.database_url),
        "TILTYARD_DATABASE_PREFIX": settings.database_prefix,
    }
    command = [sys.executable, "-c", code]
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=300)[0].strip() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert answers[0] == answers[1] == registry.experiment(settings, "someone")


@pytest.mark.parametrize("address", ["s3:8333", "here and there", "http://", "http://key:secret@s3:8333", "ftp://s3"])
def test_an_address_of_a_store_that_is_none_is_refused_and_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", address)
    with pytest.raises(BadInput, match="MLFLOW_S3_ENDPOINT_URL is written like") as caught:
        registry._endpoint(Settings(home=tmp_path))
    assert "secret" not in str(caught.value)


def test_a_port_that_no_store_can_have_is_a_store_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_S3_ENDPOINT_URL", raising=False)
    settings = Settings(home=tmp_path, mlflow_artifacts="s3://store", s3_endpoint="s3:99999")
    with pytest.raises(OSError, match="99999"):
        registry._from_s3(settings, "s3://store/a/model.onnx")


def test_mlflow_shows_how_long_a_training_took_on_which_frame_and_that_its_buttons_decide_nothing(
    fresh: Market,
) -> None:
    rails, spec, rows = fresh
    flow = registry.client(rails.settings)
    version = rails.ledger.versions(spec.name)[0]
    run = flow.get_run(version.run_id)
    assert run.info.end_time - run.info.start_time > 500, "milliseconds: it was trained and converted in between"
    [used] = run.inputs.dataset_inputs
    assert used.dataset.digest == version.facts.frame[:36]  # type: ignore[index]
    assert f'"num_rows": {len(rows)}' in used.dataset.profile
    assert [tag.value for tag in used.tags] == ["training"]
    assert "has no effect" in flow.get_registered_model(spec.name).description


def test_mlflow_ends_with_the_command_that_is_ended_while_it_starts(fresh: Market) -> None:
    settings = fresh[0].settings
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, **airflow_settings.tiltyard_env(settings), "PYTHONPATH": str(ROOT / "plugins")}
    command = [sys.executable, "-m", "tiltyard.cli", "open", "mlflow", "--port", str(port)]
    opener = subprocess.Popen(command, env=environment)
    try:
        until = time.monotonic() + 120
        while len(processes.opened(settings)) < 2 and opener.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        assert len(processes.opened(settings)) > 1, "the server and what it starts"
        opener.terminate()
        assert opener.wait(timeout=60) == 128 + signal.SIGTERM
        assert not processes.opened(settings)
    finally:
        opener.kill()
        processes.close(settings, port)


def test_mlflow_is_opened_on_loopback_and_ends(fresh: Market) -> None:
    rails, spec, _ = fresh
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with opening.mlflow(rails.settings, port) as (address, _):
        found = httpx.get(
            f"{address}/api/2.0/mlflow/registered-models/get", params={"name": spec.name}, trust_env=False
        )
        assert "has no effect" in found.json()["registered_model"]["description"]
        with pytest.raises(Unavailable, match="--port"), opening.mlflow(rails.settings, port):
            pass
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health", trust_env=False)
