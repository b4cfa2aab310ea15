"""What a person does to a model by hand: asked for, confirmed, refused. The rules are those of `operating`.

It is claimed in the ledger under the lock of promotions, takes effect at once in the service and with the next night in
the batch, and the aliases follow. Tier 1 takes two people, but for the way to the safe default, which has to be short:
one is enough there, and the owner hears of it at once.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import get_args

from tiltyard import operating
from tiltyard.errors import BadInput
from tiltyard.judge import aliases
from tiltyard.operating import CHANGING, DEFAULT, Known, Target
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.rails import Rails
from tiltyard.records import Operation, OperationAction, Record
from tiltyard.spec import Spec, find
from tiltyard.stages import NIGHTLY
from tiltyard.words import line

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Operated(Record):
    """What came of asking for something."""

    operation: Operation | None
    """What was put down, or waits already; None where it is so already."""
    sentence: str
    """That in a sentence."""
    waits: bool = False
    """Whether a second person has to confirm it."""
    is_dry: bool = False
    """Whether nothing was done, since only that was asked."""


def target(text: str | None) -> Target:
    """The version that a text names: a number, or `default`. Raises BadInput for any other."""
    if text is None or not str(text).strip():
        return None
    named = str(text).strip().removeprefix("v")
    if named == DEFAULT:
        return DEFAULT
    if not named.isdecimal() or len(named) > 9:
        raise BadInput(f"'{text}' is no version; name its number, or {DEFAULT} for the safe default.")
    return int(named)


def action(text: str) -> OperationAction:
    """The action of that name. Raises BadInput where there is none."""
    for name in get_args(OperationAction):
        if name == text:
            found: OperationAction = name
            return found
    raise BadInput(
        f"'{text}' is nothing that can be done to a model; these can: {', '.join(get_args(OperationAction))}."
    )


def request(
    rails: Rails,
    spec: Spec,
    asked: OperationAction,
    *,
    to: Target = None,
    reason: str,
    by: str,
    source: str,
    now: datetime,
    dry_run: bool = False,
) -> Operated:
    """Do something to a model, or ask for it where a second person has to confirm it; twice is once.

    Raises BadInput for what may not be, with what may, and while a hindcast plays the model.
    """
    rails.ledger.require_unplayed([spec.name])
    timeout = spec.gate.approval_timeout

    def decide() -> Operation | str:
        known = _known(rails, spec)
        return operating.plan(known, asked, to, reason=reason, by=by, source=source, timeout=timeout, now=now)

    made = decide() if dry_run else rails.ledger.operations.ask(spec.name, decide)
    if isinstance(made, str):
        waiting = next((one for one in _of(rails, spec.name) if operating.asked_in_words(one) in made), None)
        return Operated(operation=waiting, sentence=made, waits=waiting is not None)
    if dry_run:
        second = "; a second person would have to confirm it" if made.until else ""
        return Operated(operation=made, sentence=f"{_upper(operating.would_in_words(made))}{second}.", is_dry=True)
    if not made.is_done:
        return Operated(operation=made, sentence=f"{_upper(operating.asked_in_words(made))}.", waits=True)
    return _done(rails, spec, made)


def approve(rails: Rails, number: int, *, by: str, now: datetime, answer: str | None = None) -> Operated:
    """A second person's yes. Raises BadInput where it does not count: by whoever asked, by somebody who may not, too
    late, when the champion is another one by now, and while a hindcast plays the model."""
    asked = rails.ledger.operations.find(number)
    rails.ledger.require_unplayed([asked.model])
    spec = find(rails.settings.models, asked.model)
    rules = load_portfolio(rails.settings.models)
    people = rules.may_answer(spec.owner, now.date(), asked_by=(asked.requested_by,))

    def decide(one: Operation) -> date | None:
        known = _known(rails, spec)
        operating.confirmed(known, one, by, people, now, rules.who)
        return known.night

    said = line(answer) if answer else None
    return _done(rails, spec, rails.ledger.operations.end(number, decide, by=by, at=now, answer=said))


def refuse(rails: Rails, number: int, *, by: str, reason: str, now: datetime) -> Operated:
    """Anybody's no, also of whoever asked. Raises BadInput without a reason, and for what does not wait any more."""
    if not reason.strip():
        raise BadInput("Say why, like --reason 'it has mended itself'; it is kept with your name.")

    def decide(one: Operation) -> None:
        if (state := one.state(now)) != "waiting":
            raise BadInput(f"Operation {one.id} is {state} already, so that there is nothing to refuse.")

    ended = rails.ledger.operations.end(number, decide, by=by, at=now, answer=line(reason))
    return Operated(operation=ended, sentence=f"{by} has refused operation {ended.id} ({operating.what(ended)}).")


def listing(rails: Rails, models: Sequence[str] | None = None) -> list[Operation]:
    """What was ever asked for, the oldest first; of all models, or of these."""
    found = [one for own in rails.ledger.operations.of(models).values() for one in own]
    return sorted(found, key=lambda one: one.id)


def _done(rails: Rails, spec: Spec, made: Operation) -> Operated:
    late = ""
    if made.action in CHANGING and made.night is not None:
        try:
            aliases.follow(rails, spec, made.night)
        except Exception as error:  # it holds: the ledger decides, and what follows it must not look like a no
            log.warning("MLflow's aliases of %s do not follow: %s", spec.name, error)
            late = f" MLflow's aliases follow with the next night ({type(error).__name__})."
    after = {
        "rollback": f"{operating.shown(made.version)} answers at once online, and from the next night on in the batch",
        "pin": f"{operating.shown(made.version)} serves until it is unpinned, whatever the gate says",
        "unpin": "the gate may promote again",
        "freeze": "it is scored and watched, and nothing changes it but a person",
        "unfreeze": "the gate, the rollback watch and the governor may change it again",
        "retire": "its safe default answers, and it is not trained, scored or told of any more",
        "unretire": f"{operating.shown(made.version)} answers again",
    }[made.action]
    return Operated(operation=made, sentence=f"{_upper(operating.done_in_words(made))}: {after}.{late}")


def _known(rails: Rails, spec: Spec) -> Known:
    operations, changes = _of(rails, spec.name), rails.ledger.changes(spec.name)
    return Known(
        model=spec.name,
        tier=spec.tier,
        night=_newest(rails, spec, operations),
        changes=changes,
        promoted={change.version: change.night for change in changes
                  if change.kind == "promotion" and change.version is not None},
        operations=operations,
    )  # fmt: skip


def _newest(rails: Rails, spec: Spec, operations: Sequence[Operation]) -> date | None:
    """The newest night that is decided for a model: its own, or, while it is retired and has none, its source's."""
    own = [night for stage in NIGHTLY for night in rails.ledger.newest_attempts(stage, [spec.name]).values()]
    if not own:
        return None
    own += [change.night for change in rails.ledger.changes(spec.name)]
    own += [one.night for one in operations if one.night is not None]
    if operating.standing(operations).retired is not None:
        own += rails.ledger.newest_attempts("features", [spec.source, ""]).values()
    return max(own)


def _of(rails: Rails, model: str) -> list[Operation]:
    return rails.ledger.operations.of([model])[model]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
