"""A delivery that was wrong, and its mended one in its place, or none: one action, under its own name.

What never landed, since it lay in quarantine, is put back into the landing zone. What has landed is taken out of its
raw table and the mended rows put in, in one commit, as of the night that landed it; what is made of it is made anew by
the next build. The file that was wrong is kept in quarantine, and the ledger says who replaced it, and why. What is
withdrawn has no rows from then on, and the same bytes are not taken again under any name.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from glob import escape
from pathlib import Path

import duckdb

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.files import whole
from tiltyard.lake import identifier, literal, text
from tiltyard.prepare import contracts, ingest, landing, rebuilding
from tiltyard.prepare.contracts import SourceContract, TableContract
from tiltyard.prepare.landing import LandingFile
from tiltyard.prepare.publishing import Feeding
from tiltyard.rails import Rails
from tiltyard.records import JsonObject, Record
from tiltyard.settings import Settings
from tiltyard.tables import LANDED_FILE
from tiltyard.words import counted, listed

REPLACED = "delivery_replaced"
"""Kind of the ledger's event of a delivery that another one took the place of."""


@dataclass(frozen=True, kw_only=True)
class DeliveryWithdrawal(Record):
    """What came of taking a delivery back."""

    source: str
    """Name of the source."""
    file: str
    """Table and name of the delivery."""
    rows: int
    """Number of its rows, which count as never known from now on; 0 where that was done before."""
    night: date
    """The night that is to run again."""
    tables: tuple[str, ...]
    """The tables that the next build makes anew for it."""
    below: tuple[str, ...]
    """All tables that stand on it, at whatever distance."""
    since: date
    """The night that landed it: answers of that night on, of the models that read those tables, may have used it."""
    kept: str | None
    """Where the file lies now; None where it was gone."""


@dataclass(frozen=True, kw_only=True)
class Replacement(Record):
    """What came of a mended delivery."""

    source: str
    """Name of the source."""
    file: str
    """Table and name of the delivery."""
    rows: int | None
    """Number of rows that are in their place now; None where it has not landed yet."""
    before: int | None
    """Number of rows that were there; None where none were."""
    night: date
    """The night that is to run again, or that takes it."""
    tables: tuple[str, ...] = ()
    """The tables that the next build makes anew for it."""
    kept: str | None = None
    """Where the file that was wrong lies now; None where it was gone."""

    @property
    def is_same(self) -> bool:
        """Whether it is what has landed already."""
        return self.rows is None and self.before is not None


def replace(
    rails: Rails, source: str, file: Path, *, table: str | None = None, by: str, reason: str, holds: Sequence[str] = ()
) -> Replacement:
    """Take a mended delivery in place of the one of its name. Safe to repeat, and to kill.

    `file`: it lies anywhere, also in quarantine, and is called like the delivery that it replaces; `table`: where the
    source has several; `holds`: the legal holds that stand, a sentence each. Raises BadInput, with nothing changed,
    where it cannot be taken, for whatever reason.
    """
    if not reason.strip():
        raise BadInput("A delivery is replaced for a reason; say why, like --reason 'the export was cut off'.")
    contract = contracts.read(rails.settings, source)
    mended = _inspected(rails, contract, file, table)
    name, place = f"{mended.table.name}/{file.name}", rails.settings.landing / source / mended.table.name / file.name
    fence = rails.ledger.claim(f"ingest/{source}")  # who is landing meanwhile is outdated from here on
    before = _landed(rails, mended.table, file.name)
    detail: JsonObject = {"source": source, "file": name, "by": by, "reason": reason.strip(), "sha256": mended.sha256}
    night = clock.night_of(contracts.due(file.name))
    if before is None:
        _note(rails, night, detail)
        kept = _put(rails.settings, mended, place, reason)
        _is_over(rails.settings, mended)
        return Replacement(source=source, file=name, rows=None, before=None, night=night, kept=kept)
    night = max(before.night, rails.ledger.newest_attempts("features", [source]).get(source, before.night))
    if before.sha256 == mended.sha256 and (before.rows or not mended.has_rows):
        _is_over(rails.settings, mended)  # whoever was killed before it was
        return Replacement(source=source, file=name, rows=None, before=before.rows, night=night)
    if holds:
        raise BadInput(f"{name} has landed, and its rows stay while a legal hold stands: {holds[0]}")
    tables = _made_of(rails.settings, mended.table.raw)
    stamp = ingest.stamp(rails, source)
    stamps = {"landed_night": f"date {text(before.night.isoformat())}", "ingested_at": literal(stamp)}
    rows = ingest.staged(rails, mended, stamps)
    kept = _put(rails.settings, mended, place, reason)
    placed = LandingFile.of(place, mended.contract)
    # Both before the rows change: who is killed in between has tables made anew for nothing, and does it again.
    _note(rails, night, {**detail, "rows": rows, "before": before.rows, "was": before.sha256})
    rebuilding.pending(rails, source, tables, stamp)

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        old = {"name": file.name}
        connection.execute(f"delete from {identifier(mended.table.raw)} where source_file = $name", old)
        ingest.append(connection, mended.table)
        connection.execute(
            f"update {identifier(LANDED_FILE)} set sha256 = $sha256, rows = $rows, bytes = $bytes, "
            "modified_ns = $modified, ingested_at = $stamp where source = $source and table_name = $table "
            "and file = $name",
            {**old, "sha256": mended.sha256, "rows": rows, "bytes": placed.stat[1], "modified": placed.stat[2],
             "stamp": stamp, "source": source, "table": mended.table.name},
        )  # fmt: skip

    rails.lake.commit(work, message=f"replace {source} {name}", fence=fence)
    _is_over(rails.settings, mended)
    return Replacement(
        source=source, file=name, rows=rows, before=before.rows, night=night, tables=tuple(tables), kept=kept
    )


def withdraw(
    rails: Rails, source: str, name: str, *, table: str | None = None, by: str, reason: str, holds: Sequence[str] = ()
) -> DeliveryWithdrawal:
    """Take a delivery back that has landed: its rows count as never known. Safe to repeat, and to kill.

    `name`: of the file, with or without the folders above. Raises BadInput, with nothing changed, for one that has not
    landed, and while a legal hold stands.
    """
    if not reason.strip():
        raise BadInput("A delivery is withdrawn for a reason; say why, like --reason 'it was another customer's'.")
    contract = contracts.read(rails.settings, source)
    path = Path(name)
    of = _table(rails, contract, path, table)
    place = rails.settings.landing / source / of.name / path.name
    fence = rails.ledger.claim(f"ingest/{source}")
    before = _landed(rails, of, path.name)
    if before is None:
        raise BadInput(
            f"No delivery {of.name}/{path.name} of {source} has landed; what lies in the landing zone or in quarantine "
            "and has not is simply deleted."
        )
    if holds:
        raise BadInput(f"{path.name} has landed, and its rows stay while a legal hold stands: {holds[0]}")
    tables = _made_of(rails.settings, of.raw)
    night = max(before.night, rails.ledger.newest_attempts("features", [source]).get(source, before.night))
    detail = {"source": source, "file": f"{of.name}/{path.name}", "by": by, "reason": reason.strip()}
    if before.rows or before.sha256 not in ingest.withdrawn(rails, source):
        # before the rows go: whoever is killed in between has its bytes refused, and does it again
        rails.ledger.add_event(ingest.TAKEN_BACK, "", night, {**detail, "sha256": before.sha256, "rows": before.rows})
        stamp = ingest.stamp(rails, source)
        rebuilding.pending(rails, source, tables, stamp)

        def work(connection: duckdb.DuckDBPyConnection) -> None:
            connection.execute(f"delete from {identifier(of.raw)} where source_file = $name", {"name": path.name})
            connection.execute(
                f"update {identifier(LANDED_FILE)} set rows = 0, ingested_at = $stamp where source = $source and "
                "table_name = $table and file = $name",
                {"stamp": stamp, "source": source, "table": of.name, "name": path.name},
            )

        rails.lake.commit(work, message=f"withdraw {source} {of.name}/{path.name}", fence=fence)
    kept = _kept(rails.settings, LandingFile.of(place, of), "withdrawn", reason) if _lies(place) else None
    place.unlink(missing_ok=True)
    return DeliveryWithdrawal(
        source=source, file=f"{of.name}/{path.name}", rows=before.rows, night=night, tables=tuple(tables),
        below=tuple(_below(rails.settings, of.raw)), since=before.night, kept=str(kept) if kept else None,
    )  # fmt: skip


def _lies(place: Path) -> bool:
    return place.is_file() and not place.is_symlink()


def _below(settings: Settings, raw: str) -> list[str]:
    """All tables that stand on a raw table, at whatever distance."""
    graph = Feeding.of_every_source(settings).graph
    return sorted(name for name in graph.parents if name != raw and raw in graph.upstream(name))


def _inspected(rails: Rails, contract: SourceContract, file: Path, table: str | None) -> LandingFile:
    """The mended file, which fits its contract."""
    if not file.is_file():
        raise BadInput(f"There is no file {file}; give the path of the mended one.")
    if file.is_symlink():
        raise BadInput(f"{file} leads to {file.resolve()}; give the path of the file itself.")
    if contracts.day_of(file.name) is None:
        raise BadInput(
            f"{file.name} is not named like a delivery, as 2016-03-01.csv is; give it the name of the one that it "
            "takes the place of."
        )
    mended = LandingFile.of(file, _table(rails, contract, file, table))
    mended.sha256 = landing.digest(file)
    if erased := ingest.OfErased.of(rails).rows(rails.lake.connection, mended):
        raise BadInput(
            f"{file} holds {counted(erased, 'row')} of those who were erased: take them out. Nothing was replaced."
        )
    mended.inspect(rails.lake.connection)
    if mended.reason:
        raise BadInput(f"{file} cannot be taken: {mended.reason}. Nothing was replaced.")
    return mended


def _table(rails: Rails, contract: SourceContract, file: Path, table: str | None) -> TableContract:
    """The table that a delivery is of: as somebody says, by its folder, or the only one."""
    names = [each.name for each in contract.tables]
    named = table or next((part for part in (file.parent.name,) if part in names), None)
    if named is None:
        delivered = [each.name for each in contract.tables if _is_known(rails, contract.name, each, file.name)]
        candidates = delivered or names
        if len(candidates) > 1:
            raise BadInput(f"{contract.name} has several tables; say with --table which: {listed(candidates)}.")
        named = candidates[0]
    found = contract.table(named)
    if found is None:
        raise BadInput(f"{contract.name} has no table '{named}'; its tables are {listed(names)}.")
    return found


def _note(rails: Rails, night: date, detail: JsonObject) -> None:
    """Put down that a delivery is replaced, by whom and why; once, where whoever was killed over it does it again."""
    of_file = [
        event.detail for event in rails.ledger.events(kind=REPLACED) if event.detail.get("file") == detail["file"]
    ]
    told = ("source", "sha256", "was")
    if not of_file or any(of_file[-1].get(name) != detail.get(name) for name in told):
        rails.ledger.add_event(REPLACED, "", night, detail)


def _is_known(rails: Rails, source: str, table: TableContract, name: str) -> bool:
    return _landed(rails, table, name) is not None or landing.lies(rails.settings, source, f"{table.name}/{name}")


@dataclass(frozen=True)
class _Landed:
    """A delivery as it has landed."""

    sha256: str
    rows: int
    night: date


def _landed(rails: Rails, table: TableContract, name: str) -> _Landed | None:
    """The delivery of that name; None where it has not landed."""
    if not rails.lake.has(LANDED_FILE):
        return None
    row = rails.lake.connection.execute(
        f"select sha256, rows, landed_night from {identifier(LANDED_FILE)} "
        "where source = ? and table_name = ? and file = ?",
        [table.source, table.name, name],
    ).fetchone()
    return _Landed(*row) if row else None


def _made_of(settings: Settings, raw: str) -> list[str]:
    """The tables that read a raw table themselves; what is made of these is made anew with them."""
    parents = Feeding.of_every_source(settings).graph.parents
    return sorted(name for name, above in parents.items() if raw in above)


def _put(settings: Settings, mended: LandingFile, place: Path, reason: str) -> str | None:
    """Put the mended file into the landing zone, and the one that lies there into quarantine. Returns where the one
    that was wrong lies now."""
    kept: Path | None = None
    if place.is_symlink():  # it brought nothing, and is no file to be kept
        place.unlink()
    if place.exists() and landing.digest(place) != mended.sha256:
        kept = _kept(settings, LandingFile.of(place, mended.contract), "replaced", reason)
    if mended.path.resolve() != place.resolve():
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole(place, lasting=True) as part:
            shutil.copyfile(mended.path, part)
    return str(kept) if kept else None


def _kept(settings: Settings, wrong: LandingFile, what: str, reason: str) -> Path:
    """Copy a file that was wrong into quarantine, with the reason. Returns where it lies there."""
    folder = settings.quarantine / wrong.table.source / wrong.table.name / what
    kept = folder / f"{landing.digest(wrong.path)[:12]}-{wrong.path.name}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    note = {"source": wrong.table.source, "table": wrong.table.name, "file": wrong.path.name, "bytes": wrong.stat[1]}
    with whole(kept.with_name(f"{kept.name}.reason.json"), lasting=True) as part:
        part.write_text(json.dumps({**note, "reason": f"{what}: {reason}"}, indent=1) + "\n")
    with whole(kept, lasting=True) as part:
        shutil.copy2(wrong.path, part)
    return kept


def _is_over(settings: Settings, mended: LandingFile) -> None:
    """What lies in quarantine of this name is over. At the very end: the mended file may be the one that lies there,
    and whoever was killed gives it again."""
    folder = settings.quarantine / mended.table.source / mended.table.name
    for lying in (folder / mended.path.name, *folder.glob(f"*-{escape(mended.path.name)}")):
        lying.unlink(missing_ok=True)
        lying.with_name(f"{lying.name}.reason.json").unlink(missing_ok=True)


def summary(done: Replacement) -> str:
    """What the command prints."""
    if done.is_same:
        return f"{done.file} is what has landed already; nothing is replaced."
    at_once = (
        f"or, at once, the run of {done.source}__features of {done.night}, cleared from ingest in Airflow, with the "
        f"models; tiltyard features --source {done.source} --as-of {done.night} does the features alone."
    )
    if done.rows is None:
        return f"{done.file} lies in the landing zone; the next night takes it, {at_once}"
    lines = [f"{done.file}: {counted(done.rows, 'row')} in place of {done.before:,}."]
    if done.tables:
        lines.append(f"{listed(done.tables)}, and what is made of that, is made anew by the next night.")
    if done.kept:
        lines.append(f"The file that was wrong is kept: {done.kept}")
    return "\n".join([*lines, f"The next night goes on with it, {at_once}"])
