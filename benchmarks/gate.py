"""The gate under daily peeking: false promotions (A/A), nights to promote (A/B), microseconds per decision.

A simulated service desk: a latent rate per row, rows per night that follow the weekday, two versions whose scores
share most of their errors as two trainings on overlapping windows do, and, where nights share conditions, a shock per
night to the rate and to each version. A look sees whole matured cohorts only. Beside the gate stand a paired t-test at
level alpha that looks every night, and, for the waiting, the fixed-horizon test that was told effect and variance.
Exits with 1 when a target is missed.
"""

import sys
import time
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from scipy.special import ndtri, stdtr

from tiltyard.judge import gate, sequential
from tiltyard.spec import GatePolicy

POLICY = GatePolicy()
ALPHA, MIN_ROWS, MIN_SHADOW = POLICY.alpha, POLICY.min_matured, POLICY.min_shadow.days
WEEK = np.array([1.0, 1.0, 1.0, 1.0, 0.9, 0.4, 0.3])
ROWS = 100
"""Rows of an ordinary Monday in the median model; others have half or twice as many."""
COMMON, OWN = 0.145, 0.05
"""Spread of the errors that two versions share, and of each one's own (scores correlate at 0.96)."""
RATE_SHOCK, SCORE_SHOCK = 0.06, 0.03
"""What a night does to the rate, and to each version's scores, where nights share conditions."""
DELAYS, AB_DELAY = (1, 7, 28), 7
"""Nights until a cohort has matured: one of them per model in the A/A, and in the A/B."""
AT_ONCE = 4
POWER, RATIO = 0.8, 1.5


@dataclass(frozen=True)
class World:
    """`skill`: the share of the common error that the challenger keeps; `persistence` of shocks from night to night."""

    skill: float = 1.0
    shared: bool = False
    persistence: float = 0.0


@dataclass(frozen=True)
class Shadows:
    """Cumulative sums per run and matured night, shape (runs, nights); wealths have the bets in the last axis."""

    rows: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    night_total: np.ndarray
    night_squares: np.ndarray
    up: np.ndarray
    down: np.ndarray
    delay: np.ndarray


def shocks(rng: np.random.Generator, nights: int, spread: float, persistence: float) -> np.ndarray:
    drawn = rng.normal(0, spread, nights)
    for night in range(1, nights):
        drawn[night] = persistence * drawn[night - 1] + np.sqrt(1 - persistence**2) * drawn[night]
    return drawn


def scored(rng: np.random.Generator, night: np.ndarray, world: World) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rate, champion's score, challenger's score) of rows; `night` counts from 0."""
    latent, common = rng.beta(2, 3, len(night)), rng.normal(0, COMMON, len(night))
    own = rng.normal(0, OWN, (2, len(night)))
    rate = latent
    if world.shared:
        last = int(night[-1]) + 1
        own = own + [shocks(rng, last, SCORE_SHOCK, world.persistence)[night] for _ in range(2)]
        rate = np.clip(latent + shocks(rng, last, RATE_SHOCK, world.persistence)[night], 0, 1)
    return rate, np.clip(latent + common + own[0], 0, 1), np.clip(latent + world.skill * common + own[1], 0, 1)


def skill_for(gain: float, shared: bool) -> float:
    """The share of the common error to keep for a Brier score that is lower by `gain`, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(25):
        middle = (low + high) / 2
        rng = np.random.default_rng(20160301)
        rate, champion, challenger = scored(rng, np.arange(200_000), World(middle, shared))
        noise = rate * (1 - rate)
        theirs, ours = (float(np.mean((score - rate) ** 2 + noise)) for score in (champion, challenger))
        low, high = (middle, high) if 1 - ours / theirs > gain else (low, middle)
    return (low + high) / 2


def simulate(runs: int, nights: int, world: World, delays: tuple[int, ...], seed: int, monday: int = ROWS) -> Shadows:
    rng = np.random.default_rng(seed)
    sums = np.zeros((5, runs, nights))
    wealth = np.zeros((2, runs, nights, len(sequential.BETS)))
    for run in range(runs):
        expected = monday * np.exp(rng.normal(0, 0.4)) * np.roll(WEEK, rng.integers(7))
        rows = 1 + rng.poisson(np.resize(expected, nights))
        rate, champion, challenger = scored(rng, np.repeat(np.arange(nights), rows), world)
        label = rng.random(len(rate)) < rate
        differences = (champion - label) ** 2 - (challenger - label) ** 2
        starts = np.cumsum(rows) - rows
        per_night = np.add.reduceat(differences, starts)
        sums[:, run] = rows, per_night, np.add.reduceat(differences**2, starts), per_night, per_night**2
        for side, sign in enumerate((1, -1)):
            for place, bet in enumerate(sequential.BETS):
                wealth[side, run, :, place] = np.add.reduceat(np.log1p(sign * bet * differences), starts)
    return Shadows(*sums.cumsum(axis=2), *wealth.cumsum(axis=2), delay=rng.choice(delays, (runs, 1)))


def may_look(found: Shadows, until: int | None) -> np.ndarray:
    """Where a verdict may fall: enough rows, long enough in shadow, and before the shadow ends at night `until`."""
    matured = np.arange(1, found.rows.shape[1] + 1)
    shadow = matured + found.delay
    return (found.rows >= MIN_ROWS) & (shadow >= MIN_SHADOW) & (shadow <= (until or np.inf))


def by_rows(found: Shadows, sign: int = 1, level: float = ALPHA) -> np.ndarray:
    return sequential.log_e_rows(found.up if sign > 0 else found.down, found.rows) >= -np.log(level)


def by_nights(found: Shadows, sign: int = 1, level: float = ALPHA) -> np.ndarray:
    matured = np.arange(1, found.rows.shape[1] + 1)
    value = sequential.log_e_nights(sign * found.night_total, found.night_squares, matured)
    return (value >= -np.log(level)) & (matured >= gate.MIN_NIGHTS)


def by_t_test(found: Shadows) -> np.ndarray:
    """One-sided and paired, on the rows so far."""
    mean = found.total / found.rows
    error = np.sqrt((found.squares / found.rows - mean**2) / (found.rows - 1))
    return stdtr(found.rows - 1, -mean / error) < ALPHA


def first(hit: np.ndarray) -> np.ndarray:
    """The matured night of the first hit of every run, infinite without one."""
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1.0, np.inf)


def fixed_horizon(found: Shadows, shared: bool) -> np.ndarray:
    """Matured nights that the one-sided test needs which knows effect and variance, at ALPHA and POWER.

    Rows are its observations, or nights where they share conditions; both wait for MIN_ROWS and MIN_SHADOW.
    """
    effort = (ndtri(1 - ALPHA) + ndtri(POWER)) ** 2
    effect = found.total[:, -1].sum() / found.rows[:, -1].sum()
    if shared:  # the variance of a run's nightly sums grows with its volume
        nights = found.rows.shape[1]
        mean = found.night_total[:, -1:].sum() / found.rows[:, -1:].sum() * found.rows[:, -1:] / nights
        variance = found.night_squares[:, -1:] / nights - mean**2
        enough = np.arange(1, nights + 1) >= effort * variance / mean**2
    else:
        variance = found.squares[:, -1].sum() / found.rows[:, -1].sum() - effect**2
        enough = found.rows >= effort * variance / effect**2
    return first(enough & may_look(found, None))


def row(*cells: object) -> None:
    print("  ".join(f"{cell!s:>{width}}" for cell, width in zip(cells, (34, 10, 10, 10, 12, 10, 10), strict=False)))


def verdicts(found: Shadows, look: np.ndarray, at_once: int) -> list[float]:
    """How often any of `at_once` challengers meets each rule; all but the t-test share alpha."""
    level = ALPHA / at_once
    rules = (
        by_rows(found, 1, level) & by_nights(found, 1, level),
        by_rows(found, -1, level) & by_nights(found, -1, level),
        by_rows(found, 1, level),
        by_nights(found, 1, level),
        by_t_test(found),
    )
    return [float((rule & look).any(axis=1).reshape(-1, at_once).any(axis=1).mean()) for rule in rules]


def false_verdicts() -> bool:
    """A/A: two versions of one skill. True when the gate keeps its promise."""
    runs, weeks = 2000, 12
    print(f"A/A: {runs:,} shadows of {weeks} weeks, labels after {DELAYS} nights, a look every night, alpha {ALPHA}")
    row("", "gate", "gate", "rows only", "nights only", "t-test")
    row("conditions of a night", "promoted", "rejected", "promoted", "promoted", "promoted")
    kept = True
    for name, world, promised in (
        ("each row its own", World(), True),
        ("shared by its rows", World(shared=True), True),
        ("shared, and lasting (0.7)", World(shared=True, persistence=0.7), False),
    ):
        found = simulate(runs, weeks * 7, world, DELAYS, seed=20160229)
        look = may_look(found, weeks * 7)
        rates = verdicts(found, look, 1)
        row(name + ("" if promised else " *"), *(f"{rate:.2%}" for rate in rates))
        kept &= not promised or max(rates[:2]) <= ALPHA
        if world == World():
            several = verdicts(found, look, AT_ONCE)
            row(f"  any of {AT_ONCE} at once", *(f"{rate:.2%}" for rate in several))
            kept &= max(several[:2]) <= ALPHA
    print("  * not promised: nights are taken to be independent of each other")
    return kept


def waiting() -> bool:
    """A/B: a better challenger. True when the gate waits no longer than RATIO times the test that knew.

    Nights to promote are counted from the first in shadow, as min_shadow is; those that had matured by then
    stand beside them, and a ratio that no label delay makes look better.
    """
    runs = 400
    print(f"\nA/B: {runs} shadows, labels after {AB_DELAY} nights, medians; nights in shadow (matured ones)")
    row("relative Brier, conditions, rows", "variance", "gate", "knew all", "ratio", "(matured)", "t-test")
    kept = True
    for gain in (0.01, 0.03):
        for shared in (False, True):
            world = World(skill_for(gain, shared), shared)
            for rows in (30, 100, 300):
                found = simulate(runs, 27_000 // rows, world, (AB_DELAY,), seed=20160302, monday=rows)
                look = may_look(found, None)
                rules = (first(by_rows(found) & by_nights(found) & look), fixed_horizon(found, shared))
                mine, theirs = (float(np.median(nights)) for nights in rules)
                ratio = (mine + AB_DELAY) / (theirs + AB_DELAY)
                row(
                    f"+{gain:.0%}, {'shared' if shared else 'each its own'}, {rows} a night",
                    f"{found.squares[:, -1].sum() / found.rows[:, -1].sum():.4f}",
                    f"{mine + AB_DELAY:.0f} ({mine:.0f})",
                    f"{theirs + AB_DELAY:.0f} ({theirs:.0f})",
                    f"{ratio:.2f}",
                    f"({mine / theirs:.2f})",
                    f"{np.median(first(by_t_test(found) & look)) + AB_DELAY:.0f}",
                )
                kept &= ratio <= RATIO
    return kept


def speed() -> None:
    rng = np.random.default_rng(20160229)
    rows = 10_000
    evidence = gate.Evidence(
        challenger=2,
        champion=1,
        safe_default=None,
        shadow=timedelta(days=84),
        differences=rng.normal(0.002, 0.06, rows).clip(-1, 1),
        nights=np.arange(rows) // 125,
        expected=rows,
    )
    started, count = time.perf_counter(), 200
    for _ in range(count):
        gate.decide(evidence, POLICY, 20)
    print(f"\none decision on {rows:,} rows: {(time.perf_counter() - started) / count * 1e6:,.0f} µs")


def main() -> int:
    started = time.perf_counter()
    kept = [false_verdicts(), waiting()]
    speed()
    print(f"{time.perf_counter() - started:.0f} s; {'every target met' if all(kept) else 'a target was missed'}")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
