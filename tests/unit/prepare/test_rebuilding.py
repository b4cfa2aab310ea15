"""Which tables have to be made anew: by the text that makes them, and by what they are made of."""

from dataclasses import replace

import pytest

from tiltyard.prepare import rebuilding
from tiltyard.prepare.rebuilding import COLUMNS, PENDING, SQL, Text

STAMP = "coalesce(cast(getvariable('built_at') as timestamptz), cast('{}' as timestamptz))"


def text(name: str, *parents: str, sql: str = "select a, b from t") -> Text:
    columns = {"a": "bigint", "b": "varchar"}
    relation = f'"lake"."features"."{name}"'
    return Text(
        name, f"features.{name}", relation, sql, columns, is_whole=True, keys=("a",), parents=frozenset(parents)
    )


@pytest.mark.parametrize(
    "sql",
    [
        "select a,b\n  from t",
        "select a, -- the key\n b from t",
        "/* of\n all */ select a, b from t",
        "select a, b from t -- the end",
    ],
)
def test_comments_and_white_space_do_not_count(sql: str) -> None:
    assert text("x", sql=sql).digest == text("x").digest


@pytest.mark.parametrize(
    "sql", ["select a, b from t where a > 0", "select b, a from t", "select a, '--b' from t", "select a, ' b' from t"]
)
def test_anything_else_does(sql: str) -> None:
    others = {text("x", sql="select a, 'b' from t").digest, text("x").digest}
    assert text("x", sql=sql).digest not in others


def test_the_stamp_of_a_build_does_not_count_and_another_instant_does() -> None:
    nights = [
        text("x", sql=f"select a, {STAMP.format(night)} as built_at from t") for night in ("2025-01-01", "2025-01-02")
    ]
    assert nights[0].digest == nights[1].digest
    others = [
        text("x", sql=f"select cast('{night}' as timestamptz) as since from t")
        for night in ("2025-01-01", "2025-01-02")
    ]
    assert others[0].digest != others[1].digest


def test_keys_and_columns_count_and_their_order_does_not() -> None:
    plain = text("x")
    assert replace(plain, keys=("a", "b")).digest != plain.digest
    assert replace(plain, columns={"a": "bigint"}).digest != plain.digest
    assert replace(plain, columns={"b": "varchar", "a": "bigint"}).digest == plain.digest


def test_a_changed_table_is_made_anew_and_what_is_made_of_it() -> None:
    texts = {
        each.name: each
        for each in (text("last", "view"), text("view", "stg"), text("stg", "raw.t"), text("beside", "raw.t"))
    }
    kept = {name: each.digest for name, each in texts.items()}
    assert rebuilding.choose(texts, kept) == {}
    changed = texts | {"stg": replace(texts["stg"], sql="select 1")}
    assert list(rebuilding.choose(changed, kept).items()) == [
        ("stg", SQL),
        ("view", "it is made of stg"),
        ("last", "it is made of stg"),
    ]
    both = texts | {"view": replace(texts["view"], sql="select 1", columns={})}
    assert rebuilding.choose(both, kept)["view"] == f"{SQL} and {COLUMNS}"


def test_a_table_that_nobody_has_kept_is_trusted_and_one_that_was_not_finished_is_not() -> None:
    texts = {"view": text("view", "raw.t")}
    assert rebuilding.choose(texts, {}) == {}
    assert rebuilding.choose(texts, {"view": PENDING}) == {"view": "its last rebuild did not come to its end"}
    assert rebuilding.choose(texts, {"view": texts["view"].digest}, {"view"}) == {"view": rebuilding.ASKED}
