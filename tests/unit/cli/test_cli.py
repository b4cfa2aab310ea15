"""The command line as a person meets it: its own process, its exit codes, its one sentence."""

import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tiltyard as package
from tests.conftest import know_project
from tiltyard.cli import entry
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings

NO_HOME = tempfile.TemporaryDirectory(prefix="tiltyard-no-home-")
"""Where nothing is: the checkout's own home may hold a release that differs from the checkout."""


@pytest.fixture
def settings(settings: Settings, postgres_url: str) -> Settings:
    know_project(settings, postgres_url)
    return settings


def tiltyard(*words: str, settings: Settings | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TILTYARD_")}
    ours = {"PYTHONPATH": str(ROOT / "plugins"), "TILTYARD_HOME": NO_HOME.name, **environment}
    if settings:
        ours |= {
            "TILTYARD_HOME": str(settings.home),
            "TILTYARD_DATABASE_URL": settings.database_url or "",
            "TILTYARD_DATABASE_PREFIX": settings.database_prefix,
        }
    command = [sys.executable, "-m", "tiltyard.cli", *words]
    return subprocess.run(command, env=inherited | ours, capture_output=True, text=True, timeout=300)


def helped(*words: str) -> str:
    """What a command says of itself, in this process: forty of their own take a quarter of a minute to begin."""
    return CliRunner().invoke(entry.app, [*words, "--help"], prog_name="tiltyard").stdout


def test_help_names_every_command_and_each_has_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    text = tiltyard("--help").stdout
    monkeypatch.setattr(sys, "argv", ["tiltyard", "--help"])
    assert "Example: tiltyard" in tiltyard("data", "fetch", "--help").stdout
    for command in (
        "models", "validate", "data", "ingest", "features", "train", "shadow", "promote", "drift",
        "govern", "incidents", "hindcast", "leakage", "status", "explain", "up", "down", "serve", "keys", "requests",
        "fallback", "online", "stream", "lake-maintenance", "holds", "start", "remove", "predictions", "deliver",
    ):  # fmt: skip
        assert command in text
        assert "Example: tiltyard" in helped(command)
    groups = (
        ("data", "fetch"), ("leakage", "audit"), ("incidents", "release"), ("keys", "new"), ("requests", "deliver"),
        ("fallback", "explain"), ("stream", "kinesis"),
    )  # fmt: skip
    for words in groups:
        assert "Example: tiltyard" in helped(*words)


def test_the_version_stands_in_one_place() -> None:
    assert tiltyard("--version").stdout == f"tiltyard {package.__version__}\n"
    assert importlib.metadata.version("tiltyard") == package.__version__


def test_models_as_json() -> None:
    rows = json.loads(tiltyard("models", "--json").stdout)
    assert "sla_breach" in [row["model"] for row in rows]


def test_the_schema_is_one_json_document() -> None:
    assert json.loads(tiltyard("validate", "--schema").stdout)["title"] == "Spec"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("status", "nothing"), "There is no model 'nothing'"),
        (("train", "sla_breach", "--as-of", "yesterday"), "is not a date"),
        (("hindcast", "--from", "2016-05-01", "--to", "2016-04-01"), "swap --from and --to"),
        (("hindcast", "--from", "2016-05-01", "--to", "2016-05-02", "--approve", "perhaps"), "auto or never"),
        (("explain", "sla_breach", "no-such-request"), "has no prediction 'no-such-request'"),
        (("data", "fetch", "nothing"), "nothing"),
        (("up", "--data", "nothing"), "There is no data set 'nothing'"),
        (("shadow", "sla_breach", "--as-of", "2016-04-01"), "No features are published yet"),
        (("incidents", "release", "raw.login", "--reason", "the world"), "No incident is open at 'raw.login'"),
        (("fallback", "nothing"), "There is no model 'nothing'"),
        (
            ("fallback", "explain", "sla_breach", "--cause", "a move", "--owner", "ann", "--until", "2016-05-02"),
            "Nobody has to explain sla_breach",
        ),
        (("frobnicate",), "No such command"),
        (("train",), "Missing argument"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence_and_exit_2(
    settings: Settings, words: tuple[str, ...], sentence: str
) -> None:
    done = tiltyard(*words, settings=settings)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("words", [(), ("leakage",), ("data",), ("keys",), ("requests",), ("stream",)])
def test_a_group_without_a_command_prints_its_help_and_no_error(words: tuple[str, ...]) -> None:
    done = tiltyard(*words)
    assert (done.returncode, done.stderr) == (2, "")
    assert f"Usage: {' '.join(('tiltyard', *words))} [OPTIONS] COMMAND" in done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("leakage", "audit", "frame.csv"), "Missing option '--label'. Try tiltyard leakage audit --help."),
        (("alerts", "judge", "5"), "give '--needed' or '--not-needed'. Try tiltyard alerts judge --help."),
        (("operations", "approve", "x"), "give a whole number, like 3. Try tiltyard operations approve --help."),
        (("status", "--watch", "x"), "'--watch': give a number, like 2.5. Try tiltyard status --help."),
        (("open", "mlflow", "--port", "99999"), "'--port': give 65535 at most. Try tiltyard open mlflow --help."),
        (("leakage", "audti"), "Try tiltyard leakage --help."),
        (("train",), "Try tiltyard train --help."),
        (("frobnicate",), "Try tiltyard --help."),
    ],
)
def test_a_wrong_word_points_to_the_help_of_its_own_command(words: tuple[str, ...], sentence: str) -> None:
    done = tiltyard(*words, "--json")
    assert done.returncode == 2
    assert done.stderr.strip().endswith(sentence)
    assert json.loads(done.stdout)["error"].endswith(sentence)


def test_a_demo_without_models_says_so_before_any_data_is_made(tmp_path: Path) -> None:
    for name in ("models", "dbt", "expectations"):
        home, folder = tmp_path / "home", tmp_path / "nothing"
        done = tiltyard(
            "up", "--data", "simulated", TILTYARD_HOME=str(home), **{f"TILTYARD_{name.upper()}": str(folder)}
        )
        assert done.returncode == 2
        assert f"There is no {name} folder at {folder}; run it in a checkout" in done.stderr
        assert not (home / "landing").exists()


def test_no_models_folder_is_no_portfolio_that_holds(tmp_path: Path) -> None:
    done = tiltyard("validate", TILTYARD_MODELS=str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert "There is no models folder at" in done.stderr


def test_an_error_is_json_too(settings: Settings) -> None:
    done = tiltyard("status", "nothing", "--json", settings=settings)
    assert done.returncode == 2
    assert "There is no model" in json.loads(done.stdout)["error"]


def test_a_spec_with_a_typo_names_file_and_line(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "sla_breach"
    folder.mkdir(parents=True)
    good = (ROOT / "models" / "sla_breach" / "spec.yaml").read_text()
    (folder / "spec.yaml").write_text(good.replace("horizon", "horizn"))
    done = tiltyard("validate", TILTYARD_MODELS=str(tmp_path / "models"))
    assert done.returncode == 2
    assert "spec.yaml:" in done.stderr
    assert "is it a typo?" in done.stderr
    assert done.stdout == "", "where nothing holds nothing is ok"


def test_a_wrong_word_of_a_column_names_file_and_line(tmp_path: Path) -> None:
    dbt = tmp_path / "dbt"
    shutil.copytree(ROOT / "dbt", dbt, ignore=shutil.ignore_patterns("target", "logs"))
    path = dbt / "models" / "staging" / "hotels" / "stg_hotels__booking.yml"
    path.write_text(path.read_text().replace("{planned: true}", "{planed: true}"))
    done = tiltyard("validate", TILTYARD_DBT=str(dbt))
    assert done.returncode == 2
    assert f"{path.name}:21: column 'arrival_date': there is no 'planed'; did you mean 'planned'?" in " ".join(
        done.stderr.split()
    )


def test_two_sources_with_a_table_of_one_name_are_refused(tmp_path: Path) -> None:
    dbt = tmp_path / "dbt"
    shutil.copytree(ROOT / "dbt", dbt, ignore=shutil.ignore_patterns("target", "logs"))
    folder = dbt / "models" / "staging" / "web"
    folder.mkdir()
    contract = dbt / "models" / "staging" / "subscription" / "_subscription__sources.yml"
    text = contract.read_text().replace("- name: subscription", "- name: web")
    (folder / "_web__sources.yml").write_text(text)
    done = tiltyard("validate", "--json", TILTYARD_DBT=str(dbt))
    assert done.returncode == 2
    refused = json.loads(done.stdout)["refused"]
    assert refused.keys() == {"web"} and "table 'customer' is a table of subscription already" in refused["web"]


def test_a_spec_with_a_typo_hides_no_other_model(tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(ROOT / "models", models)
    spec = models / "churn" / "spec.yaml"
    spec.write_text(spec.read_text().replace("owner:", "ownr:"))
    done = tiltyard("models", "--json", TILTYARD_MODELS=str(models))
    assert done.returncode == 2
    names = {row["model"] for row in json.loads(done.stdout)}
    assert names == {path.parent.name for path in models.glob("*/spec.yaml")} - {"churn"}, "it was never accepted"
    assert f"{spec}:3: ownr: unknown field" in done.stderr


def test_every_spec_that_does_not_hold_is_named_beside_those_that_do(tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(ROOT / "models", models)
    for name, right, wrong in (("churn", "horizon", "horizn"), ("sla_breach", "ftr_group__load", "ftr_group__laod")):
        path = models / name / "spec.yaml"
        path.write_text(path.read_text().replace(right, wrong))
    done = tiltyard("validate", "--json", TILTYARD_MODELS=str(models))
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert told["valid"] == ["customer_repurchase", "flight_delay", "hotel_cancellation"]
    assert told["refused"].keys() == {"churn", "sla_breach"}
    assert "horizn" in told["refused"]["churn"] and "ftr_group__load" in told["refused"]["sla_breach"]


def test_what_holds_for_all_models_is_validated_with_them(tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(ROOT / "models", models)
    common = models / "portfolio.yaml"
    common.write_text("routes: [{owners: [nobody], to: [env:ALERTS]}]\n")
    spec = models / "churn" / "spec.yaml"
    spec.write_text(re.sub("(?m)^owner:.*", "owner: portfolio", spec.read_text()))
    done = tiltyard("validate", TILTYARD_MODELS=str(models))
    assert done.returncode == 0
    assert "routes names nobody, who owns no model; it has no effect." in done.stderr
    common.write_text("approvers: {portfolo: {people: [ann]}}\n")
    done = tiltyard("validate", TILTYARD_MODELS=str(models))
    assert done.returncode == 2 and "did you mean portfolio?" in done.stderr
    common.write_text("budgt: {}\n")
    done = tiltyard("validate", "--json", TILTYARD_MODELS=str(models))
    assert done.returncode == 2
    assert "budgt: unknown field" in json.loads(done.stdout)["refused"]["portfolio.yaml"]


def test_an_error_in_a_pipe_is_one_line_however_long_its_path_is(tmp_path: Path) -> None:
    folder = tmp_path / ("a folder with a long name " * 8).strip() / "models" / "sla_breach"
    folder.mkdir(parents=True)
    good = (ROOT / "models" / "sla_breach" / "spec.yaml").read_text()
    (folder / "spec.yaml").write_text(good.replace("horizon", "horizn"))
    done = tiltyard("validate", TILTYARD_MODELS=str(folder.parent), COLUMNS="40")
    assert done.returncode == 2
    assert f"{folder / 'spec.yaml'}:" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_wrong_option_is_told_in_one_line_too() -> None:
    done = tiltyard("validate", "--" + "an-option-that-nobody-has-" * 8)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_an_unknown_feature_view_is_answered_with_close_names(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "sla_breach"
    folder.mkdir(parents=True)
    good = (ROOT / "models" / "sla_breach" / "spec.yaml").read_text()
    (folder / "spec.yaml").write_text(good.replace("ftr_group__load", "ftr_group__laod"))
    done = tiltyard("validate", TILTYARD_MODELS=str(tmp_path / "models"))
    assert done.returncode == 2
    assert "ftr_group__load" in done.stderr


def test_a_database_that_does_not_answer_is_named(tmp_path: Path) -> None:
    done = tiltyard("status", TILTYARD_HOME=str(tmp_path), TILTYARD_DATABASE_URL="postgresql://nobody@127.0.0.1:1/")
    assert done.returncode == 2
    assert "TILTYARD_DATABASE_URL" in done.stderr


@pytest.mark.parametrize("words", [("status", "sla_breach"), ("up", "--data", "simulated"), ("down",)])
def test_a_home_that_takes_no_files_is_named(tmp_path: Path, words: tuple[str, ...]) -> None:
    home = tmp_path / "home"
    home.write_text("a file where the folder should be")
    done = tiltyard(*words, TILTYARD_HOME=str(home))
    assert done.returncode == 2
    assert "set TILTYARD_HOME to a folder" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_the_schema_of_the_status_needs_no_home(tmp_path: Path) -> None:
    done = tiltyard("status", "--schema", TILTYARD_HOME=str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    schema = json.loads(done.stdout)
    assert {"champion", "gate", "realized"} <= set(schema["$defs"]["ModelStatus"]["properties"])
    assert not (tmp_path / "none").exists()


def test_a_model_without_a_night_says_how_to_begin(settings: Settings) -> None:
    done = tiltyard("status", "sla_breach", settings=settings)
    assert done.returncode == 0, done.stderr
    assert "no night yet; run tiltyard hindcast" in done.stdout.replace("\n", " ")
    assert "But first: Nothing has landed here yet of incident" in done.stdout
    deliver(settings, "incident/incident_update/2016-03-01.csv")
    assert "But first" not in tiltyard("status", "sla_breach", settings=settings).stdout


@pytest.mark.parametrize(
    ("words", "source", "data"),
    [
        (("ingest",), "incident", "incident"),
        (("features", "--source", "incident"), "incident", "incident"),
        (("hindcast", "--model", "churn", "--from", "2025-03-15", "--to", "2025-03-16"), "subscription", "simulated"),
    ],
)
def test_a_home_where_nothing_has_landed_names_the_way_out_before_anything_is_built(
    settings: Settings, words: tuple[str, ...], source: str, data: str
) -> None:
    done = tiltyard(*words, settings=settings)
    assert done.returncode == 2
    assert f"there is no file in {settings.landing / source}; run tiltyard data fetch {data}" in done.stderr
    assert not (settings.home / "releases").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("features", "--source", "incident"),
        ("hindcast", "--model", "sla_breach", "--from", "2016-03-02", "--to", "2017-03-02"),
    ],
)
def test_a_night_far_behind_all_data_is_refused(settings: Settings, words: tuple[str, ...]) -> None:
    """It would hold every table, and every night up to it with it: the last midnight, where data is of the past."""
    deliver(settings, "incident/incident_update/2016-03-01.csv")
    done = tiltyard(*words, settings=settings)
    assert done.returncode == 2, done.stderr
    sentence = " ".join(done.stderr.split())
    assert "days after the newest delivery of incident, which is that of 2016-03-01" in sentence
    assert "like 2016-03-02" in sentence


def test_an_ingest_that_finds_nothing_says_where_it_looked(settings: Settings) -> None:
    deliver(settings, "incident/incident_update/2016-03-01.csv")
    done = tiltyard("ingest", "--as-of", "2016-02-01", settings=settings)
    assert done.returncode == 0, done.stderr
    place = settings.landing / "incident"
    assert f"incident: found nothing new that was due at 2016-02-01 00:00 UTC in {place}" in done.stdout


def deliver(settings: Settings, name: str) -> None:
    """Put an empty file into the landing zone."""
    path = settings.landing / name
    path.parent.mkdir(parents=True)
    path.touch()


def test_a_release_says_how_many_files_change_and_that_one_is_in_force_already(
    settings: Settings, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(ROOT / "models", models)
    assert "would be in force" in tiltyard("release", "--dry-run", settings=settings).stdout
    assert "is in force" in tiltyard("release", settings=settings).stdout
    again = json.loads(tiltyard("release", "--dry-run", "--json", settings=settings).stdout)
    assert (again["is_already_in_force"], again["changes"]) == (
        True, {"new": 0, "changed": 0, "gone": 0, "models": {}},
    )  # fmt: skip
    with (models / "churn" / "card.md").open("a") as card:
        card.write("One more line.\n")
    (models / "churn" / "notes.md").touch()
    changed = tiltyard("release", "--dry-run", settings=settings, TILTYARD_MODELS=str(models)).stdout
    assert "the checkout differs from the one in force: 1 new, 1 changed, 0 gone" in changed


def test_a_setting_with_a_slip_of_the_pen_is_warned_of_once() -> None:
    done = tiltyard("models", TILTYARD_SHCEDULE="none", TILTYARD_SOURCES="incidnt")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "warning TILTYARD_SHCEDULE is no setting and has no effect; did you mean TILTYARD_SCHEDULE?",
        "warning TILTYARD_SOURCES: there is no source 'incidnt'; did you mean incident?",
    ]


def test_a_limit_of_a_stage_that_there_is_not_is_refused_by_every_command() -> None:
    done = tiltyard("models", TILTYARD_STAGE_LIMITS="shadw=30m")
    assert done.returncode == 2
    assert done.stderr.strip().endswith("no 'shadw'; did you mean shadow?")
    assert tiltyard("models", "--help", TILTYARD_STAGE_LIMITS="shadw=30m").returncode == 0


def test_an_audit_that_only_warns_says_what_it_ends_with(tmp_path: Path) -> None:
    rows = [f"{number},{int(number % 5 == 0)},2024-0{1 + number % 9}-{1 + number % 28:02d}," for number in range(2_000)]
    lines = [row + ("" if number % 5 == 0 else f"{number % 7}") for number, row in enumerate(rows)]
    (tmp_path / "crm.csv").write_text("\n".join(["id,churned,at,logins", *lines]))
    words = ("leakage", "audit", str(tmp_path / "crm.csv"), "--label", "churned", "--prediction-time", "at")
    words += ("--report", str(tmp_path / "page.html"))
    lenient, strict = tiltyard(*words), tiltyard(*words, "--strict")
    assert (lenient.returncode, strict.returncode) == (0, 1), lenient.stdout
    assert lenient.stdout.strip().endswith("Only warnings: exit 0; --strict makes this 1.")
    assert strict.stdout.strip().endswith("Only warnings: exit 1, by --strict.")


def test_a_hold_is_set_listed_and_released_and_the_maintenance_says_what_it_would_do(settings: Settings) -> None:
    done = tiltyard("holds", "set", "--reason", "case 17", "--to", "2016-04-30", "--json", settings=settings)
    number = str(json.loads(done.stdout)["id"])
    listed = tiltyard("holds", settings=settings).stdout
    assert listed.startswith(f"{number}: from 1970-01-01 before 2016-05-01, by ")
    assert "case 17" in listed
    dry = json.loads(tiltyard("lake-maintenance", "--dry-run", "--json", settings=settings).stdout)
    assert (dry["is_dry_run"], dry["holds"], dry["expired"]) == (True, 1, 0)
    assert tiltyard("holds", "release", number, "--reason", "closed", settings=settings).returncode == 0
    assert tiltyard("holds", settings=settings).stdout == "No legal hold stands.\n"
    again = tiltyard("holds", "release", number, "--reason", "closed", settings=settings)
    assert (again.returncode, "there are: none" in again.stderr) == (2, True)


def test_the_table_is_shown_again_and_again_until_somebody_ends_it(rails: Rails) -> None:
    ours = {
        "PYTHONPATH": str(ROOT / "plugins"),
        "TILTYARD_HOME": str(rails.settings.home),
        "TILTYARD_DATABASE_URL": rails.settings.database_url or "",
        "TILTYARD_DATABASE_PREFIX": rails.settings.database_prefix,
        "TILTYARD_SOURCES": "incident,subscription",
    }
    command = [sys.executable, "-u", "-m", "tiltyard.cli", "status", "--watch", "1"]
    process = subprocess.Popen(
        command,
        env=os.environ | ours,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's job in the background ignores it
    )
    assert process.stdout
    shown = 0
    for line in process.stdout:
        shown += "again every 1 s" in line
        if shown == 2:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    refused = tiltyard("status", "churn", "--watch", "1", settings=rails.settings)
    assert refused.returncode == 2
    assert "--watch shows the table of all models" in refused.stderr
