"""Roles of the database: each part of the project connects as a login of its own, with what it needs and no more.

The owner, as whom `tiltyard roles` runs, keeps the ledger's tables and makes its changes of form; he is no part of a
night. What a part may do is written down here as a whole: what is missing is granted, what somebody has granted
besides is taken back, so that twice is once and a home of one user becomes one of roles.

In the lake, in MLflow's and in Airflow's database one part owns all tables, as it makes new ones by itself. Whoever
else writes there does it as that part (PostgreSQL's setting `role` of a login in a database), so that no table is there
that its owner cannot change.

Passwords come from the environment. The server is sent the verifier that it keeps (RFC 5802, RFC 7677), never the
password, so that none of its logs can hold one.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor
from psycopg2.extensions import encrypt_password

from tiltyard import chain, ledger_tables, postgres
from tiltyard.errors import BadInput, Unavailable
from tiltyard.records.base import Record
from tiltyard.settings import DATABASES, ENV_PREFIX, ROLES, Settings

OWNERS: Final = {"lake": "nightly", "mlflow": "mlflow", "airflow": "airflow"}
"""Database → the part that owns what lies in it. The ledger is nobody's who works by night."""
ENTERS: Final = {
    "nightly": ("ledger", "lake", "mlflow", "airflow"),
    "pages": ("ledger", "lake", "airflow"),
    "serving": ("ledger",),
    "airflow": ("airflow",),
    "mlflow": ("mlflow",),
}
"""Part → the databases that it may connect to."""
READ: Final = ("SELECT",)
ADD: Final = ("SELECT", "INSERT")
CHANGE: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
LOOKED_AT: Final = ("hitl_detail", "task_instance", "dag_run", "log", "asset")
"""Tables of Airflow that nights and pages look into: who did what, and which forms wait."""
LOGINS: Final = ("ab_user_role", "ab_role")
"""Those of its user database, which there need not be: who may answer."""
ENDED: Final = {
    "task_instance": ("state", "end_date"), "dag_run": ("state", "end_date"),
    "hitl_detail": ("chosen_options", "responded_at"),
}  # fmt: skip
"""Table of Airflow → the columns by which a night ends a question that waits for nobody any more."""
_KEPT = {table.name for table in chain.GUARDED} | {"event", "release"}
"""Tables of the ledger that are only added to."""
_EXPECTED: Mapping[str, Collection[str]] = {"ledger": ledger_tables.metadata.tables, "airflow": LOOKED_AT}
_OLDEST = 160_000
"""PostgreSQL 16, the first in which whoever makes a role may act as it without being a superuser."""
_PLACES = {
    "database": "{}", "schema": "{}", "table": "public.{}", "sequence": "public.{}", "function": "public.{}()",
}  # fmt: skip
_HELD = """
    with entry (kind, name, field, acl, owner) as (
        select 'database', datname, null, coalesce(datacl, acldefault('d', datdba)), datdba
        from pg_database where datname = current_database()
        union all select 'schema', nspname, null, coalesce(nspacl, acldefault('n', nspowner)), nspowner
        from pg_namespace where nspname = 'public'
        union all select case relkind when 'S' then 'sequence' else 'table' end, relname, null, relacl, relowner
        from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S')
        union all select 'table', c.relname, quote_ident(a.attname), a.attacl, c.relowner
        from pg_attribute a join pg_class c on c.oid = a.attrelid where c.relnamespace = 'public'::regnamespace
        union all select 'function', proname, null, coalesce(proacl, acldefault('f', proowner)), proowner
        from pg_proc where pronamespace = 'public'::regnamespace and prorettype = 'trigger'::regtype
            and proname like 'tiltyard%%'
        union all select 'later tables', pg_get_userbyid(defaclrole), null, defaclacl, defaclrole
        from pg_default_acl where defaclnamespace = 'public'::regnamespace and defaclobjtype = 'r'
    )
    select kind, name, coalesce(r.rolname, ''), privilege_type || coalesce(' (' || field || ')', '')
    from entry cross join aclexplode(acl) a left join pg_roles r on r.oid = a.grantee
    where (a.grantee = 0 or r.rolname = any(%s)) and a.grantee <> owner
"""
_NOT_THEIRS = """
    with thing (kind, place, oid, owner) as (
        select case relkind when 'S' then 'sequence' else 'table' end, 'public.' || quote_ident(relname), oid, relowner
        from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S')
        union all select 'type', 'public.' || quote_ident(typname), oid, typowner
        from pg_type where typnamespace = 'public'::regnamespace and typtype = 'e'
        union all select 'function', oid::regprocedure::text, oid, proowner
        from pg_proc where pronamespace = 'public'::regnamespace and prokind = 'f'
    )
    select kind, place from thing where pg_get_userbyid(owner) <> %(own)s and not exists (
        select 1 from pg_depend d where d.objid = thing.oid  -- an extension's, or a sequence that goes with its table
        and (d.deptype = 'e' or kind = 'sequence' and d.deptype in ('a', 'i') and d.refobjsubid > 0)
    ) order by 1, 2
"""


class Grant(NamedTuple):
    """Something that a role may do."""

    kind: str
    """What it may do it with: database, schema, table, sequence, function, or the later tables of a role."""
    name: str
    """That thing's name; of later tables that of the role that makes them."""
    role: str
    """Name of the role on the server; empty for everybody."""
    privilege: str
    """As PostgreSQL writes it, like SELECT, or UPDATE (state) for a column."""


@dataclass(frozen=True, kw_only=True)
class RoleStep(Record):
    """Something that is not yet as it should be, or was made so."""

    database: str
    """Name of the database on the server; empty for what is about all of them."""
    role: str
    """Name of the role on the server; empty for what is about everybody."""
    what: str
    """What there is to do, without any secret."""


@dataclass(frozen=True, kw_only=True)
class RolesState(Record):
    """What `tiltyard roles` found."""

    steps: tuple[RoleStep, ...]
    """What there was to do, in order."""
    is_applied: bool
    """Whether it was done."""
    passwords: tuple[str, ...]
    """Roles that have the password of their variable now, or would have: it is set each time, since not every owner may
    see whether it is the one already."""
    without_password: tuple[str, ...]
    """Roles whose passwords are in no variable: these were left as they were. None in the embedded database, which asks
    for no password."""
    not_there: tuple[str, ...]
    """Tables that a part uses and that are not there (yet), each after its database."""


def role(settings: Settings, part: str) -> str:
    """Name, on the server, of a part's role."""
    if part not in ROLES:
        raise ValueError(f"{part!r} is not one of {ROLES}")
    return f"{settings.database_prefix}{part}"


def variable(part: str) -> str:
    """The variable that a part's password is read from."""
    return f"{ENV_PREFIX}{part.upper()}_PASSWORD"


def wanted(settings: Settings, database: str, tables: Collection[str]) -> set[Grant]:
    """What the roles may do in one of the four databases that has these tables, and nobody else."""
    own = {part: role(settings, part) for part in ROLES if database in ENTERS[part]}
    target, found = settings.database(database), set()
    for part, name in own.items():
        found |= {Grant("database", target, name, "CONNECT"), Grant("schema", "public", name, "USAGE")}
        for table, privileges in _of_tables(database, part, tables).items():
            found |= {Grant("table", table, name, privilege) for privilege in privileges}
    if owner := OWNERS.get(database):
        found |= {Grant("database", target, own[owner], "TEMPORARY"), Grant("schema", "public", own[owner], "CREATE")}
    if database == "lake":  # DuckLake makes tables for what it keeps in its catalogue
        found.add(Grant("later tables", own["nightly"], own["pages"], "SELECT"))
    return found


def _of_tables(database: str, part: str, tables: Collection[str]) -> dict[str, list[str]]:
    """Table → what a part may do with it. The chain is written by its triggers alone, as their owner."""
    found: dict[str, list[str]] = {}
    if database == "ledger":
        for table in ledger_tables.metadata.tables.keys() & tables:
            is_read = part != "nightly" or table == "chain"
            found[table] = [*(READ if is_read else ADD if table in _KEPT else CHANGE)]
    elif database == "lake" and part == "pages":
        found = {table: [*READ] for table in tables}
    elif database == "airflow" and part != "airflow":
        found = {table: [*READ] for table in (*LOOKED_AT, *LOGINS) if table in tables}
        if "ab_user" in tables:  # without the digests of their passwords
            found["ab_user"] = [f"SELECT ({column})" for column in ("id", "username", "active")]
        for table, columns in ENDED.items() if part == "nightly" else ():
            if table in tables:
                found[table] += [f"UPDATE ({column})" for column in columns]
    return found


def refuse_role(settings: Settings) -> None:
    """Raises BadInput where the settings name a role to connect as: what is the owner's work is not its own."""
    if settings.database_role:
        raise BadInput(f"{ENV_PREFIX}DATABASE_ROLE is set; this is the owner's work, so leave it out here.")


def has_lake(settings: Settings) -> bool:
    """Whether the lake was made. The owner opens no other: what lies in its catalogue is a part's, and runs as whoever
    reads it."""
    with _as_owner(settings, "lake") as cursor:
        return bool(_rows(cursor, "select to_regclass('public.ducklake_metadata') is not null")[0][0])


def settle(settings: Settings, passwords: Mapping[str, str], *, apply: bool) -> RolesState:
    """Say what is missing, and make it so with `apply`: twice is once, and one that was ended goes on.

    `passwords`: part → password, of those that have one. Raises BadInput where whoever connects is a role of these
    himself or a password cannot be taken, Unavailable where the server does not let him.
    """
    refuse_role(settings)
    settler = _Settler(settings, apply)
    try:
        with _as_owner(settings, "ledger") as cursor:
            settler.make_roles(cursor)
            settler.make_members(cursor)
            for part in ROLES:
                if apply and passwords.get(part):
                    _set_password(cursor, role(settings, part), part, passwords[part])
        for database in DATABASES:
            with _as_owner(settings, database) as cursor:  # one transaction: all of it, or nothing
                settler.make_grants(cursor, database)
    except psycopg2.errors.InsufficientPrivilege as error:
        said = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
        raise Unavailable(
            f"PostgreSQL does not let this user make roles ({said}); connect as the owner of the databases, who may "
            "create roles."
        ) from None
    given = tuple(role(settings, part) for part in ROLES if passwords.get(part))
    missing = tuple(role(settings, part) for part in ROLES if not passwords.get(part))
    return RolesState(
        steps=tuple(settler.steps), is_applied=apply, passwords=given,
        without_password=missing if settings.database_url else (), not_there=tuple(settler.not_there),
    )  # fmt: skip


@contextmanager
def _as_owner(settings: Settings, database: str) -> Iterator[Cursor]:
    """A transaction of the owner, one at a time. Raises BadInput where it is one of the roles who connects."""
    target = postgres.conninfo(postgres.url(settings, database))
    with closing(psycopg2.connect(target)) as connection, connection, connection.cursor() as cursor:
        if connection.server_version < _OLDEST:
            raise Unavailable("Roles need PostgreSQL 16 or later; update the server, or stay with one user for all.")
        cursor.execute("set role none")
        # three of the four schemas are a part's, which could put a function there that the owner would run in its place
        cursor.execute("set search_path = pg_catalog")
        cursor.execute("select pg_advisory_xact_lock(hashtext('tiltyard/roles'))")
        user = _user(cursor)
        if user in {role(settings, part) for part in ROLES}:
            raise BadInput(f"{user} is one of the roles; run this as the owner of the databases.")
        yield cursor


def _set_password(cursor: Cursor, name: str, part: str, password: str) -> None:
    try:
        kept = encrypt_password(password, name, scope=cursor.connection, algorithm="scram-sha-256")
    except (psycopg2.Error, ValueError, UnicodeError):
        raise BadInput(f"The password in {variable(part)} cannot be taken; choose letters and digits.") from None
    cursor.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(name), sql.Literal(kept)))


class _Settler:
    """One run: what it finds, and, where it is to apply, what it does."""

    def __init__(self, settings: Settings, apply: bool) -> None:
        self.settings = settings
        self.apply = apply
        self.steps: list[RoleStep] = []
        self.not_there: list[str] = []
        self.names = {part: role(settings, part) for part in ROLES}

    def make_roles(self, cursor: Cursor) -> None:
        """A login for each part, without any power over the server."""
        query = (
            "select rolname, array_remove(array[case when not rolcanlogin then 'login' end, "
            "case when rolsuper then 'nosuperuser' end, case when rolcreaterole then 'nocreaterole' end, "
            "case when rolcreatedb then 'nocreatedb' end, case when rolreplication then 'noreplication' end, "
            "case when rolbypassrls then 'nobypassrls' end], null) from pg_roles where rolname = any(%s)"
        )
        there = dict(_rows(cursor, query, [*self.names.values()]))
        for name in self.names.values():
            own = sql.Identifier(name)
            if name not in there:
                self._do(cursor, "", name, "create it", sql.SQL("create role {} login").format(own))
            elif there[name]:
                words = " ".join(there[name])
                self._do(cursor, "", name, f"make it {words}", sql.SQL(f"alter role {{}} {words}").format(own))
        self._make_own(cursor)

    def _make_own(self, cursor: Cursor) -> None:
        """Where a login looks for tables, and as whom it acts, it may set itself, as may whoever has its password."""
        query = (
            "select r.rolname, d.datname, split_part(one, '=', 1) from pg_db_role_setting s "
            "join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase "
            "cross join unnest(s.setconfig) as one where r.rolname = any(%(names)s) "
            "and split_part(one, '=', 1) in ('search_path', 'role') "
            "and not (r.rolname = %(nightly)s and d.datname = %(mlflow)s and one = %(acting)s) order by 1, 2, 3"
        )
        due = {"nightly": self.names["nightly"], "mlflow": self.settings.database("mlflow"),
               "acting": f"role={self.names['mlflow']}"}  # fmt: skip
        for name, database, setting in _rows(cursor, query, names=[*self.names.values()], **due):
            where = sql.SQL(" in database {}").format(sql.Identifier(database)) if database else sql.SQL("")
            statement = sql.SQL(f"alter role {{}}{{}} reset {setting}").format(sql.Identifier(name), where)
            self._do(cursor, database or "", name, f"take back the {setting} that it was given", statement)

    def make_members(self, cursor: Cursor) -> None:
        """Who may act as which role: nightly as MLflow, and the owner, where he is no superuser, as who owns tables."""
        user = _user(cursor)
        due = {(self.names["mlflow"], self.names["nightly"])}
        if not _rows(cursor, "select 1 from pg_roles where rolname = session_user and rolsuper"):
            due |= {(self.names[part], user) for part in OWNERS.values()}
        query = (
            "select g.rolname, m.rolname, b.rolname, a.set_option and a.inherit_option from pg_auth_members a "
            "join pg_roles g on g.oid = a.roleid join pg_roles m on m.oid = a.member "
            "join pg_roles b on b.oid = a.grantor where m.rolname = any(%s)"
        )
        found = _rows(cursor, query, [*self.names.values(), user])
        for group, member in sorted(due - {(group, member) for group, member, _, may_act in found if may_act}):
            statement = sql.SQL("grant {} to {} with inherit true, set true")
            self._do(cursor, "", member, f"let it act as {group}",
                     statement.format(sql.Identifier(group), sql.Identifier(member)))  # fmt: skip
        for group, member, by, _ in found:
            if member != user and (group, member) not in due:
                statement = sql.SQL("revoke {} from {} granted by {} cascade")
                self._do(cursor, "", member, f"let it no longer be a member of {group}",
                         statement.format(*map(sql.Identifier, (group, member, by))))  # fmt: skip

    def make_grants(self, cursor: Cursor, database: str) -> None:
        """One database: whose its tables are, who acts there as whom, and what everybody may do."""
        target = self.settings.database(database)
        query = (
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v')"
        )
        tables = {str(name) for (name,) in _rows(cursor, query)}
        self.not_there += [f"{database}.{name}" for name in _EXPECTED.get(database, ()) if name not in tables]
        due = wanted(self.settings, database, tables)
        held = {Grant(*row) for row in _rows(cursor, _HELD, [*self.names.values()])}
        for verb, word, grants in (("grant", "to", due - held), ("revoke", "from", held - due)):
            for (kind, name, privileges), places in _grouped(grants).items():
                what = f"{verb} {', '.join(privileges).lower()} on {kind} {', '.join(places)}"
                self._do(cursor, target, name, what, _statement(verb, word, kind, name, privileges, places))
        if database == "ledger":
            self._make_definers(cursor, target)
        else:  # only now may it make tables, and so have some
            self._make_owner(cursor, database, target)

    def _make_definers(self, cursor: Cursor, target: str) -> None:
        """The triggers write the chain as their owner, so that nobody else need be able to."""
        query = (
            "select proname from pg_proc where pronamespace = 'public'::regnamespace "
            "and prorettype = 'trigger'::regtype and proname like 'tiltyard%' and not prosecdef"
        )
        for (name,) in _rows(cursor, query):
            statement = sql.SQL("alter function public.{}() security definer set search_path = public, pg_temp")
            self._do(cursor, target, "", f"let {name} write the chain as its owner",
                     statement.format(sql.Identifier(name)))  # fmt: skip

    def _make_owner(self, cursor: Cursor, database: str, target: str) -> None:
        """What is there goes over to whoever changes its form from now on, and so does what others make."""
        own = self.names[OWNERS[database]]
        if found := _rows(cursor, _NOT_THEIRS, own=own):
            statement = sql.SQL("alter {} {} owner to {}")
            statements = [statement.format(sql.SQL(kind), sql.SQL(place), sql.Identifier(own)) for kind, place in found]
            self._do(cursor, target, own, f"give it {', '.join(place for _, place in found)}", *statements)
        query = (
            "select r.rolname from pg_db_role_setting s join pg_roles r on r.oid = s.setrole "
            "join pg_database d on d.oid = s.setdatabase where d.datname = %(target)s and %(set)s = any(s.setconfig)"
        )
        acting = {name for (name,) in _rows(cursor, query, target=target, set=f"role={own}")}
        for name in (_user(cursor), *([self.names["nightly"]] if database == "mlflow" else [])):
            if name not in acting:
                statement = sql.SQL("alter role {} in database {} set role = {}")
                self._do(cursor, target, name, f"let it act as {own} here",
                         statement.format(sql.Identifier(name), sql.Identifier(target), sql.Literal(own)))  # fmt: skip

    def _do(self, cursor: Cursor, target: str, name: str, what: str, *statements: sql.Composable) -> None:
        self.steps.append(RoleStep(database=target, role=name, what=what))
        if self.apply:
            for statement in statements:
                cursor.execute(statement)


def _grouped(grants: Iterable[Grant]) -> dict[tuple[str, str, tuple[str, ...]], list[str]]:
    """(kind, role, privileges) → what it has these on."""
    of: dict[tuple[str, str, str], list[str]] = {}
    for grant in sorted(grants):
        of.setdefault((grant.kind, grant.role, grant.name), []).append(grant.privilege)
    found: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for (kind, name, place), privileges in of.items():
        found.setdefault((kind, name, tuple(privileges)), []).append(place)
    return found


def _statement(
    verb: str, word: str, kind: str, name: str, privileges: Iterable[str], places: Iterable[str]
) -> sql.Composable:
    """`grant` or `revoke`. The privileges are the server's own words, or ours."""
    what = sql.SQL(f"{verb} {', '.join(privileges)}")
    whom = sql.SQL(f"{word} {{}}").format(sql.Identifier(name) if name else sql.SQL("public"))
    if kind == "later tables":
        makers = sql.SQL(", ").join(map(sql.Identifier, places))
        statement = sql.SQL("alter default privileges for role {} in schema public {} on tables {}")
        return statement.format(makers, what, whom)
    named = sql.SQL(", ").join(sql.SQL(_PLACES[kind]).format(sql.Identifier(place)) for place in places)
    return sql.SQL("{} on {} {} {}").format(what, sql.SQL(kind), named, whom)


def _user(cursor: Cursor) -> str:
    """Who has connected, whoever he acts as."""
    return str(_rows(cursor, "select session_user")[0][0])


def _rows(cursor: Cursor, query: str, *values: object, **named: object) -> list[tuple[Any, ...]]:
    cursor.execute(query, named or values or None)
    return list(cursor.fetchall())
