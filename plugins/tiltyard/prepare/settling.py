"""Which tables of a night are good, and which stay as they were. Pure.

A table is at fault itself when dbt failed at it (`failed`) or a check of it failed critically (`held`). What is made of
a table that is not good is `blocked`. Every other table is published, whoever is in trouble beside it.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import date

from tiltyard.prepare.graph import Graph
from tiltyard.records import TableState

SHOWN = 3
"""Reasons of one table that are told."""


def settle(
    graph: Graph,
    sources: Collection[str],
    others: Iterable[str],
    night: date,
    *,
    failed: Mapping[str, str],
    held: Mapping[str, Collection[str]],
) -> tuple[TableState, ...]:
    """The state of every table that stands on one of the raw tables `sources`, those included, and of `others`, which
    models read and the graph does not know. In the order in which they are made.

    `failed`: table → why dbt could not make it. `held`: table → why checks do not let it through, a sentence each. When
    it was last good is not said here.
    """
    states: dict[str, TableState] = {}
    tables = graph.below(sources)
    for table in (*tables, *sorted(set(others) - set(tables))):
        above = (states.get(parent) for parent in sorted(graph.parents.get(table, ())))
        stopped = next((state for state in above if state is not None and not state.is_published), None)
        if table in failed:
            states[table] = TableState(night=night, table=table, state="failed", reason=failed[table], cause=table)
        elif stopped is not None:
            cause = stopped.cause or stopped.table
            reason = f"it is made of {cause}, which is {states[cause].state}: {states[cause].reason}"
            states[table] = TableState(night=night, table=table, state="blocked", reason=reason, cause=cause)
        elif reasons := tuple(held.get(table, ())):
            more = f" And {len(reasons) - SHOWN} more." if len(reasons) > SHOWN else ""
            reason = "; ".join(reasons[:SHOWN]) + more
            states[table] = TableState(night=night, table=table, state="held", reason=reason, cause=table)
        else:
            states[table] = TableState(night=night, table=table, state="published")
    return tuple(states.values())
