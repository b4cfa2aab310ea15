"""A model's document as the ledger alone has it, beside what is read of the lake: real versions on a drawn month."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.market import AS_OF, FIRST, market, publish
from tiltyard.answered import fallback_audit
from tiltyard.edge import course, overview, recorded, status
from tiltyard.edge.document import ModelStatus
from tiltyard.govern import drift
from tiltyard.judge import promotion, shadow
from tiltyard.rails import Rails
from tiltyard.spec import Spec
from tiltyard.train import training

DAY = timedelta(days=1)
TRAINED = FIRST + 14 * DAY
NIGHTS = 6
LAST = TRAINED + NIGHTS * DAY


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[tuple[Rails, Spec]]:
    """A version that was trained in the middle of the month, and six nights after it."""
    with market(tmp_path_factory.mktemp("market"), postgres_url) as (rails, spec):
        training.train(rails, spec, TRAINED, requested_by="test", reasons=("because",), trials=1)
        for number in range(1, NIGHTS + 1):
            as_of = TRAINED + number * DAY
            publish(rails, as_of)
            shadow.shadow_night(rails, spec, as_of)
            promotion.judge_night(rails, spec, as_of)
            drift.measure_night(rails, spec, as_of)
            fallback_audit.audit_night(rails, spec, as_of)
        publish(rails, AS_OF)
        yield rails, spec


def test_the_ledger_says_of_a_night_what_the_lake_says(played: tuple[Rails, Spec]) -> None:
    """What differs is what the ledger does not claim to know: all rows that ever matured, and the realized lines."""
    rails, spec = played
    ours, lakes = recorded.status(rails, spec, LAST), status.status(rails, spec, LAST)
    assert isinstance(ours, ModelStatus) and isinstance(lakes, ModelStatus)
    assert ours.metrics and ours.estimated and ours.label_arrival and ours.features and ours.features.night
    assert ours.shadow_nights == {1: NIGHTS} and ours.served_by["safe_default"].example
    ignored = {"matured", "matured_since", "realized", "latency", "freshness"}
    mine, theirs = ours.to_json(), lakes.to_json()
    assert {name for name in mine if mine[name] != theirs[name]} <= ignored
    assert ours.matured <= lakes.matured and ours.matured_since is not None and lakes.realized is not None


def test_a_past_night_is_told_as_it_was(played: tuple[Rails, Spec]) -> None:
    rails, spec = played
    then = recorded.status(rails, spec, LAST - 3 * DAY)
    assert isinstance(then, ModelStatus)
    assert then.shadow_nights == {1: NIGHTS - 3} and then.figures_night is None
    assert then.metrics == status._metrics(rails, spec, LAST - 3 * DAY)


def test_the_course_is_what_the_nights_measured(played: tuple[Rails, Spec]) -> None:
    rails, spec = played
    document = recorded.status(rails, spec, LAST)
    assert isinstance(document, ModelStatus)
    points = course.read(rails, spec, document)
    assert [point.night for point in points] == sorted(point.night for point in points) and len(points) >= 2
    assert points[-1].first == document.metrics["1"].figure("brier") and points[-1].champion is None
    drawn = course.drawn(points, 0.2)
    assert drawn.count("<polyline") == 1 and 'class="first"' in drawn and 'class="estimate"' in drawn
    assert course.drawn(points[:1]) == ""


def test_slices_and_fill_are_those_of_the_night(played: tuple[Rails, Spec]) -> None:
    rails, spec = played
    page = overview._entry(rails, spec, overview.ModelQuery(part="data"), ())
    assert page.features is not None and page.problem is None
    rows = {row.feature: row for row in page.features.features}
    assert rows["size"].training == pytest.approx(0.9, abs=0.06) and rows["size"].now == pytest.approx(0.9, abs=0.15)
    assert rows["is_open"].now == 1.0 and not rows["is_open"].is_dead


def test_an_address_keeps_what_was_asked_and_is_never_wrong_for_long() -> None:
    asked = overview.ModelQuery.of({"part": "versions", "night": "2025-05-30", "page": "x"}, ["3", "1", "zwei", "3"])
    assert (asked.part, asked.page, asked.compare, asked.wrong) == ("versions", 1, (3, 1), None)
    assert asked.address(part="now") == "?night=2025-05-30" and asked.address(part="card") == (
        "?part=card&night=2025-05-30"
    )
    assert overview.ModelQuery.of({}).address() == ""
    wrong = overview.ModelQuery.of({"on": "someday"})
    assert wrong.wrong == "'someday' is no day; write it like 2025-05-30."
