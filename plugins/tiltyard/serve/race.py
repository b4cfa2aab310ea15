"""The tiers of one request against its deadline: who is asked, who came in time, who answers for each row.

The light twin is computed before anybody is asked. The champion (or, for its share of entities, the challenger) races
the deadline in its `lane`; when half of it has gone, or the champion has failed, the previous champion is asked too: a
hedged request (Dean & Barroso, The Tail at Scale, CACM 56(2), 2013). Whoever has not come a moment before the deadline
is late: at the deadline the answer has to be out.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tiltyard.serve import fallback
from tiltyard.serve.deadlines import Deadline, Deadlines
from tiltyard.serve.incoming import Row
from tiltyard.serve.lane import Job, Lane, Spare
from tiltyard.serve.servable import Servable, Version

ANSWER_S = 0.001
"""What is kept of a deadline for the answer itself, and for a timer that is late; of a short deadline a fifth."""
HEDGE = 0.5
"""Share of the time to score after which the previous champion is asked beside the champion."""
STALL_S = 0.002
"""A deadline's timer that is later than this says that the whole process stood still."""
HANGS = 3.0
"""A call that takes so many deadlines is taken to hang: the next probe gets another thread."""

Laner = Callable[[str, Version], Lane]
Fell = Callable[[str, str, str], None]


@dataclass(slots=True)
class Answer:
    score: float
    tier: fallback.Tier
    reason: str
    version: int | None
    arm: str


class Race:
    """The tiers of one request against its deadline."""

    def __init__(self, servable: Servable, rows: Sequence[Row], deadlines: Deadlines, lane: Laner, fell: Fell) -> None:
        """`lane` gives a version its thread; `fell(model, tier, outcome)` is told of every tier that did not answer."""
        self._deadlines = deadlines
        self._lane = lane
        self._fell = fell
        self._servable = servable
        self._rows = rows
        self._spec = servable.spec
        self._low, self._high = servable.spec.bounds
        share = servable.spec.traffic.challenger
        challenger = servable.challenger if share else None
        self._is_challengers = [False] * len(rows)
        if challenger is not None:
            self._is_challengers = [
                row.entity_id is not None and in_share(self._spec.name, row.entity_id, share) for row in rows
            ]
        tiers = self._spec.fallback.tiers
        seats: dict[fallback.Seat, Version | None] = {
            "challenger": challenger if any(self._is_challengers) else None,
            "champion": servable.champion if "champion" in tiers else None,
            "previous": servable.previous if "previous" in tiers else None,
        }
        self._seats = seats
        self._scores: dict[fallback.Seat, Any] = {}
        """What came back: an array of one score a row, or None."""
        self._outcomes: dict[fallback.Seat, fallback.Outcome] = {}
        """Of a tier as a whole, where it has no scores."""
        self._firsts = {"challenger" if is_one else "champion" for is_one in self._is_challengers}
        """Whom nobody has to wait beyond."""
        self._whole: set[fallback.Seat] = set()
        """Who has a usable score for every row that anybody may score."""
        self._hedged: set[fallback.Seat] = set()
        """Who was asked with a part of the deadline left: being late is not held against them."""
        self._spared: set[fallback.Seat] = set()
        """Whose thread asks the previous champion by itself when they fail."""
        self._verdicts: dict[fallback.Seat, tuple[fallback.Outcome, bool]] = {}
        """What that thread has found of their answers already."""
        self._matrices: dict[Version, Any] = {}
        self._lacking: dict[Version, list[fallback.Outcome | None]] = {}
        self._pending: set[fallback.Seat] = set()
        self._waiter: asyncio.Future[None] | None = None
        self._expires = 0.0
        self._deadline: Deadline
        self._light = self._score_light() if "light" in tiers else None
        self.asks = any(version is not None and self._may_score(version) for version in seats.values())

    def _score_light(self) -> Any:
        """The light twin's scores, computed before anything else is asked; None where there is none."""
        champion = self._servable.champion
        if champion is None:
            return None
        try:
            values = champion.light(self._matrix(champion))
        except Exception:  # another tier answers, and the reason says that this one could not
            self._outcomes["light"] = "raised"
            return None
        if len(values) != len(self._rows):
            self._outcomes["light"] = "wrong_shape"
            return None
        return values

    def _matrix(self, version: Version) -> Any:
        """The rows as this version reads them; its light twin reads the same."""
        if version not in self._matrices:
            self._matrices[version] = version.matrix([row.values for row in self._rows])
        return self._matrices[version]

    def _lacks(self, version: Version) -> list[fallback.Outcome | None]:
        """Per row, why this version may not score it; None: it may."""
        if version not in self._lacking:
            self._lacking[version] = [row.lacks(version.features) for row in self._rows]
        return self._lacking[version]

    def _may_score(self, version: Version) -> bool:
        return None in self._lacks(version)

    def _leaves(self, version: Version) -> bool:
        """Is there a row that this one may not score, and another one may?"""
        lacks = self._lacks(version)
        if not any(lacks):
            return False
        others = [self._lacks(other) for other in self._seats.values() if other is not None]
        return any(lack is not None and None in found for lack, *found in zip(lacks, *others, strict=True))

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = self._spec.fallback.deadline_ms / 1000
        allowed = deadline - min(ANSWER_S, deadline / 5)
        expires = self._expires = time.monotonic() + allowed
        self._waiter = loop.create_future()
        first: fallback.Seat
        for first in ("challenger", "champion"):
            self._ask(first, expires)
        if "challenger" not in self._pending:
            self._firsts = {"champion"}
        if not self._pending and self._wants_previous():
            self._ask("previous", expires)
        if not self._pending:
            return
        if self._wants_previous():
            self._deadline = self._deadlines.at(expires - allowed * (1 - HEDGE), self._hedge)
        else:
            self._deadline = self._deadlines.at(expires, self._expire)
        try:
            await self._waiter
        finally:
            self._deadline.cancel()
            self._waiter = None

    def _wants_previous(self) -> bool:
        asked = self._pending | self._scores.keys() | self._outcomes.keys()
        return self._seats["previous"] is not None and "previous" not in asked

    def _hedge(self) -> None:
        self._deadline = self._deadlines.at(self._expires, self._expire)
        if self._wants_previous():
            self._hedged.add("previous")
            self._ask("previous", self._expires)

    def _expire(self) -> None:
        """Who has not answered is late, and everybody else answers."""
        now = time.monotonic()
        for seat in self._pending:
            self._outcomes[seat] = "late"
            version = self._seats[seat]
            if version is not None and seat not in self._hedged:
                self._blame(version, now)
        self._pending.clear()
        self._finish()

    def _blame(self, version: Version, now: float) -> None:
        """Tell the breaker that a version was late: once per deadline, however many waited for the same call; and not
        when this timer was late itself, for then the whole process stood still, unless the call hangs for long."""
        deadline = self._spec.fallback.deadline_ms / 1000
        stuck = 0.0
        if version.lane is not None:
            stuck = version.lane.stuck_s
            version.lane.demote()
        if now - version.late_at >= deadline and (now - self._expires < STALL_S or stuck > HANGS * deadline):
            version.late_at = now
            version.breaker.failed(now)

    def _finish(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ask(self, seat: fallback.Seat, expires: float) -> None:
        version = self._seats[seat]
        if version is None or not self._may_score(version):
            return
        try:
            matrix = self._matrix(version)
        except Exception:  # a value that is not of the kind that this version was trained with; others know it as such
            self._outcomes[seat] = "raised"
            return
        now = time.monotonic()
        if not version.breaker.allows(now):
            self._outcomes[seat] = "breaker_open"
            if version.breaker.wants_probe(now):
                self._probe(version, matrix, now)
            return
        self._pending.add(seat)
        spare = self._spare(seat, version, now)
        if spare is not None:
            self._spared.add(seat)
        done = partial(self._come, seat, version)
        self._lane(self._spec.name, version).put(Job(matrix, expires, done, spare))

    def _spare(self, seat: fallback.Seat, version: Version, now: float) -> Spare | None:
        """The previous champion, in the place of one who has failed."""
        previous = self._seats["previous"]
        if seat == "previous" or previous is None or not previous.breaker.allows(now):
            return None

        def is_needed(values: Any, error: BaseException | None) -> bool:
            self._verdicts[seat] = self._judged(version, values, error)
            return not self._verdicts[seat][1] and self._may_score(previous)

        return Spare(
            is_needed=is_needed,
            score=lambda: previous.scorer.score_matrix(self._matrix(previous)),
            done=partial(self._come_spare, previous),
        )

    def _come_spare(self, version: Version, values: Any, error: BaseException | None) -> None:
        if self._waiter is None or "previous" in self._scores:
            return
        self._pending.add("previous")  # hedged as well: whoever comes first counts
        self._come("previous", version, values, error)

    def _come(self, seat: fallback.Seat, version: Version, values: Any, error: BaseException | None) -> None:
        if seat not in self._pending:  # late: counted at the deadline
            return
        self._pending.discard(seat)
        outcome, is_whole = self._verdicts.get(seat) or self._judged(version, values, error)
        if outcome == "scored":
            self._scores[seat] = values
            version.breaker.succeeded()
        else:
            self._outcomes[seat] = outcome
            version.breaker.failed(time.monotonic())
        if is_whole:
            self._whole.add(seat)
        else:
            self._fall(seat)
        if not self._pending or self._whole >= self._firsts:
            self._finish()

    def _fall(self, seat: fallback.Seat) -> None:
        """There are rows that this one leaves to the next."""
        previous = self._seats["previous"]
        if seat == "challenger":
            self._firsts = {"champion"}
        if seat == "previous" or previous is None or not self._wants_previous():
            return
        if seat in self._spared:
            if self._may_score(previous):
                self._pending.add("previous")  # with more than half of the deadline left: being late is its own fault
        else:
            self._hedged.add("previous")
            self._ask("previous", self._expires)

    def _judged(self, version: Version, values: Any, error: BaseException | None) -> tuple[fallback.Outcome, bool]:
        """`scored` when at least one row that it may score has a usable score; and whether it leaves none to others."""
        if error is not None:
            return "raised", False
        if getattr(values, "shape", None) != (len(self._rows),):
            return "wrong_shape", False
        lacks = self._lacks(version)
        if len(lacks) == 1:  # the way of nearly every request, and what follows says the same
            outcome = self._of(float(values[0]))
            return outcome, outcome == "scored"
        found = {self._of(float(value)) for value, lack in zip(values, lacks, strict=True) if lack is None}
        return ("scored" if "scored" in found else min(found)), found == {"scored"} and not self._leaves(version)

    def _of(self, value: float) -> fallback.Outcome:
        if self._low <= value <= self._high:
            return "scored"
        return "out_of_range" if np.isfinite(value) else "not_finite"

    def _probe(self, version: Version, matrix: Any, now: float) -> None:
        """Ask a version whose breaker is open, for nobody: what it says closes the breaker, or does not."""
        deadline = self._spec.fallback.deadline_ms / 1000
        lane = self._lane(self._spec.name, version)
        if lane.stuck_s > HANGS * deadline and not lane.replace():
            return

        def come(values: Any, error: BaseException | None) -> None:
            if self._judged(version, values, error)[0] == "scored" and time.monotonic() - now <= deadline:
                version.breaker.succeeded()
            else:
                version.breaker.failed(time.monotonic())

        lane.put(Job(matrix, now + 60.0, come))

    # -- the answers ----------------------------------------------------------------------------------------

    def answers(self) -> list[Answer]:
        model = self._spec.name
        champion = self._servable.champion
        if len(self._rows) == 1 and not self._is_challengers[0] and champion is not None:
            scores = self._scores.get("champion")
            if scores is not None and self._spec.fallback.tiers[0] == "champion":  # the way of nearly every request
                return [Answer(float(scores[0]), "champion", fallback.IN_SERVICE, champion.number, "champion")]
        found = []
        for number in range(len(self._rows)):
            is_challengers = self._is_challengers[number]
            tiers: tuple[fallback.Seat, ...] = self._spec.fallback.tiers
            if is_challengers:
                tiers = ("challenger", *tiers)
            outcomes = {seat: self._outcome(seat, number) for seat in tiers}
            served = fallback.choose(tiers, outcomes)
            for seat, outcome in served.skipped:
                self._fell(model, seat, outcome)
            arm = "challenger" if is_challengers else "champion"
            found.append(
                Answer(self._score(served.tier, number), served.tier, served.reason, self._number(served.tier), arm)
            )
        return found

    def _outcome(self, seat: fallback.Seat, number: int) -> fallback.Outcome:
        row, servable = self._rows[number], self._servable
        if seat == "light":
            if servable.champion is None:
                return "absent" if servable.kept.champion is None else "not_loaded"
            if self._light is None:
                return self._outcomes.get("light", "absent")
            if servable.champion.features.isdisjoint(row.values):  # it would score a row of nothing
                return self._lacks(servable.champion)[number] or "features_missing"
            return self._of(float(self._light[number]))
        seated = {"challenger": servable.challenger, "champion": servable.champion, "previous": servable.previous}[seat]
        declared = {"champion": servable.kept.champion, "previous": servable.kept.previous}.get(seat)
        if seated is None:
            return "not_loaded" if declared is not None else "absent"
        if (lack := self._lacks(seated)[number]) is not None:
            return lack
        scores = self._scores.get(seat)
        return self._of(float(scores[number])) if scores is not None else self._outcomes.get(seat, "late")

    def _score(self, tier: fallback.Tier, number: int) -> float:
        if tier == "safe_default":
            return self._spec.fallback.safe_default
        scores: Any = self._light if tier == "light" else self._scores[tier]
        return float(scores[number])

    def _number(self, tier: fallback.Tier) -> int | None:
        if tier == "safe_default":
            return None
        version = self._servable.champion if tier == "light" else self._seats[tier]
        return version.number if version else None


def in_share(model: str, entity_id: str, share: float) -> bool:
    """Does the entity belong to the challenger's share of a model's traffic? The same one always does, or never."""
    digest = hashlib.blake2b(f"{model}|{entity_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share
