"""Which tables that are not good are so for one cause, so that it is told once. Pure.

A source that falls silent, or is late, is at fault in each of its tables: that is one cause. So is what holds tables of
one source since the same night for reasons that read alike but for names and numbers.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tiltyard.records import TableState
from tiltyard.words import counted

SILENT = "age_hours"
"""The figure of a raw table's freshness, by which a check holds the tables of a source that is silent."""
_NUMBER = re.compile(r"[0-9][0-9.,:-]*")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What keeps one table, or several, from being published."""

    subject: str
    """The table; of several that one source is silent in, the source."""
    reason: str
    """Why, as a sentence; of several with their names."""
    tables: tuple[TableState, ...]
    """Those that are at fault for it, by name."""


def together(states: Iterable[TableState], source_of: Mapping[str, str]) -> list[Fault]:
    """The faults of tables that are at fault themselves, by subject. `source_of`: table → the source that it is of."""
    groups: dict[tuple[str, ...], list[TableState]] = {}
    for state in sorted(states, key=lambda one: one.table):
        source = source_of.get(state.table)
        own = (source, *_cause(state)) if source else (state.table,)
        groups.setdefault(own, []).append(state)
    return sorted((_fault(key, own) for key, own in groups.items()), key=lambda fault: fault.subject)


def _cause(state: TableState) -> tuple[str, str]:
    reason = state.reason or state.state
    if state.state == "late" or f"{state.table}.{SILENT}:" in reason:
        return "silent", state.state
    return str(state.since), _NUMBER.sub("n", reason.replace(state.table, "a table"))


def _fault(key: tuple[str, ...], states: list[TableState]) -> Fault:
    first = states[0]
    reason = first.reason or first.state
    if len(states) == 1:
        return Fault(subject=first.table, reason=reason, tables=(first,))
    is_silent = key[1] == "silent"
    names = ", ".join(state.table for state in states)
    if is_silent:
        what = f"nothing new has come of {counted(len(states), 'table')}: {names}"
    else:
        what = f"the same is wrong with {names}"
    return Fault(subject=key[0] if is_silent else first.table, reason=f"{what}. {reason}", tables=tuple(states))
