"""dbt in process: raw tables to staging, spines, feature views and labels.

The project is in dbt/; its working files (target, logs, the partial parse) lie under the home, never in the
checkout. Every model is bitemporal, so that one build serves every `as_of`, and is brought up to date by affected
entity: a build after a night costs what the night brought.
"""

import difflib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from tiltyard import clock, lake
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.files import whole
from tiltyard.rails import Rails
from tiltyard.settings import Settings
from tiltyard.spec import Spec, feature_key

_GOOD = {"success", "pass", "warn", "skipped", "no-op"}


@dataclass(frozen=True)
class Model:
    """What the dbt project says of one table: its columns, and the meta data under `tiltyard`."""

    name: str
    description: str
    columns: tuple[str, ...]
    meta: dict[str, Any]
    types: dict[str, str] = field(default_factory=dict)
    """Column → its data_type, where the .yml has one."""


def build(rails: Rails, sources: Sequence[str], as_of: datetime, full_refresh: bool = False) -> dict[str, Any]:
    """Bring every model of `sources` up to what has landed. Safe to repeat, to kill and to start twice.

    The nodes do not depend on `as_of`; the last instant that has landed is read from the lake. Returns counts and
    seconds: {"models", "tests", "seconds", "slowest"}. Raises CheckFailed naming the nodes that failed.
    """
    if not sources:
        raise BadInput("There is no source to build; set TILTYARD_SOURCES, like TILTYARD_SOURCES=incident.")
    arguments = ["--exclude", "tag:reference"]
    if full_refresh:
        arguments.append("--full-refresh")
    for source in sources:
        arguments += ["--select", f"source:{source}+"]
    began = time.monotonic()
    with alone(rails):
        results = invoke(rails.settings, "build", "--exclude-resource-type", "unit_test", *arguments)
    _keep_manifest(rails.settings)
    if not results:
        raise BadInput(f"dbt has nothing that reads {', '.join(sources)}; name a source of {rails.settings.dbt}.")
    models = [result for result in results if result["type"] in ("model", "snapshot")]
    slowest = sorted(models, key=lambda result: -result["seconds"])[:3]
    return {
        "models": len(models),
        "tests": sum(result["type"] == "test" for result in results),
        "seconds": round(time.monotonic() - began, 2),
        "slowest": {result["name"]: round(result["seconds"], 2) for result in slowest},
        "as_of": as_of.isoformat(),
    }


@contextmanager
def alone(rails: Rails) -> Iterator[None]:
    """Wait until nobody builds, and let nobody build meanwhile.

    A model takes up what was written since its own newest row, so two builds at once would both add it. A snapshot
    is taken in here as well: between the tables of a build, some are of this batch and some of the last one.
    """
    with rails.lake.exclusive("build"):
        yield


def invoke(settings: Settings, command: str, *arguments: str) -> list[dict[str, Any]]:
    """Run one dbt command in process. Returns a {"name", "type", "status", "seconds", "message"} per node.

    Raises CheckFailed naming every node that failed and what it said; BadInput when the project does not parse.
    """
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    from tiltyard.prepare import dbt_plugin

    work = settings.home / "dbt"
    work.mkdir(parents=True, exist_ok=True)
    flags = ["--project-dir", str(settings.dbt), "--profiles-dir", str(settings.dbt), "--log-path", str(work / "logs")]
    flags += ["--target-path", str(work / "target"), "--log-level", "none", "--log-level-file", "info"]
    flags.append("--write-json" if command in ("build", "parse") else "--no-write-json")
    with _environment(_profile(settings)), dbt_plugin.secrets_of(settings):
        try:
            outcome = dbtRunner().invoke([command, *flags, *arguments])
        finally:
            _close(DuckDBConnectionManager)
    nodes = [_node(result) for result in getattr(outcome.result, "results", None) or []]
    failed = [node for node in nodes if node["status"] not in _GOOD]
    if failed:
        said = "; ".join(f"{node['name']}: {node['message']}" for node in failed[:5])
        raise CheckFailed(f"dbt failed at {len(failed)} node(s): {said}. Mend them and run the stage again.")
    if outcome.exception is not None or not outcome.success:
        reason = " ".join(str(outcome.exception or "no reason given").split())
        raise BadInput(f"dbt does not run: {reason[:600]} (log: {work / 'logs' / 'dbt.log'}).")
    return nodes


def manifest(settings: Settings) -> dict[str, Any]:
    """dbt's manifest of the last build here; before the first one, of the project as it is (parsed in 3 s)."""
    kept = settings.home / "dbt" / "manifest.json"
    if not kept.exists():
        invoke(settings, "parse")
        _keep_manifest(settings)
    content: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return content


def _keep_manifest(settings: Settings) -> None:
    """Put what dbt wrote where it is read: whole or not at all, so that a reader never sees half of the next one."""
    work = settings.home / "dbt"
    with whole(work / "manifest.json") as part:
        shutil.copyfile(work / "target" / "manifest.json", part)


def project(settings: Settings) -> dict[str, Model]:
    """Every model that the dbt project's .yml files describe, by name. Reads no database and runs no dbt."""
    models: dict[str, Model] = {}
    for path in sorted((settings.dbt / "models").rglob("*.yml")):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise BadInput(f"{path} is not readable as YAML ({getattr(error, 'problem', error)}).") from None
        for model in content.get("models", []):
            unnamed = [part for part in (model, *model.get("columns", [])) if "name" not in part]
            if unnamed:
                raise BadInput(f"{path}: every model and every column begins with '- name:', unlike {unnamed[0]}.")
            models[model["name"]] = Model(
                name=model["name"],
                description=str(model.get("description", "")).strip(),
                columns=tuple(column["name"] for column in model.get("columns", [])),
                meta=dict(model.get("config", {}).get("meta", {}).get("tiltyard", {})),
                types={column["name"]: str(column.get("data_type", "")) for column in model.get("columns", [])},
            )
    return models


def check_spec(settings: Settings, spec: Spec) -> None:
    """Does the dbt project have what the spec names? Raises BadInput saying what to mend, with close names."""
    models = project(settings)
    queries = {path.stem for path in (settings.dbt / "models").rglob("*.sql")}
    where = f"{settings.models / spec.name / 'spec.yaml'}"

    def known(name: str, what: str, prefix: str) -> Model:
        return _known(models, queries, name, what, prefix, where)

    spine = known(spec.prediction.spine, "spine", "spn_")
    views = [known(name, "feature view", "ftr_") for name in spec.prediction.features]
    label = known(spec.label.table, "label table", "lbl_")
    if spec.key not in spine.columns:
        raise BadInput(
            f"{where}: the entity is {spec.entity}, but {spine.name} has no column {spec.key}; "
            "mend the entity, or add the column to the model and its .yml."
        )
    for column in ("prediction_time", "available_at"):
        _has(spine, column, where)
    for column in (spec.key, "prediction_time", "label", "event_time", "available_at"):
        _has(label, column, where)
    if wrong := spec.target.wrong_type(label.types.get("label")):
        raise BadInput(f"{where}: label: {label.name} is given {wrong}; mend the spec, or the label's data_type.")
    if spec.fallback.popular is not None:
        items = known(spec.fallback.popular.table, "table of popular items", "pop_")
        for column in ("item_id", "item_name", "score", "event_time", "available_at"):
            _has(items, column, where)
    for view in views:
        key = feature_key(view.name)
        for column in (key, "event_time", "available_at"):
            _has(view, column, where)
        if key not in spine.columns:
            raise BadInput(
                f"{where}: {view.name} is keyed by {key}, which the spine {spine.name} does not have; "
                f"add {key} to {spine.name} or take the view out."
            )
    seen: dict[str, str] = {}
    for view in views:
        for column in set(view.columns) - {feature_key(view.name), *RESERVED}:
            if seen.setdefault(column, view.name) != view.name:
                raise BadInput(f"{where}: {view.name} and {seen[column]} both have a feature {column}; rename one.")
    for name in spec.gate.slices:
        if name not in seen:
            raise BadInput(f"{where}: gate.slices: no feature view has a column '{name}'{_close_to(name, seen)}")
    for part in ("horizon", "delay"):
        made_for, promised = label.meta.get(part), getattr(spec.label, part)
        if made_for is not None and clock.parse_duration(made_for) != promised:
            raise BadInput(
                f"{where}: label.{part} is {clock.format_duration(promised)}, but {label.name} is made for "
                f"{made_for}; give both the same."
            )
    sources = _sources(settings)
    if spec.source not in sources:
        raise BadInput(f"{where}: the dbt project has no source '{spec.source}'{_close_to(spec.source, sources)}")
    card = settings.models / spec.name / "card.md"
    if not card.is_file():
        raise BadInput(f"{card} is missing; write what {spec.name} is for, why this label, and its known limits.")


RESERVED = ("prediction_time", "event_time", "available_at", "ingested_at", "built_at")
"""Columns of a feature view that are no features."""


def _sources(settings: Settings) -> list[str]:
    """The folders of dbt/models/staging: one per source."""
    return sorted(path.name for path in (settings.dbt / "models" / "staging").iterdir() if path.is_dir())


def _known(models: Mapping[str, Model], queries: set[str], name: str, what: str, prefix: str, where: str) -> Model:
    if name in models and name in queries:
        return models[name]
    if name in queries:
        raise BadInput(f"{where}: {name} has its SQL, but no .yml describes it; write {name}.yml beside {name}.sql.")
    if name in models:
        raise BadInput(f"{where}: {name} has its .yml, but no SQL; write {name}.sql beside {name}.yml.")
    names = [model for model in models if model.startswith(prefix)]
    raise BadInput(f"{where}: the dbt project has no {what} '{name}'{_close_to(name, names)}")


def _has(model: Model, column: str, where: str) -> None:
    if column not in model.columns:
        raise BadInput(f"{where}: {model.name} has no column {column}; add it to the model and its .yml.")


def _close_to(name: str, names: Any) -> str:
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(sorted(names))}." if names else "; there are none."


def _node(result: Any) -> dict[str, Any]:
    message = _contract_broken(str(result.message or "")) or " ".join(str(result.message or "").split())
    return {
        "name": result.node.name,
        "type": str(result.node.resource_type),
        "status": str(result.status),
        "seconds": result.execution_time,
        "message": message[:400],
    }


_MISMATCH = re.compile(
    r"^\s*\| *(\w+) *\| *(.*?) *\| *(.*?) *\| *(missing in \w+|data type mismatch) *\|", re.MULTILINE
)


def _contract_broken(message: str) -> str:
    """dbt's table of columns that differ from the contract, in words; "" for any other message."""
    said = {"missing in definition": "not in the SQL", "missing in contract": "not in the .yml"}
    return ", ".join(
        f"column {name} is {said.get(reason) or f'{given} in the SQL, {promised} in the .yml'}"
        for name, given, promised, reason in _MISMATCH.findall(message)
    )


def _profile(settings: Settings) -> dict[str, str]:
    """What dbt/profiles.yml reads from the environment: no secret, for dbt prints what it cannot read."""
    return {
        "TILTYARD_DBT_LAKE": lake.address(settings),
        "TILTYARD_DBT_DATA": settings.lake_path,
        "TILTYARD_DBT_THREADS": str(settings.threads),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _close(manager: Any) -> None:
    """dbt-duckdb keeps its database open for the process; the next build, or another home, opens its own."""
    with manager._LOCK:
        environment, manager._ENV = manager._ENV, None
    if environment is not None:
        environment.close()


def macro_path(settings: Settings) -> Path:
    return settings.dbt / "macros"
