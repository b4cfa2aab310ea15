"""A lane scores what waits, tells the loop, and a call that hangs keeps the thread but nobody else."""

import asyncio
import threading
import time

import numpy as np
import pytest

from tiltyard.serve.lane import ABANDONED, Job, Lane, Spare


def matrix(*values):
    return np.array(values, dtype=np.float32).reshape(-1, 1)


async def ask(lane, rows, expires_in=5.0):
    """One job's (values, error)."""
    answer = asyncio.get_running_loop().create_future()
    lane.put(Job(rows, time.monotonic() + expires_in, lambda *found: answer.set_result(found)))
    return await asyncio.wait_for(answer, 5)


async def happened(event):
    """Wait for what another thread does, without standing in the loop's way."""
    assert await asyncio.to_thread(event.wait, 5)


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


def test_what_waits_is_scored_in_one_call_and_everybody_gets_their_own():
    calls = []
    go = threading.Event()

    def score(rows):
        go.wait()
        calls.append(len(rows))
        return rows[:, 0].astype(float) * 2

    async def work():
        lane = Lane(score, asyncio.get_running_loop(), "test")
        jobs = [asyncio.create_task(ask(lane, matrix(*range(first, first + 2)))) for first in range(0, 10, 2)]
        await asyncio.sleep(0.05)
        go.set()
        found = await asyncio.gather(*jobs)
        lane.close()
        return found

    found = run(work())
    assert [values.tolist() for values, _ in found] == [[2.0 * n, 2.0 * n + 2] for n in range(0, 10, 2)]
    assert calls in ([2, 8], [10])  # the first pair was taken alone, or with the rest


def test_an_exception_is_that_of_the_rows_that_caused_it():
    def score(rows):
        time.sleep(0.02)
        if (rows < 0).any():
            raise ValueError("negative")
        return rows[:, 0]

    async def work():
        lane = Lane(score, asyncio.get_running_loop(), "test")
        return await asyncio.gather(*(ask(lane, matrix(value)) for value in (1, 2, -3, 4)))

    assert [type(error) for _, error in run(work())] == [type(None), type(None), ValueError, type(None)]


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 2)])
def test_another_number_of_scores_than_rows_is_that_of_the_rows_that_caused_it(shape):
    begun, go = threading.Event(), threading.Event()

    def score(rows):
        begun.set()
        go.wait(5)
        return np.zeros(shape) if (rows < 0).any() else rows[:, 0]

    async def work():
        lane = Lane(score, asyncio.get_running_loop(), "test")
        jobs = [asyncio.create_task(ask(lane, matrix(0)))]
        await happened(begun)  # the others are scored together
        jobs += [asyncio.create_task(ask(lane, matrix(*values))) for values in ((1, 2), (-3, 4), (5,))]
        await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(*jobs)

    _, first, wrong, last = run(work())
    assert wrong[0].shape == shape
    assert (first[0].tolist(), last[0].tolist()) == ([1.0, 2.0], [5.0])


def test_a_job_that_nobody_waits_for_any_more_is_not_scored():
    seen = []
    begun, go = threading.Event(), threading.Event()

    def score(rows):
        seen.extend(rows[:, 0].tolist())
        begun.set()
        go.wait(5)
        return rows[:, 0]

    async def work():
        lane = Lane(score, asyncio.get_running_loop(), "test")
        first = asyncio.create_task(ask(lane, matrix(1)))
        await happened(begun)
        expires = time.monotonic() + 0.01
        lane.put(Job(matrix(2), expires, lambda *_: None))
        while time.monotonic() <= expires:
            await asyncio.sleep(0.01)
        go.set()
        await first
        await ask(lane, matrix(3))

    run(work())
    assert seen == [1, 3]


def test_a_thread_that_hangs_is_left_behind_and_comes_back_to_nothing():
    begun, hang, over = threading.Event(), threading.Event(), threading.Event()

    def score(rows):
        if rows[0, 0] == 13:
            begun.set()
            hang.wait(5)
            over.set()
        return rows[:, 0]

    async def work():
        lane = Lane(score, asyncio.get_running_loop(), "test")
        told = []
        lane.put(Job(matrix(13), time.monotonic() + 9, lambda *found: told.append(found)))
        await happened(begun)
        assert lane.stuck_s > 0
        assert lane.replace()
        values, _ = await ask(lane, matrix(1))
        assert lane.abandoned == 1
        hang.set()
        await happened(over)
        while lane.abandoned:
            await asyncio.sleep(0.001)
        return values.tolist(), told, lane.abandoned

    assert run(work()) == ([1.0], [], 0)


def test_only_so_many_threads_may_hang_at_once():
    hang = threading.Event()

    async def work():
        lane = Lane(lambda rows: hang.wait() or rows, asyncio.get_running_loop(), "test")
        found = []
        for _ in range(ABANDONED + 1):
            lane.put(Job(matrix(1), time.monotonic() + 9, lambda *_: None))
            await asyncio.sleep(0.02)
            found.append(lane.replace())
        hang.set()
        return found

    assert run(work()) == [True] * ABANDONED + [False]


def failing(rows):
    if rows[0, 0] < 0:
        raise ValueError("negative")
    return rows[:, 0]


async def ask_with_spare(lane, value, score):
    """What a job and its spare (None: it was not asked) were told, in that order."""
    own, others = asyncio.get_running_loop().create_future(), asyncio.get_running_loop().create_future()
    spare = Spare(lambda _, error: error is not None, score, lambda *found: others.set_result(found))
    lane.put(Job(matrix(value), time.monotonic() + 5, lambda *found: own.set_result(found), spare))
    found = await asyncio.wait_for(own, 5)
    return found, await asyncio.wait_for(others, 5) if found[1] else None


def test_a_spare_answers_on_the_same_thread_where_the_first_will_not_do():
    async def work():
        lane = Lane(failing, asyncio.get_running_loop(), "test")
        return [await ask_with_spare(lane, value, lambda: "spare") for value in (1, -1)]

    (first, nobody), (second, spared) = run(work())
    assert first[0].tolist() == [1.0]
    assert nobody is None
    assert isinstance(second[1], ValueError)
    assert spared == ("spare", None)


def test_who_has_failed_is_told_before_the_spare_has_an_answer():
    told = threading.Event()

    async def work():
        lane = Lane(failing, asyncio.get_running_loop(), "test")
        spare = Spare(lambda *_: True, lambda: told.wait(5), lambda *found: answer.set_result(found))
        answer = asyncio.get_running_loop().create_future()
        lane.put(Job(matrix(-1), time.monotonic() + 5, lambda *_: told.set(), spare))
        return await asyncio.wait_for(answer, 10)

    assert run(work()) == (True, None)


def test_a_lane_that_was_closed_scores_what_still_comes_and_leaves_no_thread():
    async def work():
        lane = Lane(lambda rows: rows[:, 0], asyncio.get_running_loop(), "closed")
        jobs = [asyncio.create_task(ask(lane, matrix(1)))]
        await asyncio.sleep(0)
        await asyncio.to_thread(lane.close)
        found = [await jobs[0], await ask(lane, matrix(2)), await ask(lane, matrix(3))]
        while any(thread.name == "closed" for thread in threading.enumerate()):
            await asyncio.sleep(0.001)
        return [values.tolist() for values, _ in found]

    assert run(work()) == [[1.0], [2.0], [3.0]]


def test_a_lane_that_is_closed_while_a_thread_hangs_still_answers_those_who_wait():
    begun, hang, slow = threading.Event(), threading.Event(), threading.Event()

    def score(rows):
        begun.set()
        (hang if rows[0, 0] == 13 else slow).wait(5)
        return rows[:, 0]

    async def work():
        lane = Lane(score, asyncio.get_running_loop(), "test")
        lane.put(Job(matrix(13), time.monotonic() + 9, lambda *_: None))
        await happened(begun)
        lane.replace()
        begun.clear()
        waiting = asyncio.create_task(ask(lane, matrix(1)))
        await happened(begun)
        lane.close()
        await asyncio.sleep(0)
        slow.set()
        values, _ = await waiting
        hang.set()
        return values.tolist()

    assert run(work()) == [1.0]


def test_a_thread_that_was_demoted_ends_with_its_call_and_another_one_goes_on():
    begun, hang = threading.Event(), threading.Event()
    threads = []

    def score(rows):
        threads.append(threading.get_ident())
        if rows[0, 0] == 13:
            begun.set()
            hang.wait(5)
        return rows[:, 0]

    async def work():
        lane = Lane(score, asyncio.get_running_loop(), "test")
        first = asyncio.create_task(ask(lane, matrix(13)))
        await happened(begun)
        lane.demote()
        hang.set()
        await first
        return [(await ask(lane, matrix(value)))[0].tolist() for value in (1, 2)]

    assert run(work()) == [[1.0], [2.0]]
    assert threads[1] == threads[2] != threads[0]
