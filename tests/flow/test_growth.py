"""What one more model costs a night, by counting: nothing that is the same for all models is done for each."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import business_home
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard import spec as specs
from tiltyard.clock import night_closing
from tiltyard.edge import reports
from tiltyard.prepare import features
from tiltyard.prepare.transform import BuildSummary
from tiltyard.rails import Rails
from tiltyard.suites import gx

SOURCE = "subscription"
FIRST = clock.parse_as_of("2025-02-03")


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, eager_models: Path, deliveries: Path
) -> Iterator[tuple[Rails, BuildSummary]]:
    """A home of one model, whose tables are built and not checked."""
    folder = tmp_path_factory.mktemp("growth")
    shutil.copytree(eager_models, folder / "models")
    settings = business_home(folder, postgres_url, folder / "models", deliveries)
    with rails_module.opened(settings) as rails:
        features.ingest(rails, FIRST + timedelta(days=1))
        yield rails, features.transform(rails, FIRST + timedelta(days=1))


def clones(rails: Rails, number: int) -> None:
    for place in range(number):
        shutil.copytree(rails.settings.models / "churn", rails.settings.models / f"clone_{place}")


def test_a_table_is_checked_once_however_many_models_read_it(
    built: tuple[Rails, BuildSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    rails, build = built
    judged: list[str] = []
    genuine = gx.Session.validate

    def validate(session: gx.Session, suite: Any, batch: gx.Batch, *rest: Any, **named: Any) -> Any:
        judged.append(batch.table)
        return genuine(session, suite, batch, *rest, **named)

    monkeypatch.setattr(gx.Session, "validate", validate)
    of_one = features.check(rails, SOURCE, FIRST, build)
    alone = sorted(judged)
    judged.clear()
    clones(rails, 4)
    of_five = features.check(rails, SOURCE, FIRST + timedelta(days=1), build)
    assert len(specs.portfolio(rails.settings)) == 5
    assert sorted(judged) == alone
    assert of_five.checks == of_one.checks
    assert of_five.reports == (f"checks/{SOURCE}/{night_closing(FIRST) + timedelta(days=1)}.html",)
    kept = rails.lake.connection.execute(
        "select night, count(*), count(distinct kept) from lake.ops.check_result as kept group by night order by night"
    ).fetchall()
    assert [rows for _, rows, _ in kept] == [distinct for _, _, distinct in kept] == [of_one.checks, of_five.checks]
    assert not (rails.settings.reports / "latency").exists(), "nobody has looked yet"


def test_the_picture_of_a_models_latency_is_drawn_when_somebody_opens_it(built: tuple[Rails, BuildSummary]) -> None:
    rails, build = built
    features.check(rails, SOURCE, FIRST, build, render=False)
    assert reports.opened(rails.settings, "latency/churn.png") is None, "nothing is published"
    features.publish(rails, SOURCE, FIRST)
    picture = reports.opened(rails.settings, "latency/churn.png")
    assert picture == (rails.settings.reports / "latency" / "churn.png").resolve()
    assert picture.read_bytes().startswith(b"\x89PNG")
    drawn = picture.stat().st_mtime_ns
    assert reports.opened(rails.settings, "latency/churn.png") == picture
    assert picture.stat().st_mtime_ns == drawn, "not drawn again while nothing is newer"
    features.check(rails, SOURCE, FIRST + timedelta(days=1), build, render=False)
    features.publish(rails, SOURCE, FIRST + timedelta(days=1))
    assert reports.opened(rails.settings, "latency/churn.png") == picture
    assert picture.stat().st_mtime_ns > drawn
    assert reports.opened(rails.settings, "latency/nobody.png") is None
    assert reports.opened(rails.settings, "drift/churn/2025-02-03.html") is None


def test_specs_and_the_manifest_are_read_when_they_change(
    built: tuple[Rails, BuildSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    rails, _ = built
    specs.portfolio(rails.settings)
    read: list[Path] = []
    genuine = specs.read_yaml

    def read_yaml(path: Path) -> Any:
        read.append(path)
        return genuine(path)

    monkeypatch.setattr(specs, "read_yaml", read_yaml)
    for _ in range(10):
        before = specs.portfolio(rails.settings)
    assert read == []
    changed = rails.settings.models / "churn" / "spec.yaml"
    changed.write_text(changed.read_text().replace("owner: subscriptions", "owner: somebody-else"))
    after = specs.portfolio(rails.settings)
    assert read == [changed]
    assert [spec.owner for spec in after if spec.name == "churn"] == ["somebody-else"]
    assert [spec for spec in after if spec.name != "churn"] == [spec for spec in before if spec.name != "churn"]
    changed.write_text("owner: nobody\n")
    for _ in range(2):
        with pytest.raises(specs.BadInput, match=r"spec\.yaml"):
            specs.portfolio(rails.settings)
