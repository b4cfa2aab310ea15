"""dbt in process: what it builds, that it may be repeated and caught up, and what it says when it fails."""

import csv
import io
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import know_project, make_settings
from tiltyard import rails as rails_module
from tiltyard.edge import airflow_settings
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.prepare import contracts, frame, ingest, transform
from tiltyard.prepare.simulator import Simulator
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings
from tiltyard.tables import Table

SOURCES = ("incident", "subscription")
START = date(2025, 1, 1)
NIGHTS = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=days) for days in (15, 23, 36)]
TABLES = (
    "staging.stg_incident__update", "spines.spn_ticket_opened", "features.ftr_ticket__intake",
    "features.ftr_caller__history", "features.ftr_group__history", "features.ftr_group__load",
    "labels.lbl_sla_breach", "staging.stg_subscription__customer", "staging.stg_subscription__login",
    "staging.stg_subscription__payment", "staging.stg_subscription__cancellation", "spines.spn_customer_reviewed",
    "features.ftr_customer__profile", "features.ftr_customer__activity", "features.ftr_customer__payments",
    "labels.lbl_churn",
)  # fmt: skip


ANSWERS = tuple(f"{table}__answers" for table in TABLES if table.startswith("features."))


def land_tickets(settings: Settings, tickets: int = 150, seed: int = 7) -> None:
    """Tickets that change hands, are closed, reopened or forgotten; one update in seven is delivered days late."""
    draw = random.Random(seed)
    header = list(contracts.read(settings, "incident").tables[0].columns)
    files: dict[date, list[dict[str, str]]] = {}
    for number in range(tickets):
        moment = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=draw.randrange(20 * 1440))
        group, opened = draw.randrange(6), moment
        states = ["New", *draw.choices(["Active", "Awaiting Vendor", "-100"], k=draw.randrange(4))]
        states += draw.choice([[], ["Resolved"], ["Resolved", "Closed"], ["Closed"], ["Closed", "Active", "Closed"]])
        for count, state in enumerate(states):
            row = dict.fromkeys(header, "?") | {
                "number": f"INC{number:04}",
                "sys_mod_count": str(count),
                "incident_state": state,
                "made_sla": str(state != "Closed" or draw.random() < 0.6).lower(),
                "caller_id": f"Caller {draw.randrange(12) if count == 0 else 99}",
                "assignment_group": "?" if draw.random() < 0.05 else f"Group {group}",
                "priority": "3 - Moderate",
                "opened_at": f"{opened:%d/%m/%Y %H:%M}",
                "sys_updated_at": f"{moment:%d/%m/%Y %H:%M}",
                "closed_at": f"{moment + timedelta(days=2):%d/%m/%Y %H:%M}",
            }
            late = timedelta(days=draw.randrange(1, 9) if draw.random() < 1 / 7 else 0)
            files.setdefault((moment + late).date(), []).append(row)
            moment += timedelta(minutes=draw.choice([0, 30, 600, 3000, 9000]))
            group = draw.randrange(6) if draw.random() < 0.3 else group
    folder = settings.landing / "incident" / "incident_update"
    folder.mkdir(parents=True)
    for day, rows in files.items():
        out = io.StringIO()
        writer = csv.DictWriter(out, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        (folder / f"{day}.csv").write_text(out.getvalue(), encoding="utf-8")


def differences(rails: Rails, table: str, one: int, other: int) -> int:
    """Rows that the table has at only one of two snapshots, its audit columns aside."""
    audit = ("built_at", "ingested_at") if table.startswith("staging.") else ("built_at",)
    own = ", ".join(f'"{name}"' for name in rails.lake.columns(table) if name not in audit)
    at = [f"(select {own} from lake.{table} at (version => {version}))" for version in (one, other)]
    row = rails.lake.connection.execute(
        f"select count(*) from ((from {at[0]} except all from {at[1]}) union all "
        f"(from {at[1]} except all from {at[0]}))"
    ).fetchone()
    assert row is not None
    return int(row[0])


BUILD = """
import sys
from datetime import datetime

from tiltyard import rails
from tiltyard.prepare import transform

with rails.opened() as opened:
    transform.build(opened, opened.settings.sources, datetime.fromisoformat(sys.argv[1]))
"""


def building(settings: Settings) -> subprocess.Popen[bytes]:
    environment = os.environ | airflow_settings.tiltyard_env(settings) | {"PYTHONPATH": str(ROOT / "plugins")}
    environment["TILTYARD_SOURCES"] = ",".join(settings.sources)
    return subprocess.Popen([sys.executable, "-c", BUILD, NIGHTS[-1].isoformat()], env=environment)


@pytest.fixture(scope="module")
def caught_up(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Rails]:
    """Both sources, landed and built in three steps, with late and out-of-order arrivals in each; two processes at once
    do the last build."""
    settings = make_settings(tmp_path_factory.mktemp("caught up"), postgres_url, sources=SOURCES)
    land_tickets(settings)
    Simulator(customers=60, start=START, days=35, late_share=0.2).land(settings.landing / "subscription")
    with rails_module.opened(settings) as rails:
        for night in NIGHTS:
            for source in SOURCES:
                assert not ingest.land_night(rails, source, night).quarantined
            if night == NIGHTS[-1]:
                with building(settings) as one, building(settings) as other:
                    assert (one.wait(), other.wait()) == (0, 0)
            else:
                transform.build(rails, SOURCES, night)
        yield rails


def test_every_table_has_rows(caught_up: Rails) -> None:
    for table in TABLES:
        row = caught_up.lake.connection.execute(f"select count(*) from lake.{table}").fetchone()
        assert row is not None and row[0] > 0, table


def test_catching_up_equals_building_from_scratch(caught_up: Rails) -> None:
    before = caught_up.lake.snapshot()
    summary = transform.build(caught_up, SOURCES, NIGHTS[-1])
    again = caught_up.lake.snapshot()
    tables = (*TABLES, *ANSWERS)
    assert {table: differences(caught_up, table, before, again) for table in tables} == dict.fromkeys(tables, 0)
    assert again == before, "and nothing is written of what is there already"

    transform.build(caught_up, SOURCES, NIGHTS[-1], full_refresh=True)
    scratch = caught_up.lake.snapshot()
    assert {table: differences(caught_up, table, again, scratch) for table in tables} == dict.fromkeys(tables, 0)
    assert summary.models == len(TABLES)
    views = {table.split(".")[1] for table in TABLES if table.startswith("features.")}
    for snapshot in (before, again, scratch):
        assert frame.answers_kept(caught_up, snapshot) >= views


def test_the_project_holds_its_own_tests(caught_up: Rails) -> None:
    """Unit tests (the label, the blanking) and the point-in-time join of both dispatches on real tables."""
    empty = []
    for source in set(contracts.sources(caught_up.settings)) - set(caught_up.settings.sources):
        empty += ["--select", f"source:{source}+"]  # a unit test reads the columns of the tables that it stands for
        for table in contracts.read(caught_up.settings, source).tables:
            caught_up.lake.ensure(Table(table.raw, table.raw_columns))
    transform.invoke(caught_up.settings, "run", *empty)
    nodes = transform.invoke(caught_up.settings, "test", "--select", "test_type:unit", "tag:reference")

    assert {node.name for node in nodes} >= {"what_was_not_known_yet_is_blank", "point_in_time_agrees"}
    assert {node.status for node in nodes} == {"pass"}


def test_nothing_is_written_into_the_checkout(caught_up: Rails) -> None:
    assert (caught_up.settings.home / "dbt" / "target" / "partial_parse.msgpack").exists()
    assert not (ROOT / "dbt" / "target").exists()
    assert not (ROOT / "dbt" / "logs").exists()


@pytest.fixture
def small_project(settings: Settings, tmp_path: Path) -> Settings:
    """A dbt project of one source and two models; the second divides by what the source brings."""
    folder = tmp_path / "a project"
    shutil.copytree(ROOT / "dbt" / "macros", folder / "macros")
    for name in ("dbt_project.yml", "profiles.yml"):
        shutil.copy(ROOT / "dbt" / name, folder / name)
    models = folder / "models" / "staging"
    models.mkdir(parents=True)
    (models / "sources.yml").write_text(
        "sources: [{name: shop, database: lake, schema: raw, tables: [{name: sale}]}]\n", encoding="utf-8"
    )
    (models / "stg_fine.sql").write_text(
        "{{ config(materialized='table') }} select n, 1 as one from {{ source('shop', 'sale') }}\n", encoding="utf-8"
    )
    (models / "stg_broken.sql").write_text(
        "{{ config(materialized='table') }} select cast(n as integer) as n from {{ ref('stg_fine') }}\n",
        encoding="utf-8",
    )
    return settings.model_copy(update={"dbt": folder})


def test_a_failed_node_is_named(small_project: Settings) -> None:
    with rails_module.opened(small_project) as rails:
        rails.lake.ensure(Table("raw.sale", {"n": "varchar"}))
        rails.lake.connection.execute("insert into lake.raw.sale values ('many')")
        failed = transform.build(rails, ["shop"], NIGHTS[0]).failed
        assert failed.keys() == {"stg_broken"}, "and stg_fine is built"
        assert "Could not convert string 'many'" in failed["stg_broken"]
        with pytest.raises(CheckFailed, match=r"dbt failed at 1 node: stg_broken: .*Could not convert.*many"):
            transform.invoke(rails.settings, "build")

        rails.lake.connection.execute("delete from lake.raw.sale")
        summary = transform.build(rails, ["shop"], NIGHTS[0])
        assert (summary.models, summary.failed) == (2, {})


def test_columns_that_differ_from_the_contract_are_named(small_project: Settings) -> None:
    (small_project.dbt / "models" / "staging" / "stg_fine.yml").write_text(
        "models: [{name: stg_fine, config: {contract: {enforced: true}}, columns: ["
        "{name: n, data_type: timestamp with time zone}, {name: two, data_type: integer}]}]\n",
        encoding="utf-8",
    )
    with rails_module.opened(small_project) as rails:
        rails.lake.ensure(Table("raw.sale", {"n": "varchar"}))
        failed = transform.build(rails, ["shop"], NIGHTS[0]).failed["stg_fine"]
    for words in (
        "column n is VARCHAR in the SQL, TIMESTAMP WITH TIME ZONE in the .yml",
        "column one is not in the .yml",
        "column two is not in the SQL",
    ):
        assert words in failed


def test_a_source_that_nothing_reads_is_bad_input(small_project: Settings) -> None:
    with rails_module.opened(small_project) as rails:
        with pytest.raises(BadInput, match="dbt has nothing that reads absent"):
            transform.build(rails, ["absent"], NIGHTS[0])
        with pytest.raises(BadInput, match="no source to build"):
            transform.build(rails, [], NIGHTS[0])


def test_a_project_that_does_not_parse_says_where(small_project: Settings) -> None:
    (small_project.dbt / "models" / "staging" / "stg_fine.sql").write_text("select {{ oh(", encoding="utf-8")
    with rails_module.opened(small_project) as rails, pytest.raises(BadInput, match=r"dbt does not run: .*stg_fine"):
        transform.build(rails, ["shop"], NIGHTS[0])


def test_what_dbt_has_parsed_of_a_project_holds_for_every_home(settings: Settings, postgres_url: str) -> None:
    know_project(settings, postgres_url)
    transform.invoke(settings, "parse")
    assert "Unable to do partial parsing" not in (settings.home / "dbt" / "logs" / "dbt.log").read_text()
    other = settings.model_copy(update={"threads": settings.threads + 1})  # which is in the profile, as the lake was
    transform.invoke(other, "parse")
    assert "Unable to do partial parsing" in (settings.home / "dbt" / "logs" / "dbt.log").read_text()
