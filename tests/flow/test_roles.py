"""A home of roles: nights are done by nightly, pages are read by pages, answers come from serving, and what a role may
not do ends in a sentence and changes nothing."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import httpx
import psycopg2
import pytest
import sqlalchemy as sa

from tests.conftest import know_project
from tests.homes import cursor
from tiltyard import clock, lake, ledger_tables, postgres, roles
from tiltyard import rails as rails_module
from tiltyard.answered import request_log
from tiltyard.clock import NIGHT, night_closing
from tiltyard.edge import airflow_settings, answers, causers, logins, open_forms, overview, reports, services
from tiltyard.edge.task_run import TaskKey
from tiltyard.errors import BadInput
from tiltyard.records import ShadowSummary
from tiltyard.rewind import hindcast
from tiltyard.settings import Settings
from tiltyard.spec import find
from tiltyard.tables import REQUEST
from tiltyard.train import training
from tiltyard.upkeep.erasing.erase import erase
from tiltyard.words import UNKNOWN

FIRST = clock.parse_as_of("2025-02-03")
NIGHTS = 2
LAST = FIRST + (NIGHTS - 1) * NIGHT


@dataclass(frozen=True)
class Home:
    """A home in which nights were done."""

    owner: Settings
    """As whom the roles were made."""

    def role(self, part: str) -> Settings:
        return Settings(**self.owner.model_dump(exclude_unset=True) | {"database_role": part})

    def environment(self, part: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("TILTYARD_")}
        return own | {
            "TILTYARD_HOME": str(self.owner.home), "TILTYARD_MODELS": str(self.owner.models),
            "TILTYARD_RUNTIME_FOLDER": str(self.owner.runtime_folder), "TILTYARD_SERVE_DELIVER_S": "0",
            **({"TILTYARD_DATABASE_ROLE": part} if part else {}),
        }  # fmt: skip

    def run(self, part: str, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "tiltyard.cli", *words]
        return subprocess.run(
            command, env=self.environment(part), capture_output=True, text=True, check=False, timeout=600
        )

    def held(self) -> tuple[object, ...]:
        """Table of the ledger → number of its rows; the lake's snapshot; the chain's head; and the texts of models."""
        with rails_module.opened(self.owner) as rails, rails.ledger.engine.connect() as connection:
            tables = ledger_tables.metadata.sorted_tables
            counts = {table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in tables}
            texts = {path: path.read_bytes() for path in self.owner.models.rglob("*") if path.is_file()}
            return counts, rails.lake.snapshot(), rails.ledger.verify(), texts


@pytest.fixture(scope="module")
def home(eager_models: Path, deliveries: Path, postgres_url: str) -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="tiltyard-roles-"))
    settings = Settings(
        home=folder / "home", models=eager_models, sources=("subscription",), runtime_folder=folder, database_url=None
    )
    shutil.copytree(deliveries, settings.landing / "subscription")
    know_project(settings, postgres_url)
    home = Home(settings)
    try:
        done = home.run("", "roles", "--apply")
        assert done.returncode == 0, done.stderr
        with rails_module.opened(home.role("nightly")) as rails:
            hindcast.hindcast(rails, [find(eager_models, "churn")], FIRST, LAST)
        yield home
    finally:
        postgres.stop(settings)
        shutil.rmtree(folder, ignore_errors=True)


def test_nights_are_done_by_nightly_and_the_chain_is_whole(home: Home) -> None:
    with rails_module.opened(home.role("nightly")) as rails:
        state = rails.ledger.verify()
        assert state.faults == ()
        assert len(rails.ledger.versions("churn")) > 0
        assert len(rails.ledger.decisions("churn")) > 0
        assert state.entries == state.rows > 0
    with cursor(home.owner, home.owner.database("ledger")) as server:
        server.execute("select distinct tableowner from pg_tables where schemaname = 'public'")
        assert server.fetchall() == [("postgres",)], "a night makes no table of the ledger"
    assert home.run("", "roles").stdout == "The roles are as they should be.\n"


def test_pages_are_read_by_pages_alone_and_a_report_is_drawn_by_them(home: Home) -> None:
    settings = home.role("pages")
    night = str(night_closing(LAST))
    documents = [
        *overview.board(settings).models, overview.costs(settings), overview.decisions(settings, "churn", 1),
        *(overview.versions(settings, "churn") or [None]), overview.compared(settings, "churn", (1,)),
        overview.source(settings, "subscription"), overview.night(settings, night),
    ]  # fmt: skip
    assert None not in documents
    assert all(json.dumps(document.to_json(), allow_nan=False) for document in documents if document)
    assert overview.incidents(settings)
    assert b"tiltyard" in overview.metrics(settings)
    for part in overview.PARTS:
        entry = overview.entry(settings, "churn", overview.ModelQuery(part=part))
        assert entry is not None
        assert entry.status is not None
        assert (entry.problem, entry.missing) == (None, None), part
    (settings.reports / "latency" / "churn.png").unlink(missing_ok=True)
    assert reports.opened(settings, "latency/churn.png") is not None, "it reads the lake for it"


@pytest.fixture(scope="module")
def migrated(home: Home) -> Home:
    """The same with Airflow's tables, made by airflow as the compose file does it."""
    owner = postgres.url(home.owner, "airflow")
    address = owner.set(username=roles.role(home.owner, "airflow")).render_as_string(hide_password=False)
    environment = airflow_settings.airflow_env(home.owner) | {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": address,
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
    }
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], env=os.environ | environment, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = home.run("", "roles", "--apply")
    assert done.returncode == 0, done.stderr
    assert "Not there yet" not in done.stderr
    return home


def test_nightly_and_pages_read_of_airflow_what_they_look_at(migrated: Home, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be asked there is logged by each of them, and taken for unknown."""
    caplog.set_level("DEBUG", logger="tiltyard")
    for part in ("nightly", "pages"):
        settings = migrated.role(part)
        assert open_forms.known(settings) == []
        assert logins._in_database(settings) == ()
        assert causers.repeaters(settings, "promotion", "run", clock.now()) == ()
        assert causers.posters(settings, [causers.Posted("a", "b", clock.now())]) == (UNKNOWN,)
    with rails_module.opened(migrated.role("nightly")) as rails:
        assert answers.recorded(rails, TaskKey("promotion", "run", "ask")) is None
        assert answers.withdraw(rails, []) == []
        answers.close(rails, TaskKey("promotion", "run", "ask"), "Hold")
    assert [record.getMessage() for record in caplog.records if "permission denied" in record.getMessage()] == []
    for statement in ("select password from ab_user", "update hitl_detail set responded_by = '{}'",
                      "insert into log (event) values ('x')", "delete from task_instance"):  # fmt: skip
        target = postgres.url(migrated.role("nightly"), "airflow")
        with (
            pytest.raises(psycopg2.errors.InsufficientPrivilege),
            closing(psycopg2.connect(postgres.conninfo(target))) as connection,
        ):
            connection.cursor().execute(statement)


def test_answers_come_from_serving_and_reach_the_lake_by_the_night(home: Home) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "tiltyard.cli", "serve", "--port", str(port), "--as-of", "latest"]
    log = home.owner.home / "serve.log"
    with log.open("wb") as output:
        service = subprocess.Popen(command, env=home.environment("serving"), stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                try:
                    if client.get("/readyz").is_success:
                        break
                except httpx.HTTPError:
                    assert service.poll() is None, log.read_text()
                time.sleep(0.2)
            body = {"rows": [{"entity_id": "C000001"}], "request_id": "asked"}
            answer = client.post("/v1/models/churn/predict", json=body)
            assert answer.status_code == 200, answer.text
            [prediction] = answer.json()["predictions"]
            ready = client.get("/readyz").json()
    finally:
        service.terminate()
        service.wait()
    assert ready["status"] == "ready", ready
    assert "may not do this" not in log.read_text()
    assert "permission denied" not in log.read_text()
    with rails_module.opened(home.role("nightly")) as rails:
        assert prediction["version"] == rails.ledger.roles("churn", date.max).champion
        request_log.deliver(rails)
        rows = rails.lake.connection.execute(f"select score from {lake.stored(REQUEST)} where model = 'churn'")
        assert [score for (score,) in rows.fetchall()] == [prediction["score"]]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("pages", ("shadow", "churn", "--as-of", str(night_closing(LAST + NIGHT)))),
        ("pages", ("remove", "churn", "--yes")),
        ("serving", ("requests", "deliver")),
        ("nightly", ("nights", "withdraw", str(night_closing(LAST)), "--reason", "a wrong delivery")),
    ],
)
def test_a_forbidden_command_says_so_and_changes_nothing(home: Home, part: str, words: tuple[str, ...]) -> None:
    before = home.held()
    done = home.run(part, *words)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    [sentence] = done.stderr.strip().splitlines()
    assert sentence.startswith(f"error PostgreSQL's user tiltyard_{part} may not do this (permission denied for ")
    assert home.held() == before


def test_nor_does_what_is_called_from_python(home: Home) -> None:
    spec, before = find(home.owner.models, "churn"), home.held()
    with rails_module.opened(home.role("nightly")) as rails, pytest.raises(BadInput, match="_nightly may not do this"):
        erase(rails, ["C000001"], entity=spec.entity, by="ann", reason="asked for")
    with (
        pytest.raises(BadInput, match="_pages may not do this"),
        rails_module.opened(home.role("pages")) as rails,
        rails_module.recording_its_end(rails, "training", LAST, "churn"),  # nor can it say that it could not
    ):
        training.train(rails, spec, LAST, requested_by="ann")
    for part in ("pages", "serving"):  # an event may be a person's word
        with (
            pytest.raises(BadInput, match=f"_{part} may not"),
            rails_module.opened(home.role(part), lake_at_once=False) as rails,
        ):
            rails.ledger.add_event("incident_released", "churn", None, {})
    assert home.held() == before


def test_after_what_was_forbidden_the_next_night_goes_on(home: Home) -> None:
    """The last test of this file: it adds a night."""
    spec = find(home.owner.models, "churn")
    with rails_module.opened(home.role("nightly")) as rails:
        hindcast.hindcast(rails, [spec], FIRST, LAST + NIGHT)
        assert len(rails.ledger.stage_runs(ShadowSummary, "churn")) == NIGHTS + 1
        assert rails.ledger.verify().faults == ()
    assert home.run("nightly", "verify").returncode == 0


def test_airflow_is_started_by_the_owner(home: Home) -> None:
    with pytest.raises(BadInput, match="TILTYARD_DATABASE_ROLE is set; this is the owner's work, so leave it out here"):
        services.start(home.role("nightly"))
