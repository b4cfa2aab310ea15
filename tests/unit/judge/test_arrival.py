"""The arrival of labels as the lake knows it, and the incident of a truth that stops: opened, kept, closed, shown."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from tiltyard.clock import night_closing
from tiltyard.edge import describe, status
from tiltyard.govern import drift
from tiltyard.judge import arrival, runoff
from tiltyard.prepare import data_incidents
from tiltyard.records import ShadowSummary

FIRST = datetime(2016, 3, 1, tzinfo=UTC)
"""The first day of predictions; its night closes a day later."""
DAY = timedelta(days=1)
SHARE = {1: 0.3, 2: 0.4, 3: 0.3}
"""Of the labels, by age in nights. The cohort has matured at age 3."""
CUT, BACK, LAST = 60, 68, 80
"""Days: labels that were due in [CUT, BACK) are known on BACK instead, all at once."""


@pytest.fixture(scope="module")
def cut(arena):
    """80 nights of 40 predictions each, judged night by night; the model's label table stands still for eight."""
    spec = arena.spec("cut_off", label={"table": "lbl_cut_off", "horizon": "3d"})
    rng = np.random.default_rng(3)
    rows = [(day, number) for day in range(LAST) for number in range(40)]
    times = [FIRST + day * DAY + timedelta(minutes=number) for day, number in rows]
    names = [f"c{day:03}_{number}" for day, number in rows]
    predictions = {"version": None, "role": "safe_default", "entity_id": names, "prediction_time": times, "score": 0.5}
    arena.predict(spec, pd.DataFrame(predictions).assign(tier="safe_default", version=pd.NA))
    age = rng.choice(list(SHARE), p=list(SHARE.values()), size=len(rows))
    known = [FIRST + (day + int(late)) * DAY + timedelta(hours=12) for (day, _), late in zip(rows, age, strict=True)]
    back = FIRST + BACK * DAY + timedelta(hours=12)
    known = [back if FIRST + CUT * DAY <= when < back else when for when in known]
    labels = {"ticket_id": names, "prediction_time": times, "label": rng.random(len(rows)) < 0.4, "available_at": known}
    arena.label(spec, pd.DataFrame(labels))
    opened = {}
    for day in range(LAST):
        as_of = FIRST + (day + 1) * DAY
        arrival.record(arena.rails, spec, as_of)
        opened[day] = {one.what for one in arrival.incidents(arena.rails, spec, night_closing(as_of))}
    return spec, opened


def test_the_triangle_counts_by_night_of_arrival(arena):
    spec = arena.spec("triangle")  # two days
    at = [FIRST + timedelta(hours=hour) for hour in (1, 2, 3, 30)]
    rows = {"version": 1, "role": "challenger", "entity_id": list("abcd"), "prediction_time": at, "score": 0.5}
    arena.predict(spec, pd.concat([pd.DataFrame(rows), pd.DataFrame(rows).assign(version=2)]))
    known = [FIRST + timedelta(hours=hour) for hour in (5, 24, 25, 80, 90)]
    labels = {
        "ticket_id": list("abcda"),
        "prediction_time": [*at, at[0]],
        "label": [True, False, True, True, False],
        "available_at": known,
    }
    arena.label(spec, pd.DataFrame(labels))
    found = arrival.arrivals(arena.rails, spec, FIRST + 2 * DAY)
    assert (found.first, found.night, found.matures) == ((FIRST + DAY).date(), (FIRST + 2 * DAY).date(), 2)
    assert found.sizes.tolist() == [3, 1]
    assert found.positive[0, :3].tolist() == [1, 1, 0]  # a in its own night, c a night later
    assert found.negative[0, :3].tolist() == [1, 0, 0]  # b at midnight
    assert found.labels[1].sum() == 0
    later = arrival.arrivals(arena.rails, spec, FIRST + 5 * DAY)
    assert later.negative[0, 0] == 2  # what a says now, at the age at which it was first known
    assert later.positive[1, :4].tolist() == [0, 0, 1, 0]


def test_a_model_that_predicted_nothing_has_no_curve(arena):
    spec = arena.spec("unasked")
    labels = {"ticket_id": ["a"], "prediction_time": [FIRST], "label": [True], "available_at": [FIRST]}
    arena.label(spec, pd.DataFrame(labels))
    assert arrival.record(arena.rails, spec, FIRST + DAY).streams == {}
    assert arrival.report(arena.rails, spec, FIRST + DAY) is None
    assert arrival.plot(arena.rails, spec, FIRST + DAY) is None


def test_it_opens_within_three_nights_and_closes_when_labels_come(cut):
    _, opened = cut
    assert not any(opened[day] for day in range(CUT))
    first = next(day for day in range(LAST) if opened[day])
    assert CUT + 1 <= first <= CUT + 2
    assert all("labels_stopped" in opened[day] for day in range(first, BACK))
    assert not any(opened[day] for day in range(BACK + 1, LAST))


def test_the_ledger_keeps_it_once_and_a_night_done_again_says_nothing_new(arena, cut):
    spec, _ = cut

    def told():
        return [
            (event.night, event.detail["what"], event.detail["state"])
            for event in arena.rails.ledger.events(kind=data_incidents.EVENT)
            if event.detail["table"] == spec.label.table
        ]

    before = told()
    assert len(before) == len(set(before))
    states = [state for _, what, state in before if what == "labels_stopped"]
    assert states == ["open", "closed"]
    for day in (CUT - 1, CUT + 2, CUT + 4, BACK, LAST - 1):
        arrival.record(arena.rails, spec, FIRST + (day + 1) * DAY)
    assert told() == before


def test_while_it_is_open_the_model_counts_as_broken(arena, cut):
    spec, _ = cut
    during = drift._broken(arena.rails, spec, FIRST + (CUT + 5) * DAY, stages=())
    assert any("lbl_cut_off labels stopped" in incident.reason for incident in during)
    assert not drift._broken(arena.rails, spec, FIRST + (BACK + 3) * DAY, stages=())
    since = [one.since for one in arrival.incidents(arena.rails, spec, night_closing(FIRST + (CUT + 5) * DAY))]
    assert night_closing(FIRST + (CUT + 1) * DAY) in since


def test_a_truth_that_stopped_holds_up_only_the_models_that_learn_from_it(arena, cut):
    spec, _ = cut
    (one, *_) = arrival.incidents(arena.rails, spec, night_closing(FIRST + (CUT + 5) * DAY))
    other = spec.model_copy(update={"label": spec.label.model_copy(update={"table": "lbl_another"})})
    assert data_incidents.touches(arena.rails.settings, spec, one)
    assert not data_incidents.touches(arena.rails.settings, other, one)


def test_what_a_person_sees(arena, cut):
    spec, _ = cut
    as_of = FIRST + (CUT + 5) * DAY
    found = arrival.report(arena.rails, spec, as_of)
    assert (found.half_after, found.most_after) == (2, 3)
    assert found.last_arrived == night_closing(FIRST + CUT * DAY)
    assert found.waiting_cohorts == 3
    assert found.incidents
    said = describe._labels(found)
    assert "half are known after 2 nights, 95 % after 3" in said
    assert "labels stopped since" in said
    assert arrival.plot(arena.rails, spec, as_of).is_file()
    arena.rails.ledger.record_stage(spec.name, night_closing(as_of), "done", ShadowSummary())
    assert status.status(arena.rails, spec, as_of).label_arrival == found


def test_what_is_half_as_much_for_long_is_the_new_usual(arena):
    """An incident does not hold a model up for ever: after a window of nights, what comes is what comes."""
    spec = arena.spec("new_usual")
    night = night_closing(FIRST)

    def half(since):
        return runoff.Assessment("labels", 0.0, runoff.threshold(), since, 40.0, 100.0, stopped=False, well=False)

    arrival._settle(
        arena.rails,
        spec,
        night,
        (runoff.Assessment("labels", 2e3, 1461.0, night, 0.0, 60.0, stopped=True, well=False),),
    )
    for days, is_open in ((1, True), (runoff.WINDOW, True), (runoff.WINDOW + 1, False)):
        later = night + timedelta(days=days)
        arrival._settle(arena.rails, spec, later, (half(later),))
        assert bool(arrival.incidents(arena.rails, spec, later)) is is_open
