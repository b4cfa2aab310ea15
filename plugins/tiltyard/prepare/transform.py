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
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from tiltyard.records import Record
from tiltyard.settings import Settings
from tiltyard.spec import Spec, feature_key

RESERVED = ("prediction_time", "event_time", "available_at", "ingested_at", "built_at")
"""Columns of a feature view that are no features."""
_GOOD = {"success", "pass", "warn", "skipped", "no-op"}
"""What dbt calls a node that went well."""


@dataclass(frozen=True)
class Model:
    """What the dbt project says of one table."""

    name: str
    """Name of the table, without its schema."""
    description: str
    """Its description; empty where the .yml has none."""
    columns: tuple[str, ...]
    """Columns that the .yml describes, in its order."""
    promises: Mapping[str, str] = field(default_factory=dict)
    """`config.meta.tiltyard`: of a label table, `horizon` and `delay` as durations, like `14d`."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Column → its data_type; empty text where the .yml has none."""


@dataclass(frozen=True)
class Node:
    """How one node of a dbt command went."""

    name: str
    """Name of the model or test."""
    type: str
    """Kind of node, as dbt calls it: model, snapshot, test, unit_test."""
    status: str
    """How it went, as dbt calls it."""
    seconds: float
    """Time that it took, in seconds."""
    message: str
    """What dbt said of it, on one line; may be empty."""


@dataclass(frozen=True, kw_only=True)
class BuildSummary(Record):
    """What one build brought up to date."""

    models: int
    """Number of models and snapshots."""
    tests: int
    """Number of tests that were run."""
    seconds: float
    """Time that it took, in seconds."""
    slowest: Mapping[str, float]
    """The three models that took longest → seconds."""
    as_of: datetime
    """Instant at which the night closes that asked for it."""


def build(rails: Rails, sources: Sequence[str], as_of: datetime, full_refresh: bool = False) -> BuildSummary:
    """Bring every model of `sources` up to what has landed. Safe to repeat, to kill and to start twice.

    The nodes do not depend on `as_of`; the last instant that has landed is read from the lake. Raises BadInput when
    there is nothing to build, CheckFailed naming the nodes that failed.
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
        nodes = invoke(rails.settings, "build", "--exclude-resource-type", "unit_test", *arguments)
    _keep_manifest(rails.settings)
    if not nodes:
        raise BadInput(f"dbt has nothing that reads {', '.join(sources)}; name a source of {rails.settings.dbt}.")
    models = [node for node in nodes if node.type in ("model", "snapshot")]
    slowest = sorted(models, key=lambda node: -node.seconds)[:3]
    return BuildSummary(
        models=len(models),
        tests=sum(node.type == "test" for node in nodes),
        seconds=round(time.monotonic() - began, 2),
        slowest={node.name: round(node.seconds, 2) for node in slowest},
        as_of=as_of,
    )


@contextmanager
def alone(rails: Rails) -> Iterator[None]:
    """Wait until nobody builds, and let nobody build meanwhile.

    A model takes up what was written since its own newest row, so two builds at once would both add it. A snapshot
    is taken in here as well: between the tables of a build, some are of this batch and some of the last one.
    """
    with rails.lake.exclusive("build"):
        yield


def invoke(settings: Settings, command: str, *arguments: str) -> list[Node]:
    """Run one dbt command in process. Returns the nodes that it ran.

    Raises CheckFailed naming the first nodes that failed, each with dbt's message; BadInput when the project does not
    parse.
    """
    # dbt takes 1.7 s to import, and only a build needs it
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
    failed = [node for node in nodes if node.status not in _GOOD]
    if failed:
        reasons = "; ".join(f"{node.name}: {node.message}" for node in failed[:5])
        raise CheckFailed(f"dbt failed at {len(failed)} node(s): {reasons}. Mend them and run the stage again.")
    if outcome.exception is not None or not outcome.success:
        reason = " ".join(str(outcome.exception or "no reason given").split())
        raise BadInput(f"dbt does not run: {reason[:600]} (log: {work / 'logs' / 'dbt.log'}).")
    return nodes


def manifest(settings: Settings) -> dict[str, Any]:
    """dbt's manifest of the last build here; before the first one, of the project as it is (parsed in 3 s)."""
    path = settings.home / "dbt" / "manifest.json"
    if not path.exists():
        invoke(settings, "parse")
        _keep_manifest(settings)
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
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
                promises={
                    name: str(value)
                    for name, value in model.get("config", {}).get("meta", {}).get("tiltyard", {}).items()
                },
                types={column["name"]: str(column.get("data_type", "")) for column in model.get("columns", [])},
            )
    return models


def check_spec(settings: Settings, spec: Spec) -> None:
    """Does the dbt project have what the spec names? Raises BadInput saying what to mend, with close names."""
    models = project(settings)
    queries = {path.stem for path in (settings.dbt / "models").rglob("*.sql")}
    where = f"{settings.models / spec.name / 'spec.yaml'}"

    def model(name: str, what: str, prefix: str) -> Model:
        return _model(models, queries, name, what, prefix, where)

    spine = model(spec.prediction.spine, "spine", "spn_")
    views = [model(name, "feature view", "ftr_") for name in spec.prediction.features]
    label = model(spec.label.table, "label table", "lbl_")
    if spec.key not in spine.columns:
        raise BadInput(
            f"{where}: the entity is {spec.entity}, but {spine.name} has no column {spec.key}; "
            "mend the entity, or add the column to the model and its .yml."
        )
    for column in ("prediction_time", "available_at"):
        _has(spine, column, where)
    _check_label(spec, label, where)
    if spec.fallback.popular is not None:
        items = model(spec.fallback.popular.table, "table of popular items", "pop_")
        for column in ("item_id", "item_name", "score", "event_time", "available_at"):
            _has(items, column, where)
    _check_views(spec, spine, views, where)
    sources = _sources(settings)
    if spec.source not in sources:
        raise BadInput(f"{where}: the dbt project has no source '{spec.source}'{_close_to(spec.source, sources)}")
    card = settings.models / spec.name / "card.md"
    if not card.is_file():
        raise BadInput(f"{card} is missing; write what {spec.name} is for, why this label, and its known limits.")


def _check_label(spec: Spec, label: Model, where: str) -> None:
    """The label table has its columns, and speaks of the same kind of label and the same times as the spec."""
    for column in (spec.key, "prediction_time", "label", "event_time", "available_at"):
        _has(label, column, where)
    if wrong := spec.target.wrong_type(label.types.get("label")):
        raise BadInput(f"{where}: label: {label.name} is given {wrong}; mend the spec, or the label's data_type.")
    for part, duration in (("horizon", spec.label.horizon), ("delay", spec.label.delay)):
        made_for = label.promises.get(part)
        if made_for is not None and clock.parse_duration(made_for) != duration:
            raise BadInput(
                f"{where}: label.{part} is {clock.format_duration(duration)}, but {label.name} is made for "
                f"{made_for}; give both the same."
            )


def _check_views(spec: Spec, spine: Model, views: Sequence[Model], where: str) -> None:
    """Every view has its key in the spine, no two views share a feature, and the gate's slices are features."""
    for view in views:
        key = feature_key(view.name)
        for column in (key, "event_time", "available_at"):
            _has(view, column, where)
        if key not in spine.columns:
            raise BadInput(
                f"{where}: {view.name} is keyed by {key}, which the spine {spine.name} does not have; "
                f"add {key} to {spine.name} or take the view out."
            )
    view_of: dict[str, str] = {}
    for view in views:
        for column in set(view.columns) - {feature_key(view.name), *RESERVED}:
            first = view_of.setdefault(column, view.name)
            if first != view.name:
                raise BadInput(f"{where}: {view.name} and {first} both have a feature {column}; rename one.")
    for name in spec.gate.slices:
        if name not in view_of:
            raise BadInput(f"{where}: gate.slices: no feature view has a column '{name}'{_close_to(name, view_of)}")


def _sources(settings: Settings) -> list[str]:
    """The folders of dbt/models/staging: one per source."""
    return sorted(path.name for path in (settings.dbt / "models" / "staging").iterdir() if path.is_dir())


def _model(models: Mapping[str, Model], queries: set[str], name: str, what: str, prefix: str, where: str) -> Model:
    """The model called `name`, which has both its SQL and its .yml. Raises BadInput otherwise."""
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


def _close_to(name: str, names: Iterable[str]) -> str:
    """The end of a sentence that says which names there are: the close ones, or else all."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(names)}." if names else "; there are none."


def _node(result: Any) -> Node:
    """dbt's result of one node, which is typed nowhere."""
    message = str(result.message or "")
    return Node(
        name=result.node.name,
        type=str(result.node.resource_type),
        status=str(result.status),
        seconds=result.execution_time,
        message=(_contract_broken(message) or " ".join(message.split()))[:400],
    )


_MISMATCH = re.compile(
    r"^\s*\| *(\w+) *\| *(.*?) *\| *(.*?) *\| *(missing in \w+|data type mismatch) *\|", re.MULTILINE
)


def _contract_broken(message: str) -> str:
    """dbt's table of columns that differ from the contract, in words; "" for any other message."""
    reasons = {"missing in definition": "not in the SQL", "missing in contract": "not in the .yml"}
    return ", ".join(
        f"column {name} is {reasons.get(reason) or f'{given} in the SQL, {promised} in the .yml'}"
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
    """Environment variables for as long as dbt runs, and then as they were."""
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
    """The folder of the dbt project's macros."""
    return settings.dbt / "macros"
