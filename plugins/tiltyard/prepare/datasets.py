"""The public data sets and the simulated one, brought to the landing zone as a source would deliver them.

A data set is fetched from its public home, or from a mirror (`TILTYARD_DATA_MIRROR`), and the SHA-256 of
its *content* is checked either way before a byte of it is used. Then it is cut into one landing file per
day and table: what the source system would have delivered that evening. Fetching twice is fetching once.
"""

import fcntl
import gzip
import hashlib
import io
import json
import logging
import os
import shutil
import socket
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tiltyard.errors import BadInput, Unavailable
from tiltyard.files import whole
from tiltyard.prepare import cuts
from tiltyard.prepare.simulator import Simulator
from tiltyard.records import Record
from tiltyard.settings import Settings
from tiltyard.words import counted, listed

log = logging.getLogger(__name__)

Progress = Callable[[str, float | None], None]
"""Is told what is done, and which share of all of it; None: nobody knows."""

ATTEMPTS = 5
"""How often a download that breaks off is taken up again in one run."""
_BLOCK = 1 << 18
_MANIFEST = ".manifest.json"


@dataclass(frozen=True)
class Download:
    """One file at a public home, and what must be in it."""

    url: str
    mirror: str
    """Path below TILTYARD_DATA_MIRROR. It may be wrapped (.zip, .gz) otherwise than at the public home."""
    member: str
    """The file inside the zip; of a file that is no zip, its own name without .gz."""
    sha256: str
    """Of the member's content, not of what wraps it; with `form`, of the content in that form."""
    form: Callable[[bytes], bytes] | None = None
    """Brings content that is published in more than one file format into one form; ValueError where it cannot."""


@dataclass(frozen=True)
class Dataset:
    """A public data set: where it is, and how its source system would have delivered it."""

    name: str
    source: str
    """The landing folder: landing/<source>/<table>/<day>.csv."""
    downloads: tuple[Download, ...]
    cut: cuts.Cut
    """The members' contents, in the order of `downloads` → deliveries."""

    @property
    def digest(self) -> str:
        """SHA-256 over all content."""
        return hashlib.sha256("".join(download.sha256 for download in self.downloads).encode()).hexdigest()


PUBLIC = {
    # UCI 498 (Amaral, Fantinato, Peres; CC BY 4.0): 141,712 updates of 24,918 service-desk tickets
    "incident": Dataset(
        name="incident",
        source="incident",
        downloads=(
            Download(
                url="https://archive.ics.uci.edu/static/public/498/incident+management+process+enriched+event+log.zip",
                mirror="incident/incident_event_log.zip",
                member="incident_event_log.csv",
                sha256="fd184bbfd62329cfe093e99da2ea7071905f2ead91900b448eb2635870821bef",
            ),
        ),
        cut=cuts.incident,
    ),
    # Antonio, de Almeida, Nunes 2019 (CC BY 4.0), as in TidyTuesday 2020-02-11: 119,390 bookings of two hotels
    "hotels": Dataset(
        name="hotels",
        source="hotels",
        downloads=(
            Download(
                url="https://raw.githubusercontent.com/rfordatascience/tidytuesday/"
                "2c423bacc57e4632ff8550557e0bc823eefa31ab/data/2020/2020-02-11/hotels.csv",
                mirror="hotels/hotel_bookings.csv.zip",
                member="hotel_bookings.csv",
                sha256="7c2ae42a7353905ea136e5c2287f17c92c5435826598bfbb8491c6f0c7b1fc06",
            ),
        ),
        cut=cuts.hotels,
    ),
    # UCI 352 (Chen; CC BY 4.0): 541,909 invoice lines of a UK online wholesaler. UCI has them as an Excel workbook,
    # mirrors as Parquet: both hold the same lines, and the digest is over those.
    "retail": Dataset(
        name="retail",
        source="retail",
        downloads=(
            Download(
                url="https://archive.ics.uci.edu/static/public/352/online+retail.zip",
                mirror="online_retail/online_retail.parquet",
                member="Online Retail.xlsx",
                sha256="8567e2f802078f7a44f87595650bc845a0c0433fe31097011a9432ba4d6ffa95",
                form=cuts.invoice_lines,
            ),
        ),
        cut=cuts.online_retail,
    ),
    # pnwflights14 (Ismay; CC0): 162,049 flights out of Seattle and Portland in 2014, hourly weather. Its registry of
    # aircraft was drawn in September 2015: nothing in it can be shown to have been known in 2014, so it stays there.
    "flights": Dataset(
        name="flights",
        source="flights",
        downloads=(
            Download(
                url="https://raw.githubusercontent.com/ismayc/pnwflights14/master/data/flights.csv",
                mirror="pnwflights14/flights.csv.gz",
                member="flights.csv",
                sha256="2156a644e848da8797d6c864da5b163a311ed181c5a88f049cecbb62b9dfd52d",
                form=cuts.one_spelling,  # copies differ in how they spell a missing value and a whole number
            ),
            Download(
                url="https://raw.githubusercontent.com/ismayc/pnwflights14/master/data/weather.csv",
                mirror="pnwflights14/weather.csv.gz",
                member="weather.csv",
                sha256="f2275d285750260f3d666bbfba3333f0a0684bbdd8090b96beac3150a97529cf",
            ),
            Download(
                url="https://raw.githubusercontent.com/ismayc/pnwflights14/master/data-raw/airports.csv",
                mirror="pnwflights14/airports.csv",
                member="airports.csv",
                sha256="6280e0b010f9a66d61f6e93eee960cff646c9b6ee68180f579198e8668a50ee4",
            ),
        ),
        cut=cuts.flights,
    ),
}
NAMES = (*PUBLIC, "simulated")


@dataclass(frozen=True)
class LandingFacts(Record):
    """How much was landed."""

    files: int
    """Number of files."""
    rows: int
    """Number of rows in them."""


@dataclass(frozen=True, kw_only=True)
class Manifest(Record):
    """What a data set's landing folder holds. It is written last."""

    content: str
    """Digest of the data set."""
    facts: LandingFacts
    """How much was landed."""
    sha256: dict[str, str]
    """Path below the folder → SHA-256 of the file."""


@dataclass(frozen=True, kw_only=True)
class FetchSummary(Record):
    """What a fetch brought."""

    name: str
    """Name of the data set."""
    origin: Annotated[str | None, Field(alias="from")] = None
    """Where the content came from; None: nobody was asked."""
    landing: str
    """The landing folder."""
    files: int
    """Number of files there."""
    rows: int
    """Number of rows in them."""
    unchanged: bool
    """Whether everything was there already."""
    restored: tuple[str, ...] = ()
    """Files below the landing folder that had been changed or taken away since the last fetch, and are as the data set
    has them again; by name."""


def fetch(
    settings: Settings, name: str, progress: Progress | None = None, *, cancel_trigger: bool = False
) -> FetchSummary:
    """Bring a data set to the landing zone. `progress` is told how far it is.

    `cancel_trigger` is for the simulated one: its CRM blanks the last log-in of whoever cancels.
    Raises BadInput for an unknown name or content that is not the data set, Unavailable when it is out of reach.
    """
    report = progress or _silent
    if name not in NAMES:
        raise BadInput(f"There is no data set '{name}'; the data sets are: {', '.join(NAMES)}.")
    if cancel_trigger and name != "simulated":
        raise BadInput(f"Only the simulated data has a Cancel trigger to switch on, {name} is as it was delivered.")
    try:
        with _only_one(settings, name):
            if name in PUBLIC:
                return _fetch_public(settings, PUBLIC[name], report)
            return _fetch_simulated(settings, report, cancel_trigger=cancel_trigger)
    except OSError as error:
        raise Unavailable(
            f"The {name} data cannot be put into {settings.home} ({error.strerror or error}); make room there, or set "
            "TILTYARD_HOME to a folder that can be written to."
        ) from None


# -- public -----------------------------------------------------------------------------------


def _fetch_public(settings: Settings, dataset: Dataset, report: Progress) -> FetchSummary:
    folder = settings.landing / dataset.source
    present = _intact(folder, dataset.digest)
    if present is not None:
        report(f"{dataset.name} data: already there", 1.0)
        return _summary(dataset.name, None, folder, present, unchanged=True)
    contents, origins = [], []
    for done, download in enumerate(dataset.downloads):

        def part(label: str, fraction: float | None, done: int = done) -> None:
            report(label, None if fraction is None else (done + fraction) / len(dataset.downloads))

        content, origin = _content(settings, dataset.name, download, part)
        contents.append(content)
        origins.append(origin)
    report(f"{dataset.name} data: cutting into days", 0.9)
    deliveries = dataset.cut(contents)
    facts = LandingFacts(len(deliveries.files), deliveries.rows)
    restored = _differing(folder, dataset.digest)
    _place(folder, deliveries.files, dataset.digest, facts)
    report(f"{dataset.name} data: landed", 1.0)
    return _summary(dataset.name, ", ".join(origins), folder, facts, unchanged=False, restored=restored)


def _summary(
    name: str,
    origin: str | None,
    folder: Path,
    facts: LandingFacts,
    *,
    unchanged: bool,
    restored: Sequence[str] = (),
) -> FetchSummary:
    if restored:
        log.warning(
            "%s data: %s of %s had been changed or taken away, and stand as they were delivered: %s; to try other "
            "rows, put them into a source of your own",
            name, counted(len(restored), "file"), folder, listed(restored),
        )  # fmt: skip
    return FetchSummary(
        name=name,
        origin=origin,
        landing=str(folder),
        files=facts.files,
        rows=facts.rows,
        unchanged=unchanged,
        restored=tuple(restored),
    )


def _content(settings: Settings, name: str, source: Download, report: Progress) -> tuple[bytes, str]:
    """The checked content, and where it came from. Nothing unchecked leaves this function."""
    mirrored = settings.data_mirror / source.mirror if settings.data_mirror else None
    if mirrored is not None and mirrored.is_file():
        report(f"{name} data: reading the mirror", 0.1)
        return _unpacked(mirrored, source, source.mirror), str(mirrored)
    part = settings.home / "downloads" / f"{Path(source.mirror).name}.part"
    resumed = part.exists()
    try:
        _download_patiently(name, source, part, settings, report)
        try:
            content = _unpacked(part, source, source.url)
        except BadInput:
            if not resumed:
                raise
            part.unlink(missing_ok=True)  # its beginning came from another day's attempt: once more, whole
            _download_patiently(name, source, part, settings, report)
            content = _unpacked(part, source, source.url)
    except BadInput:
        part.unlink(missing_ok=True)
        raise
    part.unlink()
    return content, source.url


def _download_patiently(name: str, source: Download, part: Path, settings: Settings, report: Progress) -> None:
    def report_bytes(done: int, total: int | None) -> None:
        label = f"{name} data: {done / 1e6:.1f} MB" + (f" of {total / 1e6:.1f}" if total else "")
        report(label, 0.8 * done / total if total else None)

    try:
        download(source.url, part, timeout_s=settings.data_timeout_s, progress=report_bytes)
    except Unavailable as error:
        mirror = f"TILTYARD_DATA_MIRROR ({settings.data_mirror} has no {source.mirror})"
        raise Unavailable(
            f"The {name} data cannot be had from {source.url} ({error}); try again later, or point "
            + (mirror if settings.data_mirror else "TILTYARD_DATA_MIRROR")
            + f" at a folder that holds {source.mirror}."
        ) from None


def download(
    url: str, part: Path, *, timeout_s: float, progress: Callable[[int, int | None], None] = lambda done, total: None
) -> None:
    """Download `url` into `part`, from where an earlier attempt stopped. Raises Unavailable with a short reason.

    A connection that breaks off is taken up again up to ATTEMPTS times as long as every attempt brings
    something; what has come stays in `part`. A server that ignores Range sends the whole again.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            total = _take(url, part, before, timeout_s, progress)
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # longer than the file that is there now
                part.unlink()
                continue
            raise Unavailable(f"the server answers {error.code} {error.reason}") from None
        except urllib.error.URLError as error:  # never connected: waiting does not help
            raise Unavailable(_reason(error.reason)) from None
        except (OSError, HTTPException) as error:
            reason, total = _reason(error), None
        else:
            reason = "the connection broke off"
            if total is None or part.stat().st_size == total:
                return
        done = part.stat().st_size if part.exists() else 0
        if done == before or attempt == ATTEMPTS - 1:
            raise Unavailable(f"{reason} after {done:,} bytes; they are kept, and the next try goes on from there")


def _take(
    url: str, part: Path, offset: int, timeout_s: float, progress: Callable[[int, int | None], None]
) -> int | None:
    """One request; appends to `part`. Returns the full size where the server tells it."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    response: HTTPResponse
    with urllib.request.urlopen(request, timeout=timeout_s) as response:
        start = 0
        if response.status == 206:
            first = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
            start = int(first) if first.isdigit() else -1
        if start not in (0, offset):
            raise HTTPException("the server sent another part than was asked for")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        done = start
        with part.open("ab" if start else "wb") as file:
            while block := response.read(_BLOCK):
                file.write(block)
                done += len(block)
                progress(done, total)
    return total


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError | socket.timeout):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "its name cannot be looked up"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return str(error).strip().rstrip(".") or type(error).__name__


def _unpacked(path: Path, source: Download, name: str) -> bytes:
    """The member's content, its digest checked; `name` tells the wrapping. Raises BadInput when this is not the data
    set."""
    kind = next((kind for ending, kind in _WRAPPINGS.items() if name.endswith(ending)), None)
    data = path.read_bytes()
    try:
        content = data if kind is None else gzip.decompress(data) if kind == "gzip" else _member(data, source.member)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        raise BadInput(
            f"{path} is no readable {kind} ({str(error).rstrip('.')}); delete it or get it again from {source.url}."
        ) from None
    if content is None:
        raise BadInput(f"{path} holds no {source.member}; get it again from {source.url}.")
    if source.form is not None:
        try:
            content = source.form(content)
        except ValueError as error:
            raise BadInput(
                f"{source.member} in {path} is not the data set that is expected ({str(error).rstrip('.')}); get it "
                f"again from {source.url}."
            ) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != source.sha256:
        raise BadInput(
            f"{source.member} in {path} is not the data set that is expected (sha256 {digest[:12]}…, "
            f"not {source.sha256[:12]}…); get it again from {source.url}."
        )
    return content


_WRAPPINGS = {".zip": "zip", ".gz": "gzip"}


def _member(data: bytes, name: str) -> bytes | None:
    """The file `name` in a zip, or in a zip within it (public homes like to wrap)."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        for entry in names:
            if entry.rsplit("/", 1)[-1] == name:
                return archive.read(entry)
        for entry in names:
            if entry.endswith(".zip") and (content := _member(archive.read(entry), name)) is not None:
                return content
    return None


# -- simulated --------------------------------------------------------------------------------


def _fetch_simulated(settings: Settings, report: Progress, *, cancel_trigger: bool) -> FetchSummary:
    simulator, opposite = (Simulator(cancel_trigger=switched) for switched in (cancel_trigger, not cancel_trigger))
    folder = settings.landing / "subscription"
    manifest = _manifest(folder)
    if manifest is not None and manifest.content == opposite.digest:
        there, here = ("without", "with") if cancel_trigger else ("with", "without")
        raise BadInput(
            f"{folder} holds the simulated data {there} the Cancel trigger, and a home takes one of the two; fetch "
            f"those {here} it into another home (TILTYARD_HOME)."
        )
    present = _intact(folder, simulator.digest)
    if present is not None:
        report("simulated data: already there", 1.0)
        return _summary("simulated", "simulator", folder, present, unchanged=True)
    folder.mkdir(parents=True, exist_ok=True)
    scratch = _scratch(folder)
    try:
        report("simulated data: living through the days", 0.1)
        landing = simulator.land(scratch, lambda label, fraction: report(label, 0.1 + 0.8 * (fraction or 0)))
        facts = LandingFacts(landing.files, landing.rows)
        restored = _differing(folder, simulator.digest)
        _publish(folder, scratch, simulator.digest, facts)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report("simulated data: landed", 1.0)
    return _summary("simulated", "simulator", folder, facts, unchanged=False, restored=restored)


# -- the landing zone -------------------------------------------------------------------------


def _place(folder: Path, files: Mapping[str, bytes], content: str, facts: LandingFacts) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    scratch = _scratch(folder)
    try:
        for name, data in files.items():
            path = scratch / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        _publish(folder, scratch, content, facts)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(folder: Path, scratch: Path, content: str, facts: LandingFacts) -> None:
    """Move every file of `scratch` to its place, whole, and then say in the manifest that all are there."""
    digests = {}
    for path in sorted(path for path in scratch.rglob("*") if path.is_file()):
        name = path.relative_to(scratch).as_posix()
        digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        path.replace(folder / name)
    manifest = Manifest(content=content, facts=facts, sha256=digests)
    with whole(folder / _MANIFEST) as path:
        path.write_text(json.dumps(manifest.to_json(), indent=1))


def _manifest(folder: Path) -> Manifest | None:
    """What was landed last; None where nothing was, or half of it."""
    try:
        return Manifest.from_json(json.loads((folder / _MANIFEST).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _intact(folder: Path, content: str) -> LandingFacts | None:
    """What was landed, if it is of this content and every file still is what it was."""
    manifest = _manifest(folder)
    return manifest.facts if manifest and manifest.content == content and not _differing(folder, content) else None


def _differing(folder: Path, content: str) -> list[str]:
    """The files of a data set of this content that are not what was landed, or are gone; none where it never was."""
    manifest = _manifest(folder)
    if manifest is None or manifest.content != content:
        return []
    return [name for name, digest in sorted(manifest.sha256.items()) if not _is(folder / name, digest)]


def _is(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except OSError:  # it is gone
        return False


def _scratch(folder: Path) -> Path:
    """A hidden folder on the same disk, so that a rename is one step. Leftovers of a killed run go."""
    for old in folder.glob(".cutting-*"):
        shutil.rmtree(old, ignore_errors=True)
    scratch = folder / f".cutting-{os.getpid()}"
    scratch.mkdir()
    return scratch


@contextmanager
def _only_one(settings: Settings, name: str) -> Iterator[None]:
    """Two fetches of the same data set at once: the second waits, and finds it there."""
    folder = settings.home / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _silent(label: str, fraction: float | None) -> None:
    pass
