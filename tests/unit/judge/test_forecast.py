"""When the evidence would be enough: said where only time stands in the way, the same twice, and later for less."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from tiltyard.judge import forecast, gate
from tiltyard.records import Compared, Criterion, DueForecast, Labelled, Missing, Replayed
from tiltyard.spec import GatePolicy

FIRST = date(2025, 1, 1)
POLICY = GatePolicy(min_matured=300, min_shadow=timedelta(days=3))


def seen(nights: int, effect: float, per_night: int = 40, seed: int = 3) -> gate.Evidence:
    """A challenger that is better by `effect` a row, with all that is not a matter of time in order."""
    rng = np.random.default_rng(seed)
    night = np.repeat(np.arange(nights), per_night) + FIRST.toordinal()
    shift = rng.normal(0, 0.005, nights)[np.repeat(np.arange(nights), per_night)]
    differences = np.clip(effect + shift + rng.normal(0, 0.1, len(night)), -1, 1)
    return gate.Evidence(
        challenger=2, champion=1, safe_default=None, shadow=timedelta(days=nights), differences=differences,
        nights=night, expected=len(night), calibration=Compared(0.01, 0.01), score_shift=Compared(0.01, 0.01),
        missing=Missing("x", 0.0, 0.0), latency_ms=1.0, size_mb=1.0, replay=Replayed("pass", "agrees"),
        labels=Labelled("sound", "as expected"),
    )  # fmt: skip


def told(evidence: gate.Evidence) -> DueForecast | None:
    night = date.fromordinal(int(evidence.nights[-1]))
    return forecast.due(evidence, gate.decide(evidence, POLICY, 20), POLICY, night)


def test_what_only_waits_for_evidence_has_a_date_within_an_interval_and_always_the_same() -> None:
    evidence = seen(12, 0.006)
    assert gate.decide(evidence, POLICY, 20).verdict == "hold"
    said = told(evidence)
    assert said is not None and said.early and said.likely
    assert FIRST + timedelta(days=12) <= said.early <= said.likely
    assert said.late is None or said.likely <= said.late
    assert told(evidence) == said
    assert "due about" in str(said)


def test_the_better_is_due_sooner() -> None:
    slow, fast = told(seen(8, 0.004)), told(seen(8, 0.009))
    assert slow is not None and fast is not None and fast.likely is not None
    assert slow.likely is None or fast.likely < slow.likely
    assert fast.never <= slow.never


def test_one_that_is_no_better_is_due_never_more_likely_than_not() -> None:
    said = told(seen(30, -0.001))
    assert said is not None
    assert said.likely is None and said.never > 0.5
    assert str(said) == "more likely not within months, if nights go on as they have"


def test_nothing_is_said_of_few_cohorts_or_where_something_else_than_time_stands_in_the_way() -> None:
    assert told(seen(forecast.FEWEST - 1, 0.006)) is None
    assert told(seen(forecast.FEWEST, 0.006)) is not None
    too_big = replace(seen(12, 0.006), size_mb=1_000.0)
    assert told(too_big) is None
    worse = seen(60, -0.02)
    assert gate.decide(worse, POLICY, 20).verdict == "reject"
    assert told(worse) is None
    better = seen(60, 0.02)
    assert gate.decide(better, POLICY, 20).verdict == "promote"
    assert told(better) is None


def test_rows_that_are_still_asked_for_count_too() -> None:
    evidence = seen(8, 0.02, per_night=10)
    many = POLICY.model_copy(update={"min_matured": 400})
    night = date.fromordinal(int(evidence.nights[-1]))
    said = forecast.due(evidence, gate.decide(evidence, many, 20), many, night)
    assert said is not None and said.early is not None
    assert said.early >= night + timedelta(days=32)


@pytest.mark.parametrize("name", sorted(forecast.WAITS))
def test_what_time_may_meet_are_criteria_that_there_are(name: str) -> None:
    criteria: tuple[Criterion, ...] = gate.decide(seen(8, 0.0), POLICY, 20).criteria
    assert name in {criterion.name for criterion in criteria}
