"""Many deadlines on one timer: each in its time and order, and none that was called off."""

import asyncio
import time
from collections.abc import Callable

import pytest

from tiltyard.serve.deadlines import EARLY_S, Deadlines


def ring(plan: Callable[[Deadlines, float, list[str]], None], until: int) -> list[str]:
    """What was called once `plan(deadlines, now, told)` had set some, when `until` of them have been."""

    async def main() -> list[str]:
        told: list[str] = []
        plan(Deadlines(asyncio.get_running_loop()), time.monotonic(), told)
        async with asyncio.timeout(30):
            while len(told) < until:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)  # and nothing more comes
        return told

    return asyncio.run(main())


def test_they_come_in_the_order_of_their_instants() -> None:
    def plan(deadlines: Deadlines, now: float, told: list[str]) -> None:
        for name, after in (("third", 0.03), ("first", 0.01), ("fourth", 0.04), ("second", 0.02)):
            deadlines.at(now + after, lambda name=name: told.append(name))

    assert ring(plan, 4) == ["first", "second", "third", "fourth"]


def test_none_comes_more_than_a_moment_early() -> None:
    early: list[float] = []

    def plan(deadlines: Deadlines, now: float, told: list[str]) -> None:
        def call(instant: float) -> None:
            early.append(instant - time.monotonic())
            told.append("")

        for number in range(20):
            instant = now + 0.005 + number * 0.0007
            deadlines.at(instant, lambda instant=instant: call(instant))

    ring(plan, 20)
    assert max(early) <= EARLY_S + 0.001  # the loop's clock stands still within a turn


def test_what_is_called_off_does_not_come_and_the_others_do() -> None:
    def plan(deadlines: Deadlines, now: float, told: list[str]) -> None:
        off = [deadlines.at(now + 0.01, lambda: told.append("called off")) for _ in range(3)]
        deadlines.at(now + 0.02, lambda: told.append("kept"))
        for deadline in off:
            deadline.cancel()

    assert ring(plan, 1) == ["kept"]


def test_one_may_set_or_call_off_another_and_one_that_is_over_comes_at_once() -> None:
    def plan(deadlines: Deadlines, now: float, told: list[str]) -> None:
        def first() -> None:
            told.append("first")
            neighbour.cancel()
            deadlines.at(time.monotonic() - 1, lambda: told.append("long over"))
            deadlines.at(time.monotonic() + 0.01, lambda: told.append("later"))

        deadlines.at(now + 0.01, first)
        neighbour = deadlines.at(now + 0.01, lambda: told.append("neighbour"))

    assert ring(plan, 3) == ["first", "long over", "later"]


def test_what_is_set_while_others_come_leaves_the_loop_a_turn() -> None:
    def plan(deadlines: Deadlines, now: float, told: list[str]) -> None:
        def first() -> None:
            asyncio.get_running_loop().call_soon(lambda: told.append("a turn of the loop"))
            deadlines.at(time.monotonic() - 1, lambda: told.append("long over"))

        deadlines.at(now, first)

    assert ring(plan, 2) == ["a turn of the loop", "long over"]


def test_one_that_raises_keeps_no_other_from_coming(caplog: pytest.LogCaptureFixture) -> None:
    def plan(deadlines: Deadlines, now: float, told: list[str]) -> None:
        def fail() -> None:
            raise RuntimeError("of one request")

        deadlines.at(now + 0.01, fail)
        deadlines.at(now + 0.01, lambda: told.append("the other"))

    assert ring(plan, 1) == ["the other"]
    assert "of one request" in caplog.text


def test_no_call_comes_within_the_turn_that_sets_it() -> None:
    def plan(deadlines: Deadlines, now: float, told: list[str]) -> None:
        deadlines.at(now - 1, lambda: told.append("called"))
        assert told == []

    assert ring(plan, 1) == ["called"]
