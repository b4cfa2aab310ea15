"""Whatever the columns are called: the SQL over them against the same SQL over plain names."""

import string

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.lakes import SPEC
from tiltyard import spec as specs
from tiltyard.lake import quoted
from tiltyard.prepare import frame, names
from tiltyard.settings import ROOT
from tiltyard.spec import Spec

MACROS = ROOT / "dbt" / "macros"
RESERVED = [row[0] for row in duckdb.execute("select keyword_name from duckdb_keywords()").fetchall()]
OURS = [
    "spine", "known", "view", "row", "rows", "place", "key", "entity", "entity_id", "night", "number", "frame", "truth",
    "then_row", "candidate", "usable", "known_order", "made", "joined_0", "_place", "known_at", "prediction_time",
    "rowid", "shop_id", "score", "Label", "ftr_shop__state__event_time", "slice_x", "raw", "delivery", "x y", " ", "",
    "a\tb", "it's", 'a "b"', "$until", "{{ x }}", "a.b", "a,b", "1", "-", "é", "\u202ex", "🚲", "Größe in m²", "NULL",
]  # fmt: skip
"""Aliases and common table expressions of ours, and what is awkward in itself."""
called = st.one_of(
    st.sampled_from([*RESERVED, *(word.title() for word in RESERVED), *OURS]),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    st.text(string.ascii_letters + string.digits + " _", min_size=1, max_size=12),
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    folder = tmp_path_factory.mktemp("models") / "small"
    folder.mkdir()
    (folder / "spec.yaml").write_text(SPEC.format(max_feature_age="null", horizon="2d", delay="0d"))
    return specs.load(folder)


def joined(dialect: str, first: str, second: str, max_age_s: int | None) -> list[tuple[object, ...]]:
    """Rows of the join of a view with columns of these names: pruned on the way, and of answers that were kept, some of
    which were written anew."""
    columns, found = [first, second], []
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("create table visit (visit integer, shop varchar, prediction_time timestamp)")
        connection.execute(
            f"create table state (shop varchar, event_time timestamp, available_at timestamp, {quoted(first)} double, "
            f"{quoted(second)} varchar, built_at integer)"
        )
        at = "timestamp '2024-01-01' + interval (%s) hour"
        connection.execute(f"insert into visit select i, 's' || i % 3, {at % 'i'} from range(9) as t (i)")
        for build in range(2):
            connection.execute(
                f"insert into state select 's' || i % 3, {at % 'i % 5'}, {at % 'i % 7'}, i, 'm' || i, {build} "
                f"from range({build * 4}, {build * 4 + 9}) as t (i)"
            )
            sql = frame.macro(MACROS, "answers", "state", "shop", columns)
            if build == 0:
                connection.execute(f"create table kept as {sql}")
        connection.execute("update state set built_at = 1 where shop in (select shop from state where built_at = 1)")
        connection.execute(frame.macro(MACROS, "answers_renewed", "state", "kept", "shop", columns, "1"))
        for view, pruned in (("state", False), ("kept", True)):
            sql = frame.point_in_time_sql(
                MACROS, dialect, spine="visit", view=view, pruned=pruned, key="shop", columns=columns,
                spine_key=["visit", "prediction_time"], prefix="ftr", max_age_s=max_age_s,
            )  # fmt: skip
            shown = ", ".join(map(quoted, ("visit", *columns, "ftr__event_time", "ftr__available_at")))
            found += connection.execute(f"select {shown} from ({sql}) order by visit").fetchall()
    return found


PLAIN = {
    (dialect, age): joined(dialect, "one", "two", age) for dialect in ("duckdb", "default") for age in (None, 7200)
}


@settings(max_examples=250)
@given(first=called, second=called)
@example("order", "select")
@example("spine", "known")
@example("Größe in m²", "size in cm")
@example("place", "visit_id")
@example("limit", "Limit")
def test_a_feature_of_any_name_works_or_is_refused(spec: Spec, first: str, second: str) -> None:
    wrong = [names.wrong_feature(name, spec, ("visit_id", "shop_id", "shop", "visit")) for name in (first, second)]
    if any(wrong) or first.lower() == second.lower():
        assert all(reason is None or reason.startswith("wh") for reason in wrong)
        return
    for (dialect, age), rows in PLAIN.items():
        assert joined(dialect, first, second, age) == rows


def test_hardly_a_name_is_refused(spec: Spec) -> None:
    """Reserved words of DuckDB, in any case, and what other languages call things."""
    words = [word for word in [*RESERVED, "score"] if word != "label"]
    words = [*words, *map(str.title, words), "Größe", "size in cm", "年齢", "a.b", "it's", "{x}", "%"]
    refused = {word for word in words if names.wrong_feature(word, spec, ("visit_id",))}
    assert not refused
    for name in ("known_at", "Loss", "prediction", "rowid", "visit_id", "VISIT_ID", "_x", "ftr_x__event_time", 'a"b'):
        assert names.wrong_feature(name, spec, ("visit_id",)), name
