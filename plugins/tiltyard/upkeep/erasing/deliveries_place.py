"""Deliveries: what lies in the landing zone and in quarantine."""

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from tiltyard.files import whole
from tiltyard.lake import identifier
from tiltyard.prepare import contracts, without_rows
from tiltyard.prepare.contracts import TableContract
from tiltyard.prepare.without_rows import Without
from tiltyard.tables import LANDED_FILE
from tiltyard.tombstones import normal
from tiltyard.upkeep.erasing.hunt import Found, Hunt

_NOTE = ".reason.json"
"""How the name of a file ends that says why another one lies in quarantine."""


@dataclass(frozen=True)
class _Delivery:
    """A file of a source."""

    path: Path
    part: str
    """What it counts as."""
    source: str
    contract: TableContract | None
    """Of its table; None where its folder is of none."""
    is_landing: bool


class DeliveriesPlace:
    """The landing zone, and the quarantine."""

    name = "deliveries"
    what = "rows of the files that were delivered, in the landing zone and in quarantine"

    def find(self, hunt: Hunt) -> Found:
        found = Found()
        for delivery in _deliveries(hunt):
            own = self._without(hunt, delivery)
            if own is None:
                continue
            found.add(delivery.part, own.values, own.rows)
            if hunt.most and delivery.contract is not None:
                columns = hunt.whose.columns.get(delivery.contract.raw, ())
                try:
                    rows = without_rows.rows(
                        hunt.rails.lake.connection, delivery.path, delivery.contract, columns, _among(hunt), hunt.most
                    )
                except (duckdb.Error, OSError, EOFError, UnicodeError, csv.Error):
                    rows = []
                for row in rows:
                    found.add(delivery.part, (), 0, {"file": delivery.path.name, **row}, hunt.most)
        return found

    def erase(self, hunt: Hunt, found: Found) -> None:
        """What has landed is known by its bytes without theirs before it has them: who is killed in between leaves
        files that the next look of ingest makes the same."""
        changes: list[dict[str, object]] = []
        with ExitStack() as placed:
            for delivery in _deliveries(hunt):
                own = self._without(hunt, delivery)
                if own is None:
                    continue
                if own.content == b"" and not delivery.is_landing:
                    delivery.path.unlink(missing_ok=True)
                    continue
                part = placed.enter_context(whole(delivery.path, lasting=True))
                part.write_bytes(own.content)
                stat = delivery.path.stat()
                os.utime(part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
                if delivery.is_landing and delivery.contract is not None:
                    changes.append(_landed_as(delivery.path, delivery.contract, part, own.content))
            if changes and hunt.rails.lake.has(LANDED_FILE):
                _record(hunt, changes)

    def _without(self, hunt: Hunt, delivery: _Delivery) -> Without | None:
        """The file without what is theirs; with no content where nothing of it can stay."""
        if delivery.path.name.endswith(_NOTE):
            return _struck(hunt, delivery.path)
        columns = hunt.whose.columns.get(delivery.contract.raw, ()) if delivery.contract else ()
        own = None
        if delivery.contract is not None and columns:
            try:
                own = without_rows.without(
                    hunt.rails.lake.connection, delivery.path, delivery.contract, columns, _among(hunt)
                )
            except (duckdb.Error, OSError, EOFError, UnicodeError, csv.Error):
                own = None
        if own is not None and not hunt.needles.within(own.content):
            return own
        return _without_lines(hunt, delivery.path, own)


def _among(hunt: Hunt) -> without_rows.Among:
    def among(values: Iterable[object]) -> set[str]:
        return {text for value in values if value is not None and (text := normal(value)) in hunt.values}

    return among


def _without_lines(hunt: Hunt, path: Path, before: Without | None) -> Without | None:
    """The file without the lines that name one; what is no text, or cannot be unpacked, goes whole where it does."""
    try:
        plain = without_rows.unpacked(path, before.content if before else None)
    except (OSError, EOFError):
        named = hunt.needles.within(path.read_bytes()) if path.is_file() else set()
        return Without(1, frozenset(named), b"") if named else before
    named = hunt.needles.within(plain)
    if not named:
        return before
    if b"\0" in plain[:4096]:
        return Without(1, frozenset(named), b"")
    lines = plain.splitlines(keepends=True)
    kept = [line for line in lines if not hunt.needles.within(line)]
    count = len(lines) - len(kept) + (before.rows if before else 0)
    values = frozenset(named) | (before.values if before else frozenset())
    return Without(count, values, without_rows.packed(path, b"".join(kept)))


def _struck(hunt: Hunt, path: Path) -> Without | None:
    content = path.read_bytes()
    named = hunt.needles.within(content)
    return Without(1, frozenset(named), hunt.needles.struck(content)) if named else None


def _deliveries(hunt: Hunt) -> Iterator[_Delivery]:
    """Every file in the landing zone and in quarantine; links lead elsewhere, and are none."""
    settings = hunt.rails.settings
    known = {name: contracts.read(settings, name) for name in contracts.sources(settings)}
    for folder, part in ((settings.landing, "landing zone"), (settings.quarantine, "quarantine")):
        for place, _, names in os.walk(folder):
            for name in sorted(names):
                path = Path(place) / name
                if path.is_symlink() or not path.is_file():
                    continue
                source, *below = path.relative_to(folder).parts
                contract = known[source].table(below[0]) if source in known and len(below) > 1 else None
                yield _Delivery(path, part, source, contract, folder == settings.landing)


def _landed_as(path: Path, contract: TableContract, part: Path, content: bytes) -> dict[str, object]:
    """How a delivery is known from now on."""
    return {
        "source": contract.source, "table_name": contract.name, "file": path.name, "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(), "modified_ns": part.stat().st_mtime_ns,
    }  # fmt: skip


def _record(hunt: Hunt, changes: list[dict[str, object]]) -> None:
    def work(connection: duckdb.DuckDBPyConnection) -> None:
        connection.register("_changes", pd.DataFrame(changes))
        try:
            connection.execute(
                f"update {identifier(LANDED_FILE)} as landed set sha256 = own.sha256, bytes = own.bytes, "
                "modified_ns = own.modified_ns from _changes as own where landed.source = own.source "
                "and landed.table_name = own.table_name and landed.file = own.file"
            )
        finally:
            connection.unregister("_changes")

    hunt.rails.lake.commit(work, message=f"erasure, {len(changes)} deliveries")
