"""A truth that stops arriving: an alarm within days, and none from what weekdays, noise and fading classes do."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from tiltyard.judge import runoff
from tiltyard.judge.runoff import Arrivals

FIRST = date(2024, 1, 1)
DAY = timedelta(days=1)
MATURES = 14


def model(seed: int, nights: int = 110, size: float = 100, faded: float = 0.3) -> Arrivals:
    """Weekends bring a tenth of the rows and labels, nights vary more than chance, a tenth of the rows never gets a
    label. Three in ten are positive; of the cohorts from night 70 on as many as `faded` says."""
    rng = np.random.default_rng(seed)
    ages = MATURES + 8
    weekend = np.where(np.arange(nights + ages) % 7 >= 5, 0.1, 1.0) * rng.gamma(15, 1 / 15, nights + ages)
    sizes = rng.poisson(size * weekend[:nights])
    positive, negative = np.zeros((2, nights, ages), dtype=np.int64)
    for cohort in range(nights):
        yes = rng.binomial(sizes[cohort], (0.3 if cohort < 70 else faded) * 0.9)
        for table, left, speed in ((positive, yes, 0.5), (negative, int(sizes[cohort] * 0.9) - yes, 0.2)):
            for age in range(min(ages, nights - cohort)):
                table[cohort, age] = rng.binomial(max(left, 0), 1 - np.exp(-speed * weekend[cohort + age]))
                left -= table[cohort, age]
    return Arrivals(FIRST, FIRST + (nights - 1) * DAY, sizes, positive, negative, MATURES)


def without(arrivals: Arrivals, since: int, until: int = 10_000, *, only: str = "") -> Arrivals:
    """The same, but no label comes on the nights [since, until), or none of one class if it is named."""
    gone = (arrivals.nights >= FIRST.toordinal() + since) & (arrivals.nights < FIRST.toordinal() + until)
    positive, negative = (
        np.where(gone & (only in ("", name)), 0, table)
        for name, table in (("positives", arrivals.positive), ("negatives", arrivals.negative))
    )
    return replace(arrivals, positive=positive, negative=negative)


def stopped(arrivals: Arrivals, night: int, excluded: tuple[date, ...] = ()) -> dict[str, runoff.Assessment]:
    found = runoff.assess(arrivals.until(FIRST + night * DAY), excluded)
    return {one.stream: one for one in found if one.stopped}


def test_untouched_nights_are_no_incident():
    for seed in range(4):
        arrivals = model(seed)
        assert not any(stopped(arrivals, night) for night in range(arrivals.sizes.size))


@pytest.mark.parametrize("size", [30, 1_000])
def test_labels_that_stop_are_an_incident_by_the_third_working_night(size):
    cut = without(model(19, size=size), 77)  # a Monday
    found = [stopped(cut, night) for night in range(77, 80)]
    assert not found[0]
    assert "labels" in found[-1]
    labels = found[-1]["labels"]
    assert (labels.came, labels.since) == (0, FIRST + 77 * DAY)
    assert labels.evidence >= labels.threshold == pytest.approx(4 * 365.25)


def test_a_class_that_stops_is_told_from_all_labels():
    """Cancellations are no longer delivered: the labels that come are fewer and all negative."""
    cut = without(model(12, size=300), 77, only="positives")
    assert not any(stopped(cut, night) for night in range(77, 83))
    found = [set(stopped(cut, night)) for night in range(83, 88)]
    assert {"positives"} in found
    assert all("labels" not in streams and "negatives" not in streams for streams in found)


def test_a_holiday_of_four_nights_is_no_class_that_is_gone():
    closed = without(model(12, size=300), 77, 81, only="positives")
    assert not any(set(stopped(closed, night)) - {"missing"} for night in range(77, 100))


def test_a_class_that_fades_is_drift_and_no_incident():
    """From three in ten to one in ten, over night."""
    assert not any(stopped(model(13, size=300, faded=0.1), night) for night in range(70, 110))


def test_rows_that_never_get_a_label_are_an_incident_when_their_cohorts_mature():
    """A third of the rows of each cohort has lost its truth: too few to miss on any night."""
    arrivals = model(14, size=300)
    lost = np.arange(arrivals.sizes.size) >= 70
    cut = replace(arrivals, sizes=np.where(lost, arrivals.sizes * 3 // 2, arrivals.sizes))
    assert not any(stopped(cut, night) for night in range(70, 70 + MATURES))
    found = [night for night in range(70 + MATURES, 100) if "missing" in stopped(cut, night)]
    assert found
    assert found[0] <= 70 + MATURES + 4


def test_it_is_over_on_the_night_on_which_labels_come_again():
    whole = model(15)
    cut = without(whole, 77, 91)
    excluded = tuple(FIRST + night * DAY for night in range(77, 91))
    during = runoff.assess(cut.until(FIRST + 90 * DAY), excluded[:-1])
    after = runoff.assess(cut.until(FIRST + 91 * DAY), excluded)
    assert not during[0].well
    assert after[0].well
    for night in range(91, 110):  # what was lost in between is missed when its cohorts mature, and nothing else is
        assert set(stopped(cut, night, excluded)) <= {"missing"}, night
        assert not stopped(whole, night, excluded), night
    assert stopped(cut, 93, excluded)


def test_nothing_is_usual_yet():
    cut = without(model(16), 10)
    assert not any(stopped(cut, night) for night in range(10, 25))


def test_a_model_with_a_label_a_night_is_not_judged_by_the_night():
    arrivals = model(17, size=2)
    assert not any(stopped(without(arrivals, 77), night) for night in range(77, 110))
