"""How often the gate's date holds: challengers that are better by as much as they are, watched until they are promoted.

Drawn are nights of differences of losses, as a yes or no gives them, with an effect, a spread between nights and a
number of rows of their own per challenger. After some nights the date is asked for (judge/forecast.py, the real one),
and then the nights go on until the gate's evidence is enough, or two hundred have passed. Printed is how often that was
within the interval, which promises eight of ten, and how wide it was. Exit code 1 below 80 % in any group.
"""

import argparse
import math
import sys
from datetime import date, timedelta

import numpy as np

from tiltyard.judge import forecast, gate, sequential
from tiltyard.spec import GatePolicy

POLICY = GatePolicy(min_matured=200)
FIRST = date(2025, 1, 1)
NIGHTS = 200
LEAST = 0.8


def course(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(differences, nights) of a challenger's two hundred nights."""
    effect, between = rng.uniform(0.002, 0.02), rng.uniform(0.0, 0.02)
    counts = np.maximum(rng.poisson(rng.uniform(20, 120), NIGHTS), 1)
    night = np.repeat(np.arange(NIGHTS), counts)
    shift = rng.normal(0, between, NIGHTS)[night]
    return np.clip(effect + shift + rng.normal(0, 0.15, len(night)), -1, 1), night + FIRST.toordinal()


def crossing(differences: np.ndarray, nights: np.ndarray) -> int | None:
    """The number of nights after which both statistics and the rows are enough; None where they never are."""
    ends = np.flatnonzero(np.diff(nights, append=nights[-1] + 1)) + 1
    wealth = np.cumsum([sequential.log_wealth(part) for part in np.split(differences, ends[:-1])], axis=0)
    sums = sequential.nightly(differences, nights)
    of_nights = sequential.log_e_nights(np.cumsum(sums), np.cumsum(sums**2), np.arange(1, len(sums) + 1))
    met = np.minimum(sequential.log_e_rows(wealth, ends), of_nights) >= -math.log(POLICY.alpha)
    met &= ends >= POLICY.min_matured
    return int(met.argmax()) + 1 if met.any() else None


def main() -> int:
    """Play them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--challengers", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    print(f"{asked.challengers} challengers, {NIGHTS} nights, seed {asked.seed}")
    print(f"{'asked after':<14} {'asked of':>9} {'within':>8} {'earlier':>8} {'later':>8} {'median width, nights':>22}")
    is_good = True
    for after in (7, 10, 15, 25, 40):
        hits, early, late, widths, asked_of = 0, 0, 0, [], 0
        for number in range(asked.challengers):
            differences, nights = course(np.random.default_rng([asked.seed, number]))
            came = crossing(differences, nights)
            if came is not None and came <= after:
                continue
            seen = nights < FIRST.toordinal() + after
            evidence = gate.Evidence(
                challenger=2, champion=1, safe_default=None, shadow=timedelta(days=after),
                differences=differences[seen], nights=nights[seen], expected=int(seen.sum()),
            )  # fmt: skip
            night = FIRST + timedelta(days=after - 1)
            told = forecast.due(evidence, held(evidence), POLICY, night)
            if told is None:
                continue
            asked_of += 1
            waited = math.inf if came is None else came - after
            first = math.inf if told.early is None else (told.early - night).days
            last = math.inf if told.late is None else (told.late - night).days
            hits += first <= waited <= last
            early += waited < first
            late += waited > last
            widths.append(min(last, forecast.AHEAD) - min(first, forecast.AHEAD))
        if not asked_of:
            continue
        is_good &= hits / asked_of >= LEAST
        print(f"{after:>3} nights     {asked_of:>9} {hits / asked_of:>8.1%} {early / asked_of:>8.1%} "
              f"{late / asked_of:>8.1%} {np.median(widths):>22.0f}")  # fmt: skip
    print("held" if is_good else "missed")
    return 0 if is_good else 1


def held(evidence: gate.Evidence) -> gate.Verdict:
    """The gate's verdict on what is drawn, of which only what time may meet is open."""
    verdict = gate.decide(evidence, POLICY, 20)
    kept = tuple(criterion for criterion in verdict.criteria if criterion.name in forecast.WAITS - {"replay"})
    return gate.Verdict(verdict.verdict, kept, verdict.mean, verdict.low, verdict.high)


if __name__ == "__main__":
    sys.exit(main())
