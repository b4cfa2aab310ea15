"""Which table stands on which: dbt's manifest as a small graph, and what each model of the portfolio reads of it. Pure.

Sources are named as the lake names them, like `raw.login`; what dbt builds by its own name, like
`ftr_customer__activity`. What the project writes itself (`ops.*`) is nobody's upstream. Columns are followed by name,
through the words of each table's SQL and the columns that it declares: a column that a table neither names nor declares
ends there, one that is named and does not come out under its name may be in any column from there on.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tiltyard.errors import BadInput
from tiltyard.spec import Spec

Words = frozenset[str]


@dataclass(frozen=True)
class Lineage:
    """Tables, and models on top of them."""

    parents: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Table → the tables that it reads."""
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
        named: dict[str, str] = {}
        for key, source in manifest["sources"].items():
            if source["schema"] != "ops":
                named[key] = f"{source['schema']}.{source['identifier']}"
        built = {
            key: node
            for key, node in manifest["nodes"].items()
            if node["resource_type"] in ("model", "snapshot", "seed")
        }
        named |= {key: node["name"] for key, node in built.items()}
        parents: dict[str, frozenset[str]] = {name: frozenset() for name in named.values()}
        for key, node in built.items():
            read = node.get("depends_on", {}).get("nodes", ())
            parents[named[key]] = frozenset(named[parent] for parent in read if parent in named)
        specs = tuple(specs)
        return cls(
            parents=parents,
            models={
                spec.name: frozenset((*spec.prediction.features, spec.prediction.spine, spec.label.table))
                for spec in specs
            },
            labels={spec.name: spec.label.table for spec in specs},
            words={named[key]: _words(node.get("raw_code", "")) for key, node in built.items()},
            columns={named[key]: frozenset(node.get("columns", ())) for key, node in built.items()},
        )

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
