"""Who is interrupted, and when: the rules, each drawn as what a week looks like.

A fact is told at once (page), with the others in the morning (digest), or not yet (waits).
"""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from tiltyard.edge.told import deciding
from tiltyard.outbox import Standing
from tiltyard.portfolio_rules import AlertKind, Pages
from tiltyard.records import Fact, Message, Weight

NOON = datetime(2025, 6, 4, 12, tzinfo=UTC)
PAGES = Pages(per_owner_week=2, digest="07:00")
HOUR = timedelta(hours=1)


def fact(kind: AlertKind, subject: str = "x", *, owner: str = "desk", tier: int = 2, hours: int | None = None) -> Fact:
    until = NOON + hours * HOUR if hours else None
    return Fact(kind=kind, subject=subject, owner=owner, tier=tier, reason="why", until=until, link="/")


def message(number: int, told: Fact, weight: Weight, *, hours_ago: float = 0.0, reminders: int = 0) -> Message:
    return Message(id=number, fact=told, weight=weight, opened_at=NOON - hours_ago * HOUR, reminders=reminders)


def standing(*messages: Message, paged: int = 0, digest: datetime | None = None) -> Standing:
    return Standing(messages=messages, paged={"desk": paged}, digests={"desk": digest} if digest else {})


def told(facts: list[Fact], before: Standing, now: datetime = NOON) -> dict[str, Weight]:
    return {fact.subject: weight for fact, weight in deciding.decide(facts, before, PAGES, now).opened}


def test_the_weeks_pages_go_to_what_is_most_urgent_and_the_rest_to_the_morning() -> None:
    facts = [
        fact("incident", "a shift"),  #       least urgent
        fact("refused", "a text"),
        fact("quarantined", "a file"),
        fact("explain", "a default"),  #      most urgent
    ]
    #                         pages of the last seven days
    assert told(facts, standing(paged=0)) == {
        "a default": "page", "a file": "page", "a text": "digest", "a shift": "digest",
    }  # fmt: skip
    assert told(facts, standing(paged=1)) == {
        "a default": "page", "a file": "digest", "a text": "digest", "a shift": "digest",
    }  # fmt: skip
    assert set(told(facts, standing(paged=2)).values()) == {"digest"}
    other = [replace(entry, owner="risk") for entry in facts]
    assert list(told(other, standing(paged=2)).values()).count("page") == 2, "each owner has a week of its own"


def test_what_must_not_wait_always_comes_and_is_counted() -> None:
    facts = [
        fact("approve", "churn v2", hours=21),  # silence is a no
        fact("explain", "a model", tier=1),  #     the highest stakes
        fact("refused", "a text"),
    ]
    assert told(facts, standing(paged=9)) == {"churn v2": "page", "a model": "page", "a text": "digest"}
    assert told(facts, standing(paged=0)) == {"churn v2": "page", "a model": "page", "a text": "digest"}


def test_what_a_later_night_settles_is_a_line_of_the_morning_whatever_the_stakes() -> None:
    for kind in ("unanswered", "stopped"):
        for tier in (1, 2, 3):
            assert told([fact(kind, tier=tier)], standing(paged=0)) == {"x": "digest"}


def test_what_may_end_by_itself_is_left_alone_for_two_hours() -> None:
    assert told([fact("failed", tier=1), fact("table", "y")], standing()) == {"x": "waits", "y": "waits"}
    waits = message(7, fact("failed", tier=1), "waits", hours_ago=2)
    assert deciding.decide([waits.fact], standing(waits, paged=9), PAGES, NOON).weighed == ((waits, "page"),)
    broken = fact("failed")
    assert told([broken], standing()) == {"x": "waits"}
    #           hours since it was seen    how it is told by then
    for hours, weight in ((0.2, None), (1.9, None), (2.0, "page"), (30.0, "page")):
        waits = message(7, broken, "waits", hours_ago=hours)
        weighed = deciding.decide([broken], standing(waits), PAGES, NOON).weighed
        assert weighed == (((waits, weight),) if weight else ())
    decided = deciding.decide([], standing(message(7, broken, "waits", hours_ago=1)), PAGES, NOON)
    assert [entry.id for entry in decided.ended] == [7], "it ended by itself, and nobody has heard of it"


def test_what_stands_is_told_once_and_is_over_once() -> None:
    held = fact("quarantined")
    paged = message(1, held, "page", hours_ago=30)
    again = deciding.decide([held], standing(paged, paged=1), PAGES, NOON)
    assert (again.opened, again.weighed, again.ended, again.reminded) == ((), (), (), ())
    assert deciding.decide([], standing(paged, paged=1), PAGES, NOON).ended == (paged,)


def test_whoever_is_asked_is_reminded_at_half_and_at_nine_tenths_of_the_time() -> None:
    asked = fact("approve", hours=20)
    #    hours passed of    reminders so far    reminded now
    for passed, remaining, before, now in (
        (9.0, 11, 0, False),
        (10.0, 10, 0, True),  #   half
        (10.0, 10, 1, False),
        (17.9, 2.1, 1, False),
        (18.0, 2, 1, True),  #    nine tenths
        (19.0, 1, 2, False),
        (21.0, -1, 1, False),  #  silence has answered
    ):  # fmt: skip
        own = message(
            1, replace(asked, until=NOON + remaining * HOUR), "page", hours_ago=passed, reminders=before
        )  # fmt: skip
        decided = deciding.decide([own.fact], standing(own), PAGES, NOON)
        assert bool(decided.reminded) is now, (passed, before)


def test_the_digest_comes_once_a_morning_to_those_who_have_something_to_read() -> None:
    text = fact("refused")
    seven = NOON.replace(hour=7)
    #    opened              last digest              now                 comes
    for hours_ago, last, now, comes in (
        (20, None, NOON, True),
        (20, seven + HOUR / 60, NOON, False),  #          this morning's
        (20, seven - timedelta(days=1), NOON, True),  #   yesterday's
        (3, None, NOON, False),  #                        it came after seven
        (20, None, NOON.replace(hour=6), False),  #       before seven: opened after yesterday's hour
        (40, None, NOON.replace(hour=6), True),  #        nobody looked yesterday
    ):  # fmt: skip
        own = message(1, text, "digest", hours_ago=hours_ago)
        decided = deciding.decide([text], standing(own, digest=last), PAGES, now)
        assert bool(decided.digests) is comes, (hours_ago, last, now)
    paged = message(2, text, "page", hours_ago=20)
    assert not deciding.decide([text], standing(paged), PAGES, NOON).digests, "who was paged need not read it again"
    early = message(1, text, "digest", hours_ago=-48)
    assert deciding.decide([text], standing(early), PAGES, NOON).digests, "opened by a clock that was two days ahead"


def test_an_open_message_reads_as_its_fact_does_now_and_another_fact_is_told() -> None:
    """The same table held for another reason is the same fact; held since another night it is another one."""
    first = replace(fact("table", "raw.payment"), since=date(2025, 6, 1), reason="nothing came")
    before = standing(message(1, first, "page", hours_ago=3))
    now = replace(first, reason="3 rows undated", link="/other")
    decided = deciding.decide([now], before, PAGES, NOON)
    assert (decided.opened, decided.ended, decided.replaced) == ((), (), ())
    assert [(own.id, own.fact) for own in decided.renewed] == [(1, now)]
    assert not deciding.decide([first], before, PAGES, NOON).renewed, "nothing is otherwise"
    other = replace(now, since=date(2025, 6, 2))
    decided = deciding.decide([other], before, PAGES, NOON)
    assert [(own, weight) for own, weight in decided.opened] == [(other, "waits")]
    assert ([own.id for own in decided.replaced], decided.ended, decided.renewed) == ([1], (), ())


def test_what_waited_is_told_as_it_is_when_it_is_told() -> None:
    first = replace(fact("table", "raw.payment"), since=date(2025, 6, 1), reason="nothing came")
    now = replace(first, reason="3 rows undated")
    [(told_now, weight)] = deciding.decide(
        [now], standing(message(1, first, "waits", hours_ago=3)), PAGES, NOON
    ).weighed
    assert (told_now.fact.reason, weight) == ("3 rows undated", "page")
