"""The lake's files, all that any snapshot reads, and writing one of them anew with rows blanked.

A snapshot names its files, and a delete names its rows by their place in a file. So that every snapshot stays readable
and says of everybody else what it said, a file is written anew with as many rows: those that go are NULL in every
column. Nothing else of the record changes but the file's name, its size and the statistics of its columns.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import sqlalchemy as sa

from tiltyard import damage, file_rows, postgres
from tiltyard.damage import LakeFile
from tiltyard.errors import BadInput
from tiltyard.lake import Lake, catalogue, quoted, text
from tiltyard.settings import Settings

LONG_AGO = "1970-01-01 00:00:00+00"
"""When a file that must go at once is said to have been given up."""
OWN = "_ducklake_internal_"
"""How DuckLake's own columns in a file begin; they number rows and stay."""
_OWN_NUMBERS = {f"{OWN}row_id": "2147483540", f"{OWN}snapshot_id": "2147483539"}
"""The numbers of these columns, the same in every lake."""


_INSTANTS = ("timestamptz", "timestamp", "date")


@dataclass(frozen=True)
class WaitingFile:
    """A file that nothing reads any more, and that waits to be removed."""

    path: str
    """Where it lies."""
    written: str
    """Its path as the record has it."""

    @property
    def source(self) -> str:
        """SQL of its rows."""
        return file_rows.of_the_lake(self.path, None)


@dataclass(frozen=True)
class Inlined:
    """Rows of a table that lie in the catalogue itself."""

    name: str
    """The table of the catalogue."""
    table: str
    table_id: int
    columns: Mapping[str, str]
    """Column → its type in the lake."""

    @property
    def source(self) -> str:
        """SQL of its rows, with `row_id` and `begin_snapshot`; texts, which lie there as bytes, as texts."""
        own = ", ".join(f"{_as_in_lake(name, kind.lower())} as {quoted(name)}" for name, kind in self.columns.items())
        return f"(select row_id, begin_snapshot, {own} from {catalogue(self.name)})"


def _as_in_lake(name: str, kind: str) -> str:
    """SQL of a value in the catalogue as the lake has it: texts lie there as bytes, instants as texts."""
    if kind == "varchar":
        return f"decode({quoted(name)})"
    return f"cast({quoted(name)} as {kind})" if kind in _INSTANTS else quoted(name)


def tables(lake: Lake) -> dict[str, tuple[int, dict[str, str]]]:
    """Table → (its number, column → type) of the tables that there are or were, by any snapshot; views are none."""
    rows = lake.connection.execute(
        f"""
        select schemas.schema_name || '.' || tables.table_name as name, tables.table_id, columns.column_name,
            columns.column_type
        from {catalogue("ducklake_table")} as tables
        inner join {catalogue("ducklake_schema")} as schemas on tables.schema_id = schemas.schema_id
        inner join {catalogue("ducklake_column")} as columns on columns.table_id = tables.table_id
        where columns.parent_column is null
        order by tables.table_id, columns.column_order
        """
    ).fetchall()
    found: dict[str, tuple[int, dict[str, str]]] = {}
    for name, number, column, kind in rows:
        found.setdefault(f"{name}#{number}", (number, {}))[1][column] = kind
    return found


def files(lake: Lake) -> list[LakeFile]:
    """Every file of rows that a snapshot reads."""
    return [file for file in damage.files(lake) if not file.is_delete]


def waiting(lake: Lake) -> list[WaitingFile]:
    """The files that nothing reads any more, and that wait to be removed. They are plain, or nobody has their key."""
    rows = lake.connection.execute(
        f"select path, path_is_relative from {catalogue('ducklake_files_scheduled_for_deletion')}"
    ).fetchall()
    root = _root(lake)
    return [WaitingFile(root + path if relative else path, path) for path, relative in rows]


def inlined(lake: Lake) -> list[Inlined]:
    """The tables of the catalogue that hold rows of the lake."""
    known = {number: (name.split("#")[0], columns) for name, (number, columns) in tables(lake).items()}
    rows = lake.connection.execute(
        f"select table_name, table_id from {catalogue('ducklake_inlined_data_tables')}"
    ).fetchall()
    found = []
    for name, number in rows:
        try:
            described = lake.connection.execute(f"describe select * from {catalogue(name)}").fetchall()
        except duckdb.CatalogException:  # of a table that is gone with all its snapshots
            continue
        there = {column for column, *_ in described}
        table, columns = known[number]
        found.append(Inlined(name, table, number, {name: kind for name, kind in columns.items() if name in there}))
    return found


def columns_of(lake: Lake, file: LakeFile | WaitingFile) -> dict[str, str]:
    """Column → DuckDB type of a file. Raises duckdb.Error for one that cannot be read."""
    rows = lake.connection.execute(f"describe select * from {file.source}").fetchall()
    return {name: kind for name, kind, *_ in rows if name != "file_row_number"}


def written_anew(lake: Lake, settings: Settings, file: LakeFile, values: Mapping[str, str], theirs: str) -> None:
    """Write a file anew, with NULL in every column of the rows that are `theirs` (SQL), and `values` (column → SQL) in
    the others; put it into the record in the place of the old one, which is removed at once.

    Who is killed in between leaves a file that no record names, which the maintenance removes, or one that waits to be
    removed, which the next run does.
    """
    connection = lake.connection
    kinds = columns_of(lake, file)
    numbers = _field_ids(lake, file, [*kinds])
    name = f"ducklake-{uuid.uuid4()}.parquet"
    place = file.path.rpartition("/")[0] + "/" + name
    chosen = ", ".join(
        quoted(column)
        if column.startswith(OWN)
        else f"case when _theirs then null else {values.get(column, quoted(column))} end as {quoted(column)}"
        for column in kinds
    )
    marked = f"select *, coalesce({theirs}, false) as _theirs from {file.source}"
    key = f"{{footer_key_value: from_base64({text(file.key)})}}" if file.key is not None else ""
    options = f", encryption_config {key}" if key else ""
    stats = connection.execute(
        f"copy (select {chosen} from ({marked}) order by file_row_number) to {text(place)} "
        f"(format parquet, compression zstd, field_ids {{{', '.join(numbers)}}}, return_stats true{options})"
    ).fetchone()
    assert stats is not None
    _, count, size, footer, columns, _ = stats
    engine = postgres.engine(settings, "lake")
    with engine.begin() as record:
        before = record.execute(
            sa.text("select record_count from ducklake_data_file where data_file_id = :id and path = :path for update"),
            {"id": file.id, "path": file.written},
        ).scalar()
        if before is None or before != count:  # somebody has merged it meanwhile; the next look sees the merged one
            record.execute(_SCHEDULED, {"id": file.id, "path": place, "relative": False, "at": LONG_AGO})
            return
        written = file.written.rpartition("/")[0]
        values_of_file = {"path": f"{written}/{name}" if written else name, "size": size, "footer": footer}
        record.execute(
            sa.text(
                "update ducklake_data_file set path = :path, file_size_bytes = :size, footer_size = :footer "
                "where data_file_id = :id"
            ),
            {**values_of_file, "id": file.id},
        )
        for quoted_name, own in columns.items():
            column = quoted_name[1:-1].replace('""', '"')
            record.execute(
                sa.text(
                    "update ducklake_file_column_stats set column_size_bytes = :size, null_count = :nulls, "
                    "value_count = :values, min_value = :low, max_value = :high from ducklake_column c "
                    "where ducklake_file_column_stats.data_file_id = :file and "
                    "ducklake_file_column_stats.column_id = c.column_id and c.table_id = :table and "
                    "c.column_name = :name and ducklake_file_column_stats.table_id = :table"
                ),
                {
                    "size": int(own.get("column_size_bytes", 0)), "nulls": int(own.get("null_count", 0)),
                    "values": int(own.get("num_values", 0)) - int(own.get("null_count", 0)),
                    "low": own.get("min"), "high": own.get("max"), "file": file.id, "table": file.table_id,
                    "name": column,
                },
            )  # fmt: skip
        record.execute(_SCHEDULED, {"id": file.id, "path": file.path, "relative": False, "at": LONG_AGO})


_SCHEDULED = sa.text(
    "insert into ducklake_files_scheduled_for_deletion (data_file_id, path, path_is_relative, schedule_start) "
    "values (:id, :path, :relative, cast(:at as timestamptz))"
)


def blank(lake: Lake, settings: Settings, table: str, where: str) -> None:
    """Take the rows of a table for which `where` (SQL) holds out of every file that any snapshot reads, and out of the
    catalogue. Of the lake as it is they have been deleted before. Safe to repeat, and to kill."""
    table_id = None
    for file in files(lake):
        if file.table == table:
            there = lake.connection.execute(f"select 1 from {file.source} where {where} limit 1").fetchone()
            if there:
                written_anew(lake, settings, file, {}, where)
                table_id = file.table_id
    for own in inlined(lake):
        if own.table == table:
            found = lake.connection.execute(f"select row_id, begin_snapshot from {own.source} where {where}").fetchall()
            if found:
                blank_inlined(settings, own, found)
                table_id = own.table_id
    if table_id is not None:
        restate(lake, settings, table_id, lake.columns(table))
        remove_given_up(lake)


def give_up(settings: Settings, file: WaitingFile) -> None:
    """Let a file that waits to be removed go at once."""
    engine = postgres.engine(settings, "lake")
    with engine.begin() as record:
        record.execute(
            sa.text(
                "update ducklake_files_scheduled_for_deletion set schedule_start = cast(:at as timestamptz) "
                "where path = :path"
            ),
            {"at": LONG_AGO, "path": file.written},
        )


def remove_given_up(lake: Lake) -> None:
    """Remove the files that go at once."""
    lake.connection.execute(
        "call ducklake_cleanup_old_files('lake', older_than => timestamptz '1970-01-02 00:00:00+00')"
    ).fetchall()


def blank_inlined(settings: Settings, own: Inlined, rows: Sequence[tuple[int, int]]) -> None:
    """Take rows of a table out of the catalogue, at every snapshot: (row_id, begin_snapshot) each."""
    engine = postgres.engine(settings, "lake")
    with engine.begin() as record:
        for row_id, begin in rows:
            record.execute(
                sa.text(f'delete from "{own.name}" where row_id = :row and begin_snapshot = :begin'),
                {"row": row_id, "begin": begin},
            )


def write_inlined(settings: Settings, own: Inlined, column: str, old: str, new: str) -> None:
    """Put a text of a table in the catalogue in the place of another one, at every snapshot."""
    engine = postgres.engine(settings, "lake")
    with engine.begin() as record:
        record.execute(
            sa.text(f'update "{own.name}" set "{column}" = :new where "{column}" = :old'),
            {"old": old.encode(), "new": new.encode()},
        )


def restate(lake: Lake, settings: Settings, table_id: int, columns: Mapping[str, str]) -> None:
    """Write the least and the greatest value of every column of a table anew, out of what its files and its rows in the
    catalogue have: the record only ever widens them."""
    own = [each for each in inlined(lake) if each.table_id == table_id]
    numbers = lake.connection.execute(
        f"select column_id, column_name, column_type from {catalogue('ducklake_column')} "
        "where table_id = ? and parent_column is null and end_snapshot is null",
        [table_id],
    ).fetchall()
    engine = postgres.engine(settings, "lake")
    for number, name, _ in numbers:
        kind = columns.get(name, "VARCHAR")
        parts = [
            f"select unnest([min_value, max_value]) as value from {catalogue('ducklake_file_column_stats')} "
            f"where table_id = {table_id} and column_id = {number}"
        ]
        parts += [
            f"select cast({quoted(name)} as varchar) as value from {each.source}"
            for each in own
            if name in each.columns
        ]
        query = (
            f"select arg_min(value, own), arg_max(value, own) from (select value, try_cast(value as {kind}) as own "
            f"from ({' union all '.join(parts)}) where value is not null)"
        )
        try:
            row = lake.connection.execute(query).fetchone()
        except duckdb.Error:  # of a type that knows no order
            continue
        low, high = row if row else (None, None)
        with engine.begin() as record:
            record.execute(
                sa.text(
                    "update ducklake_table_column_stats set min_value = :low, max_value = :high, contains_null = true "
                    "where table_id = :table and column_id = :column and min_value is not null"
                ),
                {"low": low, "high": high, "table": table_id, "column": number},
            )


def _root(lake: Lake) -> str:
    row = lake.connection.execute(
        f"select value from {catalogue('ducklake_metadata')} where key = 'data_path' and scope is null"
    ).fetchone()
    assert row is not None
    return str(row[0])


def _field_ids(lake: Lake, file: LakeFile, names: Collection[str]) -> list[str]:
    """How COPY is told the number of each column, by which the lake finds it in a file. Raises BadInput for a column
    that is made of several, but for a list."""
    rows = lake.connection.execute(
        f"""
        select own.column_name, own.column_id, part.column_id, count(part.column_id) over (partition by own.column_id)
        from {catalogue("ducklake_column")} as own
        left join {catalogue("ducklake_column")} as part
            on part.table_id = own.table_id and part.parent_column = own.column_id
        where own.table_id = $table and own.parent_column is null and own.begin_snapshot <= $at
            and (own.end_snapshot is null or own.end_snapshot > $at)
        """,
        {"table": file.table_id, "at": file.first},
    ).fetchall()
    found = dict(_OWN_NUMBERS)
    for name, number, part, parts in rows:
        if parts > 1:
            raise BadInput(f"{file.table}.{name} is made of several columns, and {file.path} cannot be written anew.")
        found[name] = number if part is None else f"{{__duckdb_field_id: {number}, element: {part}}}"
    if strange := [name for name in names if name not in found]:
        raise BadInput(f"{file.path} has a column {strange[0]} that the record of {file.table} does not know.")
    return [f"{quoted(name)}: {found[name]}" for name in names]
