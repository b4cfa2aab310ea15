"""Who is interrupted over a year: 100 models of ten owners, 120 faults put in, and what ends by itself around them.

The rules are the real ones (edge/told/deciding.py), looked at every half hour of 365 days. Drawn, and thereby assumed:
what stands, for how long, and whether a person is needed. Faults stand until somebody has heard of them, three hours
longer for each page and twelve for a digest, as a mend takes its time; the rest ends by itself. Beside the rules, on
the same draws: everything at once, and the rules without patience.

Pages are said to be needed where they are of a fault or ask for an answer. Exit code 1 where in any of the years an
owner gets more pages in seven days than `pages.per_owner_week` and what must not wait, a fault of tier 1 is not told
at once within three hours, on its night, fewer than half of the pages were needed, or a fault is in no page and in no
digest of the next morning but one.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from tiltyard.edge.told import deciding
from tiltyard.outbox import Standing
from tiltyard.portfolio_rules import AlertKind, Pages
from tiltyard.records import Fact, Message, Weight

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
LOOK, DAY, WEEK = timedelta(minutes=30), timedelta(days=1), timedelta(days=7)
MODELS, OWNERS, FAULTS = 100, 10, 120
HEARD = {"page": timedelta(hours=3), "digest": timedelta(hours=12)}
"""How long after it was told a fault is mended."""


@dataclass
class Case:
    """Something that stands for a while."""

    fact: Fact
    begins: datetime
    needs_a_person: bool
    lasts: timedelta | None
    """How long, where it ends by itself; None: until somebody has mended it."""
    told: dict[str, datetime] = field(default_factory=dict)
    """How it was told → when."""

    def stands(self, now: datetime) -> bool:
        """Whether it is there."""
        if now < self.begins:
            return False
        if self.lasts is not None:
            return now < self.begins + self.lasts
        return not any(now >= at + HEARD[weight] for weight, at in self.told.items())


def cases(rng: np.random.Generator) -> list[Case]:
    """A year of faults, of questions to a person, and of what ends by itself."""
    tier_of = {f"model_{number:03}": 1 if number < 10 else int(rng.integers(2, 4)) for number in range(MODELS)}
    owner_of = {name: f"owner_{number % OWNERS}" for number, name in enumerate(tier_of)}

    def case(kind: AlertKind, needed: bool, lasts: timedelta | None, *, answer: timedelta | None = None) -> Case:
        name = str(rng.choice([*tier_of]))
        begins = BEGIN + int(rng.integers(0, 364)) * DAY + float(rng.uniform(0, 8)) * timedelta(hours=1)
        subject = f"{name} {len(made)}"
        fact = Fact(
            kind=kind, subject=subject, owner=owner_of[name], tier=tier_of[name], models=(name,), reason="as drawn",
            since=begins.date(), until=begins + answer if answer else None, link="/",
        )  # fmt: skip
        return Case(fact, begins, needed, lasts)

    made: list[Case] = []
    kinds: tuple[AlertKind, ...] = ("table", "quarantined", "failed", "refused", "explain", "incident")
    for kind in rng.choice(kinds, FAULTS, p=(0.3, 0.2, 0.2, 0.1, 0.1, 0.1)):
        made.append(case(kind, needed=True, lasts=None))
    for _ in range(40):  # approvals: silence is a no
        made.append(case("approve", needed=True, lasts=timedelta(hours=float(rng.uniform(1, 24))), answer=DAY))
    for _ in range(1_500):  # a task that is tried again, a source that comes late
        kind = "failed" if rng.random() < 0.7 else "table"
        made.append(case(kind, needed=False, lasts=timedelta(minutes=float(rng.exponential(35)))))
    for _ in range(200):  # rows that came late, which the next night answers
        made.append(case("unanswered", needed=False, lasts=timedelta(hours=float(rng.uniform(20, 28)))))
    for _ in range(100):  # a training that a check stopped, as it should: the governor decides anew
        made.append(case("stopped", needed=False, lasts=timedelta(days=float(rng.uniform(1, 3)))))
    return made


@dataclass(frozen=True)
class Year:
    """What a year came to."""

    pages: int
    needed: int
    most: int
    """The most pages of an owner in seven days that had not to come."""
    late: int
    """Faults of tier 1 that were not told at once within three hours."""
    unnamed: int
    """Faults that neither a page nor a digest has named by the next morning but one."""
    digests: int

    @property
    def precision(self) -> float:
        """Share of the pages that were needed."""
        return self.needed / max(self.pages, 1)


def play(drawn: Sequence[Case], pages: Pages, must: Callable[[Fact], bool]) -> Year:
    """A year under these rules."""
    open_ones: dict[tuple[str, str, str], Message] = {}
    of_key = {case.fact.key: case for case in drawn}
    waiting = sorted(drawn, key=lambda case: case.begins)
    paged: dict[str, list[tuple[datetime, bool]]] = defaultdict(list)
    last_digest: dict[str, datetime] = {}
    number = needed = digests = most = 0

    def tell(message: Message, weight: Weight, now: datetime) -> None:
        nonlocal needed, most
        case = of_key[message.fact.key]
        open_ones[message.fact.key] = replace(message, weight=weight)
        if weight != "page":
            return
        case.told.setdefault("page", now)
        needed += case.needs_a_person
        paged[message.fact.owner].append((now, must(message.fact)))
        most = max(most, sum(at > now - WEEK and not free for at, free in paged[message.fact.owner]))

    now, active = BEGIN, []
    while now < BEGIN + 365 * DAY:
        while waiting and waiting[0].begins <= now:
            active.append(waiting.pop(0))
        active = [case for case in active if case.stands(now)]
        standing = Standing(
            messages=tuple(open_ones.values()),
            paged={owner: sum(at > now - WEEK for at, _ in of) for owner, of in paged.items()},
            digests=last_digest,
        )
        decided = deciding.decide([case.fact for case in active], standing, pages, now)
        for message in decided.ended:
            del open_ones[message.fact.key]
        for fact, weight in decided.opened:
            number += 1
            tell(Message(id=number, fact=fact, weight=weight, opened_at=now), weight, now)
        for message, weight in decided.weighed:
            tell(message, weight, now)
        for owner, messages in decided.digests.items():
            last_digest[owner] = now
            digests += 1
            for message in messages:
                of_key[message.fact.key].told.setdefault("digest", now)
        now += LOOK
    faults = [case for case in drawn if case.needs_a_person and case.lasts is None]
    first = [case for case in faults if case.fact.tier == 1]
    late = sum(case.told.get("page", now) - case.begins > timedelta(hours=3) for case in first)
    unnamed = sum(min(case.told.values(), default=now) - case.begins > 2 * DAY for case in faults)
    return Year(sum(map(len, paged.values())), needed, most, late, unnamed, digests)


def main() -> int:
    """Play the years, and print what they came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=int, default=3, help="years that are drawn")
    years = parser.parse_args().years
    rules = Pages()
    policies = {
        "the rules": rules,
        "without patience": Pages(patience=timedelta(0)),
        "everything at once": Pages(per_owner_week=1_000, patience=timedelta(0)),
    }
    failed = False
    heads = ("pages", "a week and owner", "needed", "most a week", "late", "unnamed", "digests")
    print(f"{'':20}" + "".join(f"{head:>{len(head) + 4}}" for head in heads))
    for year in range(years):
        for name, pages in policies.items():
            came = play(cases(np.random.default_rng(year)), pages, deciding.must_not_wait)
            print(
                f"{name:20}{came.pages:9}{came.pages / OWNERS / 52:20.2f}{came.precision:10.0%}{came.most:15}"
                f"{came.late:8}{came.unnamed:11}{came.digests:11}"
            )
            if name == "the rules":
                failed |= came.most > rules.per_owner_week or came.late > 0 or came.precision < 0.5 or came.unnamed > 0
    print("failed" if failed else "held")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
