"""Whatever the ledger writes down of a model is told in a sentence: every kind that there is in the code."""

import ast
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from tiltyard import ledger_tables
from tiltyard.edge import event_words, timeline
from tiltyard.judge.approval import Approval, Subject
from tiltyard.rails import Rails
from tiltyard.records import Event, JsonObject, LookupCheck
from tiltyard.settings import ROOT
from tiltyard.spec import find

NIGHT = date(2025, 5, 30)
SPEC = find(ROOT / "models", "churn")
CODE = ROOT / "plugins" / "tiltyard"
ODD = re.compile(r"[\[\]{}_]|\bNone\b|\bNull\b")
"""What no sentence has: what Python prints of its values."""


def approval(chosen: str, by: str | None) -> JsonObject:
    subject = Subject("churn", 2, NIGHT, "0a" * 32)
    return Approval(by, ("admin", "ann"), (chosen,), None, subject, "airflow").to_json()


DETAILS: dict[str, list[JsonObject]] = {
    "approval_refused": [
        {"faults": ["'admin' asked for it and cannot approve it"], "approvals": [approval("Approve", "admin")]},
        {"faults": ["the answer was Reject"], "approvals": [approval("Reject", "bob")]},
        {"faults": ["the answer was Reject", "no person answered"], "approvals": [approval("Reject", None)]},
        {"faults": ["it is frozen"], "approvals": []},
    ],
    "operation_asked": [
        {"operation": 1, "action": action, "version": None, "by": "ann", "requested_by": "ann", "reason": "an audit"}
        for action in ("retire", "rollback", "pin")
    ],
    "operation_refused": [
        {"operation": 1, "action": "rollback", "version": 3, "by": "bob", "requested_by": "ann", "reason": "not now."}
    ],
    "alias_moved_by_hand": [{"alias": "champion", "found": 2, "put_back": 1}],
    "alias_missing": [{"alias": "champion", "found": None, "put_back": None}],
    "evidence_outdated": [{"version": 3, "judged_against": None}, {"version": 3, "judged_against": 2}],
    "evidence_changed": [{"challenger": 3, "recorded": "0" * 64, "now": "1" * 64}, {"watched": 1}],
    "corrupt_artifact": [{"version": 3, "files": ["model.json", "spec.yaml"], "reason": "its SHA-256 is another one"}],
    "online_differs": [
        LookupCheck(requests=9, ahead=1, views={"a.b": {"ahead": 1}}, examples=({"a": [None]},)).to_json()
    ],
    "version_did_not_score": [{"version": 2, "reason": "its files are gone"}],
    "hour_missed": [{"stage": "shadow", "hour": "2025-05-30T04:00:00+00:00", "reason": "no rows"}],
    "place_back": [{"source": "shop", "table": "raw.order", "reason": None}],
    "legal_hold": [{"first": None, "last": None, "by": "ann", "reason": "case 17"}],
    "taken_away": [{"kind": "model", "name": "churn", "by": "ann", "files": 3, "tables": ["a", "b"]}],
    "night_withdrawn": [
        {"by": "ann", "reason": "a typo", "sources": ["shop"], "models": [], "taken": {"a": [{"b": None}]}}
    ],
    "ledger_accepted_as_found": [
        {"by": "ann", "reason": "restored by hand.", "faults": ["decision (night 1) was changed"]}
    ],
    "ledger_unwatched": [{"tables": ["decision", "version"]}],
    "requests_lost": [{"segments": 1, "requests": 3, "lost": 2, "unreadable": 0}],
}  # fmt: skip
"""Kind → what the code writes with it, where that is more than a reason."""


def kinds() -> set[str]:
    """Every kind of an event that the code writes: what `add_event`, `_note`, and inserts into the table are given, by
    value or by a constant of a module."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in CODE.rglob("*.py")}
    found: set[str] = set()
    for path, tree in trees.items():
        constants = {**vars(ledger_tables), **dict(_constants(tree))}
        for module, name in re.findall(r"^from (tiltyard[\w.]*) import (.*)$", path.read_text(), re.MULTILINE):
            source = (CODE.parent / Path(*module.split("."))).with_suffix(".py")
            if source in trees:
                constants |= {own: value for own, value in _constants(trees[source]) if own in name}
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            for given in _given(call):
                values = [given.body, given.orelse] if isinstance(given, ast.IfExp) else [given]
                for value in values:
                    if isinstance(value, ast.Constant):
                        found.add(value.value)
                    elif isinstance(value, ast.Name) and value.id == "kind":
                        found |= set(_assigned(tree))
                    elif isinstance(value, ast.Name):
                        found.add(str(constants[value.id]))
                    elif isinstance(value, ast.Attribute):
                        [own] = [dict(_constants(other))[value.attr] for name, other in trees.items()
                                 if isinstance(value.value, ast.Name) and name.stem == value.value.id
                                 and value.attr in dict(_constants(other))]  # fmt: skip
                        found.add(own)
    return found


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant):
                    yield target.id, str(node.value.value)
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    yield from (
                        (name.id, str(value.value))
                        for name, value in zip(target.elts, node.value.elts, strict=True)
                        if isinstance(name, ast.Name) and isinstance(value, ast.Constant)
                    )


def _given(call: ast.Call) -> Iterator[ast.expr]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "add_event":
        yield call.args[0]
    elif name == "_note" and len(call.args) == 5:
        yield call.args[1]
    elif name in ("values", "_insert"):
        own = [keyword.value for keyword in call.keywords if keyword.arg == "kind"]
        yield from (value for value in own if not isinstance(value, ast.Name) or value.id.isupper())


def _assigned(tree: ast.Module) -> Iterator[str]:
    """The texts that a variable `kind` is one of."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.IfExp)
            and getattr(node.targets[0], "id", "") == "kind"
        ):
            yield from (part.value for part in (node.value.body, node.value.orelse) if isinstance(part, ast.Constant))


def test_every_kind_that_the_code_writes_has_its_words() -> None:
    found = kinds()
    for kind in ("approval_refused", "alias_missing", "operation_asked", "place_back", "hour_missed", "rolled_back"):
        assert kind in found, "it looks there"
    assert found - event_words.WORDS.keys() - {"night_withdrawn"} == set()
    by_name = {"night_withdrawn", "ledger_accepted_as_found", "ledger_unwatched"}  # in rows of the ledger's own
    assert event_words.WORDS.keys() - found == by_name


def test_an_event_is_told_without_a_brace_a_bracket_or_none(rails: Rails) -> None:
    """On the page as it is: through the ledger, as JSON, and back."""
    plain: list[JsonObject] = [{"reason": "why", "by": "ann", "none": None, "many": [{"a": None}, "b"]}]
    details = {kind: DETAILS.get(kind, plain) for kind in (*event_words.WORDS, "of_a_later_release")}
    for kind, own in details.items():
        for detail in own:
            rails.ledger.add_event(kind, "churn", NIGHT, detail)
    told = [moment for page in range(1, 9) for moment in timeline.read(rails, SPEC, page).moments]
    shown = sum(len(own) for kind, own in details.items() if kind not in timeline.TOLD_OTHERWISE)
    assert len(told) == shown > 40
    sentences = [(moment.what, *moment.reasons, moment.by or "") for moment in told]
    events = [Event(id=1, kind=kind, model="churn", night=NIGHT, detail=detail) for kind in timeline.TOLD_OTHERWISE
              for detail in details[kind]]  # fmt: skip
    sentences += [(what, *reasons, "") for event in events for what, reasons in [event_words.in_words(event)]]
    for parts in sentences:
        assert parts[0], "what happened is said"
        assert not [text for text in parts if ODD.search(text)], parts
        assert all(re.match(r"['A-Z0-9].*[.?]$", text) for text in parts[1:-1]), parts


def test_a_refused_approval_says_who_and_why() -> None:
    [first, second, third, _] = [
        Event(id=1, kind="approval_refused", model="churn", night=NIGHT, detail=detail)
        for detail in DETAILS["approval_refused"]
    ]
    assert event_words.in_words(first) == (
        "an approval of version 2 did not count", ("'admin' asked for it and cannot approve it.",)
    )  # fmt: skip
    assert event_words.by(first) == "admin"
    assert event_words.in_words(second)[0] == "version 2 was turned down" and event_words.by(second) == "bob"
    assert event_words.in_words(third)[0] == "nobody has said in time whether version 2 may be promoted, which is a no"
    assert event_words.by(third) is None
