"""Who is promoted, and everything that must not promote: forged approvals, two gates, aliases moved by hand."""

import hashlib
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from tests import decree
from tests.unit.conftest import FIRST
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.edge import timeline
from tiltyard.errors import CheckFailed
from tiltyard.judge import evidence_file, gate, promotion
from tiltyard.judge.approval import Approval, Subject, faults_of
from tiltyard.records import Decision, EvidenceRecord, Promotion, PromotionSummary
from tiltyard.train import registry

DAY = timedelta(days=1)
GOOD, POOR = 0.02, 0.6


def approval(judged, as_of, **changes):
    base = Approval(
        approved_by="maria",
        requested_by="airflow",
        chosen=("Approve",),
        responded_at=datetime(2016, 3, 9, 8, tzinfo=UTC),
        subject=Subject(judged.model, judged.challenger, night_closing(as_of), judged.evidence),
        source="airflow",
    )
    return replace(base, **changes)


def kinds(rails, spec):
    return [event.kind for event in rails.ledger.events(spec.name)]


def test_without_a_challenger_nothing_happens(arena):
    spec = arena.spec("nobody")
    outcome = promotion.judge_night(arena.rails, spec, datetime(2016, 3, 9, tzinfo=UTC))
    assert (outcome.verdict, outcome.promoted) == ("hold", None)
    assert arena.rails.ledger.stage_runs(PromotionSummary, "nobody")


def test_the_first_champion_has_to_beat_the_safe_default_and_takes_the_aliases(arena):
    spec = arena.spec("first_one")
    as_of = arena.duel(spec, {1: GOOD})
    outcome = promotion.judge_night(arena.rails, spec, as_of)
    assert (outcome.verdict, outcome.promoted, outcome.champion) == ("promote", 1, None)
    assert registry.aliases(arena.rails, spec.name)["champion"] == 1
    assert arena.rails.ledger.roles(spec.name, night_closing(as_of)).champion is None
    assert arena.rails.ledger.roles(spec.name, night_closing(as_of + DAY)).champion == 1
    decision = outcome.decisions[0]
    assert decision.matured == 6 * 60
    assert decision.nights == 8

    again = promotion.judge_night(arena.rails, spec, as_of)
    assert again.promoted == 1
    assert len(arena.rails.ledger.promotions(spec.name)) == 1
    assert kinds(arena.rails, spec) == []


@pytest.mark.parametrize("step", [promotion.judge, promotion.judge_night], ids=["airflow", "hindcast"])
def test_a_judgement_that_fails_is_in_the_record(arena, step, request):
    """In Airflow judging and promoting are tasks of their own, a hindcast does both at once."""
    spec = arena.spec(f"fails_{request.node.callspec.id}")
    as_of = arena.duel(spec, {1: GOOD})
    without_labels = spec.model_copy(update={"label": spec.label.model_copy(update={"table": "lbl_gone"})})
    with pytest.raises(Exception, match="lbl_gone"):
        step(arena.rails, without_labels, as_of)
    assert arena.rails.ledger.stage_status("promotion", spec.name, night_closing(as_of)) == "failed"
    assert promotion.judge_night(arena.rails, spec, as_of).promoted == 1
    assert arena.rails.ledger.stage_status("promotion", spec.name, night_closing(as_of)) == "done"
    with pytest.raises(Exception, match="lbl_gone"):
        step(arena.rails, without_labels, as_of)
    assert arena.rails.ledger.stage_status("promotion", spec.name, night_closing(as_of)) == "done", "it stays done"


def test_a_challenger_no_better_than_the_safe_default_is_not_promoted(arena):
    spec = arena.spec("no_better", fallback={"safe_default": 0.5}, gate={"min_matured": 200, "min_shadow": "3d"})
    as_of = arena.duel(spec, {1: POOR})
    outcome = promotion.judge_night(arena.rails, spec, as_of)
    assert (outcome.verdict, outcome.promoted) == ("hold", None)
    assert registry.aliases(arena.rails, spec.name) == {}


def test_the_best_of_several_is_promoted_and_the_worst_rejected(arena):
    spec = arena.spec("several")
    as_of = arena.duel(spec, {1: 0.5, 2: 0.15, 3: GOOD}, nights=12, per_night=150)
    first = promotion.judge_night(arena.rails, spec, as_of - 2 * DAY)
    assert first.promoted == 3
    assert {row.challenger: row.verdict for row in first.decisions}[3] == "promote"
    assert all(row.evidence.challengers == 3 for row in arena.rails.ledger.decisions(spec.name))


def test_a_champion_is_replaced_by_a_better_one_and_keeps_the_previous_alias(arena):
    spec = arena.spec("successor")
    as_of = arena.duel(spec, {1: 0.25, 2: GOOD}, nights=10, per_night=150)
    decree.promote(
        arena.rails.ledger,
        Promotion(
            model=spec.name,
            version=1,
            night=night_closing(as_of - 3 * DAY),
            replaced=None,
            requested_by="drift",
            approved_by=None,
            approval={},
        ),
    )
    registry.set_alias(arena.rails, spec.name, "champion", 1)
    outcome = promotion.judge_night(arena.rails, spec, as_of)
    assert (outcome.promoted, outcome.replaced) == (2, 1)
    aliases = registry.aliases(arena.rails, spec.name)
    assert (aliases["champion"], aliases["previous"]) == (2, 1)


def test_tier_one_waits_for_a_person(arena):
    spec = arena.spec("waits", tier=1)
    as_of = arena.duel(spec, {1: GOOD})
    outcome = promotion.judge_night(arena.rails, spec, as_of)
    assert outcome.needs_approval is True
    assert outcome.promoted is None
    assert registry.aliases(arena.rails, spec.name) == {}
    given = promotion.promote(arena.rails, spec, as_of, approval(outcome, as_of))
    assert given.promoted == 1
    (row,) = arena.rails.ledger.promotions(spec.name)
    assert (row.approved_by, row.requested_by) == ("maria", "drift")
    assert row.approval["source"] == "airflow"


@pytest.fixture(scope="module")
def high_stakes(arena):
    spec = arena.spec("high_stakes", tier=1)
    as_of = arena.duel(spec, {1: GOOD})
    return spec, as_of, promotion.judge(arena.rails, spec, as_of)


@pytest.mark.parametrize("author", ["", "  ", None])
def test_whose_author_is_not_known_cannot_be_approved(author):
    judged, as_of = PromotionSummary(model="m", challenger=1, evidence="e"), datetime(2016, 3, 9, tzinfo=UTC)
    given = approval(judged, as_of)
    assert faults_of(given, given.subject, author) == ["it is not known who trained it"]
    assert faults_of(given, given.subject, "drift") == []


@pytest.mark.parametrize(
    ("forged", "says"),
    [
        ({"subject": None}, "about something else"),
        ({"subject": Subject("high_stakes", 2, date(2016, 3, 9), "x")}, "about something else"),
        ({"subject": Subject("other", 1, date(2016, 3, 9), "x")}, "about something else"),
        ({"evidence": "0" * 64}, "about something else"),
        ({"night": date(2016, 3, 8)}, "about something else"),
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
    subject = Subject(spec.name, 1, forged.pop("night", night_closing(as_of)), forged.pop("evidence", judged.evidence))
    before = len(arena.rails.ledger.events(spec.name, "approval_refused"))
    outcome = promotion.promote(arena.rails, spec, as_of, approval(judged, as_of, **({"subject": subject} | forged)))
    assert outcome.promoted is None
    events = arena.rails.ledger.events(spec.name, "approval_refused")
    assert len(events) == before + 1
    assert any(says in fault for fault in events[-1].detail["faults"])
    assert arena.rails.ledger.promotions(spec.name) == []
    assert registry.aliases(arena.rails, spec.name) == {}


def test_an_approval_where_the_gate_holds_promotes_nobody_and_is_recorded(arena):
    spec = arena.spec("held", tier=1)
    as_of = arena.duel(spec, {1: GOOD}, nights=4)
    judged = promotion.judge(arena.rails, spec, as_of)
    assert judged.verdict == "hold"
    assert promotion.promote(arena.rails, spec, as_of, approval(judged, as_of)).promoted is None
    assert kinds(arena.rails, spec) == ["approval_refused"]


def test_a_hindcast_assumes_approvals_only_when_told_and_records_it(arena):
    spec = arena.spec("assumed", tier=1)
    as_of = arena.duel(spec, {1: GOOD})
    refused = promotion.judge_night(arena.rails, spec, as_of, assume="never")
    assert (refused.promoted, refused.reason) == (None, "A no was assumed: nobody was asked about version 1.")
    [event] = arena.rails.ledger.events(spec.name, "approval_refused")
    [answer] = event.detail["approvals"]
    assert (answer["approved_by"], answer["source"], answer["chosen"]) == ("hindcast", "hindcast:never", "Reject")
    told = [(moment.what, moment.by, moment.reasons) for moment in timeline.read(arena.rails, spec).moments]
    why = "Nobody was asked: the hindcast was told that nobody approves."
    assert ("a no was assumed of version 1", "hindcast", (why,)) in told
    assert promotion.judge_night(arena.rails, spec, as_of, assume="auto").promoted == 1
    (row,) = arena.rails.ledger.promotions(spec.name)
    assert (row.approved_by, row.approval["source"]) == ("hindcast", "hindcast:auto")


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
    assert [outcome.promoted for outcome in outcomes].count(1) >= 1
    lost = arena.rails.ledger.events(spec.name, "promotion_lost")
    assert len(lost) == [outcome.promoted for outcome in outcomes].count(None)
    assert registry.aliases(arena.rails, spec.name)["champion"] == 1


def test_losing_the_claim_is_recorded_and_moves_no_alias(arena):
    spec = arena.spec("too_late")
    as_of = arena.duel(spec, {1: 0.3, 2: GOOD}, nights=12)
    promotion.judge(arena.rails, spec, as_of)
    other = as_of - 3 * DAY
    decree.promote(
        arena.rails.ledger,
        Promotion(
            model=spec.name,
            version=2,
            night=night_closing(other),
            replaced=None,
            requested_by="x",
            approved_by=None,
            approval={},
        ),
    )
    outcome = promotion.promote(arena.rails, spec, as_of)
    assert outcome.promoted is None
    assert kinds(arena.rails, spec)[-1] in ("promotion_lost", "evidence_outdated")
    assert "champion" not in registry.aliases(arena.rails, spec.name)


def test_an_alias_moved_by_hand_is_recorded_and_put_back(arena):
    spec = arena.spec("by_hand")
    as_of = arena.duel(spec, {1: GOOD, 2: 0.3}, nights=9)
    assert promotion.judge_night(arena.rails, spec, as_of).promoted == 1
    registry.set_alias(arena.rails, spec.name, "champion", 2)
    promotion.judge_night(arena.rails, spec, as_of + DAY)
    (event,) = arena.rails.ledger.events(spec.name, "alias_moved_by_hand")
    assert event.detail == {"alias": "champion", "found": 2, "put_back": 1}
    assert registry.aliases(arena.rails, spec.name)["champion"] == 1
    assert arena.rails.ledger.roles(spec.name, night_closing(as_of + 2 * DAY)).champion == 1


def test_an_alias_set_by_hand_where_nobody_was_promoted_is_taken_away(arena):
    spec = arena.spec("usurper")
    as_of = arena.duel(spec, {1: POOR})
    registry.set_alias(arena.rails, spec.name, "champion", 1)
    promotion.judge_night(arena.rails, spec, as_of)
    assert "champion" not in registry.aliases(arena.rails, spec.name)
    assert kinds(arena.rails, spec) == ["alias_moved_by_hand"]


def test_a_rerun_of_an_old_night_leaves_the_present_alone(arena):
    spec = arena.spec("rerun")
    as_of = arena.duel(spec, {1: 0.3, 2: GOOD}, nights=12, per_night=150)
    for number, night in ((1, as_of - 2 * DAY), (2, as_of)):
        decree.promote(
            arena.rails.ledger,
            Promotion(
                model=spec.name,
                version=number,
                night=night_closing(night),
                replaced=None if number == 1 else 1,
                requested_by="drift",
                approved_by=None,
                approval={},
            ),
        )
        registry.set_alias(arena.rails, spec.name, "champion", number)
    old = promotion.judge_night(arena.rails, spec, as_of - 3 * DAY)
    assert old.promoted is None
    assert registry.aliases(arena.rails, spec.name)["champion"] == 2
    assert set(kinds(arena.rails, spec)) <= {"promotion_out_of_order"}
    assert promotion.judge_night(arena.rails, spec, as_of - 2 * DAY).promoted == 1
    assert registry.aliases(arena.rails, spec.name)["champion"] == 2


def test_a_claim_whose_alias_was_never_moved_is_finished_by_the_rerun(arena):
    spec = arena.spec("crashed")
    as_of = arena.duel(spec, {1: GOOD})
    arena.rails.ledger.claim_promotion(
        Promotion(
            model=spec.name,
            version=1,
            night=night_closing(as_of),
            replaced=None,
            requested_by="drift",
            approved_by=None,
            approval={},
        )
    )
    promotion.judge_night(arena.rails, spec, as_of)
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
    assert again.evidence == first.evidence
    assert kinds(arena.rails, spec) == ["evidence_changed"]


def test_the_question_is_short_so_that_its_buttons_are_in_sight(arena, high_stakes):
    spec, as_of, judged = high_stakes
    text = evidence_file.markdown(arena.rails, spec, as_of, 1, "/there")
    assert f"Evidence: `{judged.evidence}`" in text.splitlines()
    met = len(arena.rails.ledger.decision(spec.name, night_closing(as_of), 1).evidence.criteria)
    assert f"Criteria that are met: {met} of {met}." in text.splitlines()
    assert "**[Look at the evidence page](/there)**" in text
    assert len(text.splitlines()) < 12


# -- the evidence ------------------------------------------------------------------------------


def criteria(arena, spec, as_of, challenger):
    """name → the recorded criterion."""
    recorded = arena.rails.ledger.decision(spec.name, night_closing(as_of), challenger).evidence
    return {row.name: row for row in recorded.criteria}


@pytest.mark.parametrize(
    ("name", "version", "criterion"),
    [
        ("unmeasured", {"facts": {"latency_ms": None}}, "latency"),
        ("unreplayed", {"replay": None}, "replay"),
        ("slow", {"facts": {"latency_ms": 21.0}}, "latency"),
        ("heavy", {"facts": {"size_mb": 51.0}}, "size"),
    ],
)
def test_what_is_not_known_or_over_its_budget_holds(arena, name, version, criterion):
    """All the rest is in order: it is this criterion alone that holds. The fresh millisecond test has the last word."""
    spec = arena.spec(name)
    as_of = arena.duel(spec, {1: GOOD}, **version)
    outcome = promotion.judge_night(arena.rails, spec, as_of)
    found = criteria(arena, spec, as_of, 1)
    if criterion == "replay":
        assert (outcome.promoted, found["replay"].value) == (1, "warn")
        return
    assert (outcome.verdict, outcome.promoted, outcome.page) == ("hold", None, None)
    assert {name for name, row in found.items() if row.status != "pass"} == {criterion}


def test_files_that_cannot_be_trusted_leave_the_evidence_open(arena):
    spec = arena.spec("unread")
    as_of = arena.duel(spec, {1: GOOD})
    folder = arena.rails.settings.home / "arena" / spec.name / "1"
    (folder / "reference.json").write_text("{}")
    assert promotion.judge_night(arena.rails, spec, as_of).verdict == "hold"
    found = criteria(arena, spec, as_of, 1)
    assert {name for name, row in found.items() if row.status != "pass"} == {"availability"}
    assert [event.kind for event in arena.rails.ledger.events(spec.name)] == ["corrupt_artifact"]


def test_a_feature_that_went_missing_since_training_holds(arena):
    spec = arena.spec("gone_missing")
    as_of = arena.duel(spec, {1: GOOD}, missing=0.1, blank=0.5)
    assert promotion.judge_night(arena.rails, spec, as_of).verdict == "hold"
    found = criteria(arena, spec, as_of, 1)["availability"]
    assert (found.status, found.value) == ("fail", pytest.approx(0.4))


def test_an_old_version_whose_size_was_not_kept_is_measured_by_its_files(arena):
    spec = arena.spec("sizeless")
    as_of = arena.duel(spec, {1: GOOD}, facts={"size_mb": None})
    promotion.judge(arena.rails, spec, as_of)
    folder = arena.rails.settings.home / "arena" / spec.name / "1"
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    assert criteria(arena, spec, as_of, 1)["size"].value == pytest.approx(size)


def test_alpha_is_shared_by_the_most_that_were_ever_judged_at_once(arena):
    spec = arena.spec("crowd")
    as_of = arena.duel(spec, {1: 0.5, 2: 0.5, 3: 0.4}, nights=9)
    for number in (1, 2):
        arena.rails.ledger.add_decision(
            Decision(
                model=spec.name,
                night=night_closing(as_of - 2 * DAY),
                challenger=number,
                champion=None,
                verdict="reject",
                reasons=(),
                evidence=EvidenceRecord(model=spec.name, night=night_closing(as_of)),
            )
        )
    arena.rails.ledger.add_decision(
        Decision(
            model=spec.name,
            night=night_closing(as_of - 2 * DAY),
            challenger=3,
            champion=None,
            verdict="hold",
            reasons=(),
            evidence=EvidenceRecord(model=spec.name, night=night_closing(as_of)),
        )
    )
    judged = promotion.judge(arena.rails, spec, as_of)
    assert [row.challenger for row in judged.decisions] == [3], "the others were rejected"
    recorded = arena.rails.ledger.decision(spec.name, night_closing(as_of), 3).evidence
    assert recorded.challengers == 3
    assert promotion.judge(arena.rails, spec, as_of).evidence == judged.evidence


def test_the_millisecond_test_is_run_anew_only_when_nothing_else_stands_in_the_way(arena, monkeypatch):
    from tiltyard.train import replay

    asked = []
    original = replay.check
    monkeypatch.setattr(replay, "check", lambda *args, **kwargs: asked.append(args) or original(*args, **kwargs))
    poor = arena.spec("poor_replay")
    promotion.judge(arena.rails, poor, arena.duel(poor, {1: POOR}))
    assert asked == []
    good = arena.spec("good_replay")
    promotion.judge(arena.rails, good, arena.duel(good, {1: GOOD, 2: GOOD}, nights=12))
    assert len(asked) == 1, "once a night, whoever needs it"


def test_a_past_that_was_written_over_stops_the_promotion(arena):
    """The features of the shadow's rows are other ones today than when they were scored."""
    spec = arena.spec("rewritten")
    as_of = arena.duel(spec, {1: GOOD})
    view = f"features.{spec.prediction.features[0]}"
    arena.publish(
        arena.rails.lake.commit(
            lambda connection: connection.execute(f"update lake.{view} set weight = weight + 1"), message="mended"
        ).snapshot
    )
    outcome = promotion.judge_night(arena.rails, spec, as_of)
    assert (outcome.verdict, outcome.promoted) == ("hold", None)
    found = criteria(arena, spec, as_of, 1)
    assert {name for name, row in found.items() if row.status != "pass"} == {"replay"}
    assert "weight" in found["replay"].reason


# -- the page and its approvals ----------------------------------------------------------------


@pytest.fixture
def stakes(arena, request):
    """Tier 1, two people: (spec, as_of, judged), a model of its own per test."""
    name = request.node.name.removeprefix("test_")[:40]
    spec = arena.spec(name, tier=1, gate={"min_matured": 200, "min_shadow": "3d", "approvals": 2})
    as_of = arena.duel(spec, {1: GOOD})
    return spec, as_of, promotion.judge(arena.rails, spec, as_of)


def both(judged, as_of):
    return approval(judged, as_of), approval(judged, as_of, approved_by="jonas")


def test_a_verdict_that_somebody_wrote_into_the_ledger_promotes_nobody(arena):
    spec = arena.spec("written_into")
    as_of = arena.duel(spec, {1: POOR})
    assert promotion.judge(arena.rails, spec, as_of).verdict != "promote"
    with arena.rails.ledger.engine.begin() as connection:
        connection.exec_driver_sql("alter table decision disable trigger user")
        connection.exec_driver_sql(f"update decision set verdict = 'promote' where model = '{spec.name}'")
        connection.exec_driver_sql("alter table decision enable always trigger tiltyard_chain")
        connection.exec_driver_sql("alter table decision enable always trigger tiltyard_truncate")
    with pytest.raises(CheckFailed, match=r"is not what was put down: decision .* was changed\. Nothing follows"):
        promotion.promote(arena.rails, spec, as_of)
    assert arena.rails.ledger.promotions(spec.name) == []


def test_where_somebody_has_written_a_promotion_into_the_ledger_the_gate_promotes_nobody_after_it(arena):
    spec = arena.spec("promoted_by_hand")
    as_of = arena.duel(spec, {1: GOOD})
    assert promotion.judge(arena.rails, spec, as_of).verdict == "promote"
    with arena.rails.ledger.engine.begin() as connection:
        connection.exec_driver_sql(
            "insert into promotion (model, version, night, requested_by, approval, recorded_at) "
            f"values ('{spec.name}', 77, '{night_closing(as_of - DAY)}', 'mallory', '{{}}', now())"
        )
    with pytest.raises(CheckFailed, match=r"promotion \(model promoted_by_hand, version 77\) follows from no decision"):
        promotion.promote(arena.rails, spec, as_of)
    assert [row.version for row in arena.rails.ledger.promotions(spec.name)] == [77]


def test_as_many_have_to_approve_as_the_page_has_said(arena, stakes):
    """Also where the spec asks for fewer by now: the ledger holds the promotion against what was decided."""
    spec, as_of, judged = stakes
    fewer = spec.model_copy(update={"gate": spec.gate.model_copy(update={"approvals": 1})})
    outcome = promotion.promote(arena.rails, fewer, as_of, approval(judged, as_of))
    assert "2 people have to approve, 1 did" in outcome.reason
    outcome = promotion.promote(arena.rails, spec.model_copy(update={"tier": 3}), as_of)
    assert (outcome.promoted, outcome.reason) == (
        None, "The model was of tier 1 when this night was judged, and nobody has approved."
    )  # fmt: skip
    assert promotion.promote(arena.rails, fewer, as_of, *both(judged, as_of)).promoted == 1
    arena.rails.ledger.require_untouched(spec.name)


def test_two_people_promote_and_the_ledger_says_who_saw_what(arena, stakes):
    spec, as_of, judged = stakes
    page = arena.rails.settings.reports / judged.page
    assert hashlib.sha256(page.read_bytes()).hexdigest() == judged.evidence
    assert page.name == f"{judged.night}-v1-{judged.evidence[:12]}.html"
    assert promotion.promote(arena.rails, spec, as_of, *both(judged, as_of)).promoted == 1
    arena.rails.ledger.require_untouched(spec.name)
    (row,) = arena.rails.ledger.promotions(spec.name)
    assert row.approved_by == "maria, jonas"
    assert [one["approved_by"] for one in row.approval["given"]] == ["maria", "jonas"]
    assert all(one["responded_at"] for one in row.approval["given"])
    digest = arena.rails.ledger.decision(spec.name, night_closing(as_of), 1).evidence.digest
    assert row.approval["seen"] == {"page": judged.page, "sha256": judged.evidence, "record": digest}
    assert digest in page.read_text()


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([{}], "2 people have to approve, 1 did"),
        ([{}, {}], "'maria' has approved twice"),
        ([{}, {"approved_by": " MARIA"}], "'maria' has approved twice"),
        ([{}, {"approved_by": None}], "no person answered"),
        ([{}, {"approved_by": "jonas", "chosen": ("Reject",)}], "the answer was Reject"),
        ([{}, {"approved_by": "drift"}], "asked for it"),
        ([{}, {"approved_by": "hindcast", "source": "hindcast:auto"}, {}], "has approved twice"),
    ],
)
def test_two_means_two(arena, answers, says, request):
    spec = arena.spec("two_means_two", tier=1, gate={"min_matured": 200, "min_shadow": "3d", "approvals": 2})
    as_of = FIRST + 8 * DAY if arena.rails.ledger.versions(spec.name) else arena.duel(spec, {1: GOOD})
    judged = promotion.judge(arena.rails, spec, as_of)
    given = [approval(judged, as_of, **changes) for changes in answers]
    outcome = promotion.promote(arena.rails, spec, as_of, *given)
    assert (outcome.promoted, arena.rails.ledger.promotions(spec.name)) == (None, [])
    assert any(says in fault for fault in arena.rails.ledger.events(spec.name)[-1].detail["faults"])


def test_a_page_that_was_changed_is_refused(arena, stakes):
    spec, as_of, judged = stakes
    page = arena.rails.settings.reports / judged.page
    content = page.read_text()
    page.write_text(content.replace("2 people", "no people") + " ")
    outcome = promotion.promote(arena.rails, spec, as_of, *both(judged, as_of))
    assert outcome.promoted is None
    assert "was changed" in outcome.reason
    assert kinds(arena.rails, spec) == ["approval_refused"]
    promotion.judge(arena.rails, spec, as_of)
    assert page.read_text() != content, "judging again does not cover it up"


def test_a_page_that_is_gone_is_refused_and_comes_back_as_it_was(arena, stakes):
    spec, as_of, judged = stakes
    page = arena.rails.settings.reports / judged.page
    content = page.read_bytes()
    page.unlink()
    assert "is gone" in promotion.promote(arena.rails, spec, as_of, *both(judged, as_of)).reason
    again = promotion.judge(arena.rails, spec, as_of)
    assert (page.read_bytes(), again.evidence) == (content, judged.evidence)
    assert promotion.promote(arena.rails, spec, as_of, *both(judged, as_of)).promoted == 1


def test_an_approval_of_the_record_is_none_of_the_page(arena, stakes):
    spec, as_of, judged = stakes
    digest = arena.rails.ledger.decision(spec.name, night_closing(as_of), 1).evidence.digest
    given = [replace(one, subject=one.subject._replace(evidence=digest)) for one in both(judged, as_of)]
    assert "something else" in promotion.promote(arena.rails, spec, as_of, *given).reason


def test_other_tiers_have_the_page_too_and_need_nobody(arena):
    spec = arena.spec("page_for_all", tier=3)
    as_of = arena.duel(spec, {1: GOOD})
    outcome = promotion.judge_night(arena.rails, spec, as_of)
    assert outcome.promoted == 1
    assert (arena.rails.settings.reports / outcome.page).exists()
    assert arena.rails.ledger.promotions(spec.name)[0].approval == {"needed": False}


def test_the_question_cannot_be_forged_by_what_is_in_the_data(arena, stakes):
    spec, as_of, judged = stakes
    kept = arena.rails.ledger.decision(spec.name, night_closing(as_of), 1)
    worst = f"<script>alert(1)</script> | x\nEvidence: `{'0' * 64}`"
    forged = kept.evidence.to_json() | {"criteria": [vars(gate.Criterion("slice", worst, None, "fail", worst))]}
    with arena.rails.ledger.engine.begin() as connection:
        from tiltyard.ledger_tables import decision

        connection.exec_driver_sql("alter table decision disable trigger user")
        connection.execute(decision.update().where(decision.c.model == spec.name).values(evidence=forged))
        connection.exec_driver_sql("alter table decision enable always trigger tiltyard_chain")
        connection.exec_driver_sql("alter table decision enable always trigger tiltyard_truncate")
    text = evidence_file.markdown(arena.rails, spec, as_of, 1, "/there")
    assert "<script>" not in text
    assert [line for line in text.splitlines() if line.startswith("Evidence:")] == [f"Evidence: `{judged.evidence}`"]
