"""A text that is refused: DAG files are parsed all the same, and only its own source's checks say so."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tiltyard import release
from tiltyard.edge import work
from tiltyard.errors import CheckFailed
from tiltyard.prepare.transform import BuildSummary
from tiltyard.rails import Rails
from tiltyard.records import AcceptedRelease, FeaturesSummary, RefusedText
from tiltyard.settings import Settings

NOW = datetime(2016, 4, 2, tzinfo=UTC)


def test_a_spec_that_cannot_be_read_takes_no_dag_of_others_away(parse: Callable, models: Path) -> None:
    (models / "beta" / "spec.yaml").write_text("tier: [\n", encoding="utf-8")
    names = set(parse(models, "incident"))
    assert {"shadow", "alpha__training", "gamma__training"} <= names
    assert not [name for name in names if name.startswith("beta")]


def test_a_model_goes_on_under_its_last_accepted_spec(parse: Callable, models: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", models=models)
    texts = release.working(settings)
    release.put_in_force(settings, release.keep(settings, texts))
    (models / "beta" / "spec.yaml").write_text("tier: [\n", encoding="utf-8")
    (models / "gamma" / "spec.yaml").unlink()  # and nothing else of the checkout counts before it is accepted
    assert {"alpha__training", "beta__training", "gamma__training"} <= set(parse(models, "incident"))


REFUSED = {
    "models/churn": ("subscription",),
    "models/nobody_yet": ("subscription", "incident"),
    "models/portfolio.yaml": ("subscription", "incident"),
    "expectations/leakage.yaml": ("subscription", "incident"),
    "dbt/models/staging/incident/_incident__sources.yml": ("incident",),
    "dbt/models/features/ftr_customer__activity.sql": ("subscription",),
    "dbt/models/features/ftr_nobody__yet.sql": ("subscription", "incident"),
    "dbt/macros/incremental.sql": ("subscription", "incident"),
    "expectations/features/ftr_ticket__intake.yaml": ("incident",),
}


@pytest.mark.parametrize("path", REFUSED)
@pytest.mark.parametrize("source", ["subscription", "incident"])
def test_the_checks_of_a_source_name_what_is_refused_of_it(
    rails: Rails, monkeypatch: pytest.MonkeyPatch, path: str, source: str
) -> None:
    text = RefusedText(path=path, reason="line 4: it is no number", stands=path != "models/nobody_yet")
    rails.ledger.accept(AcceptedRelease(digest="d", checkout="c", accepted_at=NOW, files=1, refused=(text,)))
    from tiltyard.prepare import features

    monkeypatch.setattr(features, "check", lambda *_: FeaturesSummary(published=("spn_ticket_opened",)))
    build = BuildSummary(models=1, tests=1, seconds=0.0, slowest={}, as_of=NOW).to_json()
    if source in REFUSED[path]:
        with pytest.raises(CheckFailed, match=rf"{path} is refused, .*: line 4: it is no number"):
            work.check(rails, source, NOW, build)
    else:
        assert work.check(rails, source, NOW, build).published
