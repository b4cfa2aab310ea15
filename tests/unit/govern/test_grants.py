"""The governor stage on a ledger: what it writes, what a night done again does, what a person may release."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tiltyard import clock
from tiltyard.edge import describe
from tiltyard.errors import BadInput
from tiltyard.govern import grants, standing
from tiltyard.judge import operate
from tiltyard.portfolio_rules import Portfolio
from tiltyard.prepare import data_incidents
from tiltyard.rails import Rails
from tiltyard.records import (
    Broken,
    DataIncident,
    Decision,
    EvidenceRecord,
    FeaturesSummary,
    Finding,
    GovernorSummary,
    PortfolioNight,
    Promotion,
    ShadowSummary,
    Signal,
    SinceTraining,
    TableState,
    TrainingSummary,
    Version,
    VersionFacts,
)
from tiltyard.settings import ROOT
from tiltyard.spec import RetrainPolicy, Spec, find

NIGHT = date(2025, 2, 3)
CHURN = find(ROOT / "models", "churn")


def specs(number: int, **changes: Any) -> list[Spec]:
    """The churn model under several names."""
    return [CHURN.model_copy(update={"name": f"churn_{place:02}", **changes}) for place in range(number)]


def add_finding(rails: Rails, spec: Spec, night: date = NIGHT, **values: Any) -> None:
    defaults: dict[str, Any] = {"champion": 1, "challengers": (), "alarm": True, "harm": "felt"}
    rails.ledger.add_finding(
        Finding(model=spec.name, night=night, tier=spec.tier, owner=spec.owner, **{**defaults, **values})
    )


def moved(column: str = "last_amount_eur", view: str = "ftr_customer__payments") -> tuple[Signal, ...]:
    return (Signal("feature", column, view, "wasserstein", 2.0, 0.1, True),)


def govern(rails: Rails, chosen: list[Spec], night: date = NIGHT, **portfolio: Any) -> PortfolioNight:
    return grants.govern_night(rails, clock.midnight(night), chosen, Portfolio.model_validate(portfolio))


@pytest.fixture
def rails(rails: Rails, manifest: Path) -> Rails:
    """With two sources, and the manifest of the real project, as a build leaves it."""
    target = rails.settings.home / "dbt" / "manifest.json"
    target.parent.mkdir(parents=True)
    target.write_bytes(manifest.read_bytes())
    return replace(rails, settings=rails.settings.model_copy(update={"sources": ("subscription", "incident")}))


def test_a_granted_retrain_is_in_the_ledger_and_a_night_again_adds_nothing(rails: Rails) -> None:
    chosen = specs(2)
    for spec in chosen:
        add_finding(rails, spec)
    outcome = govern(rails, chosen, trainings={"per_night": 1})
    assert list(outcome.granted) == ["churn_00"]
    assert outcome.actions["churn_01"].decision == "queued"
    assert [(row.model, row.night) for row in rails.ledger.retrains()] == [("churn_00", NIGHT)]
    assert govern(rails, chosen, trainings={"per_night": 1}) == outcome
    assert len(rails.ledger.retrains()) == 1
    assert grants.decided(rails, "churn_01", NIGHT).decision == "queued"

    # the next night the other one goes; the first trains and cools down
    for spec in chosen:
        add_finding(rails, spec, NIGHT + timedelta(days=1))
    rails.ledger.record_stage("churn_00", NIGHT, "done", TrainingSummary(version=1))
    later = govern(rails, chosen, NIGHT + timedelta(days=1), trainings={"per_night": 1})
    assert list(later.granted) == ["churn_01"]
    assert later.actions["churn_00"].decision == "cooldown"


def test_nothing_is_granted_to_a_frozen_model_and_nothing_is_said_of_a_retired_one(rails: Rails) -> None:
    chosen = specs(3)
    for spec in chosen:
        rails.ledger.record_stage(spec.name, NIGHT, "done", ShadowSummary())
    for spec, action in zip(chosen, ("freeze", "retire"), strict=False):
        assert operate.request(
            rails, spec, action, reason="an audit", by="ann", source="command line", now=clock.now()
        ).operation  # type: ignore[arg-type]
    for night in (NIGHT, NIGHT + timedelta(days=1)):
        for spec in chosen:
            add_finding(rails, spec, night)
    assert list(govern(rails, chosen).granted) == [spec.name for spec in chosen], "on the night of before"
    for spec in chosen:
        rails.ledger.record_stage(spec.name, NIGHT, "done", TrainingSummary())  # which came to nothing
    later = govern(rails, chosen, NIGHT + timedelta(days=1))
    assert list(later.granted) == ["churn_02"]
    assert sorted(later.actions) == ["churn_00", "churn_02"]
    assert later.actions["churn_00"].decision == "report"
    assert later.actions["churn_00"].reasons[-1] == "it is frozen since the night of 2025-02-03 by ann (an audit)"


def test_a_retrain_that_is_due_by_age_is_granted_and_its_reason_kept(rails: Rails) -> None:
    rule = RetrainPolicy.model_validate({"every": "28d"})
    [spec] = specs(1, retrain=rule)
    trained = SinceTraining(NIGHT - timedelta(days=28))
    add_finding(rails, spec, alarm=False, since_training=trained)
    assert list(govern(rails, [spec]).granted) == [spec.name]
    [retrain] = rails.ledger.retrains()
    assert retrain.reasons[-1] == "the newest version is 28 nights old, retrain.every is 28d"


def test_a_training_that_is_not_done_takes_up_its_place_for_a_night(rails: Rails) -> None:
    chosen = specs(2)
    add_finding(rails, chosen[0])
    assert list(govern(rails, chosen[:1], trainings={"per_night": 1}).granted) == ["churn_00"]
    for days, decision in ((1, "queued"), (2, "retrain")):  # after two nights without a word it has failed
        night = NIGHT + timedelta(days=days)
        add_finding(rails, chosen[1], night)
        outcome = govern(rails, chosen, night, trainings={"per_night": 1})
        assert outcome.actions["churn_01"].decision == decision
        assert outcome.actions["churn_00"].decision == "waiting"


def test_what_became_of_a_retrain_is_read_from_the_ledger(rails: Rails) -> None:
    spec = specs(1)[0]
    history = [NIGHT + timedelta(days=number) for number in (0, 10, 30)]
    for number, night in enumerate(history, start=1):
        rails.ledger.request_retrain(spec.name, night, ["drift"])
        rails.ledger.record_stage(spec.name, night, "done", TrainingSummary(version=number))
        rails.ledger.add_version(
            Version(
                model=spec.name,
                version=number,
                night=night,
                inputs=f"{number}",
                run_id="",
                digests={},
                facts=VersionFacts(),
                requested_by="test",
            )
        )
    rails.ledger.claim_promotion(
        Promotion(model=spec.name, version=1, night=NIGHT + timedelta(days=8), requested_by="test", approval={})
    )
    rails.ledger.add_decision(
        Decision(
            model=spec.name,
            night=NIGHT + timedelta(days=25),
            challenger=2,
            champion=1,
            verdict="reject",
            reasons=(),
            evidence=EvidenceRecord(model=spec.name, night=NIGHT),
        )
    )
    past = grants._pasts(rails, NIGHT + timedelta(days=20))[spec.name]
    assert [grant.became for grant in past.grants] == ["promoted", "pending"]
    past = grants._pasts(rails, NIGHT + timedelta(days=31))[spec.name]
    assert [grant.became for grant in past.grants] == ["promoted", "rejected", "pending"]
    assert past.best == NIGHT
    # one rejected since the champion's training: the wait is fourteen nights
    night = NIGHT + timedelta(days=38)
    add_finding(rails, spec, night)
    assert "2025-03-19; 1 retrain" in govern(rails, [spec], night).actions[spec.name].reasons[-1]


def test_one_break_over_eighty_models_is_one_incident_in_the_ledger(rails: Rails) -> None:
    chosen = specs(80)
    for spec in chosen:
        add_finding(rails, spec, broken=(Broken("raw.login", "device", "raw.login.device went null"),), signals=moved())
    outcome = govern(rails, chosen)
    assert outcome.granted == {} and rails.ledger.retrains() == []
    assert outcome.decisions == {"incident": 80}
    [incident] = rails.ledger.incidents(NIGHT)
    assert (incident.node, incident.kind, len(incident.models)) == ("raw.login", "broken", 80)
    assert [incident.node for incident in standing.incidents(rails)] == ["raw.login"]
    with pytest.raises(BadInput, match="nobody can release"):
        grants.release(rails, "raw.login", by="alice", reason="never mind")

    # the next night is clean, and the incident is over
    for spec in chosen:
        add_finding(rails, spec, NIGHT + timedelta(days=1), alarm=False)
    govern(rails, chosen, NIGHT + timedelta(days=1))
    assert standing.incidents(rails) == []
    assert [incident.node for incident in standing.incidents(rails, clock.midnight(NIGHT))] == ["raw.login"]


def opened(rails: Rails, night: date, state: str, table: str = "raw.login", column: str = "device") -> None:
    detail = {"source": "subscription", "table": table, "column": column, "what": "went_null", "reason": "all missing"}
    rails.ledger.add_event(data_incidents.EVENT, "", night, {**detail, "since": str(NIGHT), "state": state})


def test_an_incident_that_is_mended_says_with_which_night_it_closes(rails: Rails) -> None:
    """Also where only the stage was done again; and a past night is told as the ledger has it."""
    spec, following = CHURN, NIGHT + timedelta(days=1)
    said = str(DataIncident(table="raw.login", column="device", what="went_null", reason="", since=NIGHT))
    rails.ledger.record_stage("subscription", NIGHT, "done", FeaturesSummary())
    opened(rails, NIGHT, "open")
    add_finding(rails, spec, broken=(Broken("raw.login", "device", said),))
    govern(rails, [spec])
    [open_now] = standing.incidents(rails)
    assert (open_now.node, open_now.closing) == ("raw.login", None)

    rails.ledger.record_stage("subscription", following, "checked", FeaturesSummary())
    opened(rails, following, "closed")
    [mended] = standing.incidents(rails)
    assert mended.closing == f"mended, closes with the night of {following}"
    assert standing.of_model(rails, spec, following) == (mended,)
    assert standing.incidents(rails, clock.midnight(NIGHT)) == [open_now], "on its night it was open"
    assert "mended, closes with the night of 2025-02-04" in describe.incidents([mended])

    add_finding(rails, spec, following, alarm=False)
    govern(rails, [spec], following)
    assert standing.incidents(rails) == []


@pytest.mark.parametrize("stage", ["shadow", "features"])
def test_a_stage_that_was_done_again_closes_its_incident_with_the_next_night(rails: Rails, stage: str) -> None:
    add_finding(rails, CHURN, broken=(Broken(stage, None, f"the {stage} stage of {NIGHT} is failed"),))
    govern(rails, [CHURN])
    [open_now] = standing.incidents(rails)
    assert open_now.closing is None
    name, summary = ("churn", ShadowSummary()) if stage == "shadow" else ("subscription", FeaturesSummary())
    rails.ledger.record_stage(name, NIGHT, "done", summary)
    [mended] = standing.incidents(rails)
    assert mended.closing == "mended, closes with the night of 2025-02-04"


def test_a_table_that_is_good_again_closes_its_incident_with_the_next_night(rails: Rails) -> None:
    view, following = "ftr_customer__activity", NIGHT + timedelta(days=1)
    held = TableState(night=NIGHT, table=view, state="held", since=NIGHT, reason="no rows", cause=view)
    rails.ledger.publish([held], NIGHT, "stopped", FeaturesSummary(), "subscription")
    add_finding(rails, CHURN, broken=(Broken(view, None, str(held)),))
    govern(rails, [CHURN])
    assert [one.closing for one in standing.incidents(rails)] == [None]
    good = TableState(night=following, table=view, state="published", snapshot=1, good_night=following)
    rails.ledger.publish([good], following, "done", FeaturesSummary(), "subscription")
    assert [one.closing for one in standing.incidents(rails)] == ["mended, closes with the night of 2025-02-04"]


def test_what_the_governor_has_not_counted_is_open_as_well(rails: Rails) -> None:
    """A data incident of a night that it has not come to, and one that holds no model."""
    rails.ledger.record_stage("subscription", NIGHT, "done", FeaturesSummary())
    opened(rails, NIGHT, "open")
    opened(rails, NIGHT, "open", "lbl_another", "")
    second, first = standing.incidents(rails)
    assert (first.node, first.columns, first.kind, first.night) == ("raw.login", ("device",), "broken", NIGHT)
    assert "churn" in first.models
    assert (second.node, second.models) == ("lbl_another", ())
    assert [one.node for one in standing.of_model(rails, CHURN, NIGHT)] == ["lbl_another", "raw.login"]
    assert "lbl_another broken since 2025-02-03, no model: " in describe.incidents([second])


def test_each_source_has_incidents_of_its_own_newest_night(rails: Rails) -> None:
    """The data of two sources may be years apart: the newest governed night of one hides nothing of the other."""
    other = find(ROOT / "models", "sla_breach")
    long_ago = date(2016, 5, 2)
    rails.ledger.record_stage("incident", long_ago, "done", FeaturesSummary())
    rails.ledger.record_stage("subscription", NIGHT, "done", FeaturesSummary())
    add_finding(rails, other, long_ago, broken=(Broken("features", None, "the features stage is stopped"),))
    govern(rails, [other], long_ago)
    add_finding(rails, CHURN, alarm=False)
    govern(rails, [CHURN])
    assert [(one.night, one.models) for one in standing.incidents(rails)] == [(long_ago, ("sla_breach",))]


def test_a_shared_shift_is_held_until_a_person_releases_it(rails: Rails) -> None:
    chosen = specs(5)
    nights = [NIGHT + timedelta(days=number) for number in range(3)]
    for night in nights[:2]:
        for spec in chosen:
            add_finding(rails, spec, night, signals=moved())
        assert govern(rails, chosen, night).decisions == {"incident": 5}
    [open_now] = standing.incidents(rails)
    assert (open_now.node, open_now.kind) == ("ftr_customer__payments", "shared_shift")
    assert (open_now.since, open_now.night) == (nights[0], nights[1])

    with pytest.raises(BadInput, match="needs a reason"):
        grants.release(rails, "ftr_customer__payments", by="alice", reason=" ")
    with pytest.raises(BadInput, match="may release are: ftr_customer__payments"):
        grants.release(rails, "raw.payment", by="alice", reason="prices rose")
    released = grants.release(rails, "ftr_customer__payments", by="alice", reason="prices rose")
    assert (released.by, released.night, len(released.models)) == ("alice", nights[1], 5)

    [closing] = standing.incidents(rails)
    assert closing.closing == f"released by alice, closes with the night of {nights[2]}"

    for spec in chosen:
        add_finding(rails, spec, nights[2], signals=moved())
    assert govern(rails, chosen, nights[2]).decisions == {"retrain": 5}
    assert standing.incidents(rails) == []
    assert rails.ledger.events(kind=data_incidents.RELEASED)[0].detail["reason"] == "prices rose"
    # and the night before the person's word stays what it was
    assert govern(rails, chosen, nights[0]).decisions == {"incident": 5}


def test_after_a_mended_incident_the_window_still_echoes(rails: Rails) -> None:
    spec = specs(1)[0]
    detail = {"source": "subscription", "table": "raw.payment", "column": "amount_eur", "what": "went_null"}
    detail |= {"said": "all missing", "since": "2025-01-30"}
    rails.ledger.add_event(data_incidents.EVENT, "", date(2025, 1, 30), {**detail, "state": "open"})
    rails.ledger.add_event(data_incidents.EVENT, "", date(2025, 2, 1), {**detail, "state": "closed"})
    assert data_incidents.mended(rails, NIGHT) == [("raw.payment", "amount_eur", date(2025, 1, 31))]
    for night, decision in ((NIGHT, "report"), (date(2025, 2, 8), "retrain")):
        add_finding(rails, spec, night, signals=moved())
        assert govern(rails, [spec], night).actions[spec.name].decision == decision


def test_a_night_waits_for_its_models_until_the_next_one_is_published(rails: Rails) -> None:
    chosen = specs(3)
    rails.ledger.record_stage("", NIGHT, "done", FeaturesSummary(snapshot=1))
    add_finding(rails, chosen[0])
    assert grants.waiting(rails, chosen, NIGHT, clock.now()) == ["churn_01", "churn_02"]
    rails.ledger.record_stage("churn_01", NIGHT, "failed", ShadowSummary())
    assert grants.waiting(rails, chosen, NIGHT, clock.now()) == ["churn_02"]
    rails.ledger.record_stage("", NIGHT + timedelta(days=1), "done", FeaturesSummary(snapshot=2))
    assert grants.waiting(rails, chosen, NIGHT, clock.now()) == []
    assert govern(rails, chosen).decisions == {"retrain": 1, "waiting": 2}
    assert grants.undecided(rails, ["churn_00", "churn_01"], NIGHT) == ["churn_01"]


def test_a_run_for_some_models_leaves_what_was_said_of_the_others(rails: Rails) -> None:
    chosen = specs(8)
    for place, spec in enumerate(chosen):
        add_finding(rails, spec, signals=moved() if place < 4 else ())
    govern(rails, chosen[:4])
    outcome = govern(rails, chosen[4:], trainings={"per_night": 2})
    assert outcome.decisions == {"queued": 2, "retrain": 2}
    assert grants.decided(rails, "churn_00", NIGHT).decision == "incident"
    assert [(incident.node, len(incident.models)) for incident in rails.ledger.incidents(NIGHT)] == [
        ("ftr_customer__payments", 4)
    ]
    assert {entry[0] for entry in rails.ledger.stage_run(GovernorSummary, "", NIGHT).summary.since} == {
        spec.name for spec in chosen[:4]
    }


def test_findings_of_a_night_come_back_and_a_strange_one_is_none(rails: Rails) -> None:
    chosen = specs(2)
    for spec in chosen:
        add_finding(rails, spec, signals=moved())
    findings = rails.ledger.findings(NIGHT)
    assert [finding.model for finding in findings] == ["churn_00", "churn_01"]
    assert findings[0].signals == moved()
    rails.ledger._upsert(_finding_table(), model="churn_00", night=NIGHT, body={"model": "churn_00"})
    assert [finding.model for finding in rails.ledger.findings(NIGHT)] == ["churn_01"]
    assert govern(rails, chosen).actions["churn_00"].decision == "waiting"


def _finding_table() -> Any:
    from tiltyard import ledger_tables

    return ledger_tables.finding
