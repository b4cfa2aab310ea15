"""The gate: microseconds per decision, and how often daily peeking promotes a challenger that is no better.

Compared with what is done without it: a paired t-test at level alpha, looked at every night.
"""

import time
from datetime import timedelta

import numpy as np
from scipy.special import stdtr

from tiltyard import gate
from tiltyard.spec import GatePolicy

NIGHTS, PER_NIGHT, RUNS, ALPHA, MIN_ROWS = 60, 200, 400, 0.05, 500


def losses(rng: np.random.Generator, gain: float = 0.0, shared: float = 0.0) -> np.ndarray:
    """Brier differences of two noisy versions: the second better by `gain`; `shared` is one shock per night."""
    rate = rng.beta(2, 3, NIGHTS * PER_NIGHT)
    label = rng.random(len(rate)) < rate
    shocks = rng.normal(0, shared, (2, NIGHTS)).repeat(PER_NIGHT, axis=1)
    noise = rng.normal(0, 0.15, (2, len(rate))) * np.array([[1], [1 - gain]]) + shocks
    champion, challenger = np.clip(rate + noise, 0, 1)
    return (champion - label) ** 2 - (challenger - label) ** 2


def promoted_by_sequence(differences: np.ndarray) -> np.ndarray:
    """For every night: would the gate have promoted?"""
    ends = np.arange(PER_NIGHT, len(differences) + 1, PER_NIGHT)
    mean = np.cumsum(differences)[ends - 1] / ends
    v = gate.variance_process(differences)[ends - 1]
    low = mean - gate.boundary(v, ALPHA / 2, gate.tuning(ALPHA / 2, MIN_ROWS)) / ends
    return (low > 0) & (ends >= MIN_ROWS)


def promoted_by_t_test(differences: np.ndarray) -> np.ndarray:
    """The same with a two-sided paired t-test on the rows so far."""
    ends = np.arange(PER_NIGHT, len(differences) + 1, PER_NIGHT)
    mean = np.cumsum(differences)[ends - 1] / ends
    variance = np.cumsum(differences**2)[ends - 1] / ends - mean**2
    p = 2 * stdtr(ends - 1, -np.abs(mean) / np.sqrt(variance / (ends - 1)))
    return (mean > 0) & (p < ALPHA) & (ends >= MIN_ROWS)


def main() -> None:
    rng = np.random.default_rng(20160229)
    differences = rng.normal(0.005, 0.1, 10_000).clip(-1, 1)
    evidence = gate.Evidence(2, 1, None, timedelta(days=40), differences, 10_000)
    started, count = time.perf_counter(), 200
    for _ in range(count):
        gate.decide(evidence, GatePolicy())
    print(f"one decision on 10,000 rows: {(time.perf_counter() - started) / count * 1e6:,.0f} µs")
    for name, options in (
        ("no better", {}),
        ("no better, conditions shared within a night", {"shared": 0.05}),
        ("better (noise of the scores halved)", {"gain": 0.5}),
    ):
        draws = [losses(rng, **options) for _ in range(RUNS)]
        rates = []
        for rule in (promoted_by_sequence, promoted_by_t_test):
            nights = [int(np.argmax(hit)) + 1 for hit in map(rule, draws) if hit.any()]
            waited = f", after {np.median(nights):.0f} nights in the median" if nights else ""
            rates.append(f"{len(nights) / RUNS:.1%}{waited}")
        print(f"challenger {name}, {NIGHTS} daily peeks: promoted {rates[0]} (t-test every night: {rates[1]})")


if __name__ == "__main__":
    main()
