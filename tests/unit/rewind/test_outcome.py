"""What hindsight says of a policy: which line served, who was best, which retrain was for nothing."""

from datetime import date, timedelta

import numpy as np
import pytest

from tiltyard.rewind import outcome
from tiltyard.rewind.outcome import Lines

FIRST = date(2025, 1, 1)
NIGHTS = [FIRST + timedelta(days=place) for place in range(28)]
PER_NIGHT = 40


def lines(seed: int = 1, **levels: float) -> Lines:
    """Versions named by `dN`, the day of FIRST's month on which they were trained, with a mean loss each."""
    rng = np.random.default_rng(seed)
    night = np.repeat([one.toordinal() for one in NIGHTS], PER_NIGHT)
    noise = rng.normal(0, 0.02, len(night))
    versions = {date(2025, 1, int(name[1:])): level + noise for name, level in levels.items() if name != "default"}
    return Lines(night, versions, levels.get("default", 0.25) + noise)


def test_what_was_served_is_the_champion_or_the_default_and_nothing_on_a_night_without_predictions() -> None:
    found = lines(d1=0.1)
    champions: dict = {NIGHTS[1]: None, NIGHTS[2]: date(2025, 1, 1)}
    loss = outcome.served(found, champions)
    by_night = [np.nanmean(loss[found.night == one.toordinal()]) for one in NIGHTS[1:3]]
    assert by_night == pytest.approx([0.25, 0.1], abs=0.02)
    assert np.isnan(loss[found.night == FIRST.toordinal()]).all()


def test_a_row_that_the_champion_did_not_score_got_the_default() -> None:
    found = lines(d1=0.1)
    found.versions[date(2025, 1, 1)][found.night == NIGHTS[2].toordinal()] = np.nan
    loss = outcome.served(found, dict.fromkeys(NIGHTS[1:], date(2025, 1, 1)))
    assert np.nanmean(loss[found.night == NIGHTS[2].toordinal()]) == pytest.approx(0.25, abs=0.02)


def test_promoting_always_serves_the_newest_from_the_night_after_its_training_on() -> None:
    trained = [date(2025, 1, 8), date(2025, 1, 15)]
    champions = outcome.always_newest(NIGHTS, trained)
    assert champions[date(2025, 1, 8)] is None
    assert champions[date(2025, 1, 9)] == champions[date(2025, 1, 15)] == date(2025, 1, 8)
    assert champions[date(2025, 1, 16)] == date(2025, 1, 15)


def test_the_oracle_knows_only_what_was_trained_before_the_night() -> None:
    found = lines(d1=0.2, d9=0.1)
    chosen = outcome.oracle(found, NIGHTS)
    assert chosen[NIGHTS[0]] is None  # nothing was trained before the first night
    assert chosen[NIGHTS[8]] == date(2025, 1, 1)  # the better one was trained on this very night
    assert chosen[NIGHTS[9]] == chosen[NIGHTS[14]] == date(2025, 1, 9)
    best = outcome.served(found, chosen)
    later = found.night >= NIGHTS[14].toordinal()
    assert best[later].mean() == min(found.of(version)[later].mean() for version in (None, *found.versions))


def test_days_behind_count_only_what_chance_does_not_explain() -> None:
    found = lines(d1=0.2)
    rng = np.random.default_rng(2)
    served, same = found.of(date(2025, 1, 1)), found.of(date(2025, 1, 1)) + rng.normal(0, 0.01, len(found.night))
    assert outcome.days_behind(found, same, served) <= 7
    assert outcome.days_behind(found, served + 0.03 + rng.normal(0, 0.01, len(served)), served) == len(NIGHTS)
    half = np.where(found.night < FIRST.toordinal() + 14, served, served + 0.03)
    assert outcome.days_behind(found, half, served) == 14


def test_a_retrain_is_false_when_its_version_was_no_better_than_what_served() -> None:
    found = lines(d1=0.2, d3=0.15, d5=0.22, d28=0.1)
    assert outcome.is_false(found, date(2025, 1, 3), date(2025, 1, 1)) is False
    assert outcome.is_false(found, date(2025, 1, 5), date(2025, 1, 1)) is True
    assert outcome.is_false(found, date(2025, 1, 1), None) is False
    assert outcome.is_false(found, date(2025, 1, 28), None) is None  # no night after it


def test_weeks_are_counted_from_the_first_night_and_carry_their_rows() -> None:
    found = lines(d1=0.2)
    weeks = outcome.weekly(found, found.of(date(2025, 1, 1)))
    assert [start for start, _, _ in weeks] == NIGHTS[::7]
    assert {rows for _, _, rows in weeks} == {7 * PER_NIGHT}
