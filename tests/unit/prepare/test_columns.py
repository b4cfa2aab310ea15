"""What the `.yml` says of columns, what is made of them, and what is refused; no database."""

import re
import shutil
from pathlib import Path

import pytest

from tests import clinic
from tiltyard.errors import BadInput
from tiltyard.prepare import columns
from tiltyard.prepare.column_lineage import read
from tiltyard.prepare.columns import Columns
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find

TABLES = {"stg_shop__sale": "stg_shop__sale", "sale": "raw.sale"}


@pytest.fixture(scope="module")
def shipped() -> Columns:
    return columns.read(Settings(dbt=ROOT / "dbt"))


def test_what_is_said_in_a_contract_holds_for_what_is_made_of_it(shipped: Columns) -> None:
    """Through the staging, whatever it is called there, to the feature views."""
    features = {"lead_days", "arrival_month", "arrival_weekday", "booked_weekday", "market_segment"}
    assert set(shipped.planned("ftr_booking__intake", features)) == {"lead_days", "arrival_month", "arrival_weekday"}
    assert set(shipped.planned("ftr_flight__schedule", ["scheduled_hour", "scheduled_weekday", "carrier"])) == {
        "scheduled_hour",
        "scheduled_weekday",
    }
    assert shipped.unit("ftr_booking__intake", "lead_days") == "days"
    assert shipped.unit("ftr_customer__profile", "price_eur") == "EUR"
    assert shipped.unit("ftr_customer__profile", "plan") is None
    assert shipped.identifies("ftr_ticket__intake", "opened_by")
    assert not shipped.identifies("ftr_ticket__intake", "has_assignee")
    assert shipped.keys("ftr_booking__intake", "booking_id", "raw.hotel_booking") == ("booking_number",)


def test_what_is_broken_holds_the_models_alone_that_are_made_of_it(shipped: Columns) -> None:
    churn = find(ROOT / "models", "churn").tables
    assert shipped.stands_on(churn, "raw.payment", "amount_eur")
    assert shipped.stands_on(churn, "raw.login", "device")
    assert shipped.stands_on(churn, "raw.login"), "the table as a whole"
    assert not shipped.stands_on(churn, "raw.flight")
    breach = find(ROOT / "models", "sla_breach").tables
    assert shipped.stands_on(breach, "raw.incident_update", "priority")
    assert shipped.stands_on(breach, "raw.incident_update", "sys_updated_at"), "the times of its rows are made of it"
    assert shipped.stands_on(breach, "raw.incident_update", "incident_state"), "it says which rows there are"
    assert not shipped.stands_on(breach, "raw.incident_update", "vendor"), "no table of it reads that"
    assert shipped.stands_on(breach, "raw.of_another_home", "size"), "of what nobody knows the worst is taken"


def test_the_nearest_word_counts(shipped: Columns) -> None:
    """The schedule is counted back from what was written later, and is planned all the same, since its staging says so;
    what a ticket's staging blanks until it was written is its own origin, not the contract's."""
    assert {origin.made for origin in shipped.written_later("stg_flights__flight", "distance_miles")} == set()
    assert shipped.written_later("ftr_flight__schedule", "scheduled_hour") == ()
    origins = shipped.written_later("ftr_aircraft__legs", "last_leg_arrival_delay_minutes")
    assert {(origin.table, origin.column, origin.made) for origin in origins} == {
        ("stg_flights__flight", "arrival_delay_minutes", "same"),
        ("stg_flights__flight", "landed_at", "chosen"),
    }
    assert {origin.table for origin in shipped.written_later("ftr_group__history", "group_breach_rate")} == {
        "stg_incident__update"
    }


@pytest.mark.parametrize(
    ("sql", "column", "expected"),
    [
        ("select size from SALE", "size", {("size", "same")}),
        ("select s.size as wide from SALE as s", "wide", {("size", "same")}),
        ("select cast(size as integer) as wide from SALE", "wide", {("size", "same")}),
        ("select size::double as wide from SALE", "wide", {("size", "same")}),
        ("select size * price as worth from SALE", "worth", {("size", "made"), ("price", "made")}),
        ("select size is not null as has_size from SALE", "has_size", {("size", "made")}),
        ("select extract(month from sold_at) as month from SALE", "month", {("sold_at", "made")}),
        ("select sum(size) as total from SALE", "total", {("size", "counted")}),
        ("select count(*) filter (where price > 2) as dear from SALE", "dear",
         {("price", "counted")}),
        ("select size from SALE where price > 2", "size", {("size", "same"), ("price", "chosen")}),
        ("with a as (select * from SALE), b as (select size + 1 as more from a) select more from b",
         "more", {("size", "made")}),
        ("select * replace (size * price as size) from SALE", "size",
         {("size", "made"), ("price", "made")}),
        ("select * exclude (size) from SALE", "size", set()),
        ("select {{ known_by('sold_at', 'size') }} as size from SALE -- price", "size",
         {("size", "made"), ("sold_at", "made")}),
        ("select 'price' as what, /* price */ size from SALE", "what", set()),
        ("select price is distinct from size as differs, sold_at from SALE", "differs",
         {("price", "made"), ("size", "made")}),
        ('select "size" as "order", s."price" from SALE as s', "order", {("size", "same")}),
        ('select size as "Limit" from SALE where "price" > 1', "Limit",
         {("size", "same"), ("price", "chosen")}),
        ('select "size" + 1 as "größe in m²" from SALE', "größe in m²", {("size", "made")}),
        ("{{ somewhere_else('stg_shop__sale') }}", "anything",
         {("size", "counted"), ("price", "counted"), ("sold_at", "counted")}),
    ],
)  # fmt: skip
def test_what_a_column_is_made_of(sql: str, column: str, expected: set[tuple[str, str]]) -> None:
    sale = read("select size, price, sold_at from {{ source('shop', 'sale') }}", TABLES, {})
    sql = sql.replace("SALE", "{{ ref('stg_shop__sale') }}")
    lineage = columns.ColumnLineage(
        raw={"raw.sale": frozenset({"size", "price", "sold_at"})},
        queries={
            "stg_shop__sale": sale,
            "view": read(sql, TABLES, {"somewhere_else": "{% macro somewhere_else(t) %}"}),
        },
    )
    steps = lineage.steps("view", column)
    assert {(step.column, step.made) for step in steps if lineage.has("view", column) is not False} == expected


def test_a_column_that_is_called_like_a_keyword_is_a_column() -> None:
    ticket = read("select \"order\", \"select\" from {{ source('shop', 'sale') }}", TABLES, {})
    view = read('select max("order") as "from" from {{ ref(\'stg_shop__sale\') }}', TABLES, {})
    raw = {"raw.sale": frozenset({"order", "select"})}
    said = {"stg_shop__sale": {"order": columns.ColumnSaid("stg_shop__sale", "Order", written_later=True)}}
    known = columns.Columns(said, columns.ColumnLineage(raw=raw, queries={"stg_shop__sale": ticket, "view": view}))
    assert [str(origin.said) for origin in known.written_later("view", "From")] == ["stg_shop__sale.Order"]


WRONG = {
    "{planed: true}": "there is no 'planed'; did you mean 'planned'?",
    "{when: status_at}": "there is no 'when'; there are planned, written_later, identifies, unit.",
    "{planned: true, written_later: true}": "it is planned, known ahead, or written_later, .*, and not both",
    "{written_later: status_att}": "stg_clinic__known has no column 'status_att'; did you mean 'status_at'?",
    "{written_later: available_at}": "'available_at' is the time of the whole row",
    "{written_later: [status_at]}": "written_later: true, or the column that tells when it was written",
    "{planned: sometimes}": "planned: Input should be a valid boolean",
    "{unit: ''}": "unit: it is empty",
    "planned": "config.meta.tiltyard is a mapping",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_word_is_refused_with_its_line(tmp_path: Path, wrong: str) -> None:
    settings = Settings(dbt=clinic.project(tmp_path))
    columns.read(settings)
    path = settings.dbt / "models" / "staging" / "clinic" / "stg_clinic__known.yml"
    text = path.read_text().replace("{written_later: status_at}", wrong, 1)
    path.write_text(text)
    with pytest.raises(BadInput, match=rf"^{re.escape(str(path))}:5: column 'status': .*{WRONG[wrong]}"):
        columns.read(settings)


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("name: status_at,", "name: status_then,", r":6: column 'status_then': .* makes no column 'status_then'"),
        ("config: {meta: {tiltyard:", "meta: {x: {tiltyard:", None),
        ("config: {meta: {tiltyard: {written_later: status_at}}}", "meta: {tiltyard: {planned: true}}",
         r":5: column 'status': .* stands in config\.meta\.tiltyard"),
        ("- name: stg_clinic__known\n", "- name: stg_clinic__known\n    config: {meta: {tiltyard: {horizn: 2d}}}\n",
         r":4: stg_clinic__known: config\.meta\.tiltyard: there is no 'horizn'; did you mean 'horizon'"),
        ("name: status_at,", "name: available_at,", r":6: column 'available_at': .* tells when a row was known"),
    ],
)  # fmt: skip
def test_so_is_a_word_in_a_wrong_place(tmp_path: Path, before: str, after: str, complaint: str | None) -> None:
    settings = Settings(dbt=clinic.project(tmp_path))
    path = settings.dbt / "models" / "staging" / "clinic" / "stg_clinic__known.yml"
    path.write_text(path.read_text().replace(before, after, 1))
    if complaint is None:  # somebody else's meta is nobody's business
        columns.read(settings)
        return
    with pytest.raises(BadInput, match=complaint):
        columns.read(settings)


def test_a_column_of_a_contract_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    dbt = tmp_path / "dbt"
    shutil.copytree(ROOT / "dbt", dbt, ignore=shutil.ignore_patterns("target", "logs"))
    settings = Settings(dbt=dbt)
    assert columns.read(settings).is_planned("ftr_booking__intake", "lead_days")
    path = dbt / "models" / "staging" / "hotels" / "_hotels__sources.yml"
    path.write_text(path.read_text().replace("{planned: true, unit: days}", "{unit: days}"))
    assert not columns.read(settings).is_planned("ftr_booking__intake", "lead_days")


@pytest.mark.parametrize(
    ("kind", "when", "complaint"),
    [
        ("bigint", "status_at", "'status_at' is bigint, which tells no time; name the column that tells when status"),
        ("varchar", "{column: status_at, format: '%d'}", "'%d' tells no year"),
        ("timestamptz", "{column: status_at, format: '%d/%m/%Y'}", "'status_at' is timestamptz and takes no format"),
        ("varchar", "{column: status_at, format: '%d.%m.%Y'}", None),
        ("timestamptz", "status_at", None),
        ("date", "status_at", None),
    ],
)
def test_what_tells_when_a_column_was_written_is_a_time(
    tmp_path: Path, kind: str, when: str, complaint: str | None
) -> None:
    settings = Settings(dbt=clinic.project(tmp_path))
    path = settings.dbt / "models" / "staging" / "clinic" / "stg_clinic__known.yml"
    text = path.read_text().replace("{name: status_at,", f"{{name: status_at, data_type: {kind},")
    text = text.replace("{written_later: status_at}", f"{{written_later: {when}}}")
    path.write_text(text)
    if complaint is None:
        assert columns.read(settings).of("stg_clinic__known", "status")
        return
    with pytest.raises(BadInput, match=rf"^{re.escape(str(path))}:5: column 'status': written_later: {complaint}"):
        columns.read(settings)


def test_a_word_that_stands_one_level_too_high_is_told_where_it_belongs(tmp_path: Path) -> None:
    settings = Settings(dbt=clinic.project(tmp_path))
    path = settings.dbt / "models" / "staging" / "clinic" / "stg_clinic__known.yml"
    path.write_text(
        path.read_text().replace("{meta: {tiltyard: {written_later: status_at}}}", "{meta: {planned: true}}", 1)
    )
    with pytest.raises(BadInput, match=r":5: column 'status': .* one level deeper, config: {meta: {tiltyard: {planned"):
        columns.read(settings)
