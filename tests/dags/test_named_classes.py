"""What docker-compose.yml, the settings and the docs name exists under the lock: classes, commands, addresses.

The names are read from those files, so that a name that is written there later is tried, too.
"""

import concurrent.futures
import functools
import importlib.metadata
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from tiltyard.edge import airflow_settings
from tiltyard.settings import ROOT, Settings

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
ENVIRONMENT: dict[str, str] = {
    name: re.sub(r"\$\{\w+:?[-?]?([^}]*)\}", r"\1", value) for name, value in COMPOSE["x-environment"].items()
}
"""The compose file's environment, with what it says of a missing secret in the secret's place."""

WRITTEN = sorted(
    path
    for pattern in ("docker-compose.yml", "Dockerfile", "*.md", "docs/**/*.md", "models/**/*.yaml", "models/**/*.md")
    for path in ROOT.glob(pattern)
)
CODE = sorted([*(ROOT / "plugins" / "tiltyard" / "edge").rglob("*.py"), ROOT / "plugins" / "tiltyard" / "settings.py"])

DOTTED = re.compile(r"\b((?:airflow|celery|kombu|mlflow|sklearn|xgboost|dbt)(?:\.[a-z_]\w*)+\.[A-Z]\w+)\b")
BARE = re.compile(r"(?<![\w.])([A-Z]\w+(?:Executor|Operator|Hook|Sensor|Trigger|Backend|AuthManager|Timetable))\b")


def names(pattern: re.Pattern[str], paths: Iterable[Path]) -> set[str]:
    return {name for path in paths for name in pattern.findall(path.read_text(encoding="utf-8"))}


@functools.cache
def sources() -> tuple[tuple[str, str], ...]:
    """(module, text) of every file of Airflow and its providers that might define one of these classes."""
    import airflow

    found = []
    for folder in map(Path, [*airflow.__path__, *import_module("airflow.providers").__path__]):
        package = "airflow.providers" if folder.name == "providers" else "airflow"
        for path in folder.rglob("*.py"):
            module = ".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
            found.append((module, path.read_text(encoding="utf-8")))
    return tuple(found)


def homes(name: str) -> set[str]:
    """The modules of Airflow that define a class of this name."""
    from airflow.executors.executor_loader import ExecutorLoader

    if name in ExecutorLoader.executors:
        return {ExecutorLoader.executors[name].rpartition(".")[0]}
    definition = re.compile(rf"^class {name}\b", re.MULTILINE)
    return {module for module, text in sources() if definition.search(text)}


def test_the_files_name_what_this_test_is_about() -> None:
    """So that a pattern that no longer matches anything is seen."""
    dotted = names(DOTTED, [*WRITTEN, *CODE])
    assert ENVIRONMENT["AIRFLOW__CORE__AUTH_MANAGER"] in dotted
    assert "sklearn.linear_model.LogisticRegression" in dotted
    assert {"CeleryExecutor", "LocalExecutor", "ApprovalOperator"} <= names(BARE, [*WRITTEN, *CODE])


@pytest.mark.parametrize("path", sorted(names(DOTTED, [*WRITTEN, *CODE])))
def test_a_class_that_is_named_with_its_module_can_be_imported(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert isinstance(getattr(import_module(module), name), type)


@pytest.mark.parametrize("name", sorted(names(BARE, [*WRITTEN, *CODE])))
def test_a_class_that_is_named_alone_can_be_imported(name: str) -> None:
    if hasattr(concurrent.futures, name):
        return
    modules = homes(name)
    assert modules, f"nothing of Airflow defines {name}"
    for module in modules:
        assert isinstance(getattr(import_module(module), name), type)


def test_the_executor_and_the_login_of_both_ways_can_be_imported(settings: Settings) -> None:
    for environment in (ENVIRONMENT, airflow_settings.airflow_env(settings)):
        for executor in environment["AIRFLOW__CORE__EXECUTOR"].split(","):
            [module] = homes(executor)
            assert getattr(import_module(module), executor)
        module, _, name = environment["AIRFLOW__CORE__AUTH_MANAGER"].rpartition(".")
        assert getattr(import_module(module), name)


def test_every_address_has_its_driver(settings: Settings) -> None:
    from celery.app.backends import by_url
    from kombu.transport import get_transport_cls

    assert get_transport_cls(ENVIRONMENT["AIRFLOW__CELERY__BROKER_URL"].partition(":")[0])
    backend, address = by_url(ENVIRONMENT["AIRFLOW__CELERY__RESULT_BACKEND"])
    assert isinstance(backend, type)
    addresses = {address}
    for environment in (ENVIRONMENT, airflow_settings.airflow_env(settings)):
        addresses |= {value for name, value in environment.items() if "SQL_ALCHEMY_CONN" in name}
    for each in addresses:
        sa.make_url(each).get_dialect().import_dbapi()


# -- commands ---------------------------------------------------------------------------------------------------

PARSE = """
import inspect, json, sys
from importlib import import_module
from airflow.cli.cli_parser import get_parser

parser = get_parser()
for words in json.load(sys.stdin):
    command = parser.parse_args(words).func
    module, _, name = inspect.getclosurevars(command).nonlocals["import_path"].rpartition(".")
    assert callable(getattr(import_module(module), name)), words
"""


def scripts(service: dict[str, Any]) -> list[list[str]]:
    """The commands of a service, word by word; of a shell script those that begin with `airflow`."""
    words: list[str] = list(service.get("command", []))
    if words[:1] != ["bash"]:
        return [words] if words else []
    script = shlex.shlex(words[-1].replace("\\\n", " "), posix=True, punctuation_chars="();<>|&\n")
    script.whitespace, script.whitespace_split = " \t\r", True
    ends = script.punctuation_chars
    parts = [
        list(group) for is_end, group in itertools.groupby(script, lambda word: set(word) <= set(ends)) if not is_end
    ]
    return [part for part in parts if part[0] == "airflow"]


def commands() -> list[list[str]]:
    ours = [service for service in COMPOSE["services"].values() if service["image"] == "tiltyard"]
    return [words for service in ours for words in scripts(service)]


def test_every_program_of_the_compose_file_is_installed() -> None:
    installed = {script.name for script in importlib.metadata.entry_points(group="console_scripts")}
    assert {words[0] for words in commands()} <= installed


def test_every_airflow_command_of_the_compose_file_can_be_imported(tmp_path: Path) -> None:
    """In a process of its own with the compose file's environment: which commands there are depends on the executor."""
    ours = [words[1:] for words in commands() if words[0] == "airflow"]
    ours = [["1" if word.startswith("$$") and "load_portfolio" in word else word for word in words] for words in ours]
    assert ["celery", "worker"] in ours
    assert {words[0] for words in ours} >= {"pools", "users", "db", "scheduler", "api-server"}
    there = {name: value for name, value in ENVIRONMENT.items() if name.startswith("AIRFLOW__")}
    done = subprocess.run(
        [sys.executable, "-c", PARSE],
        env=os.environ | there | {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(tmp_path)},
        input=json.dumps(ours),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_every_provider_that_is_locked_is_one_that_airflow_finds() -> None:
    """A provider that is asked for in pyproject.toml and not found would only be missed when it is used."""
    asked = re.findall(
        r'^ *"apache-airflow-providers-(\w+)",$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert asked
    assert [name for name in asked if find_spec(f"airflow.providers.{name}") is None] == []
