"""Which tables are good is decided by lineage alone: who is at fault, who stands on it, and nobody else."""

from datetime import date

from tiltyard.prepare.graph import Graph
from tiltyard.prepare.settling import at_fault, settle
from tiltyard.records import TableState

NIGHT = date(2025, 2, 3)
#       raw.login → stg_login ─┐
#    raw.customer → stg_customer → spn_review → ftr_activity (and stg_login), ftr_profile
#         raw.sale → stg_sale → ftr_sale
GRAPH = Graph(
    {
        "raw.login": frozenset(),
        "raw.customer": frozenset(),
        "raw.sale": frozenset(),
        "raw.elsewhere": frozenset(),
        "stg_login": frozenset({"raw.login"}),
        "stg_customer": frozenset({"raw.customer"}),
        "stg_sale": frozenset({"raw.sale"}),
        "spn_review": frozenset({"stg_customer"}),
        "ftr_activity": frozenset({"spn_review", "stg_login"}),
        "ftr_profile": frozenset({"spn_review", "stg_customer"}),
        "ftr_sale": frozenset({"stg_sale"}),
        "ftr_elsewhere": frozenset({"raw.elsewhere"}),
    }
)
SOURCES = ["raw.login", "raw.customer", "raw.sale"]


def settled(
    failed: dict[str, str] | None = None, held: dict[str, list[str]] | None = None, late: dict[str, str] | None = None
) -> dict[str, TableState]:
    tables = [*GRAPH.below(SOURCES), "ftr_unknown"]
    faults = at_fault(tables, NIGHT, failed=failed or {}, held=held or {}, late=late or {})
    return {state.table: state for state in settle(GRAPH, tables, NIGHT, faults=faults)}


def not_good(states: dict[str, TableState]) -> dict[str, str]:
    return {table: state.state for table, state in states.items() if not state.is_published}


def test_a_night_on_which_nothing_is_wrong_publishes_what_stands_on_its_sources() -> None:
    states = settled()
    assert not not_good(states)
    assert states.keys() == GRAPH.parents.keys() - {"raw.elsewhere", "ftr_elsewhere"} | {"ftr_unknown"}


def test_a_held_view_is_alone() -> None:
    states = settled(held={"ftr_activity": ["too few rows", "a null", "b", "c", "d", "e", "f"]})
    assert not_good(states) == {"ftr_activity": "held"}
    assert states["ftr_activity"].reason == "too few rows; a null; b; c; d and 2 more"
    assert states["ftr_activity"].cause == "ftr_activity"


def test_what_stands_on_a_held_table_is_blocked_and_names_it() -> None:
    states = settled(held={"raw.login": ["silent"]})
    assert not_good(states) == {"raw.login": "held", "stg_login": "blocked", "ftr_activity": "blocked"}
    assert states["ftr_activity"].cause == "raw.login"
    assert states["ftr_activity"].reason == "it is made of raw.login, which is held: silent"


def test_a_failed_node_blocks_and_is_failed_whatever_else() -> None:
    states = settled(failed={"spn_review": "dbt failed"}, held={"spn_review": ["x"], "ftr_profile": ["y"]})
    assert not_good(states) == {"spn_review": "failed", "ftr_activity": "blocked", "ftr_profile": "blocked"}


def test_what_stands_on_a_late_table_is_late_whatever_checks_say_of_it() -> None:
    states = settled(late={"raw.login": "nothing came"}, held={"raw.login": ["silent"], "ftr_activity": ["few rows"]})
    assert not_good(states) == {"raw.login": "late", "stg_login": "late", "ftr_activity": "late"}
    assert states["ftr_activity"].reason == "it is made of raw.login, which is late: nothing came"


def test_a_table_of_another_source_is_as_that_one_has_settled_it() -> None:
    theirs = [
        TableState(night=NIGHT, table="raw.login", state="held", reason="silent", cause="raw.login"),
        TableState(night=NIGHT, table="stg_login", state="blocked", reason="…", cause="raw.login"),
    ]
    own = ["raw.customer", "stg_customer", "spn_review", "ftr_profile", "ftr_activity"]
    states = {state.table: state for state in settle(GRAPH, own, NIGHT, faults=[], given=theirs)}
    assert list(states) == own
    assert not_good(states) == {"ftr_activity": "blocked"}
    assert states["ftr_activity"].reason == "it is made of raw.login, which is held: silent"
