"""Judging: an alarm is evidence and effect, it ends, broken data raises none, and harm is asked apart."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tiltyard import change, profile
from tiltyard.change import Judged, Promise, Standing, Truth
from tiltyard.spec import DriftPolicy

TRAINING, DAYS, AT = 42, 40, 10
FIRST = 740_000
THRESHOLD = 365.25
PROMISE = Promise(0.25, 0.5, 200)


class World:
    """A number, a category, a score and a label, sixty rows a night; from night AT on `change` has its way."""

    def __init__(self, how: str = "still", seed: int = 1) -> None:
        random = np.random.default_rng(seed)
        nights = np.repeat(np.arange(FIRST, FIRST + TRAINING + DAYS), 60)
        moved = nights >= FIRST + TRAINING + AT
        amount = random.normal(30, 8, len(nights))
        plan = random.choice(list("abc"), len(nights)).astype(object)
        chance = 1 / (1 + np.exp(-(amount - 30) / 4))
        label = (random.random(len(nights)) < chance).astype(float)
        if how == "shift":
            amount = np.where(moved, amount + 8, amount)
        elif how == "unit":
            amount = np.where(moved, amount * 100, amount)
        elif how == "missing":
            amount = np.where(moved & (random.random(len(nights)) < 0.6), np.nan, amount)
        elif how == "stuck":
            amount = np.where(moved, 30.0, amount)
        elif how == "concept":
            label = np.where(moved, 1 - label, label)
        score = np.nan_to_num(chance)
        frame = pd.DataFrame({"amount": amount, "plan": plan})
        past = nights < FIRST + TRAINING
        kinds, views = {"amount": "numeric", "plan": "categorical"}, {"amount": "ftr_a__b", "plan": "ftr_a__b"}
        described = profile.describe(
            frame[past], kinds, views, nights[past], score[past], label[past], {"amount": 0.8, "plan": 0.2}
        )
        reference = profile.read({"profile": described})
        assert reference is not None
        self.reference = reference
        self.nights, self.score, self.label = nights[~past], score[~past], label[~past]
        index = (self.nights - FIRST - TRAINING).astype(np.intp)
        values = {"amount": amount[~past], "plan": pd.Series(plan[~past]), "prediction": self.score}
        counts = {
            column.name: profile.count_nights(column.cells, values[column.name], index, DAYS)
            for column in reference.columns
            if column.name in values
        }
        self.seen = profile.Nights(np.arange(DAYS) + FIRST + TRAINING, counts)
        self.known = profile.truth(reference, self.nights, self.score, self.label)

    def judge(self, day: int, standing: Standing | None, lag: int = 3, **more: object) -> Judged:
        night = FIRST + TRAINING + day
        matured = night - lag
        end = int(np.searchsorted(self.nights, matured, side="right"))
        waiting = self.score[end : int(np.searchsorted(self.nights, night, side="right"))]
        truth = Truth(
            matured, self.known.until(matured), self.nights[:end], self.score[:end], self.label[:end], waiting
        )
        return change.judge(
            self.reference, self.seen, truth, DriftPolicy(), PROMISE, THRESHOLD, 1, night, standing=standing, **more
        )  # type: ignore[arg-type]

    def live(self, days: int = DAYS, **more: object) -> list[Judged]:
        found: list[Judged] = []
        for day in range(days):
            found.append(self.judge(day, found[-1].standing if found else None, **more))
        return found


def raised(found: list[Judged]) -> list[int]:
    return [day for day, one in enumerate(found) if one.raised]


def test_a_still_world_raises_nothing() -> None:
    found = World().live()
    assert raised(found) == [] and not any(one.broken for one in found)
    assert found[-1].harm == "not_felt"


def test_a_shift_raises_one_alarm_that_stands() -> None:
    found = World("shift").live()
    assert len(raised(found)) == 1 and AT < raised(found)[0] <= AT + 7
    day = raised(found)[0]
    assert found[day].alarm and found[day + 3].alarm and not found[day - 1].alarm
    assert {signal.column for signal in found[day].signals if signal.drifted} == {"amount"}


def test_a_retrain_answers_the_alarm_and_the_detector_starts_from_nought() -> None:
    world = World("shift")
    day = raised(world.live())[0]
    night = FIRST + TRAINING + day
    standing = Standing(1, FIRST + TRAINING, night)
    assert world.judge(day + 1, standing).alarm
    after = world.judge(day + 1, standing, answered=night)
    assert not after.alarm and after.standing == Standing(1, night + 1)
    assert after.evidence < THRESHOLD


def test_another_version_starts_from_nought() -> None:
    old = Standing(0, FIRST, FIRST)
    found = World("shift").judge(20, old)
    assert not found.alarm and found.standing == Standing(1, FIRST + TRAINING + 20)


def test_evidently_has_a_veto() -> None:
    found = World("shift").live(agrees=lambda columns, limits: frozenset())
    assert raised(found) == []
    assert any(one.disagreed == ("amount",) for one in found)


@pytest.mark.parametrize(("how", "says"), [("unit", "another unit"), ("missing", "missing"), ("stuck", "one value")])
def test_broken_data_is_named_and_raises_nothing(how: str, says: str) -> None:
    found = World(how).live(AT + 6)
    assert raised(found) == [] and not any(one.broken for one in found[:AT])
    for one in found[AT:]:
        assert [(broken.node, broken.column) for broken in one.broken] == [("ftr_a__b", "amount")]
        assert says in one.broken[0].said
    kinds = {signal.kind for signal in found[-1].signals if signal.drifted}
    assert kinds == ({"missing"} if how == "missing" else set())


def test_an_untrusted_night_raises_nothing() -> None:
    assert raised(World("shift").live(trusted=False)) == []


def test_a_concept_that_turns_is_seen_by_its_loss_and_felt() -> None:
    found = World("concept").live()
    day = raised(found)[0]
    assert AT + 3 < day <= AT + 14
    assert "loss" in {signal.column for signal in found[day].signals if signal.drifted}
    assert found[day].harm == "felt"


def test_a_column_that_is_gone_is_not_tested() -> None:
    world = World()
    world.seen = replace(world.seen, counts={k: v for k, v in world.seen.counts.items() if k != "plan"})
    plan = next(signal for signal in world.judge(20, None).signals if signal.column == "plan")
    assert (plan.value, plan.note) == (None, "not in the feature views any more")


def test_the_past_does_not_depend_on_what_came_later() -> None:
    world, other = World("still"), World("shift")
    night = Standing(1, FIRST + TRAINING)
    assert world.judge(AT - 1, night).evidence == other.judge(AT - 1, night).evidence
