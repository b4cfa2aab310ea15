"""A file written whole or not at all."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from multiprocessing import get_context
from pathlib import Path

import pytest

from tiltyard.files import remove_abandoned, whole, whole_folder, whole_once

Writes = Callable[[Path], AbstractContextManager[Path]]
ROOT = Path(__file__).resolve().parents[2]


def _write(path: Path, text: str) -> None:
    with whole(path) as part:
        part.write_text(text)


def _write_often(path: Path, letter: str) -> None:
    for _ in range(200):
        _write(path, letter * 50_000)


@pytest.mark.parametrize("writes", [whole, whole_once])
def test_a_disk_that_fills_up_while_a_file_is_written_is_told_by_the_file(tmp_path: Path, writes: Writes) -> None:
    """A write itself does not say to what, and neither does Arrow."""
    path = tmp_path / "frame.parquet"
    with pytest.raises(OSError, match="No space left on device") as raised, writes(path) as part:
        part.symlink_to("/dev/full")
        with part.open("wb", buffering=0) as file:
            file.write(b"rows")
    assert raised.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    _write(path, "old")
    with whole(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        assert part.parent == tmp_path and part.name.startswith(".")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_an_exception_in_the_middle_leaves_the_old_file_alone(tmp_path: Path, stop: type[BaseException]) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(stop), whole(path) as part:
        part.write_text("half")
        raise stop
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_taken_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        _write(path, "text")
    assert list(tmp_path.iterdir()) == [path]


def test_two_threads_at_once_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    path, both = tmp_path / "page.html", threading.Barrier(2)

    def write(text: str) -> None:
        with whole(path) as part:
            part.write_text(text)
            both.wait(10)  # both have written, neither has renamed
            assert part.read_text() == text

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ["one", "two"]))
    assert path.read_text() in ("one", "two")
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_at_once_never_show_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    _write(path, "a" * 50_000)
    writers = [get_context("spawn").Process(target=_write_often, args=(path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_text())
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen <= {"a" * 50_000, "b" * 50_000}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_with_all_its_files_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "versions" / "one"
    with pytest.raises(ValueError), whole_folder(folder) as part:
        (part / "file").write_text("half")
        raise ValueError
    assert list(folder.parent.iterdir()) == []
    with whole_folder(folder) as part:
        (part / "file").write_text("whole")
        assert not folder.exists()
    assert (folder / "file").read_text() == "whole"
    assert list(folder.parent.iterdir()) == [folder]


def test_of_two_folders_the_first_stays(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    with whole_folder(folder) as late:
        (late / "file").write_text("late")
        with whole_folder(folder) as early:
            (early / "file").write_text("early")
    assert (folder / "file").read_text() == "early"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_whose_place_is_a_file_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.write_text("a file")
    with pytest.raises(OSError), whole_folder(folder) as part:
        (part / "file").write_text("text")
    assert folder.read_text() == "a file"
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_killed_writer_leaves_is_removed_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tiltyard.files import whole, whole_folder\n"
        "place = Path(sys.argv[1])\n"
        "with whole(place / 'page.html') as part, whole_folder(place / 'below' / 'version') as folder:\n"
        "    part.write_text('half'); (folder / 'file').write_text('half'); print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "written\n"
        assert remove_abandoned(tmp_path) == 0
        left = list(tmp_path.rglob("*.part"))
        assert len(left) == 2
        writer.send_signal(signal.SIGKILL)
    elsewhere = tmp_path / f".page.html.00000000-{os.getpid()}-1.part"
    by_an_older_version = tmp_path / ".page.html.7-1.part"
    for path in (elsewhere, by_an_older_version):
        path.write_text("half")
    (tmp_path / "a.part").write_text("of somebody else")
    (tmp_path / ".link.7-2.part").symlink_to(tmp_path / "a.part")
    with whole(tmp_path / "mine") as mine:
        mine.write_text("whole")
        assert remove_abandoned(tmp_path) == 2
        assert not any(path.exists() for path in left)
        assert elsewhere.exists() and by_an_older_version.exists()
        two_days_ago = time.time() - 2 * 86_400
        for path in (elsewhere, by_an_older_version, mine):
            os.utime(path, (two_days_ago, two_days_ago))
        assert remove_abandoned(tmp_path) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"a.part", ".link.7-2.part", "below", "mine"}


def test_of_two_that_write_a_file_once_the_first_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with whole_once(path) as late:
        late.write_text("second")
        with whole_once(path) as part:
            part.write_text("first")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
