"""Counting who answered, and a task from its night to its answer, in a lake and a ledger."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from tests.unit.conftest import Arena
from tiltyard.answered import fallback_audit
from tiltyard.answered.explanation import Night
from tiltyard.answered.report import AcceptedAnswer, FallbackReport
from tiltyard.edge import describe
from tiltyard.errors import BadInput
from tiltyard.records import FallbackAuditSummary
from tiltyard.spec import Spec
from tiltyard.tables import REQUEST, TIER_SHARE

FIRST = datetime(2016, 3, 1, tzinfo=UTC)
NOON = datetime(2016, 3, 20, 12, tzinfo=UTC)


def served(arena: Arena, spec: Spec, day: int, tier: str, reason: str, rows: int = 4) -> None:
    """The nightly batch of one day of predictions, answered by one tier; a challenger's rows beside it."""
    at = FIRST + timedelta(days=day)
    base = {"entity_id": [f"t{day}-{tier}-{place}" for place in range(rows)], "prediction_time": at, "score": 0.5}
    arena.predict(spec, pd.DataFrame(base | {"version": None, "role": tier, "tier": tier, "tier_reason": reason}))
    arena.predict(spec, pd.DataFrame(base | {"version": 9, "role": "challenger"}))


def audited(arena: Arena, spec: Spec, day: int) -> FallbackAuditSummary:
    """The audit of the night that closes the day."""
    return fallback_audit.audit_night(arena.rails, spec, FIRST + timedelta(days=day + 1))


def night(day: int) -> date:
    return (FIRST + timedelta(days=day + 1)).date()


def states(arena: Arena, spec: Spec) -> list[str]:
    return [task.state for task in fallback_audit.report(arena.rails, spec).tasks]


def explained(arena: Arena, spec: Spec, until: date, **values: object) -> AcceptedAnswer:
    given = {"cause": "no labels since the move", "owner": "ann", "by": "bob", "source": "command line", "at": NOON}
    return fallback_audit.answer_task(arena.rails, spec, **(given | {"until": str(until)} | values))


def test_a_task_from_its_night_to_its_answer_and_its_repetition(arena: Arena) -> None:
    spec = arena.spec("unexplained")
    for day in range(3):
        served(arena, spec, day, "safe_default", "no_champion")
    assert not audited(arena, spec, 1).opened
    assert fallback_audit.question(arena.rails, spec) is None
    with pytest.raises(BadInput, match="no task is open"):
        explained(arena, spec, night(9))

    first = audited(arena, spec, 2)
    assert (first.opened, first.on_default_since, first.answers) == (True, night(0), 4)
    asked = fallback_audit.question(arena.rails, spec)
    assert asked is not None
    assert asked.subject == fallback_audit.subject("unexplained", night(0), night(2))
    for words in ("**100%** were its safe default, 0.5", "never had a champion", "no_champion 100%"):
        assert words in asked.body
    assert audited(arena, spec, 2) == first, "audited again, it says the same"
    assert states(arena, spec) == ["open"]

    with pytest.raises(BadInput, match="has passed"):
        explained(arena, spec, night(2))
    with pytest.raises(BadInput, match="not asked about the night of"):
        explained(arena, spec, night(4), opened=night(1))
    explained(arena, spec, night(4))
    with pytest.raises(BadInput, match="no task is open"):
        explained(arena, spec, night(4))
    assert states(arena, spec) == ["answered"]

    for day in (3, 4, 5):
        served(arena, spec, day, "safe_default", "no_champion")
        assert audited(arena, spec, day).opened == (day == 5), "asked again when the day has passed"
    again = fallback_audit.question(arena.rails, spec)
    assert again is not None
    assert "bob said until" in again.body
    assert audited(arena, spec, 2) == first, "an old night audited again opens and closes nothing"
    assert states(arena, spec) == ["answered", "open"]

    served(arena, spec, 6, "champion", "in_service")
    assert audited(arena, spec, 6).recovered == (night(2), night(5))
    report = fallback_audit.report(arena.rails, spec)
    assert [task.state for task in report.tasks] == ["answered", "recovered"]
    assert report.tasks[0].recovered == night(6)
    assert report.on_default is None
    assert FallbackReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    text = describe.answered([report])
    assert "bob says: no labels since the move (owner ann, until" in text
    assert "recovered without an answer" in text
    with pytest.raises(BadInput, match="no task is open"):
        explained(arena, spec, night(9))


def test_the_first_audit_counts_all_there_is_and_every_audit_a_week(arena: Arena) -> None:
    """A model that was hindcast has nights that nobody audited; a log that comes late is counted where it belongs."""
    spec = arena.spec("late_log")
    for day in range(10):
        served(arena, spec, day, "champion", "in_service", rows=2)
    audited(arena, spec, 9)
    known = fallback_audit.nights(arena.rails, spec, FIRST + timedelta(days=10), date.min)
    assert [one.night for one in known] == [night(day) for day in range(10)]
    assert all(one.answers == {"nightly": {"champion": 2}} for one in known)

    arena.rails.lake.ensure(REQUEST)
    requests = pd.DataFrame(
        [
            {
                "request_id": f"r{place}",
                "model": spec.name,
                "tier": "safe_default" if place < 6 else "champion",
                "reason": "champion_late" if place < 6 else "in_service",
                "night": night(8),
                "available_at": FIRST + timedelta(days=11, hours=1),  # delivered two nights later
            }
            for place in range(10)
        ]
    )
    arena.rails.lake.replace("ops.request", {"request_id": ""}, requests, message="drawn")
    served(arena, spec, 10, "champion", "in_service", rows=2)
    audited(arena, spec, 10)
    shares = fallback_audit.shares(arena.rails, spec, FIRST + timedelta(days=9))
    assert [(row.channel, row.tier, row.reason, row.answers, row.share) for row in shares] == [
        ("nightly", "champion", "in_service", 2, 1.0),
        ("online", "safe_default", "champion_late", 6, 0.6),
        ("online", "champion", "in_service", 4, 0.4),
    ]
    found = {
        one.night: one.share for one in fallback_audit.nights(arena.rails, spec, FIRST + timedelta(days=11), date.min)
    }
    assert found[night(8)] == 0.6, "the worse of the two channels"
    assert len(found) == 11, "no night was counted twice, none was lost"


def test_a_refused_answer_is_what_the_next_question_begins_with(arena: Arena) -> None:
    spec = arena.spec("refused", fallback={"safe_default": 0.5, "audit_after": "1d"})
    served(arena, spec, 0, "safe_default", "champion_not_loaded")
    assert audited(arena, spec, 0).opened
    fallback_audit.refuse(arena.rails, spec.name, night(0), "bob", "The cause is empty; say why.")
    asked = fallback_audit.question(arena.rails, spec)
    assert asked is not None
    assert asked.body.startswith("**Your last answer does not count.** The cause is empty; say why.")
    json.dumps(fallback_audit.report(arena.rails, spec).to_json())


def test_of_two_answers_the_first_counts(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = arena.spec("raced", fallback={"safe_default": 0.5, "audit_after": "1d"})
    served(arena, spec, 0, "safe_default", "no_champion")
    audited(arena, spec, 0)
    task = fallback_audit.open_task(arena.rails, spec.name)
    explained(arena, spec, night(3), cause="the first")
    monkeypatch.setattr(fallback_audit, "open_task", lambda rails, model: task)  # read before the other one answered
    with pytest.raises(BadInput, match="somebody else"):
        explained(arena, spec, night(3), cause="the second")
    [row] = arena.rails.ledger.default_tasks(spec.name)
    assert row.explanation.cause == "the first"


def test_a_stretch_is_followed_to_its_beginning_and_a_year_of_nights_is_not_read(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = arena.spec("long_lived")
    days, begins = 400, 320
    tiers = ["champion" if day < begins else "safe_default" for day in range(days)]
    shares = pd.DataFrame(
        {
            "model": spec.name, "night": [night(day) for day in range(days)], "channel": "nightly", "tier": tiers,
            "reason": "drawn", "answers": 4, "share": 1.0,
            "available_at": [FIRST + timedelta(days=day + 1) for day in range(days)],
        }
    )  # fmt: skip
    arena.rails.lake.ensure(TIER_SHARE)
    arena.rails.lake.replace(TIER_SHARE, {"model": spec.name}, shares, message="drawn")
    read: list[int] = []
    genuine = fallback_audit.nights

    def nights(*arguments: Any) -> list[Night]:
        found = genuine(*arguments)
        read.append(len(found))
        return found

    monkeypatch.setattr(fallback_audit, "nights", nights)
    served(arena, spec, begins, "champion", "in_service")
    assert audited(arena, spec, begins).on_default_since is None
    assert len(read) == 1 and read[0] <= fallback_audit.AT_FIRST.days + 1
    served(arena, spec, days, "safe_default", "no_champion")
    assert audited(arena, spec, days).on_default_since == night(begins + 1)
    assert read[1] < read[2] < days / 2, "further back only as far as the stretch goes on"
