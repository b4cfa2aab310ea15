"""What a person may do to a model by hand, and what of it holds on a night. Pure.

Nothing here goes round the gate: a version may only be brought back that the gate's record has promoted once, or the
safe default. A frozen model is changed by nobody but a person; a pinned one by nobody; a retired one is not at work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final, Literal

from tiltyard.errors import BadInput
from tiltyard.records import Operation, OperationAction
from tiltyard.succession import ChampionChange
from tiltyard.words import Who, line, listed, person

CHANGING: Final[frozenset[OperationAction]] = frozenset({"rollback", "pin", "retire", "unretire"})
"""What puts somebody in service."""
LONGEST: Final = 1_000
"""So many signs a reason may have."""
DEFAULT: Final = "default"
"""How the safe default is named where a version may be."""
Target = int | Literal["default"] | None
"""Who is to be in service: a version, the safe default, or, None, whoever the action means by itself."""


@dataclass(frozen=True)
class Standing:
    """What holds of a model on a night, by the operations before it."""

    frozen: Operation | None = None
    """Nothing that decides by itself changes the champion, and nothing is trained."""
    pinned: Operation | None = None
    """One version serves, whatever the gate says."""
    retired: Operation | None = None
    """The safe default answers, and the model is not at work."""

    @property
    def hold(self) -> Operation | None:
        """What keeps the gate and the rollback watch from changing the champion; None where nothing does."""
        return self.retired or self.pinned or self.frozen

    def in_words(self) -> str | None:
        """All that holds the model, as the end of a sentence that begins with its name; None where nothing does."""
        held = [self.retired] if self.retired else [one for one in (self.pinned, self.frozen) if one]
        return ", and ".join(map(in_words, held)) or None


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a model when a person asks for something."""

    model: str
    """Its name."""
    tier: int
    """1 where a second person has to confirm it."""
    night: date | None
    """Its newest night; None before the first."""
    changes: Sequence[ChampionChange] = ()
    """Every change of its champion, in the order of nights."""
    promoted: Mapping[int, date] = field(default_factory=dict)
    """Version → the night on which the gate has promoted it."""
    operations: Sequence[Operation] = ()
    """What was asked for before."""

    @property
    def champion(self) -> int | None:
        """The version in service; None for the safe default."""
        return self.changes[-1].champion if self.changes else None


def standing(operations: Sequence[Operation], night: date = date.max) -> Standing:
    """What holds on a night: an operation holds from the night after its own on."""
    held: dict[str, Operation | None] = {}
    for one in in_order(operations):
        if one.night is None or one.night >= night:
            continue
        match one.action:
            case "freeze" | "pin" | "retire":
                held[one.action] = one
            case "unfreeze" | "unpin" | "unretire":
                held[one.action.removeprefix("un")] = None
            case "rollback":
                pass
    return Standing(frozen=held.get("freeze"), pinned=held.get("pin"), retired=held.get("retire"))


def in_order(operations: Sequence[Operation]) -> list[Operation]:
    """Those that hold, in the order in which they came to."""
    done = [one for one in operations if one.is_done and one.night is not None and one.decided_at is not None]
    return sorted(done, key=lambda one: (one.night, one.decided_at, one.id))


def hindrance(operations: Sequence[Operation], night: date) -> str | None:
    """Why nothing that decides by itself may change the champion on a night, as a sentence; None where it may.

    That is so where something holds on that night, and where something holds now: a night of before that is done again
    sees the roles of then, and changes nothing under the hands of whoever holds the model now. A person's change since
    has the last word as well.
    """
    for hold in (standing(operations, night).hold, standing(operations).hold):
        if hold is not None:
            return f"{hold.model} is {in_words(hold)}: nothing changes its champion."
    since = [one for one in in_order(operations) if one.action in CHANGING and one.night and one.night >= night]
    return f"{done_in_words(since[-1])}, which has the last word on this night." if since else None


def plan(
    known: Known,
    action: OperationAction,
    to: Target,
    *,
    reason: str,
    by: str,
    source: str,
    timeout: timedelta,
    now: datetime,
) -> Operation | str:
    """What is to be put down when a person asks for an action; a sentence where it is so already.

    Raises BadInput for what may not be, with a sentence that says what may.
    """
    if not reason.strip():
        raise BadInput("Say why, like --reason 'it answers too high for new customers'; it is kept with your name.")
    if len(reason) > LONGEST:
        raise BadInput(f"Say why in {LONGEST:,} signs at most; it is shown wherever the model is.")
    if not by.strip():
        raise BadInput("It is not known who asks; set TILTYARD_USER to your name.")
    if known.night is None:
        raise BadInput(f"{known.model} has no night yet, so that there is nothing to {action}.")
    target = _target(known, action, to)
    if isinstance(target, str):
        return target
    needs_two = known.tier == 1 and not (action == "rollback" and target.version is None)
    for one in known.operations:
        if one.state(now) != "waiting" or not needs_two:
            continue
        if (one.action, one.version) == (action, target.version):
            return f"{known.model}: {asked_in_words(one)}."
        raise BadInput(f"{known.model}: {asked_in_words(one)}; let that be decided first.")
    return Operation(
        model=known.model,
        action=action,
        version=target.version,
        before=known.champion,
        reason=line(reason),
        requested_by=line(by),
        source=source,
        requested_at=now,
        until=now + timeout if needs_two else None,
        night=known.night,
    )


def confirmed(
    known: Known, asked: Operation, by: str, people: Sequence[str] | None, now: datetime, who: Who = person
) -> None:
    """Raises BadInput where a person may not confirm an operation, or where it is not what it was any more.

    `people`: who may, where that is said; None: anybody but whoever asked. `who`: which names are one person's.
    """
    state = asked.state(now)
    if state == "expired":
        raise BadInput(
            f"Nobody had confirmed operation {asked.id} by {_instant(asked.until)}, which is a no; ask anew."
        )
    if state != "waiting":
        raise BadInput(f"Operation {asked.id} is {state} already.")
    if who(by) == who(asked.requested_by):
        raise BadInput(
            f"{asked.requested_by} asked for operation {asked.id} and cannot confirm it; another person has to."
        )
    if people is not None and who(by) not in map(who, people):
        raise BadInput(f"'{by}' may not confirm what is this owner's; these may: {', '.join(people) or 'nobody now'}.")
    if known.champion != asked.before:
        raise BadInput(
            f"{known.model} has been given another champion since operation {asked.id} was asked for "
            f"({shown(known.champion)} in place of {shown(asked.before)}); refuse it, and ask anew."
        )


@dataclass(frozen=True)
class _Served:
    """Who is in service by an action, where anybody is."""

    version: int | None = None


def _target(known: Known, action: OperationAction, to: Target) -> _Served | str:
    now = standing(known.operations)
    if now.retired is not None and action not in ("retire", "unretire"):
        raise BadInput(
            f"{known.model} is {in_words(now.retired)}; tiltyard unretire {known.model} brings it back first."
        )
    if to is not None and action not in ("rollback", "pin"):
        raise BadInput(f"No version is named to {action} a model; leave it out.")
    match action:
        case "rollback":
            return _back(known, to, now)
        case "pin":
            target = _named(known, known.champion if to is None else None if to == DEFAULT else to)
            if now.pinned is not None and now.pinned.version == target.version:
                return f"{known.model} is {in_words(now.pinned)} already."
            return target
        case "unretire":
            return f"{known.model} is not retired." if now.retired is None else _Served(now.retired.before)
        case "freeze" | "retire":
            held = now.frozen if action == "freeze" else now.retired
            return f"{known.model} is {in_words(held)} already." if held else _Served()
        case "unfreeze" | "unpin":
            held = now.frozen if action == "unfreeze" else now.pinned
            return _Served() if held else f"{known.model} is not {'frozen' if action == 'unfreeze' else 'pinned'}."


def _back(known: Known, to: Target, now: Standing) -> _Served | str:
    """Who comes back by a rollback."""
    if now.pinned is not None:
        raise BadInput(f"{known.model} is {in_words(now.pinned)}; pin another version, or unpin it first.")
    newest = known.changes[-1] if known.changes else None
    if to is None:
        if newest is not None and newest.action == "rollback":
            return (
                f"{known.model} went back to {shown(newest.champion)} on the night of {newest.night} already; name a "
                "version with --to to go further."
            )
        if newest is None or (newest.kind != "promotion" and newest.previous is None) or newest.kind == "rollback":
            last = "nothing was promoted yet" if newest is None else f"it changed last on the night of {newest.night}"
            raise BadInput(f"{known.model} has no previous champion to go back to ({last}); {_may(known)}.")
        target = _named(known, newest.previous)
    else:
        target = _named(known, None if to == DEFAULT else to)
    if target.version == known.champion:
        return f"{shown(target.version).capitalize()} is in service of {known.model} already."
    return target


def _named(known: Known, version: int | None) -> _Served:
    if version is not None and version not in known.promoted:
        raise BadInput(f"The gate has never promoted version {version} of {known.model}; {_may(known)}.")
    return _Served(version)


def _may(known: Known) -> str:
    """Which versions may come back, as half a sentence."""
    others = [f"--to {number}" for number in sorted(known.promoted) if number != known.champion]
    return f"these may come back: {listed([*others, f'--to {DEFAULT}'])}"


# -- in words ---------------------------------------------------------------------------------------------------

_VERBS: Final[Mapping[OperationAction, tuple[str, str]]] = {
    "rollback": ("roll {} back", "rolled {} back"),
    "freeze": ("freeze {}", "froze {}"),
    "unfreeze": ("unfreeze {}", "unfroze {}"),
    "pin": ("pin {}", "pinned {}"),
    "unpin": ("unpin {}", "unpinned {}"),
    "retire": ("retire {}", "retired {}"),
    "unretire": ("take {} back into work", "took {} back into work"),
}


def shown(version: int | None) -> str:
    """Who is in service."""
    return "the safe default" if version is None else f"version {version}"


def in_words(hold: Operation) -> str:
    """What holds a model, as the end of a sentence that begins with its name."""
    words = {"freeze": "frozen", "pin": f"pinned to {shown(hold.version)}", "retire": "retired"}[hold.action]
    return f"{words} since the night of {hold.night} by {hold.requested_by} ({hold.reason.rstrip('.')})"


def back_in_words(retired: Operation) -> str:
    """Who serves again once a model is taken back into work, as half a sentence."""
    return f"tiltyard unretire {retired.model} takes it back into work, with {shown(retired.before)} in service"


def what(one: Operation) -> str:
    """An operation in a few words."""
    to = f" to {shown(one.version)}" if one.action in ("rollback", "pin") else ""
    return f"{one.action} {one.model}{to}"


def asked_in_words(one: Operation) -> str:
    """What waits for a second person, as half a sentence."""
    return (
        f"operation {one.id} ({what(one)}), which {one.requested_by} asked for, waits for a second person until "
        f"{_instant(one.until)}: tiltyard operations approve {one.id}"
    )


def done_in_words(one: Operation) -> str:
    """What was done, as half a sentence."""
    second = f" and {one.decided_by}" if one.decided_by else ""
    return f"{one.requested_by}{second} {_act(one, 1)} on the night of {one.night} ({one.reason.rstrip('.')})"


def would_in_words(one: Operation) -> str:
    """What would be done, as half a sentence."""
    return f"it would {_act(one, 0)}"


def _act(one: Operation, tense: int) -> str:
    """An operation with its verb: to do it (0), or that it was done (1)."""
    to = f" to {shown(one.version)}" if one.action in ("rollback", "pin") else ""
    return _VERBS[one.action][tense].format(one.model) + to


def _instant(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC" if instant else "now"
