"""The gate under a person's hand: it goes on judging, and what is held is not changed until it is let go."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.conftest import FIRST
from tests.unit.judge.test_promotion import approval, kinds
from tests.unit.judge.test_watch import gate_of, nightly, promoted, verdicts
from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.edge import status
from tiltyard.judge import operate, promotion
from tiltyard.records import ShadowSummary
from tiltyard.train import registry, training

DAY = timedelta(days=1)
GOOD, POOR = 0.02, 0.9


def did(arena, spec, action, night, to=None, by="ann"):
    """By one person, or by two, after this night was scored."""
    arena.rails.ledger.record_stage(spec.name, night, "done", ShadowSummary())
    low = spec.model_copy(update={"tier": 2})
    done = operate.request(
        arena.rails, low, action, to=to, reason="an audit", by=by, source="command line", now=clock.now()
    )
    assert done.operation, done.sentence
    return done


def test_a_frozen_model_is_judged_and_not_changed_until_it_is_let_go(arena):
    spec = arena.spec("held_by_hand")
    last = arena.duel(spec, {1: 0.25, 2: GOOD}, nights=12, per_night=150)
    promoted(arena, spec, 1, FIRST + 3 * DAY)
    did(arena, spec, "freeze", night_closing(FIRST + 4 * DAY))
    frozen = nightly(arena, spec, FIRST + 5 * DAY, last - 2 * DAY)
    proposed = [night for night, outcome in frozen.items() if outcome.verdict == "promote"]
    assert proposed, "the gate goes on judging"
    assert {outcome.promoted for outcome in frozen.values()} == {None}
    told = frozen[proposed[-1]]
    assert told.reason.startswith("held_by_hand is frozen since the night of 2016-03-05 by ann (an audit): nothing")
    assert told.reasons[0].startswith("held_by_hand is frozen")
    assert arena.rails.ledger.roles(spec.name, night_closing(last)).champion == 1
    did(arena, spec, "unfreeze", night_closing(last - 2 * DAY))
    again = promotion.judge_night(arena.rails, spec, last - 2 * DAY)
    assert again.promoted is None, "a night on which it was frozen is done again as it was"
    after = promotion.judge_night(arena.rails, spec, last - DAY)
    assert (after.verdict, after.promoted, after.replaced) == ("promote", 2, 1)
    assert registry.aliases(arena.rails, spec.name) == {"champion": 2, "previous": 1}


def test_nobody_is_asked_to_approve_what_is_held_and_an_answer_that_comes_then_has_no_say(arena):
    spec = arena.spec("held_and_asked", tier=1)
    as_of = arena.duel(spec, {1: GOOD})
    judged = promotion.judge(arena.rails, spec, as_of)
    assert judged.needs_approval
    did(arena, spec, "pin", night_closing(as_of), to="default")
    assert not promotion.judge(arena.rails, spec, as_of).needs_approval
    answered = promotion.promote(arena.rails, spec, as_of, approval(judged, as_of))
    assert answered.promoted is None
    assert "is pinned to the safe default" in answered.reason
    assert "approval_refused" in kinds(arena.rails, spec)


def test_a_person_rolls_back_what_the_gate_promoted_and_the_gate_does_not_bring_it_again(arena):
    spec = arena.spec("rolled_by_hand")
    last = arena.duel(spec, {1: 0.25, 2: GOOD}, nights=12, per_night=150)
    promoted(arena, spec, 1, FIRST + 3 * DAY)
    outcomes = nightly(arena, spec, FIRST + 4 * DAY, last - 4 * DAY)
    [changed] = [night for night, outcome in outcomes.items() if outcome.promoted == 2]
    did(arena, spec, "rollback", night_closing(last - 4 * DAY))
    assert registry.aliases(arena.rails, spec.name) == {"champion": 1}
    after = nightly(arena, spec, last - 3 * DAY, last)
    assert {(outcome.champion, outcome.promoted, outcome.challenger) for outcome in after.values()} == {(1, None, None)}
    assert set(verdicts(after)) == {None}, "nobody is under watch whom a person has put there"
    again = promotion.judge_night(arena.rails, spec, clock.midnight(changed))
    assert again.promoted == 2, "the night of the promotion is what it was"
    assert registry.aliases(arena.rails, spec.name) == {"champion": 1}, "and undoes nothing"
    arena.rails.ledger.record_stage(spec.name, night_closing(last), "done", ShadowSummary())
    document = status.status(arena.rails, spec, last)
    assert (document.champion, document.held) == (1, None)
    assert [(one.action, one.version, one.before) for one in document.operations] == [("rollback", 1, 2)]


@pytest.fixture(scope="module")
def watched(arena):
    """Version 1 serves, 2 replaces it on the third night and is worse; it is frozen on the fourth."""
    spec = arena.spec("watched_and_held", gate=gate_of())
    last = arena.duel(spec, {1: GOOD, 2: POOR}, nights=13)
    promoted(arena, spec, 1, FIRST + DAY)
    promoted(arena, spec, 2, FIRST + 2 * DAY, replaced=1)
    did(arena, spec, "freeze", night_closing(FIRST + 3 * DAY))
    return spec, last, nightly(arena, spec, FIRST + 4 * DAY, last)


def test_a_frozen_champion_that_does_worse_is_told_and_not_changed(arena, watched):
    spec, last, outcomes = watched
    assert set(verdicts(outcomes)) == {"keep"}
    held = [outcome.watch for outcome in outcomes.values() if outcome.watch.is_held]
    assert held
    assert (
        held[-1]
        .reasons[0]
        .startswith(
            "It does worse than the one before it, and stays: watched_and_held is frozen since the night of 2016-03-04"
        )
    )
    assert arena.rails.ledger.roles(spec.name, night_closing(last + DAY)).champion == 2
    assert "rolled_back" not in kinds(arena.rails, spec)


def test_nothing_is_trained_of_a_frozen_model_and_its_nights_of_before_are_as_they_were(arena, watched):
    spec, last, _ = watched
    made = training.train(arena.rails, spec, last + DAY, requested_by="ann")
    assert (made.version, made.reason) == (
        None, "watched_and_held is frozen since the night of 2016-03-04 by ann (an audit): nothing is trained",
    )  # fmt: skip


def test_a_tier_1_promotion_waits_while_a_person_s_change_of_that_night_has_the_last_word(arena):
    spec = arena.spec("overtaken_by_hand", tier=1)
    as_of = arena.duel(spec, {1: 0.25, 2: GOOD}, nights=10, per_night=150)
    promoted(arena, spec, 1, FIRST + 3 * DAY)
    judged = promotion.judge(arena.rails, spec, as_of)
    assert judged.challenger == 2
    did(arena, spec, "rollback", night_closing(as_of), to="default")
    outcome = promotion.promote(arena.rails, spec, as_of, approval(judged, as_of))
    assert outcome.promoted is None
    assert "ann rolled overtaken_by_hand back to the safe default" in outcome.reason


@pytest.fixture(scope="module")
def stakes(arena):
    spec = arena.spec("stakes_by_name", tier=1)
    as_of = arena.duel(spec, {1: GOOD})
    return spec, as_of, promotion.judge(arena.rails, spec, as_of)


RULES = """approvers:
  service-desk:
    people: [ann, maria]
    delegates: [{from: maria, to: cid, until: 2016-03-09}, {from: maria, to: dora, until: 2016-03-08}]
"""


@pytest.mark.parametrize(
    ("by", "fault"),
    [
        ("eve", "'eve' may not answer for this owner; these may: cid, ann, maria"),
        ("dora", "'dora' may not answer for this owner"),
        ("cid", None),
    ],
)
def test_only_those_who_may_answer_for_the_owner_approve(arena, stakes, tmp_path, by, fault):
    """On the 9th of March; dora's time was over the day before."""
    spec, as_of, judged = stakes
    (tmp_path / "portfolio.yaml").write_text(RULES)
    rails = replace(arena.rails, settings=arena.rails.settings.model_copy(update={"models": tmp_path}))
    outcome = promotion.promote(rails, spec, as_of, approval(judged, as_of, approved_by=by))
    assert (outcome.promoted, outcome.is_refused) == (None if fault else 1, fault is not None)
    assert fault is None or fault in outcome.reason


def test_who_would_answer_in_the_stead_of_whoever_asked_may_not(arena, tmp_path):
    spec = arena.spec("stakes_by_deputy", tier=1)
    as_of = arena.duel(spec, {1: GOOD}, requested_by="maria")
    judged = promotion.judge(arena.rails, spec, as_of)
    (tmp_path / "portfolio.yaml").write_text(RULES)
    rails = replace(arena.rails, settings=arena.rails.settings.model_copy(update={"models": tmp_path}))
    outcome = promotion.promote(rails, spec, as_of, approval(judged, as_of, approved_by="cid"))
    assert (outcome.promoted, outcome.is_refused) == (None, True)
    assert "'cid' may not answer for this owner; these may: ann" in outcome.reason
    assert promotion.promote(rails, spec, as_of, approval(judged, as_of, approved_by="ann")).promoted == 1


def test_two_names_of_one_person_are_one_person(arena, tmp_path):
    spec = arena.spec("stakes_of_two_names", tier=1)
    as_of = arena.duel(spec, {1: GOOD}, requested_by="a.miller")
    judged = promotion.judge(arena.rails, spec, as_of)
    rules = tmp_path / "portfolio.yaml"
    rails = replace(arena.rails, settings=arena.rails.settings.model_copy(update={"models": tmp_path}))
    for text in ("people: {Ann: [A.Miller]}\n", f"people: {{Ann: [A.Miller]}}\n{RULES}"):
        rules.write_text(text)
        outcome = promotion.promote(rails, spec, as_of, approval(judged, as_of, approved_by="ann"))
        assert (outcome.promoted, outcome.is_refused) == (None, True)
        assert "'ann' asked for it" in outcome.reason
    rules.write_text(RULES)
    assert promotion.promote(rails, spec, as_of, approval(judged, as_of, approved_by="ann")).promoted == 1


def test_nobody_approves_what_nobody_knows_who_asked_for(arena):
    spec = arena.spec("stakes_unknown", tier=1)
    as_of = arena.duel(spec, {1: GOOD})
    judged = promotion.judge(arena.rails, spec, as_of)
    outcome = promotion.promote(arena.rails, spec, as_of, approval(judged, as_of, requested_by=("ann", "unknown")))
    assert (outcome.promoted, outcome.is_refused) == (None, True)
    assert "it is not known who asked for it" in outcome.reason


def test_a_no_is_no_refusal(arena):
    spec = arena.spec("stakes_refused", tier=1)
    as_of = arena.duel(spec, {1: GOOD})
    judged = promotion.judge(arena.rails, spec, as_of)
    said_no = promotion.promote(arena.rails, spec, as_of, approval(judged, as_of, chosen=("Reject",)))
    assert (said_no.promoted, said_no.is_refused) == (None, False)
    own = promotion.promote(arena.rails, spec, as_of, approval(judged, as_of, requested_by="maria"))
    assert (own.promoted, own.is_refused) == (None, True)
