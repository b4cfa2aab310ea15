"""The lake: rows of raw, staging, spines, features, labels and their kept answers, and what `ops.*` says of somebody.

Of the lake as it is the rows are deleted as anybody deletes rows. Then every file that any snapshot reads, and every
row that lies in the catalogue, is looked through; what holds one is written anew without (`lake_files`), so that every
snapshot stays, and is the same for everybody else. Texts of `ops.*` that name one, like the reason of a check, are
struck out in place. A text that names one in a raw table, in a column of which nobody says that it is whose the row is,
is a doubt: nothing is erased before a person has said so in the contract.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import duckdb

from tiltyard.damage import LakeFile
from tiltyard.lake import identifier, quoted, text
from tiltyard.prepare import transform
from tiltyard.spec import load_all
from tiltyard.tables import REQUEST, REQUEST_SHADOW
from tiltyard.upkeep.erasing import lake_files
from tiltyard.upkeep.erasing.hunt import Found, Hunt
from tiltyard.upkeep.erasing.lake_files import Inlined, WaitingFile

_WHO, _ASKED, _STRUCK = "_erased_who", "_erased_requests", "_erased_texts"
"""Temporary tables: who is looked for, which requests were about them, and texts with what comes in their place."""


@dataclass
class _Source:
    """A file, or rows in the catalogue, and what of it is theirs."""

    of: LakeFile | Inlined
    kinds: Mapping[str, str]
    theirs: str
    """SQL of whether a row is theirs."""
    rows: int = 0
    """Number of those rows."""
    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    """Column → text that names one → the text that comes in its place."""


class LakePlace:
    """The lake, at every snapshot."""

    name = "lake"
    what = "rows of the lake's tables, at every snapshot that there is"

    def find(self, hunt: Hunt) -> Found:
        found = Found()
        lake = hunt.rails.lake
        _name_them(hunt)
        for source in _sources(hunt):
            self._look(hunt, source, found)
        for file in lake_files.waiting(lake):
            _look_at_waiting(hunt, file, found)
        return found

    def erase(self, hunt: Hunt, found: Found) -> None:
        rails = hunt.rails
        with rails.lake.exclusive("maintenance"), rails.lake.exclusive("requests"), transform.alone(rails):
            _name_them(hunt)
            _delete_now(hunt)
            sources = [source for source in _sources(hunt) if self._look(hunt, source, Found())]
            # who was asked about is known by the requests: what hangs on these goes first
            sources.sort(key=lambda source: source.of.table == REQUEST.name)
            touched: dict[int, str] = {}
            for source in sources:
                touched[source.of.table_id] = source.of.table
                _write(hunt, source)
            for table_id, table in touched.items():
                if rails.lake.has(table):
                    lake_files.restate(rails.lake, rails.settings, table_id, rails.lake.columns(table))
            for file in lake_files.waiting(rails.lake):
                if _look_at_waiting(hunt, file, Found()):
                    lake_files.give_up(rails.settings, file)
            lake_files.remove_given_up(rails.lake)
        rails.lake.vacuum()

    def _look(self, hunt: Hunt, source: _Source, found: Found) -> bool:
        """Whether a source holds anything; what, it is told."""
        connection, table = hunt.rails.lake.connection, source.of.table
        keys = _keys(hunt, table, source.kinds)
        if source.theirs != "false":
            who = " union all ".join(f"select {_text(key)} as value from _rows" for key in keys)
            count = connection.execute(
                f"with _rows as (select * from {source.of.source} where {source.theirs}) "
                f"select (select count(*) from _rows), list(distinct value) from ({who or 'select null as value'})"
            ).fetchone()
            assert count is not None
            source.rows = int(count[0])
            if source.rows:
                found.add(table, {value for value in count[1] or () if value in hunt.values}, source.rows)
                if hunt.most:
                    self._bring(hunt, source, found)
        for column, named in _named(hunt, source, keys).items():
            values = set().union(*(hunt.needles.within(old.encode("utf-8", "surrogatepass")) for old in named))
            part = f"{table}.{column}"
            if table.startswith("ops."):
                found.add(part, values, len(named))
                source.texts[column] = {old: hunt.needles.struck_text(old) for old in named}
            else:
                found.add(part, values, len(named))
                found.doubts.append(
                    f"{part} names them in {len(named):,} texts, and nobody says whose they are: say in the contract "
                    f"of its column identifies: {hunt.whose.entity}"
                )
        return bool(source.rows or source.texts)

    def _bring(self, hunt: Hunt, source: _Source, found: Found) -> None:
        own = found.rows.setdefault(source.of.table, [])
        if (room := hunt.most - len(own)) <= 0:
            return
        hidden = {"file_row_number", "row_id", "begin_snapshot"}
        rows = hunt.rails.lake.connection.execute(
            f"select * from {source.of.source} where {source.theirs} limit {room}"
        )
        names = [column for column, *_ in rows.description]
        for row in rows.fetchall():
            body = {
                name: value
                for name, value in zip(names, row, strict=True)
                if name not in hidden and not name.startswith(lake_files.OWN)
            }
            if body not in own:
                found.add(source.of.table, (), 0, body, hunt.most)


def _name_them(hunt: Hunt) -> None:
    """Make the temporary tables that the looking goes by."""
    connection = hunt.rails.lake.connection
    connection.execute(f"create or replace temp table {_WHO} (value varchar, is_telling boolean)")
    connection.execute(f"create or replace temp table {_STRUCK} (old varchar, new varchar)")
    values = sorted(hunt.values)
    connection.execute(
        f"insert into {_WHO} select unnest($values), unnest($telling)",
        {"values": values, "telling": [value in hunt.needles.telling for value in values]},
    )
    connection.execute(f'create or replace temp table {_ASKED} (request_id varchar, "row" integer)')
    if not hunt.rails.lake.has(REQUEST):
        return
    for source in _sources(hunt, only=REQUEST.name):
        connection.execute(
            f'insert into {_ASKED} select request_id, "row" from {source.of.source} where {source.theirs}'
        )


def _sources(hunt: Hunt, only: str | None = None) -> Iterator[_Source]:
    """All files and rows in the catalogue that any snapshot reads, of all tables or of one."""
    lake = hunt.rails.lake
    every: Iterable[LakeFile | Inlined] = (
        *lake_files.files(lake),
        *lake_files.inlined(lake),
    )
    for of in every:
        if only is not None and of.table != only:
            continue
        kinds = dict(of.columns) if isinstance(of, Inlined) else lake_files.columns_of(lake, of)
        yield _Source(of, kinds, _theirs(hunt, of.table, kinds))


def _keys(hunt: Hunt, table: str, kinds: Mapping[str, str]) -> list[str]:
    """The columns of a table that say whose a row is."""
    if table.startswith("ops."):
        return ["entity_id"] if "entity_id" in kinds else []
    of_view = table.removesuffix("__answers")
    said = hunt.whose.columns.get(of_view, ())
    known = [column for column in kinds if column.lower() in said]
    is_ours = of_view.split(".")[0] in ("staging", "spines", "features", "labels", "popular")
    if not known and is_ours and hunt.whose.key in kinds:  # of a text that is no more in force
        known = [hunt.whose.key]
    return known


def _theirs(hunt: Hunt, table: str, kinds: Mapping[str, str]) -> str:
    """SQL of whether a row of a table is theirs."""
    if table == REQUEST_SHADOW.name and {"request_id", "row"} <= kinds.keys():
        return f'(request_id, "row") in (select request_id, "row" from {_ASKED})'
    keys = _keys(hunt, table, kinds)
    parts = [f"{_text(key)} in (select value from {_WHO})" for key in keys]
    if table.startswith("ops.") and parts and "model" in kinds:
        others = {spec.name for spec in load_all(hunt.rails.settings.models)} - {*hunt.whose.models}
        ours = ", ".join(text(name) for name in hunt.whose.models)
        theirs = ", ".join(text(name) for name in sorted(others)) or "''"
        # of a model that is gone nobody says whom it was about: a name that is hardly anything else is theirs
        telling = f"{_text(keys[0])} in (select value from {_WHO} where is_telling)"
        return f"({parts[0]} and (model in ({ours}) or (model not in ({theirs}) and {telling})))"
    return " or ".join(parts) or "false"


def _text(column: str) -> str:
    return f"trim(cast({quoted(column)} as varchar))"


def _named(hunt: Hunt, source: _Source, keys: Collection[str]) -> dict[str, list[str]]:
    """Column → its texts that name one, of rows that are not theirs."""
    columns = [name for name, kind in source.kinds.items() if kind.upper() == "VARCHAR" and name not in keys]
    if not columns or not hunt.needles.telling:
        return {}
    lists = ", ".join(f"list(distinct {quoted(name)})" for name in columns)
    row = hunt.rails.lake.connection.execute(
        f"select {lists} from {source.of.source} where not coalesce({source.theirs}, false)"
    ).fetchone()
    assert row is not None
    found: dict[str, list[str]] = {}
    for column, texts in zip(columns, row, strict=True):
        own = [value for value in texts or () if value is not None]
        if hunt.needles.within("\n".join(own).encode("utf-8", "surrogatepass")):
            named = [value for value in own if hunt.needles.within(value.encode("utf-8", "surrogatepass"))]
            found |= {column: named} if named else {}
    return found


def _delete_now(hunt: Hunt) -> None:
    """Delete the rows of the lake as it is, of all tables in one commit."""
    lake = hunt.rails.lake
    names = sorted({name.split("#")[0] for name in lake_files.tables(lake)})
    wheres = {
        name: where
        for name in names
        if lake.has(name) and (where := _theirs(hunt, name, lake.columns(name))) != "false"
    }

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        for name, where in wheres.items():
            connection.execute(f"delete from {identifier(name)} where {where}")

    there = any(
        lake.connection.execute(f"select 1 from {identifier(name)} where {where} limit 1").fetchone()
        for name, where in wheres.items()
    )
    if there:
        lake.commit(work, message="erasure")


def _write(hunt: Hunt, source: _Source) -> None:
    """Write a source anew without what is theirs."""
    lake, settings = hunt.rails.lake, hunt.rails.settings
    if isinstance(source.of, Inlined):
        rows = lake.connection.execute(
            f"select row_id, begin_snapshot from {source.of.source} where {source.theirs}"
        ).fetchall()
        lake_files.blank_inlined(settings, source.of, rows)
        for column, texts in source.texts.items():
            for old, new in texts.items():
                lake_files.write_inlined(settings, source.of, column, old, new)
        return
    lake.connection.execute(f"delete from {_STRUCK}")
    pairs = {old: new for texts in source.texts.values() for old, new in texts.items()}
    if pairs:
        lake.connection.execute(
            f"insert into {_STRUCK} select unnest($old), unnest($new)", {"old": [*pairs], "new": [*pairs.values()]}
        )
    values = {
        column: f"coalesce((select max(new) from {_STRUCK} where old = {quoted(column)}), {quoted(column)})"
        for column in source.texts
    }
    lake_files.written_anew(lake, settings, source.of, values, source.theirs)


def _look_at_waiting(hunt: Hunt, file: WaitingFile, found: Found) -> bool:
    """Whether a file that nothing reads any more, and that is there still, holds one. Of an encrypted lake its key is
    gone with its name, and nobody reads it."""
    lake = hunt.rails.lake
    try:
        kinds = lake_files.columns_of(lake, file)
    except duckdb.Error:
        return False
    for column in kinds:
        if kinds[column].upper() not in ("VARCHAR", "BIGINT", "INTEGER", "HUGEINT"):
            continue
        own = f"select distinct {_text(column)} as value from {file.source}"
        is_key = column in {
            hunt.whose.key,
            "entity_id",
            *(name for names in hunt.whose.columns.values() for name in names),
        }
        hits = lake.connection.execute(
            f"select value from ({own}) where value in (select value from {_WHO} "
            f"{'' if is_key else 'where is_telling'})"
        ).fetchall()
        named: set[str] = {value for (value,) in hits}
        if not named and kinds[column].upper() == "VARCHAR" and hunt.needles.telling:
            texts = lake.connection.execute(own).fetchall()
            named = hunt.needles.within("\n".join(str(value) for (value,) in texts).encode("utf-8", "surrogatepass"))
        if named:
            found.add("files that wait to be removed", named)
            return True
    return False
