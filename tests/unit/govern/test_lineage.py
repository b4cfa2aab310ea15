"""Lineage: what dbt's manifest of the real project says of the models, and what is followed by column."""

from collections.abc import Iterator

import pytest

from tiltyard.errors import BadInput
from tiltyard.govern.lineage import Lineage
from tiltyard.prepare import transform
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, load_all

SPECS = load_all(ROOT / "models")


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Lineage]:
    """Of the project as it is, parsed by dbt: nothing was built in this home."""
    settings = Settings(home=tmp_path_factory.mktemp("lineage") / "home", database_url=postgres_url)
    yield Lineage.of(transform.manifest(settings), SPECS)
    assert (settings.home / "dbt" / "manifest.json").is_file()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_table_of_a_model_stands_on_its_source(lineage: Lineage, spec: Spec) -> None:
    raw = {node for node in lineage.parents if node.startswith("raw.")}
    for table in (*spec.prediction.features, spec.prediction.spine, spec.label.table):
        assert lineage.upstream(table) & raw, table
        for node in lineage.upstream(table):
            assert spec.name in lineage.readers(node)


def test_what_two_views_have_in_common_begins_with_the_most_downstream(lineage: Lineage) -> None:
    common = lineage.common(["ftr_customer__payments", "ftr_customer__activity"])
    assert common == ()
    assert lineage.common(["ftr_customer__payments"])[:2] == ("ftr_customer__payments", "stg_subscription__payment")
    shared = lineage.common(["ftr_group__load", "ftr_ticket__intake"])
    assert shared.index("stg_incident__update") < shared.index("raw.incident_update")


def test_what_the_project_writes_itself_is_nobodys_upstream(lineage: Lineage) -> None:
    assert not [node for node in lineage.parents if node.startswith("ops.")]
    models = {spec.name for spec in SPECS}
    assert all(lineage.readers(node) != models for node in lineage.parents)


@pytest.mark.parametrize(
    ("node", "column", "table", "reached"),
    [
        ("raw.login", "device", "ftr_customer__activity", True),  # counted under another name
        ("raw.login", "device", "ftr_customer__payments", False),
        ("raw.customer", "country", "ftr_customer__profile", True),
        ("raw.customer", "country", "ftr_customer__activity", False),  # through the spine, which has no country
        ("raw.payment", "amount_eur", "ftr_customer__payments", True),
    ],
)
def test_a_column_is_followed_by_its_name(lineage: Lineage, node: str, column: str, table: str, reached: bool) -> None:
    alone = Lineage(lineage.parents, {"m": frozenset((table,))}, {}, lineage.words, lineage.columns)
    assert alone.reaches(node, column, "m") is reached


def test_a_view_that_another_view_reads_reaches_its_own_models_too() -> None:
    """
    raw.a ── ftr_a ──┬── ftr_b   names amount
                     └── ftr_c   select *, and declares amount
    """
    above = {"raw.a": (), "ftr_a": ("raw.a",), "ftr_b": ("ftr_a",), "ftr_c": ("ftr_a",), "ftr_d": ("ftr_a",)}
    graph = Lineage(
        {table: frozenset(parents) for table, parents in above.items()},
        {name: frozenset((f"ftr_{name}",)) for name in "abcd"},
        words={
            "ftr_a": frozenset(("amount",)),
            "ftr_b": frozenset(("amount",)),
            "ftr_c": frozenset(),
            "ftr_d": frozenset(),
        },
        columns={"ftr_a": frozenset(("amount",)), "ftr_b": frozenset(("total",)), "ftr_c": frozenset(("amount",))},
    )
    for node in ("raw.a", "ftr_a"):
        assert [name for name in "abcd" if graph.reaches(node, "amount", name)] == ["a", "b", "c"]


def test_a_column_that_no_sql_names_is_taken_to_reach_all(lineage: Lineage) -> None:
    assert lineage.reaches("raw.login", "never_heard_of", "churn")
    assert not lineage.reaches("raw.login", "never_heard_of", "sla_breach")


def test_what_nobody_knows_is_taken_to_reach_all(lineage: Lineage) -> None:
    assert lineage.reaches("raw.unknown", None, "churn")
    assert lineage.reaches("raw.login", None, "no_such_model")
    assert lineage.reaches("features", None, "churn")
    assert not lineage.stands_on("ftr_no__such", "raw.login")


def test_a_table_that_dbt_does_not_have_is_named(lineage: Lineage) -> None:
    with pytest.raises(BadInput, match="has no table 'ftr_customer__moods'"):
        lineage.upstream("ftr_customer__moods")
    with pytest.raises(BadInput, match="ftr_customer__moods"):
        lineage.common(["ftr_customer__payments", "ftr_customer__moods"])


def test_a_renamed_column_goes_on_under_whatever_name() -> None:
    graph = Lineage(
        parents={
            "raw.a": frozenset(),
            "stg_a": frozenset(("raw.a",)),
            "stg_b": frozenset(("raw.a",)),
            "ftr_a__x": frozenset(("stg_a",)),
            "ftr_b__y": frozenset(("stg_b",)),
        },
        models={"a": frozenset(("ftr_a__x",)), "b": frozenset(("ftr_b__y",))},
        words={
            "stg_a": frozenset(("select", "amt", "as", "amount")),
            "stg_b": frozenset(("select", "id")),
            "ftr_a__x": frozenset(("sum", "amount")),
            "ftr_b__y": frozenset(("count", "id")),
        },
        columns={"stg_a": frozenset(("amount",)), "stg_b": frozenset(("id",))},
    )
    assert graph.reaches("raw.a", "amt", "a")
    assert not graph.reaches("raw.a", "amt", "b")
    assert graph.reaches("raw.a", None, "b")
