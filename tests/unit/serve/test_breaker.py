"""A breaker opens on failures, lets nobody wait while it is open, and closes on a probe that went well."""

from hypothesis import given
from hypothesis import strategies as st

from tiltyard.serve.breaker import FAILURES, LONGEST_S, PAUSE_S, WINDOW, Breaker


def opened() -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.failed(0.0)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row_and_not_before():
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.failed(0.0)
    assert breaker.allows(0.0)
    breaker.succeeded()
    for _ in range(FAILURES - 1):
        breaker.failed(0.0)
    assert breaker.allows(0.0)
    breaker.failed(0.0)
    assert not breaker.allows(0.0)
    assert breaker.trips == 1


def test_it_opens_when_every_second_call_fails():
    breaker = Breaker()
    for _ in range(WINDOW):
        breaker.succeeded()
        breaker.failed(0.0)
    assert not breaker.allows(0.0)


def test_one_failure_in_ten_leaves_it_closed():
    breaker = Breaker()
    for number in range(2_000):
        if number % 10:
            breaker.succeeded()
        else:
            breaker.failed(float(number))
    assert breaker.allows(0.0)


def test_while_open_one_asks_at_a_time_and_nobody_waits():
    breaker = opened()
    assert not breaker.wants_probe(PAUSE_S / 2)
    assert breaker.wants_probe(PAUSE_S)
    assert not breaker.wants_probe(PAUSE_S)  # one is under way
    assert not breaker.allows(PAUSE_S)
    breaker.succeeded()
    assert breaker.allows(PAUSE_S)


def test_a_probe_that_fails_doubles_the_pause_up_to_the_longest():
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(8):
        pause = 0.0
        while not breaker.wants_probe(now + pause):
            pause += 0.25
        now += pause
        pauses.append(pause)
        breaker.failed(now)
    assert pauses[:3] == [PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S]
    assert pauses[-1] == LONGEST_S


def test_a_probe_that_never_comes_back_does_not_block_the_next_one():
    breaker = opened()
    assert breaker.wants_probe(PAUSE_S)
    assert not breaker.wants_probe(PAUSE_S + PAUSE_S / 2)
    assert breaker.wants_probe(2 * PAUSE_S)


def test_a_call_from_before_it_opened_does_not_close_it():
    breaker = opened()
    breaker.succeeded()
    assert not breaker.allows(0.0)


@given(st.lists(st.sampled_from(["ok", "fail", "ask"]), max_size=200))
def test_whatever_happens_it_asks_again_within_the_longest_pause(steps):
    breaker, now = Breaker(), 0.0
    for step in steps:
        now += 0.1
        if step == "ok":
            breaker.succeeded()
        elif step == "fail":
            breaker.failed(now)
        else:
            breaker.wants_probe(now)
    assert breaker.allows(now) or breaker.wants_probe(now + LONGEST_S)
