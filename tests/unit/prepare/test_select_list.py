"""Which columns the text of a table's SQL gives; where it does not say, nothing is said."""

import pytest

from tiltyard.prepare import select_list


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ('select a, b.c, d + 1 as e, "F" from t', "a c e f"),
        ("select distinct a, count(*) filter (where b in (select x from y)) as n from t group by a", "a n"),
        ("with final as (select a, b from t) select * from final", "a b"),
        ("with one as (select a from t), two as (select *, 1 as b from one) select * exclude (a) from two", "b"),
        ("with one as (select a, b from t union all select c, d from u) select * from one where a > 0", "a b"),
        ("select a -- , b\n, /* c, */ 'x, y' as d from t", "a d"),
        ("{{ config(unique_key='a') }} select a, {{ built_at() }} as built_at from {{ ref('t') }}", "a built_at"),
        ("with f as (select a from t {% if is_incremental() %} where a > 1 {% endif %}) select * from f", "a"),
        ("select a is distinct from b as differs, c from t", "differs c"),
        ("select 1 as a union all select 2 as b", "a"),
        ('select a as "from", b as "Order", t."select", d as "union" from t', "from order select union"),
        ('with f as (select größe, a as "null", "limit" from t) select * exclude ("null") from f', "größe limit"),
        ("select cast(a as date) as day, case when b then 1 else 2 end as kind from t", "day kind"),
    ],
)
def test_the_columns_of_the_last_select(sql: str, columns: str) -> None:
    given = select_list.given(sql)
    assert given is not None and [column.name for column in given] == columns.split()


@pytest.mark.parametrize(
    "sql",
    [
        "select * from {{ ref('t') }}",
        "select a, b.* from b",
        "with f as (select a from t) select * from f inner join g on f.a = g.a",
        "select a, {% if wide %} b, {% endif %} c from t",
        "select a, {{ columns_of('t') }} from t",
        "select a as {{ name }}_id from t",
        "{{ landed_load('carrier') }}",
        "select count(*) from t",
        "select null from t",
        "with f as (select a, b from t) select * exclude (a) replace (b + 1 as b) from f",
        "select a from t union all by name select b from u",
        "{% if is_incremental() %} select a from t {% else %} select b from t {% endif %}",
        "with f as (select * from f) select * from f",
        "with {% if x %} f as (select a from t) {% else %} f as (select b from t) {% endif %} select * from f",
    ],
)
def test_what_the_text_does_not_say_is_not_said(sql: str) -> None:
    assert select_list.given(sql) is None


def test_a_column_has_the_line_where_its_name_stands() -> None:
    given = select_list.given(
        "{#\n#}\nwith f as (\n    select\n        a,\n        'x\ny'\n            as b\n    from t\n)\nselect * from f"
    )
    assert given == (("a", 5), ("b", 8))
