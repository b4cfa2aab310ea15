"""What lies in the home beside the lake and the deliveries: frames, answers on their way, events that were put aside,
pages, logs, and every other file."""

import csv
import io
import os
import re
import string
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import orjson

from tiltyard import clock
from tiltyard.answered import request_log
from tiltyard.file_rows import parquet
from tiltyard.files import whole
from tiltyard.lake import quoted, text
from tiltyard.prepare import frame
from tiltyard.serve import spool
from tiltyard.tombstones import normal
from tiltyard.upkeep.erasing.hunt import Found, Hunt

SEALED_S = 40.0
"""Seconds for which a segment is waited for that the service writes to: it seals one after thirty."""
_MASKED = (".log", ".json", ".jsonl", ".sql", ".txt", ".md", ".yml", ".yaml", ".err", ".out", ".cfg", "")
"""Endings of files of text in which a name is covered in place, by as many stars: who writes to one goes on."""
_ROW = re.compile(rb"<tr\b.*?</tr>", re.DOTALL | re.IGNORECASE)
_CHUNK = 64 << 20
_SIGNS = (string.ascii_letters + string.digits).encode()


class FramesPlace:
    """Training frames."""

    name = "frames"
    what = "training frames, which go whole"

    def find(self, hunt: Hunt) -> Found:
        found = Found()
        for path, values, rows in _frames(hunt):
            found.add(path.stem, values, rows)
            if hunt.most:
                for row in _parquet_rows(hunt, path, hunt.whose.key, hunt.most):
                    found.add(path.stem, (), 0, row, hunt.most)
        return found

    def erase(self, hunt: Hunt, found: Found) -> None:
        """A frame is named by its bytes, and stands in the versions that learned from it: without the rows it would be
        another one. It goes, and says so to whoever asks for it."""
        for path, _, _ in _frames(hunt):
            frame.mark_erased(path, clock.now())
            path.unlink(missing_ok=True)


class SpoolPlace:
    """Answers on their way to the lake."""

    name = "spool"
    what = "records of answers that are on their way to the lake, or are damaged"

    def find(self, hunt: Hunt) -> Found:
        found = Found()
        for path in _segments(hunt):
            for record in _theirs(hunt, path):
                found.add("damaged" if path.parent.name == request_log.DAMAGED else "segments", _named(hunt, record))
                if hunt.most:
                    found.add("segments", (), 0, orjson.loads(record), hunt.most)
        return found

    def erase(self, hunt: Hunt, found: Found) -> None:
        """What is on its way is delivered, and what is theirs does not come in; of damaged segments the records are
        blanked. The segment that a service writes to is waited for."""
        until = time.monotonic() + SEALED_S
        while True:
            request_log.deliver(hunt.rails)
            waiting = [path for path in _segments(hunt) if path.suffix == spool.OPEN and any(_theirs(hunt, path))]
            if not waiting or time.monotonic() > until:
                break
            time.sleep(1.0)
        for path in _segments(hunt):
            if path.parent.name != request_log.DAMAGED:
                continue
            content = path.read_bytes()
            for record in _theirs(hunt, path):
                content = content.replace(record, b" " * len(record))
            with whole(path, lasting=True) as part:
                part.write_bytes(content)


class StreamsPlace:
    """Events of streams that were put aside."""

    name = "streams"
    what = "events of streams that could not be used and were put aside"

    def find(self, hunt: Hunt) -> Found:
        found = Found()
        for path in sorted((hunt.rails.settings.home / "streams").glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                if values := _of_event(hunt, line):
                    found.add(path.name, values, 1, {"event": line.decode("utf-8", "replace")}, hunt.most)
        return found

    def erase(self, hunt: Hunt, found: Found) -> None:
        for name in found.counts:
            path = hunt.rails.settings.home / "streams" / name
            kept = [line for line in path.read_bytes().splitlines(keepends=True) if not _of_event(hunt, line)]
            with whole(path, lasting=True) as part:
                part.write_bytes(b"".join(kept))


class FilesPlace:
    """Every other file of the home."""

    name = "files"
    what = "pages, logs, answers that were brought to a folder, and every other file of the home, by its bytes"

    def find(self, hunt: Hunt) -> Found:
        found = Found()
        if hunt.needles.short:
            found.notes.append(
                f"{len(hunt.needles.short):,} of them are too short to be told from other numbers by their bytes: "
                "they were looked for in columns, and not in pages, logs and other texts"
            )
        for path in _others(hunt):
            if said := _cannot_be_read(path):
                found.add(_part(hunt, path), (), 1, {"file": str(path)}, hunt.most)
                found.notes.append(f"{path} cannot be read ({said}), and may name them: let it be read, or remove it")
            elif values := _in_file(hunt, path):
                found.add(_part(hunt, path), values, 1, {"file": str(path)}, hunt.most)
                if not _can_be_rewritten(hunt, path):
                    found.notes.append(f"{path} names them and is not rewritten: remove it")
        return found

    def erase(self, hunt: Hunt, found: Found) -> None:
        for path in _others(hunt):
            if not _in_file(hunt, path) or not _can_be_rewritten(hunt, path):
                continue
            if path.suffix == ".parquet":
                _without_parquet_rows(hunt, path)
            elif path.suffix == ".csv":
                _put(path, _without_records(hunt, path.read_bytes()))
            elif path.suffix == ".html":
                _put(path, _without_table_rows(hunt, path.read_bytes()))
            else:
                _mask(hunt, path)


# -- frames --------------------------------------------------------------------------------------


def _frames(hunt: Hunt) -> Iterator[tuple[Path, set[str], int]]:
    """(file, who of them is in it, their rows) of every frame that holds one."""
    for path in sorted(hunt.rails.settings.frames.glob("*.parquet")):
        values, rows = _parquet_values(hunt, path, [hunt.whose.key])
        if rows:
            yield path, values, rows


def _parquet_values(hunt: Hunt, path: Path, columns: list[str]) -> tuple[set[str], int]:
    """(who of them is in any of these columns of a Parquet file, their rows)."""
    connection = hunt.rails.lake.connection
    there = {name for name, *_ in connection.execute(f"describe select * from {parquet(path)}").fetchall()}
    values: set[str] = set()
    rows = 0
    for column in columns:
        if column in there:
            own = connection.execute(
                f"select trim(cast({quoted(column)} as varchar)) as value, count(*) from {parquet(path)} group by 1"
            ).fetchall()
            mine = {value: count for value, count in own if value in hunt.values}
            values |= mine.keys()
            rows += sum(mine.values())
    return values, rows


def _parquet_rows(hunt: Hunt, path: Path, column: str, most: int) -> list[dict[str, object]]:
    wanted = ", ".join(text(value) for value in sorted(hunt.values))
    rows = hunt.rails.lake.connection.execute(
        f"select * from {parquet(path)} where trim(cast({quoted(column)} as varchar)) in ({wanted}) limit {most}"
    )
    names = [name for name, *_ in rows.description]
    return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


# -- the spool -----------------------------------------------------------------------------------


def _segments(hunt: Hunt) -> list[Path]:
    folder = hunt.rails.settings.spool
    return [
        path
        for place in (folder, folder / request_log.DAMAGED)
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.is_file() and path.suffix in (spool.OPEN, spool.SEALED)
    ]


def _theirs(hunt: Hunt, path: Path) -> Iterator[bytes]:
    """The records of a segment that are about one."""
    try:
        records = spool.read(path).records
    except OSError:  # sealed, or delivered, since it was listed
        return
    yield from (record for record in records if _named(hunt, record))


def _named(hunt: Hunt, record: bytes) -> set[str]:
    named = hunt.needles.within(record)
    try:
        content = orjson.loads(record)
        who = content.get("entity_id")
        if who is not None and normal(who) in hunt.values and content.get("model") in hunt.whose.models:
            named.add(normal(who))
    except (ValueError, AttributeError):
        pass
    return named


# -- streams -------------------------------------------------------------------------------------


def _of_event(hunt: Hunt, line: bytes) -> set[str]:
    """Who of them an event that was put aside is about."""
    named = hunt.needles.within(line)
    try:
        event = orjson.loads(orjson.loads(line)["content"])
        if event["view"] in hunt.whose.views and normal(event["key"]) in hunt.values:
            named.add(normal(event["key"]))
    except (ValueError, KeyError, TypeError):
        pass
    return named


# -- every other file ----------------------------------------------------------------------------


def _others(hunt: Hunt) -> Iterator[Path]:
    settings = hunt.rails.settings
    apart = {
        settings.landing, settings.quarantine, settings.frames, settings.spool, settings.home / "streams",
        settings.home / "postgres", settings.home / "online", settings.home / "erasure", Path(settings.lake_path),
    }  # fmt: skip
    for place, folders, names in os.walk(settings.home):
        folders[:] = sorted(name for name in folders if Path(place) / name not in apart)
        for name in sorted(names):
            path = Path(place) / name
            if path.is_file() and not path.is_symlink():
                yield path


def _part(hunt: Hunt, path: Path) -> str:
    return path.relative_to(hunt.rails.settings.home).parts[0]


def _can_be_rewritten(hunt: Hunt, path: Path) -> bool:
    """Whether a file may be written anew: the files of versions are held against their digests, and releases too."""
    top = _part(hunt, path)
    if top in ("cache", "mlflow", "releases"):
        return False
    return path.suffix in (".parquet", ".csv", ".html", *_MASKED)


def _cannot_be_read(path: Path) -> str | None:
    """Why a file tells nothing; None where it does, or is gone."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def _in_file(hunt: Hunt, path: Path) -> set[str]:
    """Who of them a file names."""
    if path.suffix == ".parquet":
        try:
            values, _ = _parquet_values(hunt, path, [hunt.whose.key, "entity_id"])
            return values | _parquet_texts(hunt, path)
        except duckdb.Error:
            pass
    if path.suffix == ".csv":
        values = _csv_values(hunt, path)
        if values:
            return values
    named: set[str] = set()
    try:
        with path.open("rb") as file:
            tail = b""
            while block := file.read(_CHUNK):
                content = tail + block
                end = len(content.rstrip(_SIGNS))  # a word may go on in the next block
                named |= hunt.needles.within(content[:end])
                tail = content[max(0, end - 2 * hunt.needles.longest) :]
            named |= hunt.needles.within(tail)
    except OSError:  # gone, or not to be read by anybody
        pass
    return named


def _parquet_texts(hunt: Hunt, path: Path) -> set[str]:
    named: set[str] = set()
    connection = hunt.rails.lake.connection
    for name, kind, *_ in connection.execute(f"describe select * from {parquet(path)}").fetchall():
        if kind.startswith("VARCHAR"):
            rows = connection.execute(f"select distinct cast({quoted(name)} as varchar) from {parquet(path)}")
            while batch := rows.fetchmany(100_000):
                content = "\n".join(value for (value,) in batch if value).encode("utf-8", "surrogatepass")
                named |= hunt.needles.within(content)
    return named


def _csv_values(hunt: Hunt, path: Path) -> set[str]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            columns = [name for name in rows.fieldnames or () if name in (hunt.whose.key, "entity_id")]
            return (
                {normal(row[name]) for row in rows for name in columns if row[name]} & hunt.values if columns else set()
            )
    except (OSError, UnicodeError, csv.Error):
        return set()


def _without_records(hunt: Hunt, content: bytes) -> bytes:
    records = list(csv.reader(io.StringIO(content.decode("utf-8", "surrogateescape"), newline="")))
    places = [place for place, name in enumerate(records[0]) if name in (hunt.whose.key, "entity_id")]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    for record in records:
        is_theirs = any(place < len(record) and normal(record[place]) in hunt.values for place in places)
        if not is_theirs and not hunt.needles.within("\n".join(record).encode("utf-8", "surrogateescape")):
            writer.writerow(record)
    return out.getvalue().encode("utf-8", "surrogateescape")


def _without_parquet_rows(hunt: Hunt, path: Path) -> None:
    connection = hunt.rails.lake.connection
    there = [name for name, *_ in connection.execute(f"describe select * from {parquet(path)}").fetchall()]
    wanted = ", ".join(text(value) for value in sorted(hunt.values))
    where = " or ".join(
        f"coalesce(trim(cast({quoted(name)} as varchar)) in ({wanted}), false)"
        for name in there
        if name in (hunt.whose.key, "entity_id")
    )
    if where:
        with whole(path, lasting=True) as part:
            connection.execute(
                f"copy (select * from {parquet(path)} where not ({where})) to {text(str(part))} (format parquet)"
            )


def _without_table_rows(hunt: Hunt, content: bytes) -> bytes:
    """A page without the rows of its tables that name one; elsewhere the name is struck out."""

    def row(match: re.Match[bytes]) -> bytes:
        return b"" if hunt.needles.within(match[0]) else match[0]

    return hunt.needles.struck(_ROW.sub(row, content))


def _mask(hunt: Hunt, path: Path) -> None:
    """Cover a name in a text in place: whoever writes to its end goes on."""
    with path.open("r+b") as file:
        content = file.read()
        covered = hunt.needles.struck(content, same_length=True)
        for start in range(0, len(content), 4096):
            if content[start : start + 4096] != covered[start : start + 4096]:
                file.seek(start)
                file.write(covered[start : start + 4096])
        file.flush()
        os.fsync(file.fileno())


def _put(path: Path, content: bytes) -> None:
    with whole(path, lasting=True) as part:
        part.write_bytes(content)
