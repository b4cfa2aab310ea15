"""Files of a folder or a bucket, each of which becomes a delivery, whole and once.

A file's delivery has a name that follows from the file alone, its day and its path, so what has been fetched is told by
what lies in the landing zone and what has landed from there. Nothing else is kept, and nothing can be fetched twice.
"""

import fnmatch
import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from tiltyard.errors import Unavailable
from tiltyard.files import whole
from tiltyard.prepare import contracts
from tiltyard.prepare.fetch import aws
from tiltyard.prepare.fetch.credentials import Connection
from tiltyard.prepare.places import bucket_of, folder_of
from tiltyard.settings import Settings

_ENDING = re.compile(r"(\.csv|\.csv\.gz|\.parquet)$")
_DIRECTIVES = {"%Y": r"\d{4}", "%m": r"\d{2}", "%d": r"\d{2}", "%y": r"\d{2}", "%j": r"\d{3}"}
"""What a day in a file's name is written with → what that matches."""
_LONGEST = 200
"""Letters of the longest name of a delivery."""


@dataclass(frozen=True)
class RemoteFile:
    """A file at a place."""

    path: str
    """Below the place: below the folders of its pattern that have no star in them."""
    size: int
    written: datetime
    fetch: Callable[[Path], None]
    """Write it to a file here."""

    def delivery(self, day: str | None) -> str | None:
        """The name of its delivery; None for a file whose name has no day, where it should have one."""
        ending = _ENDING.search(self.path)
        told = self.written.astimezone(UTC).date() if day is None else _day_in(self.path, day)
        if ending is None or told is None:
            return None
        stem = self.path[: ending.start()]
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[-_LONGEST:]
        if plain != stem:  # other paths may become the same
            plain += f"-{hashlib.sha256(stem.encode()).hexdigest()[:8]}"
        return f"{told.isoformat()}-{plain}{ending[1]}"


def fetch(
    files: Collection[RemoteFile],
    day: str | None,
    as_of: datetime,
    folder: Path,
    had: Collection[tuple[str, int]],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Bring those that are due and new into a folder of the landing zone; returns the names of their deliveries, and
    the paths of the files in whose names no day is.

    `had`: (name of a delivery, its size in bytes) of all that have been fetched. One that has another size now is
    brought again, for ingest to say that a file is not changed once it has landed.
    """
    named = {file.path: file.delivery(day) for file in files}
    brought = []
    for file in sorted(files, key=lambda each: (named[each.path] or "", each.path)):
        name = named[file.path]
        if name is None or contracts.due(name) > as_of or (name, file.size) in had:
            continue
        with whole(folder / name, lasting=True) as part:
            file.fetch(part)
        brought.append(name)
    return tuple(brought), tuple(path for path, name in sorted(named.items()) if name is None)


def _day_in(path: str, form: str) -> date | None:
    """The last day that is written so in a path; None where none is."""
    pattern = re.escape(form)
    for directive, digits in _DIRECTIVES.items():
        pattern = pattern.replace(re.escape(directive), digits)
    for found in reversed(re.findall(pattern, path)):
        try:
            return datetime.strptime(found, form).date()
        except ValueError:
            continue
    return None


@contextmanager
def listed(address: str, connection: Connection | None, settings: Settings) -> Iterator[list[RemoteFile]]:
    """The files that a pattern names, while the place is open. Raises Unavailable for a place that is away, BadInput
    for one that refuses."""
    bucket = bucket_of(address)
    if bucket is None:
        yield _in_folder(str(folder_of(address)))
        return
    with aws.client("s3", address, connection, settings) as client:
        yield _in_bucket(client, *bucket)


def _in_folder(pattern: str) -> list[RemoteFile]:
    root = Path(_root(pattern))
    if not root.is_dir():
        raise Unavailable(f"{root} is not there, or may not be read; mount it, or mend the contract.")
    found = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        is_hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if not is_hidden and _matches(str(path), pattern) and path.is_file():
            stat = path.stat()
            found.append(RemoteFile(name, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC), _copier(path)))
    return found


def _copier(path: Path) -> Callable[[Path], None]:
    def blocks() -> Iterator[bytes]:
        try:
            with path.open("rb") as before:
                while block := before.read(1 << 20):
                    yield block
        except OSError as error:
            raise Unavailable(f"{path} cannot be read ({error.strerror}); it is fetched with the next look.") from None

    def copy(part: Path) -> None:
        with part.open("wb") as after:  # what this side says is no fault of the place
            for block in blocks():
                after.write(block)

    return copy


def _root(pattern: str) -> str:
    """The folders of a pattern before its first star."""
    head = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return head.rpartition("/")[0] or "/"


def _matches(path: str, pattern: str) -> bool:
    """As a shell has it: a star stays within one folder, and two go through any number of them."""
    own, wanted = path.split("/"), pattern.split("/")

    def fits(at: int, of: int) -> bool:
        if of == len(wanted):
            return at == len(own)
        if wanted[of] == "**":
            return any(fits(later, of + 1) for later in range(at, len(own) + 1))
        return at < len(own) and fnmatch.fnmatchcase(own[at], wanted[of]) and fits(at + 1, of + 1)

    return fits(0, 0)


# -- S3 ---------------------------------------------------------------------------------------


def _in_bucket(client: Any, bucket: str, pattern: str) -> list[RemoteFile]:
    prefix = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    folder = prefix.rpartition("/")[0]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = [each for page in pages for each in page.get("Contents", ()) if _matches(each["Key"], pattern)]
    return [
        RemoteFile(
            path=each["Key"].removeprefix(folder).lstrip("/"),
            size=each["Size"],
            written=each["LastModified"],
            fetch=_downloader(client, bucket, each["Key"]),
        )
        for each in found
    ]


def _downloader(client: Any, bucket: str, key: str) -> Callable[[Path], None]:
    return lambda part: client.download_file(bucket, key, str(part))
