"""Roles of the database: each part does what it needs and nothing else, and what was granted besides is taken back."""

from collections.abc import Iterator
from contextlib import closing
from datetime import date

import psycopg2
import pytest
import sqlalchemy as sa
from psycopg2 import sql
from typer.testing import CliRunner

from tests.homes import cursor
from tiltyard import chain, ledger, ledger_tables, postgres, roles
from tiltyard import rails as rails_module
from tiltyard.cli import app
from tiltyard.errors import BadInput
from tiltyard.rails import Rails
from tiltyard.records import Decision, EvidenceRecord
from tiltyard.settings import DATABASES, ROLES, Settings

NIGHT = date(2025, 5, 30)
GUARDED = tuple(table.name for table in chain.GUARDED)


def as_role(settings: Settings, part: str) -> Settings:
    """The same home for a part: on a server of one's own the address names the user."""
    server = postgres.server_url(settings).set(username=roles.role(settings, part))
    return settings.model_copy(update={"database_url": server.render_as_string(hide_password=False)})


def gone(settings: Settings) -> None:
    """The roles are the server's, which outlives the test."""
    names = [roles.role(settings, part) for part in ROLES]
    for database in DATABASES:
        with cursor(settings, settings.database(database)) as server:
            server.execute("set role none")
            for name in map(sql.Identifier, names):
                server.execute(sql.SQL("reassign owned by {} to session_user").format(name))
                server.execute(sql.SQL("drop owned by {} cascade").format(name))
    with cursor(settings, "postgres") as server:
        for name in map(sql.Identifier, names):
            server.execute(sql.SQL("drop role {}").format(name))


@pytest.fixture
def applied(rails: Rails) -> Iterator[Settings]:
    evidence = EvidenceRecord(model="churn", night=NIGHT, challenger=1, champion=None)
    rails.ledger.add_decision(
        Decision(model="churn", night=NIGHT, challenger=1, champion=None, verdict="hold", reasons=("few",),
                 evidence=evidence)
    )  # fmt: skip
    roles.settle(rails.settings, {}, apply=True)
    yield rails.settings
    gone(rails.settings)


def said(settings: Settings, part: str, statement: str, database: str = "ledger") -> str:
    """What the server says to a part's statement, in a transaction that is taken back; empty where it does it."""
    target = postgres.server_url(as_role(settings, part)).set(database=settings.database(database))
    try:
        connection = psycopg2.connect(postgres.conninfo(target))
    except psycopg2.OperationalError as error:
        return str(error).strip().splitlines()[0].rpartition("FATAL:  ")[2]
    try:
        with connection.cursor() as server:
            server.execute(statement)
    except psycopg2.errors.InsufficientPrivilege as error:
        return str(error).splitlines()[0]
    finally:
        connection.rollback()
        connection.close()
    return ""


def test_what_is_missing_is_said_then_done_and_then_there_is_nothing_to_do(rails: Rails) -> None:
    settings = rails.settings
    try:
        first = roles.settle(settings, {}, apply=False)
        assert first.steps
        assert not first.is_applied
        assert roles.settle(settings, {}, apply=False) == first, "what is only said changes nothing"
        assert roles.settle(settings, {}, apply=True).steps
        again = roles.settle(settings, {}, apply=True)
        assert again.steps == ()
        assert set(again.not_there) == {f"airflow.{name}" for name in roles.LOOKED_AT}
    finally:
        gone(settings)


@pytest.mark.parametrize("table", ["promotion", "decision", "version", "chain"])
@pytest.mark.parametrize("part", ["pages", "serving"])
def test_who_only_looks_changes_nothing_of_what_was_decided(applied: Settings, part: str, table: str) -> None:
    assert said(applied, part, f"select * from {table}") == ""
    for statement in (f"insert into {table} select * from {table}", f"delete from {table}", f"truncate {table}",
                      f"update {table} set recorded_at = now()"):  # fmt: skip
        assert said(applied, part, statement) == f"permission denied for table {table}", statement


@pytest.mark.parametrize("table", GUARDED)
def test_the_night_adds_to_what_was_decided_and_changes_nothing_of_it(applied: Settings, table: str) -> None:
    column = ledger_tables.metadata.tables[table].columns.keys()[0]
    for statement in (f"update {table} set {column} = {column}", f"delete from {table}", f"truncate {table}"):
        assert said(applied, "nightly", statement) == f"permission denied for table {table}", statement
    for statement in (f"alter table {table} disable trigger user", f"drop trigger tiltyard_chain on {table}",
                      f"drop table {table}"):  # fmt: skip
        assert said(applied, "nightly", statement).startswith("must be owner of "), statement


@pytest.mark.parametrize(("database", "part"), [("lake", "nightly"), ("mlflow", "mlflow"), ("airflow", "airflow")])
def test_no_part_has_the_owner_run_what_it_has_put_into_its_schema(applied: Settings, database: str, part: str) -> None:
    """By a name of PostgreSQL's own, for the very type that is asked of it, which a schema of the path would win."""
    role = roles.role(applied, part)
    target = postgres.server_url(as_role(applied, part)).set(database=applied.database(database))
    trap = "begin if current_user <> '{}' then execute 'alter role {} createdb'; end if; return {}; end"
    with closing(psycopg2.connect(postgres.conninfo(target))) as connection, connection, connection.cursor() as own:
        own.execute(f"create function public.quote_ident(name) returns text language plpgsql as "
                    f"$_${trap.format(role, role, 'pg_catalog.quote_ident($1::text)')}$_$")  # fmt: skip
        own.execute(f"create function public.pg_get_userbyid(bigint) returns text language plpgsql as "
                    f"$_${trap.format(role, role, 'pg_catalog.pg_get_userbyid($1::oid)')}$_$")  # fmt: skip
        own.execute("create table public.there (own int)")
        own.execute("grant select (own) on public.there to public")
    with cursor(applied, applied.database(database)) as server:
        server.execute("set role none")
        server.execute("create table public.anothers (own int)")
    roles.settle(applied, {}, apply=True)
    with cursor(applied, "postgres") as server:
        server.execute("select rolcreatedb from pg_roles where rolname = %s", [role])
        assert server.fetchall() == [(False,)]
    assert roles.settle(applied, {}, apply=True).steps == ()


def test_a_login_keeps_nothing_that_somebody_has_set_for_it(applied: Settings) -> None:
    """Each login may set that for itself; one that is due stays, and so does what is the operator's."""
    name, lake = roles.role(applied, "nightly"), applied.database("lake")
    for statement in (f"alter role {name} set search_path = 'nowhere'", f"alter role {name} set work_mem = '8MB'",
                      f"alter role {name} in database {lake} set role = 'none'"):  # fmt: skip
        with cursor(as_role(applied, "nightly"), applied.database("ledger")) as server:
            server.execute(statement)
    told = [(step.database, step.role, step.what) for step in roles.settle(applied, {}, apply=True).steps]
    assert told == [(lake, name, "take back the role that it was given"),
                    ("", name, "take back the search_path that it was given")]  # fmt: skip
    assert roles.settle(applied, {}, apply=True).steps == ()
    assert said(applied, "nightly", "select * from decision") == ""
    with cursor(applied, "postgres") as server:
        server.execute("select setconfig from pg_db_role_setting s join pg_roles r on r.oid = setrole "
                       "where rolname = %s order by 1", [name])  # fmt: skip
        assert server.fetchall() == [([f"role={roles.role(applied, 'mlflow')}"],), (["work_mem=8MB"],)]


def test_the_owner_reads_nothing_of_a_lake_that_is_a_part_s(applied: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view in its catalogue, of which a function takes off the role that the owner acts as there."""
    role = roles.role(applied, "nightly")
    target = postgres.server_url(as_role(applied, "nightly")).set(database=applied.database("lake"))
    with closing(psycopg2.connect(postgres.conninfo(target))) as connection, connection, connection.cursor() as own:
        own.execute(
            "create function taken_off() returns text language plpgsql as $_$ begin "
            f"if session_user <> '{role}' then set role none; execute 'alter role {role} connection limit 7'; end if; "
            "return ''; end $_$"
        )
        own.execute("alter table ducklake_metadata rename to kept")
        columns = "key || taken_off() as key, value, scope, scope_id"
        own.execute(f"create view ducklake_metadata as select {columns} from kept")
    for name in ("home", "database_url", "database_prefix"):
        monkeypatch.setenv(f"TILTYARD_{name.upper()}", str(getattr(applied, name)))
    assert CliRunner().invoke(app, ["roles", "--apply"]).exit_code == 0
    with cursor(applied, "postgres") as server:
        server.execute("select rolconnlimit from pg_roles where rolname = %s", [role])
        assert server.fetchall() == [(-1,)]


def test_the_night_writes_the_chain_by_its_triggers_alone(applied: Settings) -> None:
    for statement in ("insert into chain select * from chain", "update chain set id = id", "delete from chain",
                      "truncate chain"):  # fmt: skip
        assert said(applied, "nightly", statement) == "permission denied for table chain"
    assert said(applied, "nightly", "create function tiltyard_chain() returns trigger language plpgsql as ''") == (
        "permission denied for schema public"
    )
    own = "create temp table own (id int); create trigger t after insert on own execute function tiltyard_chain()"
    assert said(applied, "nightly", own).startswith("permission denied"), "no table of theirs writes entries"
    assert said(applied, "nightly", "alter function tiltyard_chain() security invoker") == (
        "must be owner of function tiltyard_chain"
    )
    with rails_module.opened(as_role(applied, "nightly")) as rails:
        before = rails.ledger.verify()
        with rails.ledger.engine.begin() as connection:
            assert connection.scalar(sa.text("select current_user")) == roles.role(applied, "nightly")
        evidence = EvidenceRecord(model="churn", night=NIGHT, challenger=2, champion=None)
        rails.ledger.add_decision(
            Decision(model="churn", night=NIGHT, challenger=2, champion=None, verdict="hold", reasons=("few",),
                     evidence=evidence)
        )  # fmt: skip
        after = rails.ledger.verify(before.head)
    assert (after.entries, after.faults) == (before.entries + 1, ())


@pytest.mark.parametrize("part", ROLES)
def test_nobody_becomes_somebody_else(applied: Settings, part: str) -> None:
    [database] = [name for name, owner in roles.OWNERS.items() if owner == part] or ["ledger"]
    for other in ("postgres", *(roles.role(applied, name) for name in ROLES)):
        refused = said(applied, part, f"set role {other}", database)
        is_own = other == roles.role(applied, part)
        acts = (part, other) == ("nightly", roles.role(applied, "mlflow"))
        assert refused == ("" if is_own or acts else f'permission denied to set role "{other}"')
    assert said(applied, part, "create role another", database) == "permission denied to create role"


@pytest.mark.parametrize("part", ROLES)
def test_a_part_enters_the_databases_that_it_needs(applied: Settings, part: str) -> None:
    for database in DATABASES:
        refused = said(applied, part, "select 1", database)
        is_let_in = database in roles.ENTERS[part]
        assert refused == ("" if is_let_in else f'permission denied for database "{applied.database(database)}"')


def test_the_owner_and_the_night_make_tables_that_the_other_can_change(applied: Settings) -> None:
    """In the lake, where DuckLake makes tables by itself; and in MLflow's database, which both log into."""
    for database, part, owner in (("lake", "nightly", "nightly"), ("mlflow", "nightly", "mlflow")):
        for number, settings in enumerate((applied, as_role(applied, part))):
            with cursor(settings, settings.database(database)) as server:
                server.execute(f"create table made_{number} (id int)")
                server.execute("select distinct tableowner from pg_tables where tablename like 'made%'")
                assert server.fetchall() == [(roles.role(applied, owner),)]
    with cursor(as_role(applied, "pages"), applied.database("lake")) as server:
        server.execute("select * from made_0, made_1")
    assert said(applied, "pages", "insert into made_0 values (1)", "lake") == "permission denied for table made_0"
    assert roles.settle(applied, {}, apply=True).steps == ()


def test_what_somebody_has_granted_besides_is_taken_back(applied: Settings) -> None:
    own = {part: roles.role(applied, part) for part in ROLES}
    with cursor(applied, applied.database("ledger")) as server:
        server.execute(f"grant update, truncate on decision to {own['pages']}")
        server.execute(f"grant update (verdict) on decision to {own['serving']}")
        server.execute("grant insert on chain to public")
        server.execute("grant create on schema public to public")
        server.execute(f"grant pg_write_all_data to {own['pages']}")
        server.execute(f"alter role {own['serving']} createrole superuser")
    assert said(applied, "pages", "update decision set verdict = 'promote'") != "permission denied for table decision"
    done = {(step.role, step.what) for step in roles.settle(applied, {}, apply=True).steps}
    assert done == {
        (own["serving"], "make it nosuperuser nocreaterole"),
        (own["pages"], "let it no longer be a member of pg_write_all_data"),
        (own["pages"], "revoke truncate, update on table decision"),
        (own["serving"], "revoke update (verdict) on table decision"),
        ("", "revoke insert on table chain"), ("", "revoke create on schema public"),
    }  # fmt: skip
    assert said(applied, "pages", "update decision set verdict = 'promote'") == "permission denied for table decision"
    assert said(applied, "serving", "update decision set verdict = ''") == "permission denied for table decision"
    assert roles.settle(applied, {}, apply=True).steps == ()


def test_a_ledger_from_before_has_its_triggers_write_as_their_owner(applied: Settings) -> None:
    with cursor(applied, applied.database("ledger")) as server:
        server.execute("alter function tiltyard_chain() security invoker; alter function tiltyard_chain() reset all")
    add = "insert into operation_end (id, outcome, decided_at) values (99, 'done', now())"
    assert said(applied, "nightly", add) == "permission denied for table chain"
    [step] = roles.settle(applied, {}, apply=True).steps
    assert step.what == "let tiltyard_chain write the chain as its owner"
    assert said(applied, "nightly", add) == ""


def test_a_role_makes_no_roles_and_is_told_so(applied: Settings) -> None:
    with pytest.raises(BadInput, match="_nightly is one of the roles; run this as the owner"):
        roles.settle(as_role(applied, "nightly"), {}, apply=True)
    with pytest.raises(BadInput, match="TILTYARD_DATABASE_ROLE is set; this is the owner's work"):
        roles.settle(applied.model_copy(update={"database_role": "nightly"}), {}, apply=True)
    with cursor(applied, "postgres") as server:
        server.execute(f"create role {applied.database_prefix}somebody login")
        somebody = postgres.server_url(applied).set(username=f"{applied.database_prefix}somebody")
        try:
            with pytest.raises(BadInput, match="_somebody may not do this"):
                roles.settle(applied.model_copy(update={"database_url": str(somebody)}), {}, apply=True)
        finally:
            server.execute(f"drop role {applied.database_prefix}somebody")


def test_an_older_ledger_is_changed_by_its_owner_alone(applied: Settings) -> None:
    """A table that came with a later version: a role that opens the ledger says who makes it."""
    with cursor(applied, applied.database("ledger")) as server:
        server.execute("drop table worth")
    sentence = r"user t\w+_pages may not do this \(permission denied for schema public\); run it as a role that may, or"
    with pytest.raises(BadInput, match=sentence), rails_module.opened(as_role(applied, "pages"), lake_at_once=False):
        pass
    ledger._made.clear()  # another process
    with rails_module.opened(applied):
        pass
    roles.settle(applied, {}, apply=True)
    with rails_module.opened(as_role(applied, "pages"), lake_at_once=False) as rails:
        assert rails.ledger.versions("churn") == []
