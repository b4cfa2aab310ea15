"""Which tables a build has to make anew, since the text that makes them is another one than when they were built last.

An incremental build computes what is new by the text of today and leaves the rows of yesterday as the text of yesterday
made them. So the lake keeps of every table a digest of what built it (`ops.built`): its SQL as dbt compiles it for all
rows, and its columns by the `.yml`. A table with another digest is made anew, and so is everything that is made of it.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import duckdb

from tiltyard.lake import identifier
from tiltyard.prepare.graph import Graph
from tiltyard.rails import Rails
from tiltyard.tables import BUILT, LANDED_FILE
from tiltyard.words import counted

PENDING = ""
"""Digest of a table whose rebuild did not come to its end."""
SQL, COLUMNS = "its SQL changed", "its columns in the .yml changed"
ASKED = "somebody asked for it"
REPLACED = "replaced"
"""Digest of a table that a delivery was replaced under."""
_TOKEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|\w+|\S", re.DOTALL)
_STAMP = re.compile(r"coalesce\(cast\(getvariable\('built_at'\) as timestamptz\), cast\('[^']*' as timestamptz\)\)")


@dataclass(frozen=True)
class Text:
    """What makes one table."""

    name: str
    """The table's name, without its schema."""
    table: str
    """The same with it, `schema.name`."""
    relation: str
    """How the SQL of others names it."""
    sql: str
    """Its SQL, compiled for all rows."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column → type, by the `.yml`."""
    is_whole: bool = False
    """Whether the `.yml` has to describe every column (dbt's contract)."""
    keys: tuple[str, ...] = ()
    """The columns by which dbt replaces rows; empty where it replaces the whole table."""
    parents: frozenset[str] = frozenset()
    """The tables that it reads: what dbt makes by its name, the others like `raw.login`."""

    @property
    def digest(self) -> str:
        """SHA-256 of the SQL without comments, white space and the stamp of a build, and of keys and columns, with a
        dot between them."""
        tokens = [token for token in _TOKEN.findall(_STAMP.sub("built_at", self.sql)) if token[:2] not in ("--", "/*")]
        parts = (" ".join([*tokens, *self.keys]), repr(sorted((name, kind) for name, kind in self.columns.items())))
        return ".".join(hashlib.sha256(part.encode()).hexdigest() for part in parts)


@dataclass(frozen=True)
class Plan:
    """What a build makes anew, and what it does not touch."""

    rebuilt: Mapping[str, str] = field(default_factory=dict)
    """Table → why it is made anew; what stands on another one after it."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Table → why it stays as it is, though its text is another one."""

    @property
    def apart(self) -> tuple[str, ...]:
        """The tables that the incremental build leaves out."""
        return (*self.rebuilt, *self.refused)


# -- deciding ---------------------------------------------------------------------------------


def choose(texts: Mapping[str, Text], kept: Mapping[str, str], asked: Collection[str] = ()) -> dict[str, str]:
    """Table → why it is made anew, what stands on another one after it. `kept`: table → digest of what built it; one of
    which nobody has kept it, since it is new or older than that, is made anew only with what it is made of. Pure."""
    why = {name: reason for name, text in texts.items() if (reason := _reason(text, kept.get(name), name in asked))}
    graph = Graph({name: text.parents & texts.keys() for name, text in texts.items()})
    rebuilt: dict[str, str] = {}
    for name in graph.below(why):
        above = sorted(graph.upstream(name) & why.keys() - {name})
        rebuilt[name] = why.get(name) or f"it is made of {', '.join(above)}"
    return rebuilt


def _reason(text: Text, kept: str | None, is_asked: bool) -> str | None:
    """Why a table is made anew for its own sake; None where it need not."""
    if is_asked:
        return ASKED
    if kept is None or kept == text.digest:
        return None
    if kept == REPLACED:
        return "a delivery that it is made of was replaced"
    if kept == PENDING:
        return "its last rebuild did not come to its end"
    sql, columns = (new != old for new, old in zip(text.digest.split("."), kept.split("."), strict=True))
    return " and ".join([SQL] * sql + [COLUMNS] * columns)


def plan(rails: Rails, texts: Mapping[str, Text], asked: Collection[str] = ()) -> Plan:
    """What a build makes anew of these tables.

    Where raw rows are gone, a table stays as it is that would lose rows of its own with them, and everything that is
    made of it; unless it is `asked` for by name.
    """
    kept = _kept(rails)
    for name, text in texts.items():
        if name in kept or not text.is_whole or not rails.lake.has(text.table):
            continue
        if {*map(str.lower, text.columns)} != {*map(str.lower, rails.lake.columns(text.table))}:
            kept[name] = f"{text.digest.split('.')[0]}.unknown"  # built before anybody kept digests, from other columns
    rebuilt = choose(texts, kept, asked)
    refused: dict[str, str] = {}
    if rebuilt and (gone := _gone(rails)):
        refused = _would_lose(rails, {name: texts[name] for name in rebuilt}, texts, gone, asked)
    return Plan({name: why for name, why in rebuilt.items() if name not in refused}, refused)


def _gone(rails: Rails) -> dict[str, int]:
    """Raw table → number of rows that have landed and are not there any more; without those that lack none."""
    if not rails.lake.has(LANDED_FILE):
        return {}
    landed = rails.lake.connection.execute(
        f"select table_name, sum(rows) from {identifier(LANDED_FILE)} group by table_name"
    ).fetchall()
    gone = {}
    for name, rows in landed:
        table = f"raw.{name}"
        if not rails.lake.has(table):
            continue
        there = rails.lake.connection.execute(f"select count(*) from {identifier(table)}").fetchone()
        if there is not None and rows > there[0]:
            gone[table] = int(rows) - int(there[0])
    return gone


def _would_lose(
    rails: Rails, chosen: Mapping[str, Text], texts: Mapping[str, Text], gone: Mapping[str, int], asked: Collection[str]
) -> dict[str, str]:
    """Table → why it is not made anew: rows that it has now would not be made again. The tables are made in memory,
    each from those before it."""
    graph = Graph(
        {name: text.parents for name, text in texts.items()}
        | {parent: frozenset() for text in texts.values() for parent in text.parents - texts.keys()}
    )
    refused: dict[str, str] = {}
    made: dict[str, str] = {}
    connection = rails.lake.connection
    try:
        for name, text in chosen.items():
            if above := sorted(graph.upstream(name) & refused.keys()):
                refused[name] = f"it is made of {', '.join(above)}, which is not made anew"
                continue
            short = {table: rows for table, rows in gone.items() if graph.stands_on(name, table)}
            if not short:
                continue
            sql = text.sql
            for relation, place in made.items():
                sql = sql.replace(relation, place)
            try:
                connection.execute(f'create or replace temp table "{name}__anew" as {sql}')
                made[text.relation] = f'temp."{name}__anew"'
                lost = _lost(connection, text) if rails.lake.has(text.table) else 0
            except duckdb.Error as error:
                refused[name] = f"{name} is not made anew, since it fails: {' '.join(str(error).split())[:300]}"
                continue
            if lost and name not in asked:
                rows = ", ".join(f"{counted(number, 'row')} of {table}" for table, number in sorted(short.items()))
                refused[name] = (
                    f"its text is another one, and {counted(lost, 'row')} of it cannot be made again, since {rows} "
                    f"are gone. tiltyard features --rebuild {name} makes it anew and lets them go; or put its text back"
                )
    finally:
        for place in made.values():
            connection.execute(f"drop table if exists {place}")
    return refused


def _lost(connection: duckdb.DuckDBPyConnection, text: Text) -> int:
    """Number of rows of a table that are not among those made anew, by its keys and times."""
    present = [row[0] for row in connection.execute(f"describe {identifier(text.table)}").fetchall()]
    anew = {row[0] for row in connection.execute(f'describe temp."{text.name}__anew"').fetchall()}
    names = [name for name in present if name in anew and name in (*text.keys, "event_time", "available_at")]
    shown = ", ".join(f'"{name}"' for name in names or [name for name in present if name in anew])
    row = connection.execute(
        f"select count(*) from (select {shown} from {identifier(text.table)} except all "
        f'select {shown} from temp."{text.name}__anew")'
    ).fetchone()
    return int(row[0]) if row else 0


# -- what is kept -----------------------------------------------------------------------------


def texts_digest(folder: Path) -> str:
    """SHA-256 of every file of a dbt project."""
    digest = hashlib.sha256()
    for path in sorted(_files(folder)):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for name in ("dbt_project.yml", "models", "macros", "snapshots"):
        path = folder / name
        yield from [path] if path.is_file() else (each for each in path.rglob("*") if each.is_file())


def is_known(rails: Rails, sources: Sequence[str], digest: str) -> bool:
    """Whether everything that is made of these sources was built from the texts with this digest."""
    kept = _kept(rails)
    return all(kept.get(_of_source(source)) == digest for source in sources)


def begin(rails: Rails, plan: Plan, at: datetime) -> None:
    """Put down that these tables are being made anew: whoever is killed meanwhile leaves some of them by the new text
    and some by the old one, and somebody may take the new one back."""
    _put(rails, dict.fromkeys(plan.rebuilt, PENDING), at)


def pending(rails: Rails, source: str, tables: Collection[str], at: datetime) -> None:
    """Put down that these tables of a source are to be made anew, since a delivery under them is another one."""
    _put(rails, {**dict.fromkeys(tables, REPLACED), _of_source(source): PENDING}, at)


def keep(
    rails: Rails,
    sources: Sequence[str],
    digest: str,
    texts: Mapping[str, Text],
    done: Plan,
    built: Collection[str],
    at: datetime,
) -> None:
    """Put down what built each table: of those that were `built`, of `texts`, under `done`."""
    now: dict[str, str] = {name: PENDING for name in done.rebuilt if name not in built}
    now |= {name: text.digest for name, text in texts.items() if name in built and name not in done.refused}
    if not done.refused and texts.keys() <= set(built):
        now |= {_of_source(source): digest for source in sources}
    else:
        now |= {_of_source(source): PENDING for source in sources}
    _put(rails, now, at)


def _put(rails: Rails, digests: Mapping[str, str], at: datetime) -> None:
    kept = _kept(rails)
    new = {name: digest for name, digest in digests.items() if kept.get(name) != digest}
    if not new:
        return
    rails.lake.ensure(BUILT)

    def write(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(
            f"delete from {identifier(BUILT)} where list_contains($names, table_name)", {"names": [*new]}
        )
        rows = [[name, digest, at] for name, digest in new.items()]
        connection.executemany(
            f"insert into {identifier(BUILT)} (table_name, digest, available_at) values (?, ?, ?)", rows
        )

    rails.lake.commit(write, message="what built the tables")


def _of_source(source: str) -> str:
    return f"source:{source}"


def _kept(rails: Rails) -> dict[str, str]:
    """Table, or source, → digest of what built it."""
    if not rails.lake.has(BUILT):
        return {}
    rows = rails.lake.connection.execute(f"select table_name, digest from {identifier(BUILT)}").fetchall()
    return {str(name): str(digest) for name, digest in rows}
