"""The detector beside a slow and obvious one, and what it promises: valid ranks, bets of mean one, few false alarms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tiltyard.govern import detector
from tiltyard.train.profile import Cells, ProfiledColumn

FIRST = 740_000


def bag(seed: int, nights: int, columns: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Exchangeable nights of different size and shape: histograms and mean places."""
    random = np.random.default_rng(seed)
    histograms = np.zeros((nights, columns, detector.WIDTH))
    for night in range(nights):
        for column in range(columns):
            shares = random.dirichlet(np.full(detector.WIDTH, 3.0))
            histograms[night, column] = random.multinomial(int(random.integers(5, 200)), shares)
    places = (histograms @ np.linspace(0, 1, detector.WIDTH)) / histograms.sum(axis=2)
    return histograms, places


def slow_ranks(histograms: np.ndarray, places: np.ndarray, last: int, column: int) -> tuple[int, int, int]:
    """The ranks of one night in one column, from the definition."""
    rows = histograms[: last + 1, column]
    total = rows.sum(axis=0)
    mean = total / total.sum()
    apart, inverse = [], []
    for night in rows:
        size = night.sum()
        part = sum((night[g] / size - mean[g]) ** 2 / mean[g] for g in range(len(mean)) if mean[g] > 0)
        apart.append(part / (1 - size / total.sum()) ** 2 if size < total.sum() else part)
        inverse.append(1 / size)
    freedom = max(int((mean > 0).sum()) - 1, 1)
    spread = max(np.mean(apart) / freedom - np.mean(inverse), 0.0)
    scaled = [one / (other + spread) for one, other in zip(apart, inverse, strict=True)]
    own = places[: last + 1, column]
    return (
        sum(one >= scaled[-1] * (1 - 1e-9) - 1e-12 for one in scaled),
        sum(one >= own[-1] - 1e-12 for one in own),
        sum(one <= own[-1] + 1e-12 for one in own),
    )


@hypothesis_settings(max_examples=25)
@given(seed=st.integers(0, 10_000), nights=st.integers(3, 15))
def test_ranks_are_those_of_the_definition(seed: int, nights: int) -> None:
    histograms, places = bag(seed, nights)
    found = detector.ranks(histograms, places, 1)
    for last in range(1, nights):
        for column in range(2):
            assert tuple(found[last - 1, column]) == slow_ranks(histograms, places, last, column)


@hypothesis_settings(max_examples=40)
@given(seed=st.integers(0, 10_000), nights=st.integers(2, 12))
def test_of_the_nights_of_a_bag_each_rank_is_taken_by_as_many_at_most(seed: int, nights: int) -> None:
    """Exchangeable means that each of the nights could have come last: of n, at most r have a rank of r or less."""
    histograms, places = bag(seed, nights, columns=1)
    rank = []
    for last in range(nights):
        order = [*(night for night in range(nights) if night != last), last]
        rank.append(detector.ranks(histograms[order], places[order], nights - 1)[0, 0])
    for score in range(3):
        taken = np.sort([one[score] for one in rank])
        assert (taken >= np.arange(1, nights + 1)).all()


@given(size=st.integers(1, 400))
def test_a_bet_is_fair_and_falls_with_the_rank(size: int) -> None:
    rank = np.arange(1, size + 1)
    value = detector.bets(rank, np.full(size, size))
    assert value.mean(axis=0) == pytest.approx(np.ones(len(detector.BETS)))
    assert (np.diff(value, axis=0) <= 1e-12).all()


def numbers(
    training: int, nights: int, random: np.random.Generator, level: float = 0.0
) -> tuple[ProfiledColumn, np.ndarray]:
    """A numeric column of ten even cells, with nights that are more unlike than chance would have it."""
    edges = np.linspace(0, 1, 11)[1:-1]
    cells = Cells(True, edges, (np.arange(10) + 0.5) / 10, 0.3, 0.0, 1.0)
    counts = np.zeros((training + nights, cells.count), dtype=np.int64)
    for night in range(training + nights):
        shift = random.normal(0, 0.05) + (level if night >= training else 0.0)
        values = np.clip(random.random(int(random.integers(30, 120))) + shift, 0, 0.999)
        counts[night, :-1] = np.bincount((values * 10).astype(int), minlength=10)
    return ProfiledColumn("amount", "feature", None, 1.0, cells, counts[:training]), counts[training:]


def evidence(seed: int, level: float = 0.0, nights: int = 60) -> np.ndarray:
    column, counts = numbers(42, nights, np.random.default_rng(seed), level)
    ordinals = np.arange(FIRST, FIRST + 42 + nights)
    found = detector.detect([column], ordinals[:42], ordinals[42:], [counts], int(ordinals[42]))
    return found.value[:, 0]


def test_the_detector_adds_up_every_possible_night_of_change() -> None:
    random = np.random.default_rng(3)
    e = random.exponential(1.0, (8, 1, 1, 1))
    slow = [sum(float(np.prod(e[start : last + 1])) for start in range(last + 1)) for last in range(8)]
    assert detector._detector(e)[:, 0] == pytest.approx(slow)


def test_false_alarms_stay_within_the_budget() -> None:
    """At a threshold of 100 an alarm comes every 100 still nights at most, about as the first of a Poisson process: of
    200 streams of 60 nights 1 - exp(-0.6), 90 and a half, have had one."""
    crossed = sum(bool((evidence(seed) >= 100).any()) for seed in range(200))
    share = 1 - np.exp(-60 / 100)
    assert crossed <= 200 * share + 3 * np.sqrt(200 * share * (1 - share))


def test_a_change_is_seen_within_a_week_or_two() -> None:
    waits = [int(np.argmax(evidence(seed, level=0.25) >= 365)) for seed in range(10)]
    assert max(waits) <= 14 and all((evidence(seed, level=0.25) >= 365).any() for seed in range(10))


def test_later_nights_change_nothing_of_earlier_ones() -> None:
    assert evidence(5, nights=60)[:20] == pytest.approx(evidence(5, nights=20))


def test_a_weekday_is_ranked_among_its_own() -> None:
    training = np.arange(FIRST, FIRST + 42)
    assert set(detector.bags(training, training)) == set(range(7))
    assert set(detector.bags(training[:20], training)) == {0}
