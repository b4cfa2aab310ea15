"""Which columns say whom a row is about: by the specs, by the lineage of the dbt project, and by the contracts.

An entity is whom a model's predictions are about (`entity:` in its spec), and `<entity>_id` is its key in spine, label
table and feature views. Which columns of staging and raw carry that key follows from the SQL. What no SQL tells, a
contract says of the column: `identifies: customer`. A column that identifies somebody and of which nobody says whom,
in a table that no key of the entity leads to, is a doubt: whoever erases must not pass it over.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tiltyard.errors import BadInput
from tiltyard.lake import qualified
from tiltyard.prepare import columns, contracts
from tiltyard.prepare.columns import Columns
from tiltyard.settings import Settings
from tiltyard.spec import Spec, feature_key, load_all
from tiltyard.words import listed


@dataclass(frozen=True, kw_only=True)
class Whose:
    """What holds an entity."""

    entity: str
    """The entity, like `customer`."""
    key: str
    """Its key column."""
    models: tuple[str, ...]
    """The models that are about it."""
    views: tuple[str, ...]
    """Feature views and spines that are keyed by it."""
    columns: Mapping[str, tuple[str, ...]]
    """Table of the lake → its columns that hold the key."""
    doubts: tuple[str, ...]
    """What nobody says, a sentence each."""

    @property
    def raw(self) -> tuple[str, ...]:
        """The raw tables that hold it."""
        return tuple(sorted(table for table in self.columns if table.startswith("raw.")))


def entities(settings: Settings) -> tuple[str, ...]:
    """Whom the models are about."""
    return tuple(sorted({spec.entity for spec in load_all(settings.models)}))


def only(settings: Settings, named: str | None) -> str:
    """The entity that is named, or the one that there is. Raises BadInput where that cannot be told."""
    there = entities(settings)
    if named in there:
        return str(named)
    if named is not None:
        raise BadInput(f"No model is about a '{named}'; there are models about {listed(there) or 'nobody'}.")
    if len(there) != 1:
        raise BadInput(f"Say with --entity whom you mean: there are models about {listed(there) or 'nobody'}.")
    return there[0]


def of(settings: Settings, entity: str) -> Whose:
    """What holds an entity, by the texts in force. Raises BadInput for one that no model is about, and for texts that
    do not hold."""
    only(settings, entity)
    every = load_all(settings.models)
    specs = [spec for spec in every if spec.entity == entity]
    tables = {table for name in {spec.source for spec in specs} for table in contracts.raw_tables(settings, name)}
    return _of(entity, specs, every, columns.read(settings), tables)


def raw_columns(settings: Settings, wanted: Collection[str]) -> dict[str, list[tuple[str, str]]]:
    """Raw table → (entity, column) of each of these entities that it holds."""
    found: dict[str, list[tuple[str, str]]] = {}
    for entity in sorted({*wanted} & {*entities(settings)}):
        held = of(settings, entity)
        for table in held.raw:
            found.setdefault(table, []).extend((entity, column) for column in held.columns[table])
    return found


def _of(entity: str, specs: Sequence[Spec], every: Sequence[Spec], said: Columns, delivered: Collection[str]) -> Whose:
    key, lineage = specs[0].key, said.lineage
    views = {view for spec in specs for view in spec.prediction.features if feature_key(view) == key}
    views |= {spec.prediction.spine for spec in specs}
    roots = views | {spec.label.table for spec in specs}
    carried = {
        (table, column.lower()): said.carried(table, column)
        for table in (*lineage.raw, *lineage.queries)
        for column in lineage.columns(table)
    }
    held = {place for place in carried if place[0] in roots and place[1] == key}
    held |= {place for place in carried if (of_it := said.of(*place)) and of_it.entity == entity}
    origins = {step for place in held for step in carried[place] if step[0] in lineage.raw}
    held |= {place for place, steps in carried.items() if not origins.isdisjoint(steps)}
    found: dict[str, set[str]] = {}
    for table, column in sorted(held):
        found.setdefault(table if table in lineage.raw else qualified(table), set()).add(column)
    return Whose(
        entity=entity, key=key, models=tuple(sorted(spec.name for spec in specs)), views=tuple(sorted(views)),
        columns={table: tuple(sorted(own)) for table, own in sorted(found.items())},
        doubts=tuple(_doubts(entity, held, every, said, delivered)),
    )  # fmt: skip


def _doubts(
    entity: str, held: Collection[tuple[str, str]], every: Sequence[Spec], said: Columns, tables: Collection[str]
) -> Iterator[str]:
    """What nobody says of these raw tables."""
    known = {table for table, _ in held}
    others = {
        step
        for spec in every
        for table in spec.tables
        for column in {spec.key, feature_key(table) if table.startswith("ftr_") else spec.key}
        for step in said.carried(table, column)
    }
    if known.isdisjoint(tables):
        yield (
            f"which rows of {listed(sorted(tables))} are about a {entity} follows from no SQL: say of the columns "
            f"that hold its key, in the contract, identifies: {entity}"
        )
    for table in sorted(tables):
        for column, what in sorted(said.said.get(table, {}).items()):
            if what.identifies and what.entity is None and table not in known and (table, column) not in others:
                yield (
                    f"{table}.{column} identifies a person, and nobody says whom: say in the contract identifies: "
                    f"{entity}, or the name of another"
                )
