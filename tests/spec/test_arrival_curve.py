"""The arrival curve: what share of a cohort's rows has a label, so many nights after the prediction.

The tables are run-off triangles: a row is a cohort, a column an age in nights, a cell the labels that came at that age,
`+` cancellations and `-` stays. A cohort is seen up to its age only; a dot is a night that has not come.
"""

from datetime import date, timedelta

import numpy as np
import pytest

from tiltyard.judge import runoff
from tiltyard.judge.runoff import Arrivals

FIRST = date(2016, 3, 1)


def drawn(table: str, matures: int = 3) -> Arrivals:
    """Lines of `rows | labels at age 0 | at age 1 …`."""
    lines = [[part.strip() for part in line.split("|")] for line in table.strip().splitlines()[1:]]
    positive, negative = (
        np.array([[0 if cell == "." else cell.count(sign) for cell in line[1:]] for line in lines]) for sign in "+-"
    )
    night = FIRST + timedelta(days=len(lines) - 1)
    return Arrivals(FIRST, night, np.array([int(line[0]) for line in lines]), positive, negative, matures)


WHOLE = """
rows | 0  | 1  | 2   | 3
4    | +  | +  | -   | -
4    | +  | +  | -   | .
4    | +  | +  | .   | .
4    | +  | .  | .   | .
"""


def test_a_cohort_counts_for_the_ages_that_it_has_reached():
    """A quarter, a half, three quarters, all: as the oldest cohort shows, and no younger one contradicts."""
    assert runoff.curve(drawn(WHOLE)).labels == pytest.approx((0.25, 0.5, 0.75, 1.0))


def test_counting_what_is_known_would_have_said_less():
    """Ten of sixteen rows have a label and seven of the ten are cancellations; of a whole cohort, two of four."""
    arrivals = drawn(WHOLE)
    assert (arrivals.sizes.sum(), arrivals.labels.sum(), arrivals.positive.sum()) == (16, 10, 7)
    assert (arrivals.sizes[0], arrivals.labels[0].sum(), arrivals.positive[0].sum()) == (4, 4, 2)


def test_cancellations_arrive_before_stays():
    """All cancellations are known at age 1, before the first stay: whoever looks then sees nothing else."""
    curve = runoff.curve(drawn(WHOLE))
    assert curve.positives == pytest.approx((0.5, 1.0, 1.0, 1.0))
    assert curve.negatives == pytest.approx((0.0, 0.0, 0.5, 1.0))


def test_a_label_that_never_comes_keeps_the_curve_from_one():
    table = """
rows | 0  | 1  | 2   | 3
4    | +  | -  |     |
4    | +  | -  |     | .
4    | +  | -  | .   | .
"""
    curve = runoff.curve(drawn(table))
    assert curve.labels[-1] == pytest.approx(0.5)
    assert (curve.age(0.5), curve.age(0.95)) == (1, None)


def test_nothing_is_said_of_ages_that_no_cohort_has_reached():
    table = """
rows | 0  | 1  | 2   | 3
2    | +  |    | .   | .
2    | +  | .  | .   | .
"""
    curve = runoff.curve(drawn(table))
    assert curve.labels == pytest.approx((0.5, 0.5))
    assert curve.negatives == ()


def test_an_earlier_night_saw_less():
    arrivals = drawn(WHOLE).until(FIRST + timedelta(days=1))
    assert arrivals.sizes.tolist() == [4, 4]
    assert arrivals.labels.tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert runoff.curve(arrivals).labels == pytest.approx((0.25, 0.5))
