"""The newest labels as the lake knows them: an incident when they contradict what was said, and what the gate hears."""

import json
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from tests.unit.conftest import FIRST, Arena
from tiltyard.clock import night_closing
from tiltyard.judge import label_check
from tiltyard.prepare import data_incidents
from tiltyard.records import LabelCheck, ShadowSummary
from tiltyard.spec import Spec

DAY = timedelta(days=1)
PER_NIGHT, NIGHTS = 100, 30
POISONED = range(23, 26)
"""Days whose labels are flipped where they are: the newest window on night 28, for labels take two days."""


class Played:
    """A model with one version from before FIRST, which has scored every day of NIGHTS."""

    def __init__(self, arena: Arena, name: str, poisoned: float) -> None:
        self.arena, self.rails = arena, arena.rails
        self.spec: Spec = arena.spec(name, drift={"window": "3d"})
        rng = np.random.default_rng(11)
        count = PER_NIGHT * NIGHTS
        self.day = np.arange(count) // PER_NIGHT
        self.names = [f"t{place:05d}" for place in range(count)]
        self.at = [FIRST + int(day) * DAY + timedelta(minutes=place % 100) for place, day in enumerate(self.day)]
        chance = rng.beta(1, 5, count)
        self.honest = rng.random(count) < chance
        flips = np.isin(self.day, POISONED) & (rng.random(count) < poisoned)
        self.label(self.honest ^ flips, [time + 2 * DAY - timedelta(hours=1) for time in self.at])
        arena.version(self.spec, 1, FIRST - DAY)
        slices = [json.dumps({"priority": value}) for value in rng.choice(["high", "low"], count)]
        rows = {"version": 1, "role": "first", "entity_id": self.names, "prediction_time": self.at, "score": chance}
        arena.predict(self.spec, pd.DataFrame(rows).assign(slices=slices))

    def label(self, label: np.ndarray, known: list[datetime]) -> None:
        rows = {"ticket_id": self.names, "prediction_time": self.at, "label": label, "available_at": known}
        self.arena.label(self.spec, pd.DataFrame(rows))

    def night(self, number: int) -> LabelCheck:
        return label_check.record(self.rails, self.spec, FIRST + number * DAY)

    def open(self, number: int) -> list[str]:
        night = night_closing(FIRST + number * DAY)
        return [one.what for one in data_incidents.of_source(self.rails, self.spec.source, night)
                if one.table == self.spec.label.table]  # fmt: skip

    def of_version(self, trained: int, number: int) -> str:
        if self.rails.ledger.version(self.spec.name, trained) is None:
            newest = max(entry.version for entry in self.rails.ledger.versions(self.spec.name))
            for missing in range(newest + 1, trained + 1):
                self.arena.version(self.spec, missing, FIRST + missing * DAY)
        version = self.rails.ledger.version(self.spec.name, trained)
        assert version is not None
        return label_check.of_version(self.rails, self.spec, version, night_closing(FIRST + number * DAY)).state


@pytest.fixture(scope="module")
def poisoned(arena: Arena) -> Played:
    return Played(arena, "poisoned_labels", 0.25)


def test_honest_labels_open_nothing_and_are_said_to_be_sound(arena: Arena) -> None:
    played = Played(arena, "honest_labels", 0.0)
    for number in (20, 26, 28, 30):
        checked = played.night(number)
        assert (checked.suspect, checked.untested, checked.version) == ((), None, 1)
        assert checked.looked_at > 4
        assert played.open(number) == []


def test_the_first_windows_are_untested_and_say_how_many_there_are(arena: Arena, poisoned: Played) -> None:
    assert "windows before it to compare with" in str(poisoned.night(12).untested)
    assert poisoned.night(1).untested == "no version has scored rows whose labels are known", "none has matured"
    nobody = arena.spec("nobody_spoke")
    arena.label(nobody, pd.DataFrame({"ticket_id": ["a"], "prediction_time": [FIRST], "label": [True],
                                      "available_at": [FIRST]}))  # fmt: skip
    assert label_check.record(arena.rails, nobody, FIRST + 9 * DAY).untested == "no version has scored rows whose " \
        "labels are known"  # fmt: skip


def test_flipped_labels_are_one_incident_that_names_model_window_and_way_out(poisoned: Played) -> None:
    checked = poisoned.night(28)
    assert (checked.first, checked.last) == (date(2016, 3, 25), date(2016, 3, 27))
    assert checked.suspect
    poisoned.night(28)  # twice is once
    assert poisoned.open(28) == ["suspect_to_poisoned_labels"]
    night = night_closing(FIRST + 28 * DAY)
    [incident] = [one for one in data_incidents.of_source(poisoned.rails, poisoned.spec.source, night)
                  if one.table == "lbl_poisoned_labels"]  # fmt: skip
    assert str(checked.first) in incident.reason
    assert "rows are labelled 'yes'" in incident.reason
    assert "tiltyard incidents release lbl_poisoned_labels" in incident.reason
    for number in (29, 30):
        poisoned.night(number)
        assert poisoned.open(number) == ["suspect_to_poisoned_labels"], (
            "it rolls out of the newest window, and is there"
        )


def test_the_gate_hears_of_it_for_whoever_learned_from_them(poisoned: Played) -> None:
    assert poisoned.of_version(1, 30) == "untested", "it is from before anybody had spoken"
    assert poisoned.of_version(22, 30) == "untested", "it is from before these labels"
    assert poisoned.of_version(28, 27) == "untested", "the night before nobody knows"
    assert [poisoned.of_version(28, number) for number in (28, 30)] == ["suspect", "suspect"]


def test_mended_labels_end_it_but_not_for_what_was_trained_before(arena: Arena) -> None:
    played = Played(arena, "mended_labels", 0.25)
    played.night(28)
    assert played.of_version(28, 28) == "suspect"
    mended = [time + 2 * DAY if day not in POISONED else FIRST + 28 * DAY + timedelta(hours=1)
              for time, day in zip(played.at, played.day, strict=True)]  # fmt: skip
    played.label(played.honest, mended)
    played.night(29)
    assert played.open(29) == []
    assert played.of_version(28, 30) == "suspect"
    played.rails.ledger.record_stage(
        played.spec.name, night_closing(FIRST + 29 * DAY), "done", ShadowSummary(labels=played.night(29))
    )
    assert played.of_version(29, 30) == "sound"


def test_a_persons_word_ends_it_and_the_past_begins_anew(arena: Arena) -> None:
    played = Played(arena, "released_labels", 0.25)
    played.night(28)
    night = night_closing(FIRST + 28 * DAY)
    rails, spec = played.rails, played.spec
    [incident] = [one for one in data_incidents.of_source(rails, spec.source, night) if one.table == spec.label.table]
    data_incidents.record_change(rails, spec.source, night, incident.key, "closed", "released", incident.since)
    detail = {"node": spec.label.table, "by": "ada", "reason": "a strike"}
    rails.ledger.add_event(data_incidents.RELEASED, "", night, detail)
    assert played.of_version(28, 29) == "sound"
    version = rails.ledger.version(spec.name, 28)
    assert version is not None
    assert "released by ada: a strike" in label_check.of_version(rails, spec, version, night).note
    assert "0 windows before it" in str(played.night(28).untested)
    assert played.open(29) == []
