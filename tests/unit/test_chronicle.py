"""The chronicle: what is kept of the newest nights, and what changed, told once."""

from dataclasses import dataclass
from datetime import date, timedelta

import pytest

from tests import troubled
from tiltyard.chronicle import KEPT, Chronicle
from tiltyard.ledger import Ledger
from tiltyard.rails import Rails
from tiltyard.records import (
    Decision,
    DriftSummary,
    EvidenceRecord,
    FeaturesSummary,
    GovernorAction,
    GovernorSummary,
    Incident,
    PromotionSummary,
    Record,
    ShadowSummary,
    TableState,
)

FIRST = date(2025, 1, 1)
DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Measured(Record):
    loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class Scored(Record):
    rows: int = 0


@dataclass(frozen=True, kw_only=True)
class Both(Measured, Scored):
    pass


@pytest.fixture
def ledger(rails: Rails) -> Ledger:
    return rails.ledger


@pytest.fixture
def chronicle(ledger: Ledger) -> Chronicle:
    return ledger.chronicle


def test_the_parts_of_a_night_stand_beside_each_other_and_only_the_newest_nights_are_kept(chronicle: Chronicle) -> None:
    for back in reversed(range(KEPT + 5)):
        night = FIRST + (KEPT + 4 - back) * DAY
        chronicle.keep("model", "churn", night, Scored(rows=1))
        chronicle.keep("model", "churn", night, Measured(loss=float("nan")))
        chronicle.keep("model", "churn", night, Measured(loss=0.25))
        chronicle.keep("model", "other", night, Scored(rows=7))
    newest = FIRST + (KEPT + 4) * DAY
    kept = chronicle.kept(Both, "model", "churn", newest + 9 * DAY)
    assert kept is not None and (kept.night, kept.body) == (newest, Both(rows=1, loss=0.25))
    nights = [night.night for night in chronicle.kept_since(Both, "model", "churn", date.min)]
    assert (len(nights), nights[-1]) == (KEPT, FIRST + 5 * DAY)
    assert chronicle.kept(Both, "model", "churn", FIRST + 4 * DAY) is None, "nothing is said of what is gone"
    assert chronicle.kept(Both, "source", "churn", newest) is None
    chronicle.keep("model", "churn", FIRST, Scored(rows=9))
    assert chronicle.kept(Both, "model", "churn", FIRST) is None, "a past night that is done again is past"


def test_what_cannot_be_read_any_more_is_none(chronicle: Chronicle) -> None:
    chronicle.keep("model", "churn", FIRST, Measured(loss=0.25))

    @dataclass(frozen=True, kw_only=True)
    class Later(Record):
        loss: dict[str, float]

    assert chronicle.kept(Later, "model", "churn", FIRST) is None
    assert chronicle.kept_since(Later, "model", "churn", FIRST) == []


def test_a_verdict_that_stays_is_told_on_its_first_night(ledger: Ledger) -> None:
    for place, verdict in enumerate(("hold", "hold", "promote", "hold", "hold")):
        night = FIRST + place * DAY
        evidence = EvidenceRecord(model="m", night=night)
        ledger.add_decision(
            Decision(model="m", night=night, challenger=2, champion=None, verdict=verdict, reasons=(verdict,),
                     evidence=evidence)
        )  # fmt: skip
    told = ledger.chronicle.verdicts("m", 9)
    assert [(change.night.day, change.verdict, change.reasons) for change in told] == [
        (4, "hold", ("hold",)), (3, "promote", ("promote",)), (1, "hold", ("hold",)),
    ]  # fmt: skip
    assert len(ledger.chronicle.verdicts("m", 1)) == 1
    assert ledger.chronicle.last_decided("m", FIRST + 2 * DAY) == FIRST + 2 * DAY
    assert ledger.chronicle.last_decided("m", FIRST - DAY) is None


def test_an_alarm_and_a_held_table_are_told_when_they_begin_and_end(ledger: Ledger) -> None:
    for place, is_bad in enumerate((False, True, True, False)):
        night = FIRST + place * DAY
        ledger.record_stage(
            "m", night, "done", DriftSummary(night=night, model="m", alarm=is_bad, reasons=(str(place),))
        )
        state = TableState(night=night, table="spn_m", state="held" if is_bad else "published", reason=str(place))
        ledger.publish([state], night, "done", FeaturesSummary(snapshot=1), "s")
    ledger.record_stage("m", FIRST + 4 * DAY, "failed", DriftSummary(model="m", reason="it fell"))
    alarms = [(change.night.day, change.begins, change.reasons) for change in ledger.chronicle.alarms("m", 9)]
    assert alarms == [(4, False, ("3",)), (2, True, ("1",))], "a night that failed ends no alarm, and begins none"
    tables = [(change.night.day, change.state) for change in ledger.chronicle.table_changes(["spn_m", "spn_x"], 9)]
    assert tables == [(4, "published"), (2, "held")]


def test_a_night_is_told_by_what_was_recorded_of_it(ledger: Ledger) -> None:
    chronicle = ledger.chronicle
    assert chronicle.newest_night() is None and chronicle.span(FIRST) is None
    for place, versions in ((0, {1: "champion"}), (2, {1: "champion", 2: "challenger"}), (3, {2: "champion"})):
        night = FIRST + place * DAY
        ledger.record_stage("m", night, "done", ShadowSummary(night=night, roles=versions))
    assert chronicle.newest_night() == FIRST + 3 * DAY
    assert chronicle.beside(FIRST + DAY) == (FIRST, FIRST + 2 * DAY)
    assert chronicle.beside(FIRST) == (None, FIRST + 2 * DAY)
    span = chronicle.span(FIRST)
    assert span is not None and span.first == span.last
    assert chronicle.nights_scored("m", FIRST, FIRST + 2 * DAY) == {1: 2, 2: 1}


def test_an_incident_is_told_with_what_the_governor_decided_for_it(ledger: Ledger) -> None:
    for place in range(3):
        night = FIRST + place * DAY
        ledger.set_incidents(night, [Incident("raw.x", "broken", ("a",), (), "gone", FIRST)])
        actions = {
            "a": GovernorAction(decision="incident", incident="raw.x"),
            "b": GovernorAction(decision="steady"),
            "c": GovernorAction(decision="incident", incident="raw.y"),
        }
        ledger.record_stage("", night, "done", GovernorSummary(night=night, actions=actions))
    nights = ledger.chronicle.incident_nights("raw.x", 2)
    assert [night.day for night, _ in nights] == [3, 2] and nights[0][1].models == ("a",)
    assert len(ledger.chronicle.incidents_since(FIRST + DAY)) == 2
    held = ledger.chronicle.held_by("raw.x", FIRST, FIRST + DAY)
    assert [(entry.night.day, entry.model, entry.decision) for entry in held] == [
        (2, "a", "incident"),
        (1, "a", "incident"),
    ]


def test_the_newest_page_of_every_challenger_is_its_evidence(ledger: Ledger) -> None:
    for place, (challenger, page) in enumerate(((2, "old"), (2, "new"), (3, None), (None, None))):
        night = FIRST + place * DAY
        ledger.record_stage("m", night, "done", PromotionSummary(model="m", challenger=challenger, page=page))
    assert ledger.chronicle.evidence_pages("m") == {2: "new"}


def test_events_of_every_night_are_left_out_where_that_is_asked(ledger: Ledger) -> None:
    for place in range(4):
        ledger.add_event("routine" if place % 2 else "odd", "m", FIRST, {"place": place, "why": troubled.EVIL})
    assert [event.detail["place"] for event in ledger.chronicle.events("m", ["routine"], 9)] == [2, 0]
    assert ledger.chronicle.count_events("m", ["routine"]) == 2 and ledger.chronicle.count_events("m", []) == 4
