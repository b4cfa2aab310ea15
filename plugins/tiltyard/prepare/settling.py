"""Which tables of a night are good, and which stay as they were. Pure.

A table is at fault itself when dbt failed at it (`failed`), a check of it failed critically (`held`), or its source has
not delivered (`late`). What is made of a table that is not good is `blocked`, or late as well. Every other table is
published, whoever is in trouble beside it. A table that several sources feed is settled when the last of them is.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import date

from tiltyard.prepare.graph import Graph
from tiltyard.records import TableState
from tiltyard.records.publication import State
from tiltyard.words import clauses


def at_fault(
    tables: Iterable[str],
    night: date,
    *,
    failed: Mapping[str, str],
    held: Mapping[str, Collection[str]],
    late: Mapping[str, str],
) -> tuple[TableState, ...]:
    """The state of those of the tables that are at fault themselves, in their order.

    `late`: raw table → why its source is. `failed`: table → why dbt could not make it. `held`: table → why checks do
    not let it through, a sentence each.
    """
    states = []
    for table in tables:
        if table in late:
            states.append(TableState(night=night, table=table, state="late", reason=late[table], cause=table))
        elif table in failed:
            states.append(TableState(night=night, table=table, state="failed", reason=failed[table], cause=table))
        elif reasons := tuple(held.get(table, ())):
            reason = clauses(reasons)
            states.append(TableState(night=night, table=table, state="held", reason=reason, cause=table))
    return tuple(states)


def settle(
    graph: Graph,
    tables: Iterable[str],
    night: date,
    *,
    faults: Iterable[TableState],
    given: Iterable[TableState] = (),
) -> tuple[TableState, ...]:
    """The state of every one of the tables, which come in the order in which they are made.

    `faults`: those that are at fault themselves. `given`: how tables stand that are not settled here. When a table was
    last good is not said here.
    """
    own = {state.table: state for state in faults}
    states = {state.table: state for state in given}
    settled = []
    for table in tables:
        above = (states.get(parent) for parent in sorted(graph.parents.get(table, ())))
        stopped = next((state for state in above if state is not None and not state.is_published), None)
        fault = own.get(table)
        if fault is not None and (fault.state in ("failed", "late") or stopped is None):
            state = fault
        elif stopped is not None:
            cause = states.get(stopped.cause or "", stopped)
            reason = f"it is made of {cause.table}, which is {cause.state}: {cause.reason}"
            how: State = "late" if cause.state == "late" else "blocked"
            state = TableState(night=night, table=table, state=how, reason=reason, cause=cause.table)
        else:
            state = TableState(night=night, table=table, state="published")
        states[table] = state
        settled.append(state)
    return tuple(settled)
