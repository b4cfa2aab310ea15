"""The lake's files: how many there are, and fewer. Nothing here changes a row at any snapshot that stays."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tiltyard import clock, file_rows
from tiltyard.errors import CheckFailed
from tiltyard.lake import catalogue, is_on_s3, literal, text
from tiltyard.rails import Rails
from tiltyard.records import LakeSize
from tiltyard.words import counted

MEGABYTE = 1_000_000
MARK = "lake-"
"""What the name of a lake's mark in its folder begins with."""
AT_ONCE = 5_000
"""Snapshots that are forgotten in one transaction: PostgreSQL is handed a list of them."""


@dataclass(frozen=True)
class TableFiles:
    """Files of a table that might be fewer."""

    table: str
    """The table, `schema.table`."""
    small: int
    """Number of small files from which no row was deleted."""
    deletes: int
    """Number of files with deleted rows."""


def size(rails: Rails) -> LakeSize:
    """The lake's size, by its own record: no folder or bucket is listed."""
    files = f"""
        select data_file_id as id, file_size_bytes, end_snapshot from {catalogue("ducklake_data_file")}
        union all
        select delete_file_id, file_size_bytes, end_snapshot from {catalogue("ducklake_delete_file")}
    """
    row = rails.lake.connection.execute(
        f"""
        select count(*) filter (end_snapshot is null),
            coalesce(sum(file_size_bytes) filter (end_snapshot is null), 0),
            count(*) + (select count(*) from {catalogue("ducklake_files_scheduled_for_deletion")}),
            coalesce(sum(file_size_bytes), 0),
            (select count(*) from {catalogue("ducklake_snapshot")})
        from ({files})
        """
    ).fetchone()
    assert row is not None
    files_now, bytes_now, stored, stored_bytes, snapshots = map(int, row)
    return LakeSize(files=files_now, bytes=bytes_now, stored=stored, stored_bytes=stored_bytes, snapshots=snapshots)


def crowded(rails: Rails) -> list[TableFiles]:
    """The tables whose files are to be fewer, by name: `lake_small_files` small ones or more, or as many with deleted
    rows."""
    rows = rails.lake.connection.execute(
        f"""
        with deleted as (
            select distinct data_file_id from {catalogue("ducklake_delete_file")} where end_snapshot is null
        ),
        counted as (
            select schemas.schema_name || '.' || tables.table_name as name,
                count(*) filter (deleted.data_file_id is null and files.file_size_bytes < $largest) as small,
                count(deleted.data_file_id) as deletes
            from {catalogue("ducklake_data_file")} as files
            inner join {catalogue("ducklake_table")} as tables
                on files.table_id = tables.table_id and tables.end_snapshot is null
            inner join {catalogue("ducklake_schema")} as schemas
                on tables.schema_id = schemas.schema_id and schemas.end_snapshot is null
            left join deleted on files.data_file_id = deleted.data_file_id
            where files.end_snapshot is null
            group by 1
        )
        select * from counted where greatest(small, deletes) >= $many order by name
        """,
        {"largest": _largest(rails), "many": rails.settings.lake_small_files},
    ).fetchall()
    return [TableFiles(*row) for row in rows]


def merge(rails: Rails, table: str) -> int:
    """Make the small files of a table one, or few; the number of those that were merged.

    A row keeps its number and the snapshot that wrote it. Raises duckdb.TransactionException when others write to the
    table each time it is tried.
    """
    schema, name = table.split(".")
    sql = f"call ducklake_merge_adjacent_files('lake', {text(name)}, schema => {text(schema)}, max_file_size => $size)"
    done = rails.lake.commit(
        lambda connection: connection.execute(sql, {"size": _largest(rails)}).fetchall(), message=f"merge {table}"
    )
    return sum(int(row[2]) for row in done.result)


def rewrite(rails: Rails, table: str) -> int:
    """Write the files of a table anew from which rows were deleted, without those; the number of those files.

    The old ones stay for the snapshots that read them. Raises as `merge` does.
    """
    schema, name = table.split(".")
    sql = f"call ducklake_rewrite_data_files('lake', {text(name)}, schema => {text(schema)}, delete_threshold => 0)"
    done = rails.lake.commit(lambda connection: connection.execute(sql).fetchall(), message=f"rewrite {table}")
    return sum(int(row[2]) for row in done.result)


def expire(rails: Rails, snapshots: list[int]) -> None:
    """Forget snapshots, and the files that no other one reads."""
    for start in range(0, len(snapshots), AT_ONCE):
        gone = {"gone": snapshots[start : start + AT_ONCE]}
        rails.lake.connection.execute("call ducklake_expire_snapshots('lake', versions => $gone)", gone)


def remove_unread(rails: Rails, before: datetime, *, dry_run: bool) -> int:
    """Remove the files that nothing has read since `before`, by the lake's record; their number."""
    return len(_removed(rails, "ducklake_cleanup_old_files", before, dry_run=dry_run))


def remove_orphans(rails: Rails, before: datetime, *, dry_run: bool) -> int:
    """Remove Parquet files that the lake's record does not name and that were written before `before`: their writers
    did not come to their commit. Their number.

    Files of another lake look the same, so every lake leaves a mark in its folder, and none is removed before the own
    mark is older than `before`: by then any other lake that is put in order every night has left one. Raises
    CheckFailed, with nothing removed, where another has, and should a file be in the record after all.
    """
    own, marks = _mark(rails, dry_run=dry_run)
    if others := sorted(marks.keys() - {own}):
        raise CheckFailed(
            f"{rails.settings.lake_path} holds files of another lake, too ({', '.join(others)}); no orphan was "
            "removed. Give each lake a folder of its own; if that lake is gone, remove its mark, "
            f"{MARK}<its number>.json."
        )
    if own not in marks or marks[own] > before:
        return 0
    listed = _removed(rails, "ducklake_delete_orphaned_files", before, dry_run=True)
    if not listed:
        return 0
    known = rails.lake.connection.execute(
        " union all ".join(
            f"select path from {catalogue(table)}"
            for table in ("ducklake_data_file", "ducklake_delete_file", "ducklake_files_scheduled_for_deletion")
        )
    ).fetchall()
    names = {path.rsplit("/", 1)[-1] for (path,) in known}
    if conflicts := sorted(path for path in listed if path.rsplit("/", 1)[-1] in names):
        raise CheckFailed(
            f"{counted(len(conflicts), 'file')} that the lake reads would be removed as orphans, {conflicts[0]} first; "
            f"nothing was removed. See that {rails.settings.lake_path} is the folder of this lake, and of no other."
        )
    return len(listed if dry_run else _removed(rails, "ducklake_delete_orphaned_files", before, dry_run=False))


def _mark(rails: Rails, *, dry_run: bool) -> tuple[str, dict[str, datetime]]:
    """This lake's number, and number → since when of every lake that has left a mark in the folder."""
    connection, path = rails.lake.connection, rails.settings.lake_path.rstrip("/")
    row = connection.execute(
        f"select cast(schema_uuid as varchar) from {catalogue('ducklake_schema')} "
        "where schema_name = 'main' and end_snapshot is null"
    ).fetchone()
    assert row is not None
    own, folder = str(row[0]), text(f"{path}/{MARK}*.json")
    marks = connection.execute(f"select file from glob({folder})").fetchall()
    if not any(mark.endswith(f"{own}.json") for (mark,) in marks):
        if dry_run:
            return own, {}
        if not is_on_s3(rails.settings):
            Path(path).mkdir(parents=True, exist_ok=True)
        content = f"select {text(own)} as lake, {literal(clock.now())} as since"
        connection.execute(f"copy ({content}) to {text(f'{path}/{MARK}{own}.json')} (format json)")
    written = file_rows.json_of(f"{path}/{MARK}*.json", {"lake": "varchar", "since": "timestamptz"})
    return own, dict(connection.execute(f"select lake, since from {written}").fetchall())


def _removed(rails: Rails, function: str, before: datetime, *, dry_run: bool) -> list[str]:
    """The files that one of DuckLake's functions removes, or would."""
    sql = f"call {function}('lake', older_than => {literal(before)}, dry_run => {str(dry_run).lower()})"
    return [str(row[0]) for row in rails.lake.connection.execute(sql).fetchall()]


def _largest(rails: Rails) -> int:
    return round(rails.settings.lake_small_mb * MEGABYTE)
