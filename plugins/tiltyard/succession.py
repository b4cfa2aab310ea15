"""Who is champion, previous, challenger and first at a night, from what was decided on earlier ones. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, NamedTuple


class ChampionStep(NamedTuple):
    """A promotion or a rollback, as far as it says who is in service."""

    night: date
    is_rollback: bool
    version: int
    """The version that was promoted, or sent back."""
    before: int | None
    """The version that it replaced; None for the safe default."""


@dataclass(frozen=True)
class ChampionChange:
    """A night on which the champion changed, and who was who from the next night on."""

    night: date
    kind: Literal["promotion", "rollback"]
    version: int
    """The version that was promoted, or sent back."""
    champion: int | None
    previous: int | None


def succession(steps: Iterable[ChampionStep]) -> list[ChampionChange]:
    """Promotions and rollbacks of one model as changes, in the order of nights.

    A rollback puts things back to what they were before the promotion that it undoes.
    """
    earlier: dict[int, int | None] = {}
    changes: list[ChampionChange] = []
    for night, is_rollback, version, before in sorted(steps, key=lambda step: step[:2]):
        if is_rollback:
            changes.append(ChampionChange(night, "rollback", version, before, earlier.get(version)))
        else:
            earlier[version] = changes[-1].previous if changes else None
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
    by a promotion, does not challenge again when the promotion is undone.
    """
    earlier = [change for change in changes if change.night < night]
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
