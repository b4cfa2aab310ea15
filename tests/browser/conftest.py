"""A portfolio of a hundred models, served as Airflow mounts the plugin, and a browser that looks at it.

The browser is the system's Chromium. Where there is none these tests are skipped, and say so.
"""

import importlib.util
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType

import pytest
import uvicorn
import yaml
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext

from tests import chromium
from tiltyard import clock, ledger_tables
from tiltyard import rails as rails_module
from tiltyard.edge import airflow_settings
from tiltyard.rails import Rails
from tiltyard.records import (
    DriftSummary,
    FeaturesSummary,
    PromotionSummary,
    ShadowSummary,
    Summary,
    TableState,
    VersionFacts,
    VersionFigures,
)
from tiltyard.settings import ROOT, Settings

NIGHT = date(2025, 5, 30)
MODELS, NIGHTS = 100, 12
EVIL = "<img src=x onerror=\"document.title='acted'\"><script>document.title='acted'</script>"
"""What acts where a text is not escaped."""
LONG = "a_model_whose_name_is_as_long_as_a_name_may_be_x"


@dataclass(frozen=True)
class Site:
    """The plugin's pages on a port of their own."""

    address: str
    rails: Rails


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of one file, since nothing else of this process can run an event loop meanwhile."""
    with chromium.opened() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    specs(folder / "models")
    settings = Settings(
        home=folder / "home", models=folder / "models", database_url=postgres_url, database_prefix=f"{folder.name}_",
        sources=("subscription",),
    )  # fmt: skip
    with rails_module.opened(settings) as rails, pytest.MonkeyPatch.context() as patch:
        fill(rails)
        patch.setenv("TILTYARD_SOURCES", "subscription")
        for name, value in airflow_settings.tiltyard_env(settings).items():
            patch.setenv(name, value)
        plugin = loaded()
        with served(plugin) as address:
            yield Site(address, rails)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1280, "height": 900})
    yield opened
    opened.close()


def specs(folder: Path) -> None:
    """A hundred models; owners and names are whatever people write."""
    body = yaml.safe_load((ROOT / "models" / "churn" / "spec.yaml").read_text(encoding="utf-8"))
    names = ["index", LONG, *(f"churn_{place:03}" for place in range(MODELS - 2))]
    owners = ("risk", "service-desk", "Zoë 🦊", EVIL)
    for place, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        features = body["prediction"]["features"][: 3 if place % 10 == 0 else 2]  # a tenth read the table that is held
        own = body | {"owner": owners[place % len(owners)], "tier": 1 + place % 3}
        own["prediction"] = body["prediction"] | {"features": features}
        (folder / name / "spec.yaml").write_text(yaml.safe_dump(own, allow_unicode=True), encoding="utf-8")
        (folder / name / "card.md").write_text(f"# {name}\n\n{EVIL}\n", encoding="utf-8")
    shutil.copy(ROOT / "models" / "portfolio.yaml", folder / "portfolio.yaml")


def fill(rails: Rails) -> None:
    """A month of nights: most models are well, some are not."""
    ledger = rails.ledger
    held = TableState(night=NIGHT, table="ftr_customer__payments", state="held", since=NIGHT - timedelta(days=2),
                      good_night=NIGHT - timedelta(days=3), snapshot=1, reason=f"3 of 55 rows undated {EVIL}",
                      cause="ftr_customer__payments")  # fmt: skip
    names = sorted(path.parent.name for path in rails.settings.models.glob("*/spec.yaml"))
    runs = []
    for back in reversed(range(NIGHTS)):
        night = NIGHT - timedelta(days=back)
        states = (held,) if back == 0 else ()
        ledger.publish(states, night, "done" if back else "stopped", FeaturesSummary(snapshot=1), "subscription")
        for place, name in enumerate(names):
            for summary in ends(name, place, night):
                status = "failed" if place == 7 and not back and summary.stage == "shadow" else "done"
                runs.append({"stage": summary.stage, "model": name, "night": night, "status": status,
                             "summary": summary.to_json(), "recorded_at": clock.now()})  # fmt: skip
    with ledger.engine.begin() as connection:  # a transaction each would take most of a minute
        connection.execute(ledger_tables.stage_run.insert(), runs)
        for name in names:
            for version in (1, 2):
                trained = {"model": name, "version": version, "night": NIGHT - timedelta(days=30 - version)}
                kept = {
                    "inputs": f"{name}{version}",
                    "run_id": f"{name}{version}",
                    "digests": {},
                    "requested_by": "test",
                }
                facts = {"facts": VersionFacts().to_json(), "recorded_at": clock.now()}
                connection.execute(ledger_tables.version.insert().values(**trained, **kept, **facts))
            promoted = {"version": 1, "night": NIGHT - timedelta(days=20), "requested_by": "test", "approval": {}}
            row = {"model": name, **promoted, "recorded_at": clock.now()}
            connection.execute(ledger_tables.promotion.insert().values(**row))


def ends(name: str, place: int, night: date) -> tuple[Summary, ...]:
    """What the stages of a model said of a night."""
    figures = VersionFigures(role="champion", matured=900, immature=90, early=3, brier=0.08 + place / 2000)
    reasons = (f"evidence 12 of 20 {EVIL}", *(f"feature_{number} is late" for number in range(40)))
    is_judged, is_alarm = place % 5 == 0, place % 9 == 0
    return (
        ShadowSummary(night=night, tiers={"champion": 90}, metrics={"1": figures}, default_loss=0.1),
        PromotionSummary(
            night=night, model=name, challenger=2 if is_judged else None, verdict="hold",
            reasons=reasons if is_judged else (),
        ),
        DriftSummary(
            night=night, model=name, verdict="alarm" if is_alarm else "steady", alarm=is_alarm,
            reasons=(f"column moved {EVIL}",) if is_alarm else (),
        ),
    )  # fmt: skip


def loaded() -> ModuleType:
    """The plugin as Airflow executes it."""
    source = importlib.util.spec_from_file_location("portfolio_view", ROOT / "plugins" / "portfolio_view.py")
    assert source and source.loader
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


class served:
    """The plugin's app under its prefix, for somebody who is logged in."""

    def __init__(self, plugin: ModuleType) -> None:
        pages = plugin._app()
        pages.dependency_overrides[pages.router.dependencies[0].dependency] = lambda: None
        whole = FastAPI()
        whole.mount(plugin.PREFIX, pages)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}{plugin.PREFIX}"
        self.server = uvicorn.Server(uvicorn.Config(whole, port=self.port, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.05)
        return self.address

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()
