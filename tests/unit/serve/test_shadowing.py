"""A challenger's rows are scored beside the path: what fails fails alone, and what hangs is left behind."""

import asyncio
import threading

import numpy as np
import pytest

from tiltyard.serve import shadowing
from tiltyard.serve.shadowing import QUEUE, Shadow
from tiltyard.target import Said


def score(rows):
    values = [row["value"] for row in rows]
    if None in values:
        raise ValueError("no value")
    return np.array(values * 2 if 13 in values else values, dtype=float)


async def until(holds):
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen within ten seconds")


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


def test_every_row_has_a_score_or_none_of_its_own():
    async def work():
        found = {}
        shadow = Shadow(score, asyncio.get_running_loop(), "test", found.update)
        for number, value in enumerate((1.0, None, 2.0, 13, float("nan"), 3.0)):
            assert shadow.put(("asked", number), {"value": value})
        await until(lambda: len(found) == 6)
        shadow.close()
        return [said and said.score for said in (found["asked", number] for number in range(6))]

    assert run(work()) == [1.0, None, 2.0, None, None, 3.0]


def test_a_call_that_hangs_loses_its_rows_and_nobody_elses(monkeypatch):
    monkeypatch.setattr(shadowing, "HANGS_S", 0.2)
    hang = threading.Event()

    async def work():
        found, others = {}, {}
        loop = asyncio.get_running_loop()
        stuck = Shadow(lambda rows: score(rows) if rows[0]["value"] else hang.wait(10), loop, "stuck", found.update)
        sound = Shadow(score, loop, "sound", others.update)
        for shadow in (stuck, sound):
            shadow.put(("first", 0), {"value": 0})
        await until(lambda: ("first", 0) in others)
        assert found == {}
        await until(lambda: ("first", 0) in found)
        stuck.put(("second", 0), {"value": 5})
        await until(lambda: ("second", 0) in found)
        hang.set()
        for shadow in (stuck, sound):
            shadow.close()
        return found

    assert run(work()) == {("first", 0): None, ("second", 0): Said(5.0, None)}


@pytest.mark.parametrize("is_handed_over", [False, True])
def test_more_rows_than_may_wait_are_not_taken(is_handed_over):
    go, begun = threading.Event(), threading.Event()

    async def work():
        found = {}
        shadow = Shadow(
            lambda rows: begun.set() or (go.wait(10) and score(rows)), asyncio.get_running_loop(), "test", found.update
        )
        if is_handed_over:
            shadow.put(("early", 0), {"value": 0})
            await asyncio.to_thread(begun.wait, 5)
        taken = sum(shadow.put(("asked", number), {"value": number}) for number in range(QUEUE + 5))
        go.set()
        await until(lambda: len(found) == QUEUE)
        assert shadow.put(("later", 0), {"value": 1})
        shadow.close()
        return taken + is_handed_over

    assert run(work()) == QUEUE
