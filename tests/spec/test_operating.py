"""What a person may do to a model by hand, and what of it holds on a night.

night        1    2    3    4    5    6
trained      v1   v2
promoted          v1        v2
by hand                          …  asked for on the night of 5, in force from 6 on
"""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from tiltyard import operating
from tiltyard.errors import BadInput
from tiltyard.operating import Known
from tiltyard.records import Operation, OperationAction
from tiltyard.succession import ChampionStep, Roles, cast, succession

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
PROMOTED = (ChampionStep(date(2026, 1, 2), False, 1, None), ChampionStep(date(2026, 1, 4), False, 2, 1))
TRAINED = {1: date(2026, 1, 1), 2: date(2026, 1, 2)}


def night(number: int) -> date:
    return date(2026, 1, number)


def known(*done: Operation, tier: int = 2, on: int | None = 5) -> Known:
    steps = [*PROMOTED, *map(step, operating.in_order(done))]
    return Known(
        model="churn",
        tier=tier,
        night=night(on) if on else None,
        changes=succession(each for each in steps if each.night),
        promoted={1: night(2), 2: night(4)},
        operations=done,
    )


def step(one: Operation) -> ChampionStep:
    changes = one.action in operating.CHANGING
    assert one.night is not None
    return ChampionStep(one.night, False, one.version, one.before, one.action, one.id) if changes else PROMOTED[0]


def ask(about: Known, action: OperationAction, to: operating.Target = None, **said: str) -> Operation | str:
    values = {"reason": "it answers too high", "by": "ann", "source": "command line", **said}
    return operating.plan(about, action, to, timeout=timedelta(days=1), now=NOW, **values)


def did(about: Known, action: OperationAction, to: operating.Target = None, *, by: str | None = None) -> Known:
    """What is known after it was done."""
    made = ask(about, action, to)
    assert isinstance(made, Operation), made
    number = len(about.operations) + 1
    ended = replace(made, id=number, outcome="done", decided_by=by, decided_at=NOW + timedelta(minutes=number))
    return replace(known(*about.operations, ended, tier=about.tier), night=about.night)


def roles(about: Known, on: int) -> Roles:
    return cast(TRAINED, about.changes, (), night(on))


def test_the_previous_champion_comes_back_from_the_next_night_on_and_saying_so_again_goes_no_further() -> None:
    back = did(known(), "rollback")
    assert roles(back, 5).champion == 2, "the night on which it was asked for is over"
    assert roles(back, 6) == Roles(champion=1, previous=None, challengers=(), first=1)
    assert ask(back, "rollback") == (
        "churn went back to version 1 on the night of 2026-01-05 already; name a version with --to to go further."
    )
    assert ask(back, "rollback", 1) == "Version 1 is in service of churn already."
    assert roles(did(back, "rollback", "default"), 6) == Roles(champion=None, previous=None, challengers=(), first=1)


def test_the_one_that_was_left_is_nobody_s_previous_and_does_not_challenge_again() -> None:
    again = did(did(known(), "rollback"), "rollback", 2)
    assert roles(again, 6) == Roles(champion=2, previous=None, challengers=(), first=1), (
        "version 1 was left for a reason"
    )
    later = {**TRAINED, 3: night(3), 4: night(6)}
    assert cast(later, did(known(), "rollback").changes, (), night(7)).challengers == (3, 4), "2 is not among them"


@pytest.mark.parametrize(
    ("action", "to", "sentence"),
    [
        ("rollback", 3, "The gate has never promoted version 3 of churn; these may come back: --to 1, --to default."),
        ("pin", 9, "The gate has never promoted version 9 of churn; these may come back: --to 1, --to default."),
        ("freeze", 1, "No version is named to freeze a model; leave it out."),
    ],
)
def test_nobody_goes_round_the_gate(action: OperationAction, to: int, sentence: str) -> None:
    with pytest.raises(BadInput) as refused:
        ask(known(), action, to)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("about", "said", "sentence"),
    [
        (known(), {"reason": "  "}, "Say why, like --reason"),
        (known(), {"by": ""}, "It is not known who asks"),
        (known(on=None), {}, "churn has no night yet, so that there is nothing to freeze."),
    ],
)
def test_what_lacks_a_reason_a_name_or_a_night_is_refused(about: Known, said: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        ask(about, "freeze", **said)


@pytest.mark.parametrize(("action", "undone"), [("freeze", "unfreeze"), ("pin", "unpin"), ("retire", "unretire")])
def test_each_is_taken_back_and_each_is_so_already_when_it_is(action: OperationAction, undone: OperationAction) -> None:
    words = {"freeze": "frozen", "pin": "pinned", "retire": "retired"}[action]
    assert ask(known(), undone) == f"churn is not {words}."
    held = did(known(), action)
    again = ask(held, action)
    assert isinstance(again, str)
    assert again.startswith(f"churn is {words}")
    assert again.endswith("since the night of 2026-01-05 by ann (it answers too high) already.")
    assert operating.standing(held.operations, night(5)).hold is None, "a night of before does not see it"
    assert operating.standing(held.operations, night(6)).hold is not None
    assert operating.standing(did(held, undone).operations).hold is None


def test_a_frozen_model_may_be_rolled_back_by_a_person_and_a_pinned_one_not() -> None:
    assert roles(did(did(known(), "freeze"), "rollback"), 6).champion == 1
    with pytest.raises(BadInput, match="churn is pinned to version 2 since the night of 2026-01-05"):
        ask(did(known(), "pin"), "rollback")
    moved = did(did(known(), "pin"), "pin", 1)
    assert roles(moved, 6).champion == 1
    assert operating.standing(moved.operations).pinned.version == 1
    assert roles(did(moved, "unpin"), 6).champion == 1, "it stays until something better has earned its place"


def test_a_retired_model_has_nobody_and_comes_back_as_it_was() -> None:
    retired = did(known(), "retire")
    assert roles(retired, 6) == Roles(champion=None, previous=None, challengers=(), first=None)
    with pytest.raises(BadInput, match="tiltyard unretire churn brings it back first"):
        ask(retired, "freeze")
    assert roles(did(retired, "unretire"), 6) == Roles(champion=2, previous=1, challengers=(), first=1)


def test_what_holds_now_and_what_held_then_both_keep_the_gate_from_a_promotion() -> None:
    def hinders(about: Known, on: int) -> bool:
        return operating.hindrance(about.operations, night(on)) is not None

    frozen = did(known(), "freeze")
    assert hinders(frozen, 3), "a night of before that is done again changes nothing under whoever holds it now"
    let_go = did(replace(frozen, night=night(8)), "unfreeze")
    assert [hinders(let_go, on) for on in (5, 6, 8, 9)] == [False, True, True, False]
    back = did(known(), "rollback")
    assert [hinders(back, on) for on in (4, 5, 6)] == [True, True, False], "a person had the last word on that night"
    sentence = operating.hindrance(frozen.operations, night(9))
    assert sentence == (
        "churn is frozen since the night of 2026-01-05 by ann (it answers too high): nothing changes its champion."
    )


@pytest.mark.parametrize("action", ["freeze", "unfreeze", "pin", "retire", "rollback"])
def test_tier_1_takes_two_people(action: OperationAction) -> None:
    about = did(known(), "freeze") if action == "unfreeze" else known()
    made = ask(replace(about, tier=1), action)
    assert isinstance(made, Operation)
    assert made.until == NOW + timedelta(days=1)
    asked = replace(made, id=7, night=None)
    again = ask(replace(about, tier=1, operations=(*about.operations, asked)), action)
    assert isinstance(again, str)
    assert "waits for a second person until 2026-01-06 09:00 UTC: tiltyard operations approve 7" in again
    assert (asked.state(NOW), asked.state(NOW + timedelta(days=1))) == ("waiting", "expired")


def test_the_way_to_the_safe_default_takes_one() -> None:
    made = ask(replace(known(), tier=1), "rollback", "default")
    assert isinstance(made, Operation)
    assert (made.version, made.until) == (None, None)


def test_what_waits_is_decided_before_something_else_is_asked_for() -> None:
    made = ask(replace(known(), tier=1), "freeze")
    assert isinstance(made, Operation)
    waiting = replace(known(), tier=1, operations=(replace(made, id=7, night=None),))
    with pytest.raises(BadInput, match="let that be decided first"):
        ask(waiting, "pin")
    assert isinstance(ask(waiting, "rollback", "default"), Operation), "what is urgent does not wait"


@pytest.mark.parametrize(
    ("by", "people", "later", "sentence"),
    [
        ("Ann ", None, 0, "ann asked for operation 7 and cannot confirm it"),
        ("eve", ("bob", "cid"), 0, "'eve' may not confirm what is this owner's; these may: bob, cid."),
        ("bob", (), 0, "'bob' may not confirm what is this owner's; these may: nobody now."),
        ("bob", None, 25, "Nobody had confirmed operation 7 by 2026-01-06 09:00 UTC, which is a no; ask anew."),
    ],
)
def test_a_second_word_that_does_not_count(by: str, people: tuple[str, ...] | None, later: int, sentence: str) -> None:
    made = ask(replace(known(), tier=1), "rollback")
    assert isinstance(made, Operation)
    asked = replace(made, id=7)
    operating.confirmed(known(), asked, "bob", None, NOW)
    with pytest.raises(BadInput) as refused:
        operating.confirmed(known(), asked, by, people, NOW + timedelta(hours=later))
    assert sentence in str(refused.value)


def test_one_person_is_one_in_another_encoding_and_a_reason_is_a_line() -> None:
    about = known(tier=1)
    made = ask(about, "freeze", reason="why\n**bob** did\x1b[2J", by="Ren\u00e9e")
    assert isinstance(made, Operation)
    assert made.reason == "why **bob** did\ufffd[2J"
    with pytest.raises(BadInput, match="cannot confirm it"):
        operating.confirmed(about, replace(made, id=7), "RENE\u0301E", None, NOW)
    with pytest.raises(BadInput, match="1,000 signs at most"):
        ask(about, "freeze", reason="x" * 1_001)


def test_what_was_asked_for_under_another_champion_is_asked_anew() -> None:
    made = ask(replace(known(), tier=1), "rollback")
    assert isinstance(made, Operation)
    with pytest.raises(BadInput, match=r"\(version 1 in place of version 2\); refuse it, and ask anew"):
        operating.confirmed(did(known(), "rollback"), replace(made, id=7), "bob", None, NOW)
