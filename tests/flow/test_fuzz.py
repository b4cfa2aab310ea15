"""Whatever is written where a user's text can go is accepted, or refused with one sentence: no traceback, no hang, and
over HTTP no path of the server and no secret.

A few hundred cases here; `make faults` runs ten thousand. `FUZZ_SEED` makes one case again.
"""

import json
import random
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from tests.mangled import VALUES, mangled, seeds
from tiltyard import clock, suites
from tiltyard import rails as rails_module
from tiltyard import spec as specs
from tiltyard.cli import entry
from tiltyard.errors import TiltyardError
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.prepare import contracts, project, releasing
from tiltyard.settings import ROOT, Settings
from tiltyard.suites import gx

LIMIT_S = 120
"""Seconds after which a text that is neither accepted nor refused has hung, on a machine with other work."""

pytestmark = pytest.mark.usefixtures("cases_in_report")


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


def sentence(error: TiltyardError) -> str | None:
    """What is wrong with how a text is refused; None where it is one sentence."""
    said = str(error)
    if "\n" in said.strip() or "Traceback" in said:
        return f"more than a line: {said[:300]!r}"
    if not re.search(r"\w \w", said) or len(said) > 4_000:
        return f"no sentence, or an endless one, of {len(said)} letters: {said[:300]!r}"
    return None


def tried(part: float, case: Callable[[random.Random], str | None]) -> None:
    """Every case of a place, which has this part of all; `case` says what is wrong with how it was refused."""
    failures = []
    for seed in seeds(part):
        try:
            with in_time():
                wrong = case(random.Random(seed))
        except (Exception, Hung) as error:
            last = reversed(traceback.extract_tb(error.__traceback__)[-4:])
            where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in last)
            wrong = f"{type(error).__name__}: {str(error)[:200]!r} at {where}"
        if wrong:
            failures.append(f"FUZZ_SEED={seed} {wrong}")
    assert not failures, f"{len(failures)} of {len(seeds(part))}:\n" + "\n".join(failures[:40])


def hold(part: float, texts: list[Path], read: Callable[[Path, bytes], object]) -> None:
    """Every case of a place: one of its texts, mangled, and read."""

    def case(rng: random.Random) -> str | None:
        path = rng.choice(texts)
        content = mangled(rng, path.read_text(encoding="utf-8"))
        try:
            read(path, content)
        except TiltyardError as error:
            return (wrong := sentence(error)) and f"{path.name}: {wrong}"
        return None

    tried(part, case)


def test_specs(tmp_path: Path) -> None:
    settings = Settings()
    dbt = project.read(settings)

    def read(path: Path, content: bytes) -> None:
        if path.name == "portfolio.yaml":
            (tmp_path / "portfolio.yaml").write_bytes(content)
            load_portfolio(tmp_path)
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


# -- the command line -------------------------------------------------------------------------

COMMANDS = [
    line.split()
    for line in """
    X
    X X X
    status X
    status churn --as-of X
    validate X
    models X
    explain churn X
    explain X X --as-of X
    predictions churn --night X
    predictions X --night 2025-01-05 --out OUT
    train churn --as-of X
    train X
    shadow churn --as-of X
    promote X --as-of X
    drift churn --as-of X
    deliver churn --night X
    ingest --as-of X
    ingest --source X
    features --as-of X --source X
    features --rebuild X
    hindcast --from X --to X
    hindcast --from 2025-01-05 --to X --model X
    hindcast --from 2025-01-05 --to 2025-01-06 --policy X
    govern --as-of X
    release --dry-run X
    incidents --as-of X
    incidents release X --reason X
    fallback X
    fallback audit churn --as-of X
    fallback explain churn --cause X --owner X --until X
    holds set --reason X --from X --to X
    holds release X --reason X
    keys new X
    requests show X --as-of X
    online --as-of X
    remove X --dry-run
    data fetch X
    data cut X TABLE
    data cut subscription TABLE --written-after X
    new source X TABLE --yes
    new source fuzzed TABLE --event-time X --key X --dry-run
    new source fuzzed TABLE --available-at X --planned X --zone X --dry-run
    new source fuzzed TABLE --yes --written-after X --dry-run
    new source fuzzed X --dry-run
    new model fuzzed --source X --label X
    new model X --source subscription --label reason --table X
    new model fuzzed --source subscription --entity X --horizon X
    leakage audit TABLE --label X --prediction-time X
    leakage audit TABLE --label reason --prediction-time written_at --available-at X --ignore X
    leakage audit X --label X --prediction-time X
    leakage replay --model X --from X --to X
    leakage replay --model churn --from X --to 2025-01-05 --limit X --snapshot X
    leakage latency --source X --nights X
    lake-maintenance --dry-run --as-of X
    """.strip().splitlines()
]
"""Command lines, with X for what is anything."""


@pytest.fixture
def words(
    tmp_path: Path, settings: Settings, deliveries: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[random.Random], list[str]]:
    """Command lines over a checkout and a home of their own."""
    for part in ("models", "dbt", "expectations"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("target", "logs"))
        monkeypatch.setenv(f"TILTYARD_{part.upper()}", str(tmp_path / part))
    monkeypatch.setenv("TILTYARD_HOME", str(settings.home))
    monkeypatch.setenv("TILTYARD_DATABASE_URL", settings.database_url or "")
    monkeypatch.setenv("TILTYARD_DATABASE_PREFIX", settings.database_prefix)
    monkeypatch.chdir(tmp_path)
    with rails_module.opened(Settings()) as rails:  # which no case has to wait for
        assert not releasing.accept(rails, clock.now(), by="tests").refused
    table = next((deliveries / "cancellation").iterdir())

    def made(rng: random.Random) -> list[str]:
        anything = [value for value in VALUES if "\0" not in value and len(value) < 20_000]
        anything += ["churn", "subscription", "2025-01-05", "cancelled_at", "reason", "\udcff", "-", "--", "--json"]
        given = {"TABLE": str(table), "OUT": str(tmp_path / "out.csv")}
        line = [given.get(word, word) if word != "X" else rng.choice(anything) for word in rng.choice(COMMANDS)]
        return [*line, *(["--json"] if rng.random() < 0.3 else [])]

    return made


def test_the_command_line(
    words: Callable[[random.Random], list[str]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def case(rng: random.Random) -> str | None:
        line = words(rng)
        monkeypatch.setattr(sys, "argv", ["tiltyard", *line])
        code: object = None
        try:
            entry.main()
        except SystemExit as end:
            code = end.code
        told, said = capfd.readouterr()
        if code not in (0, 1, 2) or "Traceback" in told + said:
            return f"{line!r}: ended with {code!r}: {said[-300:]!r}"
        if code == 2 and not (said.strip() and len(said) < 9_000):
            return f"{line!r}: ended with 2 and said {said[:300]!r}"
        if code == 2 and "--json" in line and told.strip():
            json.loads(told)
        return None

    tried(0.05, case)
