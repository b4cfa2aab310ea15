"""A training on a disk without room: what is told, what is left of it, and the rerun when there is room again. The
disks are small ones of their own, which takes the right to mount."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.market import AS_OF, market
from tiltyard.rails import Rails
from tiltyard.records import TrainingSummary
from tiltyard.spec import Spec
from tiltyard.train import registry, training

PAGE = 4096


@contextmanager
def without_room(folder: Path, left: int = 0) -> Iterator[None]:
    """Let a folder lie on a disk of its own with `left` bytes of room; what was written to it stays afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f"{folder.name}.aside")
    shutil.copytree(folder, aside)
    size = sum(path.stat().st_size + PAGE for path in folder.rglob("*")) // 1024 + 512
    asked = ["mount", "-t", "tmpfs", "-o", f"size={size}k,mode=0777", "none", str(folder)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        filling = os.open(folder / ".full", os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):
            while True:
                os.write(filling, bytes(PAGE))
        os.ftruncate(filling, os.fstat(filling).st_size - left)
        os.close(filling)
        yield
        (folder / ".full").unlink()
        shutil.rmtree(aside)
        shutil.copytree(folder, aside)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    shutil.rmtree(folder)
    aside.rename(folder)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[tuple[Rails, Spec]]:
    """The same month where there was room."""
    with market(tmp_path_factory.mktemp("twin"), postgres_url) as (rails, spec):
        trained(rails, spec)
        yield rails, spec


def trained(rails: Rails, spec: Spec) -> None:
    training.train(rails, spec, AS_OF, requested_by="ada", trials=1)


@pytest.mark.parametrize("left", [0, PAGE])
@pytest.mark.parametrize("disk", ["frames", "mlflow"])
def test_a_training_without_room_says_so_and_is_the_same_afterwards(
    tmp_path: Path, postgres_url: str, twin: tuple[Rails, Spec], disk: str, left: int
) -> None:
    """With no room at all, and with so much that a file is begun."""
    with market(tmp_path, postgres_url) as (rails, spec):
        folder = {"frames": rails.settings.frames, "mlflow": Path(rails.settings.mlflow_path)}[disk]
        with without_room(folder, left), pytest.raises(Exception) as raised:  # the record counts
            trained(rails, spec)
        ended = rails.ledger.stage_runs(TrainingSummary, spec.name)[AS_OF.date()]
        assert ended.status == "failed", raised.value
        assert "(No space left on device); make room" in str(ended.summary), raised.value
        assert str(folder) in str(ended.summary), "which disk it is"
        assert rails.ledger.versions(spec.name) == []
        trained(rails, spec)
        [own], [other] = (each.ledger.versions(spec.name) for each in (rails, twin[0]))
        assert (own.inputs, own.digests) == (other.inputs, other.digests)
        registry._scorers.clear()
        registry.load(rails, spec.name, own.version)
