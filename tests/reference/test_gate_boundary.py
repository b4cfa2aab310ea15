"""The gate's boundary against its definition, by numerical integration, and its promise by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq

from tiltyard import gate

C = gate.SCALE


def slow_boundary(v, alpha, rho):
    """The s at which the mixture of exp(l s - psi(l) v) over l in [0, 1/c) reaches 1 / alpha."""

    def weight(rate):
        left = 1 - C * rate
        return left ** (rho / C**2 - 1) * math.exp(-rho * left / C**2)

    def psi(rate):
        return (-math.log(1 - C * rate) - C * rate) / C**2

    def mixed(s):
        return quad(lambda rate: math.exp(rate * s - psi(rate) * v) * weight(rate), 0, 1 / C, limit=300)[0]

    total = quad(weight, 0, 1 / C, limit=300)[0]
    far = 3 * (math.sqrt(2 * v * math.log(1 / alpha)) + C * math.log(1 / alpha))
    return brentq(lambda s: mixed(s) / total - 1 / alpha, 0, far)


def slow_interval(differences, alpha, rows):
    """One difference at a time."""
    total, v = 0.0, 0.0
    for place, difference in enumerate(differences):
        centre = total / place if place else 0.0
        v += (difference - centre) ** 2
        total += difference
    margin = slow_boundary(v, alpha / 2, gate.tuning(alpha / 2, rows)) / len(differences)
    return total / len(differences) - margin, total / len(differences) + margin


@given(v=st.floats(0, 80), alpha=st.sampled_from([0.0125, 0.025, 0.05]), rows=st.sampled_from([300, 500, 2000]))
@settings(max_examples=25, deadline=None)
def test_the_boundary_is_where_the_mixture_reaches_its_level(v, alpha, rows):
    rho = gate.tuning(alpha, rows)
    assert float(gate.boundary(v, alpha, rho)) == pytest.approx(slow_boundary(v, alpha, rho), rel=1e-6)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60))
@settings(max_examples=25, deadline=None)
def test_the_interval_is_that_of_the_loop(differences):
    found = gate.interval(np.array(differences), 0.05, 500)
    assert (found.low, found.high) == pytest.approx(slow_interval(differences, 0.05, 500), rel=1e-6, abs=1e-9)


def test_the_boundary_holds_for_large_variance_and_rises():
    v = np.geomspace(1e-3, 1e6, 200)
    u = gate.boundary(v, 0.025, gate.tuning(0.025, 500))
    assert np.isfinite(u).all()
    assert (np.diff(u) > 0).all()
    assert np.allclose(gate.log_mixture(u, v, gate.tuning(0.025, 500)), math.log(40), atol=1e-6)


def losses(rng, nights, per_night, skill):
    """Two versions of one skill (or the second better by `skill`) whose errors drift from night to night."""
    truth_rate = np.clip(0.4 + 0.25 * np.sin(np.arange(nights) / 5), 0, 1).repeat(per_night)
    label = rng.random(nights * per_night) < truth_rate
    noise = rng.normal(0, 0.15, (2, nights * per_night))
    champion = np.clip(truth_rate + noise[0], 0, 1)
    challenger = np.clip(truth_rate + noise[1] * (1 - skill), 0, 1)
    return (champion - label) ** 2 - (challenger - label) ** 2


def peeks(differences, per_night, min_rows):
    """low and high at the end of every night from `min_rows` on."""
    nights = np.arange(per_night, len(differences) + 1, per_night)
    nights = nights[nights >= min_rows]
    mean = np.cumsum(differences)[nights - 1] / nights
    v = gate.variance_process(differences)[nights - 1]
    margin = gate.boundary(v, 0.025, gate.tuning(0.025, min_rows)) / nights
    return mean - margin, mean + margin


def test_looking_every_night_promotes_an_equal_challenger_no_more_often_than_alpha():
    rng = np.random.default_rng(20160229)
    runs = [peeks(losses(rng, 60, 100, 0.0), 100, 500) for _ in range(300)]
    promoted = sum((low > 0).any() for low, _ in runs)
    rejected = sum((high < 0).any() for _, high in runs)
    assert (promoted + rejected) / len(runs) <= 0.05


def test_a_better_challenger_is_found():
    rng = np.random.default_rng(20160301)
    found = sum((peeks(losses(rng, 60, 100, 0.9), 100, 500)[0] > 0).any() for _ in range(40))
    assert found >= 38
