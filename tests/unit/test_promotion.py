"""Who is promoted, and everything that must not promote: forged approvals, two gates, aliases moved by hand."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tiltyard import promotion, registry
from tiltyard import rails as rails_module
from tiltyard.ledger import night_of
from tiltyard.promotion import Approval

DAY = timedelta(days=1)
GOOD, POOR = 0.02, 0.6


def approval(judged, as_of, **changes):
    base = Approval(
        approved_by="maria",
        requested_by="airflow",
        chosen=("Approve",),
        responded_at=datetime(2016, 3, 9, 8, tzinfo=UTC),
        subject=(judged["model"], judged["challenger"], night_of(as_of), judged["evidence"]),
        source="airflow",
    )
    return replace(base, **changes)


def kinds(rails, spec):
    return [event["kind"] for event in rails.ledger.events(spec.name)]


def test_without_a_challenger_nothing_happens(arena):
    spec = arena.spec("nobody")
    outcome = promotion.run(arena.rails, spec, datetime(2016, 3, 9, tzinfo=UTC))
    assert (outcome["verdict"], outcome["promoted"]) == ("hold", None)
    assert arena.rails.ledger.stage_runs("promotion", "nobody")


def test_the_first_champion_has_to_beat_the_safe_default_and_takes_the_aliases(arena):
    spec = arena.spec("first_one")
    as_of = arena.duel(spec, {1: GOOD})
    outcome = promotion.run(arena.rails, spec, as_of)
    assert (outcome["verdict"], outcome["promoted"], outcome["champion"]) == ("promote", 1, None)
    assert registry.aliases(arena.rails, spec.name)["champion"] == 1
    assert arena.rails.ledger.roles(spec.name, night_of(as_of)).champion is None
    assert arena.rails.ledger.roles(spec.name, night_of(as_of + DAY)).champion == 1
    decision = outcome["decisions"][0]
    assert decision["matured"] == 6 * 60
    assert decision["nights"] == 8

    again = promotion.run(arena.rails, spec, as_of)
    assert again["promoted"] == 1
    assert len(arena.rails.ledger.promotions(spec.name)) == 1
    assert kinds(arena.rails, spec) == []


def test_a_challenger_no_better_than_the_safe_default_is_not_promoted(arena):
    spec = arena.spec("no_better", fallback={"safe_default": 0.5}, gate={"min_matured": 200, "min_shadow": "3d"})
    as_of = arena.duel(spec, {1: POOR})
    outcome = promotion.run(arena.rails, spec, as_of)
    assert (outcome["verdict"], outcome["promoted"]) == ("hold", None)
    assert registry.aliases(arena.rails, spec.name) == {}


def test_the_best_of_several_is_promoted_and_the_worst_rejected(arena):
    spec = arena.spec("several")
    as_of = arena.duel(spec, {1: 0.5, 2: 0.15, 3: GOOD}, nights=12, per_night=150)
    first = promotion.run(arena.rails, spec, as_of - 2 * DAY)
    assert first["promoted"] == 3
    assert {row["challenger"]: row["verdict"] for row in first["decisions"]}[3] == "promote"
    assert all(row["evidence"]["challengers"] == 3 for row in arena.rails.ledger.decisions(spec.name))


def test_a_champion_is_replaced_by_a_better_one_and_keeps_the_previous_alias(arena):
    spec = arena.spec("successor")
    as_of = arena.duel(spec, {1: 0.25, 2: GOOD}, nights=10, per_night=150)
    arena.rails.ledger.claim_promotion(
        model=spec.name, version=1, night=night_of(as_of - 3 * DAY), replaced=None, requested_by="drift",
        approved_by=None, approval={},
    )  # fmt: skip
    registry.set_alias(arena.rails, spec.name, "champion", 1)
    outcome = promotion.run(arena.rails, spec, as_of)
    assert (outcome["promoted"], outcome["replaced"]) == (2, 1)
    aliases = registry.aliases(arena.rails, spec.name)
    assert (aliases["champion"], aliases["previous"]) == (2, 1)


def test_tier_one_waits_for_a_person(arena):
    spec = arena.spec("waits", tier=1)
    as_of = arena.duel(spec, {1: GOOD})
    outcome = promotion.run(arena.rails, spec, as_of)
    assert outcome["needs_approval"] is True
    assert outcome["promoted"] is None
    assert registry.aliases(arena.rails, spec.name) == {}
    given = promotion.promote(arena.rails, spec, as_of, approval(outcome, as_of))
    assert given["promoted"] == 1
    (row,) = arena.rails.ledger.promotions(spec.name)
    assert (row["approved_by"], row["requested_by"]) == ("maria", "drift")
    assert row["approval"]["source"] == "airflow"


@pytest.fixture(scope="module")
def high_stakes(arena):
    spec = arena.spec("high_stakes", tier=1)
    as_of = arena.duel(spec, {1: GOOD})
    return spec, as_of, promotion.judge(arena.rails, spec, as_of)


@pytest.mark.parametrize(
    ("forged", "says"),
    [
        ({"subject": None}, "about something else"),
        ({"subject": ("high_stakes", 2, "2016-03-09", "x")}, "about something else"),
        ({"subject": ("other", 1, "2016-03-09", "x")}, "about something else"),
        ({"evidence": "0" * 64}, "about something else"),
        ({"night": "2016-03-08"}, "about something else"),
        ({"approved_by": None}, "no person answered"),
        ({"approved_by": "  "}, "no person answered"),
        ({"approved_by": "drift"}, "asked for it"),
        ({"approved_by": " Airflow "}, "asked for it"),
        ({"requested_by": "maria"}, "asked for it"),
        ({"requested_by": None}, "not known who asked"),
        ({"chosen": ("Reject",)}, "the answer was Reject"),
        ({"chosen": ()}, "the answer was nothing"),
        ({"chosen": ("Reject", "Approve")}, "the answer was Reject, Approve"),
        ({"chosen": ("Reject",), "approved_by": None, "responded_at": None}, "no person answered"),
        ({"responded_at": None}, "no record of when"),
        ({"responded_at": datetime(2016, 3, 9)}, "no record of when"),
        ({"approved_by": "hindcast"}, "do not belong together"),
        ({"source": "hindcast:auto"}, "do not belong together"),
    ],
)
def test_an_approval_that_does_not_hold_is_recorded_and_promotes_nobody(arena, high_stakes, forged, says):
    spec, as_of, judged = high_stakes
    forged = dict(forged)
    subject = (spec.name, 1, forged.pop("night", night_of(as_of)), forged.pop("evidence", judged["evidence"]))
    before = len(arena.rails.ledger.events(spec.name, "approval_refused"))
    outcome = promotion.promote(arena.rails, spec, as_of, approval(judged, as_of, **({"subject": subject} | forged)))
    assert outcome["promoted"] is None
    events = arena.rails.ledger.events(spec.name, "approval_refused")
    assert len(events) == before + 1
    assert any(says in fault for fault in events[-1]["detail"]["faults"])
    assert arena.rails.ledger.promotions(spec.name) == []
    assert registry.aliases(arena.rails, spec.name) == {}


def test_an_approval_where_the_gate_holds_promotes_nobody_and_is_recorded(arena):
    spec = arena.spec("held", tier=1)
    as_of = arena.duel(spec, {1: GOOD}, nights=4)
    judged = promotion.judge(arena.rails, spec, as_of)
    assert judged["verdict"] == "hold"
    assert promotion.promote(arena.rails, spec, as_of, approval(judged, as_of))["promoted"] is None
    assert kinds(arena.rails, spec) == ["approval_refused"]


def test_a_hindcast_assumes_approvals_only_when_told_and_records_it(arena):
    spec = arena.spec("assumed", tier=1)
    as_of = arena.duel(spec, {1: GOOD})
    assert promotion.run(arena.rails, spec, as_of, assume="never")["promoted"] is None
    assert promotion.run(arena.rails, spec, as_of, assume="auto")["promoted"] == 1
    (row,) = arena.rails.ledger.promotions(spec.name)
    assert (row["approved_by"], row["approval"]["source"]) == ("hindcast", "hindcast:auto")


def test_two_gates_at_once_promote_once(arena):
    spec = arena.spec("two_gates")
    as_of = arena.duel(spec, {1: GOOD})
    promotion.judge(arena.rails, spec, as_of)
    start, outcomes = threading.Barrier(3), []

    def gate():
        with rails_module.opened(arena.rails.settings) as rails:
            start.wait()
            outcomes.append(promotion.promote(rails, spec, as_of))

    threads = [threading.Thread(target=gate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 3
    assert len(arena.rails.ledger.promotions(spec.name)) == 1
    assert [outcome["promoted"] for outcome in outcomes].count(1) >= 1
    lost = arena.rails.ledger.events(spec.name, "promotion_lost")
    assert len(lost) == [outcome["promoted"] for outcome in outcomes].count(None)
    assert registry.aliases(arena.rails, spec.name)["champion"] == 1


def test_losing_the_claim_is_recorded_and_moves_no_alias(arena):
    spec = arena.spec("too_late")
    as_of = arena.duel(spec, {1: 0.3, 2: GOOD}, nights=12)
    promotion.judge(arena.rails, spec, as_of)
    other = as_of - 3 * DAY
    arena.rails.ledger.claim_promotion(
        model=spec.name,
        version=2,
        night=night_of(other),
        replaced=None,
        requested_by="x",
        approved_by=None,
        approval={},
    )
    outcome = promotion.promote(arena.rails, spec, as_of)
    assert outcome["promoted"] is None
    assert kinds(arena.rails, spec)[-1] in ("promotion_lost", "evidence_outdated")
    assert "champion" not in registry.aliases(arena.rails, spec.name)


def test_an_alias_moved_by_hand_is_recorded_and_put_back(arena):
    spec = arena.spec("by_hand")
    as_of = arena.duel(spec, {1: GOOD, 2: 0.3}, nights=9)
    assert promotion.run(arena.rails, spec, as_of)["promoted"] == 1
    registry.set_alias(arena.rails, spec.name, "champion", 2)
    promotion.run(arena.rails, spec, as_of + DAY)
    (event,) = arena.rails.ledger.events(spec.name, "alias_moved_by_hand")
    assert event["detail"] == {"alias": "champion", "found": 2, "put_back": 1}
    assert registry.aliases(arena.rails, spec.name)["champion"] == 1
    assert arena.rails.ledger.roles(spec.name, night_of(as_of + 2 * DAY)).champion == 1


def test_an_alias_set_by_hand_where_nobody_was_promoted_is_taken_away(arena):
    spec = arena.spec("usurper")
    as_of = arena.duel(spec, {1: POOR})
    registry.set_alias(arena.rails, spec.name, "champion", 1)
    promotion.run(arena.rails, spec, as_of)
    assert "champion" not in registry.aliases(arena.rails, spec.name)
    assert kinds(arena.rails, spec) == ["alias_moved_by_hand"]


def test_a_rerun_of_an_old_night_leaves_the_present_alone(arena):
    spec = arena.spec("rerun")
    as_of = arena.duel(spec, {1: 0.3, 2: GOOD}, nights=12, per_night=150)
    for number, night in ((1, as_of - 2 * DAY), (2, as_of)):
        arena.rails.ledger.claim_promotion(
            model=spec.name, version=number, night=night_of(night), replaced=None if number == 1 else 1,
            requested_by="drift", approved_by=None, approval={},
        )  # fmt: skip
        registry.set_alias(arena.rails, spec.name, "champion", number)
    old = promotion.run(arena.rails, spec, as_of - 3 * DAY)
    assert old["promoted"] is None
    assert registry.aliases(arena.rails, spec.name)["champion"] == 2
    assert set(kinds(arena.rails, spec)) <= {"promotion_out_of_order"}
    assert promotion.run(arena.rails, spec, as_of - 2 * DAY)["promoted"] == 1
    assert registry.aliases(arena.rails, spec.name)["champion"] == 2


def test_a_claim_whose_alias_was_never_moved_is_finished_by_the_rerun(arena):
    spec = arena.spec("crashed")
    as_of = arena.duel(spec, {1: GOOD})
    arena.rails.ledger.claim_promotion(
        model=spec.name, version=1, night=night_of(as_of), replaced=None, requested_by="drift", approved_by=None,
        approval={},
    )  # fmt: skip
    promotion.run(arena.rails, spec, as_of)
    assert registry.aliases(arena.rails, spec.name)["champion"] == 1


def test_a_verdict_is_recorded_once_and_evidence_that_changed_is_noted(arena):
    spec = arena.spec("changed")
    as_of = arena.duel(spec, {1: POOR})
    first = promotion.judge(arena.rails, spec, as_of)
    arena.rails.lake.commit(
        lambda connection: connection.execute(
            "delete from lake.ops.prediction where model = 'changed' and score > 0.9"
        ),
        message="tampered",
    )
    again = promotion.judge(arena.rails, spec, as_of)
    assert again["evidence"] == first["evidence"]
    assert kinds(arena.rails, spec) == ["evidence_changed"]


def test_the_evidence_reads_as_a_table(arena, high_stakes):
    spec, as_of, judged = high_stakes
    text = promotion.evidence_markdown(arena.rails, spec, as_of, 1)
    assert f"Evidence: `{judged['evidence']}`" in text.splitlines()
    assert "| criterion | value | limit | status | why |" in text
    assert "| slice priority=high |" in text
