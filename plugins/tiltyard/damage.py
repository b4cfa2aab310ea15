"""Damage: a file of the lake whose bytes are not those that were written, or that is gone.

The files of a lake that is encrypted are read in authenticated blocks, so that no bit turns there without an error;
but DuckDB names neither the file nor the table, and a lake of plain files may give other values instead. So a file is
looked at by itself: what was never looked at is read whole, and its digest is kept, which it has to have from then on.
`met` is the one place in which the error of a read becomes a sentence that names table and file.
"""

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from tiltyard import clock, file_rows
from tiltyard.errors import CheckFailed
from tiltyard.file_looks import FileLook
from tiltyard.lake import Lake, catalogue, is_on_s3, qualified, reading
from tiltyard.ledger import Ledger
from tiltyard.settings import Settings
from tiltyard.words import counted

DAMAGED = "lake_file_damaged"
"""Kind of the ledger's event of a file that was found damaged."""
MENDED = "lake_file_mended"
"""Kind of the ledger's event of a damaged file that is sound again, or that nothing reads any more."""
WAY_OUT = (
    "Restore the file from a backup; or make the table anew, where dbt makes it (tiltyard features --rebuild TABLE); "
    "or let it go with its rows (tiltyard verify --lake --let-go FILE). docs/how-to/mend-a-damaged-lake.md says how."
)
"""What is to be done."""

_SAID = re.compile(
    r"AES tag|DecryptionTransport|magic bytes|[Pp]arquet|Could not read enough bytes|attempted to read|"
    r"No such file or directory|HTTP 404|NoSuchKey|404 \(Not Found\)|[Dd]ecompress|[Dd]ecode|[Cc]orrupt|TProtocol|"
    r"[Tt]hrift|Snappy|ZSTD|[Ii]nvalid.*UTF-?8|[Uu]nicode|Out of buffer|[Dd]ictionary|RLE|Malformed|[Dd]elta"
)
"""What DuckDB may say of bytes that are not those that were written. Whether a file is damaged, a look at it tells."""
_OF_A_QUERY = (
    duckdb.BinderException, duckdb.CatalogException, duckdb.ConstraintException, duckdb.InterruptException,
    duckdb.OutOfMemoryException, duckdb.ParserException, duckdb.SyntaxException, duckdb.TransactionException,
)  # fmt: skip
"""What DuckDB raises before it reads anything, or whatever it reads."""
_NAMED = re.compile(r"ducklake-[0-9a-f-]+\.parquet")


class Damaged(CheckFailed):
    """A file of the lake is damaged: what reads it stops, and another attempt would meet it again."""


@dataclass(frozen=True, kw_only=True)
class LakeFile:
    """A file of the lake, by the lake's record."""

    name: str
    """Its name, without folders."""
    path: str
    """Where it lies."""
    table: str
    """The table whose rows it holds, or says to be deleted, `schema.table`."""
    rows: int
    """Number of these rows."""
    bytes: int
    """Its size."""
    key: str | None
    """The key by which it is encrypted, in Base64; None of a plain one."""
    first: int
    """The snapshot that wrote it."""
    last: int | None
    """The first snapshot that does not read it any more; None while the table as it is now does."""
    is_delete: bool
    """Whether it says which rows are deleted, and holds none itself."""
    id: int
    """Its number in the record, of its kind."""
    table_id: int
    """The number of its table."""
    written: str
    """Its path as the record has it."""

    @property
    def source(self) -> str:
        """SQL of its rows, with their place in `file_row_number`."""
        return file_rows.of_the_lake(self.path, self.key, with_place=True)


def files(lake: Lake) -> list[LakeFile]:
    """The files that any snapshot of the lake reads, the oldest first."""
    table = catalogue("ducklake_table")
    schema = catalogue("ducklake_schema")
    rows = lake.connection.execute(
        f"""
        with newest as (
            select table_id, schema_id, table_name, path, path_is_relative, end_snapshot from {table}
            qualify row_number() over (partition by table_id order by begin_snapshot desc) = 1
        ),
        schemas as (
            select schema_id, schema_name, path, path_is_relative from {schema}
            qualify row_number() over (partition by schema_id order by begin_snapshot desc) = 1
        ),
        written as (
            select data_file_id as id, path, path_is_relative, table_id, record_count as rows, file_size_bytes,
                encryption_key, begin_snapshot, end_snapshot, false as is_delete
            from {catalogue("ducklake_data_file")}
            union all
            select delete_file_id, path, path_is_relative, table_id, delete_count, file_size_bytes, encryption_key,
                begin_snapshot, end_snapshot, true
            from {catalogue("ducklake_delete_file")}
        )
        select written.path,
            case when written.path_is_relative then
                case when newest.path_is_relative then
                    case when schemas.path_is_relative then $data || schemas.path else schemas.path end || newest.path
                else newest.path end || written.path
            else written.path end,
            schemas.schema_name || '.' || newest.table_name, written.rows, written.file_size_bytes,
            written.encryption_key, written.begin_snapshot,
            coalesce(written.end_snapshot, newest.end_snapshot), written.is_delete, written.id, written.table_id
        from written
        inner join newest on written.table_id = newest.table_id
        inner join schemas on newest.schema_id = schemas.schema_id
        order by written.begin_snapshot, written.path
        """,
        {"data": lake.settings.lake_path.rstrip("/") + "/"},
    ).fetchall()
    return [
        LakeFile(
            name=path.rsplit("/", 1)[-1], path=whole, table=name, rows=int(count or 0), bytes=int(size or 0), key=key,
            first=int(first), last=None if last is None else int(last), is_delete=bool(is_delete),
            id=number, table_id=table_id, written=path,
        )
        for path, whole, name, count, size, key, first, last, is_delete, number, table_id in rows
    ]  # fmt: skip


def look(lake: Lake, file: LakeFile, known: FileLook | None) -> FileLook:
    """Look at one file: hold its bytes against the digest that is known of it, or read all of it where none is."""
    sha256 = known.sha256 if known else None
    digest, damage = _digest(lake, file)
    if damage is None and sha256 is not None and digest != sha256:
        damage = "its bytes are not those that it had when it was first looked at"
    elif damage is None and sha256 is None:
        damage = _unreadable(lake, file)
        sha256 = None if damage else digest
    now = clock.now()
    found = (known.found_at if known and known.damage else None) or now
    return FileLook(
        name=file.name, table=file.table, rows=file.rows, sha256=sha256, looked_at=now, damage=damage,
        found_at=found if damage else None,
    )  # fmt: skip


def inspect(lake: Lake, ledger: Ledger, chosen: Iterable[LakeFile]) -> Iterable[FileLook]:
    """Look at files one after the other, and put down what is found of each at once, so that a run which is killed
    goes on where it was. What is found damaged, or sound again, is an event."""
    for file in chosen:
        known = ledger.file_looks.every([file.name]).get(file.name)
        found = look(lake, file, known)
        if found.damage and file.name not in {there.name for there in files(lake)}:
            continue  # the maintenance has removed it meanwhile
        ledger.file_looks.put([found])
        was_damaged = known is not None and known.damage is not None
        if found.damage and not was_damaged:
            ledger.add_event(DAMAGED, "", None, {**_detail(file), "reason": found.damage})
        elif was_damaged and not found.damage:
            ledger.add_event(MENDED, "", None, {**_detail(file), "reason": "it reads as it was written"})
        yield found


def met(settings: Settings, ledger: Ledger, error: BaseException | str, first: Collection[str] = ()) -> Damaged | None:
    """What to raise, or to tell, for an error of a read where it comes from a damaged file; None where it does not.

    The files are tried one by one until a table has damaged ones: those that DuckDB names, then those of the tables
    `first`, then all others. What is found is put down.
    """
    said = error if isinstance(error, str) else _chain(error)
    if not _SAID.search(said):
        return None
    named, tables = set(_NAMED.findall(said)), {qualified(table) for table in first if _is_a_table(table)}
    with Lake(settings) as lake:  # the one that met it may be in the middle of a transaction
        by_table: dict[str, list[LakeFile]] = {}
        for file in sorted(files(lake), key=lambda one: (one.name not in named, one.table not in tables, one.table)):
            by_table.setdefault(file.table, []).append(file)
        for table, own in by_table.items():
            if named and not named.isdisjoint(file.name for file in own):
                own = [file for file in own if file.name in named]
            damaged = [found for found in inspect(lake, ledger, own) if found.damage]
            if damaged:
                return Damaged(sentence(table, damaged))
    return None


def is_fatal(error: BaseException) -> bool:
    """Whether the connection that met an error answers nothing any more."""
    return "database has been invalidated" in _chain(error) or "FATAL Error" in _chain(error)


def sentence(table: str, damaged: Collection[FileLook]) -> str:
    """What is said of the damaged files of a table, and how to get out."""
    one = next(iter(damaged))
    more = f" (and {counted(len(damaged) - 1, 'other')} of it)" if len(damaged) > 1 else ""
    return f"A file of {table} is damaged, {one.name} with {counted(one.rows, 'row')}{more}: {one.damage}. {WAY_OUT}"


def _is_a_table(name: str) -> bool:
    try:
        return bool(qualified(name))
    except KeyError:
        return False


def _detail(file: LakeFile) -> dict[str, object]:
    return {"table": file.table, "file": file.name, "path": file.path, "rows": file.rows, "snapshot": file.first,
            "until": file.last}  # fmt: skip


def _chain(error: BaseException | None) -> str:
    """What an error and those that it came from say, where any of them is DuckDB's."""
    said: list[str] = []
    is_of_the_engine = False
    while error is not None and len(said) < 10:
        said.append(str(error))
        is_of_the_engine = is_of_the_engine or (isinstance(error, duckdb.Error) and not isinstance(error, _OF_A_QUERY))
        error = error.__cause__ or error.__context__
    return "\n".join(said) if is_of_the_engine else ""


def _digest(lake: Lake, file: LakeFile) -> tuple[str, str | None]:
    """(SHA-256 of a file's bytes, what is wrong with them as far as their number tells)."""
    if is_on_s3(lake.settings):
        try:
            row = lake.connection.execute(
                f"select sha256(content), octet_length(content) from {file_rows.content(file.path)}"
            ).fetchone()
        except duckdb.Error as error:
            if "404" not in str(error) and "NoSuchKey" not in str(error):
                raise
            row = None
        if row is None:
            return "", "it is gone"
        digest, size = str(row[0]), int(row[1])
    else:
        path = Path(file.path.removeprefix("file://"))
        try:
            size = path.stat().st_size
            if not path.is_file():  # what has no end, or gives nothing, would hold the look for ever
                return "", "it is no file"
            if size != file.bytes:
                return "", _other_size(file, size)
            with path.open("rb") as content:
                digest, size = hashlib.file_digest(content, "sha256").hexdigest(), content.tell()
        except FileNotFoundError:
            return "", "it is gone"
        except OSError as error:
            return "", f"it cannot be read ({error.strerror})"
    return digest, None if size == file.bytes else _other_size(file, size)


def _other_size(file: LakeFile, size: int) -> str:
    return f"it has {size:,} bytes of {file.bytes:,}"


def _unreadable(lake: Lake, file: LakeFile) -> str | None:
    """What is wrong with a file that is read whole; None where it reads well."""
    try:
        rows = _rows_of_plain(lake, file) if file.key is None else _rows_of_encrypted(lake, file, file.key)
    except (duckdb.Error, OSError, ValueError):  # what DuckDB says may quote the key; Arrow's errors are of these kinds
        return "it does not read as it was written"
    return None if rows == file.rows else f"it has {counted(rows, 'row')} of {file.rows:,}"


def _rows_of_encrypted(lake: Lake, file: LakeFile, key: str) -> int:
    """Number of rows of a file of which every column is read, in a connection of its own: some bits end the one that
    meets them. Raises duckdb.Error."""
    query = f"select count(*), bit_xor(hash(*columns(*))) from {file_rows.of_the_lake(file.path, key)}"
    with reading(lake.settings) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _rows_of_plain(lake: Lake, file: LakeFile) -> int:
    """The same of a plain file, by Arrow: DuckDB trusts it, and some bits end the process that meets them. Raises what
    Arrow does, OSError or ValueError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source: object = Path(file.path.removeprefix("file://"))
    if is_on_s3(lake.settings):
        row = lake.connection.execute(f"from {file_rows.content(file.path)}").fetchone()
        assert row is not None
        source = pa.BufferReader(row[0])
    with pq.ParquetFile(source) as content:
        return sum(content.read_row_group(number).num_rows for number in range(content.num_row_groups))
