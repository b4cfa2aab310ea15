"""The two statistics at their edges, and what they do not depend on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltyard.judge import sequential

bounded = st.lists(st.floats(-1, 1), max_size=200).map(np.array)


def evidence(sums):
    return float(sequential.log_e_nights(sums.sum(), (sums**2).sum(), len(sums)))


def test_nothing_is_known_of_no_rows():
    nothing = np.array([])
    assert (sequential.lower(nothing, 0.05), sequential.upper(nothing, 0.05)) == (-1.0, 1.0)
    assert float(sequential.log_e_rows(sequential.log_wealth(nothing), 0)) == pytest.approx(0)
    assert sequential.nightly(nothing, np.array([], dtype=np.int64)).size == 0
    assert evidence(nothing) == 0


def test_rows_and_nights_without_any_difference_are_evidence_of_nothing():
    none = np.zeros(500)
    assert sequential.lower(none, 0.05) < 0 < sequential.upper(none, 0.05)
    assert evidence(none) < 0


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 5000])
def test_extremes_stay_finite_and_in_range(rows):
    for value in (-1.0, 1.0):
        differences = np.full(rows, value)
        low, high = sequential.lower(differences, 0.05), sequential.upper(differences, 0.05)
        assert -1 <= low <= value <= high <= 1
        assert np.isfinite(sequential.log_wealth(differences)).all()


def test_a_night_is_the_sum_of_its_rows():
    sums = sequential.nightly(np.array([0.1, 0.2, -0.3, 0.5]), np.array([7, 7, 8, 10]))
    assert sums.tolist() == pytest.approx([0.3, -0.3, 0.5])


def test_one_night_says_at_most_two():
    assert evidence(np.array([1000.0])) <= math.log(2)


@given(bounded, bounded)
def test_wealth_adds_up_over_parts(first, second):
    whole = sequential.log_wealth(np.concatenate([first, second]))
    assert whole == pytest.approx(sequential.log_wealth(first) + sequential.log_wealth(second), abs=1e-9)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=50), st.floats(1e-6, 1e6), st.randoms(use_true_random=False))
def test_nights_know_neither_scale_nor_order(sums, scale, random):
    shuffled = random.sample(sums, len(sums))
    assert evidence(np.array(shuffled) * scale) == pytest.approx(evidence(np.array(sums)), abs=1e-6)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=50), st.floats(0, 1))
def test_better_nights_are_better_evidence(sums, by):
    sums = np.array(sums)
    assert evidence(sums + by) >= evidence(sums) - 1e-9


@given(st.lists(st.floats(-1, 0.5), min_size=1, max_size=200), st.floats(0, 0.5), st.floats(0.01, 0.2))
def test_better_rows_have_a_higher_bound_and_a_stricter_level_a_lower_one(differences, by, level):
    differences = np.array(differences)
    low = sequential.lower(differences, level)
    assert sequential.lower(differences + by, level) >= low - 1e-9
    assert sequential.lower(differences, level / 3) <= low + 1e-9


def test_extreme_nights_do_not_overflow():
    assert np.isfinite(evidence(np.ones(5000)))
    assert evidence(-np.ones(5000)) < -100 or evidence(-np.ones(5000)) == -math.inf
