"""What was decided about a model, told once, and who was in service on a day: by the gate, by the watch, by hand."""

from datetime import date, timedelta

import pytest

from tests.unit.edge.test_board import promoted
from tiltyard import clock
from tiltyard.edge import timeline
from tiltyard.rails import Rails
from tiltyard.records import DefaultTask, Explanation, Operation, OperationAction
from tiltyard.settings import ROOT
from tiltyard.spec import find

NIGHT = date(2025, 5, 30)
DAY = timedelta(days=1)
SPEC = find(ROOT / "models", "churn")


def by_hand(rails: Rails, action: OperationAction, night: date, version: int | None = None) -> None:
    one = Operation(
        model="churn", action=action, version=version, before=1, reason="it overcharges", requested_by="ann",
        source="command line", requested_at=clock.now(), night=night,
    )  # fmt: skip
    rails.ledger.operations.ask("churn", lambda: one)


def test_who_was_in_service_is_who_was_put_there_last_before_the_day(rails: Rails) -> None:
    promoted(rails, night=NIGHT)
    by_hand(rails, "rollback", NIGHT + 3 * DAY)
    told = {back: timeline.in_service(rails, "churn", NIGHT + back * DAY) for back in (-1, 0, 2, 3)}
    assert [own.version for own in told.values()] == [None, 1, 1, None]
    assert str(told[-1]) == (
        "On 2025-05-29 the safe default answered: no version had been promoted yet; until the night of 2025-05-30."
    )
    assert told[2].until == NIGHT + 3 * DAY and told[3].until is None
    assert str(told[3]) == (
        "On 2025-06-02 the safe default answered: in service by the rollback by hand of 2025-06-02, by ann."
    )


def test_what_a_person_did_is_told_once_with_who_and_why(rails: Rails) -> None:
    promoted(rails, night=NIGHT)
    by_hand(rails, "freeze", NIGHT + DAY)
    rails.ledger.open_default_task(DefaultTask(model="churn", opened=NIGHT, since=NIGHT - DAY, repeats=None, facts={}))
    answer = Explanation(
        night=NIGHT + 2 * DAY, cause="no labels", owner="bob", until=NIGHT + 9 * DAY, answered_by="eve",
        source="airflow", answered_at=clock.now(),
    )  # fmt: skip
    rails.ledger.answer_default_task("churn", NIGHT, answer)
    moments = timeline.read(rails, SPEC).moments
    assert [(moment.kind, moment.by) for moment in moments] == [
        ("explained", "eve"), ("by hand", "ann"), ("asked", None), ("promoted", "the gate; the tier needs no person"),
        ("trained", "test"),
    ]  # fmt: skip
    assert moments[0].reasons == ("no labels",) and moments[1].reasons == ("it overcharges",)


@pytest.mark.parametrize(("page", "shown", "older"), [(0, 30, True), (1, 30, True), (2, 16, False), (9, 0, False)])
def test_a_long_past_has_pages(rails: Rails, page: int, shown: int, older: bool) -> None:
    for place in range(46):
        rails.ledger.add_event("odd", "churn", NIGHT - place * DAY, {"place": place})
        rails.ledger.add_event("predictions_owed", "churn", NIGHT - place * DAY, {})
    told = timeline.read(rails, SPEC, page)
    assert (len(told.moments), told.has_older) == (shown, older)
    assert [moment.night for moment in told.moments] == sorted((moment.night for moment in told.moments), reverse=True)
