"""The chain: what was decided is changed, taken out or put in by nobody without being found out."""

import multiprocessing
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, timedelta

import pytest
import sqlalchemy as sa

from tiltyard import chain, clock, ledger_tables
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.ledger import Ledger
from tiltyard.rails import Rails
from tiltyard.records import Decision, EvidenceRecord, Version, VersionFacts
from tiltyard.settings import Settings

NIGHT = date(2025, 5, 30)


def version(number: int, model: str = "churn") -> Version:
    return Version(
        model=model, version=number, night=NIGHT, inputs=f"{model}{number}", run_id="run",
        digests={"model.onnx": "aa", "light.onnx": "bb"}, facts=VersionFacts(), requested_by="ann",
    )  # fmt: skip


def decided(ledger: Ledger, challenger: int, model: str = "churn", night: date = NIGHT) -> None:
    evidence = EvidenceRecord(model=model, night=night, challenger=challenger, champion=None)
    ledger.add_decision(
        Decision(model=model, night=night, challenger=challenger, champion=None, verdict="hold", reasons=("few",),
                 evidence=evidence)
    )  # fmt: skip


def behind_its_back(ledger: Ledger, *statements: str, table: str = "decision") -> None:
    """As whoever owns the database may: with the triggers off, which are on again afterwards."""
    with ledger.engine.begin() as connection:
        connection.execute(sa.text(f"alter table {table} disable trigger user"))
        for statement in statements:
            connection.execute(sa.text(statement))
        connection.execute(sa.text(f"alter table {table} enable always trigger tiltyard_chain"))


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
        "delete from version",
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
        ("promotion", "insert into promotion (model, version, night, requested_by, approval, recorded_at) "
         "values ('churn', 2, '2025-05-30', 'nobody', '[]', now())",
         "promotion (model churn, version 2) was put in by another way"),
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


def test_a_night_that_is_taken_back_is_in_the_chain_as_well(ledger: Ledger) -> None:
    taken = ledger.withdraw(NIGHT, ["churn"], [], [], whole=False, detail={"by": "ann", "reason": "wrong"})
    assert taken["decision"] == 2
    state = ledger.verify()
    assert (state.entries, state.rows, state.faults) == (6, 2, ())
    decided(ledger, 1)
    assert faults(ledger) == []


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
