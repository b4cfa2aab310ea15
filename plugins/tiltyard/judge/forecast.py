"""When a challenger's evidence would be enough, if nights go on as they have. Pure, and never decided on.

The cohorts so far are drawn again and again, each time with other frequencies, which come from a Dirichlet distribution
(the Bayesian bootstrap: Rubin 1981, Annals of Statistics 9(1)): few cohorts leave much open, and make a wide interval.
In every draw cohorts follow until both of the gate's statistics and its number of rows are met. What nobody can know is
whether nights go on like that; of nights that do, `benchmarks/forecast.py` counts how often the interval holds.
"""

import math
from datetime import date, timedelta

import numpy as np

from tiltyard.judge import sequential
from tiltyard.judge.gate import Evidence, Verdict
from tiltyard.records import DueForecast
from tiltyard.spec import GatePolicy

DRAWS = 200
"""Courses that are drawn."""
AHEAD = 120
"""Cohorts that are looked ahead."""
TAIL = 0.05
"""Share of courses beyond each end of the interval. It is to hold for eight of ten challengers, and of few cohorts it
holds for fewer than what is drawn."""
FEWEST = 7
"""Cohorts without which nothing is said."""
WAITS = frozenset({"shadow", "matured", "better", "nights", "replay"})
"""Criteria that time may meet by itself."""


def due(evidence: Evidence, verdict: Verdict, policy: GatePolicy, night: date) -> DueForecast | None:
    """When the evidence would be enough, from `night` on. None where something else than time stands in the way, where
    the challenger is worse, or too few cohorts have matured to say anything."""
    open_ones = {criterion.name: criterion.status for criterion in verdict.criteria if criterion.status != "pass"}
    if verdict.verdict != "hold" or not open_ones or not open_ones.keys() <= WAITS or "fail" in open_ones.values():
        return None
    cohorts, starts, counts = np.unique(evidence.nights, return_index=True, return_counts=True)
    if len(cohorts) < FEWEST:
        return None
    sums = sequential.nightly(evidence.differences, evidence.nights)
    wealth = np.stack([sequential.log_wealth(part) for part in np.split(evidence.differences, starts[1:])])
    rng = np.random.default_rng([int(cohorts[-1]), len(evidence.differences)])
    weights = np.cumsum(rng.dirichlet(np.ones(len(cohorts)), DRAWS), axis=1)
    drawn = np.stack([np.searchsorted(own[:-1], rng.random(AHEAD)) for own in weights])
    rows = counts.sum() + np.cumsum(counts[drawn], axis=1)
    level = policy.alpha / evidence.challengers
    of_rows = sequential.log_e_rows(wealth.sum(axis=0) + np.cumsum(wealth[drawn], axis=1), rows)
    of_nights = sequential.log_e_nights(
        sums.sum() + np.cumsum(sums[drawn], axis=1),
        (sums**2).sum() + np.cumsum(sums[drawn] ** 2, axis=1),
        len(cohorts) + np.arange(1, AHEAD + 1),
    )
    met = (np.minimum(of_rows, of_nights) >= -math.log(level)) & (rows >= policy.min_matured)
    waits = np.where(met.any(axis=1), met.argmax(axis=1) + 1.0, np.inf)
    apart = (cohorts[-1] - cohorts[0]) / (len(cohorts) - 1)  # days from cohort to cohort
    least = math.ceil((policy.min_shadow - evidence.shadow) / timedelta(days=1))

    def on(share: float) -> date | None:
        cohort = float(np.quantile(waits, share, method="inverted_cdf"))
        return None if math.isinf(cohort) else night + timedelta(days=max(math.ceil(cohort * apart), least, 1))

    return DueForecast(early=on(TAIL), likely=on(0.5), late=on(1 - TAIL), never=float(np.isinf(waits).mean()))
