"""A home with one source, `shop`, for whatever is fetched for it."""

import shutil
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.conftest import make_settings
from tiltyard import rails as rails_module
from tiltyard.rails import Rails


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Rails]:
    home = tmp_path_factory.mktemp("fetched")
    with rails_module.opened(make_settings(home, postgres_url, dbt=home / "dbt", sources=("shop",))) as rails:
        yield rails


@pytest.fixture
def rails(opened: Rails) -> Rails:
    for folder in (opened.settings.landing, opened.settings.quarantine):
        shutil.rmtree(folder, ignore_errors=True)
    for table in ("raw.visit", "ops.landed_file", "ops.ingest_run"):
        if opened.lake.has(table):
            opened.lake.connection.execute(f"delete from lake.{table}")
    with opened.ledger.engine.begin() as connection:
        connection.execute(sa.text("delete from event"))
    return opened
