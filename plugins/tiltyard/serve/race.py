"""The tiers of one request against its deadline: who is asked, who came in time, who answers for each row.

The light twin is computed before anybody is asked. The champion (or, for its share of entities, the challenger) races
the deadline in its `lane`. When half of the time has gone, or the champion has failed, the previous champion is asked
too: a hedged request (Dean & Barroso, The Tail at Scale, CACM 56(2), 2013). Whoever has not answered a moment before
the deadline is late, since at the deadline the response has to be on its way.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltyard.serve import fallback
from tiltyard.serve.deadlines import Deadline, Deadlines
from tiltyard.serve.incoming import IncomingRow
from tiltyard.serve.lane import Job, Lane, Scores, Spare
from tiltyard.serve.servable import LoadedVersion, Servable
from tiltyard.spec import Spec
from tiltyard.target import Said

ANSWER_S = 0.001
"""Seconds of a deadline that are left for the answer itself, and for a timer that is late; of a short one a fifth."""
HEDGE = 0.5
"""Share of the time for scoring after which the previous champion is asked beside the champion."""
STALL_S = 0.002
"""Seconds by which a deadline's timer may be late. When it is later, the whole process stood still."""
HANGS = 3.0
"""Number of deadlines after which a call is taken to hang: the next probe gets another thread."""

LaneOf = Callable[[str, LoadedVersion], Lane]
"""(model, version) → the version's lane."""
TierVerdict = tuple[fallback.TierOutcome, bool]
"""(what became of a tier, whether it leaves no row to another one)."""
Fell = Callable[[str, str, str], None]
"""Takes (model, tier, outcome)."""


@dataclass(slots=True)
class RowAnswer:
    """What a row is answered with."""

    said: Said
    """Probability, or the number that the label is expected to be, or a distribution."""
    tier: fallback.Tier
    """Who answers."""
    reason: str
    """One of fallback.REASONS."""
    version: int | None
    """Number of the version that answers; None for the safe default."""
    arm: str
    """Whose share of the traffic the row belongs to: champion or challenger."""


class Race:
    """The tiers of one request against its deadline."""

    def __init__(
        self, servable: Servable, rows: Sequence[IncomingRow], deadlines: Deadlines, lane: LaneOf, fell: Fell
    ) -> None:
        """`lane` gives a version its thread; `fell(model, tier, outcome)` is told of every tier that did not answer."""
        self._deadlines = deadlines
        self._lane = lane
        self._fell = fell
        self._servable = servable
        self._rows = rows
        self._spec = servable.spec
        self._target = servable.spec.target
        self._low, self._high = self._target.bounds
        share = servable.spec.traffic.challenger
        challenger = servable.challenger if share else None
        self._is_challengers = [False] * len(rows)
        if challenger is not None:
            self._is_challengers = [
                row.entity_id is not None and in_share(self._spec.name, row.entity_id, share) for row in rows
            ]
        tiers = self._spec.fallback.tiers
        seats: dict[fallback.Seat, LoadedVersion | None] = {
            "challenger": challenger if any(self._is_challengers) else None,
            "champion": servable.champion if "champion" in tiers else None,
            "previous": servable.previous if "previous" in tiers else None,
        }
        self._seats = seats
        """Seat → the version that holds it in this race."""
        self._scores: dict[fallback.Seat, Scores] = {}
        """Seat → one score a row, of which at least one is usable."""
        self._outcomes: dict[fallback.Seat, fallback.TierOutcome] = {}
        """Seat → what became of it, where it has no scores."""
        self._firsts = {"challenger" if is_challengers else "champion" for is_challengers in self._is_challengers}
        """The seats whose answers end the race."""
        self._whole: set[fallback.Seat] = set()
        """The seats with a usable score for every row that anybody may score."""
        self._hedged: set[fallback.Seat] = set()
        """The seats that were asked with only a part of the time left: their breakers do not count it as late."""
        self._spared: set[fallback.Seat] = set()
        """The seats whose thread asks the previous champion by itself when they fail."""
        self._verdicts: dict[fallback.Seat, TierVerdict] = {}
        """Seat → what that thread has seen of its answer already."""
        self._matrices: dict[LoadedVersion, NDArray[np.float32]] = {}
        """Version → the rows as it encodes them."""
        self._lacking: dict[LoadedVersion, list[fallback.TierOutcome | None]] = {}
        """Version → per row, why it may not score it."""
        self._pending: set[fallback.Seat] = set()
        """The seats that were asked and have not answered."""
        self._waiter: asyncio.Future[None] | None = None
        """Who waits for the end of the race; None before and after."""
        self._expires = 0.0
        """When nobody waits any more, time.monotonic()."""
        self._deadline: Deadline
        """The next one: of the hedge, or of the race."""
        self._light = self._score_light() if "light" in tiers else None
        self.asks = any(version is not None and self._may_score(version) for version in seats.values())

    def _score_light(self) -> Sequence[Any] | None:
        """The light twin's scores, computed before anybody is asked; None where there are none."""
        champion = self._servable.champion
        if champion is None:
            return None
        try:
            values = champion.light(self._matrix(champion))
        except Exception:  # another tier answers, and the reason says that this one raised
            self._outcomes["light"] = "raised"
            return None
        if len(values) != len(self._rows) or (self._target.shape and np.shape(values)[1:] != self._target.shape):
            self._outcomes["light"] = "wrong_shape"
            return None
        return values

    def _matrix(self, version: LoadedVersion) -> NDArray[np.float32]:
        """The rows as this version encodes them; its light twin reads the same."""
        if version not in self._matrices:
            self._matrices[version] = version.matrix([row.values for row in self._rows])
        return self._matrices[version]

    def _lacks(self, version: LoadedVersion) -> list[fallback.TierOutcome | None]:
        """Per row, why this version may not score it; None where it may."""
        if version not in self._lacking:
            self._lacking[version] = [row.lacks(version.features) for row in self._rows]
        return self._lacking[version]

    def _may_score(self, version: LoadedVersion) -> bool:
        return None in self._lacks(version)

    def _leaves(self, version: LoadedVersion) -> bool:
        """Is there a row that this version may not score, and another one may?"""
        lacks = self._lacks(version)
        if not any(lacks):
            return False
        every = [self._lacks(rival) for rival in self._seats.values() if rival is not None]
        return any(lack is not None and None in of_all for lack, *of_all in zip(lacks, *every, strict=True))

    async def go(self) -> None:
        """Ask who is to be asked, and wait until every row has its answer or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = self._spec.fallback.deadline_ms / 1000
        time_s = deadline - min(ANSWER_S, deadline / 5)
        expires = self._expires = time.monotonic() + time_s
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
            self._deadline = self._deadlines.at(expires - time_s * (1 - HEDGE), self._hedge)
        else:
            self._deadline = self._deadlines.at(expires, self._expire)
        try:
            await self._waiter
        finally:
            self._deadline.cancel()
            self._waiter = None

    def _wants_previous(self) -> bool:
        seats = self._pending | self._scores.keys() | self._outcomes.keys()
        return self._seats["previous"] is not None and "previous" not in seats

    def _hedge(self) -> None:
        self._deadline = self._deadlines.at(self._expires, self._expire)
        if self._wants_previous():
            self._hedged.add("previous")
            self._ask("previous", self._expires)

    def _expire(self) -> None:
        """The time is over: who has not answered is late."""
        now = time.monotonic()
        for seat in self._pending:
            self._outcomes[seat] = "late"
            version = self._seats[seat]
            if version is not None and seat not in self._hedged:
                self._blame(version, now)
        self._pending.clear()
        self._finish()

    def _blame(self, version: LoadedVersion, now: float) -> None:
        """Tell the breaker that a version was late.

        Once per deadline, however many requests wait for the same call; and not when this timer was late itself, for
        then the whole process stood still, unless the call hangs for long.
        """
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
        except Exception:  # a value is of another kind than this version, unlike others, was trained with
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

    def _spare(self, seat: fallback.Seat, version: LoadedVersion, now: float) -> Spare | None:
        """The previous champion, for when this version fails. None where there is none to ask."""
        previous = self._seats["previous"]
        if seat == "previous" or previous is None or not previous.breaker.allows(now):
            return None

        def is_needed(scores: Scores | None, error: BaseException | None) -> bool:
            self._verdicts[seat] = self._verdict(version, scores, error)
            return not self._verdicts[seat][1] and self._may_score(previous)

        return Spare(
            is_needed=is_needed,
            score=lambda: previous.scorer.score_matrix(self._matrix(previous)),
            done=partial(self._come_spare, previous),
        )

    def _come_spare(self, version: LoadedVersion, scores: Scores | None, error: BaseException | None) -> None:
        if self._waiter is None or "previous" in self._scores:
            return
        self._pending.add("previous")  # it may have been asked as a hedge as well: the first answer counts
        self._come("previous", version, scores, error)

    def _come(
        self, seat: fallback.Seat, version: LoadedVersion, scores: Scores | None, error: BaseException | None
    ) -> None:
        if seat not in self._pending:  # it is late, and was counted as such at the deadline
            return
        self._pending.discard(seat)
        outcome, is_whole = self._verdicts.get(seat) or self._verdict(version, scores, error)
        if outcome == "scored" and scores is not None:
            self._scores[seat] = scores
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
        """Let somebody score the rows that this seat leaves to the next."""
        previous = self._seats["previous"]
        if seat == "challenger":
            self._firsts = {"champion"}
        if seat == "previous" or previous is None or not self._wants_previous():
            return
        if seat in self._spared:
            if self._may_score(previous):
                self._pending.add("previous")  # its breaker counts when it is late, since its thread is asked at once
        else:
            self._hedged.add("previous")
            self._ask("previous", self._expires)

    def _verdict(self, version: LoadedVersion, scores: Scores | None, error: BaseException | None) -> TierVerdict:
        """`scored` when at least one row that the version may score has a usable score."""
        if error is not None:
            return "raised", False
        if scores is None or getattr(scores, "shape", None) != (len(self._rows), *self._target.shape):
            return "wrong_shape", False
        lacks = self._lacks(version)
        if len(lacks) == 1:  # the way of nearly every request; what follows says the same, more slowly
            outcome = self._of(scores[0])
            return outcome, outcome == "scored"
        outcomes = {self._of(score) for score, lack in zip(scores, lacks, strict=True) if lack is None}
        is_whole = outcomes == {"scored"} and not self._leaves(version)
        return ("scored" if "scored" in outcomes else min(outcomes)), is_whole

    def _of(self, score: Any) -> fallback.TierOutcome:
        """Whether a score can be used."""
        if self._target.shape:
            row = np.asarray(score, dtype=np.float64)[None]
            if self._target.usable(row)[0]:
                return "scored"
            return "out_of_range" if self._target.is_scored(row)[0] else "not_finite"
        if self._low <= score <= self._high:
            return "scored"
        return "out_of_range" if np.isfinite(score) else "not_finite"

    def _probe(self, version: LoadedVersion, matrix: NDArray[np.float32], now: float) -> None:
        """Ask a version whose breaker is open, although nobody waits: a good answer closes the breaker."""
        deadline = self._spec.fallback.deadline_ms / 1000
        lane = self._lane(self._spec.name, version)
        if lane.stuck_s > HANGS * deadline and not lane.replace():
            return

        def come(scores: Scores | None, error: BaseException | None) -> None:
            if self._verdict(version, scores, error)[0] == "scored" and time.monotonic() - now <= deadline:
                version.breaker.succeeded()
            else:
                version.breaker.failed(time.monotonic())

        lane.put(Job(matrix, now + 60.0, come))

    # -- the answers ----------------------------------------------------------------------------------------

    def answers(self) -> list[RowAnswer]:
        """An answer per row, of whoever has a score for it."""
        model = self._spec.name
        champion = self._servable.champion
        if len(self._rows) == 1 and not self._is_challengers[0] and champion is not None:
            scores = self._scores.get("champion")
            # The way of nearly every request; what follows says the same, more slowly.
            if scores is not None and self._spec.fallback.tiers[0] == "champion":
                return [
                    RowAnswer(
                        self._target.said(scores[0]), "champion", fallback.IN_SERVICE, champion.number, "champion"
                    )
                ]
        answers = []
        for number in range(len(self._rows)):
            is_challengers = self._is_challengers[number]
            tiers: tuple[fallback.Seat, ...] = self._spec.fallback.tiers
            if is_challengers:
                tiers = ("challenger", *tiers)
            outcomes = {seat: self._outcome(seat, number) for seat in tiers}
            choice = fallback.choose(tiers, outcomes)
            for seat, outcome in choice.skipped:
                self._fell(model, seat, outcome)
            arm = "challenger" if is_challengers else "champion"
            answers.append(
                RowAnswer(self._score(choice.tier, number), choice.tier, choice.reason, self._number(choice.tier), arm)
            )
        return answers

    def _outcome(self, seat: fallback.Seat, number: int) -> fallback.TierOutcome:
        row, servable = self._rows[number], self._servable
        if seat == "light":
            if servable.champion is None:
                return "absent" if servable.roster.champion is None else "not_loaded"
            if self._light is None:
                return self._outcomes.get("light", "absent")
            if servable.champion.features.isdisjoint(row.values):  # it would score a row of which nothing is known
                return self._lacks(servable.champion)[number] or "features_missing"
            return self._of(self._light[number])
        holder = {"challenger": servable.challenger, "champion": servable.champion, "previous": servable.previous}[seat]
        if holder is None:
            role = {"champion": servable.roster.champion, "previous": servable.roster.previous}.get(seat)
            return "not_loaded" if role is not None else "absent"
        if (lack := self._lacks(holder)[number]) is not None:
            return lack
        scores = self._scores.get(seat)
        return self._of(scores[number]) if scores is not None else self._outcomes.get(seat, "late")

    def _score(self, tier: fallback.Tier, number: int) -> Said:
        if tier == "safe_default":
            return default(self._spec)
        if tier == "light" and self._light is not None:
            return self._target.said(self._light[number])
        return self._target.said(self._scores[tier][number])

    def _number(self, tier: fallback.Tier) -> int | None:
        if tier == "safe_default":
            return None
        version = self._servable.champion if tier == "light" else self._seats[tier]
        return version.number if version else None


def default(spec: Spec) -> Said:
    """What a row is answered with when nobody can score it."""
    return spec.target.said(spec.target.constant(spec.fallback.safe_default, 1)[0])


def in_share(model: str, entity_id: str, share: float) -> bool:
    """Does the entity belong to the challenger's share of a model's traffic? An entity always does, or never."""
    digest = hashlib.blake2b(f"{model}|{entity_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share
