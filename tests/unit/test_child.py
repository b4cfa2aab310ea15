"""A child process finds the library and nothing that is secret."""

import subprocess
import sys

import pytest

from tiltyard import child


def test_a_child_finds_the_library_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILTYARD_DATABASE_URL", "postgresql://user:hidden@host/base")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("LANG", "C.UTF-8")
    code = "import os, tiltyard.errors; print(os.environ['OMP_NUM_THREADS'], os.environ['LANG'], sorted(os.environ))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=child.environment(), capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.startswith("1 C.UTF-8 ")
    assert "TILTYARD_DATABASE_URL" not in done.stdout
    assert "AWS_SECRET_ACCESS_KEY" not in done.stdout
