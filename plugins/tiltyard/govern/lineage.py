"""What each model of the portfolio reads of the graph of tables (prepare/graph.py), column by column. Pure.

Columns are followed by name, through the words of each table's SQL and the columns that it declares: a column that a
table neither names nor declares ends there, one that is named and does not come out under its name may be in any column
from there on.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tiltyard.prepare import graph
from tiltyard.prepare.graph import Graph
from tiltyard.spec import Spec

Words = frozenset[str]


@dataclass(frozen=True)
class Lineage(Graph):
    """Tables, and models on top of them."""

    models: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Model → feature views, spine and label table of its spec."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Model → its label table."""
    words: Mapping[str, Words] = field(default_factory=dict)
    """Table → every word of its SQL, in lower case."""
    columns: Mapping[str, Words] = field(default_factory=dict)
    """Table → the columns that come out of it."""

    @classmethod
    def of(cls, manifest: Mapping[str, Any], specs: Iterable[Spec] = ()) -> "Lineage":
        """From the content of dbt's manifest.json (schema v12)."""
        built = graph.built(manifest).values()
        specs = tuple(specs)
        return cls(
            parents=graph.parents(manifest),
            models={spec.name: frozenset(spec.tables) for spec in specs},
            labels={spec.name: spec.label.table for spec in specs},
            words={node["name"]: _words(node.get("raw_code", "")) for node in built},
            columns={node["name"]: frozenset(node.get("columns", ())) for node in built},
        )

    def readers(self, node: str) -> frozenset[str]:
        """The models that read something that stands on `node`."""
        return self._readers.get(node, frozenset())

    def reaches(self, node: str, column: str | None, model: str) -> bool:
        """Does anything that the model reads come from `node`, or from this column of it?

        What the manifest does not know is taken to reach everybody, and so is a column that no SQL names: it may
        hide in a macro.
        """
        tables = self.models.get(model)
        if node not in self.parents or tables is None or not tables <= self.parents.keys():
            return True
        if node in tables:
            return True
        if model not in self.readers(node):
            return False
        carried = self._carrying(node, column.lower()) if column else frozenset()
        return not carried or not tables.isdisjoint(carried)

    def _carrying(self, node: str, column: str) -> frozenset[str]:
        """The tables below `node` in which the column, or what was made of it, may be."""
        children = self._children
        visited: set[tuple[str, bool]] = set()
        carrying: set[str] = set()
        waiting: list[tuple[str, bool]] = [(child, True) for child in children.get(node, ())]
        while waiting:
            table, by_name = step = waiting.pop()
            comes_out = column in self.columns.get(table, frozenset())  # by a `select *`, perhaps: no word of it
            if step in visited or (by_name and not comes_out and column not in self.words.get(table, {column})):
                continue
            visited.add(step)
            carrying.add(table)
            goes_on = by_name and comes_out
            waiting += [(child, goes_on) for child in children.get(table, ())]
        return frozenset(carrying)

    @cached_property
    def _children(self) -> dict[str, tuple[str, ...]]:
        below: dict[str, list[str]] = {}
        for table, above in sorted(self.parents.items()):
            for parent in above:
                below.setdefault(parent, []).append(table)
        return {table: tuple(children) for table, children in below.items()}

    @cached_property
    def _readers(self) -> dict[str, frozenset[str]]:
        readers: dict[str, set[str]] = {}
        for model, tables in self.models.items():
            for table in tables:
                for node in self._up.get(table, frozenset((table,))):
                    readers.setdefault(node, set()).add(model)
        return {node: frozenset(models) for node, models in readers.items()}


def _words(code: str) -> Words:
    return frozenset(re.findall(r"\w+", code.lower()))
