"""A damaged file of the lake is let go, by a person's word, where it cannot be restored."""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from tiltyard import damage
from tiltyard.damage import LakeFile
from tiltyard.errors import BadInput
from tiltyard.lake import identifier, text
from tiltyard.prepare import ingest, rebuilding, transform
from tiltyard.prepare.publishing import Feeding
from tiltyard.rails import Rails
from tiltyard.records import Record
from tiltyard.tables import LANDED_FILE
from tiltyard.words import counted, listed

LET_GO = "lake_file_let_go"
"""Kind of the ledger's event of a damaged file that a person has let go."""


@dataclass(frozen=True, kw_only=True)
class LetGo(Record):
    """A file that was let go."""

    table: str
    """The table whose rows it held."""
    file: str
    """Its name."""
    rows: int
    """Number of rows that went with it."""
    source: str | None = None
    """The source of a raw table; None of another one."""
    deliveries: tuple[str, ...] = ()
    """The deliveries of a raw table that had rows in it: none of their rows is there any more."""
    rebuilt: tuple[str, ...] = ()
    """The tables that the next build makes anew for it."""


def let_go(rails: Rails, name: str, *, by: str, reason: str, holds: Sequence[str] = ()) -> LetGo:
    """Take a damaged file's rows out of its table: it is let go whole, without reading what is damaged.

    Snapshots of before keep the file. Of a raw table every delivery that had rows in the file goes as a whole, so that
    `replace` brings each back whole. Raises BadInput, with nothing changed, for a file that is not damaged, that the
    table as it is now does not have, or whose table dbt makes anew; and while a legal hold stands.
    """
    if not reason.strip():
        raise BadInput("A file is let go for a reason; say why, like --reason 'there is no backup of it'.")
    file = _damaged(rails, name)
    if holds:
        raise BadInput(f"No row goes while a legal hold stands: {holds[0]}")
    feeding = Feeding.as_built(rails.settings)
    is_raw, plain = file.table.startswith("raw."), file.table.split(".")[-1]
    if not is_raw and feeding and plain in feeding.graph.parents:
        raise BadInput(f"{file.table} is made by dbt: tiltyard features --rebuild {plain} makes it anew, whole.")
    source = feeding.sources.get(file.table) if feeding and is_raw else None
    fence = rails.ledger.claim(f"ingest/{source}") if source else None
    children = sorted(own for own, above in feeding.graph.parents.items() if file.table in above) if feeding else []
    stamp = ingest.stamp(rails, source) if source else None
    if source and stamp:
        rebuilding.pending(rails, source, children, stamp)  # before: who is killed in between makes them for nothing

    def work(connection: duckdb.DuckDBPyConnection) -> tuple[int, list[str]]:
        rows = connection.execute(f"delete from {identifier(file.table)} where filename = {text(file.path)}").fetchone()
        gone = int(rows[0]) if rows else 0
        if not source:
            return gone, []
        known = {"source": source, "table": plain}
        short = connection.execute(
            f"""
            select landed.file from {identifier(LANDED_FILE)} as landed
            left join (select source_file, count(*) as rows from {identifier(file.table)} group by 1) as there
                on landed.file = there.source_file
            where landed.source = $source and landed.table_name = $table and landed.rows > coalesce(there.rows, 0)
            order by landed.file
            """,
            known,
        ).fetchall()
        names = [str(one) for (one,) in short]
        rest = connection.execute(
            f"delete from {identifier(file.table)} where list_contains($names, source_file)", {"names": names}
        ).fetchone()
        connection.execute(
            f"update {identifier(LANDED_FILE)} set rows = 0, ingested_at = $stamp where source = $source "
            "and table_name = $table and list_contains($names, file)",
            {**known, "stamp": stamp, "names": names},
        )
        return gone + (int(rest[0]) if rest else 0), names

    with transform.alone(rails):
        gone, names = rails.lake.commit(work, message=f"let go {file.table} {file.name}", fence=fence).result
    done = LetGo(
        table=file.table, file=file.name, rows=gone, source=source, deliveries=tuple(names),
        rebuilt=tuple(children) if source else (),
    )  # fmt: skip
    rails.ledger.add_event(LET_GO, "", None, {**done.to_json(), "by": by, "reason": reason.strip()})
    return done


def _damaged(rails: Rails, name: str) -> LakeFile:
    """The file of that name. Raises BadInput where it is none that may be let go."""
    known = rails.ledger.file_looks.every([name]).get(name)
    file = next((one for one in damage.files(rails.lake) if one.name == name), None)
    if file is None or known is None or known.damage is None:
        raise BadInput(
            f"No file '{name}' of the lake is known to be damaged; tiltyard verify --lake lists those that are."
        )
    if file.last is not None:
        raise BadInput(f"{file.table} as it is now does not have {name} any more; only snapshots of the past do.")
    if file.is_delete:
        raise BadInput(
            f"{name} says which rows of {file.table} were deleted, and cannot be let go by itself: restore it, or make "
            "the table anew."
        )
    return file


def summary(done: LetGo) -> str:
    """What the command prints."""
    lines = [f"{done.file} is let go, and {counted(done.rows, 'row')} of {done.table} with it."]
    if done.deliveries:
        commands = [f"tiltyard replace {done.source} landing/{done.source}/{done.table.removeprefix('raw.')}/{name}"
                    for name in done.deliveries]  # fmt: skip
        lines.append(
            f"None of the rows of {listed(done.deliveries)} is there any more. Each comes back whole, from the file "
            "that was delivered:"
        )
        lines += [f"  {command} --reason 'its rows were damaged'" for command in commands]
    if done.rebuilt:
        lines.append(f"{listed(done.rebuilt)}, and what is made of that, is made anew by the next night.")
    return "\n".join(lines)
