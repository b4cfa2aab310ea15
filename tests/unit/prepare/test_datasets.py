"""Fetching: resumed downloads against a real HTTP server, digests, refusals that leave nothing behind."""

import hashlib
import io
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tiltyard.errors import BadInput, Unavailable
from tiltyard.prepare import cuts, datasets
from tiltyard.settings import Settings

CSV = b"number,sys_updated_at,state\n" + b"".join(
    b"INC%d,%d/3/2016 %02d:15,New\n" % (number, 1 + number % 3, number % 24) for number in range(3_000)
)


def zipped(content: bytes, name: str = "incident_event_log.csv") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


@dataclass
class Home:
    """A public home of the data: what it serves, and how badly."""

    body: bytes = zipped(CSV)
    ranges: bool = True
    status: int = 200
    breaks_after: list[int] = field(default_factory=list)
    """Bytes of body after which the connection is cut, one entry per request."""
    asked: list[str | None] = field(default_factory=list)
    """The Range header of every request."""
    url: str = ""


@pytest.fixture
def home() -> Iterator[Home]:
    served = Home()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            served.asked.append(wanted)
            if served.status != 200:
                self.send_error(served.status)
                return
            begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and served.ranges else 0
            if begin >= len(served.body):
                self.send_error(416)
                return
            part = served.body[begin:]
            self.send_response(206 if begin else 200)
            if begin:
                size = len(served.body)
                self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[: served.breaks_after.pop(0)] if served.breaks_after else part)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/incident.zip"
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", data_mirror=None, data_timeout_s=2.0)


@pytest.fixture(autouse=True)
def small(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small incident log in the place of the large one, at the test's own public home."""
    sha256 = hashlib.sha256(CSV).hexdigest()
    elsewhere(monkeypatch, url=home.url, sha256=sha256)


def elsewhere(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    incident = datasets.PUBLIC["incident"]
    [download] = incident.downloads
    moved = replace(incident, downloads=(replace(download, **changes),))
    monkeypatch.setitem(datasets.PUBLIC, "incident", moved)


def landed(settings: Settings) -> dict[str, bytes]:
    folder = settings.landing / "incident"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.csv")}


def leftovers(settings: Settings) -> list[str]:
    """Everything below home but the lock and what has landed in full."""
    files = (path for path in settings.home.rglob("*") if path.is_file() and path.suffix != ".lock")
    return [path.name for path in files if settings.landing not in path.parents or path.name.startswith(".cut")]


def test_one_file_per_day_of_writing_and_together_they_are_the_log(settings):
    told: list[tuple[str, float | None]] = []
    result = datasets.fetch(settings, "incident", lambda label, fraction: told.append((label, fraction)))
    assert (result.files, result.rows, result.unchanged) == (3, 3_000, False)
    files = landed(settings)
    assert sorted(files) == [f"incident_update/2016-03-0{day}.csv" for day in (1, 2, 3)]
    header, *lines = CSV.splitlines()
    assert all(data.splitlines()[0] == header for data in files.values())
    assert sorted(line for data in files.values() for line in data.splitlines()[1:]) == sorted(lines)
    assert leftovers(settings) == []
    fractions = [fraction for _, fraction in told if fraction is not None]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_lines_keep_their_order_within_a_day():
    content = b"t,n\n2/3/2016 10:00,1\n1/3/2016 09:00,2\n2/3/2016 08:00,3\n"
    files, rows = cuts.by_day(content, "t")
    assert rows == 3
    assert files[date(2016, 3, 2)] == b"t,n\n2/3/2016 10:00,1\n2/3/2016 08:00,3\n"


def test_the_second_fetch_asks_nobody_and_a_damaged_landing_is_mended(settings, home):
    datasets.fetch(settings, "incident")
    before = landed(settings)
    assert datasets.fetch(settings, "incident").unchanged
    assert len(home.asked) == 1
    (settings.landing / "incident" / "incident_update" / "2016-03-02.csv").write_text("half a fi")
    (settings.landing / "incident" / "incident_update" / "2016-03-03.csv").unlink()
    again = datasets.fetch(settings, "incident")
    assert not again.unchanged
    assert again.restored == ("incident_update/2016-03-02.csv", "incident_update/2016-03-03.csv")
    assert landed(settings) == before


def test_a_connection_that_breaks_off_is_taken_up_where_it_stopped(settings, home):
    home.breaks_after = [1_000, 2_000]
    assert datasets.fetch(settings, "incident").rows == 3_000
    assert home.asked == [None, "bytes=1000-", "bytes=3000-"]


def test_a_server_that_ignores_range_sends_it_all_again(settings, home):
    home.ranges = False
    home.breaks_after = [1_000]
    assert datasets.fetch(settings, "incident").rows == 3_000
    assert home.asked == [None, "bytes=1000-"]


def test_a_download_that_cannot_go_on_keeps_what_has_come_for_the_next_try(settings, home):
    home.breaks_after = [1_000, 0, 0, 0, 0]
    with pytest.raises(Unavailable, match="the next try goes on from there"):
        datasets.fetch(settings, "incident")
    part = settings.home / "downloads" / "incident_event_log.zip.part"
    assert part.read_bytes() == home.body[:1_000]
    assert landed(settings) == {}
    home.breaks_after = []
    assert datasets.fetch(settings, "incident").rows == 3_000
    assert home.asked[-1] == "bytes=1000-"
    assert leftovers(settings) == []


@pytest.mark.parametrize("beginning", [b"of something else", b"x" * 1_000_000])
def test_a_part_that_belongs_to_another_file_is_given_up(settings, home, beginning):
    part = settings.home / "downloads" / "incident_event_log.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(beginning)
    assert datasets.fetch(settings, "incident").rows == 3_000
    assert leftovers(settings) == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<html>moved</html>", "no readable zip"),
        (zipped(CSV)[:-400], "no readable zip"),
        (zipped(CSV)[:60] + bytes(400) + zipped(CSV)[460:], "no readable zip"),
        (zipped(CSV, "other.csv"), "holds no incident_event_log.csv"),
        (zipped(CSV + b"INC1,1/3/2016 10:00,New\n"), "not the data set that is expected"),
    ],
)
def test_what_is_not_the_data_set_is_one_sentence_and_leaves_nothing(settings, home, body, says):
    home.body = body
    with pytest.raises(BadInput, match=says) as refused:
        datasets.fetch(settings, "incident")
    assert home.url in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (landed(settings), leftovers(settings)) == ({}, [])


def test_a_zip_within_a_zip_is_opened(settings, home):
    home.body = zipped(zipped(CSV), "incident.zip")
    assert datasets.fetch(settings, "incident").rows == 3_000


def test_a_public_home_may_serve_plain_what_the_mirror_keeps_zipped(settings, home, monkeypatch):
    home.body = CSV
    elsewhere(monkeypatch, url=home.url.removesuffix("zip") + "csv")
    assert datasets.fetch(settings, "incident").rows == 3_000


def test_the_mirror_is_taken_before_the_public_home_and_checked_alike(settings, home, tmp_path):
    file = tmp_path / "a mirror" / "incident" / "incident_event_log.zip"
    file.parent.mkdir(parents=True)
    mirrored = settings.model_copy(update={"data_mirror": tmp_path / "a mirror"})
    file.write_bytes(zipped(CSV)[:-30])
    with pytest.raises(BadInput, match=r"a mirror.*no readable zip"):
        datasets.fetch(mirrored, "incident")
    file.write_bytes(zipped(CSV))
    assert datasets.fetch(mirrored, "incident").origin == str(file)
    assert home.asked == []
    assert file.exists()


def test_with_neither_in_reach_one_sentence_names_both_at_once(settings, tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/incident.zip"
    elsewhere(monkeypatch, url=url)
    for mirror in (None, tmp_path / "nowhere"):
        began = time.monotonic()
        with pytest.raises(Unavailable) as failed:
            datasets.fetch(settings.model_copy(update={"data_mirror": mirror}), "incident")
        assert url in str(failed.value)
        assert "TILTYARD_DATA_MIRROR" in str(failed.value)
        assert "connection refused" in str(failed.value)
        assert str(failed.value).count("\n") == 0
        assert time.monotonic() - began < settings.data_timeout_s
    assert leftovers(settings) == []


def test_a_server_that_says_no_or_says_nothing(settings, home, monkeypatch):
    home.status = 404
    with pytest.raises(Unavailable, match="404"):
        datasets.fetch(settings, "incident")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/incident.zip"
        elsewhere(monkeypatch, url=url)
        with pytest.raises(Unavailable, match="no answer in time"):
            datasets.fetch(settings.model_copy(update={"data_timeout_s": 0.3}), "incident")


def test_two_fetches_at_once_are_one(settings, home):
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(datasets.fetch(settings, "incident").unchanged))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, True, True]
    assert len(home.asked) == 1


def test_a_home_that_cannot_be_written_is_one_sentence(settings, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"TILTYARD_HOME to a folder that can be written to\.$"):
        datasets.fetch(settings.model_copy(update={"home": tmp_path / "file" / "home"}), "incident")


def test_an_unknown_data_set_is_told_the_known_ones(settings):
    with pytest.raises(BadInput, match=r"incident, .*simulated"):
        datasets.fetch(settings, "accident")


def test_the_simulated_business_comes_with_or_without_its_trigger(settings, monkeypatch):
    from tiltyard.prepare import simulator

    monkeypatch.setattr(simulator.Simulator, "__init__", _small_init(simulator.Simulator.__init__))
    assert not datasets.fetch(settings, "simulated", cancel_trigger=True).unchanged
    assert datasets.fetch(settings, "simulated", cancel_trigger=True).unchanged
    with pytest.raises(BadInput, match=r"with the Cancel trigger, .* those without it into another home"):
        datasets.fetch(settings, "simulated")
    with pytest.raises(BadInput, match="Only the simulated data has a Cancel trigger"):
        datasets.fetch(settings, "incident", cancel_trigger=True)


def test_the_simulated_business_lands_once(settings, monkeypatch):
    from tiltyard.prepare import simulator

    monkeypatch.setattr(simulator.Simulator, "__init__", _small_init(simulator.Simulator.__init__))
    result = datasets.fetch(settings, "simulated")
    folder = settings.landing / "subscription"
    assert result.files == len(list(folder.glob("*/*.parquet"))) == 4 * 14
    assert datasets.fetch(settings, "simulated").unchanged
    edited = sorted(folder.glob("*/*.parquet"))[0]
    edited.write_bytes(b"rows of somebody's own")
    assert datasets.fetch(settings, "simulated").restored == (edited.relative_to(folder).as_posix(),)


def _small_init(init):
    def small(self, **values):
        init(self, **{"customers": 50, "days": 14, **values})

    return small


def test_the_real_incident_log(tmp_path, data_mirror, monkeypatch):
    monkeypatch.undo()
    settings = Settings(home=tmp_path, data_mirror=data_mirror)
    result = datasets.fetch(settings, "incident")
    assert (result.files, result.rows) == (350, 141_712)
    assert datasets.fetch(settings, "incident").unchanged
