"""Keep, simplify or retire: what is said, from when on, and that it takes both to retire."""

from datetime import date

import numpy as np
import pytest

from tiltyard.govern import worth
from tiltyard.govern.worth import Earned, Running
from tiltyard.spec import Spec

NIGHTS, ROWS = 60, 20
FIRST = date(2024, 3, 1).toordinal()


def year(default: float, served: float, light: float | None, seed: int = 1) -> Earned:
    """Rows on which the three pay 10 with these chances."""
    rng = np.random.default_rng(seed)
    night = np.repeat(np.arange(NIGHTS), ROWS) + FIRST
    paid = [10.0 * (rng.random(len(night)) < chance) for chance in (served, default, light or 0.0)]
    if light is None:
        paid[2] = np.full(len(night), np.nan)
    return Earned(night, *paid, largest=10.0)


def test_a_model_that_saves_more_than_it_costs_is_kept() -> None:
    said = worth.judge(year(default=0.5, served=0.1, light=0.4), Running(whole=5.0, light=4.0), 0.05)
    assert said.advice == "keep"
    assert said.over_default is not None
    assert said.over_default.rows == NIGHTS * ROWS
    assert said.over_default.low < 4.0 < said.over_default.high  # 0.4 of 10
    assert said.over_default.cost == pytest.approx(5.0 / ROWS)
    assert said.over_default.net == pytest.approx(said.over_default.mean - 5.0 / ROWS)


def test_it_is_said_since_the_cohort_from_which_on_it_stood() -> None:
    rows, running = year(default=0.5, served=0.1, light=0.4), Running(whole=5.0, light=4.0)
    past = worth.history(rows, running, 0.05)
    since = worth.judge(rows, running, 0.05).since
    assert since is not None
    place = since.toordinal() - FIRST
    assert 0 < place < 20
    assert past.advices[place - 1] == "open"
    assert set(past.advices[place:]) == {"keep"}


def test_what_costs_more_than_it_can_save_is_to_be_retired_where_its_twin_does_not_earn_its_keep_either() -> None:
    rows = year(default=0.3, served=0.25, light=0.28)
    assert worth.judge(rows, Running(whole=100.0, light=90.0), 0.05).advice == "retire"
    assert worth.judge(rows, Running(whole=100.0, light=0.0), 0.05).advice == "simplify"


def test_nobody_is_retired_while_nothing_is_known_of_the_twin() -> None:
    said = worth.judge(year(default=0.3, served=0.25, light=None), Running(whole=100.0, light=90.0), 0.05)
    assert said.advice == "open"
    assert said.light_over_default is None
    assert said.over_default is not None
    assert said.over_default.high < said.over_default.cost


def test_a_twin_that_does_as_well_for_less_takes_over() -> None:
    said = worth.judge(year(default=0.5, served=0.2, light=0.2), Running(whole=40.0, light=4.0), 0.05)
    assert said.advice == "simplify"


def test_without_truth_nothing_is_said() -> None:
    empty = Earned(np.zeros(0, dtype=np.int64), *(np.zeros(0) for _ in range(3)), largest=10.0)
    said = worth.judge(empty, Running(whole=1.0), 0.05)
    assert (said.advice, said.since, said.over_default) == ("open", None, None)


def test_one_night_decides_nothing_however_many_rows_it_has() -> None:
    night = np.full(5_000, FIRST)
    rows = Earned(night, np.zeros(5_000), np.full(5_000, 10.0), np.full(5_000, 9.0), largest=10.0)
    assert worth.judge(rows, Running(), 0.05).advice == "open"


SPEC = {
    "name": "m", "entity": "customer", "owner": "tests", "tier": 3, "source": "test",
    "prediction": {"spine": "spn_m", "features": ["ftr_customer__m"]},
    "label": {"table": "lbl_m", "horizon": "2d"},
    "estimator": {"class": "xgboost.XGBClassifier"},
    "light": {"class": "sklearn.linear_model.LogisticRegression"},
    "fallback": {"safe_default": 0.2},
}  # fmt: skip


def test_errors_of_a_yes_or_no_cost_what_the_matrix_says() -> None:
    spec = Spec(**SPEC, gate={"cost": {"false_positive": 5, "false_negative": 60}})
    score, label = np.array([0.9, 0.9, 0.01, 0.01, np.nan]), np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(worth.paid(spec, score, label), [0, 5, 60, 0, np.nan])


def test_errors_of_a_number_cost_by_the_unit() -> None:
    number = SPEC | {
        "label": {"table": "lbl_m", "horizon": "2d", "bounds": [0, 100]},
        "estimator": {"class": "xgboost.XGBRegressor"},
        "light": {"class": "sklearn.linear_model.Ridge"},
    }
    spec = Spec(**number, gate={"metric": "absolute_error", "error_cost": 0.5})
    paid = worth.paid(spec, np.array([10.0, 200.0]), np.array([30.0, 100.0]))
    np.testing.assert_allclose(paid, [10.0, 0.0])  # beyond the bounds counts as the nearer one


def test_errors_of_classes_cost_where_another_one_came() -> None:
    classes = SPEC | {
        "label": {"table": "lbl_m", "horizon": "2d", "classes": ["a", "b", "c"]},
        "fallback": {"safe_default": {"a": 0.5, "b": 0.3, "c": 0.2}},
    }
    spec = Spec(**classes, gate={"error_cost": 3})
    score = np.array([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1]])
    np.testing.assert_allclose(worth.paid(spec, score, np.array([1.0, 0.0])), [0.0, 3.0])


def test_a_price_in_the_wrong_place_is_refused() -> None:
    with pytest.raises(ValueError, match=r"so write gate\.cost and no gate\.error_cost"):
        Spec(**SPEC, gate={"error_cost": 3})
