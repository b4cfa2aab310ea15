"""A file written whole or not at all."""

import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from tiltyard.files import whole, whole_folder

ROOT = Path(__file__).resolve().parents[2]


def _write(path: Path, text: str) -> None:
    with whole(path) as part:
        part.write_text(text)


def _write_often(path: Path, letter: str) -> None:
    for _ in range(200):
        _write(path, letter * 50_000)


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
