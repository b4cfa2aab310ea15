"""What is its owner's alone, and who may pass."""

import errno
import os
import pwd
import stat
import subprocess
from pathlib import Path

import pytest

from tiltyard import private
from tiltyard.errors import Unavailable

IS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_home_of_before_is_tightened_once_and_links_are_not_followed(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    (home / "frames").mkdir(parents=True)
    frame = home / "frames" / "a.parquet"
    for path in (frame, outside):
        path.write_text("x")
        path.chmod(0o644)
    (home / "link").symlink_to(outside)
    (home / "folder").symlink_to(tmp_path)
    for path in (home, home / "frames", tmp_path):
        path.chmod(0o755)
    sentence = private.told(home, home / "landing")
    assert sentence is not None
    assert "3 files and folders" in sentence
    assert "TILTYARD_LANDING_ZONE" in sentence
    assert [mode(path) for path in (home, home / "frames", frame)] == [0o700, 0o700, 0o600]
    assert (mode(outside), mode(tmp_path)) == (0o644, 0o755)
    assert private.told(home, home / "landing") is None


def test_what_others_are_meant_to_read_is_made_as_usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(private.USUAL, raising=False)
    before = os.umask(0o027)
    try:
        private.keep()
        private.keep()  # as a child does, which has its parent's already
        (tmp_path / "ours").write_text("x")
        with private.as_usual():
            (tmp_path / "theirs").write_text("x")
        (tmp_path / "ours again").write_text("x")
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("ours", "theirs", "ours again")] == [0o600, 0o640, 0o600]


def reads(uid: int, path: Path) -> bool:
    """Whether a user can read a file, as the kernel sees it."""
    done = subprocess.run(["cat", str(path)], user=uid, group=uid, extra_groups=[], capture_output=True, check=False)
    return done.returncode == 0


@IS_ROOT
def test_one_user_is_let_through_and_nobody_else(tmp_path: Path) -> None:
    one, other = 64_001, 64_002
    folder = tmp_path / "above" / "below"
    folder.mkdir(parents=True)
    (folder / "file").write_text("x")
    (folder / "file").chmod(0o644)
    folder.chmod(0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & 0o001:
            private.let_through(parent, one)
            private.let_through(parent, other)
    (tmp_path / "above").chmod(0o700)
    assert not reads(one, folder / "file")
    assert private.let_through(tmp_path / "above", one)
    assert not private.let_through(tmp_path / "above", one)
    assert reads(one, folder / "file")
    assert not reads(other, folder / "file")
    assert not (tmp_path / "above").stat().st_mode & 0o007
    assert private.is_passage(tmp_path / "above")
    listed = subprocess.run(["ls", str(tmp_path / "above")], user=one, group=one, capture_output=True, check=False)
    assert listed.returncode != 0


@IS_ROOT
def test_a_passage_stays_when_a_home_is_tightened(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    private.let_through(home, pwd.getpwnam("nobody").pw_uid)
    assert private.tighten(home) == 0
    home.chmod(0o755)
    assert private.tighten(home) == 1
    assert private.is_passage(home)
    assert mode(home) == 0o710  # the mask of the list: its user passes, and nobody else
    assert private.tighten(home) == 0


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EROFS])
def test_where_nobody_can_be_let_through_alone_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """Where the file system has no lists everybody passes; where it takes no change, nobody."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "setxattr", refuse)
    tmp_path.chmod(0o700)
    if number == errno.ENOTSUP:
        assert private.let_through(tmp_path, 64_001)
        assert "everybody may pass" in caplog.text
        assert not private.let_through(tmp_path, 64_001)
    else:
        with pytest.raises(Unavailable, match=r"Read-only file system.*TILTYARD_HOME"):
            private.let_through(tmp_path, 64_001)
    assert mode(tmp_path) == (0o701 if number == errno.ENOTSUP else 0o700)
