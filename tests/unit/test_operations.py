"""What persons do by hand, in the ledger: decided once however many ask at once, seen by roles, claims and the tide."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.unit.test_ledger import FIRST, night, promotion, train
from tiltyard import clock, ledger_tables
from tiltyard import ledger as ledger_module
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput
from tiltyard.judge import operate
from tiltyard.ledger import Ledger
from tiltyard.rails import Rails
from tiltyard.records import EvidenceRecord, Operation, OperationAction, ShadowSummary, Watch
from tiltyard.settings import ROOT
from tiltyard.spec import Spec, find
from tiltyard.succession import Roles
from tiltyard.train import registry

SPEC = find(ROOT / "models", "churn").model_copy(update={"name": "m", "tier": 2})
HIGH = SPEC.model_copy(update={"tier": 1})


@pytest.fixture
def rails(rails: Rails, tmp_path: Path) -> Rails:
    """Versions 1 and 2 were trained and promoted, the newest night is the fifth. The model is of tier 1 in its spec."""
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    text = (ROOT / "models" / "churn" / "spec.yaml").read_text()
    (folder / "spec.yaml").write_text(re.sub(r"(?m)^tier:.*$", "tier: 1", text))
    ledger = rails.ledger
    for version in (1, 2):
        train(ledger, version, on=version)
    assert ledger.claim_promotion(promotion(1, on=3))
    assert ledger.claim_promotion(promotion(2, on=4, replaced=1))
    ledger.record_stage("m", night(5), "done", ShadowSummary())
    settings = rails.settings.model_copy(update={"models": folder.parent})
    client = registry.client(settings)
    client.create_registered_model("m")
    for version in (1, 2):
        assert int(client.create_model_version("m", source=(tmp_path / str(version)).as_uri()).version) == version
    return replace(rails, settings=settings)


def ask(
    rails: Rails, action: OperationAction, to: int | None = None, *, spec: Spec = SPEC, by: str = "ann", **more: object
) -> operate.Operated:
    return operate.request(
        rails, spec, action, to=to, reason="it answers too high", by=by, source="command line", now=clock.now(), **more
    )  # type: ignore[arg-type]


def serving(ledger: Ledger, on: int) -> int | None:
    return ledger.roles("m", night(on)).champion


def test_a_rollback_holds_from_the_next_night_on_and_the_aliases_follow(rails: Rails) -> None:
    tide = rails.ledger.tide()
    done = ask(rails, "rollback")
    assert done.sentence == (
        "Ann rolled m back to version 1 on the night of 2016-04-05 (it answers too high): version 1 answers at once "
        "online, and from the next night on in the batch."
    )
    assert [serving(rails.ledger, on) for on in (4, 5, 6)] == [1, 2, 1]
    assert rails.ledger.roles("m", date.max) == Roles(champion=1, previous=None, challengers=(), first=1)
    assert registry.aliases(rails, "m") == {"champion": 1}
    assert rails.ledger.tide() != tide, "the service looks"
    [event] = rails.ledger.events("m", "operation_done")
    assert (event.night, event.detail["action"], event.detail["by"]) == (night(5), "rollback", "ann")
    again = ask(rails, "rollback")
    assert (again.operation, again.sentence.split(" already")[0]) == (
        None, "m went back to version 1 on the night of 2016-04-05",
    )  # fmt: skip
    assert len(operate.listing(rails)) == 1


def test_a_dry_run_does_nothing(rails: Rails) -> None:
    tide = rails.ledger.tide()
    assert ask(rails, "rollback", dry_run=True).sentence == "It would roll m back to version 1."
    assert "a second person would have to confirm it" in ask(rails, "freeze", spec=HIGH, dry_run=True).sentence
    assert (rails.ledger.tide(), operate.listing(rails)) == (tide, [])


def test_of_two_who_ask_at_once_one_is_told_that_it_is_so_already(rails: Rails) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = [*pool.map(lambda number: ask(rails, "rollback", by=f"person {number}"), range(8))]
    [done] = [one.operation for one in asked if one.operation]
    assert serving(rails.ledger, 6) == 1
    assert operate.listing(rails) == [done]
    assert all("already" in one.sentence for one in asked if one.operation is None)


def test_a_promotion_and_a_rollback_by_hand_at_once_are_one_after_the_other(rails: Rails) -> None:
    """Whichever comes first: a person's word is the last one on its night."""
    train(rails.ledger, 3, on=4)
    with ThreadPoolExecutor(2) as pool:
        claimed = pool.submit(rails.ledger.claim_promotion, promotion(3, on=5, replaced=2))
        asked = pool.submit(ask, rails, "rollback", 1)
    assert asked.result().operation
    assert isinstance(claimed.result(), bool)
    assert serving(rails.ledger, 6) == 1


@pytest.mark.parametrize("action", ["freeze", "pin", "retire"])
def test_nothing_is_claimed_of_a_model_that_is_held(rails: Rails, action: OperationAction) -> None:
    train(rails.ledger, 3, on=4)
    assert ask(rails, action).operation
    for on in (3, 5, 6):
        assert not rails.ledger.claim_promotion(promotion(3, on=on, replaced=2)), on
    rolled = Watch(model="m", night=night(6), champion=2, previous=1, verdict="rollback", reasons=("worse",),
                   evidence=EvidenceRecord(model="m", night=night(6)))  # fmt: skip
    assert rails.ledger.add_watch(rolled) is None
    assert ask(rails, f"un{action}").operation  # type: ignore[arg-type]
    is_over = action != "freeze"
    assert not is_over or not rails.ledger.claim_promotion(promotion(3, on=5, replaced=2)), "a person had the last word"
    assert rails.ledger.claim_promotion(promotion(3, on=6, replaced=2))


def test_a_change_by_hand_leaves_the_nights_before_it_as_they_were(rails: Rails) -> None:
    before = {on: rails.ledger.roles("m", night(on)) for on in range(1, 6)}
    for action in ("rollback", "freeze", "retire", "unretire", "unfreeze", "pin", "unpin"):
        assert ask(rails, action).operation, action  # type: ignore[arg-type]
    assert {on: rails.ledger.roles("m", night(on)) for on in range(1, 6)} == before


def test_tier_1_takes_a_second_person_and_the_first_one_is_none(rails: Rails) -> None:
    asked = ask(rails, "rollback", spec=HIGH)
    assert asked.waits
    assert asked.operation
    number = asked.operation.id
    assert (serving(rails.ledger, 6), registry.aliases(rails, "m")) == (2, {})
    again = ask(rails, "rollback", spec=HIGH)
    assert (again.operation, again.waits) == (asked.operation, True), "there is one, however often it is asked for"
    with pytest.raises(BadInput, match="ann asked for operation 1 and cannot confirm it"):
        operate.approve(rails, number, by="ANN", now=clock.now())
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(operate.approve, rails, number, by=f"person {n}", now=clock.now()) for n in range(4)]
    assert sum(answer.exception() is None for answer in answers) == 1
    assert {str(answer.exception()) for answer in answers if answer.exception()} == {"Operation 1 is done already."}
    assert serving(rails.ledger, 6) == 1
    assert [event.kind for event in rails.ledger.events("m")] == ["operation_asked", "operation_done"]


def test_silence_is_a_no_and_a_refusal_needs_a_reason(rails: Rails) -> None:
    asked = ask(rails, "freeze", spec=HIGH).operation
    assert asked
    late = clock.now() + HIGH.gate.approval_timeout + timedelta(minutes=1)
    with pytest.raises(BadInput, match="which is a no; ask anew"):
        operate.approve(rails, asked.id, by="bob", now=late)
    with pytest.raises(BadInput, match="Say why"):
        operate.refuse(rails, asked.id, by="ann", reason=" ", now=clock.now())
    assert operate.refuse(rails, asked.id, by="ann", reason="it has mended itself", now=clock.now()).operation
    with pytest.raises(BadInput, match="Operation 1 is refused already"):
        operate.approve(rails, asked.id, by="bob", now=clock.now())
    assert rails.ledger.operations.standing("m").hold is None
    assert ask(rails, "freeze", spec=HIGH).waits, "it may be asked for again"


def test_only_those_who_may_answer_for_the_owner_confirm(rails: Rails) -> None:
    rules = "approvers: {subscriptions: {people: [ann, bob], delegates: [{from: bob, to: cid, until: 2099-01-01}]}}\n"
    (rails.settings.models / "portfolio.yaml").write_text(rules.replace("subscriptions", SPEC.owner))
    asked = ask(rails, "rollback", spec=HIGH).operation
    assert asked
    with pytest.raises(BadInput, match="'eve' may not confirm what is this owner's; these may: cid, bob"):
        operate.approve(rails, asked.id, by="eve", now=clock.now())
    (rails.settings.models / "portfolio.yaml").write_text("approvers: [")
    with pytest.raises(BadInput, match=r"portfolio\.yaml"):
        operate.approve(rails, asked.id, by="cid", now=clock.now())  # what cannot be read lets nobody in
    (rails.settings.models / "portfolio.yaml").write_text(rules.replace("subscriptions", SPEC.owner))
    assert operate.approve(rails, asked.id, by="cid", now=clock.now()).operation
    assert serving(rails.ledger, 6) == 1


def test_what_is_done_holds_though_mlflow_does_not_know_the_model(rails: Rails) -> None:
    registry.client(rails.settings).delete_registered_model("m")
    done = ask(rails, "rollback")
    assert done.operation
    assert done.sentence.endswith("MLflow's aliases follow with the next night (MlflowException).")
    assert serving(rails.ledger, 6) == 1


def test_nothing_is_done_by_hand_while_a_hindcast_plays_the_model(rails: Rails) -> None:
    asked = ask(rails, "freeze", spec=HIGH).operation
    assert asked
    with rails.ledger.playing(["m"]):
        with pytest.raises(BadInput, match="A hindcast plays m at this moment"):
            ask(rails, "rollback")
        with pytest.raises(BadInput, match="A hindcast plays m at this moment"):
            operate.approve(rails, asked.id, by="bob", now=clock.now())
    assert ask(rails, "rollback", dry_run=True).is_dry


def test_a_home_of_before_gets_the_tables_and_keeps_what_it_had(rails: Rails) -> None:
    tables = (ledger_tables.operation_end, ledger_tables.operation)
    with rails.ledger.engine.begin() as connection:
        for table in tables:
            connection.execute(sa.schema.DropTable(table))
    ledger_module._made.clear()  # as another process finds it
    with rails_module.opened(rails.settings) as opened:
        assert ask(opened, "rollback").operation
        assert serving(opened.ledger, 6) == 1
        assert [entry.version for entry in opened.ledger.promotions("m")] == [1, 2]
    with rails_module.opened(rails.settings) as again:
        [kept] = operate.listing(again)
    assert isinstance(kept, Operation)
    assert (kept.action, kept.version, kept.before, kept.night) == ("rollback", 1, 2, FIRST + timedelta(days=4))
