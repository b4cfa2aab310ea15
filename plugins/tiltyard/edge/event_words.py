"""What the ledger's events say, in words: every kind that is written has its sentence here. Pure.

A kind that is not known, as of a later release, is told by its name and by what it holds, in words as well.
"""

from collections.abc import Callable, Mapping
from typing import Final

from pydantic import JsonValue

from tiltyard.judge.approval import APPROVE, ASSUMED
from tiltyard.operating import shown
from tiltyard.records import Event, JsonObject
from tiltyard.words import counted, ended, listed

Told = tuple[str, str]
"""What happened, as half a sentence; and why, or what is to be known of it, as a sentence or empty."""


def in_words(event: Event) -> tuple[str, tuple[str, ...]]:
    """What happened, as half a sentence, and why, a sentence each."""
    say = WORDS.get(event.kind)
    what, why = say(event.detail) if say else (_plain(event.kind), _rest(event.detail))
    return what, (_sentence(why),) if why else ()


def by(event: Event) -> str | None:
    """Who did it; None where nobody did, or that is not known."""
    if event.kind == "approval_refused":
        people = [answer.get("approved_by") for answer in _answers(event.detail)]
        return ", ".join(dict.fromkeys(str(name) for name in people if name)) or None
    return _text(event.detail, "by") or None


def _text(detail: JsonObject, *names: str) -> str:
    """The first of these that is there, in words; empty where none is."""
    return next((_value(detail[name]) for name in names if detail.get(name) is not None), "")


def _version(detail: JsonObject, name: str = "version") -> str:
    value = detail.get(name)
    return shown(value if isinstance(value, int) else None)


def _value(value: JsonValue) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_plain(name)} {_value(part)}" for name, part in value.items() if part is not None)
    if isinstance(value, list):
        return listed([_value(part) for part in value if part is not None])
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _rest(detail: JsonObject, *but: str) -> str:
    """What an event holds, in words, without what is told already."""
    parts = {name: _value(value) for name, value in detail.items() if name not in {"by", *but}}
    return "; ".join(f"{_plain(name)}: {text}" for name, text in parts.items() if text)


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _sentence(text: str) -> str:
    text = text.rstrip(".")
    return ended(text[:1].upper() + text[1:])


def _reason(what: Callable[[JsonObject], str]) -> Callable[[JsonObject], Told]:
    """Of kinds whose detail has a reason, whatever it is called."""
    return lambda detail: (what(detail), _text(detail, "reason", "sentence"))


def _fixed(what: str) -> Callable[[JsonObject], Told]:
    return lambda detail: (what, _text(detail, "reason"))


# -- approvals --------------------------------------------------------------------------------


def _answers(detail: JsonObject) -> list[JsonObject]:
    given = detail.get("approvals")
    return [answer for answer in given if isinstance(answer, dict)] if isinstance(given, list) else []


def is_approval(detail: JsonObject) -> bool:
    """Of answers that do not count, whether somebody has approved, and did not reject or let the time pass."""
    return any(APPROVE in _chosen(answer) for answer in _answers(detail))


def requesters(detail: JsonObject) -> set[str]:
    """Who had asked, of answers that do not count."""
    return {name for answer in _answers(detail) for name in _chosen(answer, "requested_by")}


def _approval(detail: JsonObject) -> Told:
    answers = _answers(detail)
    subjects = [answer["subject"] for answer in answers if isinstance(answer.get("subject"), list)]
    about = next((f"version {part[1]}" for part in subjects if isinstance(part, list) and len(part) > 1), "a version")
    faults, comments = _text(detail, "faults"), "; ".join(filter(None, (_text(one, "comment") for one in answers)))
    if answers and all(answer.get("source") in ASSUMED for answer in answers):
        return f"a no was assumed of {about}", "Nobody was asked: the hindcast was told that nobody approves"
    if is_approval(detail):
        return f"an approval of {about} did not count", faults
    if any(answer.get("approved_by") for answer in answers):
        return f"{about} was turned down", comments
    return f"nobody has said in time whether {about} may be promoted, which is a no", ""


def _chosen(answer: JsonObject, name: str = "chosen") -> list[str]:
    value = answer.get(name)
    return [str(one) for one in value] if isinstance(value, list) else [] if value is None else [str(value)]


# -- what is done by hand ---------------------------------------------------------------------


def _operation(detail: JsonObject) -> str:
    action = _text(detail, "action") or "an operation"
    to = f" to {_version(detail)}" if action in ("rollback", "pin") else ""
    return f"{action}{to}"


def _asked(detail: JsonObject) -> Told:
    who = _text(detail, "requested_by") or "somebody"
    number = _text(detail, "operation")
    return f"{who} asked for {_operation(detail)}, which waits for a second person (operation {number})", _text(
        detail, "reason"
    )


def _not_done(detail: JsonObject) -> Told:
    return f"{_operation(detail)}, which {_text(detail, 'requested_by')} asked for, was turned down", _text(
        detail, "reason"
    )


# -- files, versions, evidence ----------------------------------------------------------------


def _alias(how: str) -> Callable[[JsonObject], Told]:
    def say(detail: JsonObject) -> Told:
        found, back = (
            f"version {detail[name]}" if detail.get(name) else "no version" for name in ("found", "put_back")
        )
        was = f" and pointed at {found}" if detail.get("found") else ""
        return f"MLflow's alias {_text(detail, 'alias')} {how}{was}", f"It points at {back} again, as the ledger says"

    return say


def _corrupt(detail: JsonObject) -> Told:
    return f"files of version {_text(detail, 'version')} were refused", (
        f"{_text(detail, 'files') or 'its files'}: {_text(detail, 'reason') or 'they are not what the ledger holds'}"
    )


def _changed(detail: JsonObject) -> Told:
    version = _text(detail, "challenger", "watched")
    first, now = (_text(detail, name)[:12] for name in ("recorded", "now"))
    what = f"the evidence on version {version} came out otherwise when its night was judged once more"
    return what, f"The verdict stands; its digest began with {first}, and now with {now}"


def _outdated(detail: JsonObject) -> Told:
    return f"version {_text(detail, 'version')} was not promoted", (
        f"The champion has changed since it was judged against {_version(detail, 'judged_against')}"
    )


def _differs(detail: JsonObject) -> Told:
    counts = [f"{counted(int(str(detail.get(name) or 0)), 'answer')} {words}" for name, words in
              (("different", "differ"), ("ahead", "know what came later"))]  # fmt: skip
    return "features online were not those of the lake", f"Of {_text(detail, 'requests')} requests: {', '.join(counts)}"


def _data_incident(detail: JsonObject) -> Told:
    column = f".{_text(detail, 'column')}" if detail.get("column") else ""
    what = _plain(_text(detail, "what"))
    state = "began" if detail.get("state") == "open" else "is over"
    return f"a data incident of {_text(detail, 'table')}{column} ({what}) {state}", _text(detail, "reason", "said")


def _replaced(detail: JsonObject) -> Told:
    return f"{_text(detail, 'file')} of {_text(detail, 'source')} was replaced", _text(detail, "reason")


def _withdrawn(detail: JsonObject) -> Told:
    return f"a night of {_text(detail, 'sources') or 'the portfolio'} was taken back", _text(detail, "reason")


def _hold(detail: JsonObject) -> Told:
    first, last = _text(detail, "first") or "the beginning", _text(detail, "last") or "now on"
    return f"a legal hold was set on the lake from {first} to {last}", _text(detail, "reason")


WORDS: Final[Mapping[str, Callable[[JsonObject], Told]]] = {
    "alias_missing": _alias("was gone"),
    "alias_moved_by_hand": _alias("was moved by hand"),
    "approval_refused": _approval,
    "corrupt_artifact": _corrupt,
    "data_incident": _data_incident,
    "delivery_replaced": _replaced,
    "delivery_withdrawn": lambda detail: (
        f"{_text(detail, 'file')} of {_text(detail, 'source')} was withdrawn", _text(detail, "reason"),
    ),
    "copy_not_possible": _reason(lambda detail: "nobody has asked much of the service any more"),
    "copy_possible": _reason(lambda detail: "somebody who asks the service may have a copy"),
    "evidence_changed": _changed,
    "evidence_outdated": _outdated,
    "explanation_refused": _reason(lambda detail: "an explanation of its safe default did not count"),
    "file_mended": lambda detail: (f"{_text(detail, 'file')} of {_text(detail, 'source')} was mended", ""),
    "file_quarantined": _reason(
        lambda detail: f"{_text(detail, 'file')} of {_text(detail, 'source')} was put into quarantine"
    ),
    "hour_missed": _reason(lambda detail: f"{_text(detail, 'stage')} has missed the hour of {_text(detail, 'hour')}"),
    "incident_release": _reason(lambda detail: f"the shift at {_text(detail, 'node')} was released"),
    "lake_file_damaged": _reason(
        lambda detail: f"a file of {_text(detail, 'table')} is damaged, {_text(detail, 'file')} with "
        f"{_text(detail, 'rows')} rows"
    ),
    "lake_file_mended": _reason(
        lambda detail: f"the file {_text(detail, 'file')} of {_text(detail, 'table')} is damaged no more"
    ),
    "lake_file_let_go": _reason(
        lambda detail: f"the damaged file {_text(detail, 'file')} was let go, with {_text(detail, 'rows')} rows of "
        f"{_text(detail, 'table')}"
    ),
    "ledger_accepted_as_found": lambda detail: (
        "what was changed in the ledger was accepted as it was found",
        f"{_text(detail, 'reason').rstrip('.')}: {_text(detail, 'faults')}",
    ),
    "ledger_unwatched": lambda detail: (
        "the triggers of the ledger were off, and are on again", f"Those of {_text(detail, 'tables')}",
    ),
    "legal_hold": _hold,
    "legal_hold_released": _reason(lambda detail: f"legal hold {_text(detail, 'hold')} was released"),
    "model_accepted": _fixed("it came into the portfolio"),
    "model_removed": _fixed("it left the portfolio"),
    "night_withdrawn": _withdrawn,
    "online_differs": _differs,
    "online_rebuilt": _fixed("the online store was filled anew"),
    "online_unavailable": _fixed("the online store could not be reached"),
    "operation_asked": _asked,
    "operation_done": lambda detail: (f"{_operation(detail)} was done by hand", _text(detail, "reason")),
    "operation_refused": _not_done,
    "page_not_drawn": _reason(lambda detail: f"the page {_text(detail, 'page')} could not be drawn"),
    "place_away": _reason(lambda detail: f"the place of {_text(detail, 'table')} was away"),
    "place_back": _reason(lambda detail: f"the place of {_text(detail, 'table')} was back"),
    "predictions_delivered": lambda detail: (f"its answers were delivered to {_text(detail, 'to')}", ""),
    "predictions_not_delivered": _reason(lambda detail: f"its answers were not delivered to {_text(detail, 'to')}"),
    "predictions_owed": _fixed("its answers are to be delivered"),
    "promotion_lost": lambda detail: (
        f"version {_text(detail, 'version')} was not promoted", "Another gate was first: it, or its night, was taken",
    ),
    "promotion_out_of_order": lambda detail: (
        f"version {_text(detail, 'version')} was not promoted",
        f"The later night of {_text(detail, 'newest')} has changed the champion already",
    ),
    "requests_lost": lambda detail: ("requests of the service were lost, or could not be read", _rest(detail)),
    "rollback_out_of_order": lambda detail: (
        f"version {_text(detail, 'version')} was not sent back", "A later night has changed the champion already",
    ),
    "rolled_back": lambda detail: (f"{_version(detail)} was sent back; {_version(detail, 'back')} answers again", ""),
    "spool_not_emptied": _fixed("the log of requests could not be taken in"),
    "taken_away": lambda detail: (f"the {_text(detail, 'kind')} {_text(detail, 'name')} was taken away", ""),
    "version_did_not_score": _reason(lambda detail: f"version {_text(detail, 'version')} did not score"),
}  # fmt: skip
"""Kind → how it is told."""
