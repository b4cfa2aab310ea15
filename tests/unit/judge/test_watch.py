"""The rollback watch: the better of the two comes back by itself, once, and only in the window."""

from datetime import timedelta

import pytest

from tests import decree
from tests.unit.conftest import FIRST
from tiltyard.clock import night_closing
from tiltyard.edge import status
from tiltyard.judge import aliases, promotion
from tiltyard.records import Promotion, ShadowSummary
from tiltyard.train import registry

DAY = timedelta(days=1)
GOOD, POOR = 0.02, 0.9


def promoted(arena, spec, version, as_of, replaced=None):
    """As a gate would have done it on that night."""
    assert decree.promote(
        arena.rails.ledger,
        Promotion(
            model=spec.name,
            version=version,
            night=night_closing(as_of),
            replaced=replaced,
            requested_by="drift",
            approved_by=None,
            approval={},
        ),
    )
    registry.set_alias(arena.rails, spec.name, "previous", replaced)
    registry.set_alias(arena.rails, spec.name, "champion", version)


def gate_of(**changes):
    return {"min_matured": 200, "min_shadow": "3d", "slices": ["priority"]} | changes


def nightly(arena, spec, first, last):
    """Every night's outcome, in order."""
    nights = [first + days * DAY for days in range((last - first).days + 1)]
    return {night_closing(as_of): promotion.judge_night(arena.rails, spec, as_of) for as_of in nights}


def verdicts(outcomes):
    return [outcome.watch and outcome.watch.verdict for outcome in outcomes.values()]


@pytest.fixture(scope="module")
def sent_back(arena):
    """Tier 1. Version 1 serves, 2 replaces it on the third night and is worse. (spec, last as_of, outcomes)."""
    spec = arena.spec("sent_back", tier=1, gate=gate_of())
    last = arena.duel(spec, {1: GOOD, 2: POOR}, nights=13)
    promoted(arena, spec, 1, FIRST + DAY)
    promoted(arena, spec, 2, FIRST + 2 * DAY, replaced=1)
    return spec, last, nightly(arena, spec, FIRST + 3 * DAY, last)


def test_the_better_one_comes_back_by_itself_once_also_in_tier_1(arena, sent_back):
    spec, _, outcomes = sent_back
    found = verdicts(outcomes)
    assert found.count("rollback") == 1
    (night,) = [night for night, outcome in outcomes.items() if outcome.rolled_back]
    place = list(outcomes).index(night)
    assert set(found[:place]) == {"keep"}
    assert set(found[place + 1 :]) == {None}, "the watch ends with it"
    assert outcomes[night].promoted is None
    assert "version 1, which is back in service" in outcomes[night].reasons[0]
    assert arena.rails.ledger.roles(spec.name, night).champion == 2, "in force until the night is over"
    after = arena.rails.ledger.roles(spec.name, night + DAY)
    assert (after.champion, after.previous, after.challengers) == (1, None, ())
    assert registry.aliases(arena.rails, spec.name) == {"champion": 1}
    (event,) = arena.rails.ledger.events(spec.name)
    assert (event.kind, event.night, event.detail) == ("rolled_back", night, {"version": 2, "back": 1})


def test_only_rows_since_the_promotion_count(arena, sent_back):
    spec, _, _ = sent_back
    watches = arena.rails.ledger.watches(spec.name)
    assert [row.evidence.matured for row in watches[:4]] == [0, 0, 60, 120]
    assert all(row.evidence.promoted_on == night_closing(FIRST + 2 * DAY) for row in watches)
    assert (watches[-1].champion, watches[-1].previous) == (2, 1)
    assert {row.name for row in watches[-1].evidence.criteria} >= {"coverage", "better", "nights"}


def test_running_the_nights_again_gives_the_same(arena, sent_back):
    spec, last, outcomes = sent_back
    again = nightly(arena, spec, FIRST + 3 * DAY, last)
    for night, outcome in outcomes.items():
        names = ("watch", "rolled_back", "promoted", "verdict")
        assert [getattr(again[night], name) for name in names] == [getattr(outcome, name) for name in names]
    assert registry.aliases(arena.rails, spec.name) == {"champion": 1}
    assert [event.kind for event in arena.rails.ledger.events(spec.name)] == ["rolled_back"]


def test_an_alias_moved_back_by_hand_after_a_rollback_is_put_back(arena, sent_back):
    spec, last, _ = sent_back
    registry.set_alias(arena.rails, spec.name, "champion", 2)
    assert aliases.reconcile(arena.rails, spec, last) == ("champion",)
    assert registry.aliases(arena.rails, spec.name)["champion"] == 1


def test_the_status_tells_of_it(arena, sent_back):
    spec, last, _ = sent_back
    arena.rails.ledger.record_stage(spec.name, night_closing(last), "done", ShadowSummary())
    document = status.status(arena.rails, spec, last)
    assert (document.watch, document.champion) == (None, 1)
    (sent,) = document.rollbacks
    assert (sent.version, sent.back) == (2, 1)
    before = status.status(arena.rails, spec, FIRST + 5 * DAY)
    assert (before.watch.champion, before.watch.verdict, before.rollbacks) == (2, "keep", ())


def test_a_better_champion_stays(arena):
    spec = arena.spec("stays", gate=gate_of())
    last = arena.duel(spec, {1: POOR, 2: GOOD}, nights=12)
    promoted(arena, spec, 1, FIRST + DAY)
    promoted(arena, spec, 2, FIRST + 2 * DAY, replaced=1)
    assert set(verdicts(nightly(arena, spec, last - 2 * DAY, last))) == {"keep"}
    assert arena.rails.ledger.roles(spec.name, night_closing(last + DAY)).champion == 2


def test_the_window_ends_when_its_last_predictions_have_matured(arena):
    spec = arena.spec("window", gate=gate_of(rollback_window="3d"))
    last = arena.duel(spec, {1: GOOD, 2: POOR}, nights=13, per_night=20)
    promoted(arena, spec, 1, FIRST + DAY)
    promoted(arena, spec, 2, FIRST + 2 * DAY, replaced=1)
    outcomes = nightly(arena, spec, FIRST + 3 * DAY, last)
    assert verdicts(outcomes) == ["keep"] * 5 + [None] * 6, "three nights of predictions, two days until their truth"
    watches = arena.rails.ledger.watches(spec.name)
    assert [row.evidence.matured for row in watches] == [0, 0, 20, 40, 60]
    assert arena.rails.ledger.roles(spec.name, night_closing(last + DAY)).champion == 2, "three nights are not enough"


def test_no_window_no_watch(arena):
    spec = arena.spec("unwatched", gate=gate_of(rollback_window="0d"))
    last = arena.duel(spec, {1: GOOD, 2: POOR}, nights=12)
    promoted(arena, spec, 1, FIRST + DAY)
    promoted(arena, spec, 2, FIRST + 2 * DAY, replaced=1)
    assert promotion.judge_night(arena.rails, spec, last).watch is None


def test_a_previous_champion_that_stopped_scoring_keeps_the_new_one(arena):
    """Missing evidence changes nothing: here only one row in ten of the previous champion is there."""
    spec = arena.spec("silent", gate=gate_of())
    last = arena.duel(spec, {1: GOOD, 2: POOR}, nights=12)
    promoted(arena, spec, 1, FIRST + DAY)
    promoted(arena, spec, 2, FIRST + 2 * DAY, replaced=1)
    arena.rails.lake.commit(
        lambda connection: connection.execute(
            "delete from lake.ops.prediction where model = 'silent' and version = 1 and hash(entity_id) % 10 > 0"
        ),
        message="lost",
    )
    outcome = promotion.judge_night(arena.rails, spec, last)
    assert outcome.watch.verdict == "keep"
    assert any("95% are asked for" in reason for reason in outcome.watch.reasons)


def test_a_first_champion_worse_than_the_safe_default_sends_the_model_back_to_it(arena):
    spec = arena.spec("to_default", gate=gate_of(), fallback={"safe_default": 0.5})
    last = arena.duel(spec, {1: 1.5}, nights=20, per_night=100)
    promoted(arena, spec, 1, FIRST + DAY)
    outcomes = nightly(arena, spec, FIRST + 8 * DAY, last)
    assert verdicts(outcomes).count("rollback") == 1
    after = arena.rails.ledger.roles(spec.name, night_closing(last + DAY))
    assert (after.champion, after.challengers) == (None, ())
    assert registry.aliases(arena.rails, spec.name) == {}
    (row,) = arena.rails.ledger.watches(spec.name, verdict="rollback")
    assert row.previous is None
    assert any("the safe default, which is back" in outcome.reason for outcome in outcomes.values())


def test_a_night_that_rolls_back_judges_nobody_and_the_next_one_judges_against_whom_is_back(arena):
    spec = arena.spec("both", gate=gate_of())
    last = arena.duel(spec, {1: 0.25, 2: POOR, 3: GOOD}, nights=13)
    promoted(arena, spec, 1, FIRST + DAY)
    promoted(arena, spec, 2, FIRST + 2 * DAY, replaced=1)
    outcome = promotion.judge_night(arena.rails, spec, last)
    assert (outcome.rolled_back, outcome.promoted, outcome.decisions) == (2, None, ())
    later = promotion.judge_night(arena.rails, spec, last + DAY)
    assert (later.champion, later.promoted, later.watch) == (1, 3, None)
    roles = arena.rails.ledger.roles(spec.name, night_closing(last + 2 * DAY))
    assert (roles.champion, roles.previous) == (3, 1)


def test_a_night_that_has_promoted_does_not_roll_back(arena):
    """Judged before the watch knew better: what was decided on this night stands, and it is noted."""
    spec = arena.spec("late_watch", gate=gate_of())
    last = arena.duel(spec, {1: GOOD, 2: POOR, 3: GOOD}, nights=13)
    promoted(arena, spec, 1, FIRST + DAY)
    promoted(arena, spec, 2, FIRST + 2 * DAY, replaced=1)
    promoted(arena, spec, 3, last, replaced=2)
    outcome = promotion.judge_night(arena.rails, spec, last)
    assert (outcome.promoted, outcome.rolled_back, outcome.watch) == (3, None, None)
    kinds = [event.kind for event in arena.rails.ledger.events(spec.name)]
    assert kinds == ["rollback_out_of_order", "evidence_changed"], "the decree's decision had none"
    assert arena.rails.ledger.roles(spec.name, night_closing(last + DAY)).champion == 3
