"""A circuit breaker: a tier that keeps failing is not asked any more, until a probe finds it well. Pure: no clock.

Closed, every request asks. After `FAILURES` in a row, or when half of the last `WINDOW` calls failed, it opens and
nobody waits for the tier. After a pause one probe is let through, off the path of the request that allowed it; it
closes the breaker or doubles the pause (Nygard, Release It!, 2nd ed., chapter 5).
"""

from typing import Literal

FAILURES = 5
"""Number of failures in a row that open a breaker."""
WINDOW = 40
"""Number of calls, the newest, whose failures are counted."""
PAUSE_S = 1.0
"""Seconds before the first probe."""
LONGEST_S = 30.0
"""Seconds to which the pause between probes may grow."""

BreakerState = Literal["closed", "open", "probing"]


class Breaker:
    """One version of one model. `now` is any clock in seconds that only goes forward."""

    __slots__ = ("_calls", "_failures", "_pause", "_since", "_streak", "state", "trips")

    def __init__(self) -> None:
        self.state: BreakerState = "closed"
        self.trips = 0
        """How often it has opened."""
        self._streak = 0
        """Failures since the last success."""
        self._calls = 0
        """Calls in the window."""
        self._failures = 0
        """Failures in the window."""
        self._pause = PAUSE_S
        """Seconds before the next probe."""
        self._since = 0.0
        """When it opened, or began its probe."""

    def allows(self, now: float) -> bool:
        """May a request wait for this tier?"""
        return self.state == "closed"

    def wants_probe(self, now: float) -> bool:
        """Is it time to ask again, beside a request that does not wait? True makes the caller the one who asks.

        A probe that never reports counts as failed after another pause.
        """
        if self.state == "closed" or now - self._since < self._pause:
            return False
        if self.state == "probing":
            self._pause = min(2 * self._pause, LONGEST_S)
        self.state = "probing"
        self._since = now
        return True

    def succeeded(self) -> None:
        """A call gave a usable answer in time. One that was begun before the breaker opened says nothing."""
        if self.state == "closed":
            self._streak = 0
            self._count(0)
        elif self.state == "probing":
            self._reset()

    def failed(self, now: float) -> None:
        """A call was late, raised, or gave no usable answer."""
        if self.state == "closed":
            self._streak += 1
            self._count(1)
            if self._streak >= FAILURES or (self._calls >= WINDOW // 2 and 2 * self._failures >= self._calls):
                self.state, self._since = "open", now
                self.trips += 1
        elif self.state == "probing":
            self.state, self._since = "open", now
            self._pause = min(2 * self._pause, LONGEST_S)

    def _count(self, failures: int) -> None:
        if self._calls >= WINDOW:  # halving what is older lets the window slide without keeping a list
            self._calls //= 2
            self._failures //= 2
        self._calls += 1
        self._failures += failures

    def _reset(self) -> None:
        self.state = "closed"
        self._streak = self._calls = self._failures = 0
        self._pause = PAUSE_S
