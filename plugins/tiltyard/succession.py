"""Who is champion, previous, challenger and first at a night, from what was decided on earlier ones. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, NamedTuple

from tiltyard.records import OperationAction


class ChampionStep(NamedTuple):
    """A promotion, a rollback by the watch or what a person did, as far as it says who is in service."""

    night: date
    is_rollback: bool
    version: int | None
    """The version that was promoted, or sent back; by a person the one that is in service from then on."""
    before: int | None
    """The version that it replaced; None for the safe default."""
    action: OperationAction | None = None
    """What a person did; None where nobody did."""
    place: int = 0
    """Where it stands among what persons did on one night."""


@dataclass(frozen=True)
class ChampionChange:
    """A night on which the champion changed, and who was who from the next night on."""

    night: date
    kind: Literal["promotion", "rollback", "operation"]
    version: int | None
    """The version that was promoted, or sent back; by a person the one that is in service from then on."""
    champion: int | None
    previous: int | None
    action: OperationAction | None = None
    """What a person did; None where nobody did."""


def succession(steps: Iterable[ChampionStep]) -> list[ChampionChange]:
    """Promotions, rollbacks and what persons did of one model as changes, in the order of nights.

    A rollback puts things back to what they were before the promotion that it undoes. A person brings a version back
    with the one that it had replaced as its previous one, unless that is the one that is left. On one night what a
    person did comes last.
    """
    earlier: dict[int | None, int | None] = {}
    replaced: dict[int | None, int | None] = {}
    changes: list[ChampionChange] = []
    for step in sorted(steps, key=lambda step: (step.night, step.action is not None, step.is_rollback, step.place)):
        night, is_rollback, version, before, action, _ = step
        if action is not None:
            previous = replaced.get(version)
            if previous == (changes[-1].champion if changes else None) and action != "unretire":
                previous = None
            changes.append(ChampionChange(night, "operation", version, version, previous, action))
        elif is_rollback:
            changes.append(ChampionChange(night, "rollback", version, before, earlier.get(version)))
        else:
            earlier[version] = changes[-1].previous if changes else None
            replaced[version] = before
            changes.append(ChampionChange(night, "promotion", version, version, before))
    return changes


@dataclass(frozen=True)
class Roles:
    """Who does what at a night, from decisions of earlier nights. Versions are MLflow's numbers."""

    champion: int | None
    previous: int | None
    challengers: tuple[int, ...]
    first: int | None
    """The first version there was: it scores on whatever the gate said, to show what retraining earned."""

    @property
    def scored(self) -> dict[int, str]:
        """version → role, for every version that scores this night."""
        challengers = [(number, "challenger") for number in self.challengers]
        named = [(self.champion, "champion"), (self.previous, "previous"), *challengers, (self.first, "first")]
        roles: dict[int, str] = {}
        for number, role in named:
            if number is not None:
                roles.setdefault(number, role)
        return roles


def cast(
    trained: Mapping[int, date], changes: Sequence[ChampionChange], rejected: Collection[int], night: date
) -> Roles:
    """Who does what at a night. `trained`: version → night of its training; `rejected` on nights before this one.

    Challengers are the versions trained before `night`, newer than every version that was promoted, and not
    rejected; of two trained on the same night the later one counts. What was promoted once, or was passed over
    by a promotion, does not challenge again when the promotion is undone. A retired model has nobody.
    """
    earlier = [change for change in changes if change.night < night]
    if earlier and earlier[-1].action == "retire":
        return Roles(champion=None, previous=None, challengers=(), first=None)
    trained = {number: when for number, when in trained.items() if when < night}
    latest_of_night = {when: number for number, when in sorted(trained.items())}
    promoted = {change.version for change in earlier}
    newest = max((trained[number] for number in promoted if number in trained), default=None)
    challengers = tuple(
        number
        for when, number in sorted(latest_of_night.items())
        if number not in rejected and number not in promoted and (newest is None or when > newest)
    )
    return Roles(
        champion=earlier[-1].champion if earlier else None,
        previous=earlier[-1].previous if earlier else None,
        challengers=challengers,
        first=min(trained, default=None),
    )
