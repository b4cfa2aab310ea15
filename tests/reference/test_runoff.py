"""The arrival curve against row by row bookkeeping and the chain ladder as actuaries write it."""

from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltyard.judge import runoff
from tiltyard.judge.runoff import Arrivals

FIRST = date(2016, 3, 1)


@st.composite
def triangles(draw: st.DrawFn) -> Arrivals:
    cohorts, ages = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    cells = st.lists(st.integers(0, 4), min_size=cohorts * ages, max_size=cohorts * ages)
    positive, negative = (np.array(draw(cells)).reshape(cohorts, ages) for _ in range(2))
    seen = np.add.outer(np.arange(cohorts), np.arange(ages)) < cohorts
    positive, negative = positive * seen, negative * seen
    sizes = (positive + negative).sum(axis=1) + np.array(
        draw(st.lists(st.integers(0, 4), min_size=cohorts, max_size=cohorts))
    )
    return Arrivals(FIRST, FIRST + timedelta(days=cohorts - 1), sizes, positive, negative, ages - 1)


def rows_of(arrivals: Arrivals) -> list[tuple[int, int | None]]:
    """(age at which the row's label came or None, age that its cohort has reached) of every row."""
    rows: list[tuple[int, int | None]] = []
    cohorts, ages = arrivals.labels.shape
    for cohort in range(cohorts):
        reached = min(cohorts - 1 - cohort, ages - 1)
        came = [age for age in range(ages) for _ in range(arrivals.labels[cohort, age])]
        rows += [(reached, age) for age in came]
        rows += [(reached, None)] * int(arrivals.sizes[cohort] - len(came))
    return rows


@given(triangles())
def test_of_all_rows_it_is_the_product_limit_row_by_row(arrivals: Arrivals) -> None:
    rows = rows_of(arrivals)
    left, expected = 1.0, []
    for age in range(max((reached for reached, _ in rows), default=-1) + 1):
        at_risk = [came for reached, came in rows if reached >= age and (came is None or came >= age)]
        left *= 1 - sum(came == age for came in at_risk) / max(len(at_risk), 1)
        expected.append(1 - left)
    found = runoff.curve(arrivals).labels
    assert found[: len(expected)] == pytest.approx(expected)
    assert all(before <= after + 1e-12 for before, after in pairwise(found))


@given(triangles())
def test_of_a_class_it_is_the_chain_ladder(arrivals: Arrivals) -> None:
    """F(age) is one over the product of the development factors of the later ages."""
    found = runoff.curve(arrivals).positives
    if not found:
        return
    cohorts = len(arrivals.sizes)
    cumulative = np.cumsum(arrivals.positive, axis=1)
    for age, share in enumerate(found):
        developed = 1.0
        for later in range(age + 1, len(found)):
            both = [cohort for cohort in range(cohorts) if cohort + later < cohorts]
            before = sum(int(cumulative[cohort, later - 1]) for cohort in both)
            after = sum(int(cumulative[cohort, later]) for cohort in both)
            if after and not before:
                developed = float("inf")
            elif after:
                developed *= after / before
        assert share == pytest.approx(1 / developed)
