"""Whoever was answered enough for a copy is told of, until he asks less."""

from datetime import timedelta

import pytest

from tests import served
from tiltyard import clock, lake
from tiltyard.answered import copying, request_log
from tiltyard.answered.request_log import RequestRow
from tiltyard.edge import board
from tiltyard.edge.told import facts
from tiltyard.rails import Rails
from tiltyard.records import ShadowSummary
from tiltyard.spec import Spec
from tiltyard.tables import REQUEST

DAY = timedelta(days=1)
FIRST = served.FIRST.date()


@pytest.fixture
def spec(rails: Rails) -> Spec:
    return served.written(rails.settings.home / "models", "steady")


def answer(rails: Rails, key: str | None, weights: range, night: int = 0) -> None:
    at = served.FIRST + night * DAY
    rows = [
        RequestRow(
            request_id=f"{key}-{night}-{number}", row=0, model="steady", arm="champion", version=1, tier="champion",
            reason="in_service", score=0.5, scores=None, entity_id=None, prediction_time=at, scored_at=at,
            latency_us=1, snapshot=None, features=f'{{"weight":{number}}}', given="[]", views="{}", key=key,
            night=at.date(), available_at=at,
        )
        for number in weights
    ]  # fmt: skip
    rails.lake.ensure(REQUEST)
    frame = request_log.typed(rows, REQUEST)
    fence = rails.ledger.claim("requests")
    rails.lake.commit(lambda connection: lake.put(connection, REQUEST, {}, frame), message="test", fence=fence)


def events(rails: Rails) -> list[str]:
    return [event.kind for event in rails.ledger.events("steady") if event.kind in copying.KINDS]


def limited(rails: Rails, most: int) -> Rails:
    return Rails(rails.settings.model_copy(update={"serve_alert_rows": most}), rails.lake, rails.ledger)


def test_different_rows_of_a_key_are_counted_and_told_once(rails: Rails, spec: Spec) -> None:
    rails = limited(rails, 100)
    assert copying.look(rails, spec, FIRST) == {}
    answer(rails, "billing", range(300))
    answer(rails, "desk", range(50))
    answer(rails, "desk", range(50), night=1)  # the same rows again
    answer(rails, None, range(500))
    for night in (FIRST + DAY, FIRST + DAY, FIRST + 2 * DAY):
        assert copying.look(rails, spec, night) == {"billing": 300}
    assert events(rails) == [copying.MUCH]
    assert copying.look(limited(rails, 0), spec, FIRST + DAY) == {}
    assert copying.look(rails, spec, FIRST + copying.WINDOW) == {}
    assert events(rails) == [copying.MUCH, copying.LESS]


def test_the_owner_is_told_in_the_inbox(rails: Rails, spec: Spec) -> None:
    rails = limited(rails, 100)
    answer(rails, "billing", range(300))
    copying.look(rails, spec, FIRST)
    rails.ledger.record_stage("steady", FIRST, "done", ShadowSummary(night=FIRST))
    (item,) = [item for item in board.read(rails, [spec], clock.now()).inbox if item.kind == "copying"]
    assert (item.subject, item.since) == ("steady", FIRST)
    assert "billing" in item.reason
    (fact,) = [fact for fact in facts.facts(board.read(rails, [spec], clock.now()), [spec]) if fact.kind == "copying"]
    assert fact.owner == spec.owner
    trusting = rails.settings.model_copy(update={"serve_trusted": ("billing",)})
    assert copying.look(Rails(trusting, rails.lake, rails.ledger), spec, FIRST + DAY) == {}
    assert not [item for item in board.read(rails, [spec], clock.now()).inbox if item.kind == "copying"]
