"""Who is champion, previous, challenger and first at a night: decided on earlier nights, without a database."""

from collections.abc import Mapping
from datetime import date, timedelta

from tiltyard.succession import ChampionStep, Roles, cast, succession


def night(number: int) -> date:
    return date(2016, 3, 31) + timedelta(days=number)


def promoted(version: int, on: int, replaced: int | None = None) -> ChampionStep:
    return ChampionStep(night(on), False, version, replaced)


def sent_back(version: int, on: int, previous: int | None = None) -> ChampionStep:
    return ChampionStep(night(on), True, version, previous)


def roles(trained: Mapping[int, int], *steps: ChampionStep, at: int, rejected: tuple[int, ...] = ()) -> Roles:
    """The roles at a night. `trained`: version → number of the night of its training."""
    nights = {version: night(on) for version, on in trained.items()}
    return cast(nights, succession(steps), rejected, night(at))


def test_without_a_training_there_is_nobody() -> None:
    assert roles({}, at=5) == Roles(champion=None, previous=None, challengers=(), first=None)
    assert roles({1: 5}, at=5) == Roles(champion=None, previous=None, challengers=(), first=None), (
        "not on its own night"
    )
    assert roles({1: 5}, at=6) == Roles(champion=None, previous=None, challengers=(1,), first=1)


def test_of_two_trained_on_one_night_the_later_one_counts() -> None:
    assert roles({1: 1, 2: 1}, at=2).challengers == (2,)


def test_a_promoted_challenger_ends_the_older_ones() -> None:
    trained = {1: 1, 2: 2, 3: 3}
    assert roles(trained, promoted(2, on=4), at=4).challengers == (1, 2, 3), "the night of a promotion still compares"
    assert roles(trained, promoted(2, on=4), at=5) == Roles(champion=2, previous=None, challengers=(3,), first=1)


def test_what_was_rejected_challenges_no_more() -> None:
    assert roles({1: 1, 2: 2}, at=3, rejected=(2,)).challengers == (1,)


def test_a_champion_that_replaced_nobody_goes_back_to_nobody() -> None:
    steps = (promoted(1, on=3), sent_back(1, on=8))
    assert roles({1: 1}, *steps, at=8) == Roles(champion=1, previous=None, challengers=(), first=1)
    assert roles({1: 1}, *steps, at=9) == Roles(champion=None, previous=None, challengers=(), first=1)


def test_a_rollback_brings_back_the_previous_of_before() -> None:
    # night       3     5     6     8
    # champion    1     2     4     2 again, and 1 the previous
    steps = (promoted(1, on=3), promoted(2, on=5, replaced=1), promoted(4, on=6, replaced=2), sent_back(4, 8, 2))
    trained = {1: 1, 2: 2, 3: 3, 4: 4, 5: 9}
    assert roles(trained, *steps, at=7) == Roles(champion=4, previous=2, challengers=(), first=1)
    assert roles(trained, *steps, at=9) == Roles(champion=2, previous=1, challengers=(), first=1)
    assert roles(trained, *steps, at=10).challengers == (5,), "neither 4 nor 3, which it had passed over"
    assert roles(trained, *steps, at=10).scored == {2: "champion", 1: "previous", 5: "challenger"}
