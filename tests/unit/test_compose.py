"""docker-compose.yml speaks of the settings that exist, and of all that `make up` sets."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiltyard import roles
from tiltyard.edge import processes
from tiltyard.edge.airflow_settings import airflow_env
from tiltyard.settings import NO_TELEMETRY, ROLES, ROOT, Settings

ONE_MACHINE = {
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
}
"""What only `make up` sets: its single user, where the compose file uses Airflow's user database."""

MANY_MACHINES = {
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__CELERY__RESULT_BACKEND",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY",
}

ELSEWHERE = {
    "AIRFLOW__CORE__DAGS_FOLDER",
    "AIRFLOW__CORE__PLUGINS_FOLDER",
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CORE__PARALLELISM",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__CORE__AUTH_MANAGER",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC",
    "AIRFLOW__API__HOST",
    "AIRFLOW__API__PORT",
    "AIRFLOW__API__BASE_URL",
    "AIRFLOW__API__WORKERS",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER",
    "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY",
}
"""Set in both, each to its own places, sizes and secrets. Every other Airflow setting must be equal."""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def environment(compose: dict[str, Any]) -> dict[str, str]:
    return compose["services"]["scheduler"]["environment"]


def test_every_tiltyard_name_is_a_setting(compose: dict[str, Any]) -> None:
    """What `init` is told besides is the passwords of the roles that it makes."""
    for name, service in compose["services"].items():
        if service["image"] == "tiltyard":
            told = {each for each in service["environment"] if each.startswith("TILTYARD_")}
            besides = {roles.variable(part) for part in ROLES} if name == "init" else set()
            assert {each.removeprefix("TILTYARD_").lower() for each in told - besides} <= set(Settings.model_fields)
            assert besides <= told


def test_each_part_connects_as_its_role_and_knows_no_other_password(compose: dict[str, Any]) -> None:
    """Of Airflow's parts each knows that of Airflow's own database as well."""
    parts = {"worker": "nightly", "serve": "serving", "mlflow": "mlflow"}
    owner = "TILTYARD_POSTGRES_PASSWORD"
    for name, service in compose["services"].items():
        if service["image"] != "tiltyard" or name == "init":
            continue
        own = service["environment"]
        part, prefix = parts.get(name, "pages"), own["TILTYARD_DATABASE_PREFIX"]
        address = re.fullmatch(r"postgresql://(\w+):\$\{(\w+)[^}]*\}@postgres:5432", own["TILTYARD_DATABASE_URL"])
        assert address, name
        assert address.groups() == (f"{prefix}{part}", roles.variable(part)), name
        known = set(re.findall(r"\$\{(TILTYARD_\w+_PASSWORD)", yaml.safe_dump(own)))
        airflow = {roles.variable("airflow")} if "AIRFLOW_HOME" in own else set()
        assert known == {roles.variable(part)} | airflow, name
        assert owner not in yaml.safe_dump(own)
        databases = {value.rpartition("/")[2] for key, value in own.items() if "SQL_ALCHEMY_CONN" in key}
        assert databases <= {f"{prefix}airflow"}
    assert not any(key.startswith("AIRFLOW") for key in compose["services"]["serve"]["environment"])
    init = compose["services"]["init"]["environment"]
    assert init["TILTYARD_DATABASE_URL"] == f"postgresql://tiltyard:${{{owner}}}@postgres:5432"


def test_whoever_may_not_enter_the_lake_does_not_deliver_into_it(compose: dict[str, Any]) -> None:
    assert "lake" not in roles.ENTERS["serving"]
    assert (
        Settings(
            serve_deliver_s=compose["services"]["serve"]["environment"]["TILTYARD_SERVE_DELIVER_S"]
        ).serve_deliver_s
        == 0
    )


def test_the_roles_are_made_before_airflow_makes_its_tables_and_seen_to_after(compose: dict[str, Any]) -> None:
    script = compose["services"]["init"]["command"][-1]
    assert re.findall(r"(?m)^(?:tiltyard roles --apply|airflow db migrate)$", script) == [
        "tiltyard roles --apply", "airflow db migrate", "tiltyard roles --apply"
    ]  # fmt: skip


def test_the_values_are_ones_that_settings_take(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        if name.startswith("TILTYARD_"):
            monkeypatch.setenv(name, re.sub(r"\$\{\w+:?[-?]?([^}]*)\}", r"\1", value))
    settings = Settings()

    assert settings.lake_path == "s3://tiltyard/lake"
    assert settings.s3_insecure
    assert settings.sources == ("incident",)


def test_airflow_is_set_up_as_by_make_up(environment: dict[str, str], settings: Settings) -> None:
    here = {name: value for name, value in airflow_env(settings).items() if name.startswith("AIRFLOW__")}
    there = {name: value for name, value in environment.items() if name.startswith("AIRFLOW__")}

    assert set(there) - MANY_MACHINES == set(here) - ONE_MACHINE
    shared = set(here) & set(there) - ELSEWHERE
    assert {name: there[name] for name in shared} == {name: here[name] for name in shared}


def test_nothing_reports_home(environment: dict[str, str]) -> None:
    assert {name: environment.get(name) for name in NO_TELEMETRY} == NO_TELEMETRY


def test_every_part_of_airflow_runs_with_the_same_environment(compose: dict[str, Any]) -> None:
    for name, command in processes.COMPONENTS.items():
        service = compose["services"][name]
        assert service["command"] == ["airflow", command[0]]
        assert service["environment"] == compose["x-environment"]
    assert compose["services"]["worker"]["command"] == ["airflow", "celery", "worker"]


def test_ports_are_open_to_this_machine_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_secrets_come_from_the_environment() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secret = re.compile(
        r"^\s*\w*(?:PASSWORD|SECRET|SECRET_ACCESS_KEY|SECRET_KEY|FERNET_KEY|ACCESS_KEY_ID)\w*: (.*)$", re.M
    )

    assert secret.findall(text)
    assert [value for value in secret.findall(text) if not re.match(r"^\$\{\w+(:\?[^}]+)?\}$", value)] == []


def test_no_secret_stands_on_a_command_line(compose: dict[str, Any]) -> None:
    """Every user of a host can read how its processes were called. A shell's `printf` and `export` are no process."""
    told = []
    for name, service in compose["services"].items():
        commands = [service.get("command", []), service.get("healthcheck", {}).get("test", [])]
        words = [word for each in commands for word in (each if isinstance(each, list) else [each])]
        for line in "\n".join(words).splitlines():
            if re.search(r"\$[^ ]*(PASSWORD|SECRET|KEY|AUTH|DATABASE_URL|REDIS_URL|CONN)", line):
                told += [f"{name}: {line}"] if not line.strip().startswith(("printf ", "export ")) else []
    assert told == []


def test_every_image_is_pinned(compose: dict[str, Any]) -> None:
    images = [service["image"] for service in compose["services"].values() if service["image"] != "tiltyard"]

    assert all(re.search(r":\d", image) for image in images)
    assert re.search(r"^FROM python:3\.1[12]", Path(ROOT / "Dockerfile").read_text(), re.M)
