"""What there is to tell: all that waits for a person, and the models that did not get through, per owner.

One cause is one message: a table at fault is told once, with the models that stand on it, and none of those is told as
well; the tables of a source that is silent are one (the board puts them together); stages that failed for the same
reason are one, however many models they are of.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from tiltyard.edge.board import Asked, Board, ModelRow, State
from tiltyard.portfolio_rules import AlertKind
from tiltyard.records import Fact
from tiltyard.spec import Spec

NEEDS: Final[dict[AlertKind, str]] = {
    "approve": "Look at the evidence, then choose Approve or Reject in the form. Silence is a no.",
    "uncounted": "Clear judge in its run, and the form is asked again; whoever asked for it cannot answer it.",
    "operate": "Look at it; where it waits for a second person, choose Approve or Reject in its form, or run tiltyard "
    "operations approve or refuse. Silence is a no.",
    "worse": "Roll it back by hand, or let it go: as long as it is held nothing else changes it.",
    "explain": "Say why it is still on its safe default, in the form of its explanation.",
    "table": "Mend what stopped it, and let the night run again. What is in service stays as it was.",
    "incident": "Mend it upstream, or release the shift: its retrains wait for that.",
    "refused": "Mend the text; what was accepted last stays in force.",
    "quarantined": "Mend the file, and run tiltyard replace SOURCE FILE; or mend the contract.",
    "failed": "Look into the failed task, and mend what it names.",
    "stopped": "Look at what was found.",
    "touched": "Run tiltyard verify, and restore the ledger from a backup; nothing of what it names is promoted.",
    "unerased": "Call tiltyard erase again with the same names; it goes on where it was, and says what is left.",
    "damaged": "Restore the file from a backup, make the table anew, or let it go; tiltyard verify --lake says more.",
    "undelivered": "Mend it there: the next night brings all that is owed, tiltyard deliver MODEL does so at once.",
    "copying": "Ask who has the key what for; take it from TILTYARD_SERVE_KEYS, or name it in TILTYARD_SERVE_TRUSTED.",
    "unanswered": "Rows came after their night was scored, or it never was; let it run again.",
}
"""What is told → what a person is to do."""
_OF_STATE: Final[dict[State, AlertKind]] = {"failed": "failed", "stopped": "stopped", "unanswered": "unanswered"}
"""States of a model that are told, and nowhere else in the inbox."""
_DAY = re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}\b")
_FIGURE = re.compile(r"\b\d+(?:[.,:]\d+)*")
TOGETHER = 3
"""Models from which on failures with one reason are one fact."""


def facts(board: Board, specs: Sequence[Spec]) -> list[Fact]:
    """What there is to tell, of each owner that is concerned, by kind and subject."""
    by_name = {spec.name: spec for spec in specs}
    found = [
        fact
        for item in board.inbox
        if item.kind != "untold" and not item.is_opening
        for fact in _of_item(item, by_name)
    ]
    tables = [item for item in board.inbox if item.kind == "table"]
    own = [row for row in board.models if not any(_is_told_with(item, row) for item in tables)]
    found += [fact for rows in _alike(own) for fact in _of_rows(rows, by_name)]
    return sorted(found, key=lambda fact: fact.key)


def _is_told_with(item: Asked, row: ModelRow) -> bool:
    """Whether a model's trouble is that of those tables: it is told with them, and one is named as its reason."""
    named = (re.search(rf"(?<![\w.]){re.escape(table)}(?!\w)", row.reason) for table in item.tables)
    return row.model in item.models and any(named)


def _of_item(item: Asked, specs: Mapping[str, Spec]) -> Iterator[Fact]:
    """Something of the inbox, for each owner of the models that it concerns; for everybody, where it is of none."""
    concerned = [specs[name] for name in item.models if name in specs]
    assert item.kind != "untold", "that nobody could be told is told by the page alone"
    for owner in sorted({spec.owner for spec in concerned}) or [""]:
        own = [spec for spec in concerned if spec.owner == owner]
        yield Fact(
            kind=item.kind, subject=item.subject, owner=owner, tier=_tier(own or specs.values()),
            models=tuple(spec.name for spec in own), reason=item.reason, needs=NEEDS[item.kind], since=item.since,
            until=item.until, link=item.link,
        )  # fmt: skip


def _alike(rows: Iterable[ModelRow]) -> list[list[ModelRow]]:
    """The models that did not get through, those with one reason together where they are several."""
    groups: dict[tuple[str, str, str], list[ModelRow]] = {}
    for row in rows:
        if row.state in _OF_STATE:
            groups.setdefault((row.state, row.owner, _without_its_own(row)), []).append(row)
    parted = (([group] if len(group) >= TOGETHER else [[row] for row in group]) for group in groups.values())
    return [part for parts in parted for part in parts]


def _without_its_own(row: ModelRow) -> str:
    """The reason without the name of the model, the night and figures, which are others' tomorrow: the same cause would
    be another fact, and told again."""
    return _FIGURE.sub("N", _DAY.sub("a night", row.reason.replace(row.model, "a model")))


def _of_rows(rows: Sequence[ModelRow], specs: Mapping[str, Spec]) -> Iterator[Fact]:
    first = rows[0]
    kind = _OF_STATE[first.state]
    yield Fact(
        kind=kind,
        subject=first.model if len(rows) == 1 else _without_its_own(first),
        owner=first.owner,
        tier=min(row.tier for row in rows),
        models=tuple(row.model for row in rows),
        reason=first.reason,
        needs=NEEDS[kind],
        since=first.night,
        link=f"/tiltyard/models/{first.model}" if len(rows) == 1 else f"/tiltyard/?state={first.state}",
    )


def _tier(specs: Iterable[Spec]) -> int:
    return min((spec.tier for spec in specs), default=3)
