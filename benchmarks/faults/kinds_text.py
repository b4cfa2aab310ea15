"""Faults of texts: specs, suites and the dbt project.

What a release refuses changes nothing for anybody; what only shows when it runs is a table's.
"""

from collections.abc import Callable

from faults.business import model, models_of, readers, view
from faults.kind import Kind, Place, add, all_of

NOBODY: frozenset[str] = frozenset()
Change = Callable[[str], str]
LAYERS = {
    "staging": ("staging/{source}/stg_{source}__login", ("activity",)),
    "spine": ("spines/spn_{source}_reviewed", None),
    "view": ("features/ftr_customer__{source}_payments", ("payments",)),
    "label": ("labels/lbl_{source}_churn", None),
    "popular": ("popular/pop_{source}_plans", ()),
}
"""Layer of dbt → a table of it, and the views that stand on it: None for what all of a source's models read."""


def _fails(sql: str) -> str:
    """It compiles, and fails on the first row."""
    return sql.rstrip() + " where cast(customer_id || 'x' as integer) = 1\n"


def _plans_fail(sql: str) -> str:
    return sql.replace("where plan is not null", "where cast(plan || 'x' as integer) = 1")


def text(
    name: str, what: str, put_in: Callable[[Place], None], downstream: frozenset[str] = NOBODY, group: str = "spec"
) -> None:
    add(Kind(name, group, what, downstream, put_in))


def spec(name: str, what: str, change: Change, of: str = "cedar_full") -> None:
    """A spec that is refused: its last accepted text stays in force, so that nobody is downstream of it."""
    text(name, what, lambda place: place.change(place.spec(of), change))


def swapped(old: str, new: str) -> Change:
    return lambda content: content.replace(old, new, 1)


spec("spec_yaml", "A spec is no YAML any more.", lambda content: "tier: [\n" + content)
spec("spec_unknown_key", "A spec has a key that there is not.", lambda content: content + "retrain_when: never\n")
spec(
    "spec_unknown_view",
    "A spec names a feature view that nobody makes.",
    swapped("ftr_customer__cedar_activity", "ftr_customer__cedar_activty"),
)
spec(
    "spec_unknown_estimator",
    "A spec names an estimator that there is not.",
    swapped("xgboost.XGBClassifier", "xgboost.XGBClasifier"),
)
spec(
    "spec_other_horizon",
    "A spec promises another horizon than its labels are made for.",
    swapped("horizon: 3d", "horizon: 9d"),
)
spec("spec_other_source", "A spec names a source that there is not.", swapped("source: cedar", "source: ceder"))
spec("spec_no_number", "A spec's safe default is no number.", swapped("safe_default: 0.1", "safe_default: a tenth"))
text(
    "spec_not_text",
    "A spec is bytes that are no text.",
    lambda place: place.write(place.spec("cedar_full"), b"\xff\xfe\x00tier"),
)
text("spec_empty", "A spec is empty.", lambda place: place.write(place.spec("cedar_full"), b""))
text(
    "spec_is_a_link_to_nowhere",
    "A spec is a link to a file that is gone.",
    lambda place: (
        place.remove(place.spec("cedar_full")),
        place.link(place.spec("cedar_full"), "/nowhere/spec.yaml"),
        None,
    )[-1],
)
text(
    "spec_of_two",
    "Two folders hold one spec: a copy of a model under another name, with what only its original has.",
    lambda place: place.write(
        place.at.models / "cedar_full_copy" / "spec.yaml",
        place.spec("cedar_full").read_text().replace("cedar_activity", "cedar_nothing"),
    ),
)
text(
    "spec_new_and_wrong",
    "A new model comes with a spec that does not hold.",
    lambda place: place.write(place.at.models / "cedar_new" / "spec.yaml", "entity: customer\n"),
)
text(
    "portfolio_yaml",
    "What holds for all models, portfolio.yaml, is no YAML any more.",
    lambda place: place.write(place.at.models / "portfolio.yaml", "trainings: ["),
)


def _suite(name: str, what: str, path: str, content: str) -> None:
    text(name, what, lambda place: place.write(place.at.expectations / path, content), group="suite")


_suite(
    "suite_yaml",
    "A new suite of a feature view is no YAML.",
    f"features/{view('cedar', 'activity')}.yaml",
    "expectations: [\n",
)
_suite(
    "suite_of_all_yaml",
    "The suite of freshness, which every table is judged by, is no YAML any more.",
    "freshness.yaml",
    "expectations: [\n",
)
_suite("suite_no_expectations", "The suite of leakage is empty.", "leakage.yaml", "")
_suite(
    "suite_no_severity",
    "A suite says neither critical nor warning.",
    f"features/{view('cedar', 'activity')}.yaml",
    "expectations:\n  - type: expect_table_row_count_to_be_between\n    kwargs: {min_value: 1}\n",
)
text(
    "suite_gone",
    "A suite is gone without which no night can be judged.",
    lambda place: place.remove(place.at.expectations / "features" / "default.yaml"),
    group="suite",
)


def check(name: str, what: str, content: str) -> None:
    """A suite of a view's own that is accepted, and holds it."""
    add(
        Kind(
            name,
            "check",
            what,
            readers("ember", "activity"),
            lambda place: place.write(place.suite(view("ember", "activity")), content),
            sources=("ember",),
        )
    )


def expectation(type_: str, arguments: str, why: str) -> str:
    """A suite of one critical expectation."""
    arguments = f"    kwargs: {{{arguments}}}"
    lines = (f"  - type: {type_}", arguments, "    severity: critical", f"    meta: {{why: {why}}}")
    return "\n".join(("expectations:", *lines, ""))


check(
    "check_critical",
    "A critical check of a feature view fails.",
    expectation("expect_table_row_count_to_be_between", "min_value: 1000000000", "So many customers there are not."),
)
check(
    "check_unknown",
    "A suite asks for an expectation that there is not.",
    expectation("expect_the_unexpected", "column: logins_7d", "Nobody has written it."),
)
check(
    "check_of_no_column",
    "A critical check asks for a column that the view does not have.",
    expectation("expect_column_values_to_not_be_null", "column: logins_70d", "It is spelled wrongly."),
)


def dbt(
    name: str, what: str, layer: str, change: Change, *, refused: bool, ending: str = ".sql", source: str = "fjord"
) -> None:
    """A text of dbt: one that is refused changes nothing, one that is accepted and fails is its table's."""
    path, topics = LAYERS[layer]
    downstream = (
        all_of(source) if topics is None else readers(source, *topics) if topics else frozenset({model(source, "full")})
    )
    if layer == "label":
        downstream = all_of(source)
    add(
        Kind(
            name, "dbt", what, NOBODY if refused else downstream,
            lambda place: place.change(place.sql(path.format(source=source) + ending), change),
            sources=() if refused else (source,),
        )
    )  # fmt: skip


for _layer in LAYERS:
    dbt(
        f"dbt_{_layer}_no_template",
        f"The SQL of a {_layer} table is no template that dbt can read.",
        _layer,
        lambda sql: sql + "{{ ref('\n",
        refused=True,
    )
    dbt(
        f"dbt_{_layer}_no_parent",
        f"The SQL of a {_layer} table reads a table that there is not.",
        _layer,
        lambda sql: sql + "-- {{ ref('stg_nobody') }}\n",
        refused=True,
    )
    dbt(
        f"dbt_{_layer}_fails", f"The SQL of a {_layer} table fails when it runs.", _layer,
        _plans_fail if _layer == "popular" else _fails,
        refused=False,
    )  # fmt: skip
dbt(
    "dbt_yaml",
    "The .yml of a feature view is no YAML.",
    "view",
    lambda content: content + "  - [\n",
    refused=True,
    ending=".yml",
)
dbt(
    "dbt_column_gone",
    "A feature view no longer has a column that its .yml promises.",
    "view",
    swapped("cast(sum(unpaid) over so_far as bigint) as unpaid_payments,", ""),
    refused=False,
)
dbt(
    "dbt_column_of_another_type",
    "A column of a feature view has another type than its .yml promises.",
    "view",
    swapped(
        "cast(sum(unpaid) over so_far as bigint) as unpaid_payments",
        "cast(sum(unpaid) over so_far as varchar) as unpaid_payments",
    ),
    refused=False,
)
dbt(
    "dbt_rows_twice",
    "A feature view has every row twice, so that its test fails.",
    "view",
    lambda sql: sql.rstrip() + "\nunion all\nselect * from final\n",
    refused=False,
)
dbt(
    "dbt_leaks",
    "A feature view's rows say that they happened later than they were known.",
    "view",
    swapped("available_at as event_time,", "available_at + interval '2 days' as event_time,"),
    refused=False,
)
dbt(
    "dbt_cycle",
    "A feature view reads itself by way of another one.",
    "view",
    lambda sql: sql + "-- {{ ref('ftr_customer__fjord_payments') }}\n",
    refused=True,
)
text(
    "dbt_contract_yaml",
    "The contract with a source is no YAML.",
    lambda place: place.change(place.sql("staging/fjord/_fjord__sources.yml"), lambda content: content + "  - [\n"),
    group="dbt",
)
text(
    "dbt_project_yaml",
    "dbt_project.yml is no YAML.",
    lambda place: place.change(place.at.dbt / "dbt_project.yml", lambda content: content + "models: [\n"),
    group="dbt",
)
text(
    "dbt_macro",
    "A macro that all tables use is no template.",
    lambda place: place.change(place.at.dbt / "macros" / "incremental.sql", lambda content: content + "{% macro %}"),
    group="dbt",
)
text(
    "dbt_view_gone",
    "A feature view that models need is deleted.",
    lambda place: (
        place.remove(place.sql("features/ftr_customer__fjord_payments.sql")),
        place.remove(place.sql("features/ftr_customer__fjord_payments.yml")),
        None,
    )[-1],
    group="dbt",
)
assert models_of
