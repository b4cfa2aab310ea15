"""Keep, simplify or retire, under nightly peeking, beside an oracle that knows what every row costs in expectation.

The rules are the real ones (govern/worth.py); drawn are a year of nights of a yes or no with a cost matrix: a rate per
row, the scores of a heavy model and of its light twin around it, and, in half of the models, a shock per night that
both share. The worlds differ in how good the two are, and in what it costs to run them, which is set from what the
oracle says that they save. At the *edge* both save just what they cost: whoever retires there is wrong. Beside the
rules stands a t-test at level alpha that looks every night as well. Exit code 1 where more than alpha of the models
that earn what they cost are ever to be retired, or more than alpha of heavy models that earn their surplus ever to be
simplified, or where fewer than four fifths of what the oracle would retire, simplify or keep is so after the year.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from tiltyard.govern import worth
from tiltyard.govern.worth import Earned, Running
from tiltyard.spec import Cost

ALPHA, NIGHTS, FOUND = 0.05, 365, 0.8
PRICES = Cost(false_positive=5, false_negative=60)
THRESHOLD = PRICES.false_positive / (PRICES.false_positive + PRICES.false_negative)
DEFAULT = 0.03
KEEP = frozenset({"keep"})
SHOCK = 0.4
"""Spread of what a night does to the logit of every rate, where nights share conditions."""


@dataclass(frozen=True)
class World:
    """How good two models are, and what is right to say of them."""

    name: str
    heavy: float
    """Spread of the heavy model's errors, on the logit."""
    light: float
    """Of the light twin's."""
    cost: Callable[[float, float], tuple[float, float]]
    """What both save over the safe default a row → what a row costs to run with the heavy model, and with its twin."""
    right: frozenset[str]
    """What the oracle would say."""


WORLDS = (
    World("worth it", 0.3, 0.8, lambda heavy, light: (0.3 * light, 0.3 * light - 0.3 * (heavy - light)), KEEP),
    World("at the edge", 0.3, 0.8, lambda heavy, light: (heavy, light), frozenset({"open", "keep", "simplify"})),
    World("too dear", 0.3, 0.8, lambda heavy, light: (2 * heavy, 2 * light), frozenset({"retire"})),
    World("twin as good", 0.5, 0.5, lambda heavy, light: (0.8 * heavy, 0.2 * light), frozenset({"simplify"})),
    World("surplus at the edge", 0.3, 0.8, lambda heavy, light: (heavy - light, 0.0), frozenset({"open", "keep"})),
)


def costs(rate: np.ndarray, score: np.ndarray) -> np.ndarray:
    """What each row costs in expectation."""
    acted = score >= THRESHOLD
    return np.where(acted, (1 - rate) * PRICES.false_positive, rate * PRICES.false_negative)


def drawn(rng: np.random.Generator, world: World, rows: int, shared: bool) -> tuple[np.ndarray, ...]:
    """(night, rate, heavy's score, light's score) of a year."""
    night = np.repeat(np.arange(NIGHTS), rng.poisson(rows, NIGHTS))
    shock = rng.normal(0, SHOCK, NIGHTS)[night] if shared else 0.0
    logit = rng.normal(-2.4, 1.2, len(night)) + shock
    scores = [logit + rng.normal(0, spread, len(night)) for spread in (world.heavy, world.light)]
    return night, *(1 / (1 + np.exp(-values)) for values in (logit, *scores))


def expected(world: World, shared: bool) -> tuple[float, float]:
    """What heavy and light save over the safe default a row, by the oracle, from a million rows."""
    _, rate, heavy, light = drawn(np.random.default_rng(0), world, 3_000, shared)
    default = costs(rate, np.full(len(rate), DEFAULT))
    return float((default - costs(rate, heavy)).mean()), float((default - costs(rate, light)).mean())


def earned(rng: np.random.Generator, world: World, rows: int, shared: bool) -> Earned:
    """A model's year, with outcomes."""
    night, rate, heavy, light = drawn(rng, world, rows, shared)
    outcome = (rng.random(len(rate)) < rate).astype(float)
    paid = [costs(outcome, score) for score in (heavy, np.full(len(rate), DEFAULT), light)]
    return Earned(night + 1, *paid, largest=max(PRICES.false_positive, PRICES.false_negative))


def peeked(year: Earned, running: Running) -> bool:
    """Whether a t-test at level alpha that looks every night would ever retire."""
    below = []
    for saved, cost in ((year.default - year.served, running.whole), (year.default - year.light, running.light)):
        ends = np.flatnonzero(np.diff(year.night, append=NIGHTS + 2)) + 1
        count = ends.astype(float)
        mean = np.cumsum(saved)[ends - 1] / count
        spread = np.sqrt(np.maximum(np.cumsum(saved**2)[ends - 1] / count - mean**2, 1e-12) / count)
        price = cost * year.night[ends - 1] / count
        below.append(((mean - price) / spread < student.ppf(ALPHA, np.maximum(count - 1, 1))) & (count > 30))
    return bool((below[0] & below[1]).any())


def main() -> int:
    """Play all worlds, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--models", type=int, default=300, help="models of each world")
    parser.add_argument("--rows", type=int, default=60, help="rows of a night, on average")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    print(f"{asked.models} models a world, {NIGHTS} nights of {asked.rows} rows, alpha {ALPHA}, seed {asked.seed}")
    print(f"{'world':<20} {'oracle':<9} {'retired':>8} {'simplified':>11} {'right at last':>14} "
          f"{'nights till then':>17} {'t-test retires':>15}")  # fmt: skip
    is_good = True
    for world in WORLDS:
        saved = {shared: expected(world, shared) for shared in (False, True)}
        ever = {"retire": 0, "simplify": 0}
        right, waits, tested = 0, [], 0
        for number in range(asked.models):
            rng, shared = np.random.default_rng([asked.seed, number, WORLDS.index(world)]), bool(number % 2)
            whole, light = world.cost(*saved[shared])
            running = Running(whole=whole * asked.rows, light=light * asked.rows)
            year = earned(rng, world, asked.rows, shared)
            past = worth.history(year, running, ALPHA)
            for advice in ever:
                ever[advice] += bool((past.advices == advice).any())
            tested += peeked(year, running)
            if past.advices[-1] in world.right:
                right += 1
                others = np.flatnonzero([advice not in world.right for advice in past.advices])
                waits.append(int(past.nights[others[-1] + 1 if len(others) else 0]))
        shares = {advice: count / asked.models for advice, count in ever.items()}
        is_good &= "retire" in world.right or shares["retire"] <= ALPHA
        is_good &= "simplify" in world.right or shares["simplify"] <= ALPHA or "retire" in world.right
        is_good &= len(world.right) > 1 or right / asked.models >= FOUND
        wait = f"{np.median(waits):.0f}" if waits and len(world.right) == 1 else "–"
        says = "/".join(sorted(world.right)) if len(world.right) < 2 else "no retire"
        print(f"{world.name:<20} {says:<9} {shares['retire']:>8.1%} {shares['simplify']:>11.1%} "
              f"{right / asked.models:>14.1%} {wait:>17} {tested / asked.models:>15.1%}")  # fmt: skip
    print("held" if is_good else "missed")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
