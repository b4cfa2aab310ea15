"""What models have in common on a night: broken tables, missing values and shared shifts, as incidents. Pure."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

from tiltyard.govern.history import NightHistory
from tiltyard.govern.lineage import Lineage
from tiltyard.portfolio_rules import SharedBreak
from tiltyard.records import Cause, Finding, Incident, Signal
from tiltyard.words import listed

TOGETHER = timedelta(days=3)
"""Models whose columns began to drift within so many nights of each other drift together: their windows and their
hysteresis differ by a night or two."""
NEARLY = 0.9
"""A node explains a shift when it explains this share of what the best node does; of those the most downstream."""


@dataclass(frozen=True)
class Move:
    """A column of a model that has drifted."""

    column: str
    """The column's name."""
    table: str
    """The table that it comes from."""
    onset: date
    """The first night on which it drifted."""


Moves = Mapping[str, tuple[Move, ...]]
"""Model → its columns that have drifted."""


def incidents(
    findings: Mapping[str, Finding], lineage: Lineage, history: NightHistory, policy: SharedBreak
) -> tuple[Incident, ...]:
    """The portfolio's incidents on the night of `history`, by node: broken and missing data, then shared shifts.

    A model that is held by what is broken takes no part in a shift.
    """
    moves = _moves(findings, lineage, history)
    broken = _with_followers(_broken(findings, lineage, history, policy), moves, lineage)
    held = {model for incident in broken for model in incident.models}
    free = {model: own for model, own in moves.items() if model not in held}
    shared = _Shifts(findings, lineage, history, policy).of(free)
    return tuple(sorted((*broken, *shared), key=lambda incident: (incident.node, incident.kind)))


# -- what has moved ---------------------------------------------------------------------------------


def _moves(findings: Mapping[str, Finding], lineage: Lineage, history: NightHistory) -> dict[str, tuple[Move, ...]]:
    """Model → its moves that can be followed upstream and that nobody has released."""
    moves: dict[str, tuple[Move, ...]] = {}
    for model, finding in findings.items():
        own = []
        for signal in finding.signals:
            table = _table(signal, model, lineage)
            if not signal.drifted or table is None or signal.kind == "missing":
                continue
            onset = history.onset(model, signal)
            if not _is_released(table, onset, lineage, history):
                own.append(Move(signal.column, table, onset))
        if own:
            moves[model] = tuple(sorted(own, key=lambda move: (move.table, move.column)))
    return moves


def _table(signal: Signal, model: str, lineage: Lineage) -> str | None:
    """The table that a signal comes from; None for the predictions, which come from all of them."""
    if signal.kind in ("label", "performance"):
        return lineage.labels.get(model)
    return signal.view


def _is_released(table: str, onset: date, lineage: Lineage, history: NightHistory) -> bool:
    """Has a person said of what moved there, and since then, that it is the world?"""
    return any(
        onset <= release.night <= history.night and lineage.stands_on(table, release.node)
        for release in history.releases
    )


def _below(moves: Moves, node: str, lineage: Lineage) -> dict[str, tuple[Move, ...]]:
    """Of the moves those in tables that stand on `node`; models without any are left out."""
    below = {model: tuple(move for move in own if lineage.stands_on(move.table, node)) for model, own in moves.items()}
    return {model: own for model, own in below.items() if own}


# -- shared shifts ----------------------------------------------------------------------------------


class _Candidate(NamedTuple):
    """A table that explains a shift."""

    rank: tuple[int, int]
    """How many models, then how many columns it explains."""
    node: str
    """The table."""
    members: dict[str, tuple[Move, ...]]
    """Model → the moves that it explains."""


@dataclass(frozen=True)
class _Shifts:
    """Shifts that many models show at once, in columns that come from one table.

    It takes `policy.models` models, and `policy.share` of those that were looked at and read the table, whose columns
    began to drift within TOGETHER, and one alarm among them. A fault of the table and a change of the world look the
    same from here, so nobody retrains on it until it is over or a person says that it is the world. Once open it lasts
    as long as one of its models shows it, and takes in whoever shows it later.
    """

    findings: Mapping[str, Finding]
    """Model → its finding of the night."""
    lineage: Lineage
    """Which table stands on which."""
    history: NightHistory
    """The nights before."""
    policy: SharedBreak
    """From how many models on a shift is shared."""

    def of(self, moves: Moves) -> tuple[Incident, ...]:
        """The shifts of before that last, then the new ones, the largest first. A model takes part in one of them."""
        left = dict(moves)
        shifts = []
        before = sorted(self.history.incidents, key=lambda shift: (-self.lineage.depth(shift.node), shift.node))
        for incident in before:
            if incident.kind == "shared_shift" and (members := _below(left, incident.node, self.lineage)):
                shifts.append(self._incident(incident.node, members, incident.since))
                left = {model: own for model, own in left.items() if model not in members}
        while largest := self._largest(left):
            shifts.append(self._incident(largest.node, largest.members, self.history.night))
            left = {model: own for model, own in left.items() if model not in largest.members}
        return tuple(shifts)

    def _largest(self, moves: Moves) -> _Candidate | None:
        """Of all spells of TOGETHER the one in which a table explains most; None where no table explains enough."""
        largest: _Candidate | None = None
        for start in sorted({move.onset for own in moves.values() for move in own}):
            together = {
                model: within
                for model, own in moves.items()
                if (within := tuple(move for move in own if start <= move.onset < start + TOGETHER))
            }
            node = self._explains(together)
            if node is None:
                continue
            members = _below(together, node, self.lineage)
            rank = (len(members), sum(map(len, members.values())))
            has_alarm = any(self.findings[model].alarm for model in members)
            if has_alarm and (largest is None or rank > largest.rank):
                largest = _Candidate(rank, node, members)
        return largest

    def _explains(self, moves: Moves) -> str | None:
        """The table of the most models, then of nearly the most columns, then the most downstream one."""
        models: dict[str, set[str]] = {}
        columns: dict[str, int] = {}
        for model, own in moves.items():
            for move in own:
                is_known = move.table in self.lineage.parents
                for node in self.lineage.upstream(move.table) if is_known else (move.table,):
                    models.setdefault(node, set()).add(model)
                    columns[node] = columns.get(node, 0) + 1
        able = [node for node, members in models.items() if self._is_enough(node, len(members))]
        if not able:
            return None
        most = max(len(models[node]) for node in able)
        able = [node for node in able if len(models[node]) == most]
        enough = NEARLY * max(columns[node] for node in able)
        candidates = (node for node in able if columns[node] >= enough)
        return min(candidates, key=lambda node: (-self.lineage.depth(node), node))

    def _is_enough(self, node: str, models: int) -> bool:
        readers = self.lineage.readers(node) & self.findings.keys()
        return models >= self.policy.models and models >= self.policy.share * len(readers)

    def _incident(self, node: str, members: Moves, since: date) -> Incident:
        columns = tuple(sorted({move.column for own in members.values() for move in own}))
        onset = min(move.onset for own in members.values() for move in own)
        readers = len(self.lineage.readers(node) & self.findings.keys())
        reason = (
            f"{len(members)} of {readers} models that read it drift together since {onset}, in {listed(columns)}; "
            "a fault upstream and a change of the world look the same, so a person decides"
        )
        return Incident(node, "shared_shift", tuple(sorted(members)), columns, reason, since)


# -- broken and missing data ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fault:
    """Something of a model that is broken or missing."""

    model: str
    """The model's name."""
    node: str
    """A table, or `features` or `shadow` for a stage that did not end."""
    column: str | None
    """The column; None for the whole of it."""
    reason: str
    """What is wrong, as a sentence."""
    kind: Cause
    """broken or missing."""


def _broken(
    findings: Mapping[str, Finding], lineage: Lineage, history: NightHistory, policy: SharedBreak
) -> tuple[Incident, ...]:
    """What is broken or missing, an incident for each table that explains it.

    A broken table explains whatever is broken below it. Tables that are broken without such a cause are one
    incident of the table that they have in common where that explains `policy.models` models and `policy.share`
    of the tables below it that anybody looked at; otherwise each is one of its own.
    """
    faults = [fault for finding in findings.values() for fault in _faults(finding, lineage, history)]
    faults = _with_own_shadow(faults, policy)
    nodes = {fault.node for fault in faults}
    tops = {node for node in nodes if not any(above != node and lineage.stands_on(node, above) for above in nodes)}
    causes = {node: {root for root in tops if lineage.stands_on(node, root)} for node in nodes}
    roots = set().union(*causes.values()) if causes else set()
    models = {root: {fault.model for fault in faults if root in causes[fault.node]} for root in roots}
    explained_by = _explained(models, findings, lineage, policy)
    grouped: dict[str, list[_Fault]] = {}
    for fault in faults:
        for cause in sorted({explained_by[root] for root in causes[fault.node]}):
            grouped.setdefault(cause, []).append(fault)
    return tuple(_incident(node, group, history) for node, group in sorted(grouped.items()))


def _faults(finding: Finding, lineage: Lineage, history: NightHistory) -> list[_Fault]:
    faults = [
        _Fault(finding.model, broken.node, broken.column, broken.reason, "broken")
        for broken in finding.broken
        if lineage.reaches(broken.node, broken.column, finding.model)
    ]
    for signal in finding.signals:
        if signal.kind == "missing" and signal.drifted:
            node = signal.view or "features"
            onset = history.onset(finding.model, signal)
            if not _is_released(node, onset, lineage, history):
                reason = signal.note or f"more of {signal.column} is missing than at training"
                faults.append(_Fault(finding.model, node, signal.column, reason, "missing"))
    return faults


def _with_own_shadow(faults: Sequence[_Fault], policy: SharedBreak) -> list[_Fault]:
    """A model's own shadow that did not end is its own incident, unless it is one that many models have."""
    alone = [fault for fault in faults if fault.node == "shadow"]
    if len({fault.model for fault in alone}) >= policy.models:
        return list(faults)
    return [dataclasses.replace(fault, node=f"{fault.model}/shadow") if fault in alone else fault for fault in faults]


def _explained(
    models: Mapping[str, set[str]], findings: Mapping[str, Finding], lineage: Lineage, policy: SharedBreak
) -> dict[str, str]:
    """Broken table → the table that explains it, itself where nothing above does.

    `models`: broken table → the models that it breaks.
    """
    looked_at = {table for model in findings for table in lineage.models.get(model, ())} | models.keys()
    explained_by = {root: root for root in models}
    left = {root for root in models if root in lineage.parents}
    while True:
        below: dict[str, set[str]] = {}
        for root in left:
            for node in lineage.upstream(root):
                below.setdefault(node, set()).add(root)
        able = {
            node: roots
            for node, roots in below.items()
            if len(roots) > 1
            and len(set().union(*(models[root] for root in roots))) >= policy.models
            and len(roots) >= policy.share * sum(lineage.stands_on(table, node) for table in looked_at)
        }
        if not able:
            return explained_by
        node = min(able, key=lambda name: (-len(able[name]), -lineage.depth(name), name))
        explained_by |= dict.fromkeys(able[node], node)
        left -= able[node]


def _with_followers(incidents: Iterable[Incident], moves: Moves, lineage: Lineage) -> tuple[Incident, ...]:
    """Whoever shows a shift below what is broken shows the same fault, and makes no second incident of it."""
    joined = []
    for incident in incidents:
        columns = incident.columns or (None,)
        more = {
            model
            for model in _below(moves, incident.node, lineage)
            if any(lineage.reaches(incident.node, column, model) for column in columns)
        }
        joined.append(dataclasses.replace(incident, models=tuple(sorted({*incident.models, *more}))))
    return tuple(joined)


def _incident(node: str, faults: Sequence[_Fault], history: NightHistory) -> Incident:
    kind: Cause = "broken" if any(fault.kind == "broken" for fault in faults) else "missing"
    before = [incident.since for incident in history.incidents if (incident.node, incident.kind) == (node, kind)]
    return Incident(
        node=node,
        kind=kind,
        models=tuple(sorted({fault.model for fault in faults})),
        columns=tuple(sorted({fault.column for fault in faults if fault.column})),
        reason=listed(sorted({fault.reason for fault in faults}), "; "),
        since=min(before, default=history.night),
    )
