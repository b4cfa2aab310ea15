"""Which table stands on which: dbt's manifest as a small graph. Pure.

Sources are named as the lake names them, like `raw.login`; what dbt builds by its own name, like
`ftr_customer__activity`. What the project writes itself (`ops.*`) is nobody's upstream.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

from tiltyard.errors import BadInput


@dataclass(frozen=True)
class Graph:
    """Tables, each with those that it reads."""

    parents: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Table → the tables that it reads."""

    def upstream(self, table: str) -> frozenset[str]:
        """The table and everything that it stands on. Raises BadInput for a table that the project does not have."""
        if table not in self.parents:
            raise BadInput(
                f"dbt's manifest has no table '{table}'; write it under dbt/models and build with tiltyard features."
            )
        return self._up[table]

    def common(self, tables: Iterable[str]) -> tuple[str, ...]:
        """What all of these stand on, or are: the most downstream first. Raises BadInput as `upstream` does."""
        shared = [self.upstream(table) for table in tables]
        common = frozenset.intersection(*shared) if shared else frozenset()
        return tuple(sorted(common, key=lambda table: (-self.depth(table), table)))

    def stands_on(self, table: str, node: str) -> bool:
        """Is `node` the table, or above it? False for a table that nobody knows."""
        return node == table or node in self._up.get(table, frozenset())

    def depth(self, table: str) -> int:
        """How many tables it stands on: of two where one stands on the other, the lower one has more."""
        return len(self._up.get(table, frozenset()))

    def below(self, nodes: Collection[str]) -> tuple[str, ...]:
        """These tables and everything that stands on one of them, what stands on another after it."""
        chosen = frozenset(nodes)
        tables = (table for table, above in self._up.items() if not chosen.isdisjoint(above))
        return tuple(sorted(tables, key=lambda table: (self.depth(table), table)))

    @cached_property
    def _up(self) -> dict[str, frozenset[str]]:
        up: dict[str, frozenset[str]] = {}

        def climb(table: str) -> frozenset[str]:
            if table not in up:
                above = (climb(parent) for parent in self.parents.get(table, ()))
                up[table] = frozenset((table,)).union(*above)
            return up[table]

        for table in self.parents:
            climb(table)
        return up


def names(manifest: Mapping[str, Any]) -> dict[str, str]:
    """dbt's unique id → table, of sources, models, snapshots and seeds (manifest.json, schema v12)."""
    sources = {
        key: f"{source['schema']}.{source['identifier']}"
        for key, source in manifest["sources"].items()
        if source["schema"] != "ops"
    }
    return sources | {key: node["name"] for key, node in built(manifest).items()}


def sources(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Raw table → its source."""
    named = names(manifest)
    return {named[key]: str(entry["source_name"]) for key, entry in manifest["sources"].items() if key in named}


def built(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """dbt's unique id → node, of those that make a table."""
    kinds = ("model", "snapshot", "seed")
    return {key: node for key, node in manifest["nodes"].items() if node["resource_type"] in kinds}


def parents(manifest: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Table → the tables that it reads."""
    named = names(manifest)
    above: dict[str, frozenset[str]] = {name: frozenset() for name in named.values()}
    for key, node in built(manifest).items():
        read = node.get("depends_on", {}).get("nodes", ())
        above[named[key]] = frozenset(named[parent] for parent in read if parent in named)
    return above


def circle(manifest: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Nodes of which each is read by the one before it, and the first by the last; empty where there is no such
    circle. dbt parses a project that has one, and cannot build it."""
    nodes = built(manifest)
    try:
        TopologicalSorter({key: node.get("depends_on", {}).get("nodes", ()) for key, node in nodes.items()}).prepare()
    except CycleError as error:
        keys: list[str] = error.args[1]
        return tuple(nodes[key] for key in reversed(keys[1:]))
    return ()
