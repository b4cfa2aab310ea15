"""dbt in process: raw tables to staging, spines, feature views and labels.

The project is in dbt/; its working files (target, logs, the partial parse) lie under the home, never in the
checkout. Every model is bitemporal, so that one build serves every `as_of`, and is brought up to date by affected
entity: a build after a night costs what the night brought.
"""

import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from tiltyard import damage, lake
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.files import whole
from tiltyard.prepare import graph, rebuilding
from tiltyard.prepare.rebuilding import Plan, Text
from tiltyard.rails import Rails
from tiltyard.records import Record
from tiltyard.settings import Settings
from tiltyard.words import counted, listed

log = logging.getLogger(__name__)

GRACE_S = 60.0
"""Seconds in which dbt comes to its end once its limit has passed."""
AGAIN_S = 1.0
"""Seconds after which what still runs is interrupted again."""
PARSED = "partial_parse.msgpack"
"""What dbt calls the file of what it has parsed."""
DOCUMENT = "docs generate"
"""dbt's command for its pages."""
TESTS = ("resource_type:test", "resource_type:unit_test")
"""How dbt selects its tests."""
_TOO_LONG = (
    "dbt was ended at {node}: it took longer than TILTYARD_BUILD_TIMEOUT_S ({limit:g} s) for its source. Make its SQL "
    "quicker, or raise the limit"
)
_GOOD = {"success", "pass", "warn", "skipped", "no-op"}
"""What dbt calls a node that went well."""


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
    tables: tuple[str, ...] = ()
    """The tables at fault when it fails: a model is its own, a test is that of the models that it reads."""
    reads: tuple[str, ...] = ()
    """The tables that it reads."""

    @property
    def is_good(self) -> bool:
        return self.status in _GOOD


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
    failed: Mapping[str, str] = field(default_factory=dict)
    """Table that dbt could not build, or whose test failed, or that stays as it is → why."""
    rebuilt: Mapping[str, str] = field(default_factory=dict)
    """Table that was made anew, with all its rows → why."""


def build(
    rails: Rails,
    sources: Sequence[str],
    as_of: datetime,
    full_refresh: bool = False,
    rebuild: Collection[str] = (),
) -> BuildSummary:
    """Bring every model of `sources` up to what has landed. Safe to repeat, to kill and to start twice.

    A table whose text has changed since it was built, or that is named in `rebuild`, is made anew with all its rows,
    and so is what is made of it (see `rebuilding`). The nodes do not depend on `as_of`; the last instant that has
    landed is read from the lake. A node that fails, or is ended since dbt took too long, leaves its table and what is
    made of it as they were, and stops no other. Raises BadInput when there is nothing to build, CheckFailed for a node
    that fails and is no table's, Unavailable when others have been building for longer than they may.
    """
    if not sources:
        raise BadInput("There is no source to build; set TILTYARD_SOURCES, like TILTYARD_SOURCES=incident.")
    began = time.monotonic()
    limit = rails.settings.build_timeout_s
    with alone(rails), _ended_after(limit) as ended:
        nodes, plan = _built(rails, sources, full_refresh, rebuild)
    if not nodes and not plan.refused:
        raise BadInput(f"dbt has nothing that reads {', '.join(sources)}; name a source of {rails.settings.dbt}.")
    failed = [node for node in nodes if not node.is_good]
    _complain([node for node in failed if not node.tables])
    damaged = _damaged(rails, failed)
    models = [node for node in nodes if node.type in ("model", "snapshot")]
    anew = {node.name for node in models if node.status == "success"}
    slowest = sorted(models, key=lambda node: -node.seconds)[:3]
    return BuildSummary(
        models=len(models),
        tests=sum(node.type == "test" for node in nodes),
        seconds=round(time.monotonic() - began, 2),
        slowest={node.name: round(node.seconds, 2) for node in slowest},
        as_of=as_of,
        failed={
            table: _TOO_LONG.format(node=node.name, limit=limit)
            if ended.is_set() and "nterrupt" in node.message
            else damaged.get(node.name) or f"dbt failed at {node.name}: {node.message or node.status}"
            for node in failed
            for table in node.tables
        }
        | {**plan.refused},
        rebuilt={table: why for table, why in plan.rebuilt.items() if table in anew},
    )


def _damaged(rails: Rails, failed: Sequence[Node]) -> dict[str, str]:
    """Node that met a damaged file of the lake → what is said of that file."""
    found = {
        node.name: damage.met(rails.settings, rails.ledger, node.message, (*node.reads, *node.tables))
        for node in failed
        if node.message
    }
    return {name: str(one) for name, one in found.items() if one}


def _built(
    rails: Rails, sources: Sequence[str], full_refresh: bool, rebuild: Collection[str]
) -> tuple[list[Node], Plan]:
    """(the nodes that were run, what was made anew): first what is brought up to date, then what is made anew, which
    nothing of the former is made of."""
    selection = [argument for source in sources for argument in ("--select", f"source:{source}+")]
    arguments = [*selection, "--exclude-resource-type", "unit_test", *(["--full-refresh"] if full_refresh else [])]
    digest, texts, plan = rebuilding.texts_digest(rails.settings.dbt), {}, Plan()
    is_known = rebuilding.is_known(rails, sources, digest)
    if rebuild or not is_known:
        texts = _texts(rails.settings, selection)
        plan = rebuilding.plan(rails, texts, rebuild) if not full_refresh else plan
    for table, why in plan.rebuilt.items():
        log.info("%s is made anew with all its rows: %s", table, why)
    moment = rails.ledger.moment()
    nodes = _run(rails.settings, "build", *arguments, "--exclude", "tag:reference", *plan.apart, built_at=moment)
    if plan.rebuilt:
        rebuilding.begin(rails, plan, moment)
        whole = ("--full-refresh", "--exclude-resource-type", "unit_test", "--select", *plan.rebuilt)
        nodes += _run(rails.settings, "build", *whole, "--exclude", "tag:reference", *plan.refused, built_at=moment)
    _keep_manifest(rails.settings)
    if texts:
        built = {node.name for node in nodes if node.type == "model" and node.status == "success"}
        rebuilding.keep(rails, sources, digest, texts, plan, built, moment)
    return nodes, plan


def _texts(settings: Settings, selection: Sequence[str]) -> dict[str, Text]:
    """What makes each of the selected tables, as dbt compiles it for all rows. What does not compile is left out: the
    build says so."""
    results = _results(settings, "compile", *selection, "--full-refresh", "--exclude", "tag:reference", *TESTS)
    return {
        text.name: text
        for result in results
        if (text := _text(result.node)) is not None and str(result.status) == "success"
    }


def _text(node: Any) -> Text | None:
    """What makes the table of a node; None of one that makes none of its own, like an ephemeral model."""
    if not node.compiled_code or node.config.materialized == "ephemeral":
        return None
    keys = node.config.unique_key or ()
    return Text(
        name=str(node.name),
        table=f"{node.schema}.{node.alias}",
        relation=str(node.relation_name),
        sql=str(node.compiled_code),
        columns={name: str(column.data_type or "") for name, column in node.columns.items()},
        is_whole=bool(node.config.contract.enforced),
        keys=(keys,) if isinstance(keys, str) else tuple(keys),
        parents=frozenset(_reads(node)),
    )


@contextmanager
def alone(rails: Rails) -> Iterator[None]:
    """Wait until nobody builds, and let nobody build meanwhile.

    A model takes up what was written since its own newest row, so two builds at once would both add it. A snapshot
    is taken in here as well: between the tables of a build, some are of this batch and some of the last one. A build
    has its limit, so that nobody waits for longer than every source may take. Raises Unavailable when somebody does.
    """
    settings = rails.settings
    with rails.lake.exclusive("build", (settings.build_timeout_s + GRACE_S) * (len(settings.sources) + 1)):
        yield


@contextmanager
def _ended_after(limit_s: float) -> Iterator[threading.Event]:
    """From `limit_s` seconds on, what dbt's connections run is interrupted: the node that hangs, and again and again
    what comes after it, so that the command comes to its end. Yields the event that is set when that has begun."""
    begun, over = threading.Event(), threading.Event()

    def watch() -> None:
        if over.wait(limit_s):
            return
        from dbt.adapters.factory import FACTORY

        begun.set()
        while True:
            adapters: list[Any] = list(FACTORY.adapters.values())
            for adapter in adapters:
                adapter.cancel_open_connections()
            if over.wait(AGAIN_S):
                return

    watcher = threading.Thread(target=watch, name="dbt's limit", daemon=True)
    watcher.start()
    try:
        yield begun
    finally:
        over.set()
        watcher.join()


def invoke(settings: Settings, command: str, *arguments: str) -> list[Node]:
    """Run one dbt command in process. Returns the nodes that it ran.

    Raises CheckFailed naming the first nodes that failed, each with dbt's message; BadInput when the project does not
    parse.
    """
    nodes = _run(settings, command, *arguments)
    _complain([node for node in nodes if not node.is_good])
    return nodes


def _complain(failed: Sequence[Node]) -> None:
    """Raises CheckFailed naming the first of the nodes that failed, if there is one."""
    if failed:
        reasons = listed([f"{node.name}: {node.message}" for node in failed], "; ")
        raise CheckFailed(
            f"dbt failed at {counted(len(failed), 'node')}: {reasons}. Mend them and run the stage again."
        )


def document(settings: Settings, work: Path) -> None:
    """Let dbt write its documentation of a project, as one page, into `work`. Raises BadInput where that does not
    parse."""
    _run(settings, DOCUMENT, "--empty-catalog", "--static", work=work)


def parse(settings: Settings, work: Path) -> None:
    """Let dbt read a project and say whether it holds together; its working files go to `work`. Raises BadInput."""
    _run(settings, "parse", work=work)
    circle = graph.circle(json.loads((work / "target" / "manifest.json").read_text(encoding="utf-8")))
    if circle:
        names = " reads ".join(str(node["name"]) for node in (*circle, circle[0]))
        files = ", ".join(f"{settings.dbt.name}/{node['original_file_path']}" for node in circle)
        raise BadInput(f"Tables read each other in a circle: {names}. Take a ref out of one of {files}.")


def _run(
    settings: Settings, command: str, *arguments: str, work: Path | None = None, built_at: datetime | None = None
) -> list[Node]:
    """The nodes that one dbt command ran, good or not. Raises as `_results` does."""
    return [_node(result) for result in _results(settings, command, *arguments, work=work, built_at=built_at)]


def _results(
    settings: Settings, command: str, *arguments: str, work: Path | None = None, built_at: datetime | None = None
) -> list[Any]:
    """What one dbt command says of each of its nodes, good or not; `built_at` is the stamp of what it builds. Raises
    BadInput when dbt does not get so far."""
    # dbt takes 1.7 s to import, and only a build needs it
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    from tiltyard.prepare import dbt_plugin

    work = work or settings.home / "dbt"
    _begin_with_parsed(settings, work / "target")
    flags = ["--project-dir", str(settings.dbt), "--profiles-dir", str(settings.dbt), "--log-path", str(work / "logs")]
    flags += ["--target-path", str(work / "target"), "--log-level", "none", "--log-level-file", "info"]
    flags.append("--write-json" if command in ("build", "parse", DOCUMENT) else "--no-write-json")
    with _environment(_profile(settings)), dbt_plugin.connecting(settings, built_at):
        try:
            outcome = dbtRunner().invoke([*command.split(), *flags, *arguments])
        finally:
            _close(DuckDBConnectionManager)
    results = getattr(outcome.result, "results", None) or []
    if outcome.exception is not None or (not outcome.success and all(_node(result).is_good for result in results)):
        reason = " ".join(str(outcome.exception or "no reason given").split())
        raise BadInput(f"dbt does not run: {reason[:600]} (log: {work / 'logs' / 'dbt.log'}).")
    return list(results)


def _begin_with_parsed(settings: Settings, target: Path) -> None:
    """Where dbt has parsed nothing yet, give it what it has parsed for the home's other folder: it reads those files
    anew that differ, by their digests, and not the whole project, which takes 10 s."""
    target.mkdir(parents=True, exist_ok=True)
    own = target / PARSED
    for other in (settings.home / "dbt", trial(settings)):
        known = other / "target" / PARSED
        if not own.exists() and known.exists():
            with whole(own) as part:
                shutil.copyfile(known, part)


def trial(settings: Settings) -> Path:
    """Where dbt works when it is asked whether a project holds together."""
    return settings.home / "dbt" / "trial"


def manifest(settings: Settings) -> dict[str, Any]:
    """dbt's manifest of the last build here; before the first one, of the project as it is (parsed in 3 s). It is read
    again when there is another, and shared: nobody changes it."""
    path = manifest_path(settings)
    return _read_manifest(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read_manifest(path: Path, modified_ns: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def manifest_path(settings: Settings) -> Path:
    """Where it lies. Parses the project where it was never built or parsed here."""
    path = _manifest(settings)
    if not path.exists():
        invoke(settings, "parse")
        _keep_manifest(settings)
    return path


def was_built(settings: Settings) -> bool:
    """Whether the project was ever built or parsed here."""
    return _manifest(settings).exists()


def _manifest(settings: Settings) -> Path:
    return settings.home / "dbt" / "manifest.json"


def _keep_manifest(settings: Settings) -> None:
    """Put what dbt wrote where it is read: whole or not at all, so that a reader never sees half of the next one."""
    work = settings.home / "dbt"
    with whole(work / "manifest.json") as part:
        shutil.copyfile(work / "target" / "manifest.json", part)


def _node(result: Any) -> Node:
    """dbt's result of one node, which is typed nowhere."""
    message = str(result.message or "")
    return Node(
        name=result.node.name,
        type=str(result.node.resource_type),
        status=str(result.status),
        seconds=result.execution_time,
        message=(_contract_broken(message) or " ".join(message.split()))[:400],
        tables=_tables(result.node),
        reads=_reads(result.node),
    )


def _reads(node: Any) -> tuple[str, ...]:
    """The tables that a node of dbt's reads."""
    parts = (key.split(".") for key in node.depends_on.nodes)
    return tuple(f"raw.{key[-1]}" if key[0] == "source" else key[2] for key in parts)


def _tables(node: Any) -> tuple[str, ...]:
    """The tables that are at fault when a node of dbt's fails."""
    if str(node.resource_type) in ("model", "snapshot", "seed"):
        return (str(node.name),)
    if str(node.resource_type) != "test":
        return ()
    attached = getattr(node, "attached_node", None)
    keys = [attached] if attached else node.depends_on.nodes
    return tuple(key.split(".")[2] for key in keys if key.split(".")[0] in ("model", "snapshot", "seed"))


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
    """What dbt/profiles.yml reads from the environment: no secret, for dbt prints what it cannot read. One of a release
    from before attaches the lake by its address; by now the plugin does."""
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
