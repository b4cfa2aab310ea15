"""Whatever is written where a user's text can go is accepted, or refused with one sentence: no traceback, no hang, and
over HTTP no path of the server and no secret.

A few hundred cases here; `make faults` runs ten thousand. `FUZZ_SEED` makes one case again.
"""

import os
import random
import re
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from tests.mangled import mangled
from tiltyard import spec as specs
from tiltyard import suites
from tiltyard.errors import TiltyardError
from tiltyard.prepare import contracts, project
from tiltyard.settings import ROOT, Settings
from tiltyard.suites import gx

CASES = int(os.environ.get("FUZZ_CASES", "400"))
"""Texts that are tried in all."""
LIMIT_S = 20
"""Seconds after which a text that is neither accepted nor refused has hung, on a machine with other work."""


class Hung(BaseException):
    """A text that nobody has read to its end in time."""


@contextmanager
def in_time() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise Hung(f"nothing after {LIMIT_S} s, at {frame.f_code if frame else None}")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def seeds(part: float) -> range:
    """The cases of a place, which has this part of all; one alone where it is to be made again."""
    if seed := os.environ.get("FUZZ_SEED"):
        return range(int(seed), int(seed) + 1)
    return range(max(1, round(CASES * part)))


def sentence(error: TiltyardError) -> str | None:
    """What is wrong with how a text is refused; None where it is one sentence."""
    said = str(error)
    if "\n" in said.strip() or "Traceback" in said:
        return f"more than a line: {said[:300]!r}"
    if not re.search(r"\w \w", said) or len(said) > 4_000:
        return f"no sentence, or an endless one, of {len(said)} letters: {said[:300]!r}"
    return None


def hold(part: float, texts: list[Path], read: Callable[[Path, bytes], object]) -> None:
    """Every case of a place: one of its texts, mangled, and read."""
    failures = []
    for seed in seeds(part):
        rng = random.Random(seed)
        path = rng.choice(texts)
        content = mangled(rng, path.read_text(encoding="utf-8"))
        try:
            with in_time():
                read(path, content)
        except TiltyardError as error:
            if wrong := sentence(error):
                failures.append(f"FUZZ_SEED={seed} {path.name}: {wrong}")
        except (Exception, Hung) as error:
            last = traceback.extract_tb(error.__traceback__)[-4:]
            where = " < ".join(f"{Path(entry.filename).name}:{entry.lineno}" for entry in reversed(last))
            failures.append(f"FUZZ_SEED={seed} {path.name}: {type(error).__name__}: {str(error)[:200]!r} at {where}")
    assert not failures, f"{len(failures)} of {len(seeds(part))}:\n" + "\n".join(failures[:40])


def test_specs(tmp_path: Path) -> None:
    settings = Settings()
    dbt = project.read(settings)

    def read(path: Path, content: bytes) -> None:
        if path.name == "portfolio.yaml":
            (tmp_path / "portfolio.yaml").write_bytes(content)
            specs.load_portfolio(tmp_path)
            return
        folder = tmp_path / path.parent.name
        folder.mkdir(exist_ok=True)
        (folder / "spec.yaml").write_bytes(content)
        spec = specs.load(folder)
        assert spec.digest and spec.recipe
        project.check_spec(dbt, settings, spec)

    hold(0.3, sorted((ROOT / "models").glob("*/spec.yaml")) + sorted((ROOT / "models").glob("*.yaml")), read)


def test_suites(tmp_path: Path) -> None:
    def read(path: Path, content: bytes) -> None:
        target = tmp_path / path.name
        target.write_bytes(content)
        suite = suites.load(target)
        for index in range(len(suite.expectations)):
            gx._build(suite, index)
            assert suite.where(index) and suite.expectations[index].columns is not None

    gx.load_gx()
    hold(0.2, sorted((ROOT / "expectations").rglob("*.yaml")), read)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The dbt project of one source, which takes a tenth of the time to read."""
    dbt = tmp_path_factory.mktemp("small") / "dbt"
    shutil.copytree(ROOT / "dbt" / "macros", dbt / "macros")
    kept = re.compile("subscription|customer|churn")
    for path in (ROOT / "dbt" / "models").rglob("*.*"):
        if kept.search(path.stem):
            target = dbt / path.relative_to(ROOT / "dbt")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return Settings(dbt=dbt)


def test_contracts_and_what_dbt_says_of_columns(small: Settings) -> None:
    spec = specs.find(ROOT / "models", "churn")

    def read(path: Path, content: bytes) -> None:
        before = path.read_bytes()
        try:
            path.write_bytes(content)
            for source in contracts.sources(small):
                contract = contracts.read(small, source)
                contracts.tell_apart(small, [contract])
                assert contracts.schedule(small, source) is not None
            project.check_spec(project.read(small), small, spec)
        finally:
            path.write_bytes(before)

    files = sorted((small.dbt / "models").rglob("*.yml"))
    hold(0.2, files + 4 * [path for path in files if "sources" in path.name], read)
