"""Fixtures shared by every kind of test: a real PostgreSQL, real lakes, the incident data where it can be had."""

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import hypothesis
import pytest
import yaml

from tests.homes import copy_databases, cursor
from tests.mangled import TRIED
from tiltyard import postgres
from tiltyard import rails as rails_module
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings

hypothesis.settings.register_profile("tiltyard", deadline=None)  # a busy machine is no counterexample
hypothesis.settings.load_profile("tiltyard")

LONGEST = ("flow/test_publication.py", "e2e/", "flow/test_hindcast.py", "flow/", "dags/")
"""Files, and folders of files, that take longest, below tests/."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no worker is left with it when the others have done all else. A file
    stays whole and in its order."""

    def place(item: pytest.Item) -> int:
        file = item.nodeid.removeprefix("tests/")
        return next((place for place, start in enumerate(LONGEST) if file.startswith(start)), len(LONGEST))

    items.sort(key=place)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """One embedded PostgreSQL for the whole run; every test gets databases of its own in it.

    They need not outlive the machine, so nothing waits for the disk; and nobody clears up in hundreds of databases.
    """
    home = Path(tempfile.mkdtemp(prefix="tiltyard-test-"))
    home.chmod(0o755)  # run as root, PostgreSQL drops to a user of its own
    settings = Settings(home=home, database_url=None)
    with cursor(settings, "postgres") as server:
        for name in ("fsync", "full_page_writes", "synchronous_commit", "autovacuum"):
            server.execute(f"alter system set {name} = off")
        server.execute("select pg_reload_conf()")
    yield postgres.server_url(settings).render_as_string(hide_password=False)
    postgres.stop(settings)
    # three hundred small files a database: half a minute for which nobody need wait
    subprocess.Popen(["rm", "-rf", str(home)], start_new_session=True)


@pytest.fixture
def settings(tmp_path: Path, postgres_url: str) -> Settings:
    return make_settings(tmp_path, postgres_url)


def make_settings(folder: Path, postgres_url: str, **values: object) -> Settings:
    """Settings of a fresh home: own folder, own databases on the shared server."""
    return Settings(
        home=folder / "home", database_url=postgres_url, database_prefix=f"t{uuid.uuid4().hex[:8]}_", **values
    )


@pytest.fixture(scope="session")
def opened_home(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    """A home that was opened and nothing else: copies of its databases come in half the time of new ones."""
    settings = make_settings(tmp_path_factory.mktemp("opened"), postgres_url)
    with rails_module.opened(settings):
        return settings


@pytest.fixture
def rails(settings: Settings, opened_home: Settings) -> Iterator[Rails]:
    copy_databases(opened_home, settings)
    with rails_module.opened(settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def data_mirror() -> Path:
    """The folder with the public data sets. Without it, tests that need them are skipped, saying so."""
    mirror = os.environ.get("TILTYARD_DATA_MIRROR")
    if not mirror or not Path(mirror).is_dir():
        pytest.skip("needs incident data: set TILTYARD_DATA_MIRROR to a folder that holds it")
    return Path(mirror).resolve()


@pytest.fixture(scope="session")
def deliveries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 days of a small simulated business, as landing files."""
    from tiltyard.prepare.simulator import Simulator

    folder = tmp_path_factory.mktemp("deliveries") / "subscription"
    Simulator(customers=1_200, days=45).land(folder)
    return folder


@pytest.fixture(scope="session")
def eager_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The churn model with little tuning, an eager gate, and a question on the first night without a champion; its
    promise is the same otherwise."""
    folder = tmp_path_factory.mktemp("portfolio") / "churn"
    shutil.copytree(ROOT / "models" / "churn", folder)
    content = yaml.safe_load((folder / "spec.yaml").read_text())
    content["estimator"]["tune"] = {"trials": 2}
    content["gate"] |= {"min_matured": 100, "min_shadow": "1d"}
    content["fallback"]["audit_after"] = "1d"
    (folder / "spec.yaml").write_text(yaml.safe_dump(content))
    return folder.parent


def business_home(folder: Path, postgres_url: str, models: Path, deliveries: Path, **values: object) -> Settings:
    """A fresh home with the deliveries in its landing zone and nothing ingested yet."""
    settings = make_settings(folder, postgres_url, models=models, sources=("subscription",), **values)
    shutil.copytree(deliveries, settings.landing / "subscription")
    know_project(settings, postgres_url)
    return settings


def know_project(settings: Settings, postgres_url: str) -> None:
    """Give a fresh home what dbt keeps of the checkout's project when it has parsed it: dbt then parses only those
    files of the home's own project that differ."""
    from tiltyard.prepare.transform import PARSED

    kept = settings.home / "dbt" / "target" / PARSED
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(_parsed(postgres_url))


@cache
def _parsed(postgres_url: str) -> bytes:
    from tiltyard.prepare import transform

    with tempfile.TemporaryDirectory(prefix="tiltyard-test-") as folder:
        transform.parse(make_settings(Path(folder), postgres_url), Path(folder))
        return (Path(folder) / "target" / transform.PARSED).read_bytes()


@pytest.fixture
def cases_in_report(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """The report of a test that tries many cases says how many."""
    TRIED.clear()
    yield
    if TRIED:
        record_property("cases", TRIED[0])
