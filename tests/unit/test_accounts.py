"""The accounts: what is done again costs again, and a window of nights adds up."""

from datetime import date

from tiltyard.rails import Rails
from tiltyard.records import Cost, Gain, ModelWorth, ShadowSummary, Stored, Usage

FIRST, SECOND = date(2024, 3, 2), date(2024, 3, 3)


def ant(night: date, cpu_s: float, memory: int = 5) -> Cost:
    usage = Usage(cpu_s=cpu_s, wall_s=2 * cpu_s, memory_bytes=memory, read_bytes=10, written_bytes=1)
    return Cost(stage="shadow", name="ant", night=night, usage=usage)


def test_another_attempt_costs_on_top_and_memory_is_the_highest(rails: Rails) -> None:
    accounts = rails.ledger.accounts
    accounts.add([ant(FIRST, 1.0, memory=7)])
    accounts.add([ant(FIRST, 2.5, memory=3)])
    [found] = accounts.costs(FIRST, SECOND)
    assert found.usage == Usage(cpu_s=3.5, wall_s=7.0, memory_bytes=7, read_bytes=20, written_bytes=2)
    assert found.processes == 2


def test_only_the_nights_that_are_asked_for_count(rails: Rails) -> None:
    accounts = rails.ledger.accounts
    assert (accounts.newest(), accounts.nights(FIRST, SECOND), accounts.costs(FIRST, SECOND)) == (None, 0, [])
    accounts.add([ant(FIRST, 1.0), ant(SECOND, 4.0)])
    assert [entry.usage.cpu_s for entry in accounts.costs(FIRST, SECOND)] == [5.0]
    assert [entry.usage.cpu_s for entry in accounts.costs(SECOND, SECOND)] == [4.0]
    assert accounts.nights(FIRST, SECOND) == 2
    assert accounts.newest() == SECOND
    caught_up = Cost(stage="fallback_audit", name="ant", night=date(2024, 3, 1), usage=Usage(cpu_s=1.0))
    accounts.add([caught_up])
    assert accounts.nights(date(2024, 3, 1), SECOND) == 2, "an audit that catches up makes no night"
    accounts.add([Cost(stage="operate", name="", night=date(2026, 3, 1), usage=Usage(cpu_s=1.0))])
    accounts.add([Cost(stage="shadow", name="", night=date(2026, 3, 2), usage=Usage(cpu_s=1.0))])
    assert accounts.newest() == SECOND, "what is done by hand years later moves no window"


def test_what_is_told_lately_is_not_told_of_a_mistyped_year(rails: Rails) -> None:
    """Once it is taken back, with what it has cost, it is not the newest night any more, until it is done again."""
    mistyped = date(2031, 3, 3)
    accounts = rails.ledger.accounts
    accounts.add([ant(FIRST, 1.0), ant(mistyped, 2.0)])
    rails.ledger.record_stage("ant", mistyped, "done", ShadowSummary())
    assert accounts.newest() == mistyped
    rails.ledger.withdraw(mistyped, ["ant"], [], [], whole=False, detail={"by": "ann", "reason": "the year"})
    assert accounts.newest() == FIRST
    assert accounts.costs(mistyped, mistyped) == []
    accounts.add([ant(mistyped, 2.0)])
    assert accounts.newest() == mistyped


def test_what_lies_there_is_what_was_measured_last(rails: Rails) -> None:
    accounts = rails.ledger.accounts
    accounts.set_stored([Stored(name="ant", bytes=3), Stored(name="bee", bytes=4)])
    accounts.set_stored([Stored(name="ant", bytes=9)])
    assert accounts.stored() == [Stored(name="ant", bytes=9)]


def test_what_a_model_is_worth_is_what_was_said_last(rails: Rails) -> None:
    gain = Gain(rows=10, mean=1.0, low=0.5, high=1.5, cost=0.1)
    first = ModelWorth(model="ant", advice="open", reason="too early", night=FIRST)
    last = ModelWorth(model="ant", advice="keep", reason="it earns", night=SECOND, said_since=FIRST, over_default=gain)
    rails.ledger.accounts.set_worths([first])
    rails.ledger.accounts.set_worths([last, ModelWorth(model="bee", advice="unpriced", reason="no price")])
    assert rails.ledger.accounts.worths(["ant"]) == [last]
    assert [entry.model for entry in rails.ledger.accounts.worths(["bee", "ant", "cow"])] == ["ant", "bee"]
