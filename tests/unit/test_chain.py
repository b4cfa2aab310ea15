"""The chain: what was decided is changed, taken out or put in by nobody without being found out."""

import multiprocessing
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import pytest
import sqlalchemy as sa

from tiltyard import chain, clock, ledger_tables
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.ledger import Ledger
from tiltyard.rails import Rails
from tiltyard.records import Decision, EvidenceRecord, PromiseRecord, TrainedFrom, Version, VersionFacts
from tiltyard.settings import Settings

NIGHT = date(2025, 5, 30)


def version(number: int, model: str = "churn") -> Version:
    return Version(
        model=model, version=number, night=NIGHT, inputs=f"{model}{number}", run_id="run",
        digests={"model.onnx": "aa", "light.onnx": "bb"}, facts=VersionFacts(), requested_by="ann",
    )  # fmt: skip


def decided(
    ledger: Ledger, challenger: int, model: str = "churn", night: date = NIGHT,
    verdict: Literal["promote", "hold", "reject"] = "hold", approvals: int = 0,
) -> None:  # fmt: skip
    training = TrainedFrom(rows=9, start=None, end=None, frame=None, git_commit=None, reasons=())
    promise = PromiseRecord(owner="ann", tier=1 if approvals else 2, approvals=approvals, policy={}, trained_on=NIGHT,
                            trained_by="ann", training=training)  # fmt: skip
    evidence = EvidenceRecord(
        model=model,
        night=night,
        challenger=challenger,
        champion=None,
        promise=promise if verdict == "promote" else None,
    ).signed(verdict)
    ledger.add_decision(
        Decision(model=model, night=night, challenger=challenger, champion=None, verdict=verdict, reasons=("few",),
                 evidence=evidence)
    )  # fmt: skip


def sql(ledger: Ledger, *statements: str) -> None:
    """As whoever has the ledger's password may: with the triggers on, in one transaction."""
    with ledger.engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def promoting(number: int, *, night: date = NIGHT, replaced: str = "null", approval: str = "{}") -> str:
    return (
        "insert into promotion (model, version, night, replaced, requested_by, approval, recorded_at) "
        f"values ('churn', {number}, '{night}', {replaced}, 'mallory', '{approval}', now())"
    )


def behind_its_back(ledger: Ledger, *statements: str, table: str = "decision") -> None:
    """As whoever owns the database may: with the triggers off, which are on again afterwards."""
    with ledger.engine.begin() as connection:
        connection.execute(sa.text(f"alter table {table} disable trigger user"))
        for statement in statements:
            connection.execute(sa.text(statement))
        for trigger in ("tiltyard_chain", "tiltyard_truncate"):
            connection.execute(sa.text(f"alter table {table} enable always trigger {trigger}"))


def faults(ledger: Ledger, head: str | None = None) -> list[str]:
    return [str(fault) for fault in ledger.verify(head).faults]


@pytest.fixture
def ledger(rails: Rails) -> Ledger:
    for number in (1, 2):
        rails.ledger.add_version(version(number))
        decided(rails.ledger, number)
    return rails.ledger


def test_what_is_put_down_is_in_the_chain_and_holds(ledger: Ledger) -> None:
    state = ledger.verify()
    assert (state.entries, state.rows, state.adopted, state.faults) == (4, 4, 0, ())
    assert state.head and faults(ledger, state.head) == []
    decided(ledger, 3)
    assert faults(ledger, state.head) == [], "a head that was kept stays in the chain"


@pytest.mark.parametrize(
    "statement",
    [
        "update decision set verdict = 'promote'", "delete from decision", "update version set digests = '{}'",
        "delete from version", "truncate decision", "truncate promotion, version cascade",
        "truncate only operation_end",
    ],
)  # fmt: skip
def test_a_row_cannot_be_changed_or_deleted(ledger: Ledger, statement: str) -> None:
    with pytest.raises(sa.exc.ProgrammingError, match="is only added to"), ledger.engine.begin() as connection:
        connection.execute(sa.text(statement))
    assert faults(ledger) == []


@pytest.mark.parametrize(
    ("table", "statement", "told"),
    [
        ("decision", "update decision set verdict = 'promote' where challenger = 2",
         "decision (model churn, night 2025-05-30, challenger 2) was changed"),
        ("version", "update version set digests = '{\"model.onnx\": \"cc\"}' where version = 1",
         "version (model churn, version 1) was changed"),
        ("decision", "delete from decision where challenger = 1",
         "decision (model churn, night 2025-05-30, challenger 1) is gone"),
        ("operation", "insert into operation (model, action, reason, requested_by, source, requested_at) "
         "values ('churn', 'freeze', 'none', 'nobody', 'test', now())",
         "operation (id 1) was put in by another way"),
        ("decision", "update decision set recorded_at = recorded_at - interval '1 day' where challenger = 1",
         "decision (model churn, night 2025-05-30, challenger 1) was changed"),
    ],
)  # fmt: skip
def test_what_was_changed_with_the_triggers_off_is_told_and_nothing_follows_from_it(
    ledger: Ledger, table: str, statement: str, told: str
) -> None:
    behind_its_back(ledger, statement, table=table)
    assert faults(ledger) == [told]
    with pytest.raises(CheckFailed, match=r"What the ledger says of churn is not what was put down: .*tiltyard verify"):
        ledger.require_untouched("churn")
    ledger.require_untouched("another")


def test_what_is_done_by_hand_is_in_the_chain_as_well(ledger: Ledger) -> None:
    """Its key is a number of its own, which names no model."""
    for model in ("churn", "another"):
        with ledger.engine.begin() as connection:
            values = {"model": model, "action": "freeze", "reason": "an audit", "requested_by": "ann", "source": "test"}
            connection.execute(ledger_tables.operation.insert().values(**values, requested_at=clock.now()))
    ledger.require_untouched("churn")
    behind_its_back(ledger, "update operation set action = 'unfreeze' where model = 'churn'", table="operation")
    assert faults(ledger) == ["operation (id 1) was changed"]
    with pytest.raises(CheckFailed, match=r"operation .* was changed"):
        ledger.require_untouched("churn")
    ledger.require_untouched("another")
    assert ledger.touched_successions().keys() == {"churn"}


FREEZE = (
    "insert into operation (model, action, reason, requested_by, source, requested_at) "
    "values ('churn', 'freeze', 'an audit', 'ann', 'test', now())",
    "insert into operation_end (id, outcome, night, decided_at) values (1, 'done', '2025-05-30', now())",
)


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (("update operation_end set outcome = 'refused'",), "operation_end (id 1) was changed"),
        (("delete from operation_end",), "operation_end (id 1) is gone"),
        (("delete from operation", "delete from operation_end"), "operation (id 1) is gone"),
    ],
)
def test_nobody_lets_go_of_what_a_person_holds_by_taking_that_out(
    ledger: Ledger, statements: Sequence[str], told: str
) -> None:
    """An operation that is gone says of no model that it was not its own."""
    sql(ledger, *FREEZE)
    ledger.require_untouched("churn")
    for statement in statements:
        behind_its_back(ledger, statement, table=statement.split()[1 if "update" in statement else 2])
    assert faults(ledger)[0] == told
    is_anybodys = len(statements) > 1
    assert ledger.touched_successions().keys() == {"" if is_anybodys else "churn"}
    for model in ("churn", *(["another"] if is_anybodys else [])):
        with pytest.raises(CheckFailed, match=told.split(") ")[1]):
            ledger.require_untouched(model)
    if not is_anybodys:
        ledger.require_untouched("another")
    ledger.accept_as_found("ann", "looked at")
    ledger.require_untouched("churn")
    assert ledger.touched_successions() == {}


def test_nor_in_the_name_of_an_erasure(ledger: Ledger) -> None:
    sql(ledger, *FREEZE)
    sql(ledger, ERASURE, ORDERED_BY_IT, "delete from operation_end")
    told = "operation_end (id 1) was taken out, and nothing ordered it"
    assert ledger.touched_successions() == {"churn": told}
    ledger.require_untouched("another")
    sql(ledger, ORDERED_BY_IT, "delete from operation")
    assert ledger.touched_successions().keys() == {""}
    for model in ("churn", "another"):
        with pytest.raises(CheckFailed, match="nothing ordered it"):
            ledger.require_untouched(model)
    ledger.accept_as_found("ann", "looked at")
    ledger.require_untouched("churn")


def test_who_changes_the_entry_with_the_row_breaks_the_chain(ledger: Ledger) -> None:
    behind_its_back(
        ledger,
        "update decision set verdict = 'promote' where challenger = 1",
        "set local timezone = 'UTC'",
        "update chain set digest = (select sha256(convert_to(jsonb_strip_nulls(to_jsonb(d))::text, 'UTF8')) "
        "from decision d where challenger = 1) where id = 2",
    )
    assert faults(ledger)[0] == "chain (id 2) was changed"
    with pytest.raises(CheckFailed, match="has an entry in the chain that was changed"):
        ledger.require_untouched("churn")


def test_who_writes_the_whole_chain_anew_is_found_by_a_head_that_was_kept(ledger: Ledger, settings: Settings) -> None:
    """Everything agrees with everything; only what was kept elsewhere tells."""
    head = ledger.verify().head
    behind_its_back(ledger, "update decision set verdict = 'promote' where challenger = 1", "delete from chain")
    with ledger.engine.begin() as connection:
        for table in chain.GUARDED:
            chain._append(connection, table, "insert", "")
    assert faults(ledger) == []
    assert [fault.split(") ")[1] for fault in faults(ledger, head)] == ["is another one than when its head was kept"]
    behind_its_back(ledger, "delete from chain where id > 1")
    assert "chain (id 4) is gone, and was there when its head was kept" in faults(ledger, head)


def test_an_entry_that_is_taken_out_is_missed(ledger: Ledger) -> None:
    behind_its_back(ledger, "delete from chain where id = 2")
    assert faults(ledger)[0] == "chain (id 3) does not follow the one before it"


def test_triggers_that_are_off_are_told_and_put_back_by_whoever_opens_the_ledger(ledger: Ledger) -> None:
    with ledger.engine.begin() as connection:
        connection.execute(sa.text("alter table version disable trigger user"))
    assert faults(ledger) == ["version () is not watched: its trigger is off, or does something else"]
    with ledger.engine.begin() as connection:
        chain.begin(connection)
    assert faults(ledger) == []
    [event] = ledger.events(kind=chain.UNWATCHED)
    assert event.detail == {"tables": ["version"]}


@pytest.mark.parametrize(
    "statement",
    [
        "alter table version disable trigger tiltyard_truncate",
        "alter table version enable trigger tiltyard_truncate",
        "drop trigger tiltyard_truncate on version",
        "create or replace trigger tiltyard_truncate after insert on version execute function tiltyard_chain()",
        "create or replace trigger tiltyard_chain after insert on version for each row "
        "execute function tiltyard_chain('model', 'version')",
        "create or replace trigger tiltyard_chain after insert or update or delete on version for each row "
        "when (false) execute function tiltyard_chain('model', 'version')",
    ],
)
def test_a_trigger_that_watches_less_is_told_and_put_back(ledger: Ledger, statement: str) -> None:
    sql(ledger, statement, "alter table version enable always trigger tiltyard_chain")
    assert faults(ledger) == ["version () is not watched: its trigger is off, or does something else"]
    with ledger.engine.begin() as connection:
        chain.begin(connection)
    assert faults(ledger) == []
    assert len(ledger.events(kind=chain.UNWATCHED)) == 1


def test_the_function_looks_nowhere_else_for_its_tables(ledger: Ledger) -> None:
    """Of a name that it is asked for the table of a session comes first, unless it is told otherwise."""
    with pytest.raises(sa.exc.ProgrammingError, match="is only added to"):
        sql(
            ledger, "create temp table erasure (id bigint)", "insert into erasure values (1)",
            "create temp table erasure_end (erasure bigint, outcome text)",
            "set local tiltyard.ordered_by = 'erasure 1'", "delete from decision",
        )  # fmt: skip
    sql(ledger, "alter function tiltyard_chain() reset search_path")
    assert len(faults(ledger)) == len(chain.GUARDED)


def test_a_night_that_is_taken_back_is_in_the_chain_as_well(ledger: Ledger) -> None:
    taken = ledger.withdraw(NIGHT, ["churn"], [], [], whole=False, detail={"by": "ann", "reason": "wrong"})
    assert taken["decision"] == 2
    state = ledger.verify()
    assert (state.entries, state.rows, state.faults) == (7, 3, ())
    ledger.require_untouched("churn")
    with ledger.engine.connect() as connection:
        said = connection.execute(sa.text("select relation, action, ordered_by from chain order by id")).all()[4:]
        order = connection.execute(sa.text("select id, requested_by, reason, models from night_withdrawal")).one()
    assert order == (1, "ann", "wrong", ["churn"])
    assert said == [("night_withdrawal", "insert", None), *[("decision", "delete", "night_withdrawal 1")] * 2]
    decided(ledger, 1)
    assert faults(ledger) == []


def test_a_night_of_which_nothing_was_there_orders_nothing(ledger: Ledger) -> None:
    assert not ledger.withdraw(NIGHT, ["other"], [], [], whole=False, detail={"by": "ann", "reason": "wrong"})
    state = ledger.verify()
    assert (state.entries, state.rows, state.faults) == (4, 4, ())


ORDER = (
    "insert into night_withdrawal (night, models, requested_by, reason, recorded_at) "
    "values ('2025-05-30', '[\"churn\"]', 'mallory', 'none', now())"
)
ERASURE = (
    "insert into erasure (entity, hashes, reason, requested_by, recorded_at) "
    "values ('customer', '[]', 'none', 'mallory', now())"
)
ORDERED_BY_IT = "set local tiltyard.ordered_by = 'erasure 1'"
ENDED = "insert into erasure_end (erasure, attempt, outcome, receipt, recorded_at) values (1, 1, 'done', '{}', now())"


@pytest.mark.parametrize(
    ("statements", "order", "deleted"),
    [
        ((), "on", "decision"),
        ((), "night_withdrawal 1", "decision"),
        ((ORDER,), "night_withdrawal 2", "decision"),
        ((ORDER,), "night_withdrawal 1", "version"),
        ((ORDER,), "night_withdrawal 1", "promotion"),
        ((ORDER,), "night_withdrawal 1", "night_withdrawal"),
        ((ORDER.replace("churn", "other"),), "night_withdrawal 1", "decision"),
        ((ORDER.replace("05-30", "05-29"),), "night_withdrawal 1", "decision"),
        ((ORDER, "commit", "begin"), "night_withdrawal 1", "decision"),
        ((), "erasure 1", "decision"),
        ((ERASURE,), "erasure 1", "erasure"),
        ((ERASURE, ENDED), "erasure 1", "decision"),
    ],
)  # fmt: skip
def test_no_row_goes_that_nothing_in_the_ledger_orders_to_go(
    ledger: Ledger, statements: Sequence[str], order: str, deleted: str
) -> None:
    """An order is good for its model, its night, its tables and its own transaction."""
    decided(ledger, 3, verdict="promote")
    sql(ledger, promoting(3))
    with pytest.raises(sa.exc.ProgrammingError, match=f"{deleted} is only added to"):
        sql(
            ledger, *statements, f"set local tiltyard.ordered_by = '{order}'", "set local tiltyard.taking_back = 'on'",
            f"delete from {deleted}",
        )  # fmt: skip
    assert faults(ledger) == []


def test_an_erasure_orders_that_a_row_comes_again_and_not_that_it_goes(ledger: Ledger) -> None:
    decided(ledger, 3, verdict="promote")
    sql(ledger, promoting(3))
    ordered = (ERASURE, "set local tiltyard.ordered_by = 'erasure 1'")
    sql(ledger, *ordered, "delete from promotion", promoting(3).replace("mallory", "erased"))
    assert faults(ledger) == []
    ledger.require_untouched("churn")
    sql(ledger, ordered[1], "delete from promotion")
    told = "promotion (model churn, version 3) was taken out, and nothing ordered it"
    assert faults(ledger) == [told]
    assert ledger.touched_successions() == {"churn": told}
    with pytest.raises(CheckFailed, match="nothing ordered it"):
        ledger.require_untouched("churn")


def entry_of(action: str, relation: str, key: str, ordered_by: str = "null") -> str:
    """SQL of an entry that agrees with the one before it, as the trigger would have written it."""
    own = (
        f"(select id + 1 as id, '{relation}' as relation, '{action}' as action, '{key}'::jsonb as key, "
        f"''::bytea as digest, hash as previous, clock_timestamp() as recorded_at, {ordered_by}::text as ordered_by "
        "from chain order by chain.id desc limit 1) as own"
    )
    names = "id, relation, action, key, digest, previous, recorded_at, ordered_by"
    return f"insert into chain ({names}, hash) select {names}, {chain._OF_ENTRY} from {own}"


@pytest.mark.parametrize(
    ("statements", "ordered_by"),
    [
        ((), "null"),
        ((), "'night_withdrawal 1'"),
        ((ORDER, "insert into version select model, 9, night, '9', run_id, digests, facts, requested_by, recorded_at "
                 "from version where version = 1"), "'night_withdrawal 1'"),
        ((ORDER.replace("churn", "other"),), "'night_withdrawal 1'"),
        ((ORDER.replace("05-30", "05-29"),), "'night_withdrawal 1'"),
        ((ERASURE,), "'erasure 1'"),
        ((), "'anything'"),
    ],
)  # fmt: skip
def test_an_entry_that_says_that_a_row_was_taken_out_is_held_against_what_ordered_it(
    ledger: Ledger, statements: Sequence[str], ordered_by: str
) -> None:
    """With the triggers off, and the chain as they would have written it."""
    key = '{"model": "churn", "night": "2025-05-30", "challenger": 1}'
    behind_its_back(
        ledger, "set local timezone = 'UTC'", *statements, "delete from decision where challenger = 1",
        entry_of("delete", "decision", key.replace(":", "\\:"), ordered_by),
    )  # fmt: skip
    told = "decision (model churn, night 2025-05-30, challenger 1) was taken out, and nothing ordered it"
    assert faults(ledger) == [told]
    with pytest.raises(CheckFailed, match="nothing ordered it"):
        ledger.require_untouched("churn")
    ledger.add_version(version(3))
    decided(ledger, 1)
    assert faults(ledger) == [told], "it stays so when the row comes again"
    assert ledger.accept_as_found("ann", "looked at") == 1
    assert faults(ledger) == []


APPROVAL = (
    '{"given": [{"approved_by": "bob", "chosen": ["Approve"], "source": "airflow", '
    '"subject": ["churn", 3, "2025-05-30", "%s"]}]}'
)


@pytest.mark.parametrize(
    ("verdict", "approvals", "row", "told"),
    [
        (None, 0, promoting(77), "(model churn, version 77) follows from no decision"),
        (None, 0, promoting(2), "(model churn, version 2) follows from a decision that says hold"),
        ("promote", 0, promoting(3, night=NIGHT + timedelta(days=1)),
         "(model churn, version 3) follows from no decision"),
        ("promote", 0, promoting(3, replaced="1"),
         "(model churn, version 3) replaces another one than its decision was about"),
        ("promote", 1, promoting(3, approval='{"needed": false}'),
         "(model churn, version 3) has not the approvals that its decision asks for"),
        ("promote", 1, promoting(3, approval=APPROVAL % "another"),
         "(model churn, version 3) has not the approvals that its decision asks for"),
        ("promote", 2, promoting(3, approval=APPROVAL),
         "(model churn, version 3) has not the approvals that its decision asks for"),
        ("promote", 1, promoting(3, approval=APPROVAL), None),
        ("promote", 0, promoting(3), None),
    ],
)  # fmt: skip
def test_a_promotion_that_no_decision_stands_behind_is_told_and_serves_nobody(
    ledger: Ledger, verdict: Literal["promote"] | None, approvals: int, row: str, told: str | None
) -> None:
    """By a plain insert, of which the chain has an entry as of any other."""
    if verdict:
        decided(ledger, 3, verdict=verdict, approvals=approvals)
        row = row.replace("%s", str(ledger.decision("churn", NIGHT, 3).evidence.digest))
    sql(ledger, row.replace(":", "\\:"))
    assert faults(ledger) == ([f"promotion {told}"] if told else [])
    assert ledger.touched_successions() == ({"churn": f"promotion {told}"} if told else {})
    if told is None:
        ledger.require_untouched("churn")
        return
    with pytest.raises(CheckFailed, match="is not what was put down"):
        ledger.require_untouched("churn")
    ledger.require_untouched("another")
    assert ledger.accept_as_found("ann", "promoted before there was a gate") == 1
    assert (faults(ledger), ledger.touched_successions()) == ([], {})


def test_a_decision_that_a_promotion_follows_from_is_as_it_was_put_down_where_it_serves(ledger: Ledger) -> None:
    sql(ledger, promoting(2))
    behind_its_back(ledger, "update decision set verdict = 'promote' where challenger = 2")
    told = "decision (model churn, night 2025-05-30, challenger 2) was changed"
    assert faults(ledger) == [told]
    assert ledger.touched_successions() == {"churn": told}


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("insert into watch (model, night, champion, previous, verdict, reasons, evidence, recorded_at) "
         "values ('churn', '2025-06-02', 2, 1, 'rollback', '[]', '{}', now())",
         "watch (model churn, night 2025-06-02) undoes no promotion"),
        ("insert into watch (model, night, champion, previous, verdict, reasons, evidence, recorded_at) "
         "values ('churn', '2025-06-02', 3, 1, 'rollback', '[]', '{}', now())",
         "watch (model churn, night 2025-06-02) undoes no promotion"),
        ("insert into watch (model, night, champion, verdict, reasons, evidence, recorded_at) "
         "values ('churn', '2025-06-02', 3, 'rollback', '[]', '{}', now())", None),
        ("insert into operation_end (id, outcome, night, decided_at) values (9, 'done', '2025-06-02', now())",
         "operation_end (id 9) ends what nobody has asked for"),
        ("insert into operation_end (id, outcome, night, decided_at) values (1, 'done', '2025-06-02', now())",
         "operation_end (id 1) puts a version in service that was never promoted"),
        ("insert into operation_end (id, outcome, night, decided_at) values (2, 'done', '2025-06-02', now())",
         "operation_end (id 2) was confirmed by nobody"),
        ("insert into operation_end (id, outcome, night, decided_at) values (3, 'done', '2025-06-02', now())", None),
    ],
)  # fmt: skip
def test_a_rollback_and_what_is_done_by_hand_bring_back_what_was_promoted(
    ledger: Ledger, statement: str, told: str | None
) -> None:
    decided(ledger, 3, verdict="promote")
    asked = "insert into operation (model, action, version, reason, requested_by, source, requested_at, until) values "
    sql(
        ledger, promoting(3), asked + "('churn', 'pin', 2, 'none', 'mallory', 'test', now(), null)",
        asked + "('churn', 'pin', 3, 'none', 'mallory', 'test', now(), now())",
        asked + "('churn', 'pin', 3, 'none', 'mallory', 'test', now(), null)", statement,
    )  # fmt: skip
    assert faults(ledger) == ([told] if told else [])
    if told is None:
        ledger.require_untouched("churn")
    elif "nobody has asked" not in told:
        assert ledger.touched_successions() == {"churn": told}
        with pytest.raises(CheckFailed, match="is not what was put down"):
            ledger.require_untouched("churn")


def test_a_person_may_accept_what_is_there_and_that_is_kept(ledger: Ledger) -> None:
    behind_its_back(
        ledger, "update decision set verdict = 'reject' where challenger = 1",
        "delete from decision where challenger = 2",
    )  # fmt: skip
    assert ledger.accept_as_found("ann", "restored by hand") == 2
    state = ledger.verify()
    assert (state.faults, state.accepted) == ((), 1)
    [event] = ledger.events(kind=ledger_tables.ACCEPTED_AS_FOUND)
    assert (event.detail["by"], event.detail["reason"]) == ("ann", "restored by hand")
    assert len(event.detail["faults"]) == 2  # type: ignore[arg-type]
    ledger.require_untouched("churn")


def test_a_ledger_from_before_there_was_a_chain_is_taken_as_it_is(ledger: Ledger) -> None:
    behind_its_back(ledger, "delete from chain", "drop trigger tiltyard_chain on version")
    with ledger.engine.begin() as connection:
        connection.execute(sa.text("drop function tiltyard_chain cascade"))
        chain.begin(connection)
    state = ledger.verify()
    assert (state.entries, state.adopted, state.faults) == (4, 4, ())
    with pytest.raises(BadInput, match="'x' is no head of the chain"):
        ledger.verify("x")


def test_a_chain_from_before_there_were_orders_goes_on_and_says_what_nothing_ordered_then(ledger: Ledger) -> None:
    """As an earlier version has left it: with its function and its triggers, a night taken back and a row that an
    erasure has written anew."""
    before = (Path(__file__).parent / "chain_of_before.plpgsql").read_text()
    sql(ledger, "drop function tiltyard_chain cascade", "drop table night_withdrawal",
        "alter table chain drop column ordered_by")  # fmt: skip
    with ledger.engine.begin() as connection:
        made = "create function tiltyard_chain() returns trigger language plpgsql set timezone = 'UTC' as $_$"
        connection.exec_driver_sql(f"{made}{before}$_$".replace("%", "%%"))
        for table in chain.GUARDED:
            if table.name != "night_withdrawal":
                keys = ", ".join(f"'{column.name}'" for column in table.primary_key.columns)
                connection.exec_driver_sql(
                    f"create trigger tiltyard_chain after insert or update or delete on {table.name} for each row "
                    f"execute function tiltyard_chain({keys})"
                )
                connection.exec_driver_sql(f"alter table {table.name} enable always trigger tiltyard_chain")
    decided(ledger, 3, verdict="promote")
    allowed = "set local tiltyard.taking_back = 'on'"
    sql(
        ledger,
        promoting(3),
        allowed,
        "delete from decision where challenger = 1",
        "delete from promotion",
        promoting(3),
    )
    with ledger.engine.begin() as connection:
        ledger_tables.metadata.create_all(connection)
        chain.begin(connection)
    assert ledger.events(kind=chain.UNWATCHED) == []
    state = ledger.verify()
    assert (state.faults, state.unordered, state.adopted, state.entries) == ((), 2, 0, 10)
    ledger.withdraw(NIGHT, ["churn"], [], [], whole=False, detail={"by": "ann", "reason": "wrong"})
    told = "promotion (model churn, version 3) follows from no decision"
    assert faults(ledger) == [told], "such a night is not taken back by those who ask for it"
    with ledger.engine.begin() as connection:
        chain.begin(connection)
    assert ledger.verify().unordered == 2


def test_a_promotion_that_was_taken_out_before_there_were_orders_is_told(ledger: Ledger) -> None:
    decided(ledger, 3, verdict="promote")
    sql(ledger, promoting(3))
    behind_its_back(
        ledger, "set local timezone = 'UTC'", "delete from promotion",
        entry_of("delete", "promotion", '{"model"\\: "churn", "version"\\: 3}'),
        entry_of("adopt", "chain", '{"id"\\: 7}'), table="promotion",
    )  # fmt: skip
    assert faults(ledger) == ["promotion (model churn, version 3) was taken out, and nothing ordered it"]


def write(settings: Settings, numbers: Sequence[int]) -> None:
    ledger = Ledger(settings)
    for number in numbers:
        decided(ledger, number, "crowd", NIGHT + timedelta(days=number % 3))
    ledger.close()


def test_many_who_write_at_once_make_one_chain(ledger: Ledger, settings: Settings) -> None:
    context = multiprocessing.get_context("spawn")
    crowd = [context.Process(target=write, args=(settings, range(start, 60, 3))) for start in range(3)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join()
    state = ledger.verify()
    assert (state.entries, state.rows, state.faults) == (64, 64, ())


def test_who_is_killed_in_the_middle_leaves_neither_row_nor_entry(ledger: Ledger) -> None:
    with suppress(RuntimeError), ledger.engine.begin() as connection:
        connection.execute(
            ledger_tables.retrain.insert().values(model="x", night=NIGHT, reasons=[], recorded_at=clock.now())
        )
        connection.execute(sa.text("insert into decision select model, night, 9, champion, verdict, reasons, evidence, "
                                   "recorded_at from decision where challenger = 1"))  # fmt: skip
        raise RuntimeError
    assert ledger.verify().entries == 4 and faults(ledger) == []
